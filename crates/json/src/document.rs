//! The text of a file: JSON with comments as a tree with byte offsets, and the problems in it.

use std::fmt;

use jsonc_parser::ast::Value;
use jsonc_parser::errors::ParseError;
use jsonc_parser::tokens::{Token, TokenAndRange};
use jsonc_parser::{CollectOptions, CommentCollectionStrategy, ParseOptions, parse_to_ast};

use crate::problem::{Problem, Severity};

/// JSON with the two things that people need in a file that they write by hand, comments and trailing
/// commas. Everything else is strict.
pub const JSONC: ParseOptions = ParseOptions {
    allow_comments: true,
    allow_loose_object_property_names: false,
    allow_trailing_commas: true,
    allow_missing_commas: false,
    allow_single_quoted_strings: false,
    allow_hexadecimal_numbers: false,
    allow_unary_plus_numbers: false,
    allow_bare_decimal_point_numbers: false,
    allow_non_finite_numbers: false,
    allow_extended_string_escapes: false,
};

/// Returns the JSON tree of a text, or the syntax error after which nothing can be read.
pub fn parse_json(text: &str) -> Result<Value<'_>, Box<Problem>> {
    let collect = CollectOptions { comments: CommentCollectionStrategy::AsTokens, tokens: true };
    let parsed = parse_to_ast(text, &collect, &JSONC).map_err(|error| {
        let start = error.range().start;
        let letter = text.get(start..).and_then(|rest| rest.chars().next());
        let hint = letter.and_then(wrong_letter).unwrap_or_else(|| reason(&error));
        Box::new(syntax_problem(text, start, format!("not JSON: {hint}")))
    })?;
    let tokens = parsed.tokens.as_deref().unwrap_or_default();
    if let Some((offset, letter)) = wrong_space(text, tokens) {
        let hint = wrong_letter(letter).unwrap_or_else(|| {
            format!("found U+{:04X} between values; expected a space", u32::from(letter))
        });
        return Err(Box::new(syntax_problem(text, offset, format!("not JSON: {hint}"))));
    }
    if let Some(offset) = control_character(text, tokens) {
        let message = "not JSON: a string ends on its line and has no control characters";
        return Err(Box::new(syntax_problem(text, offset, message.to_owned())));
    }
    parsed.value.ok_or_else(|| {
        let message = "found nothing; expected an object".to_owned();
        Box::new(syntax_problem(text, 0, message))
    })
}

/// Returns the place of the first control character in a string. JSON forbids it, but the parser
/// accepts it.
fn control_character(text: &str, tokens: &[TokenAndRange<'_>]) -> Option<usize> {
    let strings = tokens.iter().filter(|it| matches!(it.token, Token::String(_)));
    strings.map(|it| it.range).find_map(|range| {
        let literal = text.get(range.start..range.end)?;
        literal.find(|found| found <= '\u{1f}').map(|at| range.start + at)
    })
}

/// Returns the first letter between values that JSON does not take for a space, with its place. The
/// parser takes every space of Unicode.
fn wrong_space(text: &str, tokens: &[TokenAndRange<'_>]) -> Option<(usize, char)> {
    let starts = tokens.iter().map(|it| it.range.start).chain([text.len()]);
    let ends = [0].into_iter().chain(tokens.iter().map(|it| it.range.end));
    ends.zip(starts).find_map(|(from, to)| {
        let gap = text.get(from..to)?;
        let mut letters = gap.char_indices();
        let (at, letter) = letters.find(|(_, letter)| !" \t\r\n".contains(*letter))?;
        Some((from + at, letter))
    })
}

/// Says what is wrong with a letter that looks like another one, or like none.
fn wrong_letter(letter: char) -> Option<String> {
    let (name, expected) = match letter {
        '\u{feff}' => ("a byte order mark", "UTF-8 without it"),
        '\u{a0}' => ("a no-break space", "a space"),
        '\u{c}' => ("a form feed", "a line end"),
        '\u{b}' => ("a vertical tab", "a line end"),
        '\u{201c}' | '\u{201d}' | '\u{201e}' | '\u{ab}' | '\u{bb}' => {
            ("a typographic quotation mark", "\"")
        }
        _ => return None,
    };
    Some(format!("found U+{:04X}, {name}; expected {expected}", u32::from(letter)))
}

fn reason(error: &ParseError) -> String {
    use jsonc_parser::errors::ParseErrorKind as Kind;
    match error.kind() {
        Kind::UnterminatedCommentBlock => "the comment has no \"*/\" at its end".to_owned(),
        kind => {
            let text = kind.to_string();
            let mut letters = text.chars();
            letters.next().map_or(String::new(), |first| {
                first.to_lowercase().chain(letters).collect::<String>()
            })
        }
    }
}

fn syntax_problem(text: &str, offset: usize, message: String) -> Problem {
    let (line, column) = Lines::of(text).position(offset);
    let pointer = String::new();
    Problem { severity: Severity::Error, pointer, line, column, message, suggestion: None }
}

/// The place of a value in the tree, printed as a JSON pointer (RFC 6901).
#[derive(Clone, Copy)]
pub enum Pointer<'a> {
    /// The whole document.
    Root,
    /// The value of a key.
    Key(&'a Pointer<'a>, &'a str),
    /// An element of an array.
    Index(&'a Pointer<'a>, usize),
}

impl fmt::Display for Pointer<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Pointer::Root => Ok(()),
            Pointer::Key(parent, key) => {
                write!(f, "{parent}/{}", key.replace('~', "~0").replace('/', "~1"))
            }
            Pointer::Index(parent, index) => write!(f, "{parent}/{index}"),
        }
    }
}

