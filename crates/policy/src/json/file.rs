//! The policy file as it is written: every key, its type, its description and its default.
//!
//! The leaves are read to typed values ([`crate::json::values`], [`crate::json::address`], [`crate::json::port`]);
//! whether they make sense together is for [`crate::check`].

use crate::json::address::{Groups, Peer};
use crate::json::port::PortItem;
use crate::json::protocol::{IcmpType, Protocol};
use crate::json::reader::{List, OneOrMany, object};
use crate::json::values::{
    AnyText, BanSeconds, Builtins, Comment, GroupNumber, KnownSeconds, Limited, LogPrefix, Name,
    PerSource, Positive, Seconds, V6Source, Version,
};
use crate::policy::{Direction, Interface, RateUnit, Verdict};

object! {
    /// A firewall policy: what may reach this host, what may leave it, and what passes through.
    /// Everything that is not allowed is refused.
    File {
        /// Where editors find this schema; without meaning for the policy.
        "$schema" => _schema: AnyText,
        /// Version of the policy language.
        "version" => _version: Version [required],
        /// What this policy is for, for whoever reads the file.
        "comment" => comment: AnyText,
        /// What happens to a new connection that no rule matches.
        "default" => default: DefaultsFile = { "in": "drop", "out": "drop", "forward": "drop" },
        /// Named lists of addresses and prefixes, for `from` and `to` of rules.
        "groups" => groups: Groups = {},
        /// Allowances that every policy carries; each can be switched on and off.
        "builtin" => builtin: Builtins = {},
        /// Where log lines go, how many, and for which unmatched packets.
        "log" => log: LogFile = {},
        /// The bridges of containers on this host.
        "containers" => containers: ContainersFile = {},
        /// Who is never banned, by whatever tool: addresses, prefixes and groups.
        "never_ban" => never_ban: OneOrMany<Peer>,
        /// Whether nothing is sent to the banned either, by this host and its containers. Without
        /// it a ban drops only what comes from them, their answers included.
        "ban_outgoing" => ban_outgoing: bool = false,
        /// Sources that try closed ports are banned by the kernel itself. Without it nobody is.
        "scan" => scan: ScanFile,
        /// Tried in order; the first rule that matches a new connection decides.
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
    /// Where log lines go, how many, and for which unmatched packets.
    LogFile {
        /// The kernel log, or an NFLOG group that a program listens to, such as `nfguard log`.
        "to" => to: crate::policy::LogTo = "kernel",
        /// Put before each line: at most 127 bytes, without `"`, `$` and `\`. A group is also told the
        /// verdict and the rule.
        "prefix" => prefix: LogPrefix = "[NFGUARD] ",
        /// How many lines at most.
        "rate" => rate: Limited = { "packets": 3, "per": "minute", "burst": 10 },
        /// Directions in which packets are logged that no rule matches.
        "unmatched" => unmatched: List<Direction> = [],
    }
}

object! {
    /// What makes a scan, and what becomes of its source. A port is closed if no rule speaks of it,
    /// and each counts once for each address of this host.
    ScanFile {
        /// So many different closed ports of one source make a scan.
        "ports" => ports: crate::json::values::ScanPorts = 6,
        /// Within so many seconds.
        "seconds" => seconds: Seconds = 60,
        /// How long a source is banned.
        "ban_seconds" => ban_seconds: BanSeconds = 600,
        /// How long one is banned that has been banned within as long a time before.
        "again_seconds" => again_seconds: BanSeconds = 86400,
        /// Whether one packet with TCP flags that nobody sends in earnest is enough.
        "illegal_flags" => illegal_flags: bool = true,
        /// For how long a source that has sent data over a TCP connection is not banned for closed
        /// ports. 0: nobody is spared for that.
        "known_seconds" => known_seconds: KnownSeconds = 3600,
        /// How many may be banned at once, and then in each minute: source addresses can be forged.
        "bans_per_minute" => bans_per_minute: Positive = 100,
        /// How much is remembered at once, of each kind, for IPv4 and IPv6 each. When it is full,
        /// nothing new counts.
        "sources" => sources: PerSource = 65536,
        /// The interfaces that scans come in by; all but loopback and the bridges of containers if
        /// it is left out.
        "in_interface" => in_interface: OneOrMany<Interface>,
    }
}

object! {
    /// Log settings of one rule; what is left out is as in `log` of the policy.
    RuleLogFile {
        /// The kernel log, or an NFLOG group that a program listens to, such as `nfguard log`.
        "to" => to: crate::policy::LogTo,
        /// Put before each line: at most 127 bytes, without `"`, `$` and `\`.
        "prefix" => prefix: LogPrefix,
        /// How many lines at most.
        "rate" => rate: Limited,
    }
}

object! {
    /// An NFLOG group that a program listens to.
    LogGroupFile {
        /// Its number.
        "group" => group: GroupNumber [required],
    }
}

object! {
    /// At most `packets` lines in each `per`, after a first burst.
    RateFile {
        /// How many lines in each unit of time.
        "packets" => packets: Positive = 3,
        /// The time in which they may come.
        "per" => per: RateUnit = "minute",
        /// How many lines may come at once.
        "burst" => burst: Positive = 10,
    }
}

object! {
    /// The bridges of containers on this host.
    ContainersFile {
        /// Their names. Empty: this host has no containers.
        "interfaces" => interfaces: List<Interface> = ["docker0", "docker_gwbridge", "br-*"],
        /// What containers may send.
        "egress" => egress: crate::json::values::Egress = "policy",
    }
}

object! {
    /// One rule. What it leaves out is not looked at: a rule without `from` is for every source.
    RuleFile {
        /// Names the rule and its counter; made from the rule when it is left out. At most 48 of
        /// a-z, 0-9, `.`, `_` and `-`.
        "name" => name: Name,
        /// What the rule is for, which the kernel keeps and nft prints: one line of at most 120
        /// bytes, without `"`.
        "comment" => comment: Comment,
        /// What happens to a connection that the rule matches.
        "action" => action: crate::json::values::ActionWord [required],
        /// Which way the connection goes.
        "direction" => direction: Direction = "in",
        /// The protocol, or several: TCP with UDP, ICMP with ICMPv6, or others without ports.
        "proto" => proto: OneOrMany<Protocol>,
        /// Destination ports, as the world sees them: for a container, the published one. Without
        /// `proto`, a number means TCP and UDP, and a service the protocols that it is listed for.
        "port" => port: OneOrMany<PortItem>,
        /// Source ports, written like `port`.
        "from_port" => from_port: OneOrMany<PortItem>,
        /// Source: addresses, prefixes and groups.
        "from" => from: OneOrMany<Peer> = "any",
        /// Destination: addresses, prefixes and groups.
        "to" => to: OneOrMany<Peer> = "any",
        /// The interface that packets come in on; for `out` the bridge of the containers that the
        /// rule is for, and not for this host.
        "in_interface" => in_interface: OneOrMany<Interface>,
        /// The interface that packets leave by; for `out` and `forward`.
        "out_interface" => out_interface: OneOrMany<Interface>,
        /// ICMP and ICMPv6 types, by name or number; needs `proto`.
        "icmp_type" => icmp_type: OneOrMany<IcmpType>,
        /// How many connections one source may open; only for the action `limit`.
        "limit" => limit: LimitFile = {},
        /// Log what the rule matches.
        "log" => log: RuleLog = false,
    }
}

object! {
    /// The `connections`-th new connection of one source within `seconds` is refused, and goes on
    /// being refused while the source keeps trying.
    LimitFile {
        /// The first connection that is refused.
        "connections" => connections: crate::json::values::Connections = 6,
        /// Within so many seconds.
        "seconds" => seconds: Seconds = 30,
        /// How much of an IPv6 address is one source.
        "v6_prefix" => v6_prefix: V6Source = 64,
        /// What happens to a connection over the limit.
        "over" => over: crate::json::values::Over = "reject",
        /// How many sources are remembered at once, for IPv4 and IPv6 each.
        "sources" => sources: PerSource = 65536,
    }
}

/// `log` of a rule.
#[derive(Debug)]
pub(crate) enum RuleLog {
    Switch(bool),
    Settings(RuleLogFile),
}
