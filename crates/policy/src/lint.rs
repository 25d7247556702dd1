//! What is allowed in a policy file, but probably not what was meant. A lint that is not true is a
//! bug.

use crate::policy::{Builtin, Policy};
use crate::source::Findings;

/// Notes a warning for each.
pub(crate) fn policy(policy: &Policy, findings: &mut Findings) {
    builtins(policy, findings);
}

fn builtins(policy: &Policy, findings: &mut Findings) {
    for (builtin, consequence) in [
        (Builtin::Loopback, "programs of this host cannot reach each other over lo"),
        (Builtin::Established, "answers to accepted connections need rules of their own"),
        (Builtin::NeighbourDiscovery, "IPv6 does not work on most links"),
    ] {
        if !policy.builtin.contains(&builtin) {
            findings
                .warn(format!("/builtin/{}", builtin.name()), format!("without it, {consequence}"));
        }
    }
}
