//! Chains with which the kernel bans the sources of scans by itself.
//!
//! | Chain | From | What it does |
//! |---|---|---|
//! | `scan` | prerouting, raw | drops packets of banned sources |
//! | `scan/known` | `input`, `forward` | remembers peers that have sent data over a connection |
//! | `scan/illegal` | `input` | finds TCP flags that are a scan by themselves |
//! | `scan/closed` | `inbound`, `published`, `asked` | finds packets to closed ports of this host |
//! | `scan/kind` | `scan/closed` | ignores what harmless sources send |
//! | `scan/port` | `scan/kind` | counts each port of a source once |
//! | `scan/count` | `scan/port` | counts the ports of a source, as `limit` counts connections |
//! | `scan/outgoing` | `postrouting` | drops packets to banned sources, if the policy wants that |
//! | `scan/ban` | `scan/count`, `scan/illegal` | exempts never-ban entries, and limits the bans per minute |
//! | `scan/add` | `scan/ban` | adds the ban, short or long |

use std::time::Duration;

use nfguard_netlink::build::REG;
use nfguard_netlink::{
    Base, Chain, ChainPolicy, CmpOp, Dynset, Expr, Header, Hook, IpVersion, KeyType, Limit,
    MetaKey, Reg, Rule, Set, Verdict as NftVerdict, ct_status, fib_type, protocol, tcp_flag,
};

use super::expr::{self, End};
use super::log::log_line;
use super::{Compiler, accept, builtin, commented, discard, goto, plain, sets};
use crate::policy::{Builtin, Scan, Verdict};

/// Counter of closed ports; each port counts once for a source.
pub(crate) const CLOSED_PORT_COUNTER: &str = "scan/closed";
/// Start of the comments of rules that look for scans.
pub(crate) const COMMENT_PREFIX: &str = "scan: ";

/// Length of the IPv6 prefix that counts as one source, as for bans.
const V6_SOURCE_PREFIX_BITS: u8 = 64;
/// First port that the kernel chooses for outgoing connections by default. To such ports come answers
/// from any host after a multicast question (SSDP, WSD, mDNS), and probes of traceroute (33434), mtr
/// (33000) and tracepath (44444).
const FIRST_EPHEMERAL_PORT: u16 = 32_768;
/// How long no port is looked up after a set was full. Without this pause, each packet of a flood
/// would cost two look-ups in a full set.
const PAUSE_SECONDS: u64 = 1;
/// Size of the set of paused protocols: one entry for each protocol number. Expired entries take room
/// for a while.
const MAX_PAUSED_PROTOCOLS: u32 = 256;
/// Comment of the rules for a full set.
const FULL_COMMENT: &str = "scan: no room to remember another one";
/// First port after the privileged ones. Some hosts and resolvers choose their source ports from here
/// on.
const FIRST_UNPRIVILEGED_PORT: u16 = 1024;

