//! Everything that must hold before a change goes in.

use crate::build::{self, TestBinary, cargo};
use crate::dist::{self, Plan};
use crate::lanes::{self, Job, Lane, Queue};
use crate::netns::{self, PACKAGES, Programs};
use crate::output::say;
use crate::report::{Report, Tally};
use crate::{fail2ban, kernels, publish, runner, setup, tidy};
use std::process::Command;

/// Test targets that the quick run leaves out: each takes minutes, and looks at other programs more
/// than at ours.
const NOT_QUICK: [&str; 3] = ["docker_root", "peers_scan", "peers_ufw_import"];

/// What a run leaves out.
#[derive(Debug, Default, Clone, Copy, clap::Args)]
pub(crate) struct Choice {
    /// Leave out other kernels, the package, documentation and the slowest tests with other
    /// programs; run a program that is built without optimisation
    #[arg(long)]
    pub(crate) quick: bool,
    /// Leave out the tests that need real root
    #[arg(long)]
    pub(crate) no_root: bool,
    /// Only one part, for machines that share the work; other kernels are `cargo xtask kernels`
    #[arg(long, conflicts_with = "quick")]
    pub(crate) part: Option<Part>,
}

/// A part of the whole run.
#[derive(Debug, Clone, Copy, PartialEq, Eq, clap::ValueEnum)]
pub(crate) enum Part {
    /// Style, lints, invariants, licences, documentation, archives
    Checks,
    /// The package, and all tests on this kernel
    Tests,
}

/// Runs all checks; one that fails does not keep the others from running.
pub(crate) fn steps(report: &Report, choice: Choice) {
    setup::steps(report, false);
    if choice.part != Some(Part::Tests) {
        report.step("fmt", || runner::run(cargo().args(["fmt", "--all", "--check"])));
        tidy::steps(report);
        licences(report);
    }
    if choice.part == Some(Part::Checks) {
        return compiler(report, choice);
    }

    let (mut built, mut dist) = (None, None);
    let mut builds: Vec<Lane<'_>> = vec![Box::new(|| {
        report.step("build the tests", || {
            built = Some(build::test_binaries(&["--workspace"])?);
            Ok(Tally::DONE)
        });
    })];
    if !choice.quick {
        builds.push(Box::new(|| dist = dist::build(report)));
    }
    lanes::run(builds);
    let Some(binaries) = built else { return };
    if dist.is_none() && !choice.quick {
        return;
    }

    let mut programs = None;
    report.step("build what goes with the tests", || {
        // What is handed out is what is tested.
        let nfguard = dist.as_ref().map(|(plan, _)| plan.built());
        programs = Some(Programs::build(nfguard)?);
        Ok(Tally::DONE)
    });
    let Some(programs) = programs else { return };
    let (isolated, plain): (Vec<_>, Vec<_>) =
        binaries.into_iter().partition(|binary| PACKAGES.contains(&binary.package.as_str()));
    let (wanted, slow): (Vec<_>, Vec<_>) = isolated
        .into_iter()
        .partition(|binary| !choice.quick || !NOT_QUICK.contains(&binary.target.as_str()));
    for binary in slow {
        report.left_out(format!("{}: --quick", binary.name()));
    }
    let netns = netns::Choice { no_root: choice.no_root, ..netns::Choice::default() };
    let other_kernels = kernels::Choice::default();
    let guests = match choice.quick || choice.part.is_some() {
        true => Vec::new(),
        false => kernels::guests(report, &wanted, &other_kernels),
    };
    let mut jobs = netns::jobs(report, &wanted, &netns, &programs);
    if !choice.quick {
        jobs.extend(netns::other_fail2ban(report, &wanted, &programs));
    }
    jobs.extend(plain.iter().map(|binary| unit_tests(report, binary)));
    let queue = Queue::new(jobs);
    let mut side_by_side: Vec<Lane<'_>> = Vec::new();
    side_by_side.extend((0..netns::width()).map(|_| Box::new(|| queue.work()) as Lane<'_>));
    if choice.part.is_none() {
        side_by_side.push(Box::new(|| {
            lanes::stand_back();
            compiler(report, choice);
        }));
    }
    if !guests.is_empty() {
        side_by_side.extend(kernels::lanes(report, &guests, &other_kernels, &programs));
    }
    if let Some((plan, products)) = &dist {
        side_by_side.push(Box::new(|| {
            dist::check(report, plan, products);
            report.step("the README's first command", || first_command(plan));
        }));
    }
    lanes::run(side_by_side);
}

/// What the compiler says, and what it makes beside programs.
fn compiler(report: &Report, choice: Choice) {
    let lints = ["--", "-D", "warnings"];
    report.step("clippy", || {
        runner::run(cargo().args(["clippy", "--workspace", "--all-targets"]).args(lints))
    });
    for package in tidy::PURE.into_iter().chain(["nfguard-ban"]) {
        report.step(&format!("clippy of {package} by itself"), || {
            let mut clippy = cargo();
            clippy.args(["clippy", "--no-default-features", "--package", package]).args(lints);
            runner::run(&mut clippy)
        });
    }
    report.step("doc tests", || {
        let mut command = cargo();
        command.args(["test", "--doc", "--workspace"]);
        runner::run_tests(&mut command)
    });
    if !choice.quick {
        report.step("doc", || {
            let mut doc = cargo();
            doc.args(["doc", "--workspace", "--no-deps"]).env("RUSTDOCFLAGS", "-D warnings");
            runner::run(&mut doc)
        });
        publish::archives(report, false);
        fail2ban::samples(report);
    }
}

fn licences(report: &Report) {
    report.step("licences and sources", || {
        let mut deny = cargo();
        deny.args(["deny", "check", "bans", "licenses", "sources"]);
        // Its database comes from the net.
        if std::env::var_os("NFGUARD_ADVISORIES").is_some_and(|wanted| wanted == "1") {
            deny.arg("advisories");
        }
        runner::run(&mut deny)
    });
}

/// The tests of a program that needs no namespace.
fn unit_tests<'j>(report: &'j Report, binary: &'j TestBinary) -> Job<'j> {
    let work = move || {
        report.step(&format!("unit tests {}", binary.name()), || {
            let mut command = Command::new(&binary.path);
            command.current_dir(&binary.dir).env("CARGO_MANIFEST_DIR", &binary.dir);
            runner::run_tests(&mut command)
        });
    };
    Job { needs: None, work: Box::new(work) }
}

/// What a newcomer types first, letter by letter, with the program as it is handed out.
fn first_command(plan: &Plan) -> Result<Tally, String> {
    let readme = std::fs::read_to_string(build::root().join("README.md"));
    let readme = readme.map_err(|error| error.to_string())?;
    let block = readme.split("```sh\n").nth(1).and_then(|rest| rest.split("```").next());
    let command = block.ok_or("README.md has no command")?.trim();
    say(command);
    runner::run(plan.surround(Command::new("sh").args(["-c", command])))
}
