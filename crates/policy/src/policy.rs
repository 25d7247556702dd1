//! What a policy means, after every check has passed.
//!
//! A [`Policy`] comes only from [`Policy::parse`](crate::Policy::parse), so whoever holds one need
//! not check it again: names are unique and fit the kernel, ports and prefixes are sorted and
//! merged, groups are resolved, and each rule can match at least one packet of its own shape.

use std::collections::BTreeSet;

use ipnetwork::{IpNetwork, Ipv4Network, Ipv6Network};

/// A whole policy, valid.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Policy {
    pub(crate) comment: Option<String>,
    pub(crate) default: Defaults,
    pub(crate) builtin: BTreeSet<Builtin>,
    pub(crate) log: LogSettings,
    pub(crate) containers: Containers,
    pub(crate) groups: Vec<Group>,
    pub(crate) never_ban: Vec<IpNetwork>,
    pub(crate) ban_outgoing: bool,
    pub(crate) scan: Option<Scan>,
    pub(crate) rules: Vec<Rule>,
}

/// A rule as a list of rules shows it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct RuleInfo<'p> {
    /// Its name, which is also that of its counter.
    pub name: &'p str,
    /// What it is for.
    pub comment: Option<&'p str>,
}

impl Policy {
    /// What the policy is for.
    pub fn comment(&self) -> Option<&str> {
        self.comment.as_deref()
    }

    /// Who is never banned. Bans have a table of their own; of the ruleset it is a part only for
    /// those of [`bans_scans`](Self::bans_scans).
    pub fn never_ban(&self) -> &[IpNetwork] {
        &self.never_ban
    }

    /// Whether nothing is to be sent to the banned either. No part of the ruleset, as
    /// [`never_ban`](Self::never_ban).
    pub fn ban_outgoing(&self) -> bool {
        self.ban_outgoing
    }

    /// Whether the kernel bans who scans. Then it is to be told who is never banned.
    pub fn bans_scans(&self) -> bool {
        self.scan.is_some()
    }

    /// The rules in the order in which they are tried.
    pub fn rules(&self) -> impl ExactSizeIterator<Item = RuleInfo<'_>> {
        self.rules
            .iter()
            .map(|rule| RuleInfo { name: &rule.name, comment: rule.comment.as_deref() })
    }
}

/// What happens to a new connection that no rule matches.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Defaults {
    pub(crate) input: Verdict,
    pub(crate) output: Verdict,
    pub(crate) forward: Verdict,
}

/// What a default, a matched rule or a passed limit does with a packet.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Verdict {
    Accept,
    Drop,
    /// TCP gets a reset, everything else an ICMP port-unreachable.
    Reject,
}

/// An allowance that every policy carries unless it is switched off.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub(crate) enum Builtin {
    /// Everything over `lo`.
    Loopback,
    /// Packets of connections that were accepted before, and what is related to them.
    Established,
    /// Packets that conntrack can make nothing of are dropped.
    Invalid,
    /// Routing headers of type 0 are dropped (RFC 5095).
    Rh0,
    /// ICMP and ICMPv6 errors, without which path MTU discovery and traceroute break.
    IcmpErrors,
    /// Echo requests to this host are answered.
    PingIn,
    /// This host (and its containers) may send echo requests.
    PingOut,
    /// Neighbour and router discovery with hop limit 255.
    NeighbourDiscovery,
    /// Multicast listener discovery from link-local addresses.
    MulticastListener,
    /// DHCPv4 client: from port 67 to 68 and back.
    Dhcpv4Client,
    /// DHCPv6 client: from link-local port 547 to 546 and back.
    Dhcpv6Client,
    /// Multicast DNS to 224.0.0.251 and ff02::fb, port 5353.
    Mdns,
    /// UPnP discovery to 239.255.255.250 and ff02::f, port 1900.
    Upnp,
    /// Broadcast and multicast that no rule accepts is dropped without a log line.
    QuietBroadcast,
}

