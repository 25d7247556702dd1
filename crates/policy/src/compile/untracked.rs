//! Replies to packets that connection tracking does not look at.

use nfguard_netlink::{Rule as NftRule, Set};

use super::rule::{Match, PortSource, matches, object_name};
use super::sets::sets;
use super::{accept, commented, expr};
use crate::policy::{Direction, Policy, Rule, Traffic};

/// Returns the rules that accept replies to what a rule allows and connection tracking does not know:
/// the same rule the other way round. What this host replies may count as new, if only what comes in
/// is untracked. What others reply must be untracked: that, the host itself has decided.
pub(super) fn replies(policy: &Policy, rule: &Rule) -> (Vec<Set>, Vec<NftRule>) {
    let mut all = (Vec::new(), Vec::new());
    let Traffic::Ports { tcp, udp, source } = &rule.traffic else { return all };
    let state = match rule.direction {
        Direction::In => Vec::new(),
        Direction::Out | Direction::Forward => expr::untracked(),
    };
    let comment = format!("{}: replies to untracked packets", rule.name);
    for (word, is_tcp, ports) in [("tcp", true, tcp), ("udp", false, udp)] {
        let Some(ports) = ports else { continue };
        let to = |wanted: bool| (wanted == is_tcp).then(|| source.clone());
        let reversed = Rule {
            from: rule.to.clone(),
            to: rule.from.clone(),
            in_interface: rule.out_interface.clone(),
            out_interface: rule.in_interface.clone(),
            traffic: Traffic::Ports { tcp: to(true), udp: to(false), source: ports.clone() },
            ..rule.clone()
        };
        let object = format!("{}/replies/{word}", object_name(rule));
        all.0.extend(sets(&reversed, &object));
        let matches = matches(policy, &reversed, &object, PortSource::Packet);
        let rules = matches
            .into_iter()
            .map(|Match { exprs, .. }| commented([exprs, state.clone(), vec![accept()]], &comment));
        all.1.extend(rules);
    }
    all
}
