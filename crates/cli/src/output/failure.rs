//! Why a verb could not be done, and the exit status that says so.

use std::io::{self, Write as _};
use std::path::Path;
use std::process::ExitCode;

use nfguard_control::Error;
use nfguard_netlink::Error as KernelError;
use serde_json::json;

use crate::output;

/// Why a verb could not be done.
#[derive(Debug)]
pub(crate) enum Failure {
    /// A file could not be read or written.
    File(String, io::Error),
    /// An argument that only makes sense or not with others.
    Usage(String),
    /// A rehearsal could not be set up.
    Rehearsal(io::Error),
    /// What the control plane could not do.
    Control(Error),
}

impl Failure {
    pub(crate) fn file(path: &Path) -> impl FnOnce(io::Error) -> Failure {
        let name = path.display().to_string();
        move |error| Failure::File(name, error)
    }

    pub(crate) fn exit_code(&self) -> ExitCode {
        ExitCode::from(match self {
            Failure::Control(Error::CutsOff(_)) => 1,
            Failure::File(..) | Failure::Usage(_) => 2,
            Failure::Control(Error::File(..) | Error::Policy(..) | Error::Usage(_)) => 2,
            Failure::Control(Error::Kernel(KernelError::Permission)) => 4,
            Failure::Rehearsal(error) if error.kind() == io::ErrorKind::PermissionDenied => 4,
            Failure::Rehearsal(_) | Failure::Control(_) => 3,
        })
    }

    pub(crate) fn print(&self, json: bool) {
        match self {
            Failure::File(name, error) => print(&format!("{name}: {error}"), json),
            Failure::Usage(message) => print(message, json),
            Failure::Rehearsal(error) => print(&error.to_string(), json),
            Failure::Control(error) => print_error(error, json),
        }
    }
}

/// Prints what the control plane could not do.
pub(crate) fn print_error(error: &Error, json: bool) {
    match error {
        Error::Policy(name, problems) => output::problems(name, problems, json),
        error => print(&error.to_string(), json),
    }
}

fn print(message: &str, json: bool) {
    if json {
        output::json(&json!({ "error": message }));
    }
    // Nobody may be left to read it, and the exit status still has to be the right one.
    let _ = writeln!(io::stderr(), "nfguard: {message}");
}

impl<E: Into<Error>> From<E> for Failure {
    fn from(error: E) -> Failure {
        Failure::Control(error.into())
    }
}
