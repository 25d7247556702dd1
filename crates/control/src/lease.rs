//! The lease of the policy's table, which a process takes from the guard before it changes the
//! table.
//!
//! A table that a guard owns can be changed by the guard alone, and what another process changes in a
//! table that it watches, the guard repairs. So a load acquires the lease, changes the table, and
//! releases the lease. Without a guard, there is nothing to wait for.

use std::thread;
use std::time::{Duration, Instant};

use nfguard_api::message::ErrorCode;
pub use nfguard_api::message::Release;
use nfguard_api::{Error as ApiError, GuardClient};
use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;

use crate::{Error, Warn};

/// Longest wait for a guard to answer, and for another client's lease to end. The guard ends each lease
/// before that.
const ACQUIRE_TIMEOUT: Duration = Duration::from_secs(75);
/// Longest wait of a rollback for a guard to answer. A guard that answers later takes the rollback for
/// another program's change.
const ROLLBACK_TIMEOUT: Duration = Duration::from_secs(30);
const RETRY_PAUSE: Duration = Duration::from_millis(20);

/// The lease of the policy's table. It ends when it is released or dropped; a dropped lease has the
/// guard put back what no load has made. Without a guard, none is needed.
#[derive(Debug, Default)]
pub struct Lease(Option<GuardClient>);

/// Acquires the lease from the guard of this network namespace. Waits while another process holds
/// it.
///
/// # Errors
/// The guard does not answer, or another process holds the lease for too long.
pub fn acquire() -> Result<Lease, Error> {
    ask_until_free(ACQUIRE_TIMEOUT).map_err(failed)
}

/// As [`acquire`], for a rollback, which nothing may hold up. Where another process holds the lease, or
/// the guard does not answer, there is none. A guard that is stopped is continued: what it owns cannot
/// be changed beside it.
pub(crate) fn acquire_for_rollback(warn: Warn) -> Lease {
    let lease = match ask(ROLLBACK_TIMEOUT) {
        Err(ApiError::Stopped(guard)) => {
            warn(&format!("process {}, the guard, is stopped, and is continued", guard.process));
            let continued = kill(Pid::from_raw(guard.process), Signal::SIGCONT);
            // It first gives the lease to those who asked before, and have gone.
            let continued = continued.map_err(|errno| ApiError::Io(errno.into()));
            continued.and_then(|()| ask_until_free(ROLLBACK_TIMEOUT))
        }
        asked => asked,
    };
    lease.unwrap_or_else(|error| {
        if !is_busy(&error) {
            warn(&failed(error).to_string());
        }
        Lease(None)
    })
}

fn ask_until_free(time_limit: Duration) -> Result<Lease, ApiError> {
    let start = Instant::now();
    loop {
        let left = time_limit.saturating_sub(start.elapsed());
        match ask(left) {
            Err(error) if is_busy(&error) && !left.is_zero() => thread::sleep(RETRY_PAUSE),
            asked => return asked,
        }
    }
}

/// Asks the guard for the lease. It has this long to answer.
fn ask(time_limit: Duration) -> Result<Lease, ApiError> {
    let Some(mut guard) = GuardClient::of_this_namespace()? else { return Ok(Lease(None)) };
    guard.set_time_limit(Some(time_limit));
    guard.acquire()?;
    guard.set_time_limit(Some(ACQUIRE_TIMEOUT));
    Ok(Lease(Some(guard)))
}

fn is_busy(error: &ApiError) -> bool {
    error.code() == Some(ErrorCode::Busy)
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

fn failed(error: nfguard_api::Error) -> Error {
    Error::Guard(error.to_string())
}
