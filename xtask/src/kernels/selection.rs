//! Which tests run on other kernels.

use crate::build::TestBinary;
use crate::netns::{self, E2E};

/// Test targets of the end-to-end package that depend on the kernel: those named so.
const PREFIX: &str = "kernel_";

/// Tests of such targets that give the same answer on every kernel.
struct Same {
    target: &'static str,
    /// The start of the tests' names; of all tests of the target, if empty.
    tests: &'static str,
    reason: &'static str,
}

/// Targets that the newer of the other kernels run: what kernels between the oldest and this one do
/// in their own way, such as a timeout that is changed in place (6.12). The oldest runs the others too:
/// a guard owns its table from 6.9 on, so also on this kernel, and watches it there. The nightly run
/// leaves out nothing.
const NEWER: [&str; 6] = [
    "kernel_ban_edits",
    "kernel_bans",
    "kernel_elements",
    "kernel_netlink",
    "kernel_open_connections",
    "kernel_policies",
];

/// All that other kernels leave out. A target or a test that is new runs there, until it is named
/// here. The nightly run leaves out nothing.
const SAME_EVERYWHERE: [Same; 29] = [
    Same {
        target: "kernel_ban_cli",
        tests: "",
        reason: "arguments, files and words; kernel_bans and kernel_ban_edits have the kernel's part",
    },
    Same {
        target: "kernel_ban_edits",
        tests: "a_long_list_with_duplicates",
        reason: "counting; a_list_in_batches_fits_a_small_send_buffer has the kernel's part",
    },
    Same {
        target: "kernel_ban_model",
        tests: "",
        reason: "random orders of what kernel_bans and kernel_ban_edits do",
    },
    Same {
        target: "kernel_ban_owners",
        tests: "",
        reason: "which bans are whose; the elements and their ends are those of kernel_bans",
    },
    Same {
        target: "kernel_bans_host",
        tests: "containers_and_guests_are_not_banned_by_any_way",
        reason: "addresses of links, and words; the other tests have packets of such hosts",
    },
    Same {
        target: "kernel_bans_host",
        tests: "every_load_confirmation_and_ban_notes_the_peer",
        reason: "the environment, files and words; kernel_bans has the kernel's part",
    },
    Same {
        target: "kernel_clocks",
        tests: "",
        reason: "days in comments, and words; kernel_bans_host has the entries of the host",
    },
    Same {
        target: "kernel_examples",
        tests: "",
        reason: "the library calls of kernel_bans, made by another program",
    },
    Same {
        target: "kernel_explain",
        tests: "",
        reason: "the words for a verdict; kernel_paths and kernel_routes have the kernel's verdicts",
    },
    Same {
        target: "kernel_feeds",
        tests: "",
        reason: "files and their versions; the elements are those of kernel_bans",
    },
    Same {
        target: "kernel_guard",
        tests: "api::",
        reason: "the socket's protocol; the other modules have the kernel's part",
    },
    Same {
        target: "kernel_guard",
        tests: "bulk::",
        reason: "the socket's protocol; kernel_ban_edits has the kernel's part",
    },
    Same {
        target: "kernel_guard",
        tests: "record::",
        reason: "tens of thousands of bans; kernel_elements has what the kernel tells of them",
    },
    Same {
        target: "kernel_guard",
        tests: "scans::",
        reason: "which bans the guard tells, and copies; kernel_scan has the sets of the kernel",
    },
    Same {
        target: "kernel_guard",
        tests: "values::",
        reason: "words and notations, by every way in; kernel_bans has the kernel's part",
    },
    Same {
        target: "kernel_load",
        tests: "atomic::a_thousand_reloads",
        reason: "many of what a_table_that_judged_at_output_is_replaced_without_a_gap does",
    },
    Same {
        target: "kernel_load",
        tests: "atomic::a_load_that_is_killed",
        reason: "moments of a program; a_table_that_judged_at_output has the kernel's transaction",
    },
    Same {
        target: "kernel_load",
        tests: "atomic::reloads",
        reason: "many of what a_table_that_judged_at_output_is_replaced_without_a_gap does",
    },
    Same {
        target: "kernel_load",
        tests: "atomic::two_loads_at_once",
        reason: "the lock between two programs; a_table_that_judged_at_output has the transaction",
    },
    Same {
        target: "kernel_load",
        tests: "errors::",
        reason: "words and exit statuses; kernel_netlink has the kernel's part",
    },
    Same {
        target: "kernel_load",
        tests: "status::",
        reason: "words and exit statuses; kernel_netlink reads back what it loads",
    },
    Same {
        target: "kernel_log_reader",
        tests: "",
        reason: "words for logged packets; kernel_log has the kernel's part",
    },
    Same {
        target: "kernel_netlink",
        tests: "nft_lists_our_table_and_our_text_alike",
        reason: "the text of random tables; kernel_policies compares that of the policies",
    },
    Same {
        target: "kernel_policies",
        tests: "nft_lists_each_policy_and_its_text_alike",
        reason: "nft's words; every_policy_loads_and_loads_again reads back what the kernel has",
    },
    Same {
        target: "kernel_policies",
        tests: "the_nft_listing_of_each_policy",
        reason: "nft's words; every_policy_loads_and_loads_again reads back what the kernel has",
    },
    Same {
        target: "kernel_scan",
        tests: "closed_ports::",
        reason: "which packets count; bans:: and floods:: have the sets of the kernel",
    },
    Same {
        target: "kernel_scan",
        tests: "exemptions::",
        reason: "which sources count; bans:: and floods:: have the sets of the kernel",
    },
    Same {
        target: "kernel_scan",
        tests: "flags::",
        reason: "which packets count; bans:: and floods:: have the sets of the kernel",
    },
    Same {
        target: "kernel_try",
        tests: "",
        reason: "the report of a rehearsal; kernel_policies loads the same policies",
    },
];

