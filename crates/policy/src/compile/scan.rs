//! The kernel bans who scans, and nobody has to look on.
//!
//! | Chain | From | What it does |
//! |---|---|---|
//! | `scan` | prerouting, raw | drops who is banned |
//! | `scan/known` | `ingress` | remembers who has sent data over a connection |
//! | `scan/illegal` | `ingress` | looks for TCP flags that are a scan by themselves |
//! | `scan/closed` | `inbound` | looks for closed ports, and passes over what innocents send |
//! | `scan/port` | `scan/closed` | the first time that a source tries a port |
//! | `scan/count` | `scan/port` | so many of them, as `limit` counts |
//! | `scan/outgoing` | `output`, `forward` | drops what is sent to the banned, where that is wanted |
//! | `scan/ban` | `scan/count`, `scan/illegal` | who is spared; and not too many at once |
//! | `scan/add` | `scan/ban` | for a short time, or for long |

use std::time::Duration;

use nfguard_netlink::{
    Base, Chain, ChainPolicy, Dynset, Expr, Header, Hook, KeyType, Limit, MetaKey, Reg, Rule, Set,
    Verdict as NftVerdict, ct_status, fib_type, protocol, tcp_flag,
};

use super::expr::{self, End, Family};
use super::{Compiler, accept, builtin, commented, discard, goto, log_line, plain, rule};
use crate::policy::{Builtin, Interface, Scan, Verdict};

/// The counter of closed ports, each counted once for a source.
pub(crate) const CLOSED: &str = "scan/closed";
/// How the comments begin of rules that look for scans.
pub(crate) const SCAN: &str = "scan: ";

const FAMILIES: [Family; 2] = [Family::V4, Family::V6];
/// How much of an IPv6 address is one source: as bans have it.
const V6_SOURCE: u8 = 64;
/// From here on the kernel chooses ports for what begins here, by default. Answers come to them from
/// anywhere, where the question was for many (SSDP, WSD, mDNS); so do probes of traceroute (33434),
/// mtr (33000) and tracepath (44444).
const EPHEMERAL: u16 = 32_768;
/// For how long no port is looked up when there was no room for one. Else whoever fills the sets has
/// every packet of a flood looked up in vain, twice.
const PAUSE: u64 = 1;
/// One for each protocol; what has run out takes room for a while.
const PAUSED: u32 = 256;
const NO_ROOM: &str = "scan: no room to remember another one";
/// The first port that is not a service's of old. Some hosts and resolvers choose from here on.
const UNPRIVILEGED: u16 = 1024;

