//! Asking the guard for the policy's table before it is changed.
//!
//! Nobody but its owner can change a table that is owned, and what a guard sees changed it repairs.
//! So whoever loads asks first, does what he always does, and gives the table back.

use std::io::{self, BufRead as _, BufReader, ErrorKind, Write as _};
use std::os::linux::net::SocketAddrExt as _;
use std::os::unix::net::{SocketAddr, UnixStream};
use std::thread;
use std::time::{Duration, Instant};

use nix::sys::socket::{getsockopt, sockopt::PeerCredentials};
use serde_json::{Value, json};

use crate::Error;
use crate::Warn;
use crate::local_socket::is_trusted;

/// In the abstract namespace: the name belongs to the network namespace, as the tables do, and there
/// is at most one guard in each.
const NAME: &str = "nfguard/guard";

/// How long the guard has to answer, and how long another one may have the table.
const PATIENCE: Duration = Duration::from_secs(60);
const PAUSE: Duration = Duration::from_millis(20);

/// A table that the guard has let go of, until this is dropped; or there is no guard.
pub struct Lent(Option<BufReader<UnixStream>>);

/// Asks the guard of this network namespace, if there is one, to let go.
pub fn borrow(warn: Warn) -> Result<Lent, Error> {
    let since = Instant::now();
    loop {
        if let Some(lent) = try_borrow(warn)? {
            return Ok(lent);
        }
        if since.elapsed() > PATIENCE {
            return Err(Error::Guard("somebody else changes the policy".to_owned()));
        }
        thread::sleep(PAUSE);
    }
}

/// As [`borrow`]; `None` if somebody else has the table, who can be changing it now.
pub(crate) fn try_borrow(warn: Warn) -> Result<Option<Lent>, Error> {
    let failed = |error: io::Error| Error::Guard(error.to_string());
    let Some(mut guard) = find(warn).map_err(failed)? else { return Ok(Some(Lent(None))) };
    let answer = ask(&mut guard, &json!({ "op": "borrow" })).map_err(failed)?;
    Ok((answer["ok"] == true).then_some(Lent(Some(guard))))
}

impl Lent {
    /// Gives it back, and waits until it is guarded again. Tables that were removed on purpose are
    /// not put back. `as_is`: what is there is meant, even if no load has made it so.
    pub fn give_back(self, removed: &[String], as_is: bool) -> Result<(), Error> {
        let Some(mut guard) = self.0 else { return Ok(()) };
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
    stream.set_read_timeout(Some(PATIENCE))?;
    stream.set_write_timeout(Some(PATIENCE))?;
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