/// A test program, and which of its tests run on another kernel.
#[derive(Clone)]
pub(crate) struct Guest {
    pub(crate) binary: TestBinary,
    /// The tests' names; all tests of the program, if empty.
    pub(crate) tests: Vec<String>,
}

/// Chooses tests of programs that are built. An entry of the list that fits no test is an error.
pub(super) fn choose(binaries: &[TestBinary], all: bool) -> Result<Vec<Guest>, String> {
    let mut guests = Vec::new();
    let mut names = Vec::new();
    for binary in binaries {
        let tests = netns::tests(binary, None)?;
        names.extend(tests.iter().map(|test| (binary.target.clone(), test.clone())));
        let kept =
            if all { tests.clone() } else { dependent(&binary.package, &binary.target, &tests) };
        if !kept.is_empty() {
            let tests = if kept.len() == tests.len() { Vec::new() } else { kept };
            guests.push(Guest { binary: binary.clone(), tests });
        }
    }
    let fits = |same: &Same| names.iter().any(|(target, test)| same.fits(target, test));
    let is_built = |same: &Same| binaries.iter().any(|binary| binary.target == same.target);
    match SAME_EVERYWHERE.iter().find(|same| is_built(same) && !fits(same)) {
        Some(same) => Err(format!("{} has no test {}…: {}", same.target, same.tests, same.reason)),
        None => Ok(guests),
    }
}

/// Whether a kernel newer than the oldest runs a program's tests.
pub(super) fn is_for_newer(guest: &Guest) -> bool {
    NEWER.contains(&guest.binary.target.as_str())
}

/// The tests of a program that depend on the kernel.
fn dependent(package: &str, target: &str, tests: &[String]) -> Vec<String> {
    if package != E2E || !target.starts_with(PREFIX) {
        return Vec::new();
    }
    let is_same = |test: &String| SAME_EVERYWHERE.iter().any(|same| same.fits(target, test));
    tests.iter().filter(|test| !is_same(test)).cloned().collect()
}

impl Same {
    fn fits(&self, target: &str, test: &str) -> bool {
        self.target == target && test.starts_with(self.tests)
    }
}

#[cfg(test)]
mod tests {
    use super::{E2E, dependent};

    fn kept(package: &str, target: &str, tests: &[&str]) -> Vec<String> {
        dependent(package, target, &tests.iter().map(|&test| test.to_owned()).collect::<Vec<_>>())
    }

    #[test]
    fn a_new_target_and_a_new_test_run_on_every_kernel() {
        assert_eq!(kept(E2E, "kernel_of_tomorrow", &["a", "b"]), ["a", "b"]);
        assert_eq!(kept(E2E, "kernel_load", &["status::a", "new::a"]), ["new::a"]);
    }

    #[test]
    fn what_does_not_depend_on_the_kernel_is_left_out() {
        assert_eq!(kept(E2E, "kernel_examples", &["a"]), [""; 0]);
        assert_eq!(kept(E2E, "peers_ufw", &["a"]), [""; 0]);
        assert_eq!(kept("nfguard-lab", "probes", &["a"]), [""; 0]);
    }
}
