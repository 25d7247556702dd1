//! Finds the date in a line: the dates that programs usually write, and `datepattern`.

use super::Clock;
use super::Mistake;
use super::engine::{Engine, Groups, LimitReached, SIZE_LIMIT};
use super::formats::{EPOCH_PLACES, FORMATS, Offset, WEAK_FORMATS};
use super::ini::Line;
use super::moment::{self, Part, Style};
use super::python;
use super::translate::{self, Dialect};
use crate::time::Time;
use std::ops::Range;
use std::sync::{Arc, LazyLock, OnceLock};

/// A pattern that begins with this is looked for at the beginning of a line.
const LINE_BEGIN: &str = "{^LN-BEG}";

/// The beginning of a line, with the two characters before a date that `{^LN-BEG}` ignores.
const LINE_EDGE: &str = "^[[:ascii:]--[0-9A-Za-z_]]{0,2}";
/// A place that is not within a word: what is before it, or behind it, is no part of one.
const WORD_EDGE: &str = r"(?:(?-u:\b{start-half})|(?-u:\b{end-half}))";
/// The same for the backtracking engine.
const WORD_EDGE_BACKTRACKING: &str = r"(?:(?<!\w)|(?!\w))";

/// What must be before or after a date.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Edge {
    /// Anything.
    Any,
    /// The end of a word.
    Word,
    /// Nothing, or two characters that are no letters and no digits.
    Line,
}

/// One compiled form of a date.
#[derive(Debug)]
struct Form {
    engine: Engine,
    superset: String,
    /// Each part of a date with the number of its group.
    parts: Vec<(Part, usize)>,
    /// The group that is cut out of the line.
    cut: usize,
    is_anchored: bool,
}

/// The dates that a filter looks for. Those that most filters look for are shared.
#[derive(Clone, Debug, Default)]
pub(super) struct DateFormats {
    /// Those at the beginning of a line, for which the rest of it is not read. The first counts.
    anchored: Vec<Arc<Forms>>,
    anywhere: Vec<Arc<Forms>>,
}

/// What is looked for with `{^LN-BEG}` alone. The test below compiles it.
static USUAL_AT_LINE: LazyLock<Arc<Forms>> = LazyLock::new(|| {
    let mut forms = Vec::new();
    add_usual_at_line(&mut forms).unwrap_or_default();
    Forms::new(forms)
});

/// What is looked for without `datepattern`, behind the beginning of a line.
static USUAL_ANYWHERE: LazyLock<Arc<Forms>> = LazyLock::new(|| {
    let mut forms = Vec::new();
    add_usual_anywhere(&mut forms).unwrap_or_default();
    // A number that begins a line is among those at the beginning.
    forms.retain(|form| !form.is_anchored);
    Forms::new(forms)
});

/// Forms, and one look for all of them.
#[derive(Debug)]
struct Forms {
    forms: Vec<Form>,
    /// Compiled for the first line. The lines of the journal have their time beside them. `None` if it is
    /// too large: each form is then looked for.
    set: OnceLock<Option<regex::RegexSet>>,
}

/// Where a date stands, and its time if it is one.
#[derive(Debug)]
pub(super) struct Date {
    pub(super) range: Range<usize>,
    pub(super) time: Option<Time>,
}

impl DateFormats {
    /// Reads the lines of `datepattern`. Without one, the usual dates are looked for.
    pub(super) fn read(lines: Option<&[Line]>, mistakes: &mut Vec<Mistake>) -> Self {
        let mut formats = Self::default();
        let Some(lines) = lines else {
            formats.add_usual();
            return formats;
        };
        for line in lines {
            if let Err(error) = formats.add(&line.text) {
                mistakes.push(line.place.mistake(format!("datepattern: {error}")));
            }
        }
        formats
    }

    fn add_usual(&mut self) {
        self.anchored.push(Arc::clone(&USUAL_AT_LINE));
        self.anywhere.push(Arc::clone(&USUAL_ANYWHERE));
    }

