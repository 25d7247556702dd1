//! One rule of a policy as rules, sets and chains of a table.

use nfguard_netlink::{
    Chain, Dynset, Element, Expr, Key, KeyType, Reg, Rule as NftRule, Set, protocol,
};

use super::expr::{self, End, Family};
use super::{accept, commented, discard, goto, log_line, verdicts};
use crate::policy::{
    Action, Addresses, Direction, Interface, Limit, Policy, Ports, Prefixes, Rule, Traffic, Verdict,
};

/// What becomes of one rule.
pub(super) struct Compiled {
    pub(super) sets: Vec<Set>,
    pub(super) chains: Vec<Chain>,
    pub(super) rules: Vec<NftRule>,
}

/// What the names of a rule's counter, sets and chain begin with. No rule's name has a slash.
pub(super) fn object(rule: &Rule) -> String {
    let direction = match rule.direction {
        Direction::In => "in",
        Direction::Out => "out",
        Direction::Forward => "forward",
    };
    format!("{direction}/{}", rule.name)
}

pub(super) fn compile(policy: &Policy, rule: &Rule, counter: &[Expr]) -> Compiled {
    let object = object(rule);
    let comment = comment(rule);
    let mut compiled =
        Compiled { sets: sets(rule, &object), chains: Vec::new(), rules: Vec::new() };
    for Match { exprs, protocol } in matches(policy, rule, &object, Port::InPacket) {
        let logs = rule.log.as_ref().filter(|_| !matches!(rule.action, Action::Limit(_)));
        if let Some(target) = logs {
            let verdict = match rule.action {
                Action::Allow | Action::Limit(_) => Verdict::Accept,
                Action::Deny => Verdict::Drop,
                Action::Reject => Verdict::Reject,
            };
            let line = log_line(target, verdict, &object);
            compiled.rules.push(commented([exprs.clone(), line], &comment));
        }
        let ends = match rule.action {
            Action::Allow => verdicts(Verdict::Accept, protocol),
            Action::Deny => verdicts(Verdict::Drop, protocol),
            Action::Reject => verdicts(Verdict::Reject, protocol),
            Action::Limit(_) => vec![(Vec::new(), goto(&format!("{object}/limit")))],
        };
        for (more, end) in ends {
            let parts = [exprs.clone(), more, counter.to_vec(), vec![end]];
            compiled.rules.push(commented(parts, &comment));
        }
    }
    if let Action::Limit(limit) = rule.action {
        let families = match families(policy, rule).as_slice() {
            [Some(one)] => vec![*one],
            _ => vec![Family::V4, Family::V6],
        };
        compiled.sets.extend(limit_sets(&object, &limit, &families));
        compiled.chains.push(limit_chain(rule, &object, &limit, &families));
    }
    compiled
}

/// The same rule after DNAT, by the port before it. `ingress` has judged the first packet by where
/// it was sent to and counted it for a limit, so both are left out here: a denial for one of
/// several addresses is its alone. What this adds is for addresses that are routed here without
/// being this host's, and rewritten by somebody else than Docker: `ingress` lets those go by.
pub(super) fn published(policy: &Policy, rule: &Rule) -> Vec<NftRule> {
    let ends = |protocol| match rule.action {
        Action::Allow | Action::Limit(_) => verdicts(Verdict::Accept, protocol),
        Action::Deny => verdicts(Verdict::Drop, protocol),
        Action::Reject => verdicts(Verdict::Reject, protocol),
    };
    let denies_one_address =
        matches!(rule.action, Action::Deny | Action::Reject) && rule.to != Addresses::Any;
    if rule.direction != Direction::In || denies_one_address {
        return Vec::new();
    }
    matches(policy, rule, &object(rule), Port::Original)
        .into_iter()
        .flat_map(|Match { exprs, protocol }| {
            ends(protocol)
                .into_iter()
                .map(|(more, end)| commented([exprs.clone(), more, vec![end]], &rule.name))
                .collect::<Vec<_>>()
        })
        .collect()
}