impl Compiler<'_> {
    /// Adds the sets, and the chains that other chains jump to.
    pub(super) fn scan(&mut self) {
        let Some(scan) = &self.policy.scan else { return };
        for version in IpVersion::ALL {
            self.table.sets.extend(sets(scan, version));
            self.table.sets.push(self.never(version));
        }
        self.drop_banned();
        let known = IpVersion::ALL.map(|version| {
            let (absent, add) =
                (lookup("known", version, true), add("known", version, scan.known_peer_seconds));
            let text = "scan: a known peer";
            commented([source(version), vec![absent, add]], text)
        });
        if scan.known_peer_seconds > 0 {
            self.chain("known", known.to_vec());
        }
        if scan.illegal_flags {
            self.judge_flags(scan);
        }
        self.judge_ports(scan);
        self.ban(scan);
    }

    /// Adds the rule that finds known peers. It stands before the rule that accepts established
    /// connections, because only a connection proves a peer. Data has the flag PSH, though not in every
    /// packet. A source with a forged address does not get an assured connection, because it would
    /// have to answer what this host has sent.
    pub(super) fn known_peers(&mut self, chain: &mut Chain) {
        if self.policy.scan.as_ref().is_some_and(|scan| scan.known_peer_seconds > 0) {
            let data = expr::tcp_flags(tcp_flag::PSH, tcp_flag::PSH);
            let parts = [expr::protocol(protocol::TCP), data, expr::ct_status(ct_status::ASSURED)];
            chain.rules.push(plain([parts.concat(), vec![jump("known")]]));
        }
    }

    /// Adds the rule that finds illegal TCP flags. It stands before the rule that drops invalid packets,
    /// because connection tracking calls most such packets invalid.
    pub(super) fn illegal_flags(&mut self, chain: &mut Chain) {
        let Some(scan) = self.policy.scan.as_ref().filter(|scan| scan.illegal_flags) else {
            return;
        };
        let tcp = [expr::invalid(), expr::protocol(protocol::TCP)].concat();
        for interface in interfaces(scan) {
            let parts = [interface, tcp.clone(), expr::fib_type(fib_type::LOCAL)];
            chain.rules.push(plain([parts.concat(), vec![jump("illegal")]]));
        }
    }

    /// Adds the rule that finds closed ports, before the default.
    pub(super) fn closed_ports(&mut self, chain: &mut Chain) {
        let Some(scan) = &self.policy.scan else { return };
        if self.policy.default.input == Verdict::Accept {
            return;
        }
        for interface in interfaces(scan) {
            chain.rules.push(plain([interface, vec![jump("closed")]]));
        }
    }

    /// Returns the set of never-ban entries, with the entries of the policy. The entries of the host
    /// are added when the policy is loaded.
    fn never(&self, version: IpVersion) -> Set {
        let never = crate::policy::Prefixes::from_nets(self.policy.never_ban.iter().copied());
        let elements = sets::prefix_sets("", &never)
            .into_iter()
            .filter(|set| set.key == [expr::address_key(version)])
            .flat_map(|set| set.elements)
            .collect();
        Set {
            name: name("never", version),
            key: vec![expr::address_key(version)],
            interval: true,
            comment: Some(Set::STATE.to_owned()),
            elements,
            ..Set::default()
        }
    }

    fn drop_banned(&mut self) {
        // The chain policy `drop` would drop all packets while the kernel builds the chain.
        let base = Base { hook: Hook::Prerouting, priority: -300, policy: ChainPolicy::Accept };
        let mut chain = Chain { name: "scan".to_owned(), base: Some(base), ..Chain::default() };
        for version in IpVersion::ALL {
            let banned = vec![lookup("banned", version, false), goto(&name("drop", version))];
            chain.rules.push(plain([source(version), banned]));
        }
        self.table.chains.push(chain);
        let lo = expr::lo();
        for version in IpVersion::ALL {
            let mut rules = vec![commented([expr::iifname(&lo), vec![accept()]], "this host")];
            rules.extend(self.exemptions(version, End::Source, &accept()));
            let counter = self.counter("scan/dropped");
            rules.push(commented([counter, vec![discard()]], "banned for a scan"));
            self.chain(&format!("drop/{}", version.suffix()), rules);
        }
        if self.policy.ban_outgoing {
            let mut rules = vec![commented([expr::oifname(&lo), vec![back()]], "this host")];
            for version in IpVersion::ALL {
                rules.extend(self.exemptions(version, End::Destination, &back()));
            }
            let counter = self.counter("scan/unsent");
            rules.push(commented(
                [counter, vec![discard()]],
                "to a source that is banned for a scan",
            ));
            self.chain("outgoing", rules);
        }
    }

    /// Adds the rule that drops packets to banned sources, before established connections are accepted.
    pub(super) fn banned_outgoing(&self, chain: &mut Chain) {
        if self.policy.scan.is_none() || !self.policy.ban_outgoing {
            return;
        }
        for version in IpVersion::ALL {
            let banned = vec![lookup("banned", version, false), jump("outgoing")];
            chain.rules.push(plain([masked_address(version, End::Destination), banned]));
        }
    }

    /// Returns the rules for packets that a ban does not drop. `verdict` is the end of each.
    fn exemptions(&mut self, version: IpVersion, end: End, verdict: &Expr) -> Vec<Rule> {
        let mut rules = Vec::new();
        // A banned neighbour must stay reachable, or the link would lose a route.
        if version == IpVersion::V6 {
            let sets = &mut self.table.sets;
            let discovery = builtin::rules(Builtin::NeighbourDiscovery, "scan", sets);
            rules.extend(discovery.into_iter().map(|it| plain([it, vec![verdict.clone()]])));
        }
        let never = vec![lookup("never", version, false), verdict.clone()];
        rules.push(commented([address(version, end), never], "never banned"));
        rules
    }

    fn judge_flags(&mut self, scan: &Scan) {
        use tcp_flag::{ACK, FIN, RST, SYN};
        let mut rules = self.skipped(scan);
        for (mask, flags, what) in [
            (SYN | RST | ACK, 0, "none of SYN, RST, ACK: a NULL, FIN or XMAS scan"),
            (SYN | FIN, SYN | FIN, "SYN with FIN"),
            (SYN | RST, SYN | RST, "SYN with RST"),
        ] {
            let flags = [expr::protocol(protocol::TCP), expr::tcp_flags(mask, flags)].concat();
            rules.push(commented([flags, vec![goto("scan/flags")]], &format!("scan: {what}")));
        }
        self.chain("illegal", rules);
        let mut rules = vec![link_local(), not_by_this_interface()];
        for version in IpVersion::ALL {
            if scan.known_peer_seconds > 0 {
                let known = [vec![lookup("known", version, false)], self.counter("scan/exempt")];
                let parts = [source(version), known.concat(), vec![back()]];
                rules.push(commented(parts, "scan: a known peer is not banned for flags"));
            }
        }
        for version in IpVersion::ALL {
            let note = Dynset { update: true, ..dynset("flags", version, scan.repeat_ban_seconds) };
            rules.push(plain([source(version), vec![Expr::Dynset(note)]]));
        }
        rules.push(plain([vec![goto("scan/ban")]]));
        self.chain("flags", rules);
    }

    fn judge_ports(&mut self, scan: &Scan) {
        use tcp_flag::{ACK, FIN, RST, SYN};
        // These rules come first, because most packets of a flood end here.
        let full = self.counter("scan/full");
        let mut rules: Vec<Rule> = IpVersion::ALL
            .map(|version| {
                let paused = [vec![lookup("paused", version, false)], full.clone(), vec![back()]];
                commented([l4proto(version), paused.concat()], FULL_COMMENT)
            })
            .to_vec();
        rules.extend(IpVersion::ALL.map(|version| {
            let seen = vec![lookup("seen", version, false), back()];
            commented([port_key(version), seen], "scan: counted already")
        }));
        rules.extend(self.skipped(scan));
        rules.push(link_local());
        // The never-ban list has this host's own addresses.
        for version in IpVersion::ALL {
            let asked = [
                expr::ip_version(version),
                expr::ct_status(ct_status::DNAT),
                vec![expr::original_address(version), lookup("never", version, false)],
            ];
            rules.push(plain([asked.concat(), vec![goto("scan/kind")]]));
        }
        let elsewhere = expr::destination_type(CmpOp::Neq, fib_type::LOCAL);
        rules.push(commented([elsewhere, vec![back()]], "scan: not surely for this host"));
        rules.push(plain([vec![goto("scan/kind")]]));
        self.chain("closed", rules);

        let mut rules = vec![not_by_this_interface()];
        let syn = [expr::protocol(protocol::TCP), expr::tcp_flags(FIN | SYN | RST | ACK, SYN)];
        rules.push(plain([syn.concat(), vec![goto("scan/port")]]));
        let udp = || expr::protocol(protocol::UDP);
        let high = expr::in_range(expr::port(End::Destination), (FIRST_EPHEMERAL_PORT, u16::MAX));
        let text = "scan: perhaps an answer, or a traceroute";
        rules.push(commented([udp(), high, vec![back()]], text));
        let late = [
            expr::in_range(expr::port(End::Source), (0, FIRST_UNPRIVILEGED_PORT - 1)),
            expr::in_range(expr::port(End::Destination), (FIRST_UNPRIVILEGED_PORT, u16::MAX)),
        ];
        rules.push(commented([udp(), late.concat(), vec![back()]], "scan: perhaps a late answer"));
        rules.push(plain([udp(), vec![goto("scan/port")]]));
        rules.push(bare_ack());
        self.chain("kind", rules);

        let counter = self.counter(CLOSED_PORT_COUNTER);
        let mut rules = Vec::new();
        for version in IpVersion::ALL {
            let seen = Dynset { timeout: None, ..dynset("seen", version, 0) };
            let new =
                [vec![Expr::Dynset(seen)], counter.clone(), vec![goto(&name("count", version))]];
            rules.push(commented([port_key(version), new.concat()], "scan: a closed port"));
        }
        for version in IpVersion::ALL {
            let pause = Dynset { timeout: None, ..dynset("paused", version, 0) };
            rules.push(plain([l4proto(version), vec![Expr::Dynset(pause)]]));
        }
        rules.push(self.full());
        self.chain("port", rules);

        let slots = 1..scan.ports;
        for version in IpVersion::ALL {
            let slot = |slot: u8, inverted| lookup(&slot.to_string(), version, inverted);
            let mut rules = Vec::new();
            for number in slots.clone() {
                let taken = Dynset { timeout: None, ..dynset(&number.to_string(), version, 0) };
                let take = vec![slot(number, true), Expr::Dynset(taken), back()];
                let text = format!(
                    "scan: closed port {number} of {} in {} s",
                    scan.ports, scan.window_seconds
                );
                rules.push(commented([source(version), take], &text));
            }
            let all = [source(version), vec![slot(scan.ports - 1, false)]].concat();
            if scan.known_peer_seconds > 0 {
                let known = [vec![lookup("known", version, false)], self.counter("scan/exempt")];
                let parts = [all.clone(), known.concat(), vec![back()]];
                rules.push(commented(parts, "scan: a known peer is not banned for ports"));
            }
            let text = format!("scan: {} closed ports in {} s", scan.ports, scan.window_seconds);
            rules.push(commented([all, vec![goto("scan/ban")]], &text));
            rules.push(self.full());
            self.chain(&format!("count/{}", version.suffix()), rules);
        }
    }

    fn ban(&mut self, scan: &Scan) {
        let exempt = self.counter("scan/exempt");
        let mut rules: Vec<Rule> = IpVersion::ALL
            .map(|version| {
                let never = [vec![lookup("never", version, false)], exempt.clone(), vec![back()]];
                commented([address(version, End::Source), never.concat()], "scan: never banned")
            })
            .to_vec();
        let packets = u64::from(scan.bans_per_minute);
        let rate = Limit { packets, seconds: 60, burst: scan.bans_per_minute };
        rules.push(plain([vec![Expr::Limit(rate), goto("scan/add")]]));
        let text = format!("scan: more than {} bans a minute", scan.bans_per_minute);
        let line = log_line(&self.policy.log.defaults, Verdict::Drop, "scan/capped");
        rules.push(commented([line], &text));
        let counter = self.counter("scan/capped");
        rules.push(commented([counter, Vec::new()], &text));
        self.chain("ban", rules);

        let counter = self.counter("scan/bans");
        let line = log_line(&self.policy.log.defaults, Verdict::Drop, "scan/bans");
        let mut rules = vec![commented([line], "scan: log the ban")];
        for version in IpVersion::ALL {
            // If the set of earlier bans is full, the ban itself must still be added.
            let again =
                Dynset { update: true, ..dynset("again", version, scan.repeat_ban_seconds) };
            for (seconds, inverted) in [(scan.repeat_ban_seconds, false), (scan.ban_seconds, true)]
            {
                let parts = [
                    source(version),
                    vec![lookup("again", version, inverted), add("banned", version, seconds)],
                    counter.clone(),
                    vec![Expr::Dynset(again.clone()), back()],
                ];
                let time = if inverted { "" } else { " again" };
                rules.push(commented(parts, &format!("scan: banned{time} for {seconds} s")));
            }
        }
        rules.push(self.full());
        self.chain("add", rules);
    }

    /// Returns the rules that ignore packets of this host and its containers.
    fn skipped(&self, scan: &Scan) -> Vec<Rule> {
        if !scan.interfaces.is_empty() {
            return Vec::new();
        }
        let lo = expr::lo();
        let lo = Some(lo).filter(|_| !self.is_on(Builtin::Loopback));
        let inside = lo.iter().chain(&self.policy.containers.interfaces);
        let text = "scan: not from outside";
        inside.map(|it| commented([expr::iifname(it), vec![back()]], text)).collect()
    }

    fn full(&mut self) -> Rule {
        commented([self.counter("scan/full"), Vec::new()], FULL_COMMENT)
    }

    fn chain(&mut self, name: &str, rules: Vec<Rule>) {
        let name = format!("scan/{name}");
        self.table.chains.push(Chain { name, rules, ..Chain::default() });
    }
}

