//! Who is at the other end of a local socket.

use std::fs;
use std::io;
use std::os::fd::AsFd;

use rustix::net::sockopt;

/// The process at the other end of a connection, when it connected or began to listen.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct PeerCredentials {
    /// Its number.
    pub process: i32,
    /// Its user.
    pub user: u32,
    /// Its first group. The kernel does not say which other groups it is in.
    pub group: u32,
}

/// Tells whether a signal has stopped this process. It may go on at any moment.
#[must_use]
pub fn is_stopped(process: i32) -> bool {
    let stat = fs::read(format!("/proc/{process}/stat")).unwrap_or_default();
    // The process chooses its own name, which stands in parentheses before its state.
    stat.rsplit(|byte| *byte == b')').next().is_some_and(|rest| rest.starts_with(b" T "))
}

/// Returns the process at the other end.
///
/// # Errors
/// The socket is not a Unix stream socket.
pub fn peer_credentials(socket: impl AsFd) -> io::Result<PeerCredentials> {
    let peer = sockopt::socket_peercred(socket)?;
    Ok(PeerCredentials {
        process: peer.pid.as_raw_pid(),
        user: peer.uid.as_raw(),
        group: peer.gid.as_raw(),
    })
}

/// Whether a user may give orders here, and may be given any: root, and the user of this process.
/// What listens at a path that was given may be another user's.
#[must_use]
pub fn is_trusted(user: u32) -> bool {
    user == 0 || user == rustix::process::geteuid().as_raw()
}
