//! Fuzzing for a bounded time, on the stable toolchain.

use crate::build::{cargo, root};
use crate::report::Report;
use crate::runner;
use std::fs;

/// The fuzz targets, and the folder of well-formed inputs to begin with.
const TARGETS: [(&str, &str); 9] = [
    ("policy_parse", "policies"),
    ("netlink_decode", "tests/fuzz/seeds/netlink_decode"),
    ("jail_read", "tests/fuzz/seeds/jail_read"),
    ("jail_filter", "tests/fuzz/seeds/jail_filter"),
    ("jails_parse", "crates/jail/src/builtin"),
    ("list_read", "crates/control/src/lists/samples"),
    ("socket_line", "tests/fuzz/seeds/socket_line"),
    ("state_files", "tests/fuzz/seeds/state_files"),
    ("ufw_import", "tests/fuzz/seeds/ufw_import"),
];

/// Runs each fuzz target for this number of seconds.
pub(crate) fn steps(report: &Report, seconds: u32) {
    for (target, seeds) in TARGETS {
        report.step(&format!("fuzz {target}"), || {
            let folder = root().join("tests/fuzz");
            let corpus = folder.join("corpus").join(target);
            fs::create_dir_all(&corpus).map_err(|error| error.to_string())?;
            let mut fuzz = cargo();
            // The sanitizers need a nightly compiler; coverage does not.
            fuzz.args(["fuzz", "run", "--sanitizer", "none", "--fuzz-dir"]).arg(&folder);
            fuzz.arg(target).arg(&corpus).arg(root().join(seeds));
            fuzz.args([
                "--",
                &format!("-max_total_time={seconds}"),
                "-max_len=65536",
                "-verbosity=0",
            ]);
            runner::run(&mut fuzz)
        });
    }
}
