//! Tables of other programs. They are read as far as this crate knows their expressions, and never
//! written.
//!
//! iptables-nft puts matches and targets of its own into the kernel, as opaque bytes. Those that
//! decide on ordinary packets are translated into the expressions that they stand for. The rest
//! stays [`Expr::Unknown`], and a verdict that depends on such a rule is reported as not certain.

mod filter;
mod nat;
mod xt;

use std::collections::BTreeSet;
use std::net::IpAddr;

use crate::error::{DecodeError, Error};
use crate::ip_version::IpVersion;
use crate::model::{Base, Chain, KeyType, Rule, Set};
use crate::model::{Expr, Verdict};
use crate::nft::Nft;
use crate::symbols::{NFPROTO_IPV4, NFPROTO_IPV6};
use crate::wire::attr::{Attrs, Writer};
use crate::wire::element::RawElements;
use crate::wire::message::{Request, nft};
use crate::wire::object;
use crate::wire::uapi::*;

pub use filter::{ForeignFilter, ForeignSourceNat, ForeignVerdict};
pub use nat::{Nat, Published};

/// Number of reads while others change the tables.
const MAX_READS: usize = 20;

/// The families of tables that see IP packets.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Family {
    /// IPv4.
    Ip,
    /// IPv6.
    Ip6,
    /// Both.
    Inet,
}

impl Family {
    const ALL: [Family; 3] = [Family::Ip, Family::Ip6, Family::Inet];

    /// Returns nft's word for the family.
    #[must_use]
    pub fn word(self) -> &'static str {
        match self {
            Family::Ip => "ip",
            Family::Ip6 => "ip6",
            Family::Inet => "inet",
        }
    }

    /// Returns whether tables of the family see packets of this address.
    #[must_use]
    pub fn sees(self, address: IpAddr) -> bool {
        match self {
            Family::Ip => address.is_ipv4(),
            Family::Ip6 => address.is_ipv6(),
            Family::Inet => true,
        }
    }

    fn number(self) -> u8 {
        match self {
            Family::Ip => NFPROTO_IPV4,
            Family::Ip6 => NFPROTO_IPV6,
            // `NFPROTO_INET`
            Family::Inet => 1,
        }
    }
}

/// A table that another program made.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ForeignTable {
    /// The family, which decides on the packets that the table sees.
    pub family: Family,
    /// The table's name.
    pub name: String,
    /// The table's chains.
    pub chains: Vec<ForeignChain>,
    /// The anonymous sets of rules, and the sets of ports. Other sets may be large, and hold
    /// addresses.
    pub sets: Vec<Set>,
}

/// A chain of a [`ForeignTable`].
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct ForeignChain {
    /// Unique in its table.
    pub name: String,
    /// The hook that packets enter it from; `None` for a chain that rules jump to.
    pub base: Option<Base>,
    /// The chain is of type `nat`: only the first packet of a connection enters it, and rules rewrite
    /// its addresses.
    pub is_nat: bool,
    /// The rules in their order.
    pub rules: Vec<ForeignRule>,
}

/// A rule of a [`ForeignChain`].
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct ForeignRule {
    /// The expressions, as far as this crate knows them.
    pub exprs: Vec<Expr>,
    /// The address translation of the rule, if it does any.
    pub nat: Option<Nat>,
}

impl ForeignTable {
    /// The chain of this name.
    #[must_use]
    pub fn chain(&self, name: &str) -> Option<&ForeignChain> {
        self.chains.iter().find(|chain| chain.name == name)
    }

    /// Returns these chains and all chains that a packet can reach from them by jumps.
    #[must_use]
    pub fn reached_from<'a>(
        &'a self,
        names: impl IntoIterator<Item = &'a str>,
    ) -> BTreeSet<&'a str> {
        let mut todo: Vec<&str> = names.into_iter().collect();
        let mut reached = BTreeSet::new();
        while let Some(name) = todo.pop() {
            if !reached.insert(name) {
                continue;
            }
            let rules = self.chain(name).into_iter().flat_map(|chain| &chain.rules);
            todo.extend(rules.flat_map(|rule| &rule.exprs).filter_map(|expr| match expr {
                Expr::Verdict(Verdict::Jump(chain) | Verdict::Goto(chain)) => Some(&**chain),
                _ => None,
            }));
        }
        reached
    }
}

impl ForeignRule {
    /// Translates the kernel's expressions of a rule in a table of this family. Returns one rule, or
    /// several that together do the same if iptables lists ports in one.
    #[must_use]
    pub fn read(family: Family, exprs: &[Expr]) -> Vec<ForeignRule> {
        xt::translate(family, exprs)
    }
}

impl Nft {
    /// Reads the tables of the families `ip`, `ip6` and `inet`, without those of `inet` that `ours`
    /// names. All are of one generation. Dormant tables, which see no packets, are left out.
    ///
    /// # Errors
    /// [`Error::Interrupted`] if others kept changing the ruleset; any but [`Error::Refused`].
    pub fn foreign_tables(&mut self, ours: &[&str]) -> Result<Vec<ForeignTable>, Error> {
        for _ in 0..MAX_READS {
            let generation = self.generation()?;
            let read = self.foreign_once(ours);
            if matches!(read, Err(Error::Interrupted)) || self.generation()? != generation {
                continue;
            }
            return read;
        }
        Err(Error::Interrupted)
    }

