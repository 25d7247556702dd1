//! What was run, what came of it, and how long it took.

use crate::output;
use std::process::ExitCode;
use std::sync::{Mutex, MutexGuard, PoisonError};
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

/// The steps of one run of `cargo xtask`. Lanes that run side by side share it.
pub(crate) struct Report {
    start: Instant,
    state: Mutex<State>,
}

#[derive(Default)]
struct State {
    lines: Vec<String>,
    left_out: Vec<String>,
    total: Tally,
    seconds: f64,
}

impl Report {
    pub(crate) fn new() -> Report {
        Report { start: Instant::now(), state: Mutex::default() }
    }

    /// Runs one step and prints its verdict and time. In a lane, prints what the step said at its
    /// end.
    pub(crate) fn step(&self, name: &str, work: impl FnOnce() -> Result<Tally, String>) {
        match output::is_kept() {
            true => println!("begins {name}"),
            false => println!("==== {name}"),
        }
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
        // The lock keeps a step's lines together.
        let mut state = self.state();
        if output::is_kept() {
            print!("==== {name}\n{}", output::take());
        }
        println!("{line}");
        state.total.add(tally);
        state.seconds += seconds;
        state.lines.push(line);
    }

    /// Notes for the summary that something asked not to be run was not run.
    pub(crate) fn left_out(&self, what: String) {
        self.state().left_out.push(what);
    }

    /// Whether every step so far passed.
    pub(crate) fn clean(&self) -> bool {
        self.state().total.failed == 0
    }

    /// Prints the summary; its last line is for programs to read.
    pub(crate) fn finish(self) -> ExitCode {
        let clock = self.start.elapsed().as_secs_f64();
        let state = self.state.into_inner().unwrap_or_else(PoisonError::into_inner);
        println!("\nSummary");
        for line in &state.lines {
            println!("  {line}");
        }
        for what in &state.left_out {
            println!("  left out: {what}");
        }
        println!("  {:.0} s of steps in {clock:.0} s by the clock", state.seconds);
        println!("{} passed, {} failed", state.total.passed, state.total.failed);
        if state.total.failed == 0 { ExitCode::SUCCESS } else { ExitCode::FAILURE }
    }

    fn state(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

fn sum(tally: Tally) -> usize {
    tally.passed + tally.failed
}
