//! From a valid policy to a table, total: whatever parses, compiles.
//!
//! | Chain | Hook, priority | What it judges |
//! |---|---|---|
//! | `scan` | prerouting, raw (−300) | who has been banned for a scan; only where the policy wants that |
//! | `ingress` | prerouting, mangle (−150) | what is for this host, by the port that the sender sees: after conntrack, before any DNAT |
//! | `input` | input, filter − 10 | what is delivered here although its address is not this host's |
//! | `inbound` | from `ingress`, `input` | the rules for `in` |
//! | `forward` | forward, filter − 10 | what passes through, ahead of Docker's own chains |
//! | `published` | from `forward`, `input` | what DNAT sent on, by the port before it |
//! | `containers` | from `forward` | what containers send |
//! | `output` | output, filter − 10 | what this host sends |
//! | `egress` | from `output`, `containers` | the rules for `out`, for host and containers alike |
//!
//! These base chains but `scan` are the same for every policy and have the policy `drop`: the
//! kernel swaps rules atomically, but not the hooks they hang on. What the default does, a last
//! rule says.

mod builtin;
mod expr;
mod rule;
pub(crate) mod scan;

use std::collections::HashSet;

use nfguard_netlink::{
    Base, Chain, ChainPolicy, Counter, Expr, Hook, Rule as NftRule, Table, Verdict as NftVerdict,
    ct_status, fib_type,
};

use crate::policy::{Action, Builtin, Direction, Interface, LogTarget, Policy, Verdict};

/// The table that policies are loaded into.
pub const TABLE: &str = "nfguard";

/// The table's comment, by which nfguard knows it as its own. The number is that of the table's
/// layout, and changes when a newer nfguard could not replace an older one's table.
pub const MARK: &str = "nfguard policy, format 1";

/// The chain that judges what containers send.
pub const CONTAINERS: &str = "containers";

/// What the rules say of themselves that accept because another hook judges.
pub(crate) const DEFERRALS: [&str; 2] =
    ["not an address of this host: input or forward decides", "judged by ingress"];

/// The most bytes of a comment: nft reads at most 128 with the NUL.
const COMMENT: usize = 127;

impl Policy {
    /// The table that does what the policy says; the same value on every machine.
    #[must_use]
    pub fn compile(&self) -> Table {
        let mut compiler = Compiler {
            policy: self,
            table: Table {
                name: TABLE.to_owned(),
                comment: Some(MARK.to_owned()),
                ..Table::default()
            },
            counters: HashSet::new(),
        };
        compiler.groups();
        compiler.scan();
        compiler.ingress();
        compiler.input();
        compiler.forward();
        compiler.inbound();
        compiler.published();
        compiler.containers();
        compiler.output();
        compiler.egress();
        // Read from the top: first where packets enter.
        compiler.table.chains.sort_by_key(|chain| chain.base.is_none());
        compiler.table
    }
}

struct Compiler<'p> {
    policy: &'p Policy,
    table: Table,
    /// The names of the table's counters.
    counters: HashSet<String>,
}

/// Which way the packets of a base chain go.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Way {
    In,
    Through,
    Out,
}

