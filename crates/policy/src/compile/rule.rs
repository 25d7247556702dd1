//! Compiles one rule of a policy to rules, sets and chains of a table.

use nfguard_netlink::{
    Chain, CtHelper, Expr, IpVersion, Rule as NftRule, Set, Verdict as NftVerdict, protocol,
};

use super::expr::{self, End};
use super::limit::{limit_rules, limit_sets, over_rules};
use super::log::log_line;
use super::sets::{group_set, networks, sets};
use super::{
    JUDGED_BY_OUTPUT, JUDGED_WHERE_IT_ENDS, POSTROUTING_DECIDES, Rejection, accept, comment,
    commented, goto, verdicts,
};
use crate::policy::{
    Action, Addresses, Direction, Helper, Interface, Limit, Policy, Ports, Prefixes, Rule, Traffic,
    Transport, Verdict,
};

/// The objects of one rule.
pub(super) struct Compiled {
    pub(super) sets: Vec<Set>,
    pub(super) helpers: Vec<CtHelper>,
    pub(super) chains: Vec<Chain>,
    pub(super) rules: Vec<NftRule>,
}

/// Returns the name of a rule's counter, with which the names of its sets and its chain begin. The
/// name of a rule has no slash.
pub(super) fn object_name(rule: &Rule) -> String {
    let direction = match rule.direction {
        Direction::In => "in",
        Direction::Out => "out",
        Direction::Forward => "forward",
    };
    format!("{direction}/{}", rule.name)
}

/// Compiles a rule. A rule that is compiled a second time, for packets that are dropped where it
/// rejects, uses the sets of the first.
pub(super) fn compile(
    policy: &Policy,
    rule: &Rule,
    counter: &[Expr],
    rejection: Rejection,
) -> Compiled {
    let object = object_name(rule);
    let is_first = rejection == Rejection::Answer;
    let mut compiled = Compiled {
        sets: if is_first { sets(rule, &object) } else { Vec::new() },
        helpers: Vec::new(),
        chains: Vec::new(),
        rules: Vec::new(),
    };
    let limit_chain_name = if is_first || !rule.rejects() { "limit" } else { "limit/silent" };
    let limit_chain_name = format!("{object}/{limit_chain_name}");
    for found in matches(policy, rule, &object, PortSource::Packet) {
        let helper = rule.helper.and_then(|helper| ct_helper(helper, found.protocol?));
        // That of a rule for `in` is assigned before NAT.
        let assigned = helper.iter().filter(|_| rule.direction != Direction::In);
        let parts: Vec<Expr> = assigned
            .map(|helper| Expr::Helper(helper.name.clone()))
            .chain(counter.iter().cloned())
            .collect();
        compiled.helpers.extend(helper);
        compiled.rules.extend(judge(rule, &found, rejection, &limit_chain_name, &parts));
    }
    if let Action::Limit(limit) = rule.action {
        let versions = limited_versions(policy, rule);
        if is_first {
            compiled.sets.extend(limit_sets(rule, &object, &limit, &versions));
        }
        if is_first || rule.rejects() {
            let limit = Limit { over: rejection.of(limit.over), ..limit };
            let rules = limit_rules(rule, &object, &limit, &versions);
            compiled.chains.push(Chain { name: limit_chain_name, rules, ..Chain::default() });
        }
    }
    compiled
}

/// Returns the rules that log a packet and end its way as a rule says. `statements` stand before the
/// end.
fn judge(
    rule: &Rule,
    Match { exprs, protocol }: &Match,
    rejection: Rejection,
    limit_chain: &str,
    statements: &[Expr],
) -> Vec<NftRule> {
    let comment = comment(rule);
    let mut rules = Vec::new();
    let logs = rule.log.as_ref().filter(|_| !matches!(rule.action, Action::Limit(_)));
    if let Some(target) = logs {
        let verdict = match rule.action {
            Action::Allow | Action::Limit(_) => Verdict::Accept,
            Action::Deny => Verdict::Drop,
            Action::Reject => Verdict::Reject,
        };
        let line = log_line(target, rejection.of(verdict), &object_name(rule));
        rules.push(commented([exprs.clone(), line], &comment));
    }
    let ends = match rule.action {
        Action::Allow => verdicts(Verdict::Accept, *protocol),
        Action::Deny => verdicts(Verdict::Drop, *protocol),
        Action::Reject => verdicts(rejection.of(Verdict::Reject), *protocol),
        Action::Limit(_) => vec![(Vec::new(), goto(limit_chain))],
    };
    for (more, end) in ends {
        let parts = [exprs.clone(), more, statements.to_vec(), vec![end]];
        rules.push(commented(parts, &comment));
    }
    rules
}

