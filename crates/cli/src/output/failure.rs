//! Failures of a verb, and their exit status.

use std::io;
use std::path::Path;
use std::process::ExitCode;

use nfguard_control::Error;
use nfguard_netlink::Error as KernelError;
use nfguard_netlink::comment::one_line;
use serde_json::json;

use crate::output;

/// Why a verb failed.
#[derive(Debug)]
pub(crate) enum Failure {
    /// A file could not be read or written.
    File(String, io::Error),
    /// Bad usage or bad input.
    Usage(String),
    /// `try` could not create its network namespaces.
    Try(io::Error),
    /// The control plane failed.
    Control(Error),
}

impl Failure {
    pub(crate) fn file(path: &Path) -> impl FnOnce(io::Error) -> Failure {
        let name = path.display().to_string();
        move |error| Failure::File(name, error)
    }

    pub(crate) fn exit_code(&self) -> ExitCode {
        ExitCode::from(match self {
            Failure::Control(Error::Lockout(_)) => 1,
            Failure::File(..) | Failure::Usage(_) => 2,
            Failure::Control(Error::File(..) | Error::Policy(..) | Error::Usage(_)) => 2,
            Failure::Control(Error::Kernel(KernelError::Permission)) => 4,
            Failure::Try(error) if error.kind() == io::ErrorKind::PermissionDenied => 4,
            Failure::Try(_) | Failure::Control(_) => 3,
        })
    }

    pub(crate) fn print(&self, json: bool) {
        match self {
            Failure::File(name, error) => print(&format!("{name}: {error}"), json),
            Failure::Usage(message) => print_lines(message, message, json),
            Failure::Try(error) => print(&error.to_string(), json),
            Failure::Control(error) => print_error(error, json),
        }
    }
}

/// Prints an error of the control plane.
pub(crate) fn print_error(error: &Error, json: bool) {
    match error {
        Error::Policy(name, problems) => output::problems(name, problems, json),
        error => print(&error.to_string(), json),
    }
}

fn print(message: &str, json: bool) {
    print_lines(message, &one_line(message), json);
}

/// Prints a message that may have several lines: a list of problems.
fn print_lines(message: &str, lines: &str, json: bool) {
    if json {
        output::json(&json!({ "error": message }));
    }
    output::to_stderr(output::PLAIN, &format!("nfguard: {lines}"));
}

impl<E: Into<Error>> From<E> for Failure {
    fn from(error: E) -> Failure {
        Failure::Control(error.into())
    }
}
