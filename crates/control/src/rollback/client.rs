//! How the watchdog is spoken to.

use std::thread;
use std::time::{Duration, Instant};

use nfguard_api::Error as ApiError;
use nfguard_api::local_socket::{self, Connection, LocalAddress};
use nfguard_api::message::ErrorCode;
use nfguard_api::message::watchdog::{Proof, WatchdogRequest, WatchdogResponse};

use super::snapshot::Snapshot;
use super::spawn;
use crate::Error;
use crate::history::History;
use nfguard_host::TcpConnection;

/// How long the watchdog has to answer: it may be putting rules back meanwhile.
const REQUEST_TIMEOUT: Duration = Duration::from_secs(60);
/// How long it has to say how much time is left, which those who only look wait for.
const LOOK_TIMEOUT: Duration = Duration::from_secs(5);
/// How long the watchdog may take to start.
const START_TIMEOUT: Duration = Duration::from_secs(20);
/// How often it is looked for until then.
pub(super) const RETRY_PAUSE: Duration = Duration::from_millis(5);

/// What came of an attempt to confirm.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Confirmed {
    /// The load is confirmed, with this proof.
    Yes(Proof),
    /// The rules from before are back already.
    TooLate,
    /// No load waits to be confirmed.
    Nothing,
}

/// Confirms the load that waits, if one does. `session`: how the operator came.
///
/// # Errors
/// If the watchdog refuses, or does not answer.
pub fn confirm(session: Option<TcpConnection>) -> Result<Confirmed, Error> {
    let Some(mut watchdog) = Client::find()? else { return Ok(Confirmed::Nothing) };
    let session = session.map(|ends| ends.to_string());
    let Some(answer) = watchdog.ask(&WatchdogRequest::Confirm { session })? else {
        return Ok(Confirmed::Nothing);
    };
    match answer.code {
        None => Ok(Confirmed::Yes(answer.proof.unwrap_or(Proof::Unseen))),
        Some(ErrorCode::Expired) => Ok(Confirmed::TooLate),
        Some(ErrorCode::NothingPending) => Ok(Confirmed::Nothing),
        Some(_) => Err(refusal(answer)),
    }
}

/// Puts the rules from before back now; `false` if no load waits to be confirmed.
///
/// # Errors
/// If the watchdog refuses, or does not answer.
pub fn go_back() -> Result<bool, Error> {
    let Some(mut watchdog) = Client::find()? else { return Ok(false) };
    let Some(answer) = watchdog.ask(&WatchdogRequest::Rollback {})? else { return Ok(false) };
    match answer.code {
        None | Some(ErrorCode::Expired) => Ok(true),
        Some(ErrorCode::NothingPending) => Ok(false),
        Some(_) => Err(refusal(answer)),
    }
}

/// Returns how long the load that waits can still be confirmed; `None` if none waits.
///
/// # Errors
/// If the watchdog does not answer.
pub fn time_left() -> Result<Option<Duration>, Error> {
    let Some(mut watchdog) = Client::find()? else { return Ok(None) };
    watchdog.0.set_time_limit(Some(LOOK_TIMEOUT));
    let answer = watchdog.ask(&WatchdogRequest::TimeLeft {})?;
    let left = answer.and_then(|answer| answer.milliseconds_left);
    Ok(left.map(Duration::from_millis))
}

/// A watchdog that is armed, before the load.
pub(crate) struct Armed {
    watchdog: Client,
    /// What was there before the load: should the watchdog be ended, nothing else knows it.
    before: Snapshot,
}

/// How it is with the rollback once the load is done.
pub(crate) enum Commit {
    /// The load waits to be confirmed.
    Pending,
    /// The load took so long that the rules from before are back.
    Expired,
    /// The watchdog was ended: nothing takes the load back any more. These rules were there before.
    WatchdogGone(Box<Snapshot>),
}

