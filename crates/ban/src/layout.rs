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
    Base, Chain, ChainPolicy, CmpOp, Element, Expr, Header, Hook, Key, KeyType, MetaKey, Reg, Rule,
    Set, Table, Verdict, protocol,
};

use crate::never::Span;
use crate::spared::{never_prefixes, never_set};
use crate::target::{Port, Protocol, Target};

/// The table that bans lie in.
pub const TABLE: &str = "nfguard_bans";

/// The table's comment, by which nfguard knows it as its own.
pub const MARK: &str = "nfguard bans, format 1";

/// How the comment of every version begins.
pub(crate) const ANY_MARK: &str = "nfguard bans, format ";

/// What one set holds at most. 65,536 n + 65,535 has the kernel reserve room for 65,535 elements in
/// advance, 65,536 n for none (measured, Linux 6.18). Room costs a megabyte, so only the sets that
/// most bans go to have it.
const ROOMY: u32 = 64 * 65_536 - 1;
const SPARE: u32 = 63 * 65_536;

const REG: Reg = Reg::FIRST;

/// What the table is known by: its name and its comment.
#[must_use]
pub fn known_by() -> Table {
    Table { name: TABLE.to_owned(), comment: Some(MARK.to_owned()), ..Table::default() }
}

/// One set of bans: those of one family and one prefix length, from all ports or from one each.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub(crate) struct BanSet {
    is_v6: bool,
    bits: u8,
    by_port: bool,
}

impl BanSet {
    pub(crate) fn of(target: Target, port: Option<Port>) -> BanSet {
        let network = target.network();
        BanSet { is_v6: network.is_ipv6(), bits: network.prefix(), by_port: port.is_some() }
    }

    /// `v4/32`, `v6/64`, `v4/32/ports`.
    pub(crate) fn name(self) -> String {
        let ports = if self.by_port { PORTS } else { "" };
        format!("{}/{}{ports}", self.chain(), self.bits)
    }

    pub(crate) fn named(name: &str) -> Option<BanSet> {
        let (lengths, by_port) = match name.strip_suffix(PORTS) {
            Some(lengths) => (lengths, true),
            None => (name, false),
        };
        let (family, bits) = lengths.split_once('/')?;
        let is_v6 = match family {
            "v4" => false,
            "v6" => true,
            _ => return None,
        };
        let bits = bits.parse().ok().filter(|bits| *bits <= if is_v6 { 128 } else { 32 })?;
        Some(BanSet { is_v6, bits, by_port })
    }

    /// The most bans that it holds.
    pub(crate) fn size(self) -> u32 {
        match (self.is_v6, self.bits, self.by_port) {
            (false, 32, false) | (true, Target::V6_SOURCE, false) => ROOMY,
            _ => SPARE,
        }
    }

    fn chain(self) -> &'static str {
        if self.is_v6 { "v6" } else { "v4" }
    }

    fn bytes(self) -> usize {
        if self.is_v6 { 16 } else { 4 }
    }

    pub(crate) fn set(self) -> Set {
        let address = if self.is_v6 { KeyType::Ipv6Addr } else { KeyType::Ipv4Addr };
        let mut key = vec![address];
        if self.by_port {
            key.extend([KeyType::InetProto, KeyType::InetService]);
        }
        Set {
            name: self.name(),
            key,
            timeout: Some(Duration::ZERO),
            size: Some(self.size()),
            ..Set::default()
        }
    }

    /// Drops what somebody in the set sends, or is sent.
    fn rule(self, end: End, spared: &Spared) -> Rule {
        let mut exprs = vec![address_at(end, self.is_v6)];
        if usize::from(self.bits) < self.bytes() * 8 {
            exprs.push(Expr::Bitwise {
                reg: REG,
                mask: mask(self.bytes(), self.bits),
                xor: vec![0; self.bytes()],
            });
        }
        if self.by_port {
            let [protocol, port] = port_registers(self.is_v6);
            exprs.push(Expr::Meta { key: MetaKey::L4proto, reg: protocol });
            // TCP's and UDP's destination port; of other protocols no such key is in the set.
            exprs.push(Expr::Payload { header: Header::Transport, offset: 2, len: 2, reg: port });
        }
        exprs.push(lookup(&self.name(), false));
        drop_unless_spared(end, self.is_v6, spared, exprs, None)
    }
}

/// One end of a packet's way.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum End {
    Source,
    Destination,
}

/// What ends the name of a set of bans by port.
const PORTS: &str = "/ports";

/// Where protocol and port stand behind the address.
fn port_registers(is_v6: bool) -> [Reg; 2] {
    let first = if is_v6 { 4 } else { 1 };
    [first, first + 1].map(|index| Reg::new(index).unwrap_or(REG))
}

/// Where a ban lies: its set and its key there.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) struct Place {
    pub(crate) set: BanSet,
    pub(crate) key: Vec<u8>,
}

