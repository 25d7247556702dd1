//! What was run, what came of it, and how long it took.

use std::process::ExitCode;
use std::time::Instant;

/// How many tests of a step passed and failed. A step without tests of its
/// own counts as one.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub(crate) struct Tally {
    pub(crate) passed: usize,
    pub(crate) failed: usize,
}

impl Tally {
    /// A step that passed and has no tests to count.
    pub(crate) const DONE: Tally = Tally { passed: 1, failed: 0 };

    pub(crate) fn add(&mut self, other: Tally) {
        self.passed += other.passed;
        self.failed += other.failed;
    }
}

/// The steps of one run of `cargo xtask`.
#[derive(Default)]
pub(crate) struct Report {
    lines: Vec<String>,
    left_out: Vec<String>,
    total: Tally,
}

impl Report {
    /// Runs one step and prints its verdict and time.
    pub(crate) fn step(&mut self, name: &str, work: impl FnOnce() -> Result<Tally, String>) {
        println!("==== {name}");
        let start = Instant::now();
        let outcome = work();
        let seconds = start.elapsed().as_secs_f64();
        let (tally, line) = match outcome {
            Ok(tally) if tally.failed > 0 => {
                (tally, format!("FAIL {name} {seconds:.1} s: {} of {}", tally.failed, sum(tally)))
            }
            Ok(tally) if tally.passed > 1 => {
                (tally, format!("PASS {name} {seconds:.1} s: {}", tally.passed))
            }
            Ok(tally) => (tally, format!("PASS {name} {seconds:.1} s")),
            Err(reason) => {
                (Tally { passed: 0, failed: 1 }, format!("FAIL {name} {seconds:.1} s: {reason}"))
            }
        };
        println!("{line}");
        self.total.add(tally);
        self.lines.push(line);
    }

    /// Notes for the summary that something asked not to be run was not run.
    pub(crate) fn left_out(&mut self, what: String) {
        self.left_out.push(what);
    }

    /// Whether every step so far passed.
    pub(crate) fn clean(&self) -> bool {
        self.total.failed == 0
    }

    /// Prints the summary; its last line is for programs to read.
    pub(crate) fn finish(self) -> ExitCode {
        println!("\nSummary");
        for line in &self.lines {
            println!("  {line}");
        }
        for what in &self.left_out {
            println!("  left out: {what}");
        }
        println!("{} passed, {} failed", self.total.passed, self.total.failed);
        if self.clean() { ExitCode::SUCCESS } else { ExitCode::FAILURE }
    }
}

fn sum(tally: Tally) -> usize {
    tally.passed + tally.failed
}
