//! What a policy means, after every check has passed.
//!
//! Only [`Policy::parse`](crate::Policy::parse) makes a [`Policy`], so its users need no further
//! check: names are unique and fit the kernel, ports and prefixes are sorted and merged, groups are
//! resolved, and each rule can match at least one packet.

use std::collections::BTreeSet;
use std::fmt;

use ipnetwork::{IpNetwork, Ipv4Network, Ipv6Network};

/// A valid policy.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Policy {
    pub(crate) comment: Option<String>,
    pub(crate) default: Defaults,
    pub(crate) builtin: BTreeSet<Builtin>,
    pub(crate) log: LogSettings,
    pub(crate) containers: Containers,
    pub(crate) groups: Vec<Group>,
    pub(crate) never_ban: Vec<IpNetwork>,
    pub(crate) may_ban: Vec<IpNetwork>,
    pub(crate) ban_outgoing: bool,
    pub(crate) scan: Option<Scan>,
    pub(crate) rules: Vec<Rule>,
}

/// Name and comment of a rule, for lists.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct RuleInfo<'p> {
    /// Name of the rule and of its counter.
    pub name: &'p str,
    /// What the rule is for.
    pub comment: Option<&'p str>,
}

impl Policy {
    /// Returns what the policy is for.
    pub fn comment(&self) -> Option<&str> {
        self.comment.as_deref()
    }

    /// Returns the prefixes that no tool may ban. Bans have a table of their own; the policy's table
    /// contains these prefixes only if the policy [bans scans](Self::bans_scans).
    pub fn never_ban(&self) -> &[IpNetwork] {
        &self.never_ban
    }

    /// Returns the prefixes that tools may ban although they are behind this host. None of them has an
    /// address in common with [`never_ban`](Self::never_ban).
    pub fn may_ban(&self) -> &[IpNetwork] {
        &self.may_ban
    }

    /// Returns whether a ban also drops what this host sends to the banned address. The policy's
    /// table does this only if the policy [bans scans](Self::bans_scans).
    pub fn ban_outgoing(&self) -> bool {
        self.ban_outgoing
    }

    /// Returns whether the kernel bans the sources of scans. Its table then needs the never-ban
    /// entries of the host too.
    pub fn bans_scans(&self) -> bool {
        self.scan.is_some()
    }

    /// Returns the interfaces that the policy names, as the file has them: `eth0`, `wg*`.
    pub fn interfaces(&self) -> BTreeSet<String> {
        let of_rules =
            self.rules.iter().flat_map(|it| it.in_interface.iter().chain(&it.out_interface));
        let of_scan = self.scan.iter().flat_map(|scan| &scan.interfaces);
        let all = of_rules.chain(of_scan).chain(&self.containers.interfaces);
        all.map(ToString::to_string).collect()
    }

    /// Returns the rules, in the order in which the kernel tries them.
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

/// What happens to a packet at a default, a matched rule or an exceeded limit.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Verdict {
    Accept,
    Drop,
    /// Answers TCP with a reset, and everything else with an ICMP port-unreachable error.
    Reject,
}

/// An allowance that every policy has unless the policy switches it off.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub(crate) enum Builtin {
    /// Accepts everything over `lo`.
    Loopback,
    /// Accepts packets of accepted connections, and packets that are related to them.
    Established,
    /// Drops packets that connection tracking calls invalid.
    Invalid,
    /// Drops routing headers of type 0 (RFC 5095).
    Rh0,
    /// Drops new connections whose source is not reached by the interface that they came in by, as
    /// the kernel's strict `rp_filter` does.
    ReturnPath,
    /// Drops what containers send with a source to which the routing tables do not lead by their bridge.
    ContainerSource,
    /// Accepts ICMP and ICMPv6 errors, which path MTU discovery and traceroute need.
    IcmpErrors,
    /// Accepts echo requests to this host.
    PingIn,
    /// Accepts echo requests from this host and its containers.
    PingOut,
    /// Accepts neighbour and router discovery with hop limit 255.
    NeighbourDiscovery,
    /// Accepts multicast listener discovery from link-local addresses.
    MulticastListener,
    /// Accepts IGMP to multicast addresses, which is multicast listener discovery of IPv4.
    Igmp,
    /// Accepts what a DHCPv4 client needs: port 67 to 68 and back.
    Dhcpv4Client,
    /// Accepts what a DHCPv6 client needs: answers from anywhere to its link-local port 546, and
    /// requests to all servers of the link.
    Dhcpv6Client,
    /// Accepts multicast DNS to 224.0.0.251 and ff02::fb, port 5353, in and out.
    Mdns,
    /// Accepts UPnP discovery to 239.255.255.250 and ff02::f, port 1900, in and out.
    Upnp,
    /// Drops broadcast and multicast that no rule accepts, without a log line.
    QuietBroadcast,
}