impl Place {
    pub(crate) fn of(target: Target, port: Option<Port>) -> Place {
        let mut key = Vec::with_capacity(if port.is_some() { 24 } else { 16 });
        push_key(&mut key, target, port);
        Place { set: BanSet::of(target, port), key }
    }

    /// Who is banned from what, by the element of this key in this set.
    pub(crate) fn read(set: BanSet, key: &Key) -> Option<(Target, Option<Port>)> {
        let Key::Value(key) = key else { return None };
        let (address, rest) = key.split_at_checked(set.bytes())?;
        let target = IpNetwork::new(self::address(address)?, set.bits).ok()?.into();
        let port = match (set.by_port, rest) {
            (false, []) => None,
            (true, [protocol, 0, 0, 0, high, low, 0, 0]) => Some(Port {
                protocol: match *protocol {
                    protocol::TCP => Protocol::Tcp,
                    protocol::UDP => Protocol::Udp,
                    _ => return None,
                },
                number: u16::from_be_bytes([*high, *low]),
            }),
            _ => return None,
        };
        Some((target, port))
    }
}

/// The key of a ban in its set.
pub(crate) fn push_key(out: &mut Vec<u8>, target: Target, port: Option<Port>) {
    push_address(out, target.network().network());
    // Each part of a key is padded to four bytes.
    if let Some(port) = port {
        let [high, low] = port.number.to_be_bytes();
        out.extend([protocol_number(port.protocol), 0, 0, 0, high, low, 0, 0]);
    }
}

pub(crate) fn protocol_number(protocol: Protocol) -> u8 {
    match protocol {
        Protocol::Tcp => protocol::TCP,
        Protocol::Udp => protocol::UDP,
    }
}

pub(crate) fn push_address(out: &mut Vec<u8>, address: IpAddr) {
    match address {
        IpAddr::V4(address) => out.extend(address.octets()),
        IpAddr::V6(address) => out.extend(address.octets()),
    }
}

pub(crate) fn address(bytes: &[u8]) -> Option<IpAddr> {
    let v4 = || <[u8; 4]>::try_from(bytes).map(IpAddr::from);
    v4().or_else(|_| <[u8; 16]>::try_from(bytes).map(IpAddr::from)).ok()
}

/// The table with no ban in it.
pub(crate) fn empty_table() -> Table {
    let discovery = Set {
        name: "neighbour_discovery".to_owned(),
        key: vec![KeyType::Icmpv6Type],
        elements: NEIGHBOUR_DISCOVERY.map(|kind| Key::Value(vec![kind]).into()).to_vec(),
        ..Set::default()
    };
    let base = Base { hook: Hook::Prerouting, priority: -300, policy: ChainPolicy::Accept };
    let spared = FAMILIES.iter().flat_map(|is_v6| [never_set(*is_v6), never_prefixes(*is_v6)]);
    Table {
        name: TABLE.to_owned(),
        comment: Some(MARK.to_owned()),
        sets: spared.chain([discovery]).collect(),
        chains: vec![
            Chain { name: "v6".to_owned(), ..Chain::default() },
            Chain {
                name: "bans".to_owned(),
                base: Some(base),
                comment: Some("ahead of conntrack, for host and containers alike".to_owned()),
                rules: Vec::new(),
            },
        ],
        ..Table::default()
    }
}

/// Whether a table of ours can drop anybody at all: its chains are there, with rules, and awake.
#[must_use]
pub fn is_whole(table: &Table) -> bool {
    let has_rules = |chain: &Chain| table.chain(&chain.name).is_some_and(|it| !it.rules.is_empty());
    !table.dormant && empty_table().chains.iter().all(has_rules)
}

pub(crate) const FAMILIES: [bool; 2] = [false, true];

/// How rules of one family find who is spared.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(crate) struct Spared {
    /// The single addresses; `None`: too many to be compared one by one.
    pub(crate) few: Option<Vec<Vec<u8>>>,
    /// Whether there are allies that are more than one address.
    pub(crate) prefixes: bool,
}

/// What decides which rules there are.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(crate) struct Shape {
    pub(crate) sets: BTreeSet<BanSet>,
    /// Who is spared, IPv4 and IPv6.
    pub(crate) spared: [Spared; 2],
    /// Whether there are feeds, IPv4 and IPv6.
    pub(crate) has_feeds: [bool; 2],
    /// Whether nothing is sent to the banned either.
    pub(crate) outgoing: bool,
}

