//! Reads INI text as Python's `configparser` does.

use super::Mistake;
use std::collections::BTreeMap;
use std::rc::Rc;

/// One line of an option's value, and where it stands.
#[derive(Clone, Debug)]
pub(super) struct Line {
    pub(super) text: String,
    pub(super) place: Place,
}

/// A file and a line in it, from 1.
#[derive(Clone, Debug)]
pub(super) struct Place {
    pub(super) file: Rc<str>,
    pub(super) line: usize,
}

impl Place {
    pub(super) fn mistake(&self, message: impl Into<String>) -> Mistake {
        Mistake { file: self.file.to_string(), line: self.line, message: message.into() }
    }
}

/// The options of one section, in lower case.
pub(super) type Section = BTreeMap<String, Vec<Line>>;

/// The sections of one file, or of several that were merged.
pub(super) type Sections = BTreeMap<String, Section>;

/// Reads one file. A mistake does not end the reading, so all are found.
pub(super) fn parse(file: &Rc<str>, text: &str, mistakes: &mut Vec<Mistake>) -> Sections {
    let mut sections = Sections::new();
    let mut section: Option<String> = None;
    let mut option: Option<(String, usize)> = None;
    let text = text.strip_prefix('\u{feff}').unwrap_or(text);
    for (number, raw) in text.lines().enumerate() {
        let place = Place { file: file.clone(), line: number + 1 };
        let is_comment = raw.trim_start().starts_with(['#', ';']);
        let content = if is_comment { "" } else { without_comment(raw) };
        let value = content.trim();
        if value.is_empty() {
            continue;
        }
        let indent = raw.len() - raw.trim_start().len();
        if let (Some(name), Some((key, margin))) = (&section, &option)
            && indent > *margin
        {
            let values = sections.get_mut(name).and_then(|section| section.get_mut(key));
            values.into_iter().for_each(|lines| {
                lines.push(Line { text: value.to_owned(), place: place.clone() });
            });
            continue;
        }
        if let Some(name) = header(value) {
            if section.is_some() && sections.contains_key(name) {
                mistakes.push(place.mistake(format!("section [{name}] stands here twice")));
            }
            sections.entry(name.to_owned()).or_default();
            section = Some(name.to_owned());
            option = None;
            continue;
        }
        let Some(name) = &section else {
            mistakes.push(place.mistake("a line before the first [section]"));
            continue;
        };
        let Some(delimiter) = value.find(['=', ':']).filter(|&at| at > 0) else {
            mistakes
                .push(place.mistake("expected `option = value`, an indented line or [section]"));
            continue;
        };
        let key = value[..delimiter].trim_end().to_lowercase();
        let line = Line { text: value[delimiter + 1..].trim().to_owned(), place };
        let options = sections.entry(name.clone()).or_default();
        if options.contains_key(&key) {
            mistakes.push(line.place.mistake(format!("option `{key}` stands in [{name}] twice")));
        }
        options.insert(key.clone(), vec![line]);
        option = Some((key, indent));
    }
    sections
}

/// Returns the name in `[name]`.
fn header(value: &str) -> Option<&str> {
    let inner = value.strip_prefix('[')?;
    let end = inner.rfind(']')?;
    Some(&inner[..end]).filter(|name| !name.is_empty())
}

/// Returns the line without a comment, which begins with `;` after a blank.
fn without_comment(line: &str) -> &str {
    let mut is_after_blank = true;
    for (at, character) in line.char_indices() {
        if character == ';' && is_after_blank {
            return &line[..at];
        }
        is_after_blank = character.is_whitespace();
    }
    line
}
