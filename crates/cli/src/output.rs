//! Output that all verbs share. Everything is printed here, and nothing that others wrote reaches a
//! terminal as it is.

pub(crate) mod bans;
pub(crate) mod failure;
pub(crate) mod journal;
pub(crate) mod loads;
pub(crate) mod ports;
pub(crate) mod progress;

use std::io::{ErrorKind, IsTerminal as _, Write as _};
use std::path::Path;
use std::time::{Duration, UNIX_EPOCH};

use anstyle::{AnsiColor, Style};
use nfguard_control::policy_file::PolicyFile;
use nfguard_netlink::comment::{one_line, visible};
use nfguard_netlink::eval::Fate;
use nfguard_policy::{Problem, Severity};
use serde_json::{Value, json};

use self::failure::Failure;

/// The answer of a verb.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Answer {
    /// Done, or "yes".
    Yes,
    /// "No", or "differs".
    No,
}

impl From<bool> for Answer {
    fn from(yes: bool) -> Answer {
        if yes { Answer::Yes } else { Answer::No }
    }
}

/// What a verb returns.
pub(crate) type Done = Result<Answer, Failure>;

/// The `schema` number of each JSON answer. It changes when a reader of the old form would misread
/// the new form. New keys do not change it.
pub(crate) const SCHEMA: u32 = 1;

/// The most problems of a list that are printed.
const MAX_PRINTED_PROBLEMS: usize = 20;

pub(crate) const PLAIN: Style = Style::new();
pub(crate) const GOOD: Style = AnsiColor::Green.on_default();
pub(crate) const BAD: Style = AnsiColor::Red.on_default();
pub(crate) const NOTE: Style = AnsiColor::Yellow.on_default();

/// Prints an object, with the `schema` number added.
pub(crate) fn json(value: &Value) {
    let mut object = value.clone();
    if let Some(object) = object.as_object_mut() {
        object.insert("schema".to_owned(), json!(SCHEMA));
    }
    lines(&format!("{object:#}"));
}

/// Prints a line to standard output.
pub(crate) fn line(text: &str) {
    spans(&[(PLAIN, text)]);
}

/// Prints several lines to standard output.
pub(crate) fn lines(text: &str) {
    to_stdout(&visible(text));
}

/// Prints a file to standard output, with every byte: it may have a checksum. A terminal sees it as
/// [`lines`].
pub(crate) fn file(text: &str) {
    if std::io::stdout().is_terminal() {
        return lines(text);
    }
    to_stdout(text);
}

/// Prints a line to standard output, in colour on a terminal.
pub(crate) fn styled(style: Style, text: &str) {
    spans(&[(style, text)]);
}

/// Prints a line of several styles.
pub(crate) fn spans(spans: &[(Style, &str)]) {
    let paint = |(style, text): &(Style, &str)| format!("{style}{}{style:#}", one_line(text));
    to_stdout(&spans.iter().map(paint).collect::<String>());
}

/// Prints to standard output. A closed pipe is no error: `nfguard show | head`. A full disk is an error: half
/// a ruleset must not pass for a whole one.
fn to_stdout(painted: &str) {
    let Err(error) = writeln!(anstream::stdout(), "{painted}") else { return };
    if error.kind() != ErrorKind::BrokenPipe {
        to_stderr(PLAIN, &format!("nfguard: standard output: {error}"));
        std::process::exit(2);
    }
}

/// Prints a warning to standard error.
pub(crate) fn warning(text: &str) {
    to_stderr(NOTE, &one_line(&format!("nfguard: {text}")));
}

/// Prints lines to standard error. Even if that is closed, the exit status has to be right. Without a style it
/// does not ask whether there is a terminal: the guard's sandbox has no system call for that.
pub(crate) fn to_stderr(style: Style, text: &str) {
    let text = visible(text);
    let _ = if style.is_plain() {
        writeln!(std::io::stderr(), "{text}")
    } else {
        writeln!(anstream::stderr(), "{style}{text}{style:#}")
    };
}

/// Returns the first problems of a list, one a line. A web page instead of a list has thousands.
pub(crate) fn some_of(problems: &[String]) -> String {
    let mut lines: Vec<String> = problems
        .iter()
        .take(MAX_PRINTED_PROBLEMS)
        .map(|problem| format!("  {}", one_line(problem)))
        .collect();
    if problems.len() > MAX_PRINTED_PROBLEMS {
        lines.push(format!("  and {} more", problems.len() - MAX_PRINTED_PROBLEMS));
    }
    lines.join("\n")
}

/// Formats a time in seconds since 1970.
pub(crate) fn time(seconds: u64) -> String {
    humantime::format_rfc3339_seconds(UNIX_EPOCH + Duration::from_secs(seconds)).to_string()
}

/// Reads a policy, and prints its warnings to standard error. A JSON answer contains the warnings.
pub(crate) fn read_policy(path: &Path, as_json: bool) -> Result<PolicyFile, Failure> {
    Ok(warned(PolicyFile::read(path)?, as_json))
}

/// Prints the warnings of a policy to standard error, unless a JSON answer contains them.
pub(crate) fn warned(file: PolicyFile, as_json: bool) -> PolicyFile {
    if !as_json {
        problems(&file.name, &file.warnings, false);
    }
    file
}

/// Prints all problems of a policy, to standard error or as JSON.
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
    for problem in problems {
        let style = match problem.severity {
            Severity::Error => BAD,
            Severity::Warning => NOTE,
        };
        to_stderr(style, &one_line(&format!("{name}:{problem}")));
    }
}

/// Prints the differences between two tables in colour.
pub(crate) fn print_changes(lines: &[String]) {
    for text in lines {
        let style = match text.as_bytes().first() {
            Some(b'-') => BAD,
            Some(b'+') => GOOD,
            _ => PLAIN,
        };
        styled(style, text);
    }
}

/// Returns the verdict of a packet in words.
pub(crate) fn fate_word(fate: Fate) -> &'static str {
    match fate {
        Fate::Accept => "accept",
        Fate::Drop => "drop",
        Fate::Reject(_) => "reject",
    }
}

/// Returns the names of TCP flags, as in nft.
pub(crate) fn tcp_flags(set: u8) -> Vec<&'static str> {
    let bits = ["fin", "syn", "rst", "psh", "ack", "urg", "ecn", "cwr"].into_iter().enumerate();
    bits.filter(|(bit, _)| set >> bit & 1 == 1).map(|(_, name)| name).collect()
}
