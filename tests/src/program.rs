//! The `nfguard` program, run inside a namespace.

use std::ffi::OsStr;
use std::io::Write as _;
use std::path::{Path, PathBuf};
use std::process::{Command, Output, Stdio};
use std::sync::atomic::{AtomicU32, Ordering};
use std::{env, fs};

use nfguard_lab::Netns;

/// What a run of `nfguard` said.
#[derive(Debug)]
pub struct Answer {
    /// Its exit status; `None` if a signal ended it.
    pub status: Option<i32>,
    /// Data.
    pub stdout: String,
    /// Warnings and errors.
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

/// Where `nfguard` is.
///
/// # Panics
/// If nobody has said so.
pub fn path() -> PathBuf {
    told("NFGUARD_BIN")
}

/// `nfguard` with these arguments, not started yet. Start it inside a namespace.
///
/// # Panics
/// If nobody has said where `nfguard` is.
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

/// An example of the ban library, not started yet. Start it inside a namespace.
///
/// # Panics
/// If nobody has said where they are.
pub fn example(name: &str) -> Command {
    Command::new(told("NFGUARD_EXAMPLES").join(name))
}

fn told(variable: &str) -> PathBuf {
    match env::var_os(variable) {
        Some(place) if !place.is_empty() => place.into(),
        _ => panic!("run me with `cargo xtask netns-test`: it sets {variable}"),
    }
}

/// Runs `nfguard` to its end.
///
/// # Panics
/// If it does not start.
pub fn nfguard<A: AsRef<OsStr> + Sync>(netns: &Netns, arguments: &[A]) -> Answer {
    netns.run(|| command(arguments).output().expect("nfguard starts").into())
}

/// Runs `nfguard` to its end with this on its standard input.
///
/// # Panics
/// If it does not start.
pub fn nfguard_fed<A: AsRef<OsStr> + Sync>(netns: &Netns, arguments: &[A], input: &str) -> Answer {
    feed(netns, command(arguments), input.as_bytes())
}

/// Runs a program to its end with this on its standard input.
///
/// # Panics
/// If it does not start.
pub fn feed(netns: &Netns, mut run: Command, input: &[u8]) -> Answer {
    netns.run(|| {
        run.stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(Stdio::piped());
        let mut child = run.spawn().expect("it starts");
        let mut pipe = child.stdin.take().expect("a pipe");
        // One that has read enough may be gone.
        let _ = pipe.write_all(input);
        drop(pipe);
        child.wait_with_output().expect("it ends").into()
    })
}

/// A file that goes when its value goes.
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

    /// Where it is.
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
        // Nobody is hurt by a file that stays.
        let _ = fs::remove_file(&self.0);
    }
}
