//! The SSH session that this process was started from.

use std::env;
use std::fmt;
use std::fs;
use std::iter;
use std::net::IpAddr;
use std::os::unix::process::parent_id;
use std::str::FromStr;

use crate::tcp::{TcpConnection, parse_address};

/// What sshd sets: the peer's address and port, then the host's. A very old sshd sets only
/// `SSH_CLIENT`: the peer's address and port, then the host's port.
const VARIABLES: [&str; 2] = ["SSH_CONNECTION", "SSH_CLIENT"];

/// What sshd writes for the port of a socket that has none.
const UNKNOWN_PORT: u16 = 65_535;

/// An SSH session: who came, and by which connection.
///
/// Read it once, with [`SshSession::of_this_process`], and hand it around: the search walks through
/// `/proc`.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct SshSession {
    /// The address that the session comes from.
    pub peer: IpAddr,
    /// The connection of the session; `None` if sshd named only the peer.
    pub connection: Option<TcpConnection>,
    /// The port of this host that the session came to; `None` if sshd did not name it.
    pub local_port: Option<u16>,
}

/// A text that names no SSH session.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct InvalidSession(String);

impl SshSession {
    /// Returns the SSH session that this process was started from; `None` if there is none.
    ///
    /// The session is looked for in the environment of this process, and then of each ancestor:
    /// `sudo` keeps the variable from its child. The nearest process whose variable has a text
    /// decides.
    ///
    /// # Errors
    /// There is a session, and its text names no peer. sshd writes such a text for a session that
    /// comes by a pipe, a vsock or a Unix socket.
    pub fn of_this_process() -> Result<Option<SshSession>, InvalidSession> {
        let own = VARIABLES.iter().find_map(env::var_os);
        let own = own.map(|text| text.to_string_lossy().into_owned());
        match nearest(own.into_iter().chain(ancestors().filter_map(text_of))) {
            Some(text) => text.parse().map(Some),
            None => Ok(None),
        }
    }
}

/// Returns the first text that is not empty, else an empty one if there is one.
fn nearest(texts: impl Iterator<Item = String>) -> Option<String> {
    let mut empty = None;
    for text in texts {
        if !text.is_empty() {
            return Some(text);
        }
        empty = Some(text);
    }
    empty
}

/// Returns the numbers of this process's ancestors, the nearest first.
pub(crate) fn ancestors() -> impl Iterator<Item = u32> {
    iter::successors(Some(parent_id()), |process| {
        // A program's name may be in any encoding.
        let stat = fs::read(format!("/proc/{process}/stat")).unwrap_or_default();
        parent_in(&String::from_utf8_lossy(&stat))
    })
}

/// Returns the text of a session in the environment of a process. Another user's environment cannot be
/// read; its parent may be ours again.
fn text_of(process: u32) -> Option<String> {
    in_environment(&fs::read(format!("/proc/{process}/environ")).ok()?)
}

/// Finds the session's text among NUL-terminated variables.
pub(crate) fn in_environment(environment: &[u8]) -> Option<String> {
    let environment = String::from_utf8_lossy(environment);
    let value = |name: &str| {
        let of_variable = |variable: &str| {
            let value = variable.strip_prefix(name)?.strip_prefix('=')?;
            Some(value.to_owned())
        };
        environment.split('\0').find_map(of_variable)
    };
    VARIABLES.iter().find_map(|name| value(name))
}

/// Parses the parent's number out of `/proc/PID/stat` (proc_pid_stat(5)). The second field is the
/// program's name in parentheses, which may itself hold spaces and parentheses.
fn parent_in(stat: &str) -> Option<u32> {
    let (_, fields) = stat.rsplit_once(')')?;
    fields.split_whitespace().nth(1)?.parse().ok()
}

/// Parses what sshd writes into `SSH_CONNECTION` or `SSH_CLIENT`.
impl FromStr for SshSession {
    type Err = InvalidSession;

