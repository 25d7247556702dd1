//! Why a conversation failed.

use std::fmt;
use std::io;

use crate::credentials::PeerCredentials;
use crate::message::ErrorCode;

/// Why a request got no answer, or was refused.
#[derive(Debug)]
#[non_exhaustive]
pub enum Error {
    /// The socket failed, or nothing listens there.
    Io(io::Error),
    /// This process at the other end did not answer, or took nothing, within the time limit.
    TimedOut(PeerCredentials),
    /// A signal has stopped the process at the other end, and it did not answer.
    Stopped(PeerCredentials),
    /// The other end closed the connection.
    Closed,
    /// The line is longer than this end reads.
    TooLong,
    /// The line is not the JSON that was expected.
    Malformed(serde_json::Error),
    /// The process at the other end runs neither as root nor as this user.
    Untrusted(PeerCredentials),
    /// The other end refused the request.
    Refused {
        /// The reason, for programs.
        code: ErrorCode,
        /// The reason, for people.
        message: String,
    },
}

impl Error {
    /// Returns the code of a refusal.
    #[must_use]
    pub fn code(&self) -> Option<ErrorCode> {
        match self {
            Error::Refused { code, .. } => Some(*code),
            _ => None,
        }
    }

    /// Whether nothing listens at the address, which is no failure where it need not.
    #[must_use]
    pub fn is_absent(&self) -> bool {
        use io::ErrorKind::{ConnectionRefused, NotADirectory, NotFound};
        let absent = [ConnectionRefused, NotFound, NotADirectory];
        matches!(self, Error::Io(error) if absent.contains(&error.kind()))
    }
}

impl fmt::Display for Error {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Error::Io(error) => error.fmt(f),
            Error::TimedOut(peer) => {
                write!(f, "process {} did not answer within the time limit", peer.process)
            }
            Error::Stopped(peer) => write!(
                f,
                "process {0} is stopped by a signal and does not answer; `kill -CONT {0}` continues it",
                peer.process
            ),
            Error::Closed => f.write_str("the other end closed the connection"),
            Error::TooLong => f.write_str("the line is too long"),
            Error::Malformed(error) => write!(f, "unexpected answer: {error}"),
            Error::Untrusted(peer) => write!(
                f,
                "the socket belongs to process {} of user {}, who is not root",
                peer.process, peer.user
            ),
            Error::Refused { message, .. } => f.write_str(message),
        }
    }
}

impl std::error::Error for Error {
    fn source(&self) -> Option<&(dyn std::error::Error + 'static)> {
        match self {
            Error::Io(error) => Some(error),
            Error::Malformed(error) => Some(error),
            _ => None,
        }
    }
}

impl From<io::Error> for Error {
    fn from(error: io::Error) -> Error {
        match error.kind() {
            io::ErrorKind::BrokenPipe | io::ErrorKind::ConnectionReset => Error::Closed,
            _ => Error::Io(error),
        }
    }
}
