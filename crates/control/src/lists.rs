//! Lists of addresses, as publishers and other programs write them.
//!
//! ```text
//!  bytes ──▶ decode ──▶ text ──▶ the form, by its first lines and its columns
//!            gzip,                 ├── lines   one address, prefix or range a line; P2P; exit lists
//!            no UTF-16,            ├── table   columns, by a header, a number or what they hold
//!            no web page           ├── json    a document, or an object a line
//!                                  ├── ipset   what `ipset save` writes
//!                                  └── nft     sets of nftables
//!                                        │
//!                                        ▼
//!                      each entry, or its problem, with its place; and a summary
//! ```
//!
//! A text whose form is not known is refused. So is a line that could mean two things: a list must not
//! be taken for less or for more than it says. Whether a list may be put in at all is judged by
//! [`review`].

mod ban;
mod crowdsec;
mod decode;
mod ipset;
mod json;
mod line;
mod lines;
mod nft;
pub mod review;
mod table;

use std::collections::BTreeMap;
use std::fmt;
use std::time::{Duration, SystemTime};

use nfguard_ban::{Addresses, Port};

pub use decode::is_sqlite;

/// One entry of a list.
#[derive(Debug, PartialEq)]
pub struct Entry {
    /// The addresses.
    pub addresses: Addresses,
    /// What the list says besides; most entries say nothing.
    pub details: Option<Box<Details>>,
}

/// What a list says of a ban besides its addresses.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Details {
    /// The ports, `None` for all; empty: not said.
    pub ports: Vec<Option<Port>>,
    /// `None`: not said; `Some(None)`: without end.
    pub duration: Option<Option<Duration>>,
    /// The source.
    pub source: Option<String>,
    /// The reason.
    pub reason: Option<String>,
    /// When the ban was made, in seconds since 1970.
    pub created_at: Option<u64>,
}

/// The place of an entry, from 1.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum At {
    /// The number of a line.
    Line(usize),
    /// The number of an entry in a JSON document.
    Entry(usize),
}

/// How a list is read.
#[derive(Clone, Debug)]
pub struct Options<'a> {
    /// The column or the JSON key that has the addresses: its name, or the number of a column from 1.
    pub column: Option<&'a str>,
    /// The set to take of a file with several sets.
    pub set: Option<&'a str>,
    /// Now, which decides what is over.
    pub now: SystemTime,
}

/// What was read.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Summary {
    /// The form of the list, in words.
    pub form: String,
    /// How many entries could be read.
    pub entries: u64,
    /// How many entries could not be read.
    pub bad: u64,
    /// How many bans of the list are over.
    pub over: u64,
    /// Entries that are no bans of addresses, with their number.
    pub left_out: BTreeMap<&'static str, u64>,
}

/// Reads a list: `take` gets each entry or its problem, with its place.
///
/// # Errors
/// Why it is no list, or in which form it is that cannot be read. Entries before the error may have
/// been given out.
pub fn read(
    bytes: &[u8],
    options: &Options<'_>,
    take: &mut dyn FnMut(At, Result<Entry, String>),
) -> Result<Summary, String> {
    let text = decode::text(bytes)?;
    let mut reader = Reader { options, take, summary: Summary::default() };
    let form = reader.read(&text)?;
    reader.summary.form = form;
    Ok(reader.summary)
}

/// Takes the comment out of the options of an entry of a set, as ipset and nft write them. A comment may
/// have quotes and any word of an option in it.
fn without_comment(options: &str) -> (String, Option<&str>) {
    const KEY: &str = "comment";
    let parts = options.match_indices(KEY).find_map(|(at, _)| {
        let (before, rest) = (options.get(..at)?, options.get(at + KEY.len()..)?);
        let is_word = before.is_empty() || before.ends_with(char::is_whitespace);
        let is_key = is_word && rest.starts_with(|it: char| it.is_whitespace() || it == '"');
        is_key.then_some((before, rest.trim()))
    });
    let Some((before, rest)) = parts else { return (options.to_owned(), None) };
    let quoted = rest.strip_prefix('"').and_then(|rest| rest.rsplit_once('"'));
    let (comment, after) =
        quoted.or_else(|| rest.split_once(char::is_whitespace)).unwrap_or((rest, ""));
    (format!("{before} {after}"), Some(comment))
}

