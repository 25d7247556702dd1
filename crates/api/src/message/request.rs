//! What clients ask.

use std::time::{Duration, SystemTime, UNIX_EPOCH};

#[cfg(any(test, feature = "schema"))]
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

/// A line to the guard.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[cfg_attr(any(test, feature = "schema"), derive(JsonSchema))]
#[serde(tag = "op", rename_all = "snake_case", deny_unknown_fields)]
pub enum Request {
    /// Asks for the state of the guard.
    Status {},
    /// Bans an address or a prefix. Needs the right to write.
    Ban(NewBan),
    /// Bans many at once, at most 50,000, with one answer for all. An entry that is wrong, or that
    /// the never-ban list forbids, is refused by its index; the others are banned. If one is wider than
    /// a /24 or a /48, all are judged together, and nothing is banned if they are `too_wide`. Needs the
    /// right to write.
    BanAll {
        /// The bans.
        bans: Vec<NewBan>,
        /// Source of the bans that name none. Without it, "api".
        #[serde(default, skip_serializing_if = "Option::is_none")]
        source: Option<String>,
        /// Duration of the bans that name no end.
        #[serde(rename = "for", default, skip_serializing_if = "Option::is_none")]
        duration: Option<Time>,
        /// End of the bans that name no end.
        #[serde(default, skip_serializing_if = "Option::is_none")]
        until: Option<Time>,
        /// Reason of the bans that name none.
        #[serde(default, skip_serializing_if = "Option::is_none")]
        reason: Option<String>,
        /// Whether all of them are forced, as [`NewBan::force`] says.
        #[serde(default, skip_serializing_if = "is_false")]
        force: bool,
    },
    /// Makes these the bans of one source, at most 50,000: adds those that are missing, gives each
    /// the end that it has here, earlier ones too, and ends those that are not listed. If an entry is
    /// wrong (`bad_input`), nothing is changed. An entry of the never-ban list is left out. Needs the
    /// right to write.
    Replace {
        /// The source. The bans name none of their own.
        source: String,
        /// The bans; an empty list ends all bans of the source.
        bans: Vec<NewBan>,
        /// Duration of the bans that name no end.
        #[serde(rename = "for", default, skip_serializing_if = "Option::is_none")]
        duration: Option<Time>,
        /// End of the bans that name no end.
        #[serde(default, skip_serializing_if = "Option::is_none")]
        until: Option<Time>,
        /// Reason of the bans that name none.
        #[serde(default, skip_serializing_if = "Option::is_none")]
        reason: Option<String>,
        /// Whether all of them are forced, as [`NewBan::force`] says.
        #[serde(default, skip_serializing_if = "is_false")]
        force: bool,
    },
    /// Ends the ban of a target by one source, or by all. Needs the right to write.
    Unban(BanKey),
    /// Ends many bans at once, at most 50,000, with one answer for all. Needs the right to write.
    UnbanAll {
        /// The bans.
        unbans: Vec<BanKey>,
        /// Source of the bans that name none. Without it, the bans of all sources end.
        #[serde(default, skip_serializing_if = "Option::is_none")]
        source: Option<String>,
    },
    /// Lists bans in force, a page of at most 1,000.
    Bans {
        /// Lists only the bans of this source.
        #[serde(default, skip_serializing_if = "Option::is_none")]
        source: Option<String>,
        /// Where the page begins: `next` of the answer before.
        #[serde(default, skip_serializing_if = "Option::is_none")]
        after: Option<String>,
    },
    /// Sends each event from now on, a line each.
    Subscribe {},
    /// Takes the lease of the policy's table: the guard lets go of the table, and this client may
    /// change it for up to 60 seconds. Root only; `nfguard load` does it by itself.
    Acquire {},
    /// Gives the lease back. The guard answers once it guards the table again.
    Release {
        /// What the client did to the tables.
        #[serde(default)]
        tables: Release,
    },
}