    fn add(&mut self, pattern: &str) -> Result<(), String> {
        match pattern.to_ascii_uppercase().as_str() {
            "{DEFAULT}" => self.add_usual(),
            LINE_BEGIN => self.anchored.push(Arc::clone(&USUAL_AT_LINE)),
            _ => {
                let mut forms = Vec::new();
                add(pattern, &mut forms)?;
                forms.iter().try_for_each(|form| form.engine.check())?;
                let (anchored, anywhere) = forms.into_iter().partition(|form| form.is_anchored);
                self.anchored.push(Forms::new(anchored));
                self.anywhere.push(Forms::new(anywhere));
            }
        }
        Ok(())
    }

    /// Looks for the date that stands first in a line. Each form that reaches the limit of its steps adds
    /// one to `limits`.
    pub(super) fn find(&self, line: &str, clock: &Clock<'_>, limits: &mut u64) -> Option<Date> {
        let at_begin = self.anchored.iter().find_map(|forms| forms.find(line, clock, limits));
        let anywhere = || {
            let each = self.anywhere.iter().filter_map(|forms| forms.find(line, clock, limits));
            each.min_by_key(|(start, _)| *start)
        };
        at_begin.or_else(anywhere).map(|(_, date)| date)
    }
}

impl Forms {
    fn new(forms: Vec<Form>) -> Arc<Self> {
        Arc::new(Self { forms, set: OnceLock::new() })
    }

    /// Returns the forms that a line may have.
    fn candidates(&self, line: &str) -> impl Iterator<Item = &Form> {
        let compile = || {
            let supersets = self.forms.iter().map(|form| form.superset.as_str());
            regex::RegexSetBuilder::new(supersets).size_limit(SIZE_LIMIT).build().ok()
        };
        let set = match self.forms.as_slice() {
            [] => None,
            [only] if !only.engine.is_backtracking() => None,
            _ => self.set.get_or_init(compile).as_ref(),
        };
        let matches = set.map(|set| set.matches(line));
        let is_candidate =
            move |number: &usize| matches.as_ref().is_none_or(|found| found.matched(*number));
        let numbered = self.forms.iter().enumerate();
        numbered.filter(move |(number, _)| is_candidate(number)).map(|(_, form)| form)
    }

    fn find(&self, line: &str, clock: &Clock<'_>, limits: &mut u64) -> Option<(usize, Date)> {
        let mut best: Option<(usize, Date)> = None;
        for form in self.candidates(line) {
            let found = form.engine.find(line).unwrap_or_else(|LimitReached| {
                *limits += 1;
                None
            });
            let found = found.and_then(|groups| form.date(line, clock, &groups));
            let Some((start, date)) = found else { continue };
            if form.is_anchored {
                return Some((start, date));
            }
            if best.as_ref().is_none_or(|(first, _)| start < *first) {
                best = Some((start, date));
            }
        }
        best
    }
}

/// Returns the expression of a format.
fn of_format(format: &str, offset: Offset) -> Result<String, String> {
    let mut out = String::new();
    let mut rest = format;
    while let Some(next) = rest.chars().next() {
        rest = &rest[next.len_utf8()..];
        match next {
            '%' => {
                let is_second = rest.starts_with('S') || rest.starts_with("ExS");
                rest = placeholder(rest, &mut out)?;
                if is_second {
                    out += &format!("(?:[.,]{})?", Part::Fraction.expression(Style::Loose));
                }
            }
            ' ' => out += " {1,2}",
            '.' => out += "[.]",
            other => out.push(other),
        }
    }
    if offset == Offset::Maybe {
        out += &format!("(?: ?{})?", Part::Offset.expression(Style::Padded));
    }
    Ok(out)
}

/// Returns the expressions of all formats: those that stand anywhere, or also those that are weak.
fn usual(with_weak: bool) -> Result<Vec<String>, String> {
    let weak = WEAK_FORMATS.iter().map(|format| (*format, Offset::Never));
    let all = FORMATS.into_iter().chain(weak.filter(|_| with_weak));
    all.map(|(format, offset)| of_format(format, offset)).collect()
}

