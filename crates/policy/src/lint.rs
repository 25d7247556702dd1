//! Warnings about a valid policy that is probably not what its author meant. A warning that is not
//! true is a bug.

mod builtin;
mod cover;
mod cover_index;
mod helpers;
mod never;

use std::collections::BTreeSet;

use self::builtin::Taken;
use self::cover::{GroupRanges, PacketBox, ProtocolMatch, TCP, UDP};
use self::cover_index::CoverIndex;
use crate::json::document::Problems;
use crate::policy::{Action, Addresses, Builtin, Direction, Policy, Rule, Traffic, Verdict};

/// Adds the warnings about a policy.
pub(crate) fn policy(policy: &Policy, problems: &mut Problems) {
    let groups = GroupRanges::of(policy);
    builtins(policy, problems);
    for direction in [Direction::In, Direction::Out, Direction::Forward] {
        decided_before(policy, &groups, direction, problems);
    }
    never::rules(policy, problems);
    helpers::without(policy, problems);
    no_way_in_for_ssh(policy, &groups, problems);
    egress_without_dns(policy, &groups, problems);
    if policy.scan.is_some() && policy.default.input == Verdict::Accept {
        let message =
            "\"scan\" finds no closed port, because \"default\" accepts what no rule matches";
        problems.warn("/scan".to_owned(), message);
    }
}

fn builtins(policy: &Policy, problems: &mut Problems) {
    for (builtin, consequence) in [
        (Builtin::Loopback, "programs of this host cannot reach each other over lo"),
        (Builtin::Established, "answers to accepted connections need rules of their own"),
        (Builtin::NeighbourDiscovery, "IPv6 does not work on most links"),
    ] {
        if !policy.builtin.contains(&builtin) {
            let message = format!("without it, {consequence}");
            problems.warn(format!("/builtin/{}", builtin.name()), message);
        }
    }
}

/// Warns about each rule that can never match, because earlier rules or built-ins take all its
/// packets, and about each that refuses what a built-in accepts.
fn decided_before(
    policy: &Policy,
    groups: &GroupRanges,
    direction: Direction,
    problems: &mut Problems,
) {
    let lo = [never::lo()];
    let mut earlier = CoverIndex::default();
    let taken = Taken::of(policy, direction, groups, &lo);
    let first = policy.rules.len();
    for (index, taken) in (first..).zip(&taken) {
        if taken.is_whole(policy, direction) {
            taken.packets.iter().for_each(|packets| earlier.add(index, packets.clone()));
        }
    }
    for (index, rule) in policy.rules.iter().enumerate() {
        if rule.direction != direction {
            continue;
        }
        let packets = PacketBox::of(rule, groups);
        let mut takers = Vec::new();
        let is_dead = packets.iter().all(|packets| {
            let near = earlier.of(packets);
            let found = packets.covered_by(near.into_iter());
            takers.extend(found.iter().flatten().copied());
            found.is_some()
        });
        if is_dead && !packets.is_empty() {
            takers.sort_unstable();
            takers.dedup();
            let builtins = takers.iter().filter_map(|index| taken.get(index.checked_sub(first)?));
            let builtins = builtins.flat_map(|taken| &taken.builtins).copied().collect();
            let rules = takers.iter().filter_map(|index| policy.rules.get(*index)).collect();
            problems.warn(format!("/rules/{index}"), dead_rule_message(rule, builtins, rules));
        } else if matches!(rule.action, Action::Deny | Action::Reject) {
            let taken = taken.iter().filter(|taken| taken.concerns(rule, &packets));
            let builtins: BTreeSet<Builtin> = taken.flat_map(|it| &it.builtins).copied().collect();
            if !builtins.is_empty() {
                let taken = take("that part", &builtins, &[]);
                let message = format!("a part of the rule can never match: {taken}");
                problems.warn(format!("/rules/{index}"), message);
            }
        }
        for packets in packets {
            earlier.add(index, packets);
        }
    }
}

/// The most earlier rules that a warning names.
const MAX_NAMED_RULES: usize = 4;