/// Compiles a rule for `out` to what it rejects. What it does not reject is judged, counted and logged
/// in postrouting.
pub(super) fn answer(policy: &Policy, rule: &Rule) -> Compiled {
    let object = object_name(rule);
    let comment = comment(rule);
    let count = Expr::Counter(object.clone());
    let mut compiled =
        Compiled { sets: Vec::new(), helpers: Vec::new(), chains: Vec::new(), rules: Vec::new() };
    for Match { exprs, protocol } in matches(policy, rule, &object, PortSource::Packet) {
        match rule.action {
            Action::Reject => {
                if let Some(target) = &rule.log {
                    let line = log_line(target, Verdict::Reject, &object);
                    compiled.rules.push(commented([exprs.clone(), line], &comment));
                }
                for (more, end) in verdicts(Verdict::Reject, protocol) {
                    let parts = [exprs.clone(), more, vec![count.clone(), end]];
                    compiled.rules.push(commented(parts, &comment));
                }
            }
            Action::Limit(_) if rule.rejects() => {
                let over = vec![goto(&format!("{object}/answer"))];
                compiled.rules.push(commented([exprs, over], &comment));
            }
            Action::Allow | Action::Deny | Action::Limit(_) => {
                compiled.rules.push(commented([exprs, vec![accept()]], POSTROUTING_DECIDES));
            }
        }
    }
    if let (Action::Limit(limit), true) = (rule.action, rule.rejects()) {
        let mut rules = Vec::new();
        for version in limited_versions(policy, rule) {
            rules.extend(over_rules(rule, &object, &limit, version, Some(&count)));
        }
        rules.push(commented([vec![accept()]], POSTROUTING_DECIDES));
        compiled.chains.push(Chain { name: format!("{object}/answer"), rules, ..Chain::default() });
    }
    compiled
}

/// Returns the IP versions whose sources a limit counts.
fn limited_versions(policy: &Policy, rule: &Rule) -> Vec<IpVersion> {
    match versions(policy, rule).as_slice() {
        [Some(one)] => vec![*one],
        _ => IpVersion::ALL.to_vec(),
    }
}

/// Returns the kernel's helper for a transport protocol; `None` if it reads another one.
fn ct_helper(helper: Helper, number: u8) -> Option<CtHelper> {
    let transport = match number {
        protocol::TCP => Transport::Tcp,
        protocol::UDP => Transport::Udp,
        _ => return None,
    };
    helper.reads(transport).then(|| CtHelper {
        name: format!("{}/{}", helper.kind(), transport.word()),
        kind: helper.kind().to_owned(),
        protocol: number,
        version: helper.is_for_v4_alone().then_some(IpVersion::V4),
    })
}

/// Returns the same rule for packets after DNAT, matched by destination and port before DNAT. It shares
/// the sets and the count of a limit with the rule for packets without NAT.
pub(super) fn published(policy: &Policy, rule: &Rule, counter: &[Expr]) -> Vec<NftRule> {
    let object = object_name(rule);
    let matches = matches(policy, rule, &object, PortSource::Conntrack);
    let limit = format!("{object}/limit");
    matches.iter().flat_map(|it| judge(rule, it, Rejection::Answer, &limit, counter)).collect()
}

/// Returns a rule for `forward` for packets after DNAT. It is about the destination and the port that they
/// have, or had before DNAT.
pub(super) fn translated(policy: &Policy, rule: &Rule, counter: &[Expr]) -> Vec<NftRule> {
    let object = object_name(rule);
    let limit = format!("{object}/limit");
    let mut found = matches(policy, rule, &object, PortSource::Packet);
    let before = matches(policy, rule, &object, PortSource::Conntrack);
    if before != found {
        found.extend(before);
    }
    found.iter().flat_map(|it| judge(rule, it, Rejection::Answer, &limit, counter)).collect()
}

