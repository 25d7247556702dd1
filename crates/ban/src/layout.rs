//! How bans lie in the kernel: which set, which key, which rule. Pure.
//!
//! One hash set for each prefix length in use, matched by a masked lookup: adding is as fast with
//! a million bans as with one, overlapping prefixes need no thought, and each ban has its own
//! timeout. An interval set has none of the three.

use std::collections::BTreeSet;
use std::net::IpAddr;
use std::time::Duration;

use ipnetwork::IpNetwork;
use nfguard_netlink::{
    Base, Chain, CmpOp, Counter, Element, Expr, Header, Hook, Key, KeyType, MetaKey, Op, Policy,
    Reg, Rule, Set, Table, Verdict, protocol,
};

use crate::never::NeverBan;
use crate::target::Target;

/// The table that bans lie in.
pub const TABLE: &str = "nfguard_bans";

/// The table's comment, by which nfguard knows it as its own.
pub const MARK: &str = "nfguard bans, format 1";

/// What one set holds at most. One less than a multiple of 65,536, so that the kernel reserves the
/// largest table for it that it ever reserves in advance.
const SIZE: u32 = 64 * 65_536 - 1;

const REG: Reg = Reg::FIRST;

/// A family and a prefix length: what one set is for.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub(crate) struct Length {
    is_v6: bool,
    bits: u8,
}

impl Length {
    pub(crate) fn of(target: Target) -> Length {
        let network = target.network();
        Length { is_v6: network.is_ipv6(), bits: network.prefix() }
    }

    /// Its set's name: `v4/32`, `v6/64`.
    pub(crate) fn set_name(self) -> String {
        format!("{}/{}", self.chain(), self.bits)
    }

    pub(crate) fn of_set(name: &str) -> Option<Length> {
        let (family, bits) = name.split_once('/')?;
        let is_v6 = match family {
            "v4" => false,
            "v6" => true,
            _ => return None,
        };
        let bits = bits.parse().ok().filter(|bits| *bits <= if is_v6 { 128 } else { 32 })?;
        Some(Length { is_v6, bits })
    }

    fn chain(self) -> &'static str {
        if self.is_v6 { "v6" } else { "v4" }
    }

    fn bytes(self) -> usize {
        if self.is_v6 { 16 } else { 4 }
    }

    /// The set and the rule that this length needs.
    pub(crate) fn install(self) -> [Op; 2] {
        let key = if self.is_v6 { KeyType::Ipv6Addr } else { KeyType::Ipv4Addr };
        let set = Set {
            name: self.set_name(),
            key: vec![key],
            timeout: Some(Duration::ZERO),
            size: Some(SIZE),
            ..Set::default()
        };
        let mut exprs = vec![source_address(self.is_v6)];
        if usize::from(self.bits) < self.bytes() * 8 {
            exprs.push(Expr::Bitwise {
                reg: REG,
                mask: mask(self.bytes(), self.bits),
                xor: vec![0; self.bytes()],
            });
        }
        exprs.push(lookup(&self.set_name(), false));
        exprs.push(source_address(self.is_v6));
        exprs.push(lookup(&never_set(self.is_v6).name, true));
        exprs.push(Expr::Counter(counter(self.is_v6).to_owned()));
        exprs.push(Expr::Verdict(Verdict::Drop));
        let rule = Rule { exprs: [family(self.is_v6), exprs].concat(), comment: None };
        [Op::AddSet(set), Op::AddRule { chain: self.chain().to_owned(), rule }]
    }
}

/// The key of a target in its set.
pub(crate) fn key(target: Target) -> Vec<u8> {
    match target.network().network() {
        IpAddr::V4(address) => address.octets().to_vec(),
        IpAddr::V6(address) => address.octets().to_vec(),
    }
}

/// The target of a key in the set of this length.
pub(crate) fn target(length: Length, key: &Key) -> Option<Target> {
    let Key::Value(bytes) = key else { return None };
    let address: IpAddr = if length.is_v6 {
        <[u8; 16]>::try_from(bytes.as_slice()).ok()?.into()
    } else {
        <[u8; 4]>::try_from(bytes.as_slice()).ok()?.into()
    };
    Some(IpNetwork::new(address, length.bits).ok()?.into())
}

