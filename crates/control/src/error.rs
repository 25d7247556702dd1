//! Errors of the control plane.

use std::io;
use std::path::Path;

use nfguard_policy::{Problem, Severity};

use crate::lockout::Obstacle;

/// An error of the control plane.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum Error {
    /// A file could not be read or written.
    #[error("{0}: {1}")]
    File(String, #[source] io::Error),
    /// The problems of a policy with errors: its name and all problems, warnings included.
    #[error("{0}: {count} errors", count = errors(.1))]
    Policy(String, Vec<Problem>),
    /// Bad usage or bad input.
    #[error("{0}")]
    Usage(String),
    /// The load would lock out its operator, or nothing says whether it would.
    #[error("nothing was loaded: {0}. `--force` loads it anyway; use it together with `--confirm`")]
    Lockout(Obstacle),
    /// The rollback of a load, or its watchdog.
    #[error("rollback: {0}")]
    Rollback(String),
    /// The guard, or the connection to it.
    #[error("guard: {0}")]
    Guard(String),
    /// The bans.
    #[error("{0}")]
    Bans(nfguard_ban::Error),
    /// The kernel, or the connection to it.
    #[error("{0}")]
    Kernel(nfguard_netlink::Error),
}

fn errors(problems: &[Problem]) -> usize {
    problems.iter().filter(|problem| problem.severity == Severity::Error).count()
}

impl Error {
    /// Returns a function that turns an I/O error of this file into an error.
    pub fn file(path: &Path) -> impl FnOnce(io::Error) -> Error {
        let name = path.display().to_string();
        move |error| Error::File(name, error)
    }
}

impl From<nfguard_ban::Error> for Error {
    fn from(error: nfguard_ban::Error) -> Error {
        use nfguard_ban::Error as Bans;
        match error {
            Bans::Kernel(error) => Error::Kernel(error),
            Bans::NeverBanned(_) | Bans::InvalidFeedName { .. } | Bans::TooManyEntries { .. } => {
                Error::Usage(error.to_string())
            }
            error => Error::Bans(error),
        }
    }
}

impl From<nfguard_netlink::Error> for Error {
    fn from(error: nfguard_netlink::Error) -> Error {
        Error::Kernel(error)
    }
}