/// Returns the rules that refuse what a rule refuses. What it allows, another hook judges.
pub(super) fn refusal(
    policy: &Policy,
    rule: &Rule,
    counter: &[Expr],
    rejection: Rejection,
) -> Vec<NftRule> {
    let elsewhere = match rule.direction {
        Direction::Out => JUDGED_BY_OUTPUT,
        Direction::In | Direction::Forward => JUDGED_WHERE_IT_ENDS,
    };
    let matches = matches(policy, rule, &object_name(rule), PortSource::Packet);
    let refused = matches!(rule.action, Action::Deny | Action::Reject);
    let rules = matches.into_iter().flat_map(|it| {
        if refused {
            judge(rule, &it, rejection, "", counter)
        } else {
            vec![commented([it.exprs, vec![accept()]], elsewhere)]
        }
    });
    rules.collect()
}

/// Returns the rules that assign the helpers of the rules for `in`. The kernel prepares a connection for
/// what its helper rewrites while it sets up NAT, so the helper has to come first.
pub(super) fn helpers(policy: &Policy) -> Vec<NftRule> {
    let rules: Vec<&Rule> = policy.rules_for(Direction::In).collect();
    let needed = rules.iter().rposition(|rule| rule.helper.is_some()).map_or(0, |last| last + 1);
    let assign = |rule: &Rule| {
        let matches = matches(policy, rule, &object_name(rule), PortSource::Packet).into_iter();
        let helper = rule.helper;
        let of_first = matches.map(move |Match { exprs, protocol }| {
            let helper = helper.and_then(|helper| ct_helper(helper, protocol?));
            let helper = helper.map(|helper| Expr::Helper(helper.name)).into_iter().collect();
            [exprs, helper, vec![Expr::Verdict(NftVerdict::Return)]]
        });
        let name = rule.name.clone();
        of_first.map(move |parts| commented(parts, &name)).collect::<Vec<_>>()
    };
    rules.into_iter().take(needed).flat_map(assign).collect()
}

/// One combination of interfaces, IP version and protocol that a rule matches.
#[derive(PartialEq)]
pub(super) struct Match {
    pub(super) exprs: Vec<Expr>,
    /// The protocol of every packet that matches; `None` if it can be any.
    protocol: Option<u8>,
}

/// Where a rule reads the destination port.
#[derive(Clone, Copy, PartialEq, Eq)]
pub(super) enum PortSource {
    Packet,
    /// Connection tracking, which has the port before DNAT.
    Conntrack,
}

/// Returns every combination of interfaces, IP version and protocol that a rule matches.
pub(super) fn matches(policy: &Policy, rule: &Rule, object: &str, port: PortSource) -> Vec<Match> {
    let mut all = Vec::new();
    for interfaces in interfaces(rule) {
        for version in versions(policy, rule) {
            let from = version.map(|version| addresses(policy, rule, object, version, End::Source));
            let to = version.map(|version| match port {
                PortSource::Packet => addresses(policy, rule, object, version, End::Destination),
                PortSource::Conntrack => original_addresses(policy, rule, object, version),
            });
            let head = [
                interfaces.clone(),
                version.map(expr::ip_version).unwrap_or_default(),
                from.unwrap_or_default(),
                to.unwrap_or_default(),
            ]
            .concat();
            for Match { exprs, protocol } in traffic(&rule.traffic, object, version, port) {
                all.push(Match { exprs: [head.clone(), exprs].concat(), protocol });
            }
        }
    }
    all
}

fn interfaces(rule: &Rule) -> Vec<Vec<Expr>> {
    let any_of = |list: &[Interface], load: fn(&Interface) -> Vec<Expr>| {
        if list.is_empty() { vec![Vec::new()] } else { list.iter().map(load).collect() }
    };
    let outs = any_of(&rule.out_interface, expr::oifname);
    any_of(&rule.in_interface, expr::iifname)
        .into_iter()
        .flat_map(|input| outs.iter().map(move |output| [input.clone(), output.clone()].concat()))
        .collect()
}

/// Returns the IP versions that a rule has to match. Returns `[None]` if the rule is for both and needs
/// no match for them.
fn versions(policy: &Policy, rule: &Rule) -> Vec<Option<IpVersion>> {
    let is_any = rule.from == Addresses::Any && rule.to == Addresses::Any;
    if is_any && !matches!(rule.traffic, Traffic::Icmp { .. }) {
        return vec![None];
    }
    let has = |addresses: &Addresses, version| {
        prefixes(policy, addresses).is_none_or(|found| !networks(found, version).is_empty())
    };
    let carries = |version| match (&rule.traffic, version) {
        (Traffic::Icmp { v4, .. }, IpVersion::V4) => v4.is_some(),
        (Traffic::Icmp { v6, .. }, IpVersion::V6) => v6.is_some(),
        _ => true,
    };
    IpVersion::ALL
        .into_iter()
        .filter(|version| has(&rule.from, *version) && has(&rule.to, *version) && carries(*version))
        .map(Some)
        .collect()
}

