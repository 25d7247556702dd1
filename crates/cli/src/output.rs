//! What every verb prints alike.

use std::io::{ErrorKind, Write as _};
use std::path::Path;
use std::time::{Duration, UNIX_EPOCH};

use anstyle::{AnsiColor, Style};
use nfguard_control::input;
use nfguard_control::policy_file::PolicyFile;
use nfguard_policy::{Problem, Severity};
use serde_json::{Value, json};

use crate::output::failure::Failure;

/// The number that each JSON answer carries. It changes when a reader of the old form would
/// misread the new one; new keys do not change it.
pub(crate) const SCHEMA: u32 = 1;

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

/// All of a file, or with `-` of standard input, of a list: its comments may be in any encoding.
pub(crate) fn read_list(path: &Path) -> Result<String, Failure> {
    let text = String::from_utf8(input::read_bytes(path)?);
    Ok(text.unwrap_or_else(|error| String::from_utf8_lossy(error.as_bytes()).into_owned()))
}

/// Reads a policy, and prints its warnings to standard error. A JSON answer has them in itself.
pub(crate) fn read_policy(path: &Path, as_json: bool) -> Result<PolicyFile, Failure> {
    Ok(warned(PolicyFile::read(path)?, as_json))
}

/// Prints the warnings of a policy to standard error, unless a JSON answer has them in itself.
pub(crate) fn warned(file: PolicyFile, as_json: bool) -> PolicyFile {
    if !as_json {
        problems(&file.name, &file.warnings, false);
    }
    file
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

/// Prints what differs between two tables, in colour.
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