impl Armed {
    /// Starts a watchdog that takes the load back after this time. If another load still waits to be
    /// confirmed, the rollback stays that of the earlier load, with this load's time.
    pub(crate) fn ready(
        time: Duration,
        session: Option<TcpConnection>,
        history: &History,
    ) -> Result<Armed, Error> {
        let before = Snapshot::take().map_err(Error::Rollback)?;
        let milliseconds = u64::try_from(time.as_millis()).unwrap_or(u64::MAX);
        let session = session.map(|ends| ends.to_string());
        let request = WatchdogRequest::Arm { milliseconds, session };
        let start = Instant::now();
        let mut started = None;
        loop {
            if let Some(mut watchdog) = Client::find()? {
                match watchdog.ask(&request)? {
                    Some(answer) if answer.ok => return Ok(Armed { watchdog, before }),
                    Some(answer) => return Err(refusal(answer)),
                    // It ended just now.
                    None => started = None,
                }
            }
            if start.elapsed() > START_TIMEOUT {
                return Err(Error::Rollback("the watchdog does not start in time".to_owned()));
            }
            // Of two that start at once, the second ends by itself.
            if started.is_none_or(|at: Instant| at.elapsed() > START_TIMEOUT / 4) {
                // The watchdog has no terminal to say it.
                local_socket::prepare().map_err(|error| Error::Rollback(error.to_string()))?;
                spawn::start(history)?;
                started = Some(Instant::now());
            }
            thread::sleep(RETRY_PAUSE);
        }
    }

    /// Says that the load is done.
    pub(crate) fn loaded(mut self) -> Commit {
        match self.watchdog.ask(&WatchdogRequest::Loaded {}) {
            Ok(Some(answer)) if answer.ok => Commit::Pending,
            Ok(Some(WatchdogResponse { code: Some(ErrorCode::Expired), .. })) => Commit::Expired,
            _ => Commit::WatchdogGone(Box::new(self.before)),
        }
    }

    /// Says that the load was not done.
    pub(crate) fn cancel(mut self) {
        // If the watchdog does not hear it, it puts back what is there already.
        let _ = self.watchdog.ask(&WatchdogRequest::Cancel {});
    }
}

fn refusal(answer: WatchdogResponse) -> Error {
    Error::Rollback(answer.error.unwrap_or_else(|| "the watchdog refuses".to_owned()))
}

/// A connection to the watchdog of this network namespace.
struct Client(Connection);

impl Client {
    /// Returns `None` if there is no watchdog.
    fn find() -> Result<Option<Client>, Error> {
        match Connection::open(&LocalAddress::Watchdog, REQUEST_TIMEOUT) {
            Ok(connection) => Ok(Some(Client(connection))),
            Err(error) if error.is_absent() => Ok(None),
            Err(error) => Err(Error::Rollback(error.to_string())),
        }
    }

    /// Returns the answer; `None` if the watchdog has ended.
    fn ask(&mut self, request: &WatchdogRequest) -> Result<Option<WatchdogResponse>, Error> {
        match self.0.request(request) {
            Ok(answer) => Ok(Some(answer)),
            Err(ApiError::Closed) => Ok(None),
            Err(error) => Err(Error::Rollback(error.to_string())),
        }
    }
}

/// Returns the word of a proof, as JSON has it.
pub fn proof_word(proof: Proof) -> &'static str {
    words(proof).0
}

/// Returns what a proof says, for people.
pub fn proof_phrase(proof: Proof) -> &'static str {
    words(proof).1
}

fn words(proof: Proof) -> (&'static str, &'static str) {
    match proof {
        Proof::New => ("new", "from a connection opened after the load"),
        Proof::Same => {
            ("same", "from the connection of the load: this proves nothing about new connections")
        }
        Proof::Old => (
            "old",
            "from a connection that was open before the load: this proves nothing about new connections",
        ),
        Proof::Console => ("console", "from the console: this proves nothing about the network"),
        _ => (
            "unseen",
            "from an SSH session whose connection is not visible here: this proves nothing",
        ),
    }
}
