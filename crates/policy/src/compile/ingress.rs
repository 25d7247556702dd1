//! Chains for what comes in, and for what passes through.

use nfguard_netlink::{
    Chain, Expr, Hook, IpVersion, MetaKey, Rule as NftRule, Verdict as NftVerdict, ct_status,
    fib_type,
};

use super::expr::{self, End, accept, discard, goto, jump};
use super::{
    CONTAINERS_CHAIN, Compiler, JUDGED_WHERE_IT_ENDS, RETURN_PATH_COUNTER, Rejection, base,
    builtin, commented, loopback_address, plain, rule,
};
use crate::policy::{Action, Builtin, Direction, Rule, Verdict};

impl Compiler<'_> {
    /// Adds the chain that sees packets before NAT. An older nfguard had it judge them, so its table is
    /// replaced without a change of hooks.
    pub(super) fn ingress(&mut self) {
        let mut chain = base("ingress", Hook::Prerouting, -150);
        self.martians(&mut chain);
        let containers = &self.policy.containers.interfaces;
        let helpers = rule::helpers(self.policy);
        let needs_new = !containers.is_empty() || !helpers.is_empty();
        if needs_new && self.is_on(Builtin::Established) {
            let parts = [expr::established(), vec![accept()]];
            chain.rules.push(commented(parts, JUDGED_WHERE_IT_ENDS));
        }
        if !helpers.is_empty() {
            // What is forwarded is no matter of the rules for `in`. A published port is still one of this
            // host.
            let to_host = expr::fib_type(fib_type::LOCAL);
            chain.rules.push(plain([to_host, vec![jump("helpers")]]));
            let name = "helpers".to_owned();
            self.table.chains.push(Chain { name, rules: helpers, ..Chain::default() });
        }
        if !containers.is_empty() && self.is_on(Builtin::Invalid) {
            let parts = [expr::invalid(), vec![accept()]];
            chain.rules.push(commented(parts, JUDGED_WHERE_IT_ENDS));
        }
        for interface in containers {
            let to_host = expr::fib_type(fib_type::LOCAL);
            chain.rules.push(plain([expr::iifname(interface), to_host, vec![goto("asked")]]));
        }
        chain.rules.push(commented([vec![accept()]], JUDGED_WHERE_IT_ENDS));
        self.table.chains.push(chain);
    }

    /// Adds the chain that drops what a container asks this host for and no rule for `in` allows. DNAT
    /// may lead it to another container, and then it no longer shows that this host was asked. What is
    /// allowed is judged, counted and logged where it ends.
    pub(super) fn asked(&mut self) {
        if self.policy.containers.interfaces.is_empty() {
            return;
        }
        let mut chain = Chain { name: "asked".to_owned(), ..Chain::default() };
        self.container_source(&mut chain);
        self.untracked_replies(&mut chain, Direction::Out);
        self.builtins(&mut chain, builtin::INBOUND);
        for rule in self.policy.rules_for(Direction::In) {
            let counter = self.counter(&rule::object_name(rule));
            let refusal = rule::refusal(self.policy, rule, &counter, Rejection::Answer);
            chain.rules.extend(refusal);
        }
        self.builtins(&mut chain, builtin::INBOUND_LAST);
        // Without a list of interfaces, the look-out for scans skips containers.
        if self.policy.scan.as_ref().is_some_and(|scan| !scan.interfaces.is_empty()) {
            self.closed_ports(&mut chain);
        }
        self.default(&mut chain, Direction::In, self.policy.default.input);
        self.table.chains.push(chain);
    }

    /// Adds the rules that drop loopback addresses which came by wire. They come first, because such a
    /// packet could pass for one of a connection within this host. A VRF has loopback addresses of its
    /// own.
    fn martians(&mut self, chain: &mut Chain) {
        let counter = self.counter("builtin/martians");
        for version in IpVersion::ALL {
            for end in [End::Source, End::Destination] {
                let parts =
                    [loopback_address(version, end), expr::is_not_loopback(MetaKey::Iifname)]
                        .concat();
                chain.rules.push(plain([parts, vec![jump("martians")]]));
            }
        }
        let rules = vec![
            plain([expr::is_vrf(MetaKey::Iifkind), vec![Expr::Verdict(NftVerdict::Return)]]),
            commented([counter, vec![discard()]], "a loopback address that came by wire"),
        ];
        self.table.chains.push(Chain { name: "martians".to_owned(), rules, ..Chain::default() });
    }

    /// Adds the chain for what is delivered here.
    pub(super) fn input(&mut self) {
        let mut chain = base("input", Hook::Input, -10);
        self.rh0(&mut chain);
        self.known_peers(&mut chain);
        self.established(&mut chain);
        self.loopback(&mut chain, expr::iifname);
        self.illegal_flags(&mut chain);
        self.invalid(&mut chain);
        self.return_path(&mut chain);
        for interface in &self.policy.containers.interfaces {
            chain.rules.push(plain([expr::iifname(interface), vec![goto("contained")]]));
        }
        chain.rules.push(commented(
            [expr::ct_status(ct_status::DNAT), vec![goto("published")]],
            "sent on to this host",
        ));
        chain.rules.push(plain([vec![goto("inbound")]]));
        self.table.chains.push(chain);
    }

    /// Adds the rule and the chain that drop sources to which the routing tables lead by another
    /// interface. A bridge may join guests without an address of its own, so nothing is known of the
    /// sources there.
    fn return_path(&mut self, chain: &mut Chain) {
        if !self.is_on(Builtin::ReturnPath) {
            return;
        }
        chain.rules.push(plain([expr::no_return_path(), vec![jump("return-path")]]));
        if self.table.chains.iter().any(|chain| chain.name == "return-path") {
            return;
        }
        let back = vec![Expr::Verdict(NftVerdict::Return)];
        let bridged = [expr::is_bridge(MetaKey::Iifkind), expr::is_bridge(MetaKey::Oifkind)];
        let counter = self.counter(RETURN_PATH_COUNTER);
        let mut rules = without_address();
        rules.extend([
            commented([bridged.concat(), back], CROSSES_PERHAPS),
            commented([counter, vec![discard()]], "builtin: return-path"),
        ]);
        self.table.chains.push(Chain { name: "return-path".to_owned(), rules, ..Chain::default() });
    }

    /// Adds the rule that drops what a container sends in the name of others. An answer to it would not go
    /// back to the bridge, so the owner of that address would be held to have sent it: by limits, by the
    /// rules for its address, and by what it is sent to.
    fn container_source(&mut self, chain: &mut Chain) {
        if self.is_on(Builtin::ContainerSource) && !self.is_on(Builtin::ReturnPath) {
            chain.rules.push(plain([expr::no_return_path(), vec![jump(CONTAINER_SOURCE_CHAIN)]]));
        }
    }

    /// Adds the chains for what containers send to this host itself, and the one for what they send in the
    /// name of others. A bridge may join guests without an address of its own, so nothing is known of
    /// the sources there; but what NAT leads on does not only cross it.
    pub(super) fn contained(&mut self) {
        let interfaces = &self.policy.containers.interfaces;
        if interfaces.is_empty() {
            return;
        }
        let mut chain = Chain { name: "contained".to_owned(), ..Chain::default() };
        self.container_source(&mut chain);
        let redirected = expr::ct_status(ct_status::DNAT);
        chain.rules.push(plain([redirected.clone(), vec![goto("redirected")]]));
        chain.rules.push(plain([vec![goto("inbound")]]));
        let checks = chain.rules.len() == 3;
        self.table.chains.push(chain);
        if !checks {
            return;
        }
        let counter = self.counter("builtin/container-source");
        let (text, end) = ("builtin: container-source", vec![discard()]);
        let mut rules = without_address();
        rules.push(commented([redirected, counter.clone(), end.clone()], text));
        rules.extend(interfaces.iter().map(|it| {
            let crosses = [expr::iifname(it), expr::oifname(it)].concat();
            commented([crosses, vec![Expr::Verdict(NftVerdict::Return)]], CROSSES_PERHAPS)
        }));
        rules.push(commented([counter, end], text));
        let name = CONTAINER_SOURCE_CHAIN.to_owned();
        self.table.chains.push(Chain { name, rules, ..Chain::default() });
    }

    pub(super) fn inbound(&mut self) {
        let mut chain = Chain { name: "inbound".to_owned(), ..Chain::default() };
        self.untracked_replies(&mut chain, Direction::Out);
        self.builtins(&mut chain, builtin::INBOUND);
        self.rules(&mut chain, Direction::In, Rejection::Answer);
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

    pub(super) fn forward(&mut self) {
        let mut chain = base("forward", Hook::Forward, -10);
        self.rh0(&mut chain);
        self.known_peers(&mut chain);
        self.established(&mut chain);
        self.invalid(&mut chain);
        self.return_path(&mut chain);
        self.untracked_replies(&mut chain, Direction::Forward);
        self.builtins(&mut chain, builtin::FORWARD);
        // Also what DNAT leads to another container: the sender decides, not the way.
        for interface in &self.policy.containers.interfaces {
            chain.rules.push(plain([expr::iifname(interface), vec![goto(CONTAINERS_CHAIN)]]));
        }
        let published = if self.has_inner_senders() { "published/inner" } else { "published" };
        chain.rules.push(commented(
            [expr::ct_status(ct_status::DNAT), vec![goto(published)]],
            "sent on to a container by its published port",
        ));
        self.rules(&mut chain, Direction::Forward, Rejection::Answer);
        self.default(&mut chain, Direction::Forward, self.policy.default.forward);
        self.table.chains.push(chain);
    }

    /// Adds the chains with the rules for `in`, matched by the connection's original destination and
    /// port.
    pub(super) fn published(&mut self) {
        let mut rules = Vec::new();
        for rule in self.policy.rules_for(Direction::In) {
            let counter = self.counter(&rule::object_name(rule));
            rules.extend(rule::published(self.policy, rule, &counter));
        }
        let name = "published/rules".to_owned();
        self.table.chains.push(Chain { name, rules, ..Chain::default() });
        let by_rules = plain([vec![jump("published/rules")]]);
        if !self.policy.containers.interfaces.is_empty() {
            let rules = vec![by_rules.clone(), plain([vec![goto("inbound")]])];
            let name = "redirected".to_owned();
            self.table.chains.push(Chain { name, rules, ..Chain::default() });
        }
        if self.has_inner_senders() {
            let mut rules = vec![by_rules.clone()];
            for rule in self.policy.rules_for(Direction::Forward).filter(judges_translated) {
                let counter = self.counter(&rule::object_name(rule));
                rules.extend(rule::translated(self.policy, rule, &counter));
            }
            rules.push(plain([vec![goto("published")]]));
            let name = "published/inner".to_owned();
            self.table.chains.push(Chain { name, rules, ..Chain::default() });
        }
        let name = "published".to_owned();
        let mut chain = Chain { name, rules: vec![by_rules], ..Chain::default() };
        self.closed_ports(&mut chain);
        self.default(&mut chain, Direction::In, self.policy.default.input);
        self.table.chains.push(chain);
    }

    /// Returns whether rules for `forward` name the interfaces of those who send. Such a rule also lets them
    /// reach a service address: DNAT publishes that for the world, and they may reach what is behind.
    fn has_inner_senders(&self) -> bool {
        self.policy.rules_for(Direction::Forward).any(|rule| names_senders(&rule))
    }

    pub(super) fn containers(&mut self) {
        let containers = &self.policy.containers;
        if containers.interfaces.is_empty() {
            return;
        }
        let mut chain = Chain { name: CONTAINERS_CHAIN.to_owned(), ..Chain::default() };
        self.container_source(&mut chain);
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
}

/// Name of the chain that drops what containers send in the name of others.
const CONTAINER_SOURCE_CHAIN: &str = "container-source";
const CROSSES_PERHAPS: &str = "perhaps only crosses a bridge";

/// Returns the rules that pass what a host sends which has no address yet: the kernel looks no way back up
/// for the unspecified address. It sends so to find out whether its address is free (RFC 4862), and which
/// groups it listens to.
fn without_address() -> Vec<NftRule> {
    let rule = |version: IpVersion| {
        let none = vec![0; version.address_bytes()];
        let from = expr::equals(expr::address(version, End::Source), none);
        let back = vec![Expr::Verdict(NftVerdict::Return)];
        commented([expr::ip_version(version), from, back], "has no address yet")
    };
    IpVersion::ALL.map(rule).to_vec()
}

fn names_senders(rule: &&Rule) -> bool {
    !rule.in_interface.is_empty()
}

/// Returns whether a rule for `forward` judges packets after DNAT, if any rule names who sends. What is
/// refused before such a rule is refused here, too.
fn judges_translated(rule: &&Rule) -> bool {
    names_senders(rule) || matches!(rule.action, Action::Deny | Action::Reject)
}
