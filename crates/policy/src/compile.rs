//! Compiles a valid policy to a table. The compiler is total: every policy compiles.
//!
//! | Chain | Hook, priority | What it judges |
//! |---|---|---|
//! | `scan` | prerouting, raw (−300) | sources that are banned for a scan; only if the policy bans scans |
//! | `ingress` | prerouting, mangle (−150) | what only the packet as it came shows: loopback addresses by wire, and which container asks for an address of this host. It lets nothing in |
//! | `martians` | from `ingress` | drops loopback addresses that came by wire |
//! | `asked` | from `ingress` | drops what a container asks an address of this host for, if the rules for `in` do not allow it: DNAT may lead it to another container |
//! | `helpers` | from `ingress` | assigns the kernel's helpers, which it takes before DNAT alone |
//! | `input` | input, filter − 10 | what is delivered here |
//! | `inbound` | from `input` | the rules for `in` |
//! | `forward` | forward, filter − 10 | packets that pass through, before Docker's own chains |
//! | `return-path` | from `input`, `forward` | drops sources to which the routing tables lead by another interface, if the policy says so |
//! | `contained` | from `input` | what a container sends to this host itself |
//! | `container-source` | from `asked`, `contained`, `containers` | drops what a container sends in the name of others |
//! | `redirected` | from `contained` | what a container sends and DNAT leads to this host: by destination and port before DNAT, and if no rule speaks of it by those after |
//! | `published` | from `forward`, `input` | packets from outside that DNAT redirected, by destination and port before DNAT |
//! | `published/inner` | from `forward` | also the rules for `forward` that name who sends; only if one does |
//! | `published/rules` | from `published`, `published/inner`, `redirected` | the rules for `in`, by destination and port before DNAT |
//! | `containers` | from `forward` | what containers send |
//! | `output` | output, filter − 10 | answers what `out` rejects; judges what `postrouting` cannot tell from a forwarded packet |
//! | `answers` | from `output` | the rules for `out` up to the last that rejects; only if one does |
//! | `sent` | from `output` | judges a packet of this host before it leaves |
//! | `sent/foreign`, `leaving/foreign` | from `output`, `postrouting` | find who sends what has a foreign source |
//! | `sent/builtin` | from `output`, `sent`, `postrouting` | built-in allowances, and replies to untracked packets |
//! | `postrouting` | postrouting, filter − 10 | what this host sends, by the way that it really leaves: after DNAT and marks, before source NAT |
//! | `leaving/many` | from `postrouting` | drops what is sent to many by an interface that the rules for `out` do not allow |
//! | `egress` | from `postrouting`, `sent`, `containers` | the rules for `out`, for host and containers alike |
//! | `egress/silent` | from `postrouting` | the same where a rule rejects, which postrouting cannot do |
//!
//! Each packet is judged where it ends, by `input` or `forward`. Whatever rewrites it on its way there,
//! with or without NAT, no verdict before counts.
//!
//! Every policy has the same base chains but `scan`: the kernel replaces rules atomically, but not the
//! hooks of chains. Their chain policy is `drop`, so nothing passes while the kernel builds a chain.
//! That of `postrouting` is `accept`: a table of an older nfguard has `output` judge what leaves, and
//! goes on with it until the transaction is done. The last rule of a chain does what the default
//! says.

pub(crate) mod builtin;
mod egress;
mod expr;
mod ingress;
mod limit;
mod log;
mod rule;
pub(crate) mod scan;
mod sets;
mod untracked;

use std::collections::HashSet;

use expr::{End, accept, discard, goto, jump};
use nfguard_netlink::{
    Base, Chain, ChainPolicy, Counter, Expr, Hook, IpVersion, Rule as NftRule, Table, ct_status,
};

use self::egress::Rejection;
use self::log::log_line;
use crate::policy::{Action, Builtin, Direction, Interface, Policy, Rule, Verdict};
use nfguard_netlink::comment::{MAX_COMMENT_BYTES, clean};

/// Name of the table that policies are loaded into.
pub const TABLE: &str = "nfguard";

/// Comment of the table, by which nfguard recognizes it as its own. The number is that of the table's
/// format. It changes when a new nfguard cannot replace the table of an older one.
pub const TABLE_COMMENT: &str = "nfguard policy, format 1";