fn add_usual_anywhere(forms: &mut Vec<Form>) -> Result<(), String> {
    for date in usual(false)? {
        framed(&date, false, forms)?;
    }
    add_epoch(Part::Epoch, false, forms)?;
    framed(&Part::Tai.expression(Style::Padded), false, forms)
}

fn add_usual_at_line(forms: &mut Vec<Form>) -> Result<(), String> {
    for date in usual(true)? {
        framed(&date, true, forms)?;
    }
    framed(&Part::Epoch.expression(Style::Padded), true, forms)?;
    framed(&Part::Tai.expression(Style::Padded), true, forms)
}

/// Adds the forms of one line of `datepattern` that is not shared.
fn add(pattern: &str, forms: &mut Vec<Form>) -> Result<(), String> {
    if pattern.eq_ignore_ascii_case("{NONE}") {
        forms.push(Form::compile("^()", (Edge::Any, Edge::Any))?);
        return Ok(());
    }
    let (body, is_at_line) = match without(LINE_BEGIN, pattern) {
        Some(body) => (body, true),
        None => (pattern, false),
    };
    let date = "{DATE}";
    if let Some(at) = body.to_ascii_uppercase().find(date) {
        let (before, after) = (with_parts(&body[..at])?, with_parts(&body[at + date.len()..])?);
        let numbers = [Part::Epoch, Part::Tai].map(|part| part.expression(Style::Padded));
        for date in usual(true)?.into_iter().chain(numbers) {
            framed(&format!("{before}{date}{after}"), is_at_line, forms)?;
        }
        return Ok(());
    }
    match body.to_ascii_uppercase().as_str() {
        "EPOCH" => add_epoch(Part::Epoch, is_at_line, forms),
        "LEPOCH" => add_epoch(Part::LongEpoch, is_at_line, forms),
        "TAI64N" => framed(&Part::Tai.expression(Style::Padded), is_at_line, forms),
        _ => framed(&with_parts(body)?, is_at_line, forms),
    }
}

/// Returns what follows a word of `datepattern`, in whatever case that is written.
fn without<'t>(word: &str, text: &'t str) -> Option<&'t str> {
    let (begin, rest) = text.split_at_checked(word.len())?;
    begin.eq_ignore_ascii_case(word).then_some(rest)
}

/// Adds the places where a bare number is a time.
fn add_epoch(part: Part, is_at_line: bool, forms: &mut Vec<Form>) -> Result<(), String> {
    let number = part.expression(Style::Padded);
    if is_at_line {
        return framed(&number, true, forms);
    }
    for (before, after) in EPOCH_PLACES {
        let place = format!("{before}({number}){after}");
        forms.push(Form::compile(&place, (Edge::Any, Edge::Word))?);
    }
    Ok(())
}

/// Works out what must be around a pattern, and which part of it is cut out.
fn framed(body: &str, is_at_line: bool, forms: &mut Vec<Form>) -> Result<(), String> {
    let (mut begin, mut end) = (if is_at_line { Edge::Line } else { Edge::Word }, Edge::Word);
    let mut body = body;
    if let Some(open) = body.strip_suffix("**") {
        (body, end) = (open, Edge::Any);
    }
    if let Some(open) = without("{UNB}", body) {
        (body, begin, end) = (open, Edge::Any, Edge::Any);
    }
    let (anchors, rest) = body.split_at(body.len() - body.trim_start_matches('^').len());
    if !anchors.is_empty() {
        begin = Edge::Any;
    }
    let is_marked = python::parse(body)?.names.iter().any(Option::is_none);
    let whole = if is_marked { body.to_owned() } else { format!("{anchors}({rest})") };
    forms.push(Form::compile(&whole, (begin, end))?);
    Ok(())
}

