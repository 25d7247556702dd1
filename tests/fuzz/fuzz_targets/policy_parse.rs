//! Any text is a policy or a list of problems that point into it; a policy
//! compiles and prints.
#![no_main]

use libfuzzer_sys::fuzz_target;
use nfguard_policy::Policy;

fuzz_target!(|text: &str| {
    if let Ok((policy, _)) = Policy::parse(text) {
        let _ = nfguard_netlink::text::table(&policy.compile());
    }
});
