//! What every verb prints alike.

use std::collections::{BTreeMap, BTreeSet};
use std::io::{ErrorKind, Read as _, Write as _};
use std::path::Path;
use std::time::{Duration, UNIX_EPOCH};

use anstyle::{AnsiColor, Style};
use nfguard_netlink::Table;
use nfguard_netlink::text;
use nfguard_policy::{Problem, Severity};
use serde_json::{Value, json};

use crate::failure::Failure;
use similar::{ChangeTag, TextDiff};

/// The number that each JSON answer carries. It changes when a reader of the old form would
/// misread the new one; new keys do not change it.
pub(crate) const SCHEMA: u32 = 1;

/// What stands for standard input, or output, in place of a file.
pub(crate) const STANDARD: &str = "-";

/// How many problems of a list are printed.
const SOME: usize = 20;

pub(crate) const GOOD: Style = AnsiColor::Green.on_default();
pub(crate) const BAD: Style = AnsiColor::Red.on_default();
pub(crate) const NOTE: Style = AnsiColor::Yellow.on_default();

/// Prints an object with the schema's number.
pub(crate) fn json(value: &Value) {
    let mut object = value.clone();
    if let Some(object) = object.as_object_mut() {
        object.insert("schema".to_owned(), json!(SCHEMA));
    }
    line(&format!("{object:#}"));
}

/// Prints to standard output with colours where they are wanted. A reader that has gone away is no
/// error: `nfguard show | head`. A disk that is full is one, or half a ruleset would pass for all.
pub(crate) fn line(text: &str) {
    let Err(error) = writeln!(anstream::stdout(), "{text}") else { return };
    if error.kind() != ErrorKind::BrokenPipe {
        let _ = writeln!(std::io::stderr(), "nfguard: standard output: {error}");
        std::process::exit(2);
    }
}

/// To standard error.
pub(crate) fn warning(text: &str) {
    let _ = writeln!(anstream::stderr(), "{NOTE}nfguard: {text}{NOTE:#}");
}

/// Some problems of a long list, each in a line of its own; a page that is no list has thousands.
pub(crate) fn some_of(problems: &[String]) -> String {
    let mut lines: Vec<String> =
        problems.iter().take(SOME).map(|problem| format!("  {problem}")).collect();
    if problems.len() > SOME {
        lines.push(format!("  and {} more", problems.len() - SOME));
    }
    lines.join("\n")
}

/// A time in seconds since 1970, for people.
pub(crate) fn time(seconds: u64) -> String {
    humantime::format_rfc3339_seconds(UNIX_EPOCH + Duration::from_secs(seconds)).to_string()
}

/// All of a file, or with `-` of standard input.
pub(crate) fn read(path: &Path) -> Result<String, Failure> {
    String::from_utf8(read_bytes(path)?).map_err(|_| {
        let error = std::io::Error::new(ErrorKind::InvalidData, "no valid UTF-8");
        Failure::file(path)(error)
    })
}

/// As [`read`], of a list: its comments may be in any encoding.
pub(crate) fn read_list(path: &Path) -> Result<String, Failure> {
    let text = String::from_utf8(read_bytes(path)?);
    Ok(text.unwrap_or_else(|error| String::from_utf8_lossy(error.as_bytes()).into_owned()))
}

pub(crate) fn read_bytes(path: &Path) -> Result<Vec<u8>, Failure> {
    let mut bytes = Vec::new();
    let read = if path == Path::new(STANDARD) {
        std::io::stdin().read_to_end(&mut bytes).map(|_| bytes)
    } else {
        std::fs::read(path)
    };
    read.map_err(Failure::file(path))
}

/// Every problem of a policy, to standard error or as JSON.
pub(crate) fn problems(name: &str, problems: &[Problem], as_json: bool) {
    if as_json {
        let errors = problems.iter().filter(|problem| problem.severity == Severity::Error).count();
        let mut answer = json!({ "file": name, "problems": problems });
        if errors > 0 {
            answer["error"] = json!(format!("{name}: {errors} errors"));
        }
        json(&answer);
        return;
    }
    let mut out = anstream::stderr();
    for problem in problems {
        let style = match problem.severity {
            Severity::Error => BAD,
            Severity::Warning => NOTE,
        };
        let _ = writeln!(out, "{style}{name}:{problem}{style:#}");
    }
}

/// What differs between two tables: each line with its mark, under the counter, set or chain that
/// it stands in.
pub(crate) fn changes(before: Option<&Table>, after: Option<&Table>) -> Vec<String> {
    let (before, after) = (blocks(before), blocks(after));
    let headings: BTreeSet<&String> = before.keys().chain(after.keys()).collect();
    let mut lines = Vec::new();
    for heading in headings {
        match (before.get(heading), after.get(heading)) {
            (Some(old), Some(new)) if old == new => {}
            (Some(old), Some(new)) => {
                lines.push(format!(" {heading}"));
                let changes = TextDiff::from_lines(old, new);
                lines.extend(changes.iter_all_changes().filter_map(|change| {
                    let mark = match change.tag() {
                        ChangeTag::Equal => return None,
                        ChangeTag::Delete => '-',
                        ChangeTag::Insert => '+',
                    };
                    Some(format!("{mark}{}", change.value().trim_end()))
                }));
            }
            (old, new) => {
                let mark = if new.is_some() { '+' } else { '-' };
                lines.push(format!("{mark}{heading}"));
                let body = old.or(new).map(String::as_str).unwrap_or_default();
                lines.extend(body.lines().map(|line| format!("{mark}{line}")));
            }
        }
    }
    lines
}

/// A table's counters, sets and chains: heading to body.
fn blocks(table: Option<&Table>) -> BTreeMap<String, String> {
    let text = table.map(|table| text::table(&table.clone().normalized())).unwrap_or_default();
    let mut blocks = BTreeMap::new();
    let mut heading = "table".to_owned();
    for line in text.lines() {
        if let Some(start) = line.strip_suffix(" {").filter(|start| start.starts_with('\t')) {
            heading = start.trim().to_owned();
            blocks.insert(heading.clone(), String::new());
        } else if line == "\t}" {
            heading = "table".to_owned();
        } else if line.starts_with('\t') {
            let body = blocks.entry(heading.clone()).or_default();
            body.push_str(&format!("    {}\n", line.trim()));
        }
    }
    blocks
}

/// [`changes`] in colour.
pub(crate) fn print_changes(lines: &[String]) {
    for text in lines {
        let style = match text.as_bytes().first() {
            Some(b'-') => BAD,
            Some(b'+') => GOOD,
            _ => Style::new(),
        };
        line(&format!("{style}{text}{style:#}"));
    }
}