/// The problems found so far, in the order in which they were found.
#[derive(Default)]
pub struct Problems {
    found: Vec<UnplacedProblem>,
}

/// A problem whose line and column are not yet known.
struct UnplacedProblem {
    /// Byte offset; `None` for the value that the pointer leads to.
    offset: Option<usize>,
    severity: Severity,
    pointer: String,
    message: String,
    suggestion: Option<String>,
}

impl Problems {
    /// Adds an error at a byte of the text.
    pub fn error_at(
        &mut self,
        offset: usize,
        pointer: Pointer<'_>,
        message: String,
        suggestion: Option<String>,
    ) {
        let (severity, pointer) = (Severity::Error, pointer.to_string());
        self.found.push(UnplacedProblem {
            offset: Some(offset),
            severity,
            pointer,
            message,
            suggestion,
        });
    }

    /// Adds an error at the value that a pointer leads to.
    pub fn error(
        &mut self,
        pointer: impl fmt::Display,
        message: impl Into<String>,
        suggestion: Option<String>,
    ) {
        self.push(Severity::Error, pointer, message.into(), suggestion);
    }

    /// Adds a warning at the value that a pointer leads to.
    pub fn warn(&mut self, pointer: impl fmt::Display, message: impl Into<String>) {
        self.push(Severity::Warning, pointer, message.into(), None);
    }

    fn push(
        &mut self,
        severity: Severity,
        pointer: impl fmt::Display,
        message: String,
        suggestion: Option<String>,
    ) {
        let pointer = pointer.to_string();
        self.found.push(UnplacedProblem { offset: None, severity, pointer, message, suggestion });
    }

    /// Returns whether one of the problems is an error.
    pub fn has_errors(&self) -> bool {
        self.found.iter().any(|found| found.severity == Severity::Error)
    }

    /// Returns the problems with their lines and columns, in the order of the text.
    pub fn into_problems(self, text: &str, root: &Value<'_>) -> Vec<Problem> {
        if self.found.is_empty() {
            return Vec::new();
        }
        let lines = Lines::of(text);
        let mut placed: Vec<(usize, Problem)> = self
            .found
            .into_iter()
            .map(|UnplacedProblem { offset, severity, pointer, message, suggestion }| {
                let offset = offset.unwrap_or_else(|| offset_of(root, &pointer));
                let (line, column) = lines.position(offset);
                (offset, Problem { severity, pointer, line, column, message, suggestion })
            })
            .collect();
        placed.sort_by_key(|(offset, _)| *offset);
        placed.into_iter().map(|(_, problem)| problem).collect()
    }
}

/// Returns the start of the value that a pointer leads to, or of the last value on the way that
/// exists.
fn offset_of(root: &Value<'_>, pointer: &str) -> usize {
    let mut value = root;
    for step in pointer.split('/').skip(1) {
        let key = step.replace("~1", "/").replace("~0", "~");
        let next = match value {
            Value::Object(object) => object.get(&key).map(|property| &property.value),
            Value::Array(array) => {
                key.parse().ok().and_then(|index: usize| array.elements.get(index))
            }
            _ => None,
        };
        match next {
            Some(next) => value = next,
            None => break,
        }
    }
    start(value)
}

/// Returns the byte at which a value begins.
pub fn start(value: &Value<'_>) -> usize {
    match value {
        Value::StringLit(literal) => literal.range.start,
        Value::NumberLit(literal) => literal.range.start,
        Value::BooleanLit(literal) => literal.range.start,
        Value::Object(object) => object.range.start,
        Value::Array(array) => array.range.start,
        Value::NullKeyword(keyword) => keyword.range.start,
    }
}

/// Maps byte offsets to lines and columns.
pub struct Lines<'t> {
    text: &'t str,
    starts: Vec<usize>,
}

impl<'t> Lines<'t> {
    /// Finds the lines of a text.
    pub fn of(text: &'t str) -> Self {
        let after_newline = text.match_indices('\n').map(|(offset, _)| offset + 1);
        Self { text, starts: std::iter::once(0).chain(after_newline).collect() }
    }

    /// Returns the line and column of a byte offset, both from 1. An offset after the end counts as
    /// the end.
    pub fn position(&self, offset: usize) -> (usize, usize) {
        let offset = offset.min(self.text.len());
        let line = self.starts.partition_point(|start| *start <= offset);
        let start = self.starts.get(line - 1).copied().unwrap_or(0);
        let before = self.text.get(start..).into_iter().flat_map(str::char_indices);
        let column = before.take_while(|(index, _)| start + index < offset).count() + 1;
        (line, column)
    }
}
