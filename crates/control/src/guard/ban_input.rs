//! From what a client writes to a ban that can be made.

use std::time::{Duration, SystemTime};

use nfguard_api::message::{BanKey, ErrorCode, NewBan, Time};
use nfguard_ban::{Addresses, Admitted, Ban, NeverBan, Port, Target};

use crate::ban_text::{may_be_banned_as, parse_duration, parse_end, parse_ports, time_text};
use crate::lists::review::objections_to;

/// Most bans that one entry makes or ends, of its prefixes and its ports.
const MAX_BANS_OF_ENTRY: usize = 256;
/// Longest name of a source. The kernel has a digest of a name that is longer than it can hold.
const MAX_SOURCE_BYTES: usize = 1024;
/// Longest reason. The kernel has its beginning.
const MAX_REASON_BYTES: usize = 1024;

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
    pub(super) ports: Vec<Option<Port>>,
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
        nfguard_ban::Error::Full { .. } | nfguard_ban::Error::TooManyEntries { .. } => {
            ErrorCode::Full
        }
        nfguard_ban::Error::FeedInUse { .. } => ErrorCode::Busy,
        nfguard_ban::Error::Partly { error, .. } => code(error),
        _ => ErrorCode::Kernel,
    }
}

impl CheckedBan {
    /// Checks a ban against the never-ban list, and each of its fields. A range becomes a ban for each
    /// of its prefixes, and a list of ports one for each port.
    pub(super) fn check(ban: NewBan, never_ban: &NeverBan) -> Result<Vec<CheckedBan>, Refusal> {
        let NewBan { target, duration, until, port, source, reason, .. } = ban;
        let addresses: Addresses = target.parse().map_err(Refusal::bad_input)?;
        let ports = ports(port.as_deref())?;
        let end = end(duration.as_ref(), until.as_ref()).map_err(Refusal::bad_input)?;
        let targets = addresses.targets(Target::V6_SOURCE);
        limit_bans(&target, targets.len() * ports.len())?;
        let admitted = never_ban.admit_all(addresses, Target::V6_SOURCE).map_err(|refused| {
            Refusal { code: ErrorCode::NeverBan, message: refused.to_string() }
        })?;
        let source = source.unwrap_or_else(|| DEFAULT_SOURCE.to_owned());
        limit_source(&source)?;
        let reason = shortened(reason.unwrap_or_default());
        let each = admitted.iter().flat_map(|target| ports.iter().map(|port| (*target, *port)));
        let checked = each.map(|(target, port)| {
            let (source, reason) = (source.clone(), reason.clone());
            CheckedBan { target, port, end, source, reason }
        });
        Ok(checked.collect())
    }

    pub(super) fn source(&self) -> &str {
        &self.source
    }

    /// Returns the ban as one of this source.
    pub(super) fn of(self, source: &str) -> CheckedBan {
        CheckedBan { source: source.to_owned(), ..self }
    }

