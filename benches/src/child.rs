//! A child process, its time and its memory. It runs in a process of its own, because the kernel
//! reports the largest memory of all children that a process has waited for.

use std::ffi::OsString;
use std::fs::File;
use std::path::Path;
use std::process::{Command, Stdio};
use std::time::{Duration, Instant};

use nfguard_lab::Netns;
use nix::sys::resource::{UsageWho, getrusage};

use crate::Result;

/// The time and memory of a program.
#[derive(Clone, Copy, Debug, Default)]
pub struct Usage {
    /// The time from start to end.
    pub wall: Duration,
    /// The processor time in user space.
    pub user: Duration,
    /// The processor time in the kernel.
    pub system: Duration,
    /// The largest memory in bytes.
    pub memory: u64,
}

/// The first argument of the process that runs [`measure`].
pub const VERB: &str = "child";

/// Runs a program in the namespace, with this file as its input, and returns its usage.
///
/// # Errors
/// The program does not start, or it fails. The error has its output.
pub fn run(netns: &Netns, input: Option<&Path>, command: &[&str]) -> Result<Usage> {
    let mut measuring = Command::new(std::env::current_exe()?);
    measuring.arg(VERB).arg(input.unwrap_or(Path::new("/dev/null"))).args(command);
    let output = netns.run(|| measuring.output())?;
    if !output.status.success() {
        let words = String::from_utf8_lossy(&output.stderr);
        return Err(format!("{}: {}", command.join(" "), words.trim()).into());
    }
    let text = String::from_utf8(output.stdout)?;
    let numbers: Vec<u64> =
        text.split_whitespace().map(str::parse).collect::<std::result::Result<_, _>>()?;
    let [wall, user, system, memory] = *numbers else { return Err("no numbers".into()) };
    let micros = Duration::from_micros;
    Ok(Usage { wall: micros(wall), user: micros(user), system: micros(system), memory })
}

/// Measures a program. The process that [`run`] starts calls this function.
///
/// # Errors
/// As [`run`].
pub fn measure(arguments: &[OsString]) -> Result<String> {
    let [input, program, arguments @ ..] = arguments else { return Err("no program".into()) };
    let start = Instant::now();
    let output = Command::new(program)
        .args(arguments)
        .stdin(File::open(input)?)
        .stdout(Stdio::null())
        .output()
        .map_err(|error| format!("{}: {error}", program.display()))?;
    let wall = start.elapsed();
    if !output.status.success() {
        return Err(String::from_utf8_lossy(&output.stderr).into());
    }
    let usage = getrusage(UsageWho::RUSAGE_CHILDREN)?;
    let micros = |time: nix::sys::time::TimeVal| time.tv_sec() * 1_000_000 + time.tv_usec();
    Ok(format!(
        "{} {} {} {}",
        wall.as_micros(),
        micros(usage.user_time()),
        micros(usage.system_time()),
        usage.max_rss() * 1024
    ))
}