    /// Returns whether a table translates addresses in packets of this IP version.
    ///
    /// # Errors
    /// Any but [`Error::Refused`].
    pub fn has_nat(&mut self, version: IpVersion) -> Result<bool, Error> {
        let family = match version {
            IpVersion::V4 => Family::Ip,
            IpVersion::V6 => Family::Ip6,
        };
        let mut has_nat = false;
        for family in [family, Family::Inet] {
            self.dump(family, NFT_MSG_GETCHAIN, &[], |attrs| {
                has_nat |= attrs.first_string(NFTA_CHAIN_TYPE) == "nat";
                Ok(())
            })?;
        }
        Ok(has_nat)
    }

    fn foreign_once(&mut self, ours: &[&str]) -> Result<Vec<ForeignTable>, Error> {
        let mut tables = Vec::new();
        for family in Family::ALL {
            self.dump(family, NFT_MSG_GETTABLE, &[], |attrs| {
                let table = object::decode_table(attrs)?;
                let is_ours = family == Family::Inet && ours.contains(&&*table.name);
                if !table.dormant && !is_ours {
                    let (chains, sets) = (Vec::new(), Vec::new());
                    tables.push(ForeignTable { family, name: table.name, chains, sets });
                }
                Ok(())
            })?;
            self.dump(family, NFT_MSG_GETCHAIN, &[], |attrs| {
                let of = attrs.first_string(NFTA_CHAIN_TABLE);
                let is_of = |table: &&mut ForeignTable| table.family == family && table.name == of;
                if let Some(table) = tables.iter_mut().find(is_of) {
                    table.chains.push(decode_chain(attrs)?);
                }
                Ok(())
            })?;
        }
        for table in &mut tables {
            let (family, name) = (table.family, &table.name);
            for chain in &mut table.chains {
                let of_chain = [(NFTA_RULE_TABLE, &**name), (NFTA_RULE_CHAIN, &chain.name)];
                self.dump(family, NFT_MSG_GETRULE, &of_chain, |attrs| {
                    let Rule { exprs, .. } = object::decode_rule(attrs)?;
                    chain.rules.extend(ForeignRule::read(family, &exprs));
                    Ok(())
                })?;
            }
            table.sets = self.listed_in_rules(family, name, &table.chains)?;
        }
        Ok(tables)
    }

    fn listed_in_rules(
        &mut self,
        family: Family,
        table: &str,
        chains: &[ForeignChain],
    ) -> Result<Vec<Set>, Error> {
        let used = chains.iter().flat_map(|chain| &chain.rules).flat_map(|rule| &rule.exprs);
        let used: BTreeSet<&String> = used
            .filter_map(|expr| match expr {
                Expr::Lookup { set, .. } => Some(set),
                _ => None,
            })
            .collect();
        if used.is_empty() {
            return Ok(Vec::new());
        }
        let mut sets = Vec::new();
        self.dump(family, NFT_MSG_GETSET, &[(NFTA_SET_TABLE, table)], |attrs| {
            sets.extend(decode_set(attrs)?.filter(|set| used.contains(&set.name)));
            Ok(())
        })?;
        for set in &mut sets {
            let of_set = [(NFTA_SET_ELEM_LIST_TABLE, table), (NFTA_SET_ELEM_LIST_SET, &*set.name)];
            let mut raw = RawElements::default();
            self.dump(family, NFT_MSG_GETSETELEM, &of_set, |attrs| Ok(raw.add(attrs)?))?;
            set.elements = raw.finish(set);
        }
        Ok(sets)
    }

    /// Asks for all objects of a kind. The type of the answer is one less than that of the request.
    fn dump(
        &mut self,
        family: Family,
        ask: u16,
        names: &[(u16, &str)],
        each: impl FnMut(Attrs<'_>) -> Result<(), Error>,
    ) -> Result<(), Error> {
        let mut body = Writer::default();
        for (kind, name) in names {
            body.string(*kind, name);
        }
        let request = Request::dump(nft(ask), [family.number(), 0, 0, 0], body);
        self.ask(request, nft(ask.wrapping_sub(1)), each)
    }
}

/// Decodes a chain of any type and at any hook.
fn decode_chain(attrs: Attrs<'_>) -> Result<ForeignChain, DecodeError> {
    let kind = attrs.first_string(NFTA_CHAIN_TYPE);
    let Chain { name, base, .. } = match object::decode_chain_of(attrs, &kind) {
        // A chain at a hook of a device, which this crate does not evaluate.
        Err(DecodeError::Unknown { .. }) => {
            Chain { name: attrs.first_string(NFTA_CHAIN_NAME), ..Chain::default() }
        }
        chain => chain?,
    };
    Ok(ForeignChain { name, base, is_nat: kind == "nat", rules: Vec::new() })
}

/// Decodes a set; `None` for one that is not read.
fn decode_set(attrs: Attrs<'_>) -> Result<Option<Set>, DecodeError> {
    let mut set = Set { name: attrs.first_string(NFTA_SET_NAME), ..Set::default() };
    let (mut flags, mut key) = (0, 0);
    for attr in attrs {
        let attr = attr?;
        match attr.kind {
            NFTA_SET_FLAGS => flags = attr.u32()?,
            NFTA_SET_KEY_TYPE => key = attr.u32()?,
            _ => {}
        }
    }
    set.interval = flags & NFT_SET_INTERVAL != 0;
    let Ok(parts) = object::decode_key_type(key) else { return Ok(None) };
    let in_place = flags & NFT_SET_ANONYMOUS != 0;
    let simple = parts.len() == 1 || !set.interval;
    let wanted = flags & NFT_SET_MAP == 0 && simple && (in_place || parts == PORTS);
    set.key = parts;
    Ok(wanted.then_some(set))
}

const PORTS: [KeyType; 1] = [KeyType::InetService];
