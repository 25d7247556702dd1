//! Bans of ours in JSON: what `nfguard bans --json` prints, an object a line, and what the socket takes.

use std::time::Duration;

use nfguard_api::message::Time;
use serde::{Deserialize, Deserializer};
use serde_json::Value;

use super::{At, Details, Reader};
use crate::ban_text::{parse_duration, parse_end, parse_ports, time_text};

/// The keys of one ban.
#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct Ban {
    target: String,
    port: Option<String>,
    #[serde(default, deserialize_with = "present")]
    expires_in_seconds: Option<Option<f64>>,
    #[serde(rename = "for")]
    duration: Option<Time>,
    until: Option<Time>,
    source: Option<String>,
    reason: Option<String>,
    #[serde(alias = "since")]
    created_at: Option<u64>,
    /// A line for the socket may have it. The list is judged as a whole, and `--force` is about that.
    #[serde(rename = "force")]
    _force: Option<bool>,
}

/// What `nfguard bans --json` prints.
#[derive(Deserialize)]
struct Listing {
    bans: Vec<Ban>,
}

/// Tells a key that is `null` from one that is absent.
fn present<'de, D: Deserializer<'de>>(input: D) -> Result<Option<Option<f64>>, D::Error> {
    Option::deserialize(input).map(Some)
}

/// Reads what `nfguard bans --json` prints. A listing that was cut or edited is one problem.
pub(super) fn read_listing(reader: &mut Reader<'_>, text: &str) {
    match serde_json::from_str::<Listing>(text) {
        Ok(Listing { bans }) => {
            for (at, ban) in (1..).map(At::Entry).zip(bans) {
                ban.read(reader, at);
            }
        }
        Err(error) => reader.bad(At::Line(error.line()), error),
    }
}

/// Reads a line that is an object: a ban, or an entry of Spamhaus' lists in JSON.
pub(super) fn read_line(reader: &mut Reader<'_>, at: At, line: &str) {
    let ban = match serde_json::from_str::<Ban>(line) {
        Ok(ban) => return ban.read(reader, at),
        Err(error) => error,
    };
    match serde_json::from_str::<Value>(line) {
        Ok(value) => match (value["cidr"].as_str(), value["type"].as_str()) {
            (Some(cidr), _) => reader.addresses(at, cidr, None),
            (None, Some("metadata")) => {}
            (None, _) => reader.bad(at, ban),
        },
        Err(error) => reader.bad(at, error),
    }
}

impl Ban {
    fn read(self, reader: &mut Reader<'_>, at: At) {
        let Ban { target, port, expires_in_seconds, duration, until, source, reason, .. } = self;
        let created_at = self.created_at;
        let ports = match port.as_deref().map(parse_ports).transpose() {
            Ok(ports) => ports.unwrap_or_default(),
            Err(error) => return reader.bad(at, error),
        };
        let details = Details { ports, duration: None, source, reason, created_at };
        let duration = match (expires_in_seconds, duration, until) {
            (None, None, None) => None,
            (Some(None), None, None) => Some(None),
            (Some(Some(seconds)), None, None) => {
                let left = Duration::try_from_secs_f64(seconds).ok();
                // The rest of a ban: it may be over.
                if seconds < 0.001 {
                    return reader.timed(at, &target, Some(0), details);
                }
                match left {
                    Some(left) => Some(Some(left)),
                    None => return reader.bad(at, format!("{seconds:?} seconds are too many")),
                }
            }
            (None, Some(duration), None) => match parse_duration(&time_text(&duration)) {
                Ok(duration) => Some(duration),
                Err(error) => return reader.bad(at, error),
            },
            (None, None, Some(until)) => match parse_end(&time_text(&until), std::time::UNIX_EPOCH)
            {
                Ok(end) => match end.duration_since(reader.options.now) {
                    Ok(left) if left >= Duration::from_millis(1) => Some(Some(left)),
                    _ => return reader.timed(at, &target, Some(0), details),
                },
                Err(error) => return reader.bad(at, error),
            },
            _ => return reader.bad(at, "expected one of `for`, `until` and `expires_in_seconds`"),
        };
        reader.addresses(at, &target, Some(Details { duration, ..details }));
    }
}
