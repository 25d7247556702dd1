//! Starts the watchdog where nothing that ends the loader ends it too.

use std::env;
use std::fs;
use std::path::Path;
use std::process::{Command, Stdio};
use std::time::Duration;

use nix::unistd::setsid;

use nfguard_api::local_socket::VARIABLE as RUN_DIR;

use crate::Error;
use crate::child;
use crate::history::{History, VARIABLE};

/// The hidden verb.
const VERB: &str = "watchdog";

/// Longest wait for another program to start the watchdog.
const START_TIMEOUT: Duration = Duration::from_secs(10);

/// This program, even if its file was replaced or removed meanwhile.
const MYSELF: &str = "/proc/self/exe";

/// Starts a watchdog, which then waits for a loader. Under systemd it is a unit of its own: logind may
/// end all that a session has started. Elsewhere it is a process with a session of its own.
pub(super) fn start(history: &History) -> Result<(), Error> {
    if is_under_systemd() {
        match unit(history) {
            Ok(()) => return Ok(()),
            Err(why) => (history.warn)(&format!(
                "the watchdog is no systemd unit but a process of its own, and may end with this \
                 session: {why}"
            )),
        }
    }
    // Behind a process that ends at once: then the loader is not its parent.
    let mut command = Command::new(MYSELF);
    command.args([VERB, "--session"]).env(VARIABLE, history.variable());
    let failed = |why: String| Error::Rollback(format!("the watchdog does not start: {why}"));
    match child::output(quiet(&mut command), START_TIMEOUT) {
        Ok(output) if output.status.success() => Ok(()),
        Ok(output) => Err(failed(output.status.to_string())),
        Err(error) => Err(failed(error.to_string())),
    }
}

/// Leaves the loader's session and terminal, and starts the watchdog. The watchdog does not lead the
/// new session, so it cannot get a terminal any more.
///
/// # Errors
/// If it cannot leave, or start.
pub fn start_in_new_session() -> Result<(), Error> {
    let failed = |error: std::io::Error| Error::Rollback(error.to_string());
    setsid().map_err(|errno| failed(errno.into()))?;
    quiet(Command::new(MYSELF).arg(VERB)).spawn().map_err(failed)?;
    Ok(())
}

fn quiet(command: &mut Command) -> &mut Command {
    command.current_dir("/").stdin(Stdio::null()).stdout(Stdio::null()).stderr(Stdio::null())
}

/// Whether systemd runs, and would start a unit in this network namespace.
fn is_under_systemd() -> bool {
    let namespace = |process: &str| fs::read_link(format!("/proc/{process}/ns/net")).ok();
    Path::new("/run/systemd/system").is_dir()
        && namespace("self").is_some_and(|own| namespace("1") == Some(own))
}

fn unit(history: &History) -> Result<(), String> {
    let myself = env::current_exe().map_err(|error| error.to_string())?;
    let mut command = Command::new("systemd-run");
    command.args(["--quiet", "--collect", "--no-ask-password", "--service-type=exec"]);
    command.arg(format!("--unit=nfguard-watchdog-{}", std::process::id()));
    command.arg("--description=Rolls back rules that were not confirmed");
    command.arg(format!("--setenv={VARIABLE}={}", history.variable().display()));
    command.arg("--property=OOMScoreAdjust=-1000");
    if let Some(folder) = env::var_os(RUN_DIR) {
        command.arg(format!("--setenv={RUN_DIR}={}", folder.display()));
    }
    command.arg("--").arg(myself).arg(VERB);
    let output = child::output(&mut command, START_TIMEOUT)
        .map_err(|error| format!("systemd-run: {error}"))?;
    if output.status.success() {
        return Ok(());
    }
    Err(format!("systemd-run: {}", String::from_utf8_lossy(&output.stderr).trim()))
}
