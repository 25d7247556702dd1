//! What the guard answers.

use std::collections::BTreeMap;

#[cfg(any(test, feature = "schema"))]
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

/// The line that answers a request.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[cfg_attr(any(test, feature = "schema"), derive(JsonSchema))]
pub struct Response {
    /// Whether the request was carried out.
    pub ok: bool,
    /// Reason of a refusal, for programs.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub code: Option<ErrorCode>,
    /// Reason of a refusal, for people.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub error: Option<String>,
    /// Answer to `ban` and `unban`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub did: Option<Did>,
    /// Answer to `ban_all`, `unban_all` and `replace`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub counts: Option<BatchCounts>,
    /// Answer to `ban_all`, `unban_all` and `replace`: the entries that were refused.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub refused: Vec<RefusedEntry>,
    /// Answer to `status`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub status: Option<Status>,
    /// Answer to `bans`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub bans: Option<Vec<ListedBan>>,
    /// Answer to `bans` if there are more: `after` of the next request.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub next: Option<String>,
}

impl Response {
    /// Returns the answer that the request was carried out.
    #[must_use]
    pub fn done() -> Response {
        Response { ok: true, ..Response::default() }
    }

    /// Returns the answer that a ban or an unban was carried out.
    #[must_use]
    pub fn did(did: Did) -> Response {
        Response { did: Some(did), ..Response::done() }
    }

    /// Returns a refusal.
    #[must_use]
    pub fn refused(code: ErrorCode, error: impl ToString) -> Response {
        Response { code: Some(code), error: Some(error.to_string()), ..Response::default() }
    }
}

/// Reason of a refusal, for programs.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(any(test, feature = "schema"), derive(JsonSchema))]
#[serde(rename_all = "snake_case")]
#[non_exhaustive]
pub enum ErrorCode {
    /// The line is no request, or a value in it is wrong.
    BadInput,
    /// The ban would hit an entry of the never-ban list.
    NeverBan,
    /// The ban would shut out a large part of all addresses, or of the connected peers. With `force` it
    /// is made.
    TooWide,
    /// This client has not the right to do it.
    NotAllowed,
    /// The line is too long, or has too many entries. After a line that is too long, the guard closes
    /// the connection.
    TooLong,
    /// Another client holds the lease, or is doing the same. Try again.
    Busy,
    /// This client does not hold the lease.
    NoLease,
    /// Another program changed the table that this client put in. It still holds the lease.
    TableChanged,
    /// No load waits for confirmation.
    NothingPending,
    /// The time to confirm is over, and the rules from before the load are back.
    Expired,
    /// The set of bans is full.
    Full,
    /// The kernel refused.
    Kernel,
    /// A code that this version of the crate does not know.
    #[serde(other)]
    #[cfg_attr(any(test, feature = "schema"), schemars(skip))]
    Unknown,
}

/// What became of a ban or an unban.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(any(test, feature = "schema"), derive(JsonSchema))]
#[serde(rename_all = "snake_case")]
#[non_exhaustive]
pub enum Did {
    /// A ban: it is new.
    Added,
    /// A ban: it was in force and now ends later.
    Extended,
    /// A ban: it was in force and ends no earlier than asked.
    Kept,
    /// An unban: the ban was ended.
    Ended,
    /// An unban: there was no such ban.
    Absent,
    /// A word that this version of the crate does not know.
    #[serde(other)]
    #[cfg_attr(any(test, feature = "schema"), schemars(skip))]
    Unknown,
}

/// Number of bans by what became of them.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(any(test, feature = "schema"), derive(JsonSchema))]
#[serde(default)]
pub struct BatchCounts {
    /// New bans.
    pub added: u64,
    /// Bans that were in force and have a new end. After `replace`, it may be earlier.
    pub extended: u64,
    /// Bans that were in force and end no earlier than asked, and bans that the list has twice.
    pub kept: u64,
    /// Bans that were ended.
    pub ended: u64,
    /// Unbans of what was not banned.
    pub absent: u64,
}

/// An entry of a request in bulk that was refused.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(any(test, feature = "schema"), derive(JsonSchema))]
pub struct RefusedEntry {
    /// Index of the entry in the request, from 0.
    pub index: u64,
    /// Reason, for programs.
    pub code: ErrorCode,
    /// Reason, for people.
    pub error: String,
}

/// State of the guard.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(any(test, feature = "schema"), derive(JsonSchema))]
pub struct Status {
    /// Version of this protocol.
    pub version: u32,
    /// Version of nfguard.
    pub nfguard_version: String,
    /// State of the policy's table.
    pub policy: PolicyState,
    /// File of the policy that is loaded; empty without a policy.
    pub file: String,
    /// Number of times the table was repaired.
    pub repairs: u64,
    /// Number of times the bans were restored.
    pub restores: u64,
    /// Number of policies loaded while the guard ran.
    pub loads: u64,
    /// Number of bans in force. A target that several sources have banned counts for each.
    pub bans: u64,
    /// Number of bans of each source.
    pub bans_by_source: BTreeMap<String, u64>,
    /// Number of clients of the guard.
    pub clients: u64,
    /// Whether the guard has read all bans. At its start, and after the kernel reported more than it read
    /// in time, that takes a second for each million.
    #[serde(default = "complete")]
    pub complete: bool,
}

/// A guard that does not say so reads all bans before it answers.
fn complete() -> bool {
    true
}

/// State of the policy's table.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(any(test, feature = "schema"), derive(JsonSchema))]
#[serde(rename_all = "snake_case")]
#[non_exhaustive]
pub enum PolicyState {
    /// The guard owns the table: no other process can change it.
    Owned,
    /// The kernel is too old to keep an owned table without its owner. The guard watches the table
    /// and repairs it.
    Watched,
    /// A client holds the lease and may change the table.
    Leased,
    /// No policy is loaded.
    Absent,
    /// A state that this version of the crate does not know.
    #[serde(other)]
    #[cfg_attr(any(test, feature = "schema"), schemars(skip))]
    Unknown,
}

/// A ban in force.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[cfg_attr(any(test, feature = "schema"), derive(JsonSchema))]
pub struct ListedBan {
    /// The address or prefix.
    pub target: String,
    /// The port; absent: every port.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub port: Option<String>,
    /// Seconds until it ends; absent: it has no end.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub expires_in_seconds: Option<f64>,
    /// Its source.
    pub source: String,
    /// Its reason.
    pub reason: String,
    /// When it was made, in seconds since 1970.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub created_at: Option<u64>,
}
