//! The project's own tasks, run as `cargo xtask TASK`.
#![allow(clippy::print_stdout, clippy::print_stderr, reason = "a task talks to the terminal")]

mod bench;
mod build;
mod dist;
mod fail2ban;
mod fuzz;
mod initramfs;
mod kernels;
mod lanes;
mod netns;
mod nightly;
mod output;
mod publish;
mod report;
mod runner;
mod rust;
mod setup;
mod source;
mod test;
mod tidy;

use clap::Parser;
use report::Report;
use std::process::ExitCode;

/// The tasks of this repository.
#[derive(Parser)]
#[command(name = "cargo xtask", bin_name = "cargo xtask", arg_required_else_help = true)]
enum Task {
    /// Install what the tests compare with and run in
    Setup {
        /// Install nothing; fail if something is missing
        #[arg(long)]
        check: bool,
    },
    /// Run the tests that need the kernel, in namespaces of their own
    NetnsTest(netns::Choice),
    /// Run the kernel tests on Debian's own kernels, in a virtual machine
    Kernels(kernels::Choice),
    /// Check the repository's invariants
    Tidy {
        /// Only list the words that texts should not use, and count them for each room
        #[arg(long)]
        words: bool,
    },
    /// Judge the samples of Fail2Ban's own filters, from Debian's source package
    Samples,
    /// Run the fuzz targets for a while
    Fuzz {
        /// For each target
        #[arg(long, default_value_t = 20)]
        seconds: u32,
    },
    /// Run a benchmark of the `benches` package, for example `load`
    Bench {
        /// Its binary
        name: String,
        /// Arguments passed on
        #[arg(trailing_var_arg = true, allow_hyphen_values = true)]
        args: Vec<String>,
    },
    /// Build what is handed out: a static program and a Debian package
    Dist {
        /// Build it a second time elsewhere; the bytes must be the same
        #[arg(long)]
        check: bool,
    },
    /// Everything: set-up, style, lints, invariants, licences, all tests
    Test(test::Choice),
    /// What takes too long for each change: fuzzing, the package twice, all tests on all kernels
    Nightly,
}

fn main() -> ExitCode {
    let report = Report::new();
    match Task::parse() {
        Task::Setup { check } => setup::steps(&report, check),
        Task::NetnsTest(choice) => netns::steps(&report, &choice),
        Task::Kernels(choice) => kernels::steps(&report, &choice),
        Task::Tidy { words: true } => tidy::words(&report),
        Task::Tidy { words: false } => tidy::steps(&report),
        Task::Samples => fail2ban::samples(&report),
        Task::Fuzz { seconds } => fuzz::steps(&report, seconds),
        Task::Bench { name, args } => bench::steps(&report, &name, &args),
        Task::Dist { check } => {
            dist::setup(&report, false);
            dist::steps(&report, check);
        }
        Task::Test(choice) => test::steps(&report, choice),
        Task::Nightly => nightly::steps(&report),
    }
    report.finish()
}
