//! Why a verb could not be done, and the exit status that says so.

use std::io::{self, Write as _};
use std::path::Path;
use std::process::ExitCode;

use nfguard_netlink::Error;
use nfguard_policy::Problem;
use serde_json::json;

use crate::output;

/// Why a verb could not be done.
#[derive(Debug)]
pub(crate) enum Failure {
    /// A file could not be read or written.
    File(String, io::Error),
    /// A policy with mistakes: its name and all of them, warnings too.
    Policy(String, Vec<Problem>),
    /// An argument that only makes sense or not with others.
    Usage(String),
    /// The load would cut the way by which its operator came in.
    CutsOff(String),
    /// The process that holds the way back from a load.
    WayBack(String),
    /// The guard, or the way to it.
    Guard(String),
    /// A rehearsal could not be set up.
    Rehearsal(io::Error),
    /// Bans that could not be made or read.
    Bans(nfguard_ban::Error),
    /// The kernel, or the way to it.
    Kernel(Error),
}

impl Failure {
    pub(crate) fn file(path: &Path) -> impl FnOnce(io::Error) -> Failure {
        let name = path.display().to_string();
        move |error| Failure::File(name, error)
    }

    pub(crate) fn exit_code(&self) -> ExitCode {
        ExitCode::from(match self {
            Failure::CutsOff(_) => 1,
            Failure::File(..) | Failure::Policy(..) | Failure::Usage(_) => 2,
            Failure::Kernel(Error::Permission) => 4,
            Failure::Rehearsal(error) if error.kind() == io::ErrorKind::PermissionDenied => 4,
            Failure::Bans(_)
            | Failure::Kernel(_)
            | Failure::Rehearsal(_)
            | Failure::WayBack(_)
            | Failure::Guard(_) => 3,
        })
    }

    pub(crate) fn print(&self, json: bool) {
        if let Failure::Policy(name, problems) = self {
            return output::problems(name, problems, json);
        }
        let message = match self {
            Failure::File(name, error) => format!("{name}: {error}"),
            Failure::Usage(message) => message.clone(),
            Failure::CutsOff(why) => format!(
                "nothing was loaded, for it would cut the way that you came in by: {why}. `--force` \
                 loads it all the same, best together with `--confirm`"
            ),
            Failure::WayBack(why) => format!("the way back: {why}"),
            Failure::Guard(why) => format!("the guard: {why}"),
            Failure::Rehearsal(error) => error.to_string(),
            Failure::Bans(error) => error.to_string(),
            Failure::Kernel(error) => error.to_string(),
            Failure::Policy(..) => String::new(),
        };
        if json {
            output::json(&json!({ "error": message }));
        }
        // Nobody may be left to read it, and the exit status still has to be the right one.
        let _ = writeln!(io::stderr(), "nfguard: {message}");
    }
}

impl From<nfguard_ban::Error> for Failure {
    fn from(error: nfguard_ban::Error) -> Failure {
        use nfguard_ban::Error;
        match error {
            Error::Kernel(error) => Failure::Kernel(error),
            Error::NeverBanned(_)
            | Error::FeedName { .. }
            | Error::EmptyFeed { .. }
            | Error::ManyAllies { .. } => Failure::Usage(error.to_string()),
            error => Failure::Bans(error),
        }
    }
}

impl From<Error> for Failure {
    fn from(error: Error) -> Failure {
        Failure::Kernel(error)
    }
}
