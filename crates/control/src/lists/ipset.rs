//! What `ipset save` writes: sets and their entries.

use std::collections::BTreeMap;

use super::{At, Details, Reader, cut, is_comment};

/// A set of the file.
struct Set {
    /// Time of an entry that names none, in seconds.
    timeout: Option<u64>,
    problem: Option<String>,
}

/// Types of sets whose entries are addresses alone.
const TYPES: [&str; 4] = ["hash:ip", "hash:net", "bitmap:ip", "hash:ip,mark"];

pub(super) fn is_ipset(line: &str) -> bool {
    let mut words = line.split_whitespace();
    let verb = words.next().unwrap_or_default();
    ["create", "add", "flush"].contains(&verb)
        && words.next().is_some()
        && !["element", "set", "table"]
            .contains(&line.split_whitespace().nth(1).unwrap_or_default())
}

pub(super) fn read(reader: &mut Reader<'_>, text: &str) -> Result<String, String> {
    let mut sets = BTreeMap::new();
    let mut names = Vec::new();
    // Which sets there are is known before an entry is taken.
    for line in text.lines().map(str::trim) {
        let words: Vec<&str> = line.split_whitespace().collect();
        match words[..] {
            ["create", name, kind, ..] => {
                sets.insert(name.to_owned(), Set::new(name, kind, &words));
            }
            // A set of sets has the names of sets.
            ["add", name, ..] if !names.contains(&name.to_owned()) => names.push(name.to_owned()),
            _ => {}
        }
    }
    names.retain(|name| sets.get(name).is_none_or(|set| set.timeout != Some(u64::MAX)));
    reader.check_sets(&names)?;
    for (at, line) in (1..).map(At::Line).zip(text.lines().map(str::trim)) {
        let words: Vec<&str> = line.split_whitespace().collect();
        match words[..] {
            ["add", name, value, ..]
                if reader.is_wanted_set(name) && names.iter().any(|it| it == name) =>
            {
                entry(reader, at, name, value, &words, sets.get(name));
            }
            ["add", _, _, ..] | ["create" | "flush" | "swap" | "destroy", ..] | ["COMMIT"] => {}
            _ if is_comment(line) => {}
            _ => reader.bad(at, format!("{:?} is no line of `ipset save`", cut(line))),
        }
    }
    Ok("`ipset save`".to_owned())
}

impl Set {
    fn new(name: &str, kind: &str, words: &[&str]) -> Set {
        let timeout = option(words, "timeout").and_then(|text| text.parse().ok());
        let problem = match kind {
            "list:set" => return Set { timeout: Some(u64::MAX), problem: None },
            kind if TYPES.contains(&kind) && kind != "hash:ip,mark" => None,
            kind => Some(format!("set {name} is a {kind}: its entries are more than addresses")),
        };
        Set { timeout: timeout.filter(|timeout| *timeout > 0), problem }
    }
}

fn entry(
    reader: &mut Reader<'_>,
    at: At,
    name: &str,
    value: &str,
    words: &[&str],
    set: Option<&Set>,
) {
    if let Some(problem) = set.and_then(|set| set.problem.as_ref()) {
        return reader.bad(at, problem);
    }
    if words.contains(&"nomatch") {
        return reader.bad(at, format!("{value} is an exception (nomatch): the set lets it in"));
    }
    let left = match option(words, "timeout") {
        Some(text) => match text.parse::<u64>() {
            // Zero is an entry without end.
            Ok(0) => None,
            Ok(seconds) => Some(seconds),
            Err(_) => return reader.bad(at, format!("{text:?} is no timeout; expected seconds")),
        },
        None => set.and_then(|set| set.timeout),
    };
    let details = Details {
        source: Some(format!("ipset/{name}")),
        reason: comment(words),
        ..Details::default()
    };
    reader.timed(at, value, left.map(|seconds| i128::from(seconds) * 1000), details);
}

fn option<'a>(words: &[&'a str], name: &str) -> Option<&'a str> {
    let at = words.iter().position(|word| *word == name)?;
    words.get(at + 1).copied()
}

/// Returns the comment of an entry, which stands in quotes.
fn comment(words: &[&str]) -> Option<String> {
    let at = words.iter().position(|word| *word == "comment")?;
    let rest = words.get(at + 1..)?.join(" ");
    let text = rest.strip_prefix('"').and_then(|rest| rest.split('"').next());
    Some(text.unwrap_or(&rest).to_owned())
}
