//! Counts the connections of each source, for rules with a limit. A source is an address and the interface
//! that its packets come in by. So a forger elsewhere uses up the limit of no other sender.

use nfguard_netlink::{Dynset, Expr, IpVersion, KeyType, MetaKey, Reg, Rule as NftRule, Set};

use super::expr::{self, End};
use super::log::log_line;
use super::{accept, comment, commented, discard};
use crate::policy::{Direction, Limit, Rule, Verdict};

/// Returns one set for each connection that a source may open. Set *n* holds the sources that have
/// opened *n* connections, each for as long as that connection counts. So the window slides exactly,
/// unlike that of a token bucket.
pub(super) fn limit_sets(
    rule: &Rule,
    object: &str,
    limit: &Limit,
    versions: &[IpVersion],
) -> Vec<Set> {
    let interface = comes_by_wire(rule).then_some(KeyType::Ifname);
    let timeout = std::time::Duration::from_secs(u64::from(limit.seconds));
    let set = |version: &IpVersion, slot| Set {
        name: slot_set(object, *version, slot),
        key: [expr::address_key(*version)].into_iter().chain(interface).collect(),
        dynamic: true,
        timeout: Some(timeout),
        size: Some(limit.sources),
        ..Set::default()
    };
    versions
        .iter()
        .flat_map(|version| (1..limit.connections).map(move |slot| set(version, slot)))
        .collect()
}

fn slot_set(object: &str, version: IpVersion, slot: u8) -> String {
    format!("{object}/{slot}/{}", version.suffix())
}

/// Returns the rules that count connections. A new connection takes the first slot that its source
/// does not hold. If there is none, the connection is refused and all slots of its source restart.
/// So the source is refused until it has been quiet for the whole window.
pub(super) fn limit_rules(
    rule: &Rule,
    object: &str,
    limit: &Limit,
    versions: &[IpVersion],
) -> Vec<NftRule> {
    let mut rules = Vec::new();
    for version in versions {
        let slots = 1..limit.connections;
        let source = source(rule, *version, limit);
        for slot in slots {
            let set = slot_set(object, *version, slot);
            let take = vec![expr::not_in_set(&set), add(set, false), accept()];
            let last = limit.connections - 1;
            let text = format!("{}: {slot} of {last} in {} s", rule.name, limit.seconds);
            rules.push(commented([source.clone(), take], &text));
        }
        rules.extend(over_rules(rule, object, limit, *version, None));
    }
    // When a flood has filled the sets, accepting a source is better than locking out all of them.
    let text = format!("{}: no room to remember another source", rule.name);
    rules.push(commented([vec![accept()]], &text));
    rules
}

/// Returns the rules that refuse a source which holds every slot. They stand behind the rules that
/// take a slot, so only the last slot is looked up; with `count`, which counts the refusal too, they
/// stand alone and look up all.
pub(super) fn over_rules(
    rule: &Rule,
    object: &str,
    limit: &Limit,
    version: IpVersion,
    count: Option<&Expr>,
) -> Vec<NftRule> {
    let slots = 1..limit.connections;
    let first = if count.is_some() { slots.start } else { slots.end - 1 };
    let held = (first..slots.end).map(|slot| expr::in_set(&slot_set(object, version, slot)));
    let over: Vec<Expr> = source(rule, version, limit).into_iter().chain(held).collect();
    // A rule stops at a full set, so the refusal is a rule of its own: an attacker who fills the
    // first slot with forged sources must not switch the limit off.
    let restart = slots.rev().map(|slot| add(slot_set(object, version, slot), true)).collect();
    let text = format!("{}: restart the window", rule.name);
    let mut rules = vec![commented([over.clone(), restart], &text)];
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
    let count = count.cloned().into_iter().collect();
    rules.push(commented([over, count, vec![counter, end]], &text));
    rules
}

/// Returns the name of the counter of what a limit refused.
pub(super) fn over_counter(object: &str) -> String {
    format!("{object}/over")
}

/// Returns whether the rule's packets have an interface that they came in by. Those of this host have none.
fn comes_by_wire(rule: &Rule) -> bool {
    rule.direction != Direction::Out
}

/// Loads what a limit counts into adjacent registers.
fn source(rule: &Rule, version: IpVersion, limit: &Limit) -> Vec<Expr> {
    let mut exprs = expr::ip_version(version);
    exprs.push(expr::address(version, End::Source));
    if version == IpVersion::V6 && limit.v6_prefix < 128 {
        exprs.push(expr::keep_prefix(16, limit.v6_prefix));
    }
    if comes_by_wire(rule) {
        let behind = Reg::new(if version == IpVersion::V4 { 1 } else { 4 }).unwrap_or(Reg::FIRST);
        exprs.push(Expr::Meta { key: MetaKey::Iifname, reg: behind });
    }
    exprs
}

fn add(set: String, update: bool) -> Expr {
    Expr::Dynset(Dynset { reg: Reg::FIRST, set, update, timeout: None })
}