impl Compiler<'_> {
    fn groups(&mut self) {
        for group in &self.policy.groups {
            let sets = rule::prefix_sets(&rule::group_set(&group.name), &group.prefixes);
            self.table.sets.extend(sets);
        }
    }

    fn ingress(&mut self) {
        let mut chain = base("ingress", Hook::Prerouting, -150);
        self.early(&mut chain, Way::In);
        chain
            .rules
            .push(commented([expr::fib_type(fib_type::UNICAST), vec![accept()]], DEFERRALS[0]));
        chain.rules.push(plain([vec![goto("inbound")]]));
        self.table.chains.push(chain);
    }

    /// What a routing rule, a VRF or somebody's NAT delivers here although its address is not one
    /// of this host's, so that `ingress` let it go by.
    fn input(&mut self) {
        let mut chain = base("input", Hook::Input, -10);
        self.early(&mut chain, Way::In);
        chain.rules.push(commented(
            [expr::ct_status(ct_status::DNAT), vec![goto("published")]],
            "sent on to this host",
        ));
        chain.rules.push(commented(
            [expr::fib_type(fib_type::UNICAST), vec![goto("inbound")]],
            "delivered here although the address is not this host's",
        ));
        chain.rules.push(commented([vec![accept()]], DEFERRALS[1]));
        self.table.chains.push(chain);
    }

    fn inbound(&mut self) {
        let mut chain = Chain { name: "inbound".to_owned(), ..Chain::default() };
        self.builtins(&mut chain, builtin::INBOUND);
        self.rules(&mut chain, Direction::In);
        self.builtins(&mut chain, builtin::INBOUND_LAST);
        if self.policy.default.input != Verdict::Accept && self.is_on(Builtin::QuietBroadcast) {
            for (kind, what) in
                [(fib_type::BROADCAST, "broadcast"), (fib_type::MULTICAST, "multicast")]
            {
                let counter = self.counter(&format!("builtin/{what}"));
                chain.rules.push(commented(
                    [expr::fib_type(kind), counter, vec![discard()]],
                    &format!("builtin: quiet-broadcast, unwanted {what}"),
                ));
            }
        }
        self.closed_ports(&mut chain);
        self.default(&mut chain, Direction::In, self.policy.default.input);
        self.table.chains.push(chain);
    }

    fn forward(&mut self) {
        let mut chain = base("forward", Hook::Forward, -10);
        self.early(&mut chain, Way::Through);
        self.builtins(&mut chain, builtin::FORWARD);
        chain.rules.push(commented(
            [expr::ct_status(ct_status::DNAT), vec![goto("published")]],
            "sent on to a container by its published port",
        ));
        for interface in &self.policy.containers.interfaces {
            chain.rules.push(plain([expr::iifname(interface), vec![goto(CONTAINERS)]]));
        }
        self.rules(&mut chain, Direction::Forward);
        self.default(&mut chain, Direction::Forward, self.policy.default.forward);
        self.table.chains.push(chain);
    }

    /// The rules for `in` once more, by the connection's original port. Whoever comes here
    /// has passed `ingress`, unless something else than Docker rewrote an address that is not ours.
    fn published(&mut self) {
        let mut chain = Chain { name: "published".to_owned(), ..Chain::default() };
        for rule in &self.policy.rules {
            chain.rules.extend(rule::published(self.policy, rule));
        }
        self.default_verdict(&mut chain, "default/published", self.policy.default.input);
        self.table.chains.push(chain);
    }

    fn containers(&mut self) {
        let containers = &self.policy.containers;
        if containers.interfaces.is_empty() {
            return;
        }
        let mut chain = Chain { name: CONTAINERS.to_owned(), ..Chain::default() };
        for interface in &containers.interfaces {
            chain.rules.push(commented(
                [expr::oifname(interface), vec![accept()]],
                "container to container: left to Docker",
            ));
        }
        chain.rules.push(if containers.follow_out {
            plain([vec![goto("egress")]])
        } else {
            commented([vec![accept()]], "containers reach everything")
        });
        self.table.chains.push(chain);
    }

    fn output(&mut self) {
        let mut chain = base("output", Hook::Output, -10);
        self.early(&mut chain, Way::Out);
        self.builtins(&mut chain, builtin::OUTPUT);
        chain.rules.push(plain([vec![goto("egress")]]));
        self.table.chains.push(chain);
    }

    fn egress(&mut self) {
        let mut chain = Chain { name: "egress".to_owned(), ..Chain::default() };
        self.rules(&mut chain, Direction::Out);
        self.builtins(&mut chain, builtin::EGRESS_LAST);
        for interface in &self.policy.containers.interfaces {
            chain.rules.push(commented(
                [expr::oifname(interface), vec![accept()]],
                "host to its containers",
            ));
        }
        self.default(&mut chain, Direction::Out, self.policy.default.output);
        self.table.chains.push(chain);
    }

    /// What comes before all rules, cheapest for the packets that are most frequent: those of
    /// established connections.
    fn early(&mut self, chain: &mut Chain, way: Way) {
        if self.is_on(Builtin::Rh0) {
            let counter = self.counter("builtin/rh0");
            chain.rules.push(commented([expr::rh0(), counter, vec![discard()]], "builtin: rh0"));
        }
        match way {
            Way::In if chain.name == "ingress" => self.known_peers(chain),
            Way::In => {}
            Way::Through | Way::Out => self.banned_outgoing(chain),
        }
        if self.is_on(Builtin::Established) {
            chain
                .rules
                .push(commented([expr::established(), vec![accept()]], "builtin: established"));
        }
        let lo = Interface { name: "lo".to_owned(), wildcard: false };
        let on_loopback = match way {
            Way::In => Some(expr::iifname(&lo)),
            Way::Through => None,
            Way::Out => Some(expr::oifname(&lo)),
        };
        if let Some(on_loopback) = on_loopback.filter(|_| self.is_on(Builtin::Loopback)) {
            chain.rules.push(commented([on_loopback, vec![accept()]], "builtin: loopback"));
        }
        if chain.name == "ingress" {
            self.illegal_flags(chain);
        }
        // This host's own packets are never wrong enough to hide them from the rules.
        if self.is_on(Builtin::Invalid) && way != Way::Out {
            let counter = self.counter("builtin/invalid");
            chain
                .rules
                .push(commented([expr::invalid(), counter, vec![discard()]], "builtin: invalid"));
        }
    }

    fn builtins(&mut self, chain: &mut Chain, wanted: &[Builtin]) {
        for which in wanted {
            if !self.is_on(*which) {
                continue;
            }
            let rules = builtin::rules(*which, &chain.name, &mut self.table.sets);
            let comment = format!("builtin: {}", which.name());
            let rules =
                rules.into_iter().map(|matches| commented([matches, vec![accept()]], &comment));
            chain.rules.extend(rules);
        }
    }

    fn rules(&mut self, chain: &mut Chain, direction: Direction) {
        let rules = self.policy.rules.iter().filter(|rule| rule.direction == direction);
        for rule in rules {
            let counter = self.counter(&rule::object(rule));
            let compiled = rule::compile(self.policy, rule, &counter);
            if matches!(rule.action, Action::Limit(_)) {
                self.counter(&rule::over_counter(&rule::object(rule)));
            }
            self.table.sets.extend(compiled.sets);
            self.table.chains.extend(compiled.chains);
            chain.rules.extend(compiled.rules);
        }
    }

    fn default(&mut self, chain: &mut Chain, direction: Direction, verdict: Verdict) {
        let log = &self.policy.log;
        let name = match direction {
            Direction::In => "default/in",
            Direction::Out => "default/out",
            Direction::Forward => "default/forward",
        };
        if verdict != Verdict::Accept && log.unmatched.contains(&direction) {
            let line = log_line(&log.defaults, verdict, name);
            chain.rules.push(commented([line], "default: log"));
        }
        self.default_verdict(chain, name, verdict);
    }

    fn default_verdict(&mut self, chain: &mut Chain, counter: &str, verdict: Verdict) {
        let counter = self.counter(counter);
        for (matches, end) in verdicts(verdict, None) {
            chain.rules.push(commented([matches, counter.clone(), vec![end]], "default"));
        }
    }

    /// A named counter, made with its first use. It has no comment: a new one would have to
    /// start at zero.
    fn counter(&mut self, name: &str) -> Vec<Expr> {
        if self.counters.insert(name.to_owned()) {
            self.table.counters.push(Counter { name: name.to_owned(), comment: None });
        }
        vec![Expr::Counter(name.to_owned())]
    }

    fn is_on(&self, which: Builtin) -> bool {
        self.policy.builtin.contains(&which)
    }
}