impl Form {
    fn compile(pattern: &str, (begin, end): (Edge, Edge)) -> Result<Self, String> {
        let expression = python::parse(pattern)?;
        let is_linear = translate::is_linear(&expression.root);
        let is_wanted = |number: usize, name: &str| number == 1 || Part::named(name).is_some();
        let write = |dialect| {
            let written = translate::write(&expression, dialect, &is_wanted);
            let edge = |edge| match (edge, dialect) {
                (Edge::Any, _) => "",
                (Edge::Line, _) => LINE_EDGE,
                (Edge::Word, Dialect::Backtracking) => WORD_EDGE_BACKTRACKING,
                (Edge::Word, _) => WORD_EDGE,
            };
            (format!("{}(?:{}){}", edge(begin), written.text, edge(end)), written.numbers)
        };
        let dialect = if is_linear { Dialect::Linear } else { Dialect::Backtracking };
        let (full, numbers) = write(dialect);
        let parts = expression
            .names
            .iter()
            .zip(&numbers)
            .filter_map(|(name, number)| Some((Part::named(name.as_deref()?)?, (*number)?)));
        // The group without a name is what is cut out.
        let mut unnamed = expression.names.iter().zip(&numbers).filter(|(name, _)| name.is_none());
        Ok(Self {
            engine: Engine::new(full, dialect),
            superset: write(Dialect::Superset).0,
            parts: parts.collect(),
            cut: unnamed.next().and_then(|(_, number)| *number).unwrap_or(0),
            is_anchored: begin == Edge::Line || pattern.starts_with('^'),
        })
    }

    /// Returns where the date begins, and the date.
    fn date(&self, line: &str, clock: &Clock<'_>, groups: &Groups<'_>) -> Option<(usize, Date)> {
        let cut = groups.range(self.cut)?;
        let parts = self
            .parts
            .iter()
            .filter_map(|(part, group)| Some((*part, line.get(groups.range(*group)?)?)));
        Some((cut.start, Date { range: cut, time: moment::time(parts, clock) }))
    }
}

/// Puts expressions in the place of `%Y`, `{EPOCH}` and the like.
fn with_parts(pattern: &str) -> Result<String, String> {
    let mut out = String::with_capacity(pattern.len() * 8);
    let mut rest = pattern;
    while let Some(at) = rest.find(['%', '{']) {
        out.push_str(&rest[..at]);
        rest = &rest[at..];
        let named =
            [("{EPOCH}", Part::Epoch), ("{LEPOCH}", Part::LongEpoch), ("{TAI64N}", Part::Tai)];
        let named = named.iter().find_map(|(name, part)| Some((*part, without(name, rest)?)));
        if let Some((part, after)) = named {
            out += &part.expression(Style::Padded);
            rest = after;
        } else if let Some(after) = rest.strip_prefix('{') {
            out.push('{');
            rest = after;
        } else {
            rest = placeholder(&rest[1..], &mut out)?;
        }
    }
    out.push_str(rest);
    Ok(out)
}

