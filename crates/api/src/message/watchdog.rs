//! The messages of the rollback watchdog, which puts the rules from before a load back unless the
//! load is confirmed in time.
//!
//! The process that loads sends `arm` before the load and `loaded` or `cancel` after it, over one
//! connection. `confirm`, `rollback` and `time_left` come from others.

#[cfg(any(test, feature = "schema"))]
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use super::ErrorCode;

/// A line to the watchdog.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(any(test, feature = "schema"), derive(JsonSchema))]
#[serde(tag = "op", rename_all = "snake_case", deny_unknown_fields)]
pub enum WatchdogRequest {
    /// Takes a snapshot of the rules, and sets the time after which it is put back.
    Arm {
        /// That time, in milliseconds.
        milliseconds: u64,
        /// The SSH connection that the load came by.
        #[serde(default, skip_serializing_if = "Option::is_none")]
        session: Option<String>,
    },
    /// The load is done.
    Loaded {},
    /// The load was not done: the watchdog forgets it.
    Cancel {},
    /// Confirms the load: the watchdog ends, and the new rules stay.
    Confirm {
        /// The SSH connection that the confirmation comes by.
        #[serde(default, skip_serializing_if = "Option::is_none")]
        session: Option<String>,
    },
    /// Puts the snapshot back now.
    Rollback {},
    /// Asks how long the load can still be confirmed.
    TimeLeft {},
}

/// The line that answers one to the watchdog.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(any(test, feature = "schema"), derive(JsonSchema))]
pub struct WatchdogResponse {
    /// Whether the request was carried out.
    pub ok: bool,
    /// Reason of a refusal, for programs.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub code: Option<ErrorCode>,
    /// Reason of a refusal, for people.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub error: Option<String>,
    /// Answer to `confirm`: what the confirmation proves.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub proof: Option<Proof>,
    /// Answer to `time_left`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub milliseconds_left: Option<u64>,
}

/// What a confirmation proves about the new rules, by the connection that it came by.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(any(test, feature = "schema"), derive(JsonSchema))]
#[serde(rename_all = "snake_case")]
#[non_exhaustive]
pub enum Proof {
    /// A connection opened after the load: the new rules let it in.
    New,
    /// The connection that the load came by.
    Same,
    /// Another connection that was open before the load.
    Old,
    /// An SSH connection that is not in this network namespace.
    Unseen,
    /// No SSH connection.
    Console,
}

impl WatchdogResponse {
    /// Returns the answer that the request was carried out.
    #[must_use]
    pub fn done() -> WatchdogResponse {
        WatchdogResponse { ok: true, ..WatchdogResponse::default() }
    }

    /// Returns a refusal.
    #[must_use]
    pub fn refused(code: ErrorCode, error: impl ToString) -> WatchdogResponse {
        let (code, error) = (Some(code), Some(error.to_string()));
        WatchdogResponse { code, error, ..WatchdogResponse::default() }
    }
}
