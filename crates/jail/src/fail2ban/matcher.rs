//! Compiled expressions, and what they find in a line.

use super::engine::{Engine, Groups, LimitReached, SIZE_LIMIT};
use super::ini::Line;
use super::python::{self, Expression};
use super::translate::{self, Dialect, Written};
use super::{Mistake, tags};
use std::ops::Range;

/// What an expression may find in a line.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Field {
    Ip4,
    Ip6,
    Dns,
    Id,
    Cidr,
    User,
    OtherUser,
    Session,
    NoFailure,
    Forget,
    Gained,
    Content,
}

/// How many fields there are.
const FIELDS: usize = 12;

impl Field {
    fn named(name: &str) -> Option<Self> {
        Some(match name {
            "ip4" => Self::Ip4,
            "ip6" => Self::Ip6,
            "dns" => Self::Dns,
            "fid" => Self::Id,
            "cidr" => Self::Cidr,
            "user" => Self::User,
            "mlfid" => Self::Session,
            "nofail" => Self::NoFailure,
            "mlfforget" => Self::Forget,
            "mlfgained" => Self::Gained,
            "content" => Self::Content,
            _ if name.starts_with("alt_user") => Self::OtherUser,
            _ => return None,
        })
    }
}

/// The fields that an expression found in a text.
#[derive(Clone, Debug, Default)]
pub(super) struct Found<'t> {
    fields: [Option<&'t str>; FIELDS],
    /// The whole match.
    pub(super) span: Range<usize>,
    /// Where the lines stand that are between those that match.
    pub(super) gaps: Vec<Range<usize>>,
}

impl<'t> Found<'t> {
    pub(super) fn get(&self, field: Field) -> Option<&'t str> {
        self.fields[field as usize]
    }

    /// Adds the fields of `other` that this one has not.
    pub(super) fn or(mut self, other: &Found<'t>) -> Found<'t> {
        for (own, other) in self.fields.iter_mut().zip(other.fields) {
            *own = own.or(other);
        }
        self
    }
}

/// One expression.
#[derive(Debug)]
pub(super) struct Pattern {
    engine: Engine,
    /// Each field with the number of its group.
    fields: Vec<(Field, usize)>,
    /// The groups of lines between those that match.
    gaps: Vec<usize>,
    superset: String,
    has_client: bool,
    /// Tags of which nothing is made.
    unknown_tags: Vec<String>,
}

impl Pattern {
    /// Compiles an expression that stands in no set.
    pub(super) fn compile_alone(text: &str, is_multiline: bool) -> Result<Self, String> {
        let pattern = Self::compile(text, is_multiline)?;
        pattern.engine.check()?;
        Ok(pattern)
    }

    /// Reads an expression of a filter. If it is linear, the set that it stands in is compiled, and the
    /// expression itself only for a text that may match.
    fn compile(text: &str, is_multiline: bool) -> Result<Self, String> {
        let expression = python::parse(&tags::expand(text))?;
        let is_linear = translate::is_linear(&expression.root);
        let dialect = if is_linear { Dialect::Linear } else { Dialect::Backtracking };
        let is_wanted = |_, name: &str| Field::named(name).is_some() || tags::is_gap(name);
        let prefix = if is_multiline { "(?m)" } else { "" };
        let written = translate::write(&expression, dialect, &is_wanted);
        let engine = Engine::new(format!("{prefix}{}", written.text), dialect);
        if engine.is_backtracking() {
            engine.check()?;
        }
        let superset = translate::write(&expression, Dialect::Superset, &is_wanted).text;
        let mut pattern = Self {
            engine,
            fields: Vec::new(),
            gaps: Vec::new(),
            superset: format!("{prefix}{superset}"),
            has_client: false,
            unknown_tags: Vec::new(),
        };
        pattern.number(&expression, &written);
        Ok(pattern)
    }