impl Compiler<'_> {
    /// What stands by itself: the sets, and the chains that others jump to.
    pub(super) fn scan(&mut self) {
        let Some(scan) = &self.policy.scan else { return };
        for family in FAMILIES {
            self.table.sets.extend(sets(scan, family));
            self.table.sets.push(self.never(family));
        }
        self.drop_banned();
        let known = FAMILIES.map(|family| {
            let (absent, add) =
                (lookup("known", family, true), add("known", family, scan.known_peer_seconds));
            let text = "scan: a known peer";
            commented([source(family), vec![absent, add]], text)
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

    /// In front of what lets connections go on, for it is they that prove a peer. Data has the flag
    /// PSH, though not in every packet. Whoever only forges addresses does not get a connection so
    /// far: to that belongs an answer to what this host has sent.
    pub(super) fn known_peers(&mut self, chain: &mut Chain) {
        if self.policy.scan.as_ref().is_some_and(|scan| scan.known_peer_seconds > 0) {
            let data = expr::tcp_flags(tcp_flag::PSH, tcp_flag::PSH);
            let parts = [expr::protocol(protocol::TCP), data, expr::ct_status(ct_status::ASSURED)];
            chain.rules.push(plain([parts.concat(), vec![jump("known")]]));
        }
    }

    /// In front of what drops the invalid, which most such packets are to connection tracking.
    pub(super) fn illegal_flags(&mut self, chain: &mut Chain) {
        let Some(scan) = self.policy.scan.as_ref().filter(|scan| scan.illegal_flags) else {
            return;
        };
        let tcp = [expr::invalid(), expr::protocol(protocol::TCP)].concat();
        for interface in on(scan) {
            let parts = [interface, tcp.clone(), expr::fib_type(fib_type::LOCAL)];
            chain.rules.push(plain([parts.concat(), vec![jump("illegal")]]));
        }
    }

    /// In front of the default.
    pub(super) fn closed_ports(&mut self, chain: &mut Chain) {
        let Some(scan) = &self.policy.scan else { return };
        if self.policy.default.input == Verdict::Accept {
            return;
        }
        for interface in on(scan) {
            chain.rules.push(plain([interface, vec![jump("closed")]]));
        }
    }

    /// Those that the policy names; the others, whom only the host knows, come to them when it is
    /// loaded.
    fn never(&self, family: Family) -> Set {
        let never = crate::policy::Prefixes::from_nets(self.policy.never_ban.iter().copied());
        let elements = rule::prefix_sets("", &never)
            .into_iter()
            .filter(|set| set.key == [key_type(family)])
            .flat_map(|set| set.elements)
            .collect();
        Set {
            name: name("never", family),
            key: vec![key_type(family)],
            interval: true,
            comment: Some(Set::STATE.to_owned()),
            elements,
            ..Set::default()
        }
    }

    fn drop_banned(&mut self) {
        // A drop here would be final for all packets while the chain is made.
        let base = Base { hook: Hook::Prerouting, priority: -300, policy: ChainPolicy::Accept };
        let mut chain = Chain { name: "scan".to_owned(), base: Some(base), ..Chain::default() };
        for family in FAMILIES {
            let banned = vec![lookup("banned", family, false), goto(&name("drop", family))];
            chain.rules.push(plain([source(family), banned]));
        }
        self.table.chains.push(chain);
        let lo = Interface { name: "lo".to_owned(), wildcard: false };
        for family in FAMILIES {
            let mut rules = vec![commented([expr::iifname(&lo), vec![accept()]], "this host")];
            rules.extend(self.spared(family, End::Source, &accept()));
            let counter = self.counter("scan/dropped");
            rules.push(commented([counter, vec![discard()]], "banned for a scan"));
            self.chain(&format!("drop/{}", suffix(family)), rules);
        }
        if self.policy.ban_outgoing {
            let mut rules = vec![commented([expr::oifname(&lo), vec![back()]], "this host")];
            for family in FAMILIES {
                rules.extend(self.spared(family, End::Destination, &back()));
            }
            let counter = self.counter("scan/unsent");
            rules.push(commented([counter, vec![discard()]], "to somebody banned for a scan"));
            self.chain("outgoing", rules);
        }
    }

    /// In front of what lets connections go on.
    pub(super) fn banned_outgoing(&self, chain: &mut Chain) {
        if self.policy.scan.is_none() || !self.policy.ban_outgoing {
            return;
        }
        for family in FAMILIES {
            let banned = vec![lookup("banned", family, false), jump("outgoing")];
            chain.rules.push(plain([who(family, End::Destination), banned]));
        }
    }

    /// What ends in this way although somebody is banned.
    fn spared(&mut self, family: Family, end: End, way: &Expr) -> Vec<Rule> {
        let mut rules = Vec::new();
        // To ban a neighbour must not mean to lose the way to it.
        if family == Family::V6 {
            let sets = &mut self.table.sets;
            let discovery = builtin::rules(Builtin::NeighbourDiscovery, "scan", sets);
            rules.extend(discovery.into_iter().map(|it| plain([it, vec![way.clone()]])));
        }
        let never = vec![lookup("never", family, false), way.clone()];
        rules.push(commented([address(family, end), never], "never banned"));
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
        let mut rules = vec![link_local()];
        for family in FAMILIES {
            let note = Dynset { update: true, ..dynset("flags", family, scan.repeat_ban_seconds) };
            rules.push(plain([source(family), vec![Expr::Dynset(note)]]));
        }
        rules.push(plain([vec![goto("scan/ban")]]));
        self.chain("flags", rules);
    }

    fn judge_ports(&mut self, scan: &Scan) {
        use tcp_flag::{ACK, FIN, RST, SYN};
        // First of all, for this is most of a flood.
        let full = self.counter("scan/full");
        let mut rules: Vec<Rule> = FAMILIES
            .map(|family| {
                let paused = [vec![lookup("paused", family, false)], full.clone(), vec![back()]];
                commented([l4proto(family), paused.concat()], NO_ROOM)
            })
            .to_vec();
        rules.extend(FAMILIES.map(|family| {
            let seen = vec![lookup("seen", family, false), back()];
            commented([port_key(family), seen], "scan: counted already")
        }));
        rules.extend(self.skipped(scan));
        rules.push(link_local());
        if !self.is_on(Builtin::QuietBroadcast) {
            for kind in [fib_type::BROADCAST, fib_type::MULTICAST] {
                let parts = [expr::fib_type(kind), vec![back()]];
                rules.push(commented(parts, "scan: not to one host"));
            }
        }
        let syn = [expr::protocol(protocol::TCP), expr::tcp_flags(FIN | SYN | RST | ACK, SYN)];
        rules.push(plain([syn.concat(), vec![goto("scan/port")]]));
        let udp = || expr::protocol(protocol::UDP);
        let high = expr::in_range(expr::port(End::Destination), (EPHEMERAL, u16::MAX));
        let text = "scan: perhaps an answer, or the trace of a route";
        rules.push(commented([udp(), high, vec![back()]], text));
        let late = [
            expr::in_range(expr::port(End::Source), (0, UNPRIVILEGED - 1)),
            expr::in_range(expr::port(End::Destination), (UNPRIVILEGED, u16::MAX)),
        ];
        rules.push(commented([udp(), late.concat(), vec![back()]], "scan: perhaps a late answer"));
        rules.push(plain([udp(), vec![goto("scan/port")]]));
        rules.push(bare_ack());
        self.chain("closed", rules);

        let counter = self.counter(CLOSED);
        let mut rules = Vec::new();
        for family in FAMILIES {
            let seen = Dynset { timeout: None, ..dynset("seen", family, 0) };
            let new =
                [vec![Expr::Dynset(seen)], counter.clone(), vec![goto(&name("count", family))]];
            rules.push(commented([port_key(family), new.concat()], "scan: a closed port"));
        }
        for family in FAMILIES {
            let pause = Dynset { timeout: None, ..dynset("paused", family, 0) };
            rules.push(plain([l4proto(family), vec![Expr::Dynset(pause)]]));
        }
        rules.push(self.full());
        self.chain("port", rules);

        let slots = 1..scan.ports;
        for family in FAMILIES {
            let slot = |slot: u8, inverted| lookup(&slot.to_string(), family, inverted);
            let mut rules = Vec::new();
            for number in slots.clone() {
                let taken = Dynset { timeout: None, ..dynset(&number.to_string(), family, 0) };
                let take = vec![slot(number, true), Expr::Dynset(taken), back()];
                let text = format!(
                    "scan: closed port {number} of {} in {} s",
                    scan.ports, scan.window_seconds
                );
                rules.push(commented([source(family), take], &text));
            }
            let all = [source(family), vec![slot(scan.ports - 1, false)]].concat();
            if scan.known_peer_seconds > 0 {
                let known = [vec![lookup("known", family, false)], self.counter("scan/spared")];
                let parts = [all.clone(), known.concat(), vec![back()]];
                rules.push(commented(parts, "scan: a known peer is not banned for ports"));
            }
            let text = format!("scan: {} closed ports in {} s", scan.ports, scan.window_seconds);
            rules.push(commented([all, vec![goto("scan/ban")]], &text));
            rules.push(self.full());
            self.chain(&format!("count/{}", suffix(family)), rules);
        }
    }

    fn ban(&mut self, scan: &Scan) {
        let spared = self.counter("scan/spared");
        let mut rules: Vec<Rule> = FAMILIES
            .map(|family| {
                let never = [vec![lookup("never", family, false)], spared.clone(), vec![back()]];
                commented([address(family, End::Source), never.concat()], "scan: never banned")
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
        let mut rules = vec![commented([line], "scan: somebody is banned")];
        for family in FAMILIES {
            // To be full of those who were banned once must not let anybody go.
            let again = Dynset { update: true, ..dynset("again", family, scan.repeat_ban_seconds) };
            for (seconds, inverted) in [(scan.repeat_ban_seconds, false), (scan.ban_seconds, true)]
            {
                let parts = [
                    source(family),
                    vec![lookup("again", family, inverted), add("banned", family, seconds)],
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

    /// What comes from containers is not from outside.
    fn skipped(&self, scan: &Scan) -> Vec<Rule> {
        if !scan.interfaces.is_empty() {
            return Vec::new();
        }
        let lo = Interface { name: "lo".to_owned(), wildcard: false };
        let lo = Some(lo).filter(|_| !self.is_on(Builtin::Loopback));
        let inside = lo.iter().chain(&self.policy.containers.interfaces);
        let text = "scan: not from outside";
        inside.map(|it| commented([expr::iifname(it), vec![back()]], text)).collect()
    }

    fn full(&mut self) -> Rule {
        commented([self.counter("scan/full"), Vec::new()], NO_ROOM)
    }

    fn chain(&mut self, name: &str, rules: Vec<Rule>) {
        let name = format!("scan/{name}");
        self.table.chains.push(Chain { name, rules, ..Chain::default() });
    }
}

/// What the rules remember of one family.
fn sets(scan: &Scan, family: Family) -> Vec<Set> {
    let set = |what: &str, key, timeout| Set {
        name: name(what, family),
        key,
        dynamic: true,
        timeout: Some(Duration::from_secs(timeout)),
        size: Some(scan.sources),
        ..Set::default()
    };
    let paused = Set { size: Some(PAUSED), ..set("paused", vec![KeyType::InetProto], PAUSE) };
    let address = key_type(family);
    let source = |what: &str| set(what, vec![address], 0);
    let within = u64::from(scan.window_seconds);
    let port = vec![address, address, KeyType::InetProto, KeyType::InetService];
    let slots = (1..scan.ports).map(|slot| set(&slot.to_string(), vec![address], within));
    let mut sets = vec![paused, set("seen", port, within)];
    sets.extend(slots);
    // These say with each element how long it lasts, so that another length does not empty them.
    sets.extend([source("banned"), source("again")]);
    sets.extend(Some(source("flags")).filter(|_| scan.illegal_flags));
    sets.extend(Some(source("known")).filter(|_| scan.known_peer_seconds > 0));
    sets
}

fn name(what: &str, family: Family) -> String {
    format!("scan/{what}/{}", suffix(family))
}

fn suffix(family: Family) -> &'static str {
    if family == Family::V4 { "v4" } else { "v6" }
}

fn key_type(family: Family) -> KeyType {
    if family == Family::V4 { KeyType::Ipv4Addr } else { KeyType::Ipv6Addr }
}

/// The interfaces that are asked for, each by its match.
fn on(scan: &Scan) -> Vec<Vec<Expr>> {
    match scan.interfaces.as_slice() {
        [] => vec![Vec::new()],
        some => some.iter().map(expr::iifname).collect(),
    }
}

fn address(family: Family, end: End) -> Vec<Expr> {
    [expr::family(family), vec![expr::address(family, end)]].concat()
}

/// How much of an address is one source.
fn who(family: Family, end: End) -> Vec<Expr> {
    let mask = (family == Family::V6).then(|| expr::mask(16, V6_SOURCE));
    address(family, end).into_iter().chain(mask).collect()
}

fn source(family: Family) -> Vec<Expr> {
    who(family, End::Source)
}

/// The protocol of a packet of this family.
fn l4proto(family: Family) -> Vec<Expr> {
    let protocol = Expr::Meta { key: MetaKey::L4proto, reg: Reg::FIRST };
    expr::family(family).into_iter().chain([protocol]).collect()
}

/// Source, destination, protocol and port, side by side.
fn port_key(family: Family) -> Vec<Expr> {
    let (width, offset) = if family == Family::V4 { (1, 16) } else { (4, 24) };
    let reg = |index: u8| Reg::new(index).unwrap_or(Reg::FIRST);
    let to = reg(width);
    let mut exprs = source(family);
    exprs.extend([
        Expr::Payload { header: Header::Network, offset, len: u32::from(width) * 4, reg: to },
        Expr::Meta { key: MetaKey::L4proto, reg: reg(2 * width) },
        Expr::Payload { header: Header::Transport, offset: 2, len: 2, reg: reg(2 * width + 1) },
    ]);
    exprs
}

/// Finds out what a firewall lets pass. To higher ports comes what is left of connections that this
/// host began and has forgotten.
fn bare_ack() -> Rule {
    use tcp_flag::{ACK, FIN, PSH, RST, SYN, URG};
    let flags = expr::tcp_flags(FIN | SYN | RST | PSH | ACK | URG, ACK);
    let ack = [expr::protocol(protocol::TCP), flags];
    let port = expr::in_range(expr::port(End::Destination), (0, UNPRIVILEGED - 1));
    commented([ack.concat(), port, vec![goto("scan/port")]], "scan: an ACK of no connection")
}

/// All of a link would be one source, the routers among it.
fn link_local() -> Rule {
    let network = [0xfe, 0x80, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0];
    let on_link = expr::in_prefix(Family::V6, End::Source, &network, 10);
    commented([expr::family(Family::V6), on_link, vec![back()]], "scan: of this link")
}

fn lookup(what: &str, family: Family, inverted: bool) -> Expr {
    expr::lookup(&name(what, family), inverted)
}

fn dynset(what: &str, family: Family, seconds: u32) -> Dynset {
    let timeout = Some(Duration::from_secs(u64::from(seconds)));
    Dynset { reg: Reg::FIRST, set: name(what, family), update: false, timeout }
}

fn add(what: &str, family: Family, seconds: u32) -> Expr {
    Expr::Dynset(dynset(what, family, seconds))
}

fn jump(chain: &str) -> Expr {
    Expr::Verdict(NftVerdict::Jump(format!("scan/{chain}")))
}

fn back() -> Expr {
    Expr::Verdict(NftVerdict::Return)
}