/// One set of a group or of a rule's addresses for each family that has any.
pub(super) fn prefix_sets(name: &str, prefixes: &Prefixes) -> Vec<Set> {
    let networks = |family| {
        let keys: Vec<Key> = networks(prefixes, family)
            .into_iter()
            .map(|(first, len)| {
                let last = last_of(&first, len);
                Key::Range(first, last)
            })
            .collect();
        let (key, suffix) = match family {
            Family::V4 => (KeyType::Ipv4Addr, "v4"),
            Family::V6 => (KeyType::Ipv6Addr, "v6"),
        };
        (!keys.is_empty()).then(|| Set {
            name: format!("{name}/{suffix}"),
            key: vec![key],
            interval: true,
            elements: keys.into_iter().map(Element::from).collect(),
            ..Set::default()
        })
    };
    [Family::V4, Family::V6].into_iter().filter_map(networks).collect()
}

pub(super) fn group_set(group: &str) -> String {
    format!("group/{group}")
}

pub(super) fn value_set(name: &str, key: KeyType, values: impl Iterator<Item = Vec<u8>>) -> Set {
    let elements = values.map(|value| Element::from(Key::Value(value))).collect();
    Set { name: name.to_owned(), key: vec![key], elements, ..Set::default() }
}

/// The sets that hold what a rule lists.
fn sets(rule: &Rule, object: &str) -> Vec<Set> {
    let mut sets = Vec::new();
    for (end, addresses) in [("from", &rule.from), ("to", &rule.to)] {
        if let Addresses::Prefixes(prefixes) = addresses {
            let all = prefix_sets(&format!("{object}/{end}"), prefixes);
            sets.extend(all.into_iter().filter(|set| set.elements.len() > 1));
        }
    }
    match &rule.traffic {
        Traffic::Ports { tcp, udp, source } => {
            let named = [("tcp", tcp.as_ref()), ("udp", udp.as_ref()), ("source", Some(source))];
            for (name, ports) in named {
                if let Some(ports) = ports.filter(|ports| ports.0.len() > 1) {
                    sets.push(port_set(&format!("{object}/{name}"), ports));
                }
            }
        }
        Traffic::Icmp { v4, v6 } => {
            let lists = [("icmp", KeyType::IcmpType, v4), ("icmpv6", KeyType::Icmpv6Type, v6)];
            for (name, key, types) in lists {
                if let Some(types) = types.as_ref().filter(|types| types.len() > 1) {
                    let values = types.iter().map(|kind| vec![*kind]);
                    sets.push(value_set(&format!("{object}/{name}"), key, values));
                }
            }
        }
        Traffic::Any | Traffic::Protocols(_) => {}
    }
    sets
}

fn port_set(name: &str, ports: &Ports) -> Set {
    let bytes = |port: u16| port.to_be_bytes().to_vec();
    let interval = ports.0.iter().any(|(first, last)| first != last);
    let key = |(first, last): &(u16, u16)| {
        if interval { Key::Range(bytes(*first), bytes(*last)) } else { Key::Value(bytes(*first)) }
    };
    Set {
        name: name.to_owned(),
        key: vec![KeyType::InetService],
        interval,
        elements: ports.0.iter().map(|range| Element::from(key(range))).collect(),
        ..Set::default()
    }
}

/// One way in which a packet can match, and the protocol that it then has, if it is one.
struct Match {
    exprs: Vec<Expr>,
    protocol: Option<u8>,
}

/// Where the destination port is looked for.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Port {
    InPacket,
    /// In conntrack: what the connection's first packet had, before DNAT.
    Original,
}

