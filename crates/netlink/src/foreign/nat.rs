//! Rules that rewrite addresses: which ports they publish, and to whom.

use std::collections::{BTreeMap, BTreeSet};
use std::net::IpAddr;

use super::{Family, Foreign, ForeignChain, ForeignRule};
use crate::model::{CmpOp, Expr, Header, MetaKey, Reg};
use crate::model::{Hook, Key};

/// How a rule rewrites the addresses of a connection.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Nat {
    /// It goes to somebody else.
    Destination {
        /// To whom; `None` if the rule does not say it in itself.
        address: Option<IpAddr>,
        /// To which port; `None` leaves it.
        port: Option<u16>,
    },
    /// It seems to come from somebody else.
    Source,
}

/// Ports of this host that a rule sends on to somebody else.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Published {
    /// The table that has the rule.
    pub table: (Family, String),
    /// The transport protocol's number.
    pub protocol: u8,
    /// First and last.
    pub ports: (u16, u16),
    /// Only those of this address of the host.
    pub on: Option<IpAddr>,
    /// To whom.
    pub to: IpAddr,
    /// To which port; `None`: to the same.
    pub to_port: Option<u16>,
    /// What comes in by this interface is left alone: the bridge that the receiver is behind.
    pub bridge: Option<String>,
}

impl Foreign {
    /// The ports that it sends on, by rules that packets from outside come to.
    #[must_use]
    pub fn published(&self) -> Vec<Published> {
        let chains = self.entered_at_prerouting();
        let chains = self.chains.iter().filter(|chain| chains.contains(&*chain.name));
        chains.flat_map(|chain| &chain.rules).flat_map(|rule| self.published_by(rule)).collect()
    }

    fn entered_at_prerouting(&self) -> BTreeSet<&str> {
        let is_base = |chain: &&ForeignChain| {
            chain.is_nat && chain.base.is_some_and(|base| base.hook == Hook::Prerouting)
        };
        self.reached_from(self.chains.iter().filter(is_base).map(|chain| chain.name.as_str()))
    }

    fn published_by(&self, rule: &ForeignRule) -> Vec<Published> {
        let Some(Nat::Destination { address: Some(to), port }) = rule.nat else {
            return Vec::new();
        };
        let conditions = self.conditions(&rule.exprs);
        let Some(protocol) = conditions.protocol else { return Vec::new() };
        let published = |ports| Published {
            table: (self.family, self.name.clone()),
            protocol,
            ports,
            on: conditions.on,
            to,
            to_port: port,
            bridge: conditions.bridge.clone(),
        };
        conditions.ports.iter().copied().map(published).collect()
    }

    fn conditions(&self, exprs: &[Expr]) -> Conditions {
        let mut found = Conditions::default();
        let mut loaded: BTreeMap<Reg, What> = BTreeMap::new();
        let mut lowest = None;
        for expr in exprs {
            match expr {
                Expr::Meta { key, reg } => {
                    let what = match key {
                        MetaKey::L4proto => What::Protocol,
                        MetaKey::Iifname => What::Iifname,
                        _ => What::Other,
                    };
                    loaded.insert(*reg, what);
                }
                Expr::Payload { header, offset, len, reg } => {
                    let what = match (header, offset, len) {
                        (Header::Transport, 2, 2) => What::Port,
                        (Header::Network, 9, 1) if self.family == Family::Ip => What::Protocol,
                        (Header::Network, 16, 4) if self.family != Family::Ip6 => What::Address,
                        (Header::Network, 24, 16) if self.family != Family::Ip => What::Address,
                        _ => What::Other,
                    };
                    loaded.insert(*reg, what);
                }
                // A part of it, which is no longer what was loaded.
                Expr::Bitwise { reg, .. } => {
                    loaded.insert(*reg, What::Other);
                }
                Expr::Cmp { reg, op, data } => {
                    match (loaded.get(reg).unwrap_or(&What::Other), op, data.as_slice()) {
                        (What::Protocol, CmpOp::Eq, [protocol]) => found.protocol = Some(*protocol),
                        (What::Port, CmpOp::Eq, _) => {
                            found.ports.extend(port(data).map(|port| (port, port)));
                        }
                        (What::Port, CmpOp::Gte, _) => lowest = port(data),
                        (What::Port, CmpOp::Lte, _) => {
                            found.ports.extend(lowest.take().zip(port(data)));
                        }
                        (What::Address, CmpOp::Eq, _) => found.on = address(data),
                        (What::Iifname, CmpOp::Neq, name) => {
                            let name = name.split(|byte| *byte == 0).next().unwrap_or_default();
                            found.bridge = Some(String::from_utf8_lossy(name).into_owned());
                        }
                        _ => {}
                    }
                }
                Expr::Lookup { reg, set, inverted: false }
                    if loaded.get(reg) == Some(&What::Port) =>
                {
                    let set = self.sets.iter().find(|known| known.name == *set);
                    let keys = set.into_iter().flat_map(|set| &set.elements).map(|one| &one.key);
                    found.ports.extend(keys.filter_map(|key| match key {
                        Key::Value(one) => port(one).map(|port| (port, port)),
                        Key::Range(first, last) => port(first).zip(port(last)),
                    }));
                }
                _ => {}
            }
        }
        found
    }
}

/// What a register holds.
#[derive(Clone, Copy, PartialEq, Eq)]
enum What {
    Protocol,
    Port,
    Address,
    Iifname,
    Other,
}

/// What a rule wants of a packet.
#[derive(Default)]
struct Conditions {
    protocol: Option<u8>,
    ports: Vec<(u16, u16)>,
    on: Option<IpAddr>,
    bridge: Option<String>,
}

pub(super) fn port(data: &[u8]) -> Option<u16> {
    data.try_into().ok().map(u16::from_be_bytes)
}

/// From 4 or 16 bytes.
pub(super) fn address(data: &[u8]) -> Option<IpAddr> {
    let v4 = <[u8; 4]>::try_from(data).map(IpAddr::from);
    v4.or_else(|_| <[u8; 16]>::try_from(data).map(IpAddr::from)).ok()
}
