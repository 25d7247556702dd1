//! The lease of the policy's table, which a process takes from the guard before it changes the
//! table.
//!
//! A table that a guard owns can be changed by the guard alone, and what another process changes in a
//! table that it watches, the guard repairs. So a load acquires the lease, changes the table, and
//! releases the lease. Without a guard, there is nothing to wait for.

use std::thread;
use std::time::{Duration, Instant};

use nfguard_api::GuardClient;
use nfguard_api::message::ErrorCode;
pub use nfguard_api::message::Release;

use crate::{Error, Warn};

/// Longest wait for another client's lease to end.
const ACQUIRE_TIMEOUT: Duration = Duration::from_secs(60);
const RETRY_PAUSE: Duration = Duration::from_millis(20);

/// The lease of the policy's table. It ends when it is released or dropped; a dropped lease has the
/// guard put back what no load has made. Without a guard, none is needed.
#[derive(Debug, Default)]
pub struct Lease(Option<GuardClient>);

/// Acquires the lease from the guard of this network namespace. Waits while another process holds
/// it.
///
/// # Errors
/// The guard does not answer, or another process holds the lease for a minute.
pub fn acquire(warn: Warn) -> Result<Lease, Error> {
    let start = Instant::now();
    loop {
        if let Some(lease) = try_acquire(warn)? {
            return Ok(lease);
        }
        if start.elapsed() > ACQUIRE_TIMEOUT {
            return Err(Error::Guard("another process changes the policy".to_owned()));
        }
        thread::sleep(RETRY_PAUSE);
    }
}

/// Acquires the lease; `None` if another process holds it, which may be changing the table now.
pub(crate) fn try_acquire(warn: Warn) -> Result<Option<Lease>, Error> {
    let Some(mut guard) = find_guard(warn)? else { return Ok(Some(Lease(None))) };
    match guard.acquire() {
        Ok(()) => Ok(Some(Lease(Some(guard)))),
        Err(error) if error.code() == Some(ErrorCode::Busy) => Ok(None),
        Err(error) => Err(failed(error)),
    }
}

impl Lease {
    /// Releases the lease, and waits until the guard guards the table again.
    ///
    /// # Errors
    /// The guard cannot take the table back, or does not answer.
    pub fn release(mut self, tables: Release) -> Result<(), Error> {
        self.try_release(tables).map(drop)
    }

    /// As [`Lease::release`]; `false` if the table is not the one that was put in. Then the lease is
    /// still held.
    pub(crate) fn try_release(&mut self, tables: Release) -> Result<bool, Error> {
        let Some(guard) = &mut self.0 else { return Ok(true) };
        match guard.release(tables) {
            Ok(()) => Ok(true),
            Err(error) if error.code() == Some(ErrorCode::TableChanged) => Ok(false),
            Err(error) => Err(failed(error)),
        }
    }
}

/// Connects to the guard of this network namespace, if there is one.
pub(crate) fn find_guard(warn: Warn) -> Result<Option<GuardClient>, Error> {
    match GuardClient::of_this_namespace() {
        Err(nfguard_api::Error::Untrusted(peer)) => {
            // A guard could not listen under this name, so there is none.
            warn(&format!(
                "process {} of user {}, who is not root, pretends to be the guard, and is not asked",
                peer.process, peer.user
            ));
            Ok(None)
        }
        found => found.map_err(failed),
    }
}

fn failed(error: nfguard_api::Error) -> Error {
    Error::Guard(error.to_string())
}
