//! What is said over the socket: a line of JSON each, in `docs/api.md`.

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};
use std::collections::BTreeMap;

use nfguard_ban::ActiveBan;

/// The longest line that is read.
pub(super) const LINE: usize = 64 * 1024;

/// A line to the guard.
#[derive(Debug, Deserialize, JsonSchema)]
#[serde(tag = "op", rename_all = "snake_case", deny_unknown_fields)]
pub(super) enum Request {
    /// How it is.
    Status {},
    /// Bans an address or a prefix. Needs the right to write.
    Ban {
        /// 203.0.113.7, 203.0.113.0/24, 2001:db8::1 (its /64), 2001:db8::/32
        target: String,
        /// For how long: "90s", "1h", "7d", or seconds. Without it, until somebody unbans.
        #[serde(rename = "for")]
        lasts: Option<Time>,
        /// Only from this port: "443/tcp". Without it, from everything.
        port: Option<String>,
        /// Who bans, at most 32 bytes. Without it, "api".
        source: Option<String>,
        /// Why.
        reason: Option<String>,
    },
    /// TcpConnection a ban. Needs the right to write.
    Unban {
        /// As it was banned.
        target: String,
        /// As it was banned.
        port: Option<String>,
    },
    /// Lists bans in force, at most a thousand at once.
    Bans {
        /// Only those of this source.
        source: Option<String>,
        /// Where to go on: `next` of the answer before.
        after: Option<String>,
    },
    /// From now on each event is told, a line each.
    Subscribe {},
    /// Lets go of the policy's table, so that this client can change it. Root alone; `nfguard load`
    /// does it by itself.
    Borrow {},
    /// Gives the table back.
    Return {
        /// Tables that were removed on purpose.
        #[serde(default)]
        removed: Vec<String>,
        /// What is there is meant, even if no load has made it so.
        #[serde(default)]
        as_is: bool,
    },
}

/// A time.
#[derive(Debug, Deserialize, JsonSchema)]
#[serde(untagged)]
pub(super) enum Time {
    /// Seconds.
    Seconds(f64),
    /// With units.
    Text(String),
}

/// The line that answers one.
#[derive(Debug, Default, Serialize, JsonSchema)]
pub(super) struct Response {
    /// Whether it was done.
    pub(super) ok: bool,
    /// Why not.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(super) error: Option<String>,
    /// To a ban: `added`, `extended` or, if it was in force for as long, `kept`. To an unban:
    /// `ended`, or `absent`.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(super) did: Option<&'static str>,
    /// To `status`.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(super) status: Option<Status>,
    /// To `bans`.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(super) bans: Option<Vec<Entry>>,
    /// To `bans`, if there are more.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(super) next: Option<String>,
}

impl Response {
    pub(super) fn done() -> Response {
        Response { ok: true, ..Response::default() }
    }

    pub(super) fn error(why: impl ToString) -> Response {
        Response { error: Some(why.to_string()), ..Response::default() }
    }
}

/// How it is.
#[derive(Debug, Serialize, JsonSchema)]
pub(super) struct Status {
    /// The version of nfguard.
    pub(super) version: &'static str,
    /// How the policy's table is kept.
    pub(super) policy: Kept,
    /// The file that was loaded; empty without a policy.
    pub(super) file: String,
    /// How often the table was put right.
    pub(super) repairs: u64,
    /// How often the bans were put back.
    pub(super) restores: u64,
    /// How often a policy was loaded while it was guarded.
    pub(super) loads: u64,
    /// How many bans are in force.
    pub(super) bans: u64,
    /// How many of each source. Some seconds old.
    pub(super) bans_by_source: BTreeMap<String, u64>,
    /// How many clients the guard has.
    pub(super) clients: usize,
}

/// How the policy's table is kept.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, JsonSchema)]
#[serde(rename_all = "snake_case")]
pub(super) enum Kept {
    /// Nobody else can change it.
    Owned,
    /// This kernel keeps no owned table without its owner: what is changed is put right.
    Watched,
    /// Somebody is loading.
    Lent,
    /// No policy is loaded.
    Absent,
}

/// A ban in force.
#[derive(Debug, Serialize, JsonSchema)]
pub(super) struct Entry {
    /// The address or prefix.
    pub(super) target: String,
    /// The port; absent: everything.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(super) port: Option<String>,
    /// How long it still lasts; absent: until somebody unbans.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(super) expires_in_seconds: Option<f64>,
    /// Who banned.
    pub(super) source: String,
    /// Why.
    pub(super) reason: String,
    /// When, in seconds since 1970.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(super) created_at: Option<u64>,
}

impl From<ActiveBan> for Entry {
    fn from(ban: ActiveBan) -> Entry {
        Entry {
            target: ban.target.to_string(),
            port: ban.port.map(|port| port.to_string()),
            expires_in_seconds: ban.expires_in.map(|left| left.as_secs_f64()),
            source: ban.source,
            reason: ban.reason,
            created_at: ban.created_at,
        }
    }
}

/// A line that tells a subscriber what has happened.
#[derive(Debug, Serialize, JsonSchema)]
#[serde(tag = "event", rename_all = "snake_case")]
pub(super) enum Event {
    /// Somebody was banned, or for longer, by whatever program.
    Banned {
        /// As it is now.
        ban: Entry,
    },
    /// A ban was ended before its time.
    Unbanned {
        /// As it was.
        ban: Entry,
    },
    /// The policy's table was changed behind the guard's back, and put right.
    Repaired {
        /// What was missing (`-`) or there (`+`).
        changes: Vec<String>,
        /// Who did it, as far as the kernel tells.
        by: String,
        /// How long it took from hearing of it.
        microseconds: u64,
    },
    /// The bans were removed, and put back.
    Restored {
        /// How many.
        bans: usize,
        /// Who did it, as far as the kernel tells.
        by: String,
        /// How long it took from hearing of it.
        microseconds: u64,
    },
    /// A policy was loaded.
    Loaded {
        /// Its file.
        file: String,
    },
    /// The policy was removed on purpose.
    Unloaded {},
    /// Events were lost before the guard could read them; it has read everything anew.
    Lost {},
}

#[cfg(test)]
mod tests {
    use schemars::generate::SchemaSettings;

    use super::*;

    /// Everything that is said over the socket.
    #[derive(JsonSchema)]
    #[allow(dead_code, reason = "only its schema is wanted")]
    struct Lines {
        request: Request,
        response: Response,
        event: Event,
    }

    #[test]
    fn the_schema_in_the_documentation_fits_the_code() {
        let schema = SchemaSettings::draft07().into_generator().into_root_schema_for::<Lines>();
        let text = format!("{:#}\n", schema.as_value());
        let path = concat!(env!("CARGO_MANIFEST_DIR"), "/../../docs/api.schema.json");
        if std::env::var_os("UPDATE_GOLDEN").is_some() {
            std::fs::write(path, &text).expect("docs can be written");
        }
        let written = std::fs::read_to_string(path).unwrap_or_default();
        assert!(written == text, "run again with UPDATE_GOLDEN=1 to write docs/api.schema.json");
    }
}