fn base(name: &str, hook: Hook, priority: i32) -> Chain {
    let base = Base { hook, priority, policy: ChainPolicy::Drop };
    Chain { name: name.to_owned(), base: Some(base), ..Chain::default() }
}

fn plain<const N: usize>(parts: [Vec<Expr>; N]) -> NftRule {
    NftRule { exprs: parts.concat(), comment: None }
}

fn commented<const N: usize>(parts: [Vec<Expr>; N], comment: &str) -> NftRule {
    NftRule { exprs: parts.concat(), comment: Some(clean(comment, COMMENT)) }
}

/// nft has no escapes in quoted strings, so quotes become apostrophes.
fn clean(text: &str, bytes: usize) -> String {
    let text: String = text
        .chars()
        .map(|char| match char {
            '"' => '\'',
            char if char.is_control() => ' ',
            char => char,
        })
        .collect();
    let end = (0..=bytes.min(text.len())).rev().find(|at| text.is_char_boundary(*at));
    text.get(..end.unwrap_or(0)).unwrap_or_default().to_owned()
}

fn accept() -> Expr {
    Expr::Verdict(NftVerdict::Accept)
}

fn discard() -> Expr {
    Expr::Verdict(NftVerdict::Drop)
}

fn goto(chain: &str) -> Expr {
    Expr::Verdict(NftVerdict::Goto(chain.to_owned()))
}

