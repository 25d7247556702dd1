//! Parser of lists of bans: one address or prefix a line, one JSON object a line, or what `nfguard bans
//! --json` prints.

use std::fmt;
use std::time::Duration;

use nfguard_ban::{InvalidTarget, Port};
use nfguard_control::ban_text::BanTarget;
use serde::Deserialize;

/// One ban of a list.
#[derive(Debug, PartialEq, Eq)]
pub(crate) struct Entry {
    pub(crate) who: BanTarget,
    /// The other keys of the entry. The command line fills what it leaves out.
    pub(crate) details: Option<Box<Details>>,
}

/// The properties of a ban besides its target.
#[derive(Debug, Default, PartialEq, Eq)]
pub(crate) struct Details {
    /// `None`: not given.
    pub(crate) port: Option<Port>,
    /// `None`: not given; `Some(None)`: without end.
    pub(crate) duration: Option<Option<Duration>>,
    pub(crate) source: Option<String>,
    pub(crate) reason: Option<String>,
    pub(crate) created_at: Option<u64>,
}

/// The place of an entry, from 1.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum At {
    Line(usize),
    /// The number of a ban in a JSON list.
    Ban(usize),
}

/// An entry, or its problem.
pub(crate) type ReadEntry = Result<Entry, String>;

/// The keys of one ban in `nfguard bans --json`.
#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct Object {
    target: String,
    port: Option<String>,
    #[serde(default, deserialize_with = "present")]
    expires_in_seconds: Option<Option<f64>>,
    source: Option<String>,
    reason: Option<String>,
    #[serde(alias = "since")]
    created_at: Option<u64>,
}

/// What `nfguard bans --json` prints.
#[derive(Deserialize)]
struct Listing {
    bans: Vec<Object>,
}

/// Tells a key that is `null` from one that is absent.
fn present<'de, D: serde::Deserializer<'de>>(input: D) -> Result<Option<Option<f64>>, D::Error> {
    Option::deserialize(input).map(Some)
}

/// Returns each entry or its problem, with its place. Empty lines and comments after `#` or `;` are
/// skipped.
pub(crate) fn parse(text: &str) -> impl Iterator<Item = (At, ReadEntry)> + '_ {
    let text = text.strip_prefix('\u{feff}').unwrap_or(text);
    let (bans, error, text) = match listing(text) {
        Some(Ok(bans)) => (bans, None, ""),
        Some(Err(error)) => {
            (Vec::new(), Some((At::Line(error.line()), Err(error.to_string()))), "")
        }
        None => (Vec::new(), None, text),
    };
    let bans = (1..).map(At::Ban).zip(bans.into_iter().map(object));
    let lines = (1..).map(At::Line).zip(text.lines().map(str::trim));
    let entries = lines.filter_map(|(at, line)| Some((at, entry(line)?)));
    bans.chain(error).chain(entries)
}

/// Parses a text that is a JSON list of bans; an incomplete or edited list is one problem, not a
/// thousand bad lines.
fn listing(text: &str) -> Option<serde_json::Result<Vec<Object>>> {
    let start = text.trim_start();
    if !start.starts_with('{') {
        return None;
    }
    // From its second line on, a list with one object a line is not JSON.
    match serde_json::from_str(text) {
        Ok(Listing { bans }) => Some(Ok(bans)),
        Err(_) if !(start.starts_with("{\n") || start.starts_with("{\"bans\"")) => None,
        Err(error) => Some(Err(error)),
    }
}

impl fmt::Display for At {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            At::Line(number) => write!(f, "line {number}"),
            At::Ban(number) => write!(f, "ban {number}"),
        }
    }
}

fn entry(line: &str) -> Option<ReadEntry> {
    // Nearly all lines of a long list.
    if let Ok(address) = line.parse() {
        return Some(Ok(Entry { who: BanTarget::Address(address), details: None }));
    }
    if line.starts_with('{') {
        return Some(
            serde_json::from_str(line).map_err(|error| error.to_string()).and_then(object),
        );
    }
    let word = line.split(['#', ';']).next().unwrap_or_default().trim();
    if word.is_empty() {
        return None;
    }
    let who: Result<BanTarget, _> = word.parse();
    Some(who.map(|who| Entry { who, details: None }).map_err(|error| error.to_string()))
}

