//! A filter: what its files say, compiled.

use super::Mistake;
use super::config::Config;
use super::date::DateFormats;
use super::engine::LimitReached;
use super::ini::Line;
use super::matcher::{Field, Found, Pattern, Patterns};
use super::session::State;
use super::tags;
use crate::time::{Time, Zone};
use std::borrow::Cow;
use std::collections::BTreeMap;
use std::ops::Range;

/// Most lines that an expression may span.
const MAX_LINES: usize = 100;
/// Longest window of lines, in bytes. Each line makes a search through all of it.
const MAX_WINDOW_BYTES: usize = 32 * 1024;

/// How a match of the journal by its unit begins.
pub(crate) const UNIT_FIELD: &str = "_SYSTEMD_UNIT=";
/// Units that Fail2Ban's filters name, and the name that Debian has for them.
const OTHER_UNIT_NAMES: [(&str, &str); 1] = [("sshd.service", "ssh.service")];

/// Returns the units that matches of the journal name. They are what the journal itself vouches for: a
/// process chooses its own `_COMM` and `SYSLOG_IDENTIFIER`, and anyone can run an `_EXE`.
pub(crate) fn journal_units(matches: &str) -> Vec<String> {
    let named = matches.split_whitespace().filter_map(|word| word.strip_prefix(UNIT_FIELD));
    let named: Vec<&str> = named.collect();
    let others = OTHER_UNIT_NAMES.iter().filter(|(name, _)| named.contains(name));
    let others: Vec<&str> = others.map(|(_, other)| *other).collect();
    let mut units: Vec<String> = named.into_iter().chain(others).map(ToOwned::to_owned).collect();
    units.sort();
    units.dedup();
    units
}

/// The time from which a date without year is dated, and the zone of a time without one.
#[derive(Clone, Copy, Debug)]
pub struct Clock<'c> {
    /// The time when the line was written, as far as it is known.
    pub now: Time,
    /// The zone of the log.
    pub zone: &'c Zone,
    /// Whether the line may be from before or after `now`. A date without year is then in the year that
    /// brings it nearest; else it is in the last year in which it is not more than a day ahead.
    pub is_near: bool,
}

/// Where the time of a line stands.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Stamp {
    /// In the line.
    InLine,
    /// Beside the line, as in the journal: it is the clock's.
    Clock,
}

/// A failure that a filter has found.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Failure {
    /// The address, name or ID, as it stands in the log.
    pub client: String,
    /// The last user name of the session.
    pub user: Option<String>,
    /// All user names of the session.
    pub users: Vec<String>,
    /// The time of the line with which the failure is complete.
    pub time: Time,
    /// Which `failregex` matched, from 0.
    pub regex: usize,
    /// How many lines make up the failure.
    pub lines: u32,
}

/// A filter that is ready to read lines.
#[derive(Debug)]
pub struct Filter {
    prefix: Option<Pattern>,
    failures: Patterns,
    ignored: Patterns,
    dates: DateFormats,
    window_lines: usize,
    journal_match: Vec<String>,
    notes: Vec<Mistake>,
    backtracking: Vec<Mistake>,
}

impl Filter {
    /// Reads the filter in the file `name` and what it includes, with the options that a jail
    /// gives it, such as `mode`.
    ///
    /// `read_file` returns the text of a file, or `None` if there is none. Paths of includes are
    /// made from `name`.
    pub fn read(
        name: &str,
        options: &BTreeMap<String, String>,
        read_file: &mut dyn FnMut(&str) -> Option<String>,
    ) -> Result<Self, Vec<Mistake>> {
        let (mut mistakes, mut notes) = (Vec::new(), Vec::new());
        let Some(config) = Config::read(name, options, read_file, &mut mistakes, &mut notes) else {
            return Err(mistakes);
        };
        let mut lines = |key| config.option(key, &mut mistakes);
        let prefix = lines("prefregex").filter(|lines| !lines.is_empty());
        let (failures, ignored) = (lines("failregex"), lines("ignoreregex"));
        let (dates, window) = (lines("datepattern"), lines("maxlines"));
        let journal_match = lines("journalmatch").unwrap_or_default();
        let failures = failures.unwrap_or_default();
        if failures.is_empty() {
            mistakes.push(config.place().mistake("the filter has no `failregex`"));
        }
        let window_lines = window_lines(window.as_deref(), &mut mistakes);
        let is_multiline = window_lines > 1;
        let prefix_line = prefix.as_deref().map(joined);
        let prefix = prefix_line.as_ref().and_then(|line| {
            let pattern = Pattern::compile_alone(&line.text, is_multiline);
            pattern
                .map_err(|error| mistakes.push(line.place.mistake(format!("prefregex: {error}"))))
                .ok()
        });
        let filter = Self {
            failures: Patterns::compile("failregex", &failures, is_multiline, &mut mistakes),
            ignored: Patterns::compile(
                "ignoreregex",
                ignored.as_deref().unwrap_or_default(),
                is_multiline,
                &mut mistakes,
            ),
            dates: DateFormats::read(
                dates.as_deref().filter(|lines| !lines.is_empty()),
                &mut mistakes,
            ),
            window_lines,
            journal_match: journal_match.into_iter().map(|line| line.text).collect(),
            notes,
            backtracking: Vec::new(),
            prefix,
        };
        let has_session = |pattern: &Pattern| pattern.has_client() || pattern.has(Field::Session);
        let has_client = filter.prefix.as_ref().is_some_and(has_session);
        if mistakes.is_empty() {
            for (pattern, line) in filter.failures.iter().zip(&failures) {
                if !has_client && !has_session(pattern) {
                    mistakes.push(
                        line.place.mistake("failregex: no <HOST>, <ADDR>, <F-ID> or the like"),
                    );
                }
            }
        }
        if !mistakes.is_empty() {
            return Err(mistakes);
        }
        Ok(filter.with_notes(
            prefix_line.as_ref(),
            &failures,
            ignored.as_deref().unwrap_or_default(),
        ))
    }