fn dead_rule_message(rule: &Rule, builtins: BTreeSet<Builtin>, rules: Vec<&Rule>) -> String {
    let what = match rule.action {
        Action::Limit(_) => "the limit can never trigger",
        Action::Allow | Action::Deny | Action::Reject => "the rule can never match",
    };
    let taken = take("all its packets", &builtins, &rules);
    let why = if builtins.contains(&Builtin::NeighbourDiscovery) {
        ", but for forged ones: those of a neighbour have the hop limit 255"
    } else if builtins.contains(&Builtin::Invalid) {
        "; one accepts what belongs to a connection, the other drops the rest"
    } else {
        ""
    };
    format!("{what}: {taken}{why}")
}

/// Says that built-ins and rules take these packets.
fn take(packets: &str, builtins: &BTreeSet<Builtin>, rules: &[&Rule]) -> String {
    let quoted = |name: &str| format!("\"{name}\"");
    let builtins: Vec<String> = builtins.iter().map(|builtin| quoted(builtin.name())).collect();
    let mut names: Vec<String> =
        rules.iter().take(MAX_NAMED_RULES).map(|rule| quoted(&rule.name)).collect();
    if rules.len() > MAX_NAMED_RULES {
        names.push("more".to_owned());
    }
    let verb = if builtins.len() + names.len() == 1 { "takes" } else { "take" };
    let kinds = [("the built-in", builtins), ("rule", names)];
    let kinds = kinds.into_iter().filter(|(_, names)| !names.is_empty());
    let kinds: Vec<String> = kinds.map(|(kind, names)| listed(kind, names)).collect();
    format!("{} before it {verb} {packets}", kinds.join(" and "))
}

/// `rule "a"`, `rules "a", "b" and "c"`
fn listed(kind: &str, mut names: Vec<String>) -> String {
    let last = names.pop().unwrap_or_default();
    match names.as_slice() {
        [] => format!("{kind} {last}"),
        names => format!("{kind}s {} and {last}", names.join(", ")),
    }
}

fn no_way_in_for_ssh(policy: &Policy, groups: &GroupRanges, problems: &mut Problems) {
    let is_named = policy.rules.iter().any(|rule| {
        rule.direction == Direction::In && lets_through(rule) && rule.name.contains("ssh")
    });
    let is_closed = policy.default.input != Verdict::Accept;
    if is_closed && !is_named && !is_reachable(policy, groups, Direction::In, &[(TCP, 22)]) {
        let message = "no way in for SSH: no rule lets TCP port 22 in; if sshd listens on another \
                       port, call that rule \"ssh\"";
        problems.warn("/rules", message);
    }
}

fn egress_without_dns(policy: &Policy, groups: &GroupRanges, problems: &mut Problems) {
    // A rule that names its destination addresses needs no DNS.
    let has_egress = policy.rules.iter().any(|rule| {
        rule.direction == Direction::Out
            && lets_through(rule)
            && rule.to == Addresses::Any
            && matches!(rule.traffic, Traffic::Any | Traffic::Ports { .. })
    });
    let ways = [(UDP, 53), (TCP, 53), (TCP, 853), (UDP, 853)];
    let is_closed = policy.default.output != Verdict::Accept;
    if is_closed && has_egress && !is_reachable(policy, groups, Direction::Out, &ways) {
        let message = "egress without DNS: rules let connections out, but none to port 53, so \
                       names do not resolve";
        problems.warn("/rules", message);
    }
}

fn lets_through(rule: &Rule) -> bool {
    matches!(rule.action, Action::Allow | Action::Limit(_))
}

/// Returns whether a rule lets packets to one of these ports through that no earlier rule refuses.
fn is_reachable(
    policy: &Policy,
    groups: &GroupRanges,
    direction: Direction,
    ports: &[(ProtocolMatch, u16)],
) -> bool {
    let mut refused: Vec<Vec<(usize, PacketBox<'_>)>> = vec![Vec::new(); ports.len()];
    for rule in policy.rules.iter().filter(|rule| rule.direction == direction) {
        let packets = PacketBox::of(rule, groups);
        for ((protocol, port), refused) in ports.iter().zip(&mut refused) {
            let to_port = packets.iter().filter_map(|packets| packets.to_port(*protocol, *port));
            if !lets_through(rule) {
                refused.extend(to_port.map(|packets| (0, packets)));
                continue;
            }
            let is_open = |packets: PacketBox<'_>| {
                let refused = refused.iter().map(|(place, packets)| (*place, packets));
                packets.covered_by(refused).is_none()
            };
            if to_port.into_iter().any(is_open) {
                return true;
            }
        }
    }
    false
}

#[cfg(test)]
mod tests;