fn object(object: Object) -> ReadEntry {
    let seconds = |seconds: f64| {
        Duration::try_from_secs_f64(seconds)
            .ok()
            .filter(|left| *left >= Duration::from_millis(1))
            .ok_or_else(|| format!("expires_in_seconds is {seconds:?}; expected 0.001 to 1e19"))
    };
    let who = object.target.parse().map_err(|error: InvalidTarget| error.to_string())?;
    let port = object.port.map(|port| port.parse()).transpose();
    let details = Details {
        port: port.map_err(|error: nfguard_ban::InvalidPort| error.to_string())?,
        duration: object
            .expires_in_seconds
            .map(|left| left.map(seconds).transpose())
            .transpose()?,
        source: object.source,
        reason: object.reason,
        created_at: object.created_at,
    };
    Ok(Entry { who, details: Some(Box::new(details)) })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_list_with_comments_is_read_with_the_number_of_each_bad_line() {
        let text =
            "# feed\n203.0.113.7\n\n 203.0.113.0/24 ; why\nnonsense\n{\"target\": \"::1\"}\n";
        let numbers: Vec<_> = parse(text).map(|(at, entry)| (at, entry.is_ok())).collect();
        let expected = [(2, true), (4, true), (5, false), (6, true)];
        assert_eq!(numbers, expected.map(|(number, is_good)| (At::Line(number), is_good)));
        assert!(parse("\u{feff}203.0.113.7\r\n").all(|(_, entry)| entry.is_ok()));
    }

    #[test]
    fn a_listing_that_was_cut_or_edited_has_one_problem_and_a_bad_ban_in_one_its_number() {
        let good = "{\n  \"bans\": [\n    {\n      \"target\": \"192.0.2.1\"\n    },\n    \
                    {\n      \"target\": \"x\"\n    }\n  ]\n}";
        let bad = |text: &str| {
            let bad = parse(text).filter_map(|(at, entry)| Some((at, entry.err()?)));
            bad.map(|(at, _)| at).collect::<Vec<_>>()
        };
        assert_eq!(bad(good), [At::Ban(2)]);
        assert_eq!(bad(&good[..60]), [At::Line(6)]);
        assert_eq!(bad(&good.replace("x\"", "x\", \"expiry\": 1")), [At::Line(7)]);
        assert_eq!(bad(r#"{"bans":[{"expiry":1}]}"#), [At::Line(1)]);
    }

    #[test]
    fn a_list_from_before_the_first_release_is_read() {
        let line = r#"{"target": "192.0.2.1", "since": 1764450000}"#;
        let (_, entry) = parse(line).next().expect("one line");
        let details = entry.expect("a ban").details.expect("an object");
        assert_eq!(details.created_at, Some(1_764_450_000));
    }

    #[test]
    fn an_object_tells_without_end_from_not_said_and_refuses_what_it_does_not_know() {
        let lasts = |text: &str| {
            let (_, entry) = parse(text).next().expect("one line");
            entry.map(|entry| entry.details.expect("an object").duration)
        };
        let target = r#""target": "192.0.2.1""#;
        assert_eq!(lasts(&format!("{{ {target} }}")), Ok(None));
        assert_eq!(
            lasts(&format!(r#"{{ {target}, "expires_in_seconds": null }}"#)),
            Ok(Some(None))
        );
        let half = Ok(Some(Some(Duration::from_millis(500))));
        assert_eq!(lasts(&format!(r#"{{ {target}, "expires_in_seconds": 0.5 }}"#)), half);
        for wrong in [r#""expires_in_seconds": -1"#, r#""expiry": 1"#, r#""port": "443""#] {
            assert!(lasts(&format!("{{ {target}, {wrong} }}")).is_err(), "{wrong}");
        }
    }
}
