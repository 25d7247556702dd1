//! Makes one set of options of a filter's files: includes, interpolation and tags.

use super::Mistake;
use super::ini::{self, Line, Place, Section, Sections};
use std::collections::BTreeMap;
use std::rc::Rc;

/// Rounds of replacing tags before they count as endless.
const MAX_ROUNDS: usize = 25;
/// Steps of `%(name)s` within each other, as in Python.
const MAX_DEPTH: usize = 10;
/// Values that may be put into one line: each may name several, and those several again.
const MAX_VALUES: usize = 2000;
/// Longest line that replacing may make.
const MAX_LINE_BYTES: usize = 256 * 1024;
/// Files that include each other.
const MAX_FILES: usize = 64;

/// A filter's files, merged, and the options that the jail gives.
pub(super) struct Config<'a> {
    sections: Sections,
    given: &'a BTreeMap<String, String>,
    place: Place,
}

/// How the caller reads a file: its text, or `None` if there is none.
pub(super) type ReadFile<'a> = &'a mut dyn FnMut(&str) -> Option<String>;

impl<'a> Config<'a> {
    /// Reads `name` (a path that ends in `.conf`) with its `.local` and all that they include.
    pub(super) fn read(
        name: &str,
        given: &'a BTreeMap<String, String>,
        read_file: ReadFile<'_>,
        mistakes: &mut Vec<Mistake>,
        notes: &mut Vec<Mistake>,
    ) -> Option<Self> {
        let place = Place { file: name.into(), line: 1 };
        let mut loader = Loader { read_file, mistakes, notes, stack: Vec::new(), files: 0 };
        let mut sections = Sections::new();
        let mut is_there = loader.tree(name, &mut sections);
        if let Some(stem) = name.strip_suffix(".conf") {
            is_there |= loader.tree(&format!("{stem}.local"), &mut sections);
        }
        if !is_there {
            mistakes.push(place.mistake("no such file"));
            return None;
        }
        for section in ["Definition", "Init"] {
            sections.entry(section.to_owned()).or_default();
        }
        Some(Self { sections, given, place })
    }

    /// Returns the place of what stands in no line.
    pub(super) fn place(&self) -> &Place {
        &self.place
    }

    /// Returns the options of a jail among the sections of its files.
    pub(super) fn of_jail(
        sections: Sections,
        given: &'a BTreeMap<String, String>,
        place: Place,
    ) -> Self {
        Self { sections, given, place }
    }

    /// Returns the value of a jail's option, on one line or several, and where it stands.
    pub(super) fn jail_option(&self, jail: &str, key: &str) -> Option<Result<Line, Mistake>> {
        let raw = self.raw(jail, key)?;
        let place = raw.first()?.place.clone();
        let text = self.interpolated(&joined(raw), jail);
        Some(match text {
            Ok(text) => Ok(Line { text: text.trim().to_owned(), place }),
            Err(message) => Err(place.mistake(format!("{key}: {message}"))),
        })
    }

    /// Tells whether some value names an option, as `%(key)s` or `<key>`.
    pub(super) fn names(&self, key: &str) -> bool {
        let forms = [format!("%({key})s"), format!("/{key})s"), format!("<{key}>")];
        let mut lines = self.sections.values().flat_map(|section| section.values().flatten());
        lines.any(|line| forms.iter().any(|form| line.text.to_lowercase().contains(form)))
    }

    /// Returns the value of an option of the filter, each line with its place; empty lines are left out.
    pub(super) fn option(&self, key: &str, mistakes: &mut Vec<Mistake>) -> Option<Vec<Line>> {
        let lines: Vec<Line> = match self.given.get(key) {
            Some(value) => {
                let line =
                    |text: &str| Line { text: text.trim().to_owned(), place: self.place.clone() };
                value.lines().map(line).collect()
            }
            None => {
                let section =
                    if self.sections["Init"].contains_key(key) { "Init" } else { "Definition" };
                let raw = self.raw(section, key)?;
                raw.iter()
                    .filter_map(|line| match self.interpolated(&line.text, section) {
                        Ok(text) => Some(Line { text, place: line.place.clone() }),
                        Err(message) => {
                            mistakes.push(line.place.mistake(format!("{key}: {message}")));
                            None
                        }
                    })
                    .collect()
            }
        };
        let mut values = Vec::new();
        for line in lines {
            match self.replace_tags(line.text) {
                Ok(text) => {
                    let texts = text.lines().map(str::trim).filter(|text| !text.is_empty());
                    values.extend(
                        texts.map(|text| Line { text: text.to_owned(), place: line.place.clone() }),
                    );
                }
                Err(message) => mistakes.push(line.place.mistake(format!("{key}: {message}"))),
            }
        }
        Some(values)
    }