/// A list that is being read.
struct Reader<'a> {
    options: &'a Options<'a>,
    take: &'a mut dyn FnMut(At, Result<Entry, String>),
    summary: Summary,
}

impl Reader<'_> {
    /// Recognises the form, reads the list, and returns the form in words.
    fn read(&mut self, text: &str) -> Result<String, String> {
        let first = text.lines().map(str::trim).find(|line| !is_comment(line)).unwrap_or_default();
        // An IPv6 address may stand in brackets.
        let word = first.split([' ', '\t', ',', ';']).next().unwrap_or_default();
        let is_address = word.parse::<Addresses>().is_ok();
        if text.trim() == "null" || first.starts_with(['{', '[']) && !is_address {
            return json::read(self, text);
        }
        if ipset::is_ipset(first) {
            return ipset::read(self, text);
        }
        if nft::is_nft(first) {
            return nft::read(self, text);
        }
        lines::read(self, text)
    }

    fn entry(&mut self, at: At, addresses: Addresses, details: Option<Details>) {
        self.summary.entries += 1;
        (self.take)(at, Ok(Entry { addresses, details: details.map(Box::new) }));
    }

    fn bad(&mut self, at: At, problem: impl ToString) {
        self.summary.bad += 1;
        (self.take)(at, Err(problem.to_string()));
    }

    /// Takes the text of addresses.
    fn addresses(&mut self, at: At, text: &str, details: Option<Details>) {
        match text.parse() {
            Ok(addresses) => self.entry(at, addresses, details),
            Err(error) => self.bad(at, error),
        }
    }

    /// Takes a ban with the time that is left of it, in milliseconds; `None`: without end.
    fn timed(&mut self, at: At, text: &str, left: Option<i128>, details: Details) {
        let duration = match left {
            None => None,
            Some(..=0) => {
                self.summary.over += 1;
                return;
            }
            Some(left) => Some(Duration::from_millis(u64::try_from(left).unwrap_or(u64::MAX))),
        };
        self.addresses(at, text, Some(Details { duration: Some(duration), ..details }));
    }

    fn leave_out(&mut self, why: &'static str) {
        *self.summary.left_out.entry(why).or_default() += 1;
    }

    /// Tells whether a set of this name is taken, and notes the name.
    fn is_wanted_set(&self, name: &str) -> bool {
        self.options.set.is_none_or(|wanted| wanted == name)
    }

    /// Refuses a file with several sets of which none was named: one of them may be a list of friends.
    fn check_sets(&self, names: &[String]) -> Result<(), String> {
        match (self.options.set, names) {
            (Some(wanted), names) if !names.iter().any(|name| name == wanted) => {
                Err(format!("the file has no set {wanted:?}; it has {}", names.join(", ")))
            }
            (None, [_, _, ..]) => Err(format!(
                "the file has {} sets: {}. Name the one to take with --set",
                names.len(),
                some_names(names)
            )),
            _ => Ok(()),
        }
    }
}

/// Tells whether a line says nothing.
fn is_comment(line: &str) -> bool {
    line.is_empty() || line.starts_with(['#', ';']) || line.starts_with("//")
}

/// Returns the first names of many.
fn some_names<T: AsRef<str>>(names: &[T]) -> String {
    const SHOWN: usize = 12;
    let shown: Vec<&str> = names.iter().take(SHOWN).map(AsRef::as_ref).collect();
    let more = if names.len() > SHOWN { ", …" } else { "" };
    format!("{}{more}", shown.join(", "))
}

/// Cuts a text to what an error shows.
fn cut(text: &str) -> String {
    text.chars().take(80).collect()
}

impl fmt::Display for At {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            At::Line(number) => write!(f, "line {number}"),
            At::Entry(number) => write!(f, "entry {number}"),
        }
    }
}

#[cfg(test)]
mod tests;