    /// Whether it ends later than another one.
    pub(super) fn outlasts(&self, other: &CheckedBan) -> bool {
        let now = SystemTime::now();
        match (self.at(now).duration, other.at(now).duration) {
            (_, None) => false,
            (None, Some(_)) => true,
            (Some(own), Some(other)) => own > other,
        }
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

/// Judges bans that are asked for together, but for those that are forced. What is wrong with an entry
/// is told later.
///
/// # Errors
/// Why all of them are refused.
pub(super) fn judge(bans: &[NewBan], never_ban: &NeverBan) -> Result<(), Refusal> {
    let judged = bans.iter().filter(|ban| !ban.force);
    let all = judged.filter_map(|ban| ban.target.parse::<Addresses>().ok());
    let objections = objections_to(all, never_ban).map_err(|error| Refusal {
        code: ErrorCode::Kernel,
        message: format!("the connected peers cannot be listed: {error}"),
    })?;
    if objections.is_empty() {
        return Ok(());
    }
    let message = format!("{}; nothing was banned. \"force\": true bans it", objections.join("; "));
    Err(Refusal { code: ErrorCode::TooWide, message })
}

/// Reads a key.
pub(super) fn parse_key(key: BanKey) -> Result<BansToEnd, Refusal> {
    let addresses: Addresses = key.target.parse().map_err(Refusal::bad_input)?;
    let ports = ports(key.port.as_deref())?;
    limit_bans(&key.target, addresses.targets(Target::V6_SOURCE).len() * ports.len())?;
    if let Some(source) = &key.source {
        limit_source(source)?;
    }
    let targets = may_be_banned_as(addresses, Target::V6_SOURCE);
    Ok(BansToEnd { targets, ports, source: key.source })
}

impl BansToEnd {
    /// Returns how many bans are looked for.
    pub(super) fn count(&self) -> usize {
        self.targets.len() * self.ports.len()
    }
}

fn limit_bans(target: &str, count: usize) -> Result<(), Refusal> {
    if count <= MAX_BANS_OF_ENTRY {
        return Ok(());
    }
    Err(Refusal::bad_input(format!(
        "{target} from these ports are more than {MAX_BANS_OF_ENTRY} bans; expected a prefix, or fewer \
         ports"
    )))
}

pub(super) fn limit_source(source: &str) -> Result<(), Refusal> {
    if source.len() <= MAX_SOURCE_BYTES {
        return Ok(());
    }
    let message = format!("the name of the source is longer than {MAX_SOURCE_BYTES} bytes");
    Err(Refusal::bad_input(message))
}

/// Returns a reason as far as it can be copied for each ban.
pub(super) fn shortened(mut reason: String) -> String {
    if let Some(end) = (0..=MAX_REASON_BYTES).rev().find(|end| reason.is_char_boundary(*end)) {
        reason.truncate(end);
    }
    reason.shrink_to_fit();
    reason
}

/// Returns each port; `None` stands for all.
fn ports(text: Option<&str>) -> Result<Vec<Option<Port>>, Refusal> {
    text.map_or(Ok(vec![None]), parse_ports).map_err(Refusal::bad_input)
}

fn end(duration: Option<&Time>, until: Option<&Time>) -> Result<BanEnd, String> {
    match (duration, until) {
        (None, None) => Ok(BanEnd::Never),
        (Some(duration), None) => {
            let duration = parse_duration(&time_text(duration));
            duration.map(|duration| duration.map_or(BanEnd::Never, BanEnd::After))
        }
        (None, Some(until)) => parse_end(&time_text(until), SystemTime::now()).map(BanEnd::At),
        (Some(_), Some(_)) => Err("expected `for` or `until`, not both".to_owned()),
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    /// 254 prefixes of /64.
    const RANGE: &str = "2001:db8::1-2001:db8:0:ff:ffff:ffff:ffff:fffe";

    fn ban(entry: serde_json::Value) -> Result<Vec<CheckedBan>, Refusal> {
        CheckedBan::check(serde_json::from_value(entry).expect("a ban"), &NeverBan::default())
    }

    fn key(entry: serde_json::Value) -> Result<BansToEnd, Refusal> {
        parse_key(serde_json::from_value(entry).expect("a key"))
    }

    #[test]
    fn one_entry_makes_and_ends_no_more_bans_than_the_limit() {
        let ports = "8000-8063";
        let both = json!({ "target": RANGE, "port": ports });
        assert_eq!(
            ban(both.clone()).map(|all| all.len()).expect_err("refused").code,
            ErrorCode::BadInput
        );
        assert_eq!(
            key(both).map(|all| all.count()).expect_err("refused").code,
            ErrorCode::BadInput
        );
        for one in [json!({ "target": RANGE }), json!({ "target": "192.0.2.7", "port": ports })] {
            let made = ban(one.clone()).expect("few").len();
            assert!((2..=MAX_BANS_OF_ENTRY).contains(&made), "{made}");
            assert!(key(one).expect("few").count() >= made);
        }
    }

    #[test]
    fn no_long_text_of_an_entry_is_copied_for_each_of_its_bans() {
        let long = "é".repeat(1_000_000);
        let all = ban(json!({ "target": RANGE, "reason": long })).expect("bans");
        assert!(all.iter().all(|ban| ban.reason.len() <= MAX_REASON_BYTES));
        assert!(ban(json!({ "target": RANGE, "source": long })).is_err());
        assert!(key(json!({ "target": RANGE, "source": long })).is_err());
    }
}
