//! Other programs, which are waited for, and not for ever.

use std::fs::File;
use std::io::{self, ErrorKind, Read as _, Seek as _};
use std::process::{Command, Output, Stdio};
use std::thread;
use std::time::{Duration, Instant};

use rustix::fs::{MemfdFlags, memfd_create};

const LOOK_INTERVAL: Duration = Duration::from_millis(5);

/// Runs a program without input, and returns what it has written. It is killed after the time limit.
///
/// # Errors
/// The program does not start, or [`ErrorKind::TimedOut`], with its process.
pub fn output(command: &mut Command, time_limit: Duration) -> io::Result<Output> {
    // In memory and not through pipes, which a child of the program could hold open.
    let memory = || memfd_create("output", MemfdFlags::CLOEXEC).map(File::from);
    let (mut stdout, mut stderr) = (memory()?, memory()?);
    command.stdin(Stdio::null()).stdout(stdout.try_clone()?).stderr(stderr.try_clone()?);
    let mut child = command.spawn()?;
    let start = Instant::now();
    let status = loop {
        if let Some(status) = child.try_wait()? {
            break status;
        }
        if start.elapsed() > time_limit {
            child.kill()?;
            let name = command.get_program().to_string_lossy();
            let (id, limit) = (child.id(), time_limit.as_secs());
            let why = format!("{name}, process {id}, has not ended within {limit} s");
            return Err(io::Error::new(ErrorKind::TimedOut, why));
        }
        thread::sleep(LOOK_INTERVAL);
    };
    let mut output = Output { status, stdout: Vec::new(), stderr: Vec::new() };
    stdout.rewind()?;
    stdout.read_to_end(&mut output.stdout)?;
    stderr.rewind()?;
    stderr.read_to_end(&mut output.stderr)?;
    Ok(output)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_program_that_does_not_end_is_killed_and_named_and_none_is_waited_for_by_its_children() {
        let shell = |script: &str, limit| {
            output(Command::new("sh").args(["-c", script]), Duration::from_millis(limit))
        };
        let done = shell("echo out; echo err >&2; sleep 1000 & exit 3", 60_000).expect("it ends");
        assert_eq!((done.stdout, done.stderr), (b"out\n".to_vec(), b"err\n".to_vec()));
        assert_eq!(done.status.code(), Some(3));
        let error = shell("sleep 1000", 50).expect_err("it does not end");
        assert_eq!(error.kind(), ErrorKind::TimedOut);
        assert!(error.to_string().starts_with("sh, process "), "{error}");
    }
}
