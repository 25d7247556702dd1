//! Address translation of foreign tables: the ports that they publish.

use std::collections::{BTreeMap, BTreeSet};
use std::net::IpAddr;

use super::{Family, ForeignChain, ForeignRule, ForeignTable};
use crate::ip_version::address_from_bytes;
use crate::model::{CmpOp, Expr, Header, MetaKey, Reg};
use crate::model::{Hook, Key};

/// The address translation of a rule.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Nat {
    /// The destination is rewritten.
    Destination {
        /// The new address; `None` if the rule takes it from elsewhere.
        address: Option<IpAddr>,
        /// The new port; `None` if the port stays.
        port: Option<u16>,
    },
    /// The source is rewritten.
    Source,
}

/// Ports of this host that a rule forwards to another address.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Published {
    /// The rule's table.
    pub table: (Family, String),
    /// The transport protocol's number.
    pub protocol: u8,
    /// The first and the last port.
    pub ports: (u16, u16),
    /// The address of the host that the ports are published on; `None` for all.
    pub on: Option<IpAddr>,
    /// The address that receives the packets.
    pub to: IpAddr,
    /// The port that receives the packets; `None` for the same port.
    pub to_port: Option<u16>,
}

impl ForeignTable {
    /// Returns the ports that the table publishes, by rules that packets from outside reach.
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
        };
        conditions.ports.iter().copied().map(published).collect()
    }

    fn conditions(&self, exprs: &[Expr]) -> Conditions {
        let mut found = Conditions::default();
        let mut loaded: BTreeMap<Reg, Field> = BTreeMap::new();
        let mut lowest = None;
        for expr in exprs {
            match expr {
                Expr::Meta { key, reg } => {
                    let field = match key {
                        MetaKey::L4proto => Field::Protocol,
                        _ => Field::Other,
                    };
                    loaded.insert(*reg, field);
                }
                Expr::Payload { header, offset, len, reg } => {
                    let field = match (header, offset, len) {
                        (Header::Transport, 2, 2) => Field::Port,
                        (Header::Network, 9, 1) if self.family == Family::Ip => Field::Protocol,
                        (Header::Network, 16, 4) if self.family != Family::Ip6 => Field::Address,
                        (Header::Network, 24, 16) if self.family != Family::Ip => Field::Address,
                        _ => Field::Other,
                    };
                    loaded.insert(*reg, field);
                }
                // Only a part of the field.
                Expr::Bitwise { reg, .. } => {
                    loaded.insert(*reg, Field::Other);
                }
                Expr::Cmp { reg, op, data } => {
                    match (loaded.get(reg).unwrap_or(&Field::Other), op, data.as_slice()) {
                        (Field::Protocol, CmpOp::Eq, [protocol]) => {
                            found.protocol = Some(*protocol);
                        }
                        (Field::Port, CmpOp::Eq, _) => {
                            found.ports.extend(port(data).map(|port| (port, port)));
                        }
                        (Field::Port, CmpOp::Gte, _) => lowest = port(data),
                        (Field::Port, CmpOp::Lte, _) => {
                            found.ports.extend(lowest.take().zip(port(data)));
                        }
                        (Field::Address, CmpOp::Eq, _) => found.on = address_from_bytes(data),
                        _ => {}
                    }
                }
                Expr::Lookup { reg, set, inverted: false }
                    if loaded.get(reg) == Some(&Field::Port) =>
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

/// The field that a register holds.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Field {
    Protocol,
    Port,
    Address,
    Other,
}

/// The conditions of a rule on a packet.
#[derive(Default)]
struct Conditions {
    protocol: Option<u8>,
    ports: Vec<(u16, u16)>,
    on: Option<IpAddr>,
}

pub(super) fn port(data: &[u8]) -> Option<u16> {
    data.try_into().ok().map(u16::from_be_bytes)
}
