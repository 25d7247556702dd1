//! Lists of bans as they come in: one address or prefix a line, one JSON object a line, or what
//! `nfguard bans --json` prints.

use std::time::Duration;

use nfguard_ban::Target;
use serde::Deserialize;
use serde_json::Value;

/// One ban as a list has it; what it leaves out the command line says.
#[derive(Debug, PartialEq, Eq)]
pub(crate) struct Entry {
    pub(crate) target: Target,
    /// `None`: not said; `Some(None)`: without end.
    pub(crate) lasts: Option<Option<Duration>>,
    pub(crate) source: Option<String>,
    pub(crate) reason: Option<String>,
    pub(crate) since: Option<u64>,
}

/// An entry, or what is wrong with it.
pub(crate) type Read = Result<Entry, String>;

/// The keys of `nfguard bans --json`.
#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct Object {
    target: String,
    #[serde(default, deserialize_with = "present")]
    expires_in_seconds: Option<Option<f64>>,
    source: Option<String>,
    reason: Option<String>,
    since: Option<u64>,
}

/// Tells a key that is `null` from one that is absent.
fn present<'de, D: serde::Deserializer<'de>>(input: D) -> Result<Option<Option<f64>>, D::Error> {
    Option::deserialize(input).map(Some)
}

/// Every entry, or what is wrong with it, with its line from 1. Empty lines and what follows `#`
/// or `;` is left out.
pub(crate) fn parse(text: &str) -> Vec<(usize, Read)> {
    if let Ok(Value::Object(all)) = serde_json::from_str(text)
        && let Some(Value::Array(bans)) = all.get("bans")
    {
        return bans.iter().enumerate().map(|(at, ban)| (at + 1, object(ban))).collect();
    }
    let lines = text.lines().enumerate().map(|(at, line)| (at + 1, line.trim()));
    lines.filter_map(|(number, line)| entry(line).map(|entry| (number, entry))).collect()
}

fn entry(line: &str) -> Option<Read> {
    if line.starts_with('{') {
        let value = serde_json::from_str(line).map_err(|error| error.to_string());
        return Some(value.and_then(|value| object(&value)));
    }
    let word = line.split(['#', ';']).next().unwrap_or_default().trim();
    if word.is_empty() {
        return None;
    }
    let target: Result<Target, _> = word.parse();
    Some(match target {
        Ok(target) => Ok(Entry { target, lasts: None, source: None, reason: None, since: None }),
        Err(error) => Err(error.to_string()),
    })
}

fn object(value: &Value) -> Read {
    let object = Object::deserialize(value).map_err(|error| error.to_string())?;
    let seconds = |seconds: f64| {
        Duration::try_from_secs_f64(seconds)
            .ok()
            .filter(|left| *left >= Duration::from_millis(1))
            .ok_or_else(|| format!("expires_in_seconds is {seconds}; expected more than 0"))
    };
    Ok(Entry {
        target: object
            .target
            .parse()
            .map_err(|error: nfguard_ban::InvalidTarget| error.to_string())?,
        lasts: object.expires_in_seconds.map(|left| left.map(seconds).transpose()).transpose()?,
        source: object.source,
        reason: object.reason,
        since: object.since,
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn lists_as_people_keep_them_are_read_with_the_number_of_each_bad_line() {
        let text =
            "# feed\n203.0.113.7\n\n 203.0.113.0/24 ; why\nnonsense\n{\"target\": \"::1\"}\n";
        let read = parse(text);
        let numbers: Vec<_> = read.iter().map(|(number, entry)| (*number, entry.is_ok())).collect();
        assert_eq!(numbers, [(2, true), (4, true), (5, false), (6, true)]);
    }

    #[test]
    fn an_object_tells_without_end_from_not_said_and_refuses_what_it_does_not_know() {
        let lasts = |text: &str| parse(text).remove(0).1.map(|entry| entry.lasts);
        let target = r#""target": "192.0.2.1""#;
        assert_eq!(lasts(&format!("{{ {target} }}")), Ok(None));
        assert_eq!(
            lasts(&format!(r#"{{ {target}, "expires_in_seconds": null }}"#)),
            Ok(Some(None))
        );
        let half = Ok(Some(Some(Duration::from_millis(500))));
        assert_eq!(lasts(&format!(r#"{{ {target}, "expires_in_seconds": 0.5 }}"#)), half);
        assert!(lasts(&format!(r#"{{ {target}, "expires_in_seconds": -1 }}"#)).is_err());
        assert!(lasts(&format!(r#"{{ {target}, "expiry": 1 }}"#)).is_err());
    }
}
