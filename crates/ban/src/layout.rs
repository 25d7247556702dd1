//! How bans lie in the kernel: which set, which key, which rule. Pure.
//!
//! Each prefix length in use has one hash set, matched by a masked lookup: to add a ban is as fast
//! with a million bans as with one, overlapping prefixes need no thought, and each ban has its own
//! timeout. An interval set has none of the three.

mod place;

use std::collections::BTreeSet;
use std::time::Duration;

use ipnetwork::IpNetwork;
use nfguard_netlink::build::{self, End, REG};
use nfguard_netlink::{
    Base, Chain, ChainPolicy, CmpOp, Element, Expr, Header, Hook, IpVersion, Key, KeyType, MetaKey,
    PerIpVersion, Reg, Rule, Set, Table, protocol,
};

use crate::address::{AddressRange, push_address};
use crate::never_sets::{NeverBanChecks, addresses_set, prefixes_set};
use crate::target::{Port, Protocol, Target};

#[cfg(test)]
pub(crate) use place::KeyBytes;
pub(crate) use place::{Place, SetKey};

/// The table that bans lie in.
pub const TABLE: &str = "nfguard_bans";

/// The table's comment, by which nfguard knows it as its own.
pub(crate) const MARK: &str = "nfguard bans, format 1";

/// How the comment of every version begins.
pub(crate) const ANY_MARK: &str = "nfguard bans, format ";

/// The most elements of a set. With 65,536 n + 65,535 the kernel reserves room for 65,535 elements
/// in advance, with 65,536 n for none (measured, Linux 6.18). Room costs a megabyte, so only the
/// sets that most bans go to have it.
const SIZE_WITH_ROOM: u32 = 64 * 65_536 - 1;
const SIZE_WITHOUT_ROOM: u32 = 63 * 65_536;

/// Returns what the table is known by: its name and its comment, and nothing else of it.
/// [`nfguard_netlink::unload`] and [`nfguard_netlink::read_own_table`] take it.
#[must_use]
pub fn table_identity() -> Table {
    Table { name: TABLE.to_owned(), comment: Some(MARK.to_owned()), ..Table::default() }
}

/// A set of bans: those of one IP version and one prefix length, from all ports or from one each.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub(crate) struct BanSet {
    version: IpVersion,
    prefix: u8,
    by_port: bool,
}

impl BanSet {
    pub(crate) fn of(target: Target, port: Option<Port>) -> BanSet {
        let network = target.network();
        BanSet {
            version: IpVersion::of(network.ip()),
            prefix: network.prefix(),
            by_port: port.is_some(),
        }
    }

    /// `v4/32`, `v6/64`, `v4/32/ports`.
    pub(crate) fn name(self) -> String {
        let ports = if self.by_port { PORTS } else { "" };
        format!("{}/{}{ports}", self.version.suffix(), self.prefix)
    }

    pub(crate) fn from_name(name: &str) -> Option<BanSet> {
        let (lengths, by_port) = match name.strip_suffix(PORTS) {
            Some(lengths) => (lengths, true),
            None => (name, false),
        };
        let (suffix, prefix) = lengths.split_once('/')?;
        let version = IpVersion::ALL.into_iter().find(|version| version.suffix() == suffix)?;
        let prefix = prefix.parse().ok().filter(|prefix| *prefix <= version.address_bits())?;
        Some(BanSet { version, prefix, by_port })
    }

    /// Returns which bans of the set have an address in common with a target.
    pub(crate) fn overlap(self, target: Target) -> Overlap {
        let network = target.network();
        if IpVersion::of(network.ip()) != self.version {
            return Overlap::None;
        }
        let around = IpNetwork::new(network.ip(), self.prefix).ok();
        match around.filter(|_| !self.by_port && network.prefix() >= self.prefix) {
            Some(around) => Overlap::One(SetKey::of(around.into(), None)),
            None => Overlap::Many,
        }
    }

    pub(crate) fn from_owners_name(name: &str) -> Option<BanSet> {
        BanSet::from_name(name.strip_prefix(OWNERS)?)
    }

    /// Returns the most bans that the set holds.
    pub(crate) fn size(self) -> u32 {
        match (self.version, self.prefix, self.by_port) {
            (IpVersion::V4, 32, false) | (IpVersion::V6, Target::V6_SOURCE, false) => {
                SIZE_WITH_ROOM
            }
            _ => SIZE_WITHOUT_ROOM,
        }
    }