    fn with_notes(mut self, prefix: Option<&Line>, failures: &[Line], ignored: &[Line]) -> Self {
        let message = "needs look-around, a back-reference, a condition or an atomic group";
        let mut told = Vec::new();
        if let (Some(pattern), Some(line)) = (&self.prefix, prefix)
            && pattern.is_backtracking()
        {
            told.push(line.place.mistake(format!("prefregex {message}")));
        }
        for (option, patterns, lines) in
            [("failregex", &self.failures, failures), ("ignoreregex", &self.ignored, ignored)]
        {
            let numbered = patterns.iter().zip(lines).enumerate();
            told.extend(numbered.filter(|(_, (pattern, _))| pattern.is_backtracking()).map(
                |(number, (_, line))| {
                    line.place.mistake(format!("{option} {} {message}", number + 1))
                },
            ));
        }
        self.backtracking = told;
        let all =
            [("failregex", &self.failures, failures), ("ignoreregex", &self.ignored, ignored)];
        let lines = all.into_iter().flat_map(|(option, patterns, lines)| {
            patterns.iter().zip(lines).map(move |(pattern, line)| (option, pattern, line))
        });
        let prefix = self.prefix.as_ref().zip(prefix).map(|(it, line)| ("prefregex", it, line));
        let mut notes = Vec::new();
        for (option, pattern, line) in prefix.into_iter().chain(lines) {
            for tag in tags::not_given(&line.text) {
                let message = format!("{option}: no option gives {tag}, so it is text");
                notes.push(line.place.mistake(message));
            }
            for tag in pattern.unknown_tags() {
                notes.push(line.place.mistake(format!("{option}: nothing is made of {tag}")));
            }
            if pattern.has(Field::Cidr) {
                let message = "a network that <SUBNET> finds is told, and banned by no jail";
                notes.push(line.place.mistake(format!("{option}: {message}")));
            }
        }
        self.notes.extend(notes);
        self
    }

    /// Returns which entries of the journal the filter is for, as journalctl(1) writes matches.
    pub fn journal_match(&self) -> &[String] {
        &self.journal_match
    }

    /// Returns the expressions that do not run in linear time.
    pub fn backtracking(&self) -> &[Mistake] {
        &self.backtracking
    }

    /// Returns what is worth knowing and no mistake, such as an included file that is not there.
    pub fn notes(&self) -> &[Mistake] {
        &self.notes
    }

    /// Takes a line that has its time in it, and returns the failures that are complete with it.
    pub fn line(&self, state: &mut State, line: &[u8], clock: &Clock<'_>) -> Vec<Failure> {
        self.stamped_line(state, line, Stamp::InLine, clock)
    }

    /// Takes a line whose time stands where `stamp` says.
    pub fn stamped_line(
        &self,
        state: &mut State,
        line: &[u8],
        stamp: Stamp,
        clock: &Clock<'_>,
    ) -> Vec<Failure> {
        let line = String::from_utf8_lossy(line);
        let line = line.trim_end_matches(['\r', '\n']);
        let (text, time) = match stamp {
            Stamp::Clock => (Cow::Borrowed(line), Some(clock.now)),
            Stamp::InLine => match self.dates.find(line, clock, &mut state.limits_reached) {
                Some(date) if date.range.is_empty() => (Cow::Borrowed(line), date.time),
                Some(date) => {
                    let (before, after) = (&line[..date.range.start], &line[date.range.end..]);
                    (Cow::Owned(format!("{before}{after}")), date.time)
                }
                None => (Cow::Borrowed(line), None),
            },
        };
        let time = time.or(state.last_time).unwrap_or(clock.now);
        state.last_time = Some(time);
        if self.window_lines > 1 {
            self.window(state, &text, time)
        } else {
            self.text(state, &text, time)
        }
    }

