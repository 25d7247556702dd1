//! Benchmarks, built with optimisation and run in namespaces of their own.

use crate::build;
use crate::netns::Isolation;
use crate::report::Report;
use crate::{runner, setup};

/// The benchmark that also runs other libraries, in the program of `benches/peers`.
const WITH_PEERS: &str = "bans";

/// Runs the binary `name` of the `benches` package.
pub(crate) fn steps(report: &Report, name: &str, args: &[String]) {
    setup::packages(report, &setup::BENCHMARK_TOOLS, false);
    if name == WITH_PEERS {
        setup::packages(report, &setup::PEER_TOOLS, false);
    }
    report.step(&format!("bench {name}"), || {
        let nfguard = build::binary("nfguard", "nfguard", true)?;
        let program = build::binary("nfguard-benches", name, true)?;
        // The peers want more than a user namespace gives, where it can be had.
        let isolation = Isolation::real_root().or_else(|_| Isolation::any())?;
        let mut command = isolation.command(&program, &nfguard)?;
        if name == WITH_PEERS {
            command.env("NFGUARD_PEERS", build::peers()?);
        }
        runner::run(command.args(args).current_dir(build::root()))
    });
}
