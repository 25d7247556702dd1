//! Compiles a valid policy to a table. The compiler is total: every policy compiles.
//!
//! | Chain | Hook, priority | What it judges |
//! |---|---|---|
//! | `scan` | prerouting, raw (−300) | sources that are banned for a scan; only if the policy bans scans |
//! | `ingress` | prerouting, mangle (−150) | packets for this host, by the port that the sender sees: after conntrack, before DNAT |
//! | `input` | input, filter − 10 | packets that are delivered here although their address is not this host's |
//! | `inbound` | from `ingress`, `input` | the rules for `in` |
//! | `forward` | forward, filter − 10 | packets that pass through, before Docker's own chains |
//! | `published` | from `forward`, `input` | packets that DNAT redirected, by the port before DNAT |
//! | `containers` | from `forward` | what containers send |
//! | `output` | output, filter − 10 | what this host sends |
//! | `egress` | from `output`, `containers` | the rules for `out`, for host and containers alike |
//!
//! Every policy has the same base chains but `scan`, and their chain policy is `drop`: the kernel
//! replaces rules atomically, but not the hooks of chains. The last rule of a chain does what the
//! default says.

mod builtin;
mod expr;
mod log;
mod rule;
pub(crate) mod scan;
mod untracked;

use std::collections::HashSet;

use expr::{accept, discard, goto};
use nfguard_netlink::{
    Base, Chain, ChainPolicy, Counter, Expr, Hook, Rule as NftRule, Table, ct_status, fib_type,
};

use self::log::log_line;
use crate::policy::{Action, Builtin, Direction, Interface, Policy, Verdict};
use nfguard_netlink::comment::{MAX_COMMENT_BYTES, clean};

/// Name of the table that policies are loaded into.
pub const TABLE: &str = "nfguard";

/// Comment of the table, by which nfguard recognizes it as its own. The number is that of the table's
/// format. It changes when a new nfguard cannot replace the table of an older one.
pub const TABLE_COMMENT: &str = "nfguard policy, format 1";

/// Name of the chain that judges what containers send.
pub const CONTAINERS_CHAIN: &str = "containers";

/// Comments of the rules that accept a packet because another hook judges it.
pub(crate) const DEFERRAL_COMMENTS: [&str; 2] =
    ["not an address of this host: input or forward decides", "judged by ingress"];