    /// Looks for a failure in one line.
    fn text(&self, state: &mut State, text: &str, time: Time) -> Vec<Failure> {
        let found = self.find(text, &mut state.limits_reached);
        found.into_iter().filter_map(|found| failure(state, &found, time)).collect()
    }

    /// Looks for a failure in the last lines. Those that have matched leave the window.
    fn window(&self, state: &mut State, text: &str, time: Time) -> Vec<Failure> {
        state.window.push_back(text.to_owned());
        let bytes = |window: &std::collections::VecDeque<String>| {
            window.iter().map(|line| line.len() + 1).sum::<usize>()
        };
        while state.window.len() > self.window_lines
            || (state.window.len() > 1 && bytes(&state.window) > MAX_WINDOW_BYTES)
        {
            state.window.pop_front();
        }
        let joined: String = state.window.iter().flat_map(|line| [line.as_str(), "\n"]).collect();
        let Some(found) = self.find(&joined, &mut state.limits_reached) else { return Vec::new() };
        let mut start = 0;
        let mut kept = std::collections::VecDeque::new();
        for line in std::mem::take(&mut state.window) {
            let range = start..start + line.len() + 1;
            start = range.end;
            if !found.has_matched(&range) {
                kept.push_back(line);
            }
        }
        state.window = kept;
        failure(state, &found, time).into_iter().collect()
    }

    /// Returns the first `failregex` that matches a text, unless something says to ignore it.
    fn find<'t>(&self, text: &'t str, limits: &mut u64) -> Option<Match<'t>> {
        let mut content = text;
        let mut offset = 0;
        let mut common = None;
        if let Some(prefix) = &self.prefix {
            let found = prefix.find(text).unwrap_or_else(|LimitReached| {
                *limits += 1;
                None
            })?;
            if let Some(inner) = found.get(Field::Content) {
                offset = inner.as_ptr() as usize - text.as_ptr() as usize;
                content = inner;
            }
            common = Some(found);
        }
        let (regex, found) = self.failures.find(content, limits)?;
        if self.ignored.find(content, limits).is_some() {
            return None;
        }
        let moved = |range: &Range<usize>| range.start + offset..range.end + offset;
        let span = moved(&found.span);
        let gaps = found.gaps.iter().map(moved).collect();
        let found = match &common {
            Some(common) => found.or(common),
            None => found,
        };
        Some(Match { regex, found, span, gaps })
    }
}

/// A `failregex` that matched.
struct Match<'t> {
    regex: usize,
    found: Found<'t>,
    span: Range<usize>,
    gaps: Vec<Range<usize>>,
}

impl Match<'_> {
    /// Tells whether a line of the window, with its line break, is part of the match and in no gap. A
    /// gap begins with the line break before it, and ends before that of its last line.
    fn has_matched(&self, line: &Range<usize>) -> bool {
        let is_in = |gap: &Range<usize>| gap.start < line.start && line.end <= gap.end + 1;
        let overlaps =
            line.start < self.span.end.max(self.span.start + 1) && self.span.start < line.end;
        overlaps && !self.gaps.iter().any(is_in)
    }
}

fn failure(state: &mut State, found: &Match<'_>, time: Time) -> Option<Failure> {
    let complete = state.add(&found.found, time)?;
    Some(Failure {
        client: complete.client,
        user: complete.user,
        users: complete.users,
        time,
        regex: found.regex,
        lines: complete.lines,
    })
}

/// Joins the lines of one expression.
fn joined(lines: &[Line]) -> Line {
    let texts: Vec<&str> = lines.iter().map(|line| line.text.as_str()).collect();
    Line { text: texts.join("\n"), place: lines[0].place.clone() }
}

fn window_lines(lines: Option<&[Line]>, mistakes: &mut Vec<Mistake>) -> usize {
    let Some(line) = lines.and_then(<[Line]>::first) else { return 1 };
    match line.text.parse() {
        Ok(count @ 1..=MAX_LINES) => count,
        _ => {
            mistakes.push(
                line.place.mistake(format!("maxlines: expected a number from 1 to {MAX_LINES}")),
            );
            1
        }
    }
}