/// Every combination of interfaces, family and protocol that the rule stands for.
fn matches(policy: &Policy, rule: &Rule, object: &str, port: Port) -> Vec<Match> {
    let mut all = Vec::new();
    for interfaces in interfaces(rule) {
        for family in families(policy, rule) {
            let from = family.map(|family| addresses(policy, rule, object, family, End::Source));
            let to = family
                .filter(|_| port == Port::InPacket)
                .map(|family| addresses(policy, rule, object, family, End::Destination));
            let head = [
                interfaces.clone(),
                family.map(expr::family).unwrap_or_default(),
                from.unwrap_or_default(),
                to.unwrap_or_default(),
            ]
            .concat();
            for Match { exprs, protocol } in traffic(&rule.traffic, object, family, port) {
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

/// The families that have to be told apart; `[None]` if both are meant and none has to.
fn families(policy: &Policy, rule: &Rule) -> Vec<Option<Family>> {
    let is_any = rule.from == Addresses::Any && rule.to == Addresses::Any;
    if is_any && !matches!(rule.traffic, Traffic::Icmp { .. }) {
        return vec![None];
    }
    let has = |addresses: &Addresses, family| {
        prefixes(policy, addresses).is_none_or(|found| !networks(found, family).is_empty())
    };
    let carries = |family| match (&rule.traffic, family) {
        (Traffic::Icmp { v4, .. }, Family::V4) => v4.is_some(),
        (Traffic::Icmp { v6, .. }, Family::V6) => v6.is_some(),
        _ => true,
    };
    [Family::V4, Family::V6]
        .into_iter()
        .filter(|family| has(&rule.from, *family) && has(&rule.to, *family) && carries(*family))
        .map(Some)
        .collect()
}

fn addresses(policy: &Policy, rule: &Rule, object: &str, family: Family, end: End) -> Vec<Expr> {
    let (addresses, word) = match end {
        End::Source => (&rule.from, "from"),
        End::Destination => (&rule.to, "to"),
    };
    let suffix = if family == Family::V4 { "v4" } else { "v6" };
    let in_set = |name: String| {
        vec![expr::address(family, end), expr::lookup(&format!("{name}/{suffix}"), false)]
    };
    match addresses {
        Addresses::Any => Vec::new(),
        Addresses::Group(index) => policy
            .groups
            .get(*index)
            .map(|group| in_set(group_set(&group.name)))
            .unwrap_or_default(),
        Addresses::Prefixes(prefixes) => match networks(prefixes, family).as_slice() {
            [(network, len)] => expr::in_prefix(family, end, network, *len),
            _ => in_set(format!("{object}/{word}")),
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

/// A family's prefixes as network bytes and length.
fn networks(prefixes: &Prefixes, family: Family) -> Vec<(Vec<u8>, u8)> {
    match family {
        Family::V4 => {
            prefixes.v4.iter().map(|net| (net.network().octets().to_vec(), net.prefix())).collect()
        }
        Family::V6 => {
            prefixes.v6.iter().map(|net| (net.network().octets().to_vec(), net.prefix())).collect()
        }
    }
}

fn last_of(network: &[u8], len: u8) -> Vec<u8> {
    let host_bits = |at: usize| {
        let ones = usize::from(len).saturating_sub(at * 8).min(8);
        u8::try_from(0xff_usize >> ones).unwrap_or(0)
    };
    network.iter().enumerate().map(|(at, byte)| byte | host_bits(at)).collect()
}

fn traffic(traffic: &Traffic, object: &str, family: Option<Family>, port: Port) -> Vec<Match> {
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
                        Port::InPacket => expr::port(End::Destination),
                        Port::Original => expr::original_port(),
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
            let (types, number, name) = match family {
                Some(Family::V6) => (v6, protocol::ICMPV6, "icmpv6"),
                _ => (v4, protocol::ICMP, "icmp"),
            };
            let of_type = match types.as_deref().unwrap_or_default() {
                [] => Vec::new(),
                [one] => expr::equals(expr::icmp_type(), vec![*one]),
                _ => vec![expr::icmp_type(), expr::lookup(&format!("{object}/{name}"), false)],
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
        _ => vec![field, expr::lookup(set, false)],
    }
}

/// One set for each connection that a source may open: it holds the sources that have opened so
/// many, each for as long as that connection counts. So the count slides exactly, which a token
/// bucket's does not.
fn limit_sets(object: &str, limit: &Limit, families: &[Family]) -> Vec<Set> {
    let timeout = std::time::Duration::from_secs(u64::from(limit.seconds));
    let set = |family: &Family, slot| Set {
        name: slot_set(object, *family, slot),
        key: vec![if *family == Family::V4 { KeyType::Ipv4Addr } else { KeyType::Ipv6Addr }],
        dynamic: true,
        timeout: Some(timeout),
        size: Some(limit.sources),
        ..Set::default()
    };
    families
        .iter()
        .flat_map(|family| (1..limit.connections).map(move |slot| set(family, slot)))
        .collect()
}

fn slot_set(object: &str, family: Family, slot: u8) -> String {
    let suffix = if family == Family::V4 { "v4" } else { "v6" };
    format!("{object}/{slot}/{suffix}")
}

/// A new connection takes the first slot that its source does not hold. One that finds none is
/// refused, and starts all of its source's slots anew, so that it is refused until it is quiet for
/// the whole time.
fn limit_chain(rule: &Rule, object: &str, limit: &Limit, families: &[Family]) -> Chain {
    let mut rules = Vec::new();
    for family in families {
        let slots = 1..limit.connections;
        let source = source(*family, limit);
        for slot in slots.clone() {
            let set = slot_set(object, *family, slot);
            let take = vec![expr::lookup(&set, true), add(set, false), accept()];
            let text = format!("{}: {slot} of {} in {} s", rule.name, slots.end - 1, limit.seconds);
            rules.push(commented([source.clone(), take], &text));
        }
        let last = expr::lookup(&slot_set(object, *family, limit.connections - 1), false);
        let over = [source, vec![last]].concat();
        // A rule ends at a set that is full, so the refusal is another rule: who fills the first
        // slot with forged sources must not switch the limit off.
        let again = slots.rev().map(|slot| add(slot_set(object, *family, slot), true)).collect();
        let text = format!("{}: begin anew", rule.name);
        rules.push(commented([over.clone(), again], &text));
        if let Some(target) = &rule.log {
            let line = log_line(target, limit.over, object);
            rules.push(commented([over.clone(), line], &comment(rule)));
        }
        let end = match limit.over {
            Verdict::Reject => Expr::Reject(nfguard_netlink::Reject::PortUnreachable),
            Verdict::Accept | Verdict::Drop => discard(),
        };
        let counter = Expr::Counter(over_counter(object));
        let text = format!("{}: over the limit", rule.name);
        rules.push(commented([over, vec![counter, end]], &text));
    }
    // Better to let a source pass than to lock everybody out when a flood has filled the sets.
    let text = format!("{}: no room to remember another source", rule.name);
    rules.push(commented([vec![accept()]], &text));
    Chain { name: format!("{object}/limit"), rules, ..Chain::default() }
}

/// The counter of what a limit refused.
pub(super) fn over_counter(object: &str) -> String {
    format!("{object}/over")
}

fn source(family: Family, limit: &Limit) -> Vec<Expr> {
    let mut exprs = expr::family(family);
    exprs.push(expr::address(family, End::Source));
    if family == Family::V6 && limit.v6_prefix < 128 {
        exprs.push(expr::mask(16, limit.v6_prefix));
    }
    exprs
}

fn add(set: String, update: bool) -> Expr {
    Expr::Dynset(Dynset { reg: Reg::FIRST, set, update, timeout: None })
}

fn comment(rule: &Rule) -> String {
    match &rule.comment {
        Some(comment) => format!("{}: {comment}", rule.name),
        None => rule.name.clone(),
    }
}
