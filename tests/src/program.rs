//! The `nfguard` program, run inside a namespace.

use std::ffi::OsStr;
use std::io::{Read as _, Write as _};
use std::path::{Path, PathBuf};
use std::process::{Command, Output, Stdio};
use std::sync::atomic::{AtomicU32, Ordering};
use std::time::Duration;
use std::{env, fs};

use nfguard_lab::Netns;
use rustix::pty::{OpenptFlags, ioctl_tiocgptpeer, openpt, unlockpt};

/// The outcome of a run of `nfguard`.
#[derive(Debug)]
pub struct Answer {
    /// The exit status, or `None` if a signal has ended the program.
    pub status: Option<i32>,
    /// The data on standard output.
    pub stdout: String,
    /// The warnings and errors on standard error.
    pub stderr: String,
}

impl From<Output> for Answer {
    fn from(output: Output) -> Answer {
        Answer {
            status: output.status.code(),
            stdout: String::from_utf8_lossy(&output.stdout).into_owned(),
            stderr: String::from_utf8_lossy(&output.stderr).into_owned(),
        }
    }
}

/// Returns the path of the `nfguard` under test.
///
/// # Panics
/// If `NFGUARD_BIN` is not set.
pub fn path() -> PathBuf {
    path_in("NFGUARD_BIN")
}

/// Returns the command of `nfguard` with these arguments. Start it inside a namespace.
///
/// # Panics
/// As [`path`].
pub fn command<A: AsRef<OsStr>>(arguments: &[A]) -> Command {
    let mut command = Command::new(path());
    command.args(arguments).stdin(Stdio::null());
    for variable in ["NO_COLOR", "CLICOLOR", "CLICOLOR_FORCE"] {
        command.env_remove(variable);
    }
    // No history, unless a test names a folder for one.
    command.env("NFGUARD_STATE_DIR", "");
    command
}

/// Returns the command of an example of the ban library. Start it inside a namespace.
///
/// # Panics
/// If `NFGUARD_EXAMPLES` is not set.
pub fn example(name: &str) -> Command {
    Command::new(path_in("NFGUARD_EXAMPLES").join(name))
}

/// Returns the number of repetitions where the kernel does the work. On an emulated machine the
/// number is a tenth, because its kernel is some twenty times slower.
#[must_use]
pub fn many(count: u32) -> u32 {
    if env::var_os("NFGUARD_EMULATED").is_some() { count / 10 } else { count }
}

/// Returns the time box of a test with many cases. The test first runs the number of cases that its
/// meaning needs, however long they take. The nightly run asks for more cases.
#[must_use]
pub fn time_box() -> Duration {
    Duration::from_secs(if env::var_os("NFGUARD_THOROUGH").is_some() { 60 } else { 15 })
}

fn path_in(variable: &str) -> PathBuf {
    match env::var_os(variable) {
        Some(place) if !place.is_empty() => place.into(),
        _ => panic!("run me with `cargo xtask netns-test`: it sets {variable}"),
    }
}

/// Runs `nfguard` and returns its outcome.
///
/// # Panics
/// If the program does not start.
pub fn nfguard<A: AsRef<OsStr> + Sync>(netns: &Netns, arguments: &[A]) -> Answer {
    netns.run(|| command(arguments).output().expect("nfguard starts").into())
}

/// Runs `nfguard`, which must succeed.
///
/// # Panics
/// If the program does not start, or fails.
#[track_caller]
pub fn succeed<A: AsRef<OsStr> + Sync + std::fmt::Debug>(netns: &Netns, arguments: &[A]) -> Answer {
    let answer = nfguard(netns, arguments);
    assert_eq!(answer.status, Some(0), "{arguments:?}: {answer:?}");
    answer
}

/// Runs `nfguard` with `input` on its standard input.
///
/// # Panics
/// If the program does not start.
pub fn nfguard_fed<A: AsRef<OsStr> + Sync>(netns: &Netns, arguments: &[A], input: &str) -> Answer {
    feed(netns, command(arguments), input.as_bytes())
}

/// Runs a program with `input` on its standard input.
///
/// # Panics
/// If the program does not start.
pub fn feed(netns: &Netns, mut run: Command, input: &[u8]) -> Answer {
    netns.run(|| {
        run.stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(Stdio::piped());
        let mut child = run.spawn().expect("it starts");
        let mut pipe = child.stdin.take().expect("a pipe");
        // A program that has read enough may have ended.
        let _ = pipe.write_all(input);
        drop(pipe);
        child.wait_with_output().expect("it ends").into()
    })
}

/// Runs a command whose standard error is a terminal, and with `out` its standard output too. Returns its
/// exit status, and what it writes there.
///
/// # Panics
/// If there is no terminal, the command does not start, or it writes what is no text.
pub fn on_terminal(netns: &Netns, mut command: Command, out: bool) -> (Option<i32>, String) {
    let flags = OpenptFlags::RDWR | OpenptFlags::NOCTTY | OpenptFlags::CLOEXEC;
    let line = openpt(flags).expect("a terminal");
    unlockpt(&line).expect("ours");
    let end = || ioctl_tiocgptpeer(&line, flags).expect("its end");
    command.env("TERM", "xterm").stderr(end());
    command.stdout(if out { end().into() } else { Stdio::null() });
    let mut child = netns.run(|| command.spawn().expect("it starts"));
    // Otherwise this end of the terminal would stay open.
    drop(command);
    let mut written = Vec::new();
    // The read ends with an error after the other end closes.
    let _ = fs::File::from(line).read_to_end(&mut written);
    let status = child.wait().expect("it ends").code();
    (status, String::from_utf8(written).expect("text"))
}

/// Writes a policy to a new file.
///
/// # Panics
/// If there is no room for it.
#[must_use]
pub fn policy_file(text: &str) -> TempFile {
    TempFile::new("policy.json", text)
}

/// A file that is removed with its value.
#[derive(Debug)]
pub struct TempFile(PathBuf);

impl TempFile {
    /// Writes `text` to a new file whose name ends in `name`.
    ///
    /// # Panics
    /// If there is no room for it.
    pub fn new(name: &str, text: &str) -> TempFile {
        static NEXT: AtomicU32 = AtomicU32::new(0);
        let number = NEXT.fetch_add(1, Ordering::Relaxed);
        let folder = env::temp_dir();
        let path = folder.join(format!("nfguard-{}-{number}-{name}", std::process::id()));
        fs::write(&path, text).expect("the temporary folder is writable");
        TempFile(path)
    }

    /// Returns the path of the file.
    pub fn path(&self) -> &Path {
        &self.0
    }
}

impl AsRef<OsStr> for TempFile {
    fn as_ref(&self) -> &OsStr {
        self.0.as_os_str()
    }
}

impl Drop for TempFile {
    fn drop(&mut self) {
        // A file that stays does no harm.
        let _ = fs::remove_file(&self.0);
    }
}