/// The table with no ban in it.
pub(crate) fn empty_table() -> Table {
    let discovery = Set {
        name: "neighbour_discovery".to_owned(),
        key: vec![KeyType::Icmpv6Type],
        elements: NEIGHBOUR_DISCOVERY.map(|kind| Key::Value(vec![kind]).into()).to_vec(),
        ..Set::default()
    };
    let base = Base { hook: Hook::Prerouting, priority: -300, policy: Policy::Accept };
    let jump = |is_v6: bool, chain: &str| Rule {
        exprs: [family(is_v6), vec![Expr::Verdict(Verdict::Goto(chain.to_owned()))]].concat(),
        comment: None,
    };
    let plain = |name: &str, rules| Chain { name: name.to_owned(), rules, ..Chain::default() };
    Table {
        name: TABLE.to_owned(),
        comment: Some(MARK.to_owned()),
        counters: [false, true]
            .map(|is_v6| Counter { name: counter(is_v6).to_owned(), comment: None })
            .to_vec(),
        sets: vec![never_set(false), never_set(true), discovery],
        chains: vec![
            Chain {
                name: "bans".to_owned(),
                base: Some(base),
                comment: Some("ahead of conntrack, for host and containers alike".to_owned()),
                rules: vec![jump(false, "v4"), jump(true, "v6")],
            },
            plain("v4", Vec::new()),
            plain("v6", vec![accept_neighbour_discovery()]),
        ],
        ..Table::default()
    }
}

/// The two sets of those who are spared, and what is to be in them.
pub(crate) fn spared(never: &NeverBan) -> [Set; 2] {
    [false, true].map(|is_v6| {
        let ranges: BTreeSet<Key> = outermost(never, is_v6)
            .into_iter()
            .map(|network| {
                let first = key(network.into());
                let network_bits = mask(first.len(), network.prefix());
                let last = first.iter().zip(network_bits).map(|(byte, mask)| byte | !mask);
                Key::Range(first.clone(), last.collect())
            })
            .collect();
        Set { elements: ranges.into_iter().map(Element::from).collect(), ..never_set(is_v6) }
    })
}

/// The networks that lie in no other one: the kernel refuses ranges that overlap.
fn outermost(never: &NeverBan, is_v6: bool) -> Vec<IpNetwork> {
    let all: BTreeSet<IpNetwork> =
        never.networks().filter(|network| network.is_ipv6() == is_v6).collect();
    let within = |inner: &IpNetwork, outer: &IpNetwork| {
        inner != outer && outer.prefix() <= inner.prefix() && outer.contains(inner.network())
    };
    all.iter().filter(|inner| !all.iter().any(|outer| within(inner, outer))).copied().collect()
}

/// Router and neighbour solicitation and advertisement: to ban a neighbour must not mean to lose
/// the way to it.
const NEIGHBOUR_DISCOVERY: [u8; 4] = [133, 134, 135, 136];

fn accept_neighbour_discovery() -> Rule {
    let cmp = |data| Expr::Cmp { reg: REG, op: CmpOp::Eq, data };
    let exprs = vec![
        Expr::Meta { key: MetaKey::L4proto, reg: REG },
        cmp(vec![protocol::ICMPV6]),
        Expr::Payload { header: Header::Transport, offset: 0, len: 1, reg: REG },
        lookup("neighbour_discovery", false),
        Expr::Payload { header: Header::Network, offset: 7, len: 1, reg: REG },
        cmp(vec![255]),
        Expr::Verdict(Verdict::Accept),
    ];
    Rule { exprs: [family(true), exprs].concat(), comment: None }
}

fn family(is_v6: bool) -> Vec<Expr> {
    // AF_INET6 and AF_INET.
    let number = if is_v6 { 10 } else { 2 };
    vec![
        Expr::Meta { key: MetaKey::Nfproto, reg: REG },
        Expr::Cmp { reg: REG, op: CmpOp::Eq, data: vec![number] },
    ]
}

fn source_address(is_v6: bool) -> Expr {
    let (offset, len) = if is_v6 { (8, 16) } else { (12, 4) };
    Expr::Payload { header: Header::Network, offset, len, reg: REG }
}

fn lookup(set: &str, inverted: bool) -> Expr {
    Expr::Lookup { reg: REG, set: set.to_owned(), inverted }
}

fn never_set(is_v6: bool) -> Set {
    let (name, key) =
        if is_v6 { ("never/v6", KeyType::Ipv6Addr) } else { ("never/v4", KeyType::Ipv4Addr) };
    Set {
        name: name.to_owned(),
        key: vec![key],
        interval: true,
        comment: Some("never banned".to_owned()),
        ..Set::default()
    }
}

fn counter(is_v6: bool) -> &'static str {
    if is_v6 { "dropped/v6" } else { "dropped/v4" }
}

/// The first `bits` of so many bytes.
fn mask(bytes: usize, bits: u8) -> Vec<u8> {
    (0..bytes)
        .map(|at| {
            let ones = usize::from(bits).saturating_sub(at * 8).min(8);
            u8::try_from((0xff00_usize >> ones) & 0xff).unwrap_or(0)
        })
        .collect()
}