    fn raw(&self, section: &str, key: &str) -> Option<&Vec<Line>> {
        let of = |name: &str| self.sections.get(name).and_then(|section| section.get(key));
        of(section).or_else(|| of("DEFAULT"))
    }

    /// Replaces `%(name)s` and `%(section/name)s`, as Python's basic interpolation does.
    fn interpolated(&self, text: &str, section: &str) -> Result<String, String> {
        self.interpolate(text, section, 0, &mut 0)
    }

    fn interpolate(
        &self,
        text: &str,
        section: &str,
        depth: usize,
        values: &mut usize,
    ) -> Result<String, String> {
        if depth > MAX_DEPTH {
            return Err(format!(
                "`%(…)s` are more than {MAX_DEPTH} deep; do they name each other?"
            ));
        }
        let mut out = String::with_capacity(text.len());
        let mut rest = text;
        while let Some(at) = rest.find('%') {
            out.push_str(&rest[..at]);
            rest = &rest[at + 1..];
            if let Some(after) = rest.strip_prefix('%') {
                out.push('%');
                rest = after;
                continue;
            }
            let name = rest.strip_prefix('(').and_then(|inner| inner.split_once(")s"));
            let Some((name, after)) = name.filter(|(name, _)| !name.contains(')')) else {
                return Err(
                    "a single `%`: it is written `%%`, and a reference `%(name)s`".to_owned()
                );
            };
            rest = after;
            let value = self
                .reference(name, section)
                .ok_or_else(|| format!("`%({name})s` names no option of the filter"))?;
            *values += 1;
            if *values > MAX_VALUES {
                return Err(format!("more than {MAX_VALUES} `%(…)s` make up the value"));
            }
            out.push_str(&self.interpolate(&value, section, depth + 1, values)?);
            if out.len() > MAX_LINE_BYTES {
                return Err("the value is too long".to_owned());
            }
        }
        out.push_str(rest);
        Ok(out)
    }

    /// Returns the text that `%(name)s` in a section stands for.
    fn reference(&self, name: &str, section: &str) -> Option<String> {
        let key = name.to_lowercase();
        if let Some(value) = self.given.get(&key) {
            // What a jail gives is text as it is.
            return Some(value.replace('%', "%%"));
        }
        let found = self.raw(section, &key).or_else(|| {
            let (section, _) = name.split_once('/')?;
            self.raw(section, key.split_once('/')?.1)
        })?;
        Some(joined(found))
    }

    /// Replaces `<name>` and `<section/name>`, the innermost first. What names no option stays.
    fn replace_tags(&self, mut text: String) -> Result<String, String> {
        for _ in 0..MAX_ROUNDS {
            let mut out = String::with_capacity(text.len());
            let mut is_changed = false;
            let mut rest = text.as_str();
            while let Some(at) = rest.find('<') {
                out.push_str(&rest[..at]);
                rest = &rest[at..];
                let end = rest[1..].find(['<', '>', ' ']).map(|end| end + 1);
                let name = end.filter(|&end| rest.as_bytes()[end] == b'>').map(|end| &rest[1..end]);
                match name.filter(|name| !name.is_empty()).map(|name| self.tag(name)) {
                    Some(Some(value)) => {
                        out.push_str(&value?);
                        rest = &rest[end.unwrap_or_default() + 1..];
                        is_changed = true;
                    }
                    _ => {
                        out.push('<');
                        rest = &rest[1..];
                    }
                }
            }
            out.push_str(rest);
            if !is_changed {
                return Ok(out);
            }
            if out.len() > MAX_LINE_BYTES {
                return Err("the value is too long".to_owned());
            }
            text = out;
        }
        Err("`<tags>` that name each other".to_owned())
    }

