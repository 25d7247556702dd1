//! How bans lie in the kernel: which set, which key, which rule. Pure.
//!
//! One hash set for each prefix length in use, matched by a masked lookup: adding is as fast with
//! a million bans as with one, overlapping prefixes need no thought, and each ban has its own
//! timeout. An interval set has none of the three.

use std::net::IpAddr;
use std::time::Duration;

use ipnetwork::IpNetwork;
use nfguard_netlink::{
    Base, Chain, CmpOp, Counter, Element, Expr, Header, Hook, Key, KeyType, MetaKey, Op, Policy,
    Reg, Rule, Set, Table, Verdict, protocol,
};

use crate::never::{Ally, NeverBan, Span};
use crate::note;
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

    /// The set and the rule that these bans need.
    pub(crate) fn install(self) -> [Op; 2] {
        let address = if self.is_v6 { KeyType::Ipv6Addr } else { KeyType::Ipv4Addr };
        let mut key = vec![address];
        let mut exprs = vec![source_address(self.is_v6)];
        if usize::from(self.bits) < self.bytes() * 8 {
            exprs.push(Expr::Bitwise {
                reg: REG,
                mask: mask(self.bytes(), self.bits),
                xor: vec![0; self.bytes()],
            });
        }
        if self.by_port {
            key.extend([KeyType::InetProto, KeyType::InetService]);
            let [protocol, port] = port_registers(self.is_v6);
            exprs.push(Expr::Meta { key: MetaKey::L4proto, reg: protocol });
            // TCP's and UDP's destination port; of other protocols no such key is in the set.
            exprs.push(Expr::Payload { header: Header::Transport, offset: 2, len: 2, reg: port });
        }
        exprs.push(lookup(&self.name(), false));
        exprs.push(source_address(self.is_v6));
        exprs.push(lookup(&never_set(self.is_v6).name, true));
        exprs.push(Expr::Counter(counter(self.is_v6).to_owned()));
        exprs.push(Expr::Verdict(Verdict::Drop));
        let rule = Rule { exprs: [family(self.is_v6), exprs].concat(), comment: None };
        let set = Set {
            name: self.name(),
            key,
            timeout: Some(Duration::ZERO),
            size: Some(self.size()),
            ..Set::default()
        };
        [Op::AddSet(set), Op::AddRule { chain: self.chain().to_owned(), rule }]
    }
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
        // Each part of a key is padded to four bytes.
        let mut key = Vec::with_capacity(if port.is_some() { 24 } else { 16 });
        push_address(&mut key, target.network().network());
        if let Some(port) = port {
            let [high, low] = port.number.to_be_bytes();
            key.extend([protocol_number(port.protocol), 0, 0, 0, high, low, 0, 0]);
        }
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

fn protocol_number(protocol: Protocol) -> u8 {
    match protocol {
        Protocol::Tcp => protocol::TCP,
        Protocol::Udp => protocol::UDP,
    }
}

fn push_address(out: &mut Vec<u8>, address: IpAddr) {
    match address {
        IpAddr::V4(address) => out.extend(address.octets()),
        IpAddr::V6(address) => out.extend(address.octets()),
    }
}

fn address(bytes: &[u8]) -> Option<IpAddr> {
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
        let mut elements: Vec<Element> = outermost(never.allies(), is_v6)
            .map(|ally| {
                let bytes = |address| {
                    let mut bytes = Vec::new();
                    push_address(&mut bytes, address);
                    bytes
                };
                let first = bytes(ally.network.network());
                let key = Key::Range(first, bytes(ally.network.broadcast()));
                Element { key, timeout: None, comment: Some(note::clean(&ally.reason)) }
            })
            .collect();
        elements.sort_by(|a, b| a.key.cmp(&b.key));
        Set { elements, ..never_set(is_v6) }
    })
}

/// Who is spared, by an element of one of [`spared`].
pub(crate) fn ally(element: Element) -> Option<(IpNetwork, String)> {
    let Key::Range(first, last) = element.key else { return None };
    let same = first.iter().zip(&last).map(|(first, last)| (first ^ last).leading_zeros());
    let mut bits = 0;
    for equal in same {
        bits += equal;
        if equal < 8 {
            break;
        }
    }
    let network = IpNetwork::new(address(&first)?, u8::try_from(bits).ok()?).ok()?;
    Some((network, element.comment.unwrap_or_default()))
}

/// Those whose network lies in no other one: the kernel refuses ranges that overlap.
fn outermost(allies: &[Ally], is_v6: bool) -> impl Iterator<Item = &Ally> {
    let within = |inner: &Ally, outer: &Ally| {
        outer.network.prefix() < inner.network.prefix()
            && Target::from(outer.network).overlaps(inner.network.into())
    };
    allies.iter().filter(move |inner| {
        inner.network.is_ipv6() == is_v6 && !allies.iter().any(|outer| within(inner, outer))
    })
}

/// Where the rules of feeds stand, which `v4` and `v6` jump to.
pub(crate) fn feed_chain(is_v6: bool) -> &'static str {
    if is_v6 { "feeds/v6" } else { "feeds/v4" }
}

/// The jump to it, and where that stands.
pub(crate) fn to_feeds(is_v6: bool) -> (&'static str, Rule) {
    let jump = Expr::Verdict(Verdict::Jump(feed_chain(is_v6).to_owned()));
    (if is_v6 { "v6" } else { "v4" }, Rule { exprs: vec![jump], comment: None })
}

/// Drops who is in the set of a feed.
pub(crate) fn feed_rule(is_v6: bool, set: &str, counter: &str) -> Rule {
    let exprs = vec![
        source_address(is_v6),
        lookup(set, false),
        source_address(is_v6),
        lookup(&never_set(is_v6).name, true),
        Expr::Counter(counter.to_owned()),
        Expr::Verdict(Verdict::Drop),
    ];
    Rule { exprs: [family(is_v6), exprs].concat(), comment: None }
}

/// The set of a feed, empty.
pub(crate) fn feed_set(is_v6: bool, name: String, comment: String) -> Set {
    Set { name, comment: Some(comment), ..never_set(is_v6) }
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
