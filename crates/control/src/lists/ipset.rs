//! What `ipset save` writes: sets and their entries.

use std::collections::BTreeMap;

use super::{At, Details, Reader, cut, is_comment, without_comment};

/// A set of the file.
enum Set {
    /// A set of addresses, and the time of an entry that names none, in seconds.
    Addresses(Option<u64>),
    /// A set of sets, which has their names.
    Sets,
    /// A set whose entries are more than addresses; why it cannot be read.
    Other(String),
}

/// Types of sets whose entries are addresses alone.
const TYPES: [&str; 3] = ["hash:ip", "hash:net", "bitmap:ip"];

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
            ["create", name, kind, ref options @ ..] => {
                sets.insert(name.to_owned(), Set::new(name, kind, options));
            }
            ["add", name, ..] if !names.contains(&name.to_owned()) => names.push(name.to_owned()),
            _ => {}
        }
    }
    names.retain(|name| !matches!(sets.get(name), Some(Set::Sets)));
    reader.check_sets(&names)?;
    for (at, line) in (1..).map(At::Line).zip(text.lines().map(str::trim)) {
        let words: Vec<&str> = line.split_whitespace().collect();
        match words[..] {
            ["add", name, value, ref rest @ ..]
                if reader.is_wanted_set(name) && names.iter().any(|it| it == name) =>
            {
                entry(reader, at, name, value, &rest.join(" "), sets.get(name));
            }
            ["add", _, _, ..] | ["create" | "flush" | "swap" | "destroy", ..] | ["COMMIT"] => {}
            _ if is_comment(line) => {}
            _ => reader.bad(at, format!("{:?} is no line of `ipset save`", cut(line))),
        }
    }
    Ok("`ipset save`".to_owned())
}

impl Set {
    fn new(name: &str, kind: &str, options: &[&str]) -> Set {
        match kind {
            "list:set" => Set::Sets,
            kind if TYPES.contains(&kind) => {
                let timeout = option(options, "timeout").and_then(|text| text.parse().ok());
                Set::Addresses(timeout.filter(|timeout| *timeout > 0))
            }
            kind => {
                Set::Other(format!("set {name} is a {kind}: its entries are more than addresses"))
            }
        }
    }
}

fn entry(reader: &mut Reader<'_>, at: At, name: &str, value: &str, rest: &str, set: Option<&Set>) {
    let default = match set {
        Some(Set::Other(problem)) => return reader.bad(at, problem),
        Some(Set::Addresses(timeout)) => *timeout,
        Some(Set::Sets) | None => None,
    };
    let (rest, comment) = without_comment(rest);
    let options: Vec<&str> = rest.split_whitespace().collect();
    if options.contains(&"nomatch") {
        return reader.bad(at, format!("{value} is an exception (nomatch): the set lets it in"));
    }
    let left = match option(&options, "timeout") {
        Some(text) => match text.parse::<u64>() {
            // Zero is an entry without end.
            Ok(0) => None,
            Ok(seconds) => Some(seconds),
            Err(_) => return reader.bad(at, format!("{text:?} is no timeout; expected seconds")),
        },
        None => default,
    };
    let details = Details {
        source: Some(format!("ipset/{name}")),
        reason: comment.map(str::to_owned),
        ..Details::default()
    };
    reader.timed(at, value, left.map(|seconds| i128::from(seconds) * 1000), details);
}

fn option<'a>(words: &[&'a str], name: &str) -> Option<&'a str> {
    let at = words.iter().position(|word| *word == name)?;
    words.get(at + 1).copied()
}