impl Builtin {
    /// All built-ins, in the order in which lists show them.
    pub(crate) const ALL: [Self; 17] = [
        Self::Loopback,
        Self::Established,
        Self::Invalid,
        Self::Rh0,
        Self::ReturnPath,
        Self::ContainerSource,
        Self::IcmpErrors,
        Self::PingIn,
        Self::PingOut,
        Self::NeighbourDiscovery,
        Self::MulticastListener,
        Self::Igmp,
        Self::Dhcpv4Client,
        Self::Dhcpv6Client,
        Self::Mdns,
        Self::Upnp,
        Self::QuietBroadcast,
    ];

    /// Returns the key in a policy file.
    pub(crate) fn name(self) -> &'static str {
        match self {
            Self::Loopback => "loopback",
            Self::Established => "established",
            Self::Invalid => "invalid",
            Self::Rh0 => "rh0",
            Self::ReturnPath => "return-path",
            Self::ContainerSource => "container-source",
            Self::IcmpErrors => "icmp-errors",
            Self::PingIn => "ping-in",
            Self::PingOut => "ping-out",
            Self::NeighbourDiscovery => "neighbour-discovery",
            Self::MulticastListener => "multicast-listener",
            Self::Igmp => "igmp",
            Self::Dhcpv4Client => "dhcpv4-client",
            Self::Dhcpv6Client => "dhcpv6-client",
            Self::Mdns => "mdns",
            Self::Upnp => "upnp",
            Self::QuietBroadcast => "quiet-broadcast",
        }
    }

    /// Returns what the built-in does, in one line.
    pub(crate) fn description(self) -> &'static str {
        match self {
            Self::Loopback => "Accept everything over lo.",
            Self::Established => {
                "Accept packets of accepted connections, and packets related to them."
            }
            Self::Invalid => "Drop packets that connection tracking calls invalid.",
            Self::Rh0 => "Drop IPv6 routing headers of type 0.",
            Self::ReturnPath => {
                "Drop what comes in by another interface than the one that leads back to its source."
            }
            Self::ContainerSource => "Drop what containers send in the name of others.",
            Self::IcmpErrors => "Accept ICMP and ICMPv6 errors; path MTU discovery needs them.",
            Self::PingIn => "Answer echo requests.",
            Self::PingOut => "Let this host and its containers send echo requests.",
            Self::NeighbourDiscovery => "Accept IPv6 neighbour and router discovery of the link.",
            Self::MulticastListener => "Accept IPv6 multicast listener discovery of the link.",
            Self::Igmp => {
                "Accept IGMP: without it, switches stop passing on IPv4 multicast after minutes."
            }
            Self::Dhcpv4Client => "Let this host be a DHCPv4 client.",
            Self::Dhcpv6Client => "Let this host be a DHCPv6 client.",
            Self::Mdns => "Accept multicast DNS of the link, in and out.",
            Self::Upnp => "Accept UPnP discovery of the link, in and out.",
            Self::QuietBroadcast => "Drop unmatched broadcast and multicast without a log line.",
        }
    }

    /// Returns whether the built-in is on if a policy does not name it. Echo requests from this host
    /// are off, because a policy that denies outgoing connections would be weaker than it looks. The
    /// check of return paths is off, because a host with several uplinks may get packets by one and
    /// answer by another.
    pub(crate) fn is_on_by_default(self) -> bool {
        !matches!(self, Self::PingOut | Self::ReturnPath)
    }
}