/// Returns the sets of one IP version.
fn sets(scan: &Scan, version: IpVersion) -> Vec<Set> {
    let set = |what: &str, key, timeout| Set {
        name: name(what, version),
        key,
        dynamic: true,
        timeout: Some(Duration::from_secs(timeout)),
        size: Some(scan.sources),
        ..Set::default()
    };
    let paused = Set {
        size: Some(MAX_PAUSED_PROTOCOLS),
        ..set("paused", vec![KeyType::InetProto], PAUSE_SECONDS)
    };
    let address = expr::address_key(version);
    let source = |what: &str| set(what, vec![address], 0);
    let within = u64::from(scan.window_seconds);
    let port = vec![address, address, KeyType::InetProto, KeyType::InetService];
    let slots = (1..scan.ports).map(|slot| set(&slot.to_string(), vec![address], within));
    let mut sets = vec![paused, set("seen", port, within)];
    sets.extend(slots);
    // Each element of these sets has its own timeout, so that a changed length does not empty them.
    sets.extend([source("banned"), source("again")]);
    sets.extend(Some(source("flags")).filter(|_| scan.illegal_flags));
    sets.extend(Some(source("known")).filter(|_| scan.known_peer_seconds > 0));
    sets
}

fn name(what: &str, version: IpVersion) -> String {
    format!("scan/{what}/{}", version.suffix())
}

