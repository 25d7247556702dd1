//! Echo requests: UFW accepts them before all rules, a policy's built-in after them.

use serde_json::json;

use super::framework::{Fate, Framework};
use super::rule::Rule;

/// The protocols of both families.
const ICMP: [&str; 2] = ["icmp", "icmpv6"];

/// What a policy has to say of echo requests.
#[derive(Debug, Default)]
pub(super) struct Pings {
    /// Whether the built-in that answers them is off.
    pub(super) in_off: bool,
    /// Rules before all others, and after them.
    pub(super) first: Vec<Rule>,
    pub(super) last: Vec<Rule>,
}

/// `rules_may_accept`: a rule or the default might accept an echo request to this host that UFW
/// drops. `output_is_closed`: the default refuses what leaves.
pub(super) fn pings(
    framework: &Framework,
    with_v6: bool,
    rules_may_accept: bool,
    output_is_closed: bool,
) -> Pings {
    let mut pings = Pings::default();
    let families = if with_v6 { 0..2 } else { 0..1 };
    let of = |fates: &[Fate; 2], wanted: &[Fate]| -> Vec<&'static str> {
        let all = families.clone().zip(fates).zip(ICMP);
        all.filter(|((_, fate), _)| wanted.contains(fate)).map(|(_, proto)| proto).collect()
    };
    let kept = of(&framework.ping_in, &[Fate::Kept]);
    let refused = of(&framework.ping_in, &[Fate::Drops, Fate::Rejects]);
    let gone = of(&framework.ping_in, &[Fate::Gone]);
    // Left on, it would answer where nothing decides; a denial of one family leaves the other be.
    pings.in_off = kept.is_empty() || !gone.is_empty();
    if !refused.is_empty() && (!pings.in_off || rules_may_accept) {
        for (fate, action) in [(Fate::Drops, "deny"), (Fate::Rejects, "reject")] {
            let protos = of(&framework.ping_in, &[fate]);
            let name = if action == "deny" { "no-ping" } else { "reject-ping" };
            let comment = "before.rules refuses echo requests";
            pings.first.extend(echo(name, comment, action, "in", &protos));
        }
    }
    if pings.in_off {
        let comment = "before.rules lets echo requests in";
        pings.last.extend(echo("ping", comment, "allow", "in", &kept));
    }
    let through = of(&framework.ping_through, &[Fate::Kept]);
    let comment = "UFW's before.rules lets echo requests through";
    pings.first.extend(echo("ping-through", comment, "allow", "forward", &through));
    if with_v6 && output_is_closed && framework.ping_out == Fate::Kept {
        let comment = "UFW's before6.rules lets IPv6 echo requests out";
        pings.first.extend(echo("ping6-out", comment, "allow", "out", &["icmpv6"]));
    }
    pings
}

fn echo(
    name: &str,
    comment: &str,
    action: &'static str,
    direction: &'static str,
    protos: &[&str],
) -> Option<Rule> {
    let proto = match protos {
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
