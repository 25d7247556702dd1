//! Reads the filters of Fail2Ban, and finds in a log what they call a failure.
//!
//! ```text
//!  filter.d/NAME.conf ─► ini ─► config ─────────► python ─► translate ─► matcher
//!  and what it includes         %(name)s, <name>  syntax    for `regex`   one look for all
//!                                                           and `fancy`
//!
//!  line ─► date ─► prefregex ─► ignoreregex, failregex ─► session ─► failure
//! ```
//!
//! A filter comes as it is, through a closure that gives the text of a file. [`Filter::read`] names
//! every mistake with its file and line. [`Filter::line`] takes one line and gives the failures that
//! are complete with it. [`State`] is what it remembers between lines: it can be saved.
//!
//! # Expressions
//!
//! Python's syntax is translated. An expression runs in linear time, unless it has a look-around, a
//! back-reference, a condition or an atomic group. Such a one runs on an engine that goes back, with a
//! limit of steps; a cheap expression that matches at least as much comes before it. A line
//! that reaches the limit is counted in [`State::limits_reached`] and is no failure.
//! [`Filter::backtracking`] names such expressions.
//!
//! # What differs
//!
//! - `\d` is a digit of ASCII, and each character beyond ASCII is a letter for `\w` and `\b`.
//! - No name is looked up: `<HOST>` gives the name as it stands in the line.
//! - A line without a time has the last one that was read, else that of the clock.
//! - Of several dates in a line the first counts, always; how often a format was met does not.
//!
//! # Example
//!
//! ```
//! use nfguard_jail::fail2ban::{Clock, Filter, State};
//! use nfguard_jail::time::{Time, Zone};
//! use std::collections::BTreeMap;
//!
//! let text = "[Definition]\nfailregex = ^ login of <F-USER>\\S+</F-USER> from <HOST> failed$\n";
//! let filter = Filter::read("shop.conf", &BTreeMap::new(), &mut |name| {
//!     (name == "shop.conf").then(|| text.to_owned())
//! })
//! .expect("a filter");
//! let clock = Clock { now: Time::from_seconds(1_800_000_000).expect("a time"), zone: &Zone::UTC,
//!     is_near: false };
//! let line = b"2026-11-30 07:00:00 login of root from 192.0.2.7 failed";
//! let failures = filter.line(&mut State::default(), line, &clock);
//! assert_eq!(failures[0].client, "192.0.2.7");
//! assert_eq!(failures[0].user.as_deref(), Some("root"));
//! assert_eq!(failures[0].time.to_string(), "2026-11-30T07:00:00Z");
//! ```

mod civil;
mod config;
mod date;
mod engine;
mod filter;
mod formats;
mod import;
mod ini;
mod matcher;
mod moment;
mod python;
mod session;
mod tags;
mod translate;

pub(crate) use filter::journal_units;
pub use filter::{Clock, Failure, Filter, Stamp};
pub use import::{Import, Machine, import};
pub use session::State;

use std::fmt;

/// Says what is wrong with a filter, or is worth knowing, and where that stands.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Mistake {
    /// The file as its reader knows it.
    pub file: String,
    /// The line, from 1.
    pub line: usize,
    /// What is wrong.
    pub message: String,
}

impl fmt::Display for Mistake {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}:{}: {}", self.file, self.line, self.message)
    }
}