impl Builtin {
    /// All of them, in the order in which they are shown.
    pub(crate) const ALL: [Self; 14] = [
        Self::Loopback,
        Self::Established,
        Self::Invalid,
        Self::Rh0,
        Self::IcmpErrors,
        Self::PingIn,
        Self::PingOut,
        Self::NeighbourDiscovery,
        Self::MulticastListener,
        Self::Dhcpv4Client,
        Self::Dhcpv6Client,
        Self::Mdns,
        Self::Upnp,
        Self::QuietBroadcast,
    ];

    /// Its key in a policy file.
    pub(crate) fn name(self) -> &'static str {
        match self {
            Self::Loopback => "loopback",
            Self::Established => "established",
            Self::Invalid => "invalid",
            Self::Rh0 => "rh0",
            Self::IcmpErrors => "icmp-errors",
            Self::PingIn => "ping-in",
            Self::PingOut => "ping-out",
            Self::NeighbourDiscovery => "neighbour-discovery",
            Self::MulticastListener => "multicast-listener",
            Self::Dhcpv4Client => "dhcpv4-client",
            Self::Dhcpv6Client => "dhcpv6-client",
            Self::Mdns => "mdns",
            Self::Upnp => "upnp",
            Self::QuietBroadcast => "quiet-broadcast",
        }
    }

    /// What it does, in one line.
    pub(crate) fn description(self) -> &'static str {
        match self {
            Self::Loopback => "Accept everything over lo.",
            Self::Established => "Accept packets of accepted connections, and what is related.",
            Self::Invalid => "Drop packets that connection tracking can make nothing of.",
            Self::Rh0 => "Drop IPv6 routing headers of type 0.",
            Self::IcmpErrors => "Accept ICMP and ICMPv6 errors; path MTU discovery needs them.",
            Self::PingIn => "Answer echo requests.",
            Self::PingOut => "Let this host and its containers send echo requests.",
            Self::NeighbourDiscovery => "Accept IPv6 neighbour and router discovery of the link.",
            Self::MulticastListener => "Accept IPv6 multicast listener discovery of the link.",
            Self::Dhcpv4Client => "Let this host be a DHCPv4 client.",
            Self::Dhcpv6Client => "Let this host be a DHCPv6 client.",
            Self::Mdns => "Accept multicast DNS of the link.",
            Self::Upnp => "Accept UPnP discovery of the link.",
            Self::QuietBroadcast => "Drop unmatched broadcast and multicast without a log line.",
        }
    }

    /// Whether it holds when a policy says nothing about it. Only echo requests from this host
    /// do not: a policy that denies what leaves would be weaker than it looks.
    pub(crate) fn is_on_by_default(self) -> bool {
        self != Self::PingOut
    }
}

/// Where log lines go and how many.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct LogSettings {
    /// The settings of a rule that says only `"log": true`.
    pub(crate) defaults: LogTarget,
    /// Directions in which a packet that falls through to a default of drop or reject is logged.
    pub(crate) unmatched: BTreeSet<Direction>,
}

/// One place that log lines go to.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct LogTarget {
    pub(crate) to: LogTo,
    /// Put before each line; at most 127 bytes, the kernel's bound.
    pub(crate) prefix: String,
    /// `None`: every packet.
    pub(crate) rate: Option<LogRate>,
}

/// The kernel log, or a group that a user-space program listens to.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum LogTo {
    /// Level `warning`, with TCP and IP options, as PSAD reads them.
    Kernel,
    /// NFLOG group.
    Group(u16),
}

/// At most `packets` per `per`, after a burst of `burst` packets.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct LogRate {
    pub(crate) packets: u32,
    pub(crate) per: RateUnit,
    pub(crate) burst: u32,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum RateUnit {
    Second,
    Minute,
    Hour,
    Day,
}

/// What makes a scan, and what becomes of its source.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Scan {
    /// So many closed ports make one: 2 to 32.
    pub(crate) ports: u8,
    /// Within so many seconds: 1 to 86,400.
    pub(crate) seconds: u32,
    /// How long the first ban lasts, in seconds.
    pub(crate) ban: u32,
    /// How long the next one does, and how long the last one is remembered; not less.
    pub(crate) again: u32,
    pub(crate) illegal_flags: bool,
    /// How many seconds a peer is known; 0: nobody is.
    pub(crate) known: u32,
    pub(crate) bans_per_minute: u32,
    /// The most elements of each set.
    pub(crate) sources: u32,
    /// Sorted, none within another; empty: all but loopback and the containers' bridges.
    pub(crate) interfaces: Vec<Interface>,
}

