//! What takes longer than a change should wait for: run once a night.

use crate::build;
use crate::netns::{self, PACKAGES, Programs};
use crate::report::{Report, Tally};
use crate::{dist, fuzz, kernels, lanes, publish, setup};

/// For each fuzz target.
const FUZZ_SECONDS: u32 = 600;

/// Runs the checks that `cargo xtask test` leaves out: fuzzing, the package built twice, each crate
/// built from its own archive, every kernel test on every kernel, and the end-to-end tests with a
/// program that checks its own arithmetic, with many more random cases.
pub(crate) fn steps(report: &Report) {
    setup::steps(report, false);
    dist::steps(report, true);
    publish::archives(report, true);
    setup::cargo_tool(report, &setup::CARGO_FUZZ, false);
    fuzz::steps(report, FUZZ_SECONDS);

    let (mut binaries, mut programs) = (Vec::new(), Programs::default());
    report.step("build the tests", || {
        let packages: Vec<_> = PACKAGES.iter().flat_map(|name| ["--package", name]).collect();
        binaries = build::test_binaries(&packages)?;
        programs = Programs::build(None)?;
        Ok(Tally::DONE)
    });
    let choice = kernels::Choice { all: true, ..kernels::Choice::default() };
    let guests = kernels::guests(report, &binaries, &choice);
    lanes::run(kernels::lanes(report, &guests, &choice, &programs));
    programs.thorough = true;
    netns::run_all(report, &binaries, &netns::Choice::default(), &programs);
}