/// Name of the chain that judges what containers send.
pub const CONTAINERS_CHAIN: &str = "containers";

/// Name of the counter of packets that the built-in `return-path` drops.
pub const RETURN_PATH_COUNTER: &str = "builtin/return-path";

/// Comments of the rules that accept a packet because another hook judges it.
pub(crate) const DEFERRAL_COMMENTS: [&str; 6] = [
    CROSSES_A_BRIDGE,
    JUDGED_WHERE_IT_ENDS,
    POSTROUTING_DECIDES,
    NOT_OF_THIS_HOST,
    JUDGED_BY_OUTPUT,
    OF_A_VRF,
];
const JUDGED_WHERE_IT_ENDS: &str = "input or forward decides";
const CROSSES_A_BRIDGE: &str = "only crosses a bridge: judged by forward";
const POSTROUTING_DECIDES: &str = "postrouting decides, by the way that the packet takes";
const NOT_OF_THIS_HOST: &str = "not of this host: judged by forward or output";
const JUDGED_BY_OUTPUT: &str = "to many: counted by output";
const OF_A_VRF: &str = "comes again by the interface that it leaves by";

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
        compiler.contained();
        compiler.inbound();
        compiler.asked();
        compiler.published();
        compiler.containers();
        compiler.output();
        compiler.postrouting();
        compiler.egress(Rejection::Answer);
        if self.answers_senders() {
            compiler.answers();
            compiler.egress(Rejection::Drop);
        }
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
            let sets = sets::prefix_sets(&sets::group_set(&group.name), &group.prefixes);
            self.table.sets.extend(sets);
        }
    }

    fn rh0(&mut self, chain: &mut Chain) {
        if self.is_on(Builtin::Rh0) {
            let parts = [expr::routing_header_0(), self.counter("builtin/rh0"), vec![discard()]];
            chain.rules.push(commented(parts, "builtin: rh0"));
        }
    }

    /// Adds the rule for packets of established connections. They are the most frequent, so it stands
    /// near the start.
    fn established(&self, chain: &mut Chain) {
        if self.is_on(Builtin::Established) {
            let parts = [expr::established(), vec![accept()]];
            chain.rules.push(commented(parts, "builtin: established"));
        }
    }

    fn loopback(&self, chain: &mut Chain, by: fn(&Interface) -> Vec<Expr>) {
        if self.is_on(Builtin::Loopback) {
            chain.rules.push(commented([by(&expr::lo()), vec![accept()]], "builtin: loopback"));
        }
    }

    fn invalid(&mut self, chain: &mut Chain) {
        if self.is_on(Builtin::Invalid) {
            let parts = [expr::invalid(), self.counter("builtin/invalid"), vec![discard()]];
            chain.rules.push(commented(parts, "builtin: invalid"));
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

    fn rules(&mut self, chain: &mut Chain, direction: Direction, rejection: Rejection) {
        for rule in self.policy.rules_for(direction) {
            let counter = self.counter(&rule::object_name(rule));
            let compiled = rule::compile(self.policy, rule, &counter, rejection);
            if matches!(rule.action, Action::Limit(_)) {
                self.counter(&limit::over_counter(&rule::object_name(rule)));
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

    /// Adds the rules that accept replies to untracked packets that the rules of a direction allow.
    fn untracked_replies(&mut self, chain: &mut Chain, direction: Direction) {
        let rules = self.policy.rules.iter();
        for rule in rules.filter(|rule| rule.direction == direction && rule.untracked) {
            let (sets, rules) = untracked::replies(self.policy, rule);
            if chain.name != "asked" {
                self.table.sets.extend(sets);
            }
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

/// Matches a loopback address: 127.0.0.0/8 or ::1.
fn loopback_address(version: IpVersion, end: End) -> Vec<Expr> {
    let address = match version {
        IpVersion::V4 => expr::in_prefix(version, end, &[127, 0, 0, 0], 8),
        IpVersion::V6 => {
            expr::in_prefix(version, end, &std::net::Ipv6Addr::LOCALHOST.octets(), 128)
        }
    };
    [expr::ip_version(version), address].concat()
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

/// Returns the comment of a rule's rules in the table.
fn comment(rule: &Rule) -> String {
    match &rule.comment {
        Some(comment) => format!("{}: {comment}", rule.name),
        None => rule.name.clone(),
    }
}