    fn from_str(text: &str) -> Result<SshSession, InvalidSession> {
        let peer = text.split(' ').next().and_then(parse_address);
        let peer = peer.ok_or_else(|| InvalidSession(text.to_owned()))?;
        let connection: Option<TcpConnection> = text.parse().ok();
        let local_port = match text.split_whitespace().collect::<Vec<_>>()[..] {
            [_, _, port] => port.parse().ok().filter(|port| *port != UNKNOWN_PORT),
            _ => connection.map(|connection| connection.local.port()),
        };
        Ok(SshSession { peer, connection, local_port })
    }
}

impl fmt::Display for InvalidSession {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let InvalidSession(text) = self;
        write!(
            f,
            "{text:?} is no SSH session; expected the text of SSH_CONNECTION, such as \
             \"203.0.113.9 50000 198.51.100.2 22\""
        )
    }
}

impl std::error::Error for InvalidSession {}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_ssh_session_is_found_in_the_environment_that_sshd_made() {
        let both = b"HOME=/root\0SSH_CLIENT=192.0.2.9 50000 22\0\
                     SSH_CONNECTION=192.0.2.9 50000 192.0.2.1 22\0";
        assert_eq!(in_environment(both).as_deref(), Some("192.0.2.9 50000 192.0.2.1 22"));
        let old = b"SSH_CLIENT=2001:db8::9 50000 22\0MY_SSH_CONNECTION=192.0.2.7 1 1 1\0";
        assert_eq!(in_environment(old).as_deref(), Some("2001:db8::9 50000 22"));
        let empty = in_environment(b"HOME=/root\0SSH_CONNECTION=\0");
        assert_eq!(empty.as_deref(), Some(""));
        assert_eq!(in_environment(b"HOME=/root\0"), None);
    }

    #[test]
    fn an_empty_text_counts_only_where_no_ancestor_has_another() {
        let of = |texts: &[&str]| nearest(texts.iter().map(|text| (*text).to_owned()));
        assert_eq!(
            of(&["", "UNKNOWN 65535 UNKNOWN 65535", "x"]).as_deref(),
            Some("UNKNOWN 65535 UNKNOWN 65535")
        );
        assert_eq!(of(&["", ""]).as_deref(), Some(""));
        assert_eq!(of(&[]), None);
    }

    #[test]
    fn a_session_has_a_peer_and_a_connection_if_both_ends_are_named() {
        let session: SshSession = "::ffff:192.0.2.9 50000 192.0.2.1 22".parse().expect("a session");
        assert_eq!(session.peer, IpAddr::from([192, 0, 2, 9]));
        let connection = session.connection.expect("both ends");
        assert_eq!(connection.to_string(), "192.0.2.9 50000 192.0.2.1 22");
        let local: SshSession = "fe80::9%eth0 50000 22".parse().expect("a session");
        assert_eq!((local.peer.to_string().as_str(), local.connection), ("fe80::9", None));
        assert_eq!((session.local_port, local.local_port), (Some(22), Some(22)));
        let half: SshSession = "192.0.2.9 50000 UNKNOWN 65535".parse().expect("a peer");
        assert_eq!((half.connection, half.local_port), (None, None));
        for text in ["somewhere", "", " ", "UNKNOWN 65535 UNKNOWN 65535", "UNKNOWN 65535 65535"] {
            let error = text.parse::<SshSession>().expect_err("no address").to_string();
            assert!(error.contains("expected the text of SSH_CONNECTION"), "{error}");
        }
    }

    #[test]
    fn a_parent_is_found_behind_any_program_name() {
        assert_eq!(parent_in("7 (a) R 1 (b)) S 42 7 7 0 -1"), Some(42));
        let stat = fs::read_to_string("/proc/self/stat").expect("/proc tells");
        assert_eq!(parent_in(&stat), Some(parent_id()));
    }
}