    /// Returns the text that `<name>` stands for.
    fn tag(&self, name: &str) -> Option<Result<String, String>> {
        let key = name.to_lowercase();
        if let Some(value) = self.given.get(&key) {
            return Some(Ok(value.clone()));
        }
        // What a jail gives can name what it takes the place of.
        let known = key.strip_prefix("known/").filter(|known| self.given.contains_key(*known));
        let key = known.map_or(key.clone(), ToOwned::to_owned);
        let (section, lines) = if let Some(lines) = self.sections["Init"].get(&key) {
            ("Init", lines)
        } else if let Some(lines) = self.raw("Definition", &key) {
            ("Definition", lines)
        } else {
            let (section, _) = name.split_once('/')?;
            self.sections.get(section)?;
            (section, self.raw(section, key.split_once('/')?.1)?)
        };
        Some(self.interpolated(&joined(lines), section))
    }
}

fn joined(lines: &[Line]) -> String {
    let texts: Vec<&str> = lines.iter().map(|line| line.text.as_str()).collect();
    texts.join("\n")
}

/// Reads the files of jails, each over those before it. Those that are not there are left out.
pub(super) fn read_all(
    files: &[String],
    read_file: ReadFile<'_>,
    mistakes: &mut Vec<Mistake>,
    notes: &mut Vec<Mistake>,
) -> Sections {
    let mut loader = Loader { read_file, mistakes, notes, stack: Vec::new(), files: 0 };
    let mut sections = Sections::new();
    for file in files {
        loader.tree(file, &mut sections);
    }
    sections
}

/// Reads files and what they include.
struct Loader<'l, 'f> {
    read_file: ReadFile<'f>,
    mistakes: &'l mut Vec<Mistake>,
    notes: &'l mut Vec<Mistake>,
    stack: Vec<String>,
    files: usize,
}

impl Loader<'_, '_> {
    /// Merges a file and what it includes into `sections`; false if there is no such file.
    fn tree(&mut self, name: &str, sections: &mut Sections) -> bool {
        if self.stack.iter().any(|open| open == name) || self.files == MAX_FILES {
            return true;
        }
        let Some(text) = (self.read_file)(name) else { return false };
        self.files += 1;
        let file: Rc<str> = name.into();
        let mut own = ini::parse(&file, &text, self.mistakes);
        let includes = own.remove("INCLUDES").unwrap_or_default();
        self.stack.push(name.to_owned());
        self.included(name, includes.get("before"), sections);
        merge(sections, own);
        self.included(name, includes.get("after"), sections);
        self.stack.pop();
        true
    }

    fn included(&mut self, from: &str, lines: Option<&Vec<Line>>, sections: &mut Sections) {
        for line in lines.into_iter().flatten() {
            for part in line.text.split_whitespace() {
                let path = beside(from, part);
                let mut is_there = self.tree(&path, sections);
                if let Some(stem) = path.strip_suffix(".conf") {
                    is_there |= self.tree(&format!("{stem}.local"), sections);
                }
                if !is_there && !path.ends_with(".local") {
                    self.notes
                        .push(line.place.mistake(format!("{part} is included and not there")));
                }
            }
        }
    }
}

/// Returns the path of an included file.
fn beside(from: &str, part: &str) -> String {
    if part.starts_with('/') {
        return part.to_owned();
    }
    match from.rsplit_once('/') {
        Some((folder, _)) => format!("{folder}/{part}"),
        None => part.to_owned(),
    }
}

/// Puts `own` over `sections`. An option that is replaced stays known as `known/option`.
fn merge(sections: &mut Sections, own: Sections) {
    let default = sections.get("DEFAULT").cloned().unwrap_or_default();
    for (name, options) in own {
        let known: Section = sections.remove(&name).unwrap_or_default();
        let mut merged = known.clone();
        for (key, lines) in options {
            if let Some(old) = known.get(&key).or_else(|| default.get(&key)) {
                merged.insert(format!("known/{key}"), old.clone());
            }
            merged.insert(key, lines);
        }
        sections.insert(name, merged);
    }
}
