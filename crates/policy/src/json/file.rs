//! The policy file as it is written: every key, its type, its description and its default.
//!
//! The modules beside this one read each value to its type. [`crate::check`] decides whether the
//! values make sense together. The doc comments here are the descriptions in the schema.

use crate::json::address::{Groups, Peer};
use crate::json::log::{LogFile, RuleLog};
use crate::json::port::PortItem;
use crate::json::protocol::{IcmpType, Protocol};
use crate::json::reader::{List, OneOrMany, object};
use crate::json::values::{
    ActionWord, AnyText, BanSeconds, Builtins, Comment, Connections, Egress, HelperWord,
    KnownSeconds, Name, OverLimit, Positive, ScanPorts, Seconds, SourceCount, V6PrefixLength,
    Version,
};
use crate::policy::{Direction, Interface, Verdict};

object! {
    /// A firewall policy: what may reach this host, what may leave it, and what may pass through it.
    /// Everything that is not allowed is refused.
    File {
        /// Where editors find this schema. It has no meaning for the policy.
        "$schema" => _schema: AnyText,
        /// Version of the policy language.
        "version" => _version: Version [required],
        /// What this policy is for.
        "comment" => comment: AnyText,
        /// What happens to a new connection that no rule matches.
        "default" => default: DefaultsFile = { "in": "drop", "out": "drop", "forward": "drop" },
        /// Named lists of addresses and prefixes, for `from` and `to` of rules.
        "groups" => groups: Groups = {},
        /// Allowances that every policy has. Each can be switched on and off.
        "builtin" => builtin: Builtins = {},
        /// Where log lines go, how many, and for which unmatched packets.
        "log" => log: LogFile = {},
        /// The bridges of containers on this host.
        "containers" => containers: ContainersFile = {},
        /// Addresses, prefixes and groups that no tool may ban.
        "never_ban" => never_ban: OneOrMany<Peer>,
        /// Addresses, prefixes and groups that tools may ban although they are behind this host: of
        /// containers, guests and peers of tunnels. Without this key none of these can be banned.
        "may_ban" => may_ban: OneOrMany<Peer>,
        /// Whether a ban also drops what this host and its containers send to the banned address. If
        /// false, a ban drops only what comes from that address, its answers included.
        "ban_outgoing" => ban_outgoing: bool = false,
        /// Makes the kernel ban sources that try closed ports. Without this key it bans no source.
        "scan" => scan: ScanFile,
        /// The rules, in order. The first rule that matches a new connection decides.
        "rules" => rules: List<RuleFile> = [],
    }
}

object! {
    /// What happens to a new connection that no rule matches.
    DefaultsFile {
        /// To this host, and to the ports that it publishes for containers.
        "in" => input: Verdict = "drop",
        /// From this host, and from its containers to elsewhere.
        "out" => output: Verdict = "drop",
        /// Routed through this host.
        "forward" => forward: Verdict = "drop",
    }
}

object! {
    /// What a scan is, and what happens to its source. A port is closed if no rule is about it. Each
    /// closed port counts once for each address of this host.
    ScanFile {
        /// How many different closed ports of one source make a scan.
        "ports" => ports: ScanPorts = 6,
        /// The time within which the source tries these ports, in seconds.
        "seconds" => seconds: Seconds = 60,
        /// How long a source is banned, in seconds.
        "ban_seconds" => ban_seconds: BanSeconds = 600,
        /// How long a source is banned, in seconds, if its last ban began no longer ago than this.
        "again_seconds" => again_seconds: BanSeconds = 86400,
        /// Whether one packet with TCP flags that no connection uses is enough for a ban.
        "illegal_flags" => illegal_flags: bool = true,
        /// How long a source that has sent data over a TCP connection is not banned for closed ports,
        /// in seconds. 0: no source has this exception.
        "known_seconds" => known_seconds: KnownSeconds = 3600,
        /// How many sources may be banned at once, and after that in each minute. This bounds what
        /// forged source addresses can do.
        "bans_per_minute" => bans_per_minute: Positive = 100,
        /// How many entries each set of this scan detection can hold, for IPv4 and IPv6 each. While a
        /// set is full, nothing new counts.
        "sources" => sources: SourceCount = 65536,
        /// The interfaces that scans come in by. Without this key: all but loopback and the bridges
        /// of containers.
        "in_interface" => in_interface: OneOrMany<Interface>,
    }
}