fn addresses(
    policy: &Policy,
    rule: &Rule,
    object: &str,
    version: IpVersion,
    end: End,
) -> Vec<Expr> {
    let (addresses, word) = match end {
        End::Source => (&rule.from, "from"),
        End::Destination => (&rule.to, "to"),
    };
    match among(policy, addresses, &format!("{object}/{word}"), version) {
        Among::All => Vec::new(),
        Among::Set(set) => vec![expr::address(version, end), expr::in_set(&set)],
        Among::Prefix(network, len) => expr::in_prefix(version, end, &network, len),
    }
}

/// As [`addresses`], for the destination before DNAT.
fn original_addresses(policy: &Policy, rule: &Rule, object: &str, version: IpVersion) -> Vec<Expr> {
    match among(policy, &rule.to, &format!("{object}/to"), version) {
        Among::All => Vec::new(),
        Among::Set(set) => vec![expr::original_address(version), expr::in_set(&set)],
        Among::Prefix(network, len) => expr::original_in_prefix(version, &network, len),
    }
}

/// Where the table has the addresses of a rule.
enum Among {
    All,
    Set(String),
    Prefix(Vec<u8>, u8),
}

fn among(policy: &Policy, addresses: &Addresses, object: &str, version: IpVersion) -> Among {
    let set = |name: &str| Among::Set(format!("{name}/{}", version.suffix()));
    match addresses {
        Addresses::Any => Among::All,
        Addresses::Group(index) => {
            policy.groups.get(*index).map_or(Among::All, |group| set(&group_set(&group.name)))
        }
        Addresses::Prefixes(prefixes) => match networks(prefixes, version).as_slice() {
            [(network, len)] => Among::Prefix(network.clone(), *len),
            _ => set(object),
        },
    }
}

fn prefixes<'p>(policy: &'p Policy, addresses: &'p Addresses) -> Option<&'p Prefixes> {
    match addresses {
        Addresses::Any => None,
        Addresses::Group(index) => policy.groups.get(*index).map(|group| &group.prefixes),
        Addresses::Prefixes(prefixes) => Some(prefixes),
    }
}

fn traffic(
    traffic: &Traffic,
    object: &str,
    version: Option<IpVersion>,
    port: PortSource,
) -> Vec<Match> {
    match traffic {
        Traffic::Any => vec![Match { exprs: Vec::new(), protocol: None }],
        Traffic::Protocols(numbers) => numbers
            .iter()
            .map(|number| Match { exprs: expr::protocol(*number), protocol: Some(*number) })
            .collect(),
        Traffic::Ports { tcp, udp, source } => {
            let each = [("tcp", protocol::TCP, tcp), ("udp", protocol::UDP, udp)];
            each.into_iter()
                .filter_map(|(name, number, ports)| {
                    let destination = match port {
                        PortSource::Packet => expr::port(End::Destination),
                        PortSource::Conntrack => expr::original_port(),
                    };
                    let exprs = [
                        expr::protocol(number),
                        port_match(expr::port(End::Source), source, &format!("{object}/source")),
                        port_match(destination, ports.as_ref()?, &format!("{object}/{name}")),
                    ]
                    .concat();
                    Some(Match { exprs, protocol: Some(number) })
                })
                .collect()
        }
        Traffic::Icmp { v4, v6 } => {
            let (types, number, name) = match version {
                Some(IpVersion::V6) => (v6, protocol::ICMPV6, "icmpv6"),
                _ => (v4, protocol::ICMP, "icmp"),
            };
            let of_type = match types.as_deref().unwrap_or_default() {
                [] => Vec::new(),
                [one] => expr::equals(expr::icmp_type(), vec![*one]),
                _ => vec![expr::icmp_type(), expr::in_set(&format!("{object}/{name}"))],
            };
            let exprs = [expr::protocol(number), of_type].concat();
            vec![Match { exprs, protocol: Some(number) }]
        }
    }
}

fn port_match(field: Expr, ports: &Ports, set: &str) -> Vec<Expr> {
    match ports.0.as_slice() {
        [] => Vec::new(),
        [range] => expr::in_range(field, *range),
        _ => vec![field, expr::in_set(set)],
    }
}