    fn number(&mut self, expression: &Expression, written: &Written) {
        let mut others = Vec::new();
        for (name, number) in expression.names.iter().zip(&written.numbers) {
            let Some(name) = name else { continue };
            let Some(number) = number else {
                if name.starts_with("tuple_") || name.starts_with("alt_") {
                    self.unknown_tags.push(format!("<F-{}>", name.to_ascii_uppercase()));
                }
                continue;
            };
            if tags::is_gap(name) {
                self.gaps.push(*number);
            }
            match Field::named(name) {
                Some(Field::OtherUser) => others.push((name, *number)),
                Some(field) => {
                    self.has_client |=
                        matches!(field, Field::Ip4 | Field::Ip6 | Field::Dns | Field::Id);
                    self.fields.push((field, *number));
                }
                None => {}
            }
        }
        others.sort_unstable();
        self.fields.extend(others.iter().map(|(_, number)| (Field::OtherUser, *number)));
    }

    /// Tells whether the expression has a group for an address, a name or an ID.
    pub(super) fn has_client(&self) -> bool {
        self.has_client
    }

    /// Tells whether the expression has a field.
    pub(super) fn has(&self, field: Field) -> bool {
        self.fields.iter().any(|(own, _)| *own == field)
    }

    /// Tells whether the expression needs the backtracking engine.
    pub(super) fn is_backtracking(&self) -> bool {
        self.engine.is_backtracking()
    }

    /// Returns the tags of which nothing is made.
    pub(super) fn unknown_tags(&self) -> &[String] {
        &self.unknown_tags
    }

    /// Looks for the expression in a text.
    pub(super) fn find<'t>(&self, text: &'t str) -> Result<Option<Found<'t>>, LimitReached> {
        Ok(self.engine.find(text)?.map(|groups| self.found(text, &groups)))
    }

    fn found<'t>(&self, text: &'t str, groups: &Groups<'_>) -> Found<'t> {
        let mut found = Found { span: groups.range(0).unwrap_or_default(), ..Found::default() };
        for (field, group) in &self.fields {
            let value = groups.range(*group).map(|range| &text[range]);
            let slot = &mut found.fields[*field as usize];
            if slot.is_none_or(str::is_empty) {
                *slot = value.or(*slot);
            }
        }
        found.gaps = self.gaps.iter().filter_map(|group| groups.range(*group)).collect();
        found
    }
}

/// Expressions of which the first that matches counts.
#[derive(Debug)]
pub(super) struct Patterns {
    patterns: Vec<Pattern>,
    /// One look at a line tells which of them may match.
    set: regex::RegexSet,
}

impl Patterns {
    /// Compiles the lines of an option.
    pub(super) fn compile(
        option: &str,
        lines: &[Line],
        is_multiline: bool,
        mistakes: &mut Vec<Mistake>,
    ) -> Self {
        let compiled = lines.iter().filter_map(|line| {
            let pattern = Pattern::compile(&line.text, is_multiline);
            pattern
                .map_err(|error| mistakes.push(line.place.mistake(format!("{option}: {error}"))))
                .ok()
        });
        let patterns: Vec<Pattern> = compiled.collect();
        let supersets = patterns.iter().map(|pattern| pattern.superset.as_str());
        let set = regex::RegexSetBuilder::new(supersets)
            .size_limit(SIZE_LIMIT)
            .dfa_size_limit(SIZE_LIMIT)
            .build()
            .unwrap_or_else(|error| {
                let place = lines.first().map(|line| &line.place);
                mistakes.extend(place.map(|place| place.mistake(format!("{option}: {error}"))));
                regex::RegexSet::empty()
            });
        Self { patterns, set }
    }

    pub(super) fn iter(&self) -> impl Iterator<Item = &Pattern> {
        self.patterns.iter()
    }

    /// Returns the first expression that matches, with its number from 0. Each expression that reaches
    /// the limit adds one to `limits`.
    pub(super) fn find<'t>(&self, text: &'t str, limits: &mut u64) -> Option<(usize, Found<'t>)> {
        self.set.matches(text).into_iter().find_map(|number| {
            match self.patterns[number].find(text) {
                Ok(found) => found.map(|found| (number, found)),
                Err(LimitReached) => {
                    *limits += 1;
                    None
                }
            }
        })
    }
}