    pub(crate) fn set(self) -> Set {
        let address = match self.version {
            IpVersion::V4 => KeyType::Ipv4Addr,
            IpVersion::V6 => KeyType::Ipv6Addr,
        };
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

    /// Returns the rule that drops what a target in the set sends, or is sent.
    fn rule(self, end: End, checks: &NeverBanChecks) -> Rule {
        let mut exprs = vec![build::address(self.version, end)];
        if self.prefix < self.version.address_bits() {
            exprs.push(build::keep_prefix(self.version.address_bytes(), self.prefix));
        }
        if self.by_port {
            let [protocol, port] = port_registers(self.version);
            exprs.push(Expr::Meta { key: MetaKey::L4proto, reg: protocol });
            // TCP's and UDP's destination port; of other protocols no such key is in the set.
            exprs.push(Expr::Payload { header: Header::Transport, offset: 2, len: 2, reg: port });
        }
        exprs.push(build::in_set(&self.name()));
        drop_unless_never_banned(end, self.version, checks, exprs, None)
    }
}

/// The bans of a set that have an address in common with a target.
pub(crate) enum Overlap {
    None,
    /// At most this one.
    One(SetKey),
    /// Any number of them.
    Many,
}

/// What ends the name of a set of bans by port.
const PORTS: &str = "/ports";

/// What begins the name of a set of owners.
const OWNERS: &str = "owners/";

/// Returns the registers of protocol and port, which stand behind the address.
fn port_registers(version: IpVersion) -> [Reg; 2] {
    let first = match version {
        IpVersion::V4 => 1,
        IpVersion::V6 => 4,
    };
    [first, first + 1].map(|index| Reg::new(index).unwrap_or(REG))
}

fn owners_name(set: BanSet) -> String {
    format!("{OWNERS}{}", set.name())
}

/// Returns the set of those owners of the bans of a set that are not in that set itself.
pub(crate) fn owners_set(set: BanSet) -> Set {
    let mut key = set.set().key;
    key.push(KeyType::InetService);
    Set { name: owners_name(set), key, size: Some(SIZE_WITHOUT_ROOM), ..set.set() }
}

/// The set of sources that had a ban ended by the operator.
pub(crate) const ENDED: &str = "ended";

/// Returns the set [`ENDED`]. Its keys are digests; nft has no type for these.
pub(crate) fn ended_set() -> Set {
    Set {
        name: ENDED.to_owned(),
        key: vec![KeyType::Ipv6Addr],
        timeout: Some(Duration::ZERO),
        size: Some(65_535),
        ..Set::default()
    }
}

/// Appends the key of a ban in its set.
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

/// Returns the table without bans.
pub(crate) fn empty_table() -> Table {
    let discovery = Set {
        name: "neighbour_discovery".to_owned(),
        key: vec![KeyType::Icmpv6Type],
        elements: NEIGHBOUR_DISCOVERY.map(|kind| Key::Value(vec![kind]).into()).to_vec(),
        ..Set::default()
    };
    let base = Base { hook: Hook::Prerouting, priority: -300, policy: ChainPolicy::Accept };
    let never_sets =
        IpVersion::ALL.into_iter().flat_map(|it| [addresses_set(it), prefixes_set(it)]);
    Table {
        name: TABLE.to_owned(),
        comment: Some(MARK.to_owned()),
        sets: never_sets.chain([discovery]).collect(),
        chains: vec![
            Chain { name: V6.to_owned(), ..Chain::default() },
            Chain {
                name: BANS.to_owned(),
                base: Some(base),
                comment: Some("ahead of conntrack, for host and containers alike".to_owned()),
                rules: Vec::new(),
            },
        ],
        ..Table::default()
    }
}

/// Tells whether a table of ours can drop at all: it is not dormant, and its chains have rules.
pub(crate) fn is_intact(table: &Table) -> bool {
    let has_rules = |chain: &Chain| table.chain(&chain.name).is_some_and(|it| !it.rules.is_empty());
    !table.dormant && empty_table().chains.iter().all(has_rules)
}

/// The base chain, which judges IPv4 itself, and the chain for IPv6.
const BANS: &str = "bans";
const V6: &str = "v6";

/// The chain that drops what is sent to the banned.
pub(crate) const OUTGOING: &str = "outgoing";

/// Every chain whose rules depend on the [`TableLayout`].
pub(crate) const RULE_CHAINS: [&str; 3] = [BANS, V6, OUTGOING];

/// What decides which rules the table has.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(crate) struct TableLayout {
    /// The sets of bans.
    pub(crate) sets: BTreeSet<BanSet>,
    /// How rules find never-ban entries.
    pub(crate) never_ban: PerIpVersion<NeverBanChecks>,
    /// Whether there are feeds.
    pub(crate) has_feeds: PerIpVersion<bool>,
    /// What becomes of packets to the banned.
    pub(crate) outgoing: Outgoing,
}

/// What becomes of packets that this host or its containers send to a banned target.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Outgoing {
    /// They leave, and no answer comes back.
    #[default]
    Pass,
    /// They are dropped too.
    Drop,
}