/// Returns a match for each interface that the policy names, or one empty match.
fn interfaces(scan: &Scan) -> Vec<Vec<Expr>> {
    match scan.interfaces.as_slice() {
        [] => vec![Vec::new()],
        some => some.iter().map(expr::iifname).collect(),
    }
}

fn address(version: IpVersion, end: End) -> Vec<Expr> {
    [expr::ip_version(version), vec![expr::address(version, end)]].concat()
}

/// Loads the part of an address that counts as one source.
fn masked_address(version: IpVersion, end: End) -> Vec<Expr> {
    let mask = (version == IpVersion::V6).then(|| expr::keep_prefix(16, V6_SOURCE_PREFIX_BITS));
    address(version, end).into_iter().chain(mask).collect()
}

fn source(version: IpVersion) -> Vec<Expr> {
    masked_address(version, End::Source)
}

/// Loads the protocol of a packet of this IP version.
fn l4proto(version: IpVersion) -> Vec<Expr> {
    let protocol = Expr::Meta { key: MetaKey::L4proto, reg: Reg::FIRST };
    expr::ip_version(version).into_iter().chain([protocol]).collect()
}

/// Loads source, destination, protocol and port into adjacent registers.
fn port_key(version: IpVersion) -> Vec<Expr> {
    let (width, offset) = if version == IpVersion::V4 { (1, 16) } else { (4, 24) };
    let reg = |index: u8| Reg::new(index).unwrap_or(Reg::FIRST);
    let to = reg(width);
    let mut exprs = source(version);
    exprs.extend([
        Expr::Payload { header: Header::Network, offset, len: u32::from(width) * 4, reg: to },
        Expr::Meta { key: MetaKey::L4proto, reg: reg(2 * width) },
        Expr::Payload { header: Header::Transport, offset: 2, len: 2, reg: reg(2 * width + 1) },
    ]);
    exprs
}