object! {
    /// The bridges of containers on this host.
    ContainersFile {
        /// Names of the bridges. An empty list: this host has no containers.
        "interfaces" => interfaces: List<Interface> = ["docker0", "docker_gwbridge", "br-*"],
        /// What containers may send.
        "egress" => egress: Egress = "policy",
    }
}

object! {
    /// One rule. A key that a rule leaves out matches everything: a rule without `from` is for every
    /// source.
    RuleFile {
        /// Name of the rule and of its counter: at most 48 of a-z, 0-9, `.`, `_` and `-`. Without
        /// this key, nfguard makes a name from the rule.
        "name" => name: Name,
        /// What the rule is for: one line of at most 120 bytes, without `"`. The kernel keeps it, and
        /// nft prints it.
        "comment" => comment: Comment,
        /// What happens to a connection that the rule matches.
        "action" => action: ActionWord [required],
        /// The direction of the connection.
        "direction" => direction: Direction = "in",
        /// The protocol, or several: TCP with UDP, ICMP with ICMPv6, or others without ports.
        "proto" => proto: OneOrMany<Protocol>,
        /// Destination ports, as the sender sees them: for a container, the published port. Without
        /// `proto`, a number means TCP and UDP, and a service means the protocols that it is listed
        /// for.
        "port" => port: OneOrMany<PortItem>,
        /// Source ports, written like `port`.
        "from_port" => from_port: OneOrMany<PortItem>,
        /// Source: addresses, prefixes and groups.
        "from" => from: OneOrMany<Peer> = "any",
        /// Destination: addresses, prefixes and groups.
        "to" => to: OneOrMany<Peer> = "any",
        /// The interface that packets come in by. In a rule for `out`, it is the bridge of the
        /// containers that the rule is for; the rule is then not for this host itself. A rule for `forward`
        /// with this key is also about ports that DNAT leads to a container, unless a rule for `in` is: about
        /// the port before DNAT and the one of the container. Where there is one, each `deny` and `reject`
        /// for `forward` is about them, too.
        "in_interface" => in_interface: OneOrMany<Interface>,
        /// The interface that packets leave by, for `out` and `forward`.
        "out_interface" => out_interface: OneOrMany<Interface>,
        /// ICMP and ICMPv6 types, by name or number. This key needs `proto`.
        "icmp_type" => icmp_type: OneOrMany<IcmpType>,
        /// The kernel's helper for a protocol whose two ends agree on further connections. Without it,
        /// those count as new ones. `none`: nothing is missing without it. H.323 has no word here: its
        /// further connections need rules of their own.
        "helper" => helper: HelperWord,
        /// Whether another program keeps connection tracking off these packets (`notrack`), as for a
        /// busy DNS server. Their replies are then accepted by this rule. Only an `allow` with ports
        /// has this key.
        "untracked" => untracked: bool = false,
        /// How many connections one source may open. Only the action `limit` has this key.
        "limit" => limit: LimitFile = {},
        /// Whether nfguard logs what the rule matches, and how.
        "log" => log: RuleLog = false,
    }
}

object! {
    /// The `connections`-th new connection of one source within `seconds` is refused. So is each one
    /// after it, until the source has not tried for `seconds`.
    LimitFile {
        /// The first connection that is refused.
        "connections" => connections: Connections = 6,
        /// The time within which connections count, in seconds.
        "seconds" => seconds: Seconds = 30,
        /// Length of the IPv6 prefix that counts as one source.
        "v6_prefix" => v6_prefix: V6PrefixLength = 64,
        /// What happens to a connection over the limit.
        "over" => over: OverLimit = "reject",
        /// How many sources the limit remembers at once, for IPv4 and IPv6 each.
        "sources" => sources: SourceCount = 65536,
    }
}
