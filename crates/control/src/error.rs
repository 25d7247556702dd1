//! Why something could not be done.

use std::io;
use std::path::Path;

use nfguard_policy::{Problem, Severity};

/// Why something could not be done.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum Error {
    /// A file could not be read or written.
    #[error("{0}: {1}")]
    File(String, #[source] io::Error),
    /// A policy with mistakes: its name and all of them, warnings too.
    #[error("{0}: {count} errors", count = errors(.1))]
    Policy(String, Vec<Problem>),
    /// An argument that only makes sense or not with others.
    #[error("{0}")]
    Usage(String),
    /// The load would cut the way by which its operator came in.
    #[error(
        "nothing was loaded, for it would cut the way that you came in by: {0}. `--force` loads it \
         all the same, best together with `--confirm`"
    )]
    CutsOff(String),
    /// The process that holds the way back from a load.
    #[error("the way back: {0}")]
    WayBack(String),
    /// The guard, or the way to it.
    #[error("the guard: {0}")]
    Guard(String),
    /// Bans that could not be made or read.
    #[error("{0}")]
    Bans(nfguard_ban::Error),
    /// The kernel, or the way to it.
    #[error("{0}")]
    Kernel(nfguard_netlink::Error),
}

fn errors(problems: &[Problem]) -> usize {
    problems.iter().filter(|problem| problem.severity == Severity::Error).count()
}

impl Error {
    /// Makes an error of this file of an error of input or output.
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
            Bans::NeverBanned(_)
            | Bans::InvalidFeedName { .. }
            | Bans::EmptyFeed { .. }
            | Bans::TooManyEntries { .. } => Error::Usage(error.to_string()),
            error => Error::Bans(error),
        }
    }
}

impl From<nfguard_netlink::Error> for Error {
    fn from(error: nfguard_netlink::Error) -> Error {
        Error::Kernel(error)
    }
}