/// Returns the rule for an ACK without a connection, which probes the rules of a firewall. It ignores
/// higher ports, to which packets of forgotten connections come.
fn bare_ack() -> Rule {
    use tcp_flag::{ACK, FIN, PSH, RST, SYN, URG};
    let flags = expr::tcp_flags(FIN | SYN | RST | PSH | ACK | URG, ACK);
    let ack = [expr::protocol(protocol::TCP), flags];
    let port = expr::in_range(expr::port(End::Destination), (0, FIRST_UNPRIVILEGED_PORT - 1));
    commented([ack.concat(), port, vec![goto("scan/port")]], "scan: an ACK of no connection")
}

/// Returns the rule that ignores link-local addresses. All of a link would be one source, with its
/// routers.
fn link_local() -> Rule {
    let network = [0xfe, 0x80, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0];
    let on_link = expr::in_prefix(IpVersion::V6, End::Source, &network, 10);
    commented([expr::ip_version(IpVersion::V6), on_link, vec![back()]], "scan: of this link")
}

/// Returns the rule that ignores sources which do not come in here, so that no packet has another network
/// banned.
fn not_by_this_interface() -> Rule {
    let text = "scan: an answer would not leave by this interface";
    commented([expr::no_return_path(), vec![back()]], text)
}

fn lookup(what: &str, version: IpVersion, inverted: bool) -> Expr {
    Expr::Lookup { reg: REG, set: name(what, version), inverted }
}

fn dynset(what: &str, version: IpVersion, seconds: u32) -> Dynset {
    let timeout = Some(Duration::from_secs(u64::from(seconds)));
    Dynset { reg: REG, set: name(what, version), update: false, timeout }
}

fn add(what: &str, version: IpVersion, seconds: u32) -> Expr {
    Expr::Dynset(dynset(what, version, seconds))
}

fn jump(chain: &str) -> Expr {
    Expr::Verdict(NftVerdict::Jump(format!("scan/{chain}")))
}

fn back() -> Expr {
    Expr::Verdict(NftVerdict::Return)
}
