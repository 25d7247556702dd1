//! Chains for what this host sends.
//!
//! Each packet of this host is judged by `output` or by `postrouting`. `postrouting` knows the way that
//! it really takes. The table says what it sees. `kernel_routes` measures the packets of programs, the
//! outer packets of one kind of tunnel, and those that are forwarded or only cross a bridge. The rest is
//! read in the sources of Linux 6.1 to 6.18:
//!
//! | Packet | Incoming interface | Source of this host | Sent by a program | Header of a link |
//! |---|---|---|---|---|
//! | of a program | none; in a VRF the VRF | mostly | yes | no |
//! | of the kernel: answers, errors | none | mostly | no | no |
//! | outer packet of a tunnel | the tunnel | yes | as the inner one | no matter |
//! | neighbour discovery, IGMP, MLD | where it leaves | mostly | no | no |
//! | forwarded | yes | no | no | yes |
//! | only crosses a bridge (br_netfilter) | none | no matter | perhaps: that of a virtual machine | yes |
//!
//! So a packet is this host's if it has such a source, or a program sent it, or no interface brought
//! it; unless it only crosses a bridge. `output` judges what that does not find: a foreign source that
//! no program uses, as in a VRF. It judges broadcast and multicast, too, which pass postrouting twice
//! if this host listens itself; `postrouting` drops those that leave by another interface than they
//! may, and counts only these.

use nfguard_netlink::{
    Base, Chain, ChainPolicy, CmpOp, Expr, Hook, IpVersion, MetaKey, Rule as NftRule,
    Verdict as NftVerdict, fib_type,
};

use super::expr::{self, End};
use super::{
    CROSSES_A_BRIDGE, Compiler, JUDGED_BY_OUTPUT, NOT_OF_THIS_HOST, OF_A_VRF, POSTROUTING_DECIDES,
    accept, base, builtin, commented, ct_status, discard, goto, jump, loopback_address, plain,
    rule,
};
use crate::policy::{Action, Direction, Policy, Rule, Verdict};

impl Compiler<'_> {
    pub(super) fn output(&mut self) {
        let mut chain = base("output", Hook::Output, -10);
        self.rh0(&mut chain);
        self.established(&mut chain);
        self.loopback(&mut chain, expr::oifname);
        chain.rules.extend(to_many().map(|to| plain([to, vec![goto("sent")]])));
        let not_ours = expr::source_type(CmpOp::Neq, fib_type::LOCAL);
        chain.rules.push(plain([not_ours, vec![jump("sent/foreign")]]));
        if self.policy.answers_senders() {
            // Before its last route is known, a packet must not be refused for the first one.
            for uncertain in [expr::mark(CmpOp::Neq, 0), expr::ct_status(ct_status::DNAT)] {
                chain.rules.push(commented([uncertain, vec![accept()]], POSTROUTING_DECIDES));
            }
            chain.rules.push(plain([vec![jump("sent/builtin")]]));
            chain.rules.push(plain([vec![goto("answers")]]));
        } else {
            chain.rules.push(commented([vec![accept()]], POSTROUTING_DECIDES));
        }
        self.table.chains.push(chain);

        let rules = vec![
            plain([expr::of_a_program(), vec![Expr::Verdict(NftVerdict::Return)]]),
            plain([vec![goto("sent")]]),
        ];
        self.table.chains.push(Chain {
            name: "sent/foreign".to_owned(),
            rules,
            ..Chain::default()
        });

        let mut chain = Chain { name: "sent".to_owned(), ..Chain::default() };
        let of_vrf = expr::is_vrf(MetaKey::Oifkind);
        chain.rules.push(commented([of_vrf, vec![accept()]], OF_A_VRF));
        chain.rules.push(plain([vec![jump("sent/builtin")]]));
        chain.rules.push(plain([vec![goto("egress")]]));
        self.table.chains.push(chain);

        let mut chain = Chain { name: "sent/builtin".to_owned(), ..Chain::default() };
        self.untracked_replies(&mut chain, Direction::In);
        self.builtins(&mut chain, builtin::OUTPUT);
        self.table.chains.push(chain);
    }

    pub(super) fn postrouting(&mut self) {
        let hook = Base { hook: Hook::Postrouting, priority: -10, policy: ChainPolicy::Accept };
        let name = "postrouting".to_owned();
        let mut chain = Chain { name, base: Some(hook), ..Chain::default() };
        self.banned_outgoing(&mut chain);
        self.established(&mut chain);
        self.loopback(&mut chain, expr::oifname);
        let crosses = [expr::no_iif(), expr::has_link_header()];
        chain.rules.push(commented([crosses.concat(), vec![accept()]], CROSSES_A_BRIDGE));
        let not_ours = expr::source_type(CmpOp::Neq, fib_type::LOCAL);
        chain.rules.push(plain([not_ours, vec![jump("leaving/foreign")]]));
        let of_vrf = expr::is_vrf(MetaKey::Oifkind);
        chain.rules.push(commented([of_vrf, vec![accept()]], OF_A_VRF));
        chain.rules.extend(to_many().map(|to| plain([to, vec![goto("leaving/many")]])));
        for version in IpVersion::ALL {
            let to = loopback_address(version, End::Destination);
            let counter = self.counter("builtin/martians");
            let parts = [to, expr::is_not_loopback(MetaKey::Oifname), counter, vec![discard()]];
            chain.rules.push(commented(parts, "a loopback address that would leave by wire"));
        }
        chain.rules.push(plain([vec![jump("sent/builtin")]]));
        let egress = Rejection::Drop.egress(self.policy);
        chain.rules.push(plain([vec![goto(egress)]]));
        self.table.chains.push(chain);
        self.leaving_foreign();
        self.leaving_to_many();
    }

    /// Adds the chain that tells the packets of this host with a foreign source from those that it passes
    /// on.
    fn leaving_foreign(&mut self) {
        let own = [expr::of_a_program(), expr::no_iif()];
        let back = Expr::Verdict(NftVerdict::Return);
        let mut rules: Vec<NftRule> =
            own.into_iter().map(|own| plain([own, vec![back.clone()]])).collect();
        rules.push(commented([vec![accept()]], NOT_OF_THIS_HOST));
        self.table.chains.push(Chain {
            name: "leaving/foreign".to_owned(),
            rules,
            ..Chain::default()
        });
    }

    /// Adds the chain for broadcast and multicast. `output` has judged, counted and logged them by the
    /// interface of before a route hook. They may come here twice, so what may leave counts no more.
    fn leaving_to_many(&mut self) {
        let mut chain = Chain { name: "leaving/many".to_owned(), ..Chain::default() };
        chain.rules.push(plain([vec![jump("sent/builtin")]]));
        for rule in self.policy.rules_for(Direction::Out) {
            let counter = self.counter(&rule::object_name(rule));
            chain.rules.extend(rule::refusal(self.policy, rule, &counter, Rejection::Drop));
        }
        self.builtins(&mut chain, builtin::EGRESS_LAST);
        self.accept_to_containers(&mut chain);
        let verdict = Rejection::Drop.of(self.policy.default.output);
        if verdict == Verdict::Accept {
            chain.rules.push(commented([vec![accept()]], JUDGED_BY_OUTPUT));
        } else {
            self.default(&mut chain, Direction::Out, verdict);
        }
        self.table.chains.push(chain);
    }

    /// Adds the chain that rejects what the rules for `out` reject, and leaves the rest to
    /// `postrouting`.
    pub(super) fn answers(&mut self) {
        let policy = self.policy;
        let mut chain = Chain { name: "answers".to_owned(), ..Chain::default() };
        let rules: Vec<&Rule> = policy.rules_for(Direction::Out).collect();
        let by_default = policy.default.output == Verdict::Reject;
        let last = rules.iter().rposition(|rule| rule.rejects()).map_or(0, |last| last + 1);
        let needed = if by_default { rules.len() } else { last };
        for rule in rules.into_iter().take(needed) {
            let answer = rule::answer(policy, rule);
            self.table.chains.extend(answer.chains);
            chain.rules.extend(answer.rules);
        }
        if by_default {
            self.builtins(&mut chain, builtin::EGRESS_LAST);
            self.accept_to_containers(&mut chain);
            self.default(&mut chain, Direction::Out, Verdict::Reject);
        } else {
            chain.rules.push(commented([vec![accept()]], POSTROUTING_DECIDES));
        }
        self.table.chains.push(chain);
    }

    pub(super) fn egress(&mut self, rejection: Rejection) {
        let name = rejection.egress(self.policy).to_owned();
        let mut chain = Chain { name, ..Chain::default() };
        self.rules(&mut chain, Direction::Out, rejection);
        self.builtins(&mut chain, builtin::EGRESS_LAST);
        self.accept_to_containers(&mut chain);
        let verdict = rejection.of(self.policy.default.output);
        self.default(&mut chain, Direction::Out, verdict);
        self.table.chains.push(chain);
    }

    fn accept_to_containers(&self, chain: &mut Chain) {
        for interface in &self.policy.containers.interfaces {
            chain.rules.push(commented(
                [expr::oifname(interface), vec![accept()]],
                "host to its containers",
            ));
        }
    }
}