impl Policy {
    /// Returns the table that does what the policy says. The value is the same on every machine.
    #[must_use]
    pub fn compile(&self) -> Table {
        let mut compiler = Compiler {
            policy: self,
            table: Table {
                name: TABLE.to_owned(),
                comment: Some(TABLE_COMMENT.to_owned()),
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
        // Lists show the base chains first, because packets enter there.
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

impl Compiler<'_> {
    fn groups(&mut self) {
        for group in &self.policy.groups {
            let sets = rule::prefix_sets(&rule::group_set(&group.name), &group.prefixes);
            self.table.sets.extend(sets);
        }
    }

    fn ingress(&mut self) {
        let mut chain = base("ingress", Hook::Prerouting, -150);
        self.early_rules(&mut chain, Direction::In);
        chain.rules.push(commented(
            [expr::fib_type(fib_type::UNICAST), vec![accept()]],
            DEFERRAL_COMMENTS[0],
        ));
        chain.rules.push(plain([vec![goto("inbound")]]));
        self.table.chains.push(chain);
    }

    /// Adds the chain for packets that a routing rule, a VRF or another program's NAT delivers here
    /// although their address is not one of this host's. `ingress` does not judge them.
    fn input(&mut self) {
        let mut chain = base("input", Hook::Input, -10);
        self.early_rules(&mut chain, Direction::In);
        chain.rules.push(commented(
            [expr::ct_status(ct_status::DNAT), vec![goto("published")]],
            "sent on to this host",
        ));
        chain.rules.push(commented(
            [expr::fib_type(fib_type::UNICAST), vec![goto("inbound")]],
            "delivered here although the address is not this host's",
        ));
        chain.rules.push(commented([vec![accept()]], DEFERRAL_COMMENTS[1]));
        self.table.chains.push(chain);
    }

    fn inbound(&mut self) {
        let mut chain = Chain { name: "inbound".to_owned(), ..Chain::default() };
        self.untracked_answers(&mut chain, Direction::Out);
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
        self.early_rules(&mut chain, Direction::Forward);
        self.untracked_answers(&mut chain, Direction::Forward);
        self.builtins(&mut chain, builtin::FORWARD);
        chain.rules.push(commented(
            [expr::ct_status(ct_status::DNAT), vec![goto("published")]],
            "sent on to a container by its published port",
        ));
        for interface in &self.policy.containers.interfaces {
            chain.rules.push(plain([expr::iifname(interface), vec![goto(CONTAINERS_CHAIN)]]));
        }
        self.rules(&mut chain, Direction::Forward);
        self.default(&mut chain, Direction::Forward, self.policy.default.forward);
        self.table.chains.push(chain);
    }

    /// Adds the chain with the rules for `in`, matched by the connection's original port. A packet
    /// here has passed `ingress`, unless a program other than Docker rewrote a foreign address.
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
        let mut chain = Chain { name: CONTAINERS_CHAIN.to_owned(), ..Chain::default() };
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
        self.early_rules(&mut chain, Direction::Out);
        self.untracked_answers(&mut chain, Direction::In);
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

    /// Adds what comes before the rules of the policy. Packets of established connections, which are
    /// the most frequent, leave the chain here.
    fn early_rules(&mut self, chain: &mut Chain, direction: Direction) {
        if self.is_on(Builtin::Rh0) {
            let counter = self.counter("builtin/rh0");
            chain.rules.push(commented(
                [expr::routing_header_0(), counter, vec![discard()]],
                "builtin: rh0",
            ));
        }
        match direction {
            Direction::In if chain.name == "ingress" => self.known_peers(chain),
            Direction::In => {}
            Direction::Forward | Direction::Out => self.banned_outgoing(chain),
        }
        if self.is_on(Builtin::Established) {
            chain
                .rules
                .push(commented([expr::established(), vec![accept()]], "builtin: established"));
        }
        let lo = Interface { name: "lo".to_owned(), wildcard: false };
        let on_loopback = match direction {
            Direction::In => Some(expr::iifname(&lo)),
            Direction::Forward => None,
            Direction::Out => Some(expr::oifname(&lo)),
        };
        if let Some(on_loopback) = on_loopback.filter(|_| self.is_on(Builtin::Loopback)) {
            chain.rules.push(commented([on_loopback, vec![accept()]], "builtin: loopback"));
        }
        if chain.name == "ingress" {
            self.illegal_flags(chain);
        }
        // The rules judge every packet of this host itself, even an invalid one.
        if self.is_on(Builtin::Invalid) && direction != Direction::Out {
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
            let counter = self.counter(&rule::object_name(rule));
            let compiled = rule::compile(self.policy, rule, &counter);
            if matches!(rule.action, Action::Limit(_)) {
                self.counter(&rule::over_counter(&rule::object_name(rule)));
            }
            self.table.sets.extend(compiled.sets);
            for helper in compiled.helpers {
                if !self.table.helpers.contains(&helper) {
                    self.table.helpers.push(helper);
                }
            }
            self.table.chains.extend(compiled.chains);
            chain.rules.extend(compiled.rules);
        }
    }

    /// Adds the rules that accept answers to untracked packets that the rules of a direction allow.
    fn untracked_answers(&mut self, chain: &mut Chain, direction: Direction) {
        let rules = self.policy.rules.iter();
        for rule in rules.filter(|rule| rule.direction == direction && rule.untracked) {
            let (sets, rules) = untracked::answers(self.policy, rule);
            self.table.sets.extend(sets);
            chain.rules.extend(rules);
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

    /// Returns the expression of a named counter, and adds the counter with its first use. A counter
    /// has no comment: a change of the comment would set it to zero.
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
    NftRule { exprs: parts.concat(), comment: Some(clean(comment, MAX_COMMENT_BYTES)) }
}

/// Returns the ends of rules with this verdict: what else to match, and the last expression. A
/// rejection differs by protocol; `protocol` is the one that the rule has matched.
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
