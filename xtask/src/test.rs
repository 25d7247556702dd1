//! Everything that must hold before a change goes in.

use crate::build::{self, cargo};
use crate::dist::{self, Plan};
use crate::netns::{self, Choice, PACKAGES};
use crate::report::{Report, Tally};
use crate::{fuzz, kernels, runner, setup, tidy};
use std::process::Command;

/// Enough to see that the targets work and to find what is easy to find.
const FUZZ_SECONDS: u32 = 20;

/// Runs all checks; one that fails does not keep the others from running.
pub(crate) fn steps(report: &mut Report, quick: bool, no_root: bool) {
    setup::steps(report, false);
    report.step("fmt", || runner::run(cargo().args(["fmt", "--all", "--check"])));
    report.step("clippy", || {
        let lints = ["clippy", "--workspace", "--all-targets", "--", "-D", "warnings"];
        runner::run(cargo().args(lints))
    });
    report.step("clippy, of what is pure by itself", || {
        runner::run(cargo().args(["clippy", "--package", "nfguard-policy", "--", "-D", "warnings"]))
    });
    tidy::steps(report);
    report.step("licences and sources", || {
        let mut deny = cargo();
        deny.args(["deny", "check", "bans", "licenses", "sources"]);
        // Its database comes from the net.
        if std::env::var_os("NFGUARD_ADVISORIES").is_some_and(|wanted| wanted == "1") {
            deny.arg("advisories");
        }
        runner::run(&mut deny)
    });
    tests(report, quick, no_root);
    if !quick {
        if let Some(plan) = dist::steps(report, true) {
            report.step("the README's first command", || first_command(&plan));
        }
        fuzz::steps(report, FUZZ_SECONDS);
        report.step("doc", || {
            let mut doc = cargo();
            doc.args(["doc", "--workspace", "--no-deps"]).env("RUSTDOCFLAGS", "-D warnings");
            runner::run(&mut doc)
        });
    }
}

/// What a newcomer types first, letter by letter, with the program as it is handed out.
fn first_command(plan: &Plan) -> Result<Tally, String> {
    let readme = std::fs::read_to_string(build::root().join("README.md"));
    let readme = readme.map_err(|error| error.to_string())?;
    let block = readme.split("```sh\n").nth(1).and_then(|rest| rest.split("```").next());
    let command = block.ok_or("README.md has no command")?.trim();
    println!("{command}");
    runner::run(plan.surround(Command::new("sh").args(["-c", command])))
}

/// Builds every test once; those that need namespaces run in some.
fn tests(report: &mut Report, quick: bool, no_root: bool) {
    let mut built = None;
    report.step("build", || {
        built = Some(build::test_binaries(&["--workspace"])?);
        Ok(Tally::DONE)
    });
    let Some(binaries) = built else { return };
    let (isolated, plain): (Vec<_>, Vec<_>) =
        binaries.into_iter().partition(|binary| PACKAGES.contains(&binary.package.as_str()));
    report.step("unit tests", || {
        let mut total = Tally::default();
        for binary in &plain {
            println!("-- {}", binary.name());
            let mut command = Command::new(&binary.path);
            command.current_dir(&binary.dir).env("CARGO_MANIFEST_DIR", &binary.dir);
            total.add(runner::run_tests(&mut command)?);
        }
        Ok(total)
    });
    report.step("doc tests", || {
        let mut command = cargo();
        command.args(["test", "--doc", "--workspace"]);
        runner::run_tests(&mut command)
    });
    netns::run(report, &isolated, &Choice { no_root, ..Choice::default() });
    if !quick {
        kernels::run(report, &isolated, &[]);
    }
}