/// What becomes of a packet that a rule rejects.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Rejection {
    /// Its sender is told.
    Answer,
    /// It is dropped, because postrouting cannot reject. `output` has told the sender where the way was
    /// certain.
    Drop,
}

impl Rejection {
    pub(super) fn of(self, verdict: Verdict) -> Verdict {
        match (self, verdict) {
            (Rejection::Drop, Verdict::Reject) => Verdict::Drop,
            (_, verdict) => verdict,
        }
    }

    /// Returns the name of the chain with the rules for `out`. There is one if no rule rejects.
    pub(super) fn egress(self, policy: &Policy) -> &'static str {
        if self == Rejection::Drop && policy.answers_senders() { "egress/silent" } else { "egress" }
    }
}

impl Policy {
    pub(super) fn rules_for(&self, direction: Direction) -> impl Iterator<Item = &Rule> {
        self.rules.iter().filter(move |rule| rule.direction == direction)
    }

    /// Returns whether `out` rejects anything.
    pub(super) fn answers_senders(&self) -> bool {
        self.default.output == Verdict::Reject || self.rules_for(Direction::Out).any(Rule::rejects)
    }
}

impl Rule {
    pub(super) fn rejects(&self) -> bool {
        match self.action {
            Action::Reject => true,
            Action::Limit(limit) => limit.over == Verdict::Reject,
            Action::Allow | Action::Deny => false,
        }
    }
}

/// Returns the matches of packets to broadcast and multicast addresses.
fn to_many() -> [Vec<Expr>; 3] {
    let multicast = |version: IpVersion, network: &[u8], len| {
        let to = expr::in_prefix(version, End::Destination, network, len);
        [expr::ip_version(version), to].concat()
    };
    let broadcast = expr::fib_type(fib_type::BROADCAST);
    [
        multicast(IpVersion::V4, &[224, 0, 0, 0], 4),
        multicast(IpVersion::V6, &[0xff, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0], 8),
        [expr::ip_version(IpVersion::V4), broadcast].concat(),
    ]
}