impl Shape {
    /// Each chain with its rules. IPv4 has no chain of its own: a jump is as dear as a look-up.
    pub(crate) fn chains(&self) -> Vec<(&'static str, Vec<Rule>)> {
        let [v4, v6] = FAMILIES.map(|is_v6| {
            let mut rules = self.ban_rules(End::Source, is_v6);
            let [v4, v6] = self.has_feeds;
            if if is_v6 { v6 } else { v4 } {
                let jump = Expr::Verdict(Verdict::Jump(feed_chain(is_v6).to_owned()));
                rules.push(Rule { exprs: [family(is_v6), vec![jump]].concat(), comment: None });
            }
            rules
        });
        let go = Expr::Verdict(Verdict::Goto("v6".to_owned()));
        let to_v6 = Rule { exprs: [family(true), vec![go]].concat(), comment: None };
        let discovery = vec![accept_neighbour_discovery()];
        let mut chains =
            vec![("bans", [v4, vec![to_v6]].concat()), ("v6", [discovery.clone(), v6].concat())];
        if self.outgoing {
            let families = FAMILIES.map(|is_v6| self.ban_rules(End::Destination, is_v6)).concat();
            chains.push((OUTGOING, [discovery, families].concat()));
        }
        chains
    }

    fn ban_rules(&self, end: End, is_v6: bool) -> Vec<Rule> {
        let [v4, v6] = &self.spared;
        let spared = if is_v6 { v6 } else { v4 };
        // The longest prefixes first, for there are most of them. A ban from one port is about
        // what the banned sends.
        let sets = self.sets.iter().rev().filter(|set| set.is_v6 == is_v6);
        let sets = sets.filter(|set| end == End::Source || !set.by_port);
        sets.map(|set| set.rule(end, spared)).collect()
    }
}

/// Where what is sent to the banned is dropped.
pub(crate) const OUTGOING: &str = "outgoing";

/// The chains that lead there: what this host sends, and what it passes on for its containers.
pub(crate) fn outgoing_chains() -> Vec<Chain> {
    let go = Expr::Verdict(Verdict::Goto(OUTGOING.to_owned()));
    let base = |name: &str, hook| Chain {
        name: name.to_owned(),
        base: Some(Base { hook, priority: -300, policy: ChainPolicy::Accept }),
        comment: Some("nothing to the banned".to_owned()),
        rules: vec![Rule { exprs: vec![go.clone()], comment: None }],
    };
    let outgoing = Chain { name: OUTGOING.to_owned(), ..Chain::default() };
    vec![outgoing, base("output", Hook::Output), base("forward", Hook::Forward)]
}

/// Where the rules of feeds stand.
pub(crate) fn feed_chain(is_v6: bool) -> &'static str {
    if is_v6 { "feeds/v6" } else { "feeds/v4" }
}

/// Drops who is in the set of a feed.
pub(crate) fn feed_rule(is_v6: bool, set: &str, counter: &str) -> Rule {
    let exprs = vec![address_at(End::Source, is_v6), lookup(set, false)];
    // A feed is cut out around those who are spared; the rest is for what came on the list later.
    let spared = Spared { few: None, prefixes: true };
    let count = Expr::Counter(counter.to_owned());
    drop_unless_spared(End::Source, is_v6, &spared, exprs, Some(count))
}

/// Not counted unless that is asked for: to count takes a third of a look-up's time (Linux 6.18).
fn drop_unless_spared(
    end: End,
    is_v6: bool,
    spared: &Spared,
    found: Vec<Expr>,
    count: Option<Expr>,
) -> Rule {
    let mut exprs = [family(is_v6), found].concat();
    // The register still has the address, unless a part of it was looked up.
    if exprs.iter().any(|expr| matches!(expr, Expr::Bitwise { .. })) {
        exprs.push(address_at(end, is_v6));
    }
    match &spared.few {
        Some(few) => exprs.extend(few.iter().map(|address| differs(address))),
        None => exprs.push(lookup(&never_set(is_v6).name, true)),
    }
    exprs.extend(spared.prefixes.then(|| lookup(&never_prefixes(is_v6).name, true)));
    exprs.extend(count);
    exprs.push(Expr::Verdict(Verdict::Drop));
    Rule { exprs, comment: None }
}

fn differs(address: &[u8]) -> Expr {
    Expr::Cmp { reg: REG, op: CmpOp::Neq, data: address.to_vec() }
}

/// The set of a feed, empty.
pub(crate) fn feed_set(is_v6: bool, name: String, comment: String) -> Set {
    Set { name, comment: Some(comment), ..never_prefixes(is_v6) }
}

/// Addresses from number to number as an element of a feed's set.
pub(crate) fn feed_element(is_v6: bool, (first, last): Span) -> Element {
    let bytes = |number: u128| {
        let bytes = number.to_be_bytes();
        bytes.get(if is_v6 { 0 } else { 12 }..).unwrap_or_default().to_vec()
    };
    Key::Range(bytes(first), bytes(last)).into()
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

fn address_at(end: End, is_v6: bool) -> Expr {
    let (offset, len) = match (end, is_v6) {
        (End::Source, false) => (12, 4),
        (End::Source, true) => (8, 16),
        (End::Destination, false) => (16, 4),
        (End::Destination, true) => (24, 16),
    };
    Expr::Payload { header: Header::Network, offset, len, reg: REG }
}

fn lookup(set: &str, inverted: bool) -> Expr {
    Expr::Lookup { reg: REG, set: set.to_owned(), inverted }
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