/// The bridges that containers hang on.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Containers {
    /// Sorted, none within another. Empty: this host has no containers, nothing is forwarded for
    /// them.
    pub(crate) interfaces: Vec<Interface>,
    /// Whether the rules for `out` hold for containers too; else they reach everything.
    pub(crate) follow_out: bool,
}

/// A named list of prefixes.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Group {
    pub(crate) name: String,
    pub(crate) prefixes: Prefixes,
}

/// Sorted, merged prefixes of both families; at least one.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(crate) struct Prefixes {
    pub(crate) v4: Vec<Ipv4Network>,
    pub(crate) v6: Vec<Ipv6Network>,
}

/// One rule; rules are tried in order and the first that matches decides.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Rule {
    /// Unique in its policy; also the name of its counter. `[a-z0-9._-]`, at most 64 bytes
    /// (a counter's name has at most 127, and some kernel objects get a suffix).
    pub(crate) name: String,
    pub(crate) comment: Option<String>,
    pub(crate) direction: Direction,
    pub(crate) action: Action,
    pub(crate) traffic: Traffic,
    pub(crate) from: Addresses,
    pub(crate) to: Addresses,
    /// Sorted, none within another; empty: any. For [`Direction::Out`] the containers' bridges.
    pub(crate) in_interface: Vec<Interface>,
    /// Sorted, none within another; empty: any. Never given for [`Direction::In`].
    pub(crate) out_interface: Vec<Interface>,
    pub(crate) log: Option<LogTarget>,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub(crate) enum Direction {
    /// To this host, or to a port that it publishes for a container.
    In,
    /// From this host, or from its containers to elsewhere.
    Out,
    /// Routed through this host, neither from a container nor to a published port.
    Forward,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Action {
    Allow,
    Deny,
    Reject,
    /// Allow, but refuse a source that opens too many connections.
    Limit(Limit),
}

/// UFW's meaning: the `connections`-th new connection of one source within `seconds` is refused,
/// and goes on being refused while it keeps trying.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Limit {
    /// 2 to 32.
    pub(crate) connections: u8,
    /// 1 to 86,400.
    pub(crate) seconds: u32,
    /// How much of an IPv6 address is one source: 64 or 128.
    pub(crate) v6_prefix: u8,
    /// `Drop` or `Reject`, never `Accept`.
    pub(crate) over: Verdict,
    /// Sources that are remembered at once, per family.
    pub(crate) sources: u32,
}

/// Which packets, apart from their addresses and interfaces.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum Traffic {
    /// Any protocol.
    Any,
    /// TCP, UDP or both, each with its destination ports (empty: any port), and source ports for
    /// whichever is matched (empty: any). At least one of the two is `Some`.
    Ports { tcp: Option<Ports>, udp: Option<Ports>, source: Ports },
    /// ICMP and ICMPv6 types; an empty list is any type, `None` is not this family's protocol.
    Icmp { v4: Option<Vec<u8>>, v6: Option<Vec<u8>> },
    /// IP protocol numbers other than TCP, UDP, ICMP and ICMPv6; at least one.
    Protocols(Vec<u8>),
}

/// Sorted, disjoint, not adjacent, inclusive ranges.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(crate) struct Ports(pub(crate) Vec<(u16, u16)>);

/// Which addresses.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum Addresses {
    Any,
    /// The group of this index in [`Policy::groups`].
    Group(usize),
    /// Written in the rule itself.
    Prefixes(Prefixes),
}

/// An interface's name, or the start of one (`br-*` is `br-` with `wildcard`).
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) struct Interface {
    /// 1 to 15 bytes; no `*`.
    pub(crate) name: String,
    pub(crate) wildcard: bool,
}

impl Interface {
    /// Whether each interface that `other` stands for is one of this.
    pub(crate) fn contains(&self, other: &Self) -> bool {
        if self.wildcard { other.name.starts_with(&self.name) } else { self == other }
    }
}