/// How to end rules with this verdict: what else to match, and the end. A rejection differs by
/// protocol; `protocol` is the one that was matched already.
fn verdicts(verdict: Verdict, protocol: Option<u8>) -> Vec<(Vec<Expr>, Expr)> {
    use nfguard_netlink::{Reject, protocol::TCP};
    let reset = Expr::Reject(Reject::TcpReset);
    let unreachable = Expr::Reject(Reject::PortUnreachable);
    match (verdict, protocol) {
        (Verdict::Accept, _) => vec![(Vec::new(), accept())],
        (Verdict::Drop, _) => vec![(Vec::new(), discard())],
        (Verdict::Reject, Some(TCP)) => vec![(Vec::new(), reset)],
        (Verdict::Reject, Some(_)) => vec![(Vec::new(), unreachable)],
        (Verdict::Reject, None) => {
            vec![(expr::protocol(TCP), reset), (Vec::new(), unreachable)]
        }
    }
}

/// Who reads a group is also told what becomes of the packet, and by which counter's rule. The kernel
/// log has its prefix alone, which other programs look for.
fn log_line(target: &LogTarget, verdict: Verdict, counter: &str) -> Vec<Expr> {
    use crate::policy::{LogTo, RateUnit};
    let rate = target.rate.map(|rate| {
        let seconds = match rate.per {
            RateUnit::Second => 1,
            RateUnit::Minute => 60,
            RateUnit::Hour => 3600,
            RateUnit::Day => 86_400,
        };
        let (packets, burst) = (u64::from(rate.packets), rate.burst);
        Expr::Limit(nfguard_netlink::Limit { packets, seconds, burst })
    });
    let (prefix, to) = match target.to {
        LogTo::Kernel => (clean(&target.prefix, COMMENT), nfguard_netlink::LogTo::Kernel),
        LogTo::Group(group) => {
            let word = match verdict {
                Verdict::Accept => "accept",
                Verdict::Drop => "drop",
                Verdict::Reject => "reject",
            };
            let name = format!("{word} {counter}");
            let prefix = clean(target.prefix.trim_end(), COMMENT - 1 - name.len());
            let prefix = format!("{prefix} {name}").trim_start().to_owned();
            (prefix, nfguard_netlink::LogTo::Group(group))
        }
    };
    let log = Expr::Log(nfguard_netlink::Log { prefix, to });
    rate.into_iter().chain([log]).collect()
}