impl TableLayout {
    /// Returns each chain with its rules. IPv4 has no chain of its own: a jump costs as much as a
    /// look-up.
    pub(crate) fn chains(&self) -> Vec<(&'static str, Vec<Rule>)> {
        let rules = PerIpVersion::from_fn(|version| {
            let mut rules = self.ban_rules(End::Source, version);
            if self.has_feeds[version] {
                let jump = build::jump(feed_chain(version));
                rules.push(Rule {
                    exprs: [build::ip_version(version), vec![jump]].concat(),
                    comment: None,
                });
            }
            rules
        });
        let go = build::goto(V6);
        let to_v6 =
            Rule { exprs: [build::ip_version(IpVersion::V6), vec![go]].concat(), comment: None };
        let discovery = vec![accept_neighbour_discovery()];
        let mut chains = vec![
            (BANS, [rules.v4, vec![to_v6]].concat()),
            (V6, [discovery.clone(), rules.v6].concat()),
        ];
        if self.outgoing == Outgoing::Drop {
            let rules = IpVersion::ALL.map(|version| self.ban_rules(End::Destination, version));
            chains.push((OUTGOING, [discovery, rules.concat()].concat()));
        }
        chains
    }

    fn ban_rules(&self, end: End, version: IpVersion) -> Vec<Rule> {
        let checks = &self.never_ban[version];
        // The longest prefixes first, for there are most of them. A ban from one port is about
        // what the banned sends.
        let sets = self.sets.iter().rev().filter(|set| set.version == version);
        let sets = sets.filter(|set| end == End::Source || !set.by_port);
        sets.map(|set| set.rule(end, checks)).collect()
    }
}

/// Name of the base chain that leads to [`OUTGOING`].
pub(crate) const LEAVING: &str = "postrouting";

/// Names of the base chains that led to [`OUTGOING`] in older tables. They saw destinations before DNAT.
pub(crate) const OLD_LEAVING: [&str; 2] = ["output", "forward"];

/// Returns the base chain that leads to [`OUTGOING`]. What this host sends and what it forwards passes
/// there, and DNAT has led it to where it really goes.
pub(crate) fn leaving_chain() -> Chain {
    let base = Base { hook: Hook::Postrouting, priority: -300, policy: ChainPolicy::Accept };
    Chain {
        name: LEAVING.to_owned(),
        base: Some(base),
        comment: Some("nothing to the banned".to_owned()),
        rules: vec![Rule { exprs: vec![build::goto(OUTGOING)], comment: None }],
    }
}

/// Returns the chain of the feeds' rules.
pub(crate) const fn feed_chain(version: IpVersion) -> &'static str {
    match version {
        IpVersion::V4 => "feeds/v4",
        IpVersion::V6 => "feeds/v6",
    }
}

/// Returns the rule that drops the addresses of a feed's set.
pub(crate) fn feed_rule(version: IpVersion, set: &str, counter: &str) -> Rule {
    let exprs = vec![build::address(version, End::Source), build::in_set(set)];
    // The feed has no never-ban entries in it; the checks are for entries that came later.
    let checks = NeverBanChecks { compared: None, prefixes: true };
    let count = Expr::Counter(counter.to_owned());
    drop_unless_never_banned(End::Source, version, &checks, exprs, Some(count))
}

/// Returns the rule that drops what `found` finds, but for never-ban entries. It counts only if a
/// counter is given: to count takes a third of a look-up's time (Linux 6.18).
fn drop_unless_never_banned(
    end: End,
    version: IpVersion,
    checks: &NeverBanChecks,
    found: Vec<Expr>,
    count: Option<Expr>,
) -> Rule {
    let mut exprs = [build::ip_version(version), found].concat();
    // The register still has the address, unless a part of it was looked up.
    if exprs.iter().any(|expr| matches!(expr, Expr::Bitwise { .. })) {
        exprs.push(build::address(version, end));
    }
    match &checks.compared {
        Some(addresses) => exprs.extend(addresses.iter().map(|address| differs(address))),
        None => exprs.push(build::not_in_set(&addresses_set(version).name)),
    }
    exprs.extend(checks.prefixes.then(|| build::not_in_set(&prefixes_set(version).name)));
    exprs.extend(count);
    exprs.push(build::discard());
    Rule { exprs, comment: None }
}

fn differs(address: &[u8]) -> Expr {
    Expr::Cmp { reg: REG, op: CmpOp::Neq, data: address.to_vec() }
}

/// Returns the set of a feed, empty.
pub(crate) fn feed_set(version: IpVersion, name: String, comment: String) -> Set {
    Set { name, comment: Some(comment), ..prefixes_set(version) }
}

/// Returns a range of addresses as an element of an interval set.
pub(crate) fn range_element(version: IpVersion, (first, last): AddressRange) -> Element {
    let bytes = |number: u128| {
        let bytes = number.to_be_bytes();
        let start = bytes.len() - version.address_bytes();
        bytes.get(start..).unwrap_or_default().to_vec()
    };
    Key::Range(bytes(first), bytes(last)).into()
}

/// Router and neighbour solicitation and advertisement: a ban of a neighbour must not cut the way
/// to it.
const NEIGHBOUR_DISCOVERY: [u8; 4] = [133, 134, 135, 136];

fn accept_neighbour_discovery() -> Rule {
    let exprs = [
        build::icmp(IpVersion::V6),
        vec![build::icmp_type(), build::in_set("neighbour_discovery")],
        build::hop_limit_255(),
        vec![build::accept()],
    ];
    Rule { exprs: exprs.concat(), comment: None }
}
