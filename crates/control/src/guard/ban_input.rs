//! From what a client writes to a ban that can be made.

use std::time::{Duration, SystemTime};

use nfguard_api::message::{BanKey, ErrorCode, NewBan, Time};
use nfguard_ban::{Admitted, Ban, InvalidPort, NeverBan, Port, Target};

use crate::ban_text::{BanTarget, parse_duration, parse_end};

/// Source of a ban that names none.
pub(super) const DEFAULT_SOURCE: &str = "api";

/// Why something was refused.
#[derive(Debug)]
pub(super) struct Refusal {
    pub(super) code: ErrorCode,
    pub(super) message: String,
}

/// When a ban ends.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum BanEnd {
    Never,
    After(Duration),
    At(SystemTime),
}

/// A ban that is checked and can be made.
#[derive(Debug)]
pub(super) struct CheckedBan {
    pub(super) target: Admitted,
    pub(super) port: Option<Port>,
    pub(super) end: BanEnd,
    source: String,
    reason: String,
}

/// Bans to be ended.
#[derive(Debug)]
pub(super) struct BansToEnd {
    /// How the target may have been banned.
    pub(super) targets: Vec<Target>,
    pub(super) port: Option<Port>,
    /// `None`: every source.
    pub(super) source: Option<String>,
}

impl Refusal {
    pub(super) fn bad_input(message: impl ToString) -> Refusal {
        Refusal { code: ErrorCode::BadInput, message: message.to_string() }
    }
}

impl From<nfguard_ban::Error> for Refusal {
    fn from(error: nfguard_ban::Error) -> Refusal {
        Refusal { code: code(&error), message: error.to_string() }
    }
}

fn code(error: &nfguard_ban::Error) -> ErrorCode {
    match error {
        nfguard_ban::Error::NeverBanned(_) => ErrorCode::NeverBan,
        nfguard_ban::Error::Full { .. } => ErrorCode::Full,
        nfguard_ban::Error::Partly { error, .. } => code(error),
        _ => ErrorCode::Kernel,
    }
}

impl CheckedBan {
    /// Checks a ban against the never-ban list, and each of its fields.
    pub(super) fn check(ban: NewBan, never_ban: &NeverBan) -> Result<CheckedBan, Refusal> {
        let NewBan { target, duration, until, port, source, reason, .. } = ban;
        let target: BanTarget = target.parse().map_err(Refusal::bad_input)?;
        let port = parse_port(port.as_deref())?;
        let end = end(duration.as_ref(), until.as_ref()).map_err(Refusal::bad_input)?;
        let target = target.admit(never_ban, Target::V6_SOURCE).map_err(|refused| Refusal {
            code: ErrorCode::NeverBan,
            message: refused.to_string(),
        })?;
        let source = source.unwrap_or_else(|| DEFAULT_SOURCE.to_owned());
        Ok(CheckedBan { target, port, end, source, reason: reason.unwrap_or_default() })
    }

    pub(super) fn source(&self) -> &str {
        &self.source
    }

    /// Returns the ban to make at this time.
    pub(super) fn at(&self, now: SystemTime) -> Ban<'_> {
        Ban {
            target: self.target,
            port: self.port,
            duration: match self.end {
                BanEnd::Never => None,
                BanEnd::After(duration) => Some(duration),
                // If it is over meanwhile, the ban ends at once.
                BanEnd::At(end) => Some(end.duration_since(now).unwrap_or_default()),
            },
            source: &self.source,
            reason: &self.reason,
            created_at: None,
        }
    }
}

/// Reads a key.
pub(super) fn parse_key(key: BanKey) -> Result<BansToEnd, Refusal> {
    let target: BanTarget = key.target.parse().map_err(Refusal::bad_input)?;
    Ok(BansToEnd {
        targets: target.may_be_banned_as(Target::V6_SOURCE),
        port: parse_port(key.port.as_deref())?,
        source: key.source,
    })
}

fn parse_port(text: Option<&str>) -> Result<Option<Port>, Refusal> {
    text.map(str::parse).transpose().map_err(|error: InvalidPort| Refusal::bad_input(error))
}

fn end(duration: Option<&Time>, until: Option<&Time>) -> Result<BanEnd, String> {
    match (duration, until) {
        (None, None) => Ok(BanEnd::Never),
        (Some(duration), None) => {
            let duration = parse_duration(&text(duration));
            duration.map(|duration| duration.map_or(BanEnd::Never, BanEnd::After))
        }
        (None, Some(until)) => parse_end(&text(until), SystemTime::now()).map(BanEnd::At),
        (Some(_), Some(_)) => Err("expected `for` or `until`, not both".to_owned()),
    }
}

/// A number is read as its text is, so that both have one parser.
fn text(time: &Time) -> String {
    match time {
        Time::Number(number) => number.to_string(),
        Time::Text(text) => text.clone(),
    }
}