/// Where log lines go, and how many.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct LogSettings {
    /// The settings of a rule with `"log": true`.
    pub(crate) defaults: LogTarget,
    /// Directions in which packets are logged that reach a default of drop or reject.
    pub(crate) unmatched: BTreeSet<Direction>,
}

/// How log lines are written.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct LogTarget {
    pub(crate) to: LogTo,
    /// The text before each line, at most 127 bytes, which is the kernel's limit.
    pub(crate) prefix: String,
    /// `None` logs every packet.
    pub(crate) rate: Option<LogRate>,
}

/// Where log lines go.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum LogTo {
    /// The kernel log, at level `warning`, with TCP and IP options, which PSAD reads.
    Kernel,
    /// An NFLOG group that a program listens to.
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

/// What a scan is, and what happens to its source.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Scan {
    /// Number of closed ports that make a scan: 2 to 32.
    pub(crate) ports: u8,
    /// Time within which a source tries these ports: 1 to 86,400.
    pub(crate) window_seconds: u32,
    /// Length of the first ban.
    pub(crate) ban_seconds: u32,
    /// Length of a repeated ban, and how long the kernel remembers the last ban. Not less than
    /// `ban_seconds`.
    pub(crate) repeat_ban_seconds: u32,
    /// Whether one packet with illegal TCP flags is a scan.
    pub(crate) illegal_flags: bool,
    /// How long a peer is known after it has sent data; 0 means that no peer is known.
    pub(crate) known_peer_seconds: u32,
    pub(crate) bans_per_minute: u32,
    /// Size of each set.
    pub(crate) sources: u32,
    /// Sorted, and none includes another. Empty: all but loopback and the containers' bridges.
    pub(crate) interfaces: Vec<Interface>,
}

/// The bridges of containers.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Containers {
    /// Sorted, and none includes another. Empty: this host has no containers, and nothing is
    /// forwarded for them.
    pub(crate) interfaces: Vec<Interface>,
    /// Whether the rules for `out` apply to containers too. If not, containers reach everything.
    pub(crate) follow_out: bool,
}

/// A named list of prefixes.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Group {
    pub(crate) name: String,
    pub(crate) prefixes: Prefixes,
}

/// Sorted, merged prefixes of both IP versions. At least one.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(crate) struct Prefixes {
    pub(crate) v4: Vec<Ipv4Network>,
    pub(crate) v6: Vec<Ipv6Network>,
}

/// One rule. The first rule that matches decides.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Rule {
    /// Unique in its policy, and also the name of its counter. `[a-z0-9._-]`, at most 64 bytes: the
    /// name of a counter has at most 127 bytes, and some kernel objects get a suffix.
    pub(crate) name: String,
    pub(crate) comment: Option<String>,
    pub(crate) direction: Direction,
    pub(crate) action: Action,
    pub(crate) traffic: Traffic,
    pub(crate) from: Addresses,
    pub(crate) to: Addresses,
    /// Sorted, and none includes another. Empty: any. For [`Direction::Out`], bridges of containers.
    pub(crate) in_interface: Vec<Interface>,
    /// Sorted, and none includes another. Empty: any. Always empty for [`Direction::In`].
    pub(crate) out_interface: Vec<Interface>,
    pub(crate) log: Option<LogTarget>,
    /// The kernel's helper for connections that the rule allows. The rule has ports of its protocol.
    pub(crate) helper: Option<Helper>,
    /// Whether the policy says that the rule needs no helper.
    pub(crate) declines_helper: bool,
    /// Whether the packets may be untracked, so that the rule accepts their replies, too. Only an
    /// [`Action::Allow`] of [`Traffic::Ports`] can be so.
    pub(crate) untracked: bool,
}

/// A connection tracking helper of the kernel: it reads a connection for the other connections that
/// the two ends agree on.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub(crate) enum Helper {
    Amanda,
    Ftp,
    Irc,
    NetbiosNs,
    Pptp,
    Sane,
    Sip,
    Snmp,
    Tftp,
}

