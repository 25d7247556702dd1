//! Any text is a policy or a list of problems that point into it; a policy
//! compiles and prints.

use nfguard_policy::Policy;

/// Reads one text. It must not panic.
pub(crate) fn run(text: &str) {
    if let Ok((policy, _)) = Policy::parse(text) {
        let _ = nfguard_netlink::text::table(&policy.compile());
    }
}
