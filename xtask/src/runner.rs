//! Running other programs: with their output shown, bounded in time, and, for
//! test programs, counted.

use crate::output::{self, say};
use crate::report::Tally;
use std::ffi::OsString;
use std::io::{BufRead, BufReader};
use std::path::Path;
use std::process::{Command, ExitStatus, Stdio};
use std::sync::mpsc::{self, RecvTimeoutError};
use std::time::{Duration, Instant};

/// Longer than a build takes on a slow machine.
const LONGEST_BUILD: Duration = Duration::from_secs(60 * 60);

/// Longer than any test program should take on a slow machine.
const LIMIT: Duration = Duration::from_secs(20 * 60);

/// Longer than a program is silent while it works: a test of an emulated machine, or a build.
const LONGEST_SILENCE: Duration = Duration::from_secs(10 * 60);

/// Runs a program with its output shown.
pub(crate) fn run(command: &mut Command) -> Result<Tally, String> {
    let status = match output::is_kept() {
        true => run_lines(command, LONGEST_BUILD, |line| say(line))?,
        false => command.status().map_err(|error| does_not_start(command, &error))?,
    };
    if status.success() { Ok(Tally::DONE) } else { Err(format!("{} {status}", name(command))) }
}

/// Runs a program and returns what it writes.
pub(crate) fn output(command: &mut Command) -> Result<String, String> {
    let output = command.output().map_err(|error| does_not_start(command, &error))?;
    if output.status.success() {
        Ok(String::from_utf8_lossy(&output.stdout).into_owned())
    } else {
        let words = String::from_utf8_lossy(&output.stderr).trim().to_owned();
        Err(format!("{} {}: {words}", name(command), output.status))
    }
}

/// Runs a program that speaks as Rust's test harness does, and counts.
pub(crate) fn run_tests(command: &mut Command) -> Result<Tally, String> {
    let mut tally = Tally::default();
    let status = run_lines(command, LIMIT, |line| {
        say(line);
        if let Some(counted) = harness_result(line) {
            tally.add(counted);
        }
    })?;
    // A crash reports no failed test.
    if !status.success() && tally.failed == 0 {
        say(format_args!("{} {status}", name(command)));
        tally.failed = 1;
    }
    Ok(tally)
}

/// Runs a program, gives each line it writes to `each`, and kills it after `limit`, or after
/// [`LONGEST_SILENCE`] without a line. Data and errors come in the order in which they are written.
pub(crate) fn run_lines(
    command: &mut Command,
    limit: Duration,
    mut each: impl FnMut(&str),
) -> Result<ExitStatus, String> {
    let started = Instant::now();
    let mut heard = started;
    let (reader, writer) = std::io::pipe().map_err(|error| error.to_string())?;
    let second = writer.try_clone().map_err(|error| error.to_string())?;
    let child = command.stdout(writer).stderr(second).stdin(Stdio::null()).spawn();
    // The command lets go of the pipe, or its reader would wait for ever.
    command.stdout(Stdio::null()).stderr(Stdio::null());
    let mut child = child.map_err(|error| does_not_start(command, &error))?;
    let (sender, lines) = mpsc::channel();
    // Not joined: a program that outlives the child may keep the pipe open.
    std::thread::spawn(move || {
        for line in BufReader::new(reader).split(b'\n').map_while(Result::ok) {
            if sender.send(String::from_utf8_lossy(&line).into_owned()).is_err() {
                break;
            }
        }
    });
    let mut ended = None;
    loop {
        // After the end, only what is still in the pipe.
        let patience = Duration::from_millis(if ended.is_some() { 5000 } else { 100 });
        match lines.recv_timeout(patience) {
            Ok(line) => {
                heard = Instant::now();
                each(line.trim_end_matches('\r'));
            }
            Err(RecvTimeoutError::Disconnected) if ended.is_none() => {
                std::thread::sleep(Duration::from_millis(10));
            }
            Err(RecvTimeoutError::Disconnected) => break,
            Err(RecvTimeoutError::Timeout) if ended.is_some() => break,
            Err(RecvTimeoutError::Timeout) => {}
        }
        if ended.is_none() {
            ended = child.try_wait().map_err(|error| error.to_string())?;
        }
        let is_over = started.elapsed() > limit || heard.elapsed() > LONGEST_SILENCE;
        if ended.is_none() && is_over {
            child.kill().map_err(|error| error.to_string())?;
            child.wait().map_err(|error| error.to_string())?;
            let (all, silent) = (started.elapsed().as_secs(), heard.elapsed().as_secs());
            return Err(format!(
                "{} killed after {all} s, {silent} s after its last line",
                name(command)
            ));
        }
    }
    ended.ok_or_else(|| "the program has no exit status".to_owned())
}

/// `PATH` with the system folders that a plain user's may lack.
pub(crate) fn path() -> OsString {
    let mut path = std::env::var_os("PATH").unwrap_or_default();
    path.push(":/usr/local/sbin:/usr/sbin:/sbin");
    path
}

/// Whether this process is root.
pub(crate) fn is_root() -> bool {
    use std::os::unix::fs::MetadataExt;
    std::fs::metadata("/proc/self").is_ok_and(|process| process.uid() == 0)
}

/// Reads `test result: ok. 3 passed; 0 failed; …`.
pub(crate) fn harness_result(line: &str) -> Option<Tally> {
    let (_, counts) = line.strip_prefix("test result: ")?.split_once(". ")?;
    let mut counts = counts.split("; ");
    let passed = counts.next()?.strip_suffix(" passed")?.parse().ok()?;
    let failed = counts.next()?.strip_suffix(" failed")?.parse().ok()?;
    Some(Tally { passed, failed })
}

fn name(command: &Command) -> String {
    let program = Path::new(command.get_program());
    program.file_name().unwrap_or(program.as_os_str()).to_string_lossy().into_owned()
}

fn does_not_start(command: &Command, error: &std::io::Error) -> String {
    format!("{} does not start: {error}", name(command))
}

#[cfg(test)]
mod tests {
    use super::{Tally, harness_result, run_lines, run_tests};
    use std::process::Command;
    use std::time::Duration;

    fn shell(script: &str) -> Command {
        let mut command = Command::new("sh");
        command.args(["-c", script]);
        command
    }

    #[test]
    fn harness_results_are_counted() {
        let line = "test result: FAILED. 3 passed; 2 failed; 0 ignored; 0 measured; 0 filtered out";
        assert_eq!(harness_result(line), Some(Tally { passed: 3, failed: 2 }));
        assert_eq!(harness_result("test result"), None);
    }

    #[test]
    fn a_crash_after_good_tests_is_a_failure() {
        let script = "echo 'test result: ok. 1 passed; 0 failed; 0 ignored'; exit 101";
        assert_eq!(run_tests(&mut shell(script)), Ok(Tally { passed: 1, failed: 1 }));
    }

    #[test]
    fn a_program_that_never_ends_is_killed() {
        let outcome = run_lines(&mut shell("exec sleep 1000"), Duration::ZERO, |_| {});
        assert_eq!(outcome, Err("sh killed after 0 s, 0 s after its last line".to_owned()));
    }

    #[test]
    fn every_line_arrives_before_the_end() {
        let mut lines = Vec::new();
        let script = "i=0; while [ $i -lt 500 ]; do echo $i; i=$((i+1)); done; printf last";
        let status = run_lines(&mut shell(script), Duration::from_secs(600), |line| {
            lines.push(line.to_owned());
        });
        assert!(status.is_ok_and(|status| status.success()));
        assert_eq!(lines.len(), 501);
    }
}