impl Helper {
    /// Returns the kernel's name.
    pub(crate) fn kind(self) -> &'static str {
        match self {
            Self::Amanda => "amanda",
            Self::Ftp => "ftp",
            Self::Irc => "irc",
            Self::NetbiosNs => "netbios-ns",
            Self::Pptp => "pptp",
            Self::Sane => "sane",
            Self::Sip => "sip",
            Self::Snmp => "snmp",
            Self::Tftp => "tftp",
        }
    }

    /// Returns whether the kernel has the helper for a transport protocol.
    pub(crate) fn reads(self, transport: Transport) -> bool {
        match self {
            Self::Ftp | Self::Irc | Self::Pptp | Self::Sane => transport == Transport::Tcp,
            Self::Amanda | Self::NetbiosNs | Self::Snmp | Self::Tftp => transport == Transport::Udp,
            Self::Sip => true,
        }
    }

    /// Returns whether the kernel has the helper for IPv4 alone.
    pub(crate) fn is_for_v4_alone(self) -> bool {
        matches!(self, Self::Irc | Self::NetbiosNs | Self::Pptp | Self::Snmp)
    }
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub(crate) enum Direction {
    /// To this host, or to a port that it publishes for a container.
    In,
    /// From this host, or from its containers to elsewhere.
    Out,
    /// Routed through this host, and neither from a container nor to a published port.
    Forward,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Action {
    Allow,
    Deny,
    Reject,
    /// Allows connections, but refuses a source that opens too many.
    Limit(Limit),
}

/// The `connections`-th new connection of one source within `seconds` is refused. So is each one
/// after it, until the source has not tried for `seconds`. UFW's limit does the same.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Limit {
    /// 2 to 32.
    pub(crate) connections: u8,
    /// 1 to 86,400.
    pub(crate) seconds: u32,
    /// Length of the IPv6 prefix that counts as one source: 64 or 128.
    pub(crate) v6_prefix: u8,
    /// `Drop` or `Reject`, never `Accept`.
    pub(crate) over: Verdict,
    /// How many sources the limit remembers at once, for each IP version.
    pub(crate) sources: u32,
}

/// The protocols, ports and ICMP types that a rule matches.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum Traffic {
    /// Any protocol.
    Any,
    /// TCP, UDP or both, each with its destination ports, and the source ports of both. An empty list
    /// is any port. At least one of `tcp` and `udp` is `Some`.
    Ports { tcp: Option<Ports>, udp: Option<Ports>, source: Ports },
    /// ICMP and ICMPv6 types. An empty list is any type; `None` does not match the protocol.
    Icmp { v4: Option<Vec<u8>>, v6: Option<Vec<u8>> },
    /// IP protocol numbers other than TCP, UDP, ICMP and ICMPv6. At least one.
    Protocols(Vec<u8>),
}

/// A protocol whose ports rules can match.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Transport {
    Tcp,
    Udp,
}

impl Transport {
    pub(crate) const ALL: [Self; 2] = [Self::Tcp, Self::Udp];

    /// Returns the word that policies use.
    pub(crate) fn word(self) -> &'static str {
        match self {
            Self::Tcp => "tcp",
            Self::Udp => "udp",
        }
    }
}

/// Inclusive ranges: sorted, disjoint and not adjacent.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(crate) struct Ports(pub(crate) Vec<(u16, u16)>);

/// The addresses that a rule matches.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum Addresses {
    Any,
    /// Index into the groups of the policy.
    Group(usize),
    /// Prefixes of the rule itself.
    Prefixes(Prefixes),
}

/// The name of an interface, or its start: `br-*` is `br-` with `wildcard`.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) struct Interface {
    /// 1 to 15 bytes, without `*`.
    pub(crate) name: String,
    pub(crate) wildcard: bool,
}

impl fmt::Display for Interface {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}{}", self.name, if self.wildcard { "*" } else { "" })
    }
}

impl Interface {
    /// Returns whether each interface that `other` matches is one that `self` matches.
    pub(crate) fn contains(&self, other: &Self) -> bool {
        if self.wildcard { other.name.starts_with(&self.name) } else { self == other }
    }
}
