//! Benchmarks, built with optimisation and run in namespaces of their own.

use crate::build;
use crate::netns::Isolation;
use crate::report::Report;
use crate::runner;

/// Runs the binary `name` of the `benches` package.
pub(crate) fn steps(report: &mut Report, name: &str, args: &[String]) {
    report.step(&format!("bench {name}"), || {
        let nfguard = build::binary("nfguard", "nfguard", true)?;
        let program = build::binary("nfguard-benches", name, true)?;
        // The peers want more than a user namespace gives, where it can be had.
        let isolation = Isolation::real_root().or_else(|_| Isolation::any())?;
        let mut command = isolation.command(&program, &nfguard)?;
        runner::run(command.args(args).current_dir(build::root()))
    });
}
