//! The lease of the policy's table, which the guard gives to a process that changes it.
//!
//! A table that is owned can be changed by its owner alone, and a guard repairs what it sees changed.
//! So a load acquires the lease first, and releases it afterwards.

use std::io::{self, BufRead as _, BufReader, ErrorKind, Write as _};
use std::os::linux::net::SocketAddrExt as _;
use std::os::unix::net::{SocketAddr, UnixStream};
use std::thread;
use std::time::{Duration, Instant};

pub use nfguard_api::message::Release;
use nix::sys::socket::{getsockopt, sockopt::PeerCredentials};
use serde_json::{Value, json};

use crate::Error;
use crate::Warn;
use nfguard_api::local_socket::is_trusted;

/// In the abstract namespace: the name belongs to the network namespace, as the tables do, and there
/// is at most one guard in each.
const NAME: &str = "nfguard/guard";

/// How long the guard has to answer, and how long another process may hold the lease.
const LEASE_TIMEOUT: Duration = Duration::from_secs(60);
const PAUSE: Duration = Duration::from_millis(20);

/// The right to change the policy's table, until this is dropped. Where there is no guard, it needs
/// none.
#[derive(Default)]
pub struct Lease(Option<BufReader<UnixStream>>);

/// Acquires the lease of the guard of this network namespace, if there is one. Waits while another
/// process holds it.
///
/// # Errors
/// If the guard does not answer, or another process holds the lease for too long.
pub fn acquire(warn: Warn) -> Result<Lease, Error> {
    let start = Instant::now();
    loop {
        if let Some(lease) = try_acquire(warn)? {
            return Ok(lease);
        }
        if start.elapsed() > LEASE_TIMEOUT {
            return Err(Error::Guard("another process changes the policy".to_owned()));
        }
        thread::sleep(PAUSE);
    }
}

/// As [`acquire`]; `None` if another process holds the lease, which can be changing the table now.
pub(crate) fn try_acquire(warn: Warn) -> Result<Option<Lease>, Error> {
    let failed = |error: io::Error| Error::Guard(error.to_string());
    let Some(mut guard) = find(warn).map_err(failed)? else { return Ok(Some(Lease(None))) };
    let answer = ask(&mut guard, &json!({ "op": "borrow" })).map_err(failed)?;
    Ok((answer["ok"] == true).then_some(Lease(Some(guard))))
}

impl Lease {
    /// Gives the lease back, and waits until the guard guards the table again.
    ///
    /// # Errors
    /// If the guard cannot take the table back, or does not answer.
    pub fn release(self, release: Release) -> Result<(), Error> {
        let Some(mut guard) = self.0 else { return Ok(()) };
        let (removed, as_is) = match release {
            Release::Loaded => (Vec::new(), false),
            Release::AsFound => (Vec::new(), true),
            Release::Removed(tables) => (tables, false),
        };
        let request = json!({ "op": "return", "removed": removed, "as_is": as_is });
        let answer = ask(&mut guard, &request).map_err(|error| Error::Guard(error.to_string()))?;
        match answer["error"].as_str() {
            None => Ok(()),
            Some(error) => Err(Error::Guard(error.to_owned())),
        }
    }
}

fn ask(guard: &mut BufReader<UnixStream>, request: &Value) -> io::Result<Value> {
    guard.get_mut().write_all(format!("{request}\n").as_bytes())?;
    let mut line = String::new();
    guard.read_line(&mut line)?;
    Ok(serde_json::from_str(&line)?)
}

/// The guard of this network namespace.
pub(crate) fn find(warn: Warn) -> io::Result<Option<BufReader<UnixStream>>> {
    let stream = match UnixStream::connect_addr(&address()?) {
        Err(error) if error.kind() == ErrorKind::ConnectionRefused => return Ok(None),
        stream => stream?,
    };
    stream.set_read_timeout(Some(LEASE_TIMEOUT))?;
    stream.set_write_timeout(Some(LEASE_TIMEOUT))?;
    let peer = getsockopt(&stream, PeerCredentials)?;
    if !is_trusted(peer.uid()) {
        // As the name is taken, there is no guard.
        warn(&format!(
            "process {} of user {}, who is not root, pretends to be the guard, and is not asked",
            peer.pid(),
            peer.uid()
        ));
        return Ok(None);
    }
    Ok(Some(BufReader::new(stream)))
}

pub(crate) fn address() -> io::Result<SocketAddr> {
    SocketAddr::from_abstract_name(NAME)
}