/// Writes what stands for `%` and the text, and returns what follows. `%Ex` before a letter asks for
/// two digits.
fn placeholder<'t>(text: &'t str, out: &mut String) -> Result<&'t str, String> {
    let (style, named) = match text.strip_prefix("Ex").or_else(|| text.strip_prefix('E')) {
        Some(named) if text.starts_with("Ex") => (Style::Padded, named),
        Some(named) => (Style::Loose, named),
        None => (Style::Loose, text),
    };
    let mut rest = named.chars();
    let Some(letter) = rest.next() else { return Err("a `%` at the end".to_owned()) };
    let part = match letter {
        '%' if named.len() == text.len() => {
            out.push('%');
            return Ok(rest.as_str());
        }
        'Y' => Part::Year,
        'y' => Part::YearOfCentury,
        'm' => Part::Month,
        'b' | 'B' => Part::MonthName,
        'd' => Part::Day,
        'j' => Part::DayOfYear,
        'a' | 'A' => Part::WeekDay,
        'H' | 'k' => Part::Hour,
        'I' | 'l' => Part::HourOfHalf,
        'p' => Part::Half,
        'M' => Part::Minute,
        'S' => Part::Second,
        'f' => Part::Fraction,
        'z' | 'Z' if style == Style::Padded => Part::AnyZone,
        'z' => Part::Offset,
        'Z' => Part::ZoneName,
        other => return Err(format!("`%{other}` is not carried over")),
    };
    let style = match letter {
        'B' | 'A' => Style::Full,
        // These are padded with blanks.
        'k' | 'l' => Style::Loose,
        _ => style,
    };
    *out += &part.expression(style);
    Ok(rest.as_str())
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::time::Zone;
    use jiff::fmt::strtime;

    /// 2026-11-18 21:34:56, and a time of which all numbers have one digit: 2026-07-07 05:06:07.
    const SECONDS: [i64; 2] = [1_795_037_696, 1_783_400_767];

    #[test]
    fn each_format_is_read_as_strftime_writes_it() {
        let mut forms = Vec::new();
        assert_eq!(add_usual_at_line(&mut forms), Ok(()));
        assert_eq!(add_usual_anywhere(&mut forms), Ok(()));
        assert!(forms.iter().all(|form| form.engine.check() == Ok(())));
        let formats = DateFormats::read(None, &mut Vec::new());
        let weak = WEAK_FORMATS.map(|format| (format, Offset::Never));
        for (format, offset) in FORMATS.into_iter().chain(weak) {
            for seconds in SECONDS {
                let zone = Zone::parse("+01:00").unwrap();
                let now = Time::from_seconds(seconds + 3600).unwrap();
                let clock = Clock { now, zone: &zone, is_near: false };
                let moment = jiff::Timestamp::from_second(seconds).unwrap();
                let write = |format: &str, zone: &str| {
                    let zone = jiff::tz::TimeZone::get(zone).unwrap();
                    strtime::format(format, &moment.to_zoned(zone)).unwrap()
                };
                let format = format.replace("Ex", "");
                let mut texts = vec![write(&format, "Africa/Algiers")];
                texts.push(write(&format.replace("%b %d", "%b %e"), "Africa/Algiers"));
                texts.push(write(&format.replace("%S", "%S.%6f"), "Africa/Algiers"));
                if offset == Offset::Maybe {
                    texts.push(write(&format!("{format}%:z"), "America/New_York"));
                    texts.push(write(&format!("{format} %z"), "Asia/Tokyo"));
                    texts.push(write(&format!("{format}Z"), "UTC"));
                }
                for text in &texts {
                    let line = format!("{text} host daemon: x");
                    let date = formats.find(&line, &clock, &mut 0);
                    let date = date.unwrap_or_else(|| panic!("{format}: {text}"));
                    assert_eq!(&line[date.range.clone()], text, "{format}");
                    let time = date.time.unwrap_or_else(|| panic!("{format}: {text}"));
                    assert_eq!(time.micros(), seconds * 1_000_000, "{format}: {text}");
                    // Dates that are strong stand anywhere.
                    let line = format!("client is 192.0.2.7 at [{text}] x");
                    let date = formats.find(&line, &clock, &mut 0);
                    let is_strong = !WEAK_FORMATS.contains(&format.as_str());
                    assert_eq!(date.is_some(), is_strong, "{line}");
                }
            }
        }
    }

    #[test]
    fn a_number_is_a_time_only_where_a_program_writes_one() {
        let formats = DateFormats::read(None, &mut Vec::new());
        let now = Time::from_seconds(1_800_000_000).unwrap();
        let clock = Clock { now, zone: &Zone::UTC, is_near: false };
        let time = |line: &str| formats.find(line, &clock, &mut 0).and_then(|date| date.time);
        for line in [
            "1795037696.123    17 192.0.2.7 TCP_DENIED/403",
            "[1795037696] SERVICE ALERT: x",
            "type=USER_LOGIN msg=audit(1795037696.123:45): pid=1",
            "1795037696 x",
        ] {
            let seconds = time(line).map(|time| time.micros().div_euclid(1_000_000));
            assert_eq!(seconds, Some(1_795_037_696), "{line}");
        }
        for line in ["client 1795037696 x", "17950376961 x", "x[1795037696] y"] {
            assert_eq!(time(line), None, "{line}");
        }
    }
}
