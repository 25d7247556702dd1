//! Echo requests. UFW accepts them before all rules; the built-in of a policy accepts them after
//! all rules.

use nfguard_netlink::{IpVersion, PerIpVersion};
use serde_json::json;

use crate::framework::{Framework, RuleState};
use crate::rule::Rule;

/// The part of a policy that is about echo requests.
#[derive(Debug, Default)]
pub(crate) struct PingRules {
    /// Whether the policy has to switch the built-in `ping-in` off.
    pub(crate) builtin_is_off: bool,
    /// Rules before all others.
    pub(crate) first: Vec<Rule>,
    /// Rules after all others.
    pub(crate) last: Vec<Rule>,
}

/// What the rest of the configuration does with echo requests.
#[derive(Clone, Copy, Debug)]
pub(crate) struct PingContext {
    /// UFW filters IPv6.
    pub(crate) ipv6: bool,
    /// A rule or the default might accept an echo request to this host that UFW drops.
    pub(crate) input_may_accept: bool,
    /// The default refuses outgoing connections.
    pub(crate) output_is_closed: bool,
}

/// Returns the rules that do with echo requests what UFW does.
pub(crate) fn ping_rules(framework: &Framework, context: PingContext) -> PingRules {
    let mut pings = PingRules::default();
    let with_state = |rules: &PerIpVersion<RuleState>, wanted: &[RuleState]| {
        let filtered = |version| context.ipv6 || version == IpVersion::V4;
        let matching =
            rules.iter().filter(|(version, state)| filtered(*version) && wanted.contains(state));
        matching.map(|(version, _)| icmp_protocol(version)).collect::<Vec<_>>()
    };
    let accepted = with_state(&framework.ping_in, &[RuleState::Shipped]);
    let refused = with_state(&framework.ping_in, &[RuleState::Drops, RuleState::Rejects]);
    let removed = with_state(&framework.ping_in, &[RuleState::Removed]);
    // The built-in would answer where UFW leaves the decision to the default. A denial of one IP
    // version does not touch the other one.
    pings.builtin_is_off = accepted.is_empty() || !removed.is_empty();
    if !refused.is_empty() && (!pings.builtin_is_off || context.input_may_accept) {
        for (state, action) in [(RuleState::Drops, "deny"), (RuleState::Rejects, "reject")] {
            let protocols = with_state(&framework.ping_in, &[state]);
            let name = if action == "deny" { "no-ping" } else { "reject-ping" };
            let comment = "before.rules refuses echo requests";
            pings.first.extend(echo_rule(name, comment, action, "in", &protocols));
        }
    }
    if pings.builtin_is_off {
        let comment = "before.rules lets echo requests in";
        pings.last.extend(echo_rule("ping", comment, "allow", "in", &accepted));
    }
    let through = with_state(&framework.ping_through, &[RuleState::Shipped]);
    let comment = "UFW's before.rules lets echo requests through";
    pings.first.extend(echo_rule("ping-through", comment, "allow", "forward", &through));
    let ping6_out = framework.ping6_out == RuleState::Shipped;
    if context.ipv6 && context.output_is_closed && ping6_out {
        let comment = "UFW's before6.rules lets IPv6 echo requests out";
        pings.first.extend(echo_rule("ping6-out", comment, "allow", "out", &["icmpv6"]));
    }
    pings
}

fn icmp_protocol(version: IpVersion) -> &'static str {
    match version {
        IpVersion::V4 => "icmp",
        IpVersion::V6 => "icmpv6",
    }
}

/// Returns a rule for echo requests of these protocols; `None` if there are none.
fn echo_rule(
    name: &str,
    comment: &str,
    action: &'static str,
    direction: &'static str,
    protocols: &[&str],
) -> Option<Rule> {
    let proto = match protocols {
        [] => return None,
        [one] => json!(one),
        all => json!(all),
    };
    Some(Rule {
        name: Some(name.to_owned()),
        comment: Some(comment.to_owned()),
        action,
        direction: Some(direction).filter(|word| *word != "in"),
        proto: Some(proto),
        icmp_type: Some("echo-request"),
        ..Rule::default()
    })
}