/// A ban to be made.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[cfg_attr(any(test, feature = "schema"), derive(JsonSchema))]
#[serde(deny_unknown_fields)]
#[non_exhaustive]
pub struct NewBan {
    /// 203.0.113.7, 203.0.113.0/24, 203.0.113.1-203.0.113.9, 2001:db8::1 (its /64), 2001:db8::/32
    pub target: String,
    /// Duration: "90s", "1h30m", "7d", or seconds, more than 0. Without it and `until`, or with -1, the
    /// ban has no end.
    #[serde(rename = "for", default, skip_serializing_if = "Option::is_none")]
    pub duration: Option<Time>,
    /// End: RFC 3339 ("2026-12-24T18:00:00Z"), or seconds since 1970. Not together with `for`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub until: Option<Time>,
    /// The only ports that are closed to the target: "443/tcp", "http,https", "8000-8010". Without it,
    /// or with "any", every port is.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub port: Option<String>,
    /// Source of the ban: a tool or one of its jails. Bans of one target by several sources are
    /// independent of each other. A name of more than 64 bytes is listed with a digest of the whole
    /// name. Without it, "api".
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub source: Option<String>,
    /// Reason of the ban, for people. Source and reason have 113 bytes together.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub reason: Option<String>,
    /// Bans also what shuts out a large part of all addresses, or of the connected peers. Without it,
    /// that is refused (`too_wide`).
    #[serde(default, skip_serializing_if = "is_false")]
    pub force: bool,
}

#[allow(clippy::trivially_copy_pass_by_ref, reason = "serde asks like this")]
fn is_false(value: &bool) -> bool {
    !value
}

impl NewBan {
    /// Returns a ban of an address or a prefix, from every port and without an end.
    #[must_use]
    pub fn of(target: impl ToString) -> NewBan {
        NewBan { target: target.to_string(), ..NewBan::default() }
    }

    /// Ends the ban after this time.
    #[must_use]
    pub fn lasting(self, duration: Duration) -> NewBan {
        NewBan { duration: Some(Time::Number(duration.as_secs_f64())), until: None, ..self }
    }

    /// Ends the ban at this time.
    #[must_use]
    pub fn until(self, end: SystemTime) -> NewBan {
        let seconds = end.duration_since(UNIX_EPOCH).unwrap_or_default().as_secs_f64();
        NewBan { until: Some(Time::Number(seconds)), duration: None, ..self }
    }

    /// Bans from one port only, such as `443/tcp`.
    #[must_use]
    pub fn port(self, port: impl ToString) -> NewBan {
        NewBan { port: Some(port.to_string()), ..self }
    }

    /// Names the source.
    #[must_use]
    pub fn source(self, source: impl ToString) -> NewBan {
        NewBan { source: Some(source.to_string()), ..self }
    }

    /// Gives a reason.
    #[must_use]
    pub fn reason(self, reason: impl ToString) -> NewBan {
        NewBan { reason: Some(reason.to_string()), ..self }
    }
}

/// A ban, by its target.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(any(test, feature = "schema"), derive(JsonSchema))]
#[serde(deny_unknown_fields)]
pub struct BanKey {
    /// The address or prefix, as in the ban.
    pub target: String,
    /// The port, as in the ban.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub port: Option<String>,
    /// The source, as in the ban: the target stays banned for as long as other sources want. Without
    /// it, the bans of all sources end.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub source: Option<String>,
}

impl BanKey {
    /// Names the bans of an address or a prefix from every port, by all sources.
    #[must_use]
    pub fn of(target: impl ToString) -> BanKey {
        BanKey { target: target.to_string(), port: None, source: None }
    }

    /// Names the ban of one source only.
    #[must_use]
    pub fn source(self, source: impl ToString) -> BanKey {
        BanKey { source: Some(source.to_string()), ..self }
    }
}

/// A duration or a point in time, as a number or as text.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[cfg_attr(any(test, feature = "schema"), derive(JsonSchema))]
#[serde(untagged)]
pub enum Time {
    /// Seconds.
    Number(f64),
    /// A duration with units, or a date with time.
    Text(String),
}

/// What the holder of the lease did to the tables.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(any(test, feature = "schema"), derive(JsonSchema))]
#[serde(rename_all = "snake_case")]
pub enum Release {
    /// Loaded a policy, or changed nothing. If the table is not as a load makes it, the guard puts
    /// back the one that it kept before.
    #[default]
    Loaded,
    /// Put in the table of this digest. If the kernel holds another one, another program changed it
    /// meanwhile: the guard answers `table_changed`, and the client keeps the lease and tries again.
    PutIn(String),
    /// Put an earlier table back: the guard keeps the table that it finds.
    AsFound,
    /// Removed these tables: the guard does not put them back.
    Removed(Vec<String>),
}
