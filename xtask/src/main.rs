//! The project's own tasks, run as `cargo xtask TASK`.
#![allow(clippy::print_stdout, clippy::print_stderr, reason = "a task talks to the terminal")]

mod bench;
mod build;
mod dist;
mod fuzz;
mod initramfs;
mod kernels;
mod netns;
mod report;
mod runner;
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
    Kernels {
        /// Kernel versions, such as 6.1; all if none is given
        versions: Vec<String>,
        /// Only test targets whose name contains this
        #[arg(long)]
        only: Option<String>,
    },
    /// Check the repository's invariants
    Tidy,
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
    Test {
        /// Leave out other kernels, the package, fuzzing and documentation
        #[arg(long)]
        quick: bool,
        /// Leave out the tests that need real root
        #[arg(long)]
        no_root: bool,
    },
}

fn main() -> ExitCode {
    let mut report = Report::default();
    match Task::parse() {
        Task::Setup { check } => setup::steps(&mut report, check),
        Task::NetnsTest(choice) => netns::steps(&mut report, &choice),
        Task::Kernels { versions, only } => {
            kernels::steps(&mut report, &versions, only.as_deref());
        }
        Task::Tidy => tidy::steps(&mut report),
        Task::Fuzz { seconds } => fuzz::steps(&mut report, seconds),
        Task::Bench { name, args } => bench::steps(&mut report, &name, &args),
        Task::Dist { check } => {
            dist::setup(&mut report, false);
            dist::steps(&mut report, check);
        }
        Task::Test { quick, no_root } => test::steps(&mut report, quick, no_root),
    }
    report.finish()
}
