//! Writes a parsed expression in the syntax of the engine that runs it.

use super::python::{Anchor, Class, Expression, Group, Item, Mode, Node};
use std::fmt::Write as _;

/// For which engine an expression is written.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Dialect {
    /// The linear engine.
    Linear,
    /// The backtracking engine.
    Backtracking,
    /// The linear engine, without what only the backtracking one knows: matches at least what the
    /// expression matches.
    Superset,
}

/// An expression as an engine reads it.
#[derive(Debug)]
pub(super) struct Written {
    pub(super) text: String,
    /// The number, for the engine, of each group that captures; `None` for one that does not.
    pub(super) numbers: Vec<Option<usize>>,
}

/// Tells whether the linear engine can run an expression.
pub(super) fn is_linear(node: &Node) -> bool {
    match node {
        Node::BackReference(_) | Node::Look { .. } | Node::Condition { .. } => false,
        Node::Group { kind: Group::Atomic, .. } | Node::Repeat { mode: Mode::Possessive, .. } => {
            false
        }
        Node::Group { inner, .. } | Node::Repeat { inner, .. } => is_linear(inner),
        Node::Sequence(parts) | Node::Choice(parts) => parts.iter().all(is_linear),
        _ => true,
    }
}

/// Writes an expression. Groups that neither `is_wanted` nor the expression itself asks for do not
/// capture, because that costs time.
pub(super) fn write(
    expression: &Expression,
    dialect: Dialect,
    is_wanted: &dyn Fn(usize, &str) -> bool,
) -> Written {
    let wanted = expression.names.iter().enumerate();
    let wanted =
        wanted.map(|(place, name)| is_wanted(place + 1, name.as_deref().unwrap_or_default()));
    let mut captures: Vec<bool> = wanted.collect();
    if dialect == Dialect::Superset {
        captures.fill(false);
    } else {
        mark_references(&expression.root, &mut captures);
    }
    let mut next = 0;
    let numbers = captures.iter().map(|is_captured| {
        next += usize::from(*is_captured);
        is_captured.then_some(next)
    });
    let mut writer = Writer { text: String::new(), numbers: numbers.collect(), dialect };
    writer.node(&expression.root);
    Written { text: writer.text, numbers: writer.numbers }
}

fn mark_references(node: &Node, captures: &mut [bool]) {
    match node {
        Node::BackReference(group) => captures[group - 1] = true,
        Node::Condition { group, yes, no } => {
            captures[group - 1] = true;
            mark_references(yes, captures);
            mark_references(no, captures);
        }
        Node::Group { inner, .. } | Node::Repeat { inner, .. } | Node::Look { inner, .. } => {
            mark_references(inner, captures);
        }
        Node::Sequence(parts) | Node::Choice(parts) => {
            parts.iter().for_each(|part| mark_references(part, captures));
        }
        _ => {}
    }
}

struct Writer {
    text: String,
    numbers: Vec<Option<usize>>,
    dialect: Dialect,
}

impl Writer {
    fn node(&mut self, node: &Node) {
        match node {
            Node::Empty => {}
            Node::Literal(character) => self.literal(*character),
            Node::Any => self.text.push('.'),
            Node::Class(class) => self.class(class),
            Node::Anchor(anchor) => self.anchor(*anchor),
            Node::Flags(flags) => self.put(format_args!("(?{flags})")),
            Node::Group { kind, inner } => self.group(kind, inner),
            Node::Sequence(parts) => parts.iter().for_each(|part| self.node(part)),
            Node::Choice(branches) => {
                for (place, branch) in branches.iter().enumerate() {
                    if place > 0 {
                        self.text.push('|');
                    }
                    self.node(branch);
                }
            }
            Node::Repeat { inner, min, max, mode } => self.repeat(inner, (*min, *max), *mode),
            Node::BackReference(group) => match self.numbers[group - 1] {
                Some(number) => self.put(format_args!("(?:\\{number})")),
                None => self.text.push_str("(?s:.*)"),
            },
            Node::Look { .. } if self.dialect == Dialect::Superset => {}
            Node::Look { is_ahead, is_negative, inner } => {
                self.text.push_str(match (is_ahead, is_negative) {
                    (true, false) => "(?=",
                    (true, true) => "(?!",
                    (false, false) => "(?<=",
                    (false, true) => "(?<!",
                });
                self.node(inner);
                self.text.push(')');
            }
            Node::Condition { group, yes, no } => {
                match self.numbers[group - 1] {
                    Some(number) => self.put(format_args!("(?({number})")),
                    None => self.text.push_str("(?:"),
                }
                self.branch(yes);
                self.text.push('|');
                self.branch(no);
                self.text.push(')');
            }
        }
    }

    fn put(&mut self, part: std::fmt::Arguments<'_>) {
        // Writing to a string does not fail.
        let _ = self.text.write_fmt(part);
    }

    /// Writes a branch of a condition in a group of its own.
    fn branch(&mut self, node: &Node) {
        self.text.push_str("(?:");
        self.node(node);
        self.text.push(')');
    }

    fn literal(&mut self, character: char) {
        match character {
            'a'..='z'
            | 'A'..='Z'
            | '0'..='9'
            | ' '
            | '_'
            | ':'
            | ';'
            | ','
            | '/'
            | '='
            | '"'
            | '\''
            | '@'
            | '!'
            | '%'
            | '<'
            | '>' => self.text.push(character),
            _ if !character.is_ascii() => self.text.push(character),
            _ => self.put(format_args!("\\x{{{:X}}}", u32::from(character))),
        }
    }

    fn anchor(&mut self, anchor: Anchor) {
        self.text.push_str(match anchor {
            Anchor::LineStart => "^",
            Anchor::LineEnd => "$",
            Anchor::TextStart => r"\A",
            Anchor::TextEnd => r"\z",
            // The linear engine is quick only with the words of ASCII.
            Anchor::Word if self.dialect == Dialect::Linear => r"(?-u:\b)",
            Anchor::NotWord if self.dialect == Dialect::Linear => r"(?-u:\B)",
            // A boundary in Unicode may be none in ASCII.
            Anchor::Word | Anchor::NotWord if self.dialect == Dialect::Superset => "",
            Anchor::Word => r"\b",
            Anchor::NotWord => r"\B",
        });
    }

    fn group(&mut self, kind: &Group, inner: &Node) {
        match kind {
            Group::Capture(number) if self.numbers[number - 1].is_some() => self.text.push('('),
            Group::Atomic if self.dialect == Dialect::Backtracking => self.text.push_str("(?>"),
            Group::Flags(flags) => self.put(format_args!("(?{flags}:")),
            _ => self.text.push_str("(?:"),
        }
        self.node(inner);
        self.text.push(')');
    }

    fn repeat(&mut self, inner: &Node, (min, max): (u32, Option<u32>), mode: Mode) {
        let is_single =
            matches!(inner, Node::Literal(_) | Node::Any | Node::Class(_) | Node::Group { .. });
        let is_atomic = mode == Mode::Possessive && self.dialect == Dialect::Backtracking;
        if is_atomic {
            self.text.push_str("(?>");
        }
        if is_single {
            self.node(inner);
        } else {
            self.branch(inner);
        }
        match (min, max) {
            (0, None) => self.text.push('*'),
            (1, None) => self.text.push('+'),
            (0, Some(1)) => self.text.push('?'),
            (min, None) => self.put(format_args!("{{{min},}}")),
            (min, Some(max)) if min == max => self.put(format_args!("{{{min}}}")),
            (min, Some(max)) => self.put(format_args!("{{{min},{max}}}")),
        }
        if mode == Mode::Lazy {
            self.text.push('?');
        }
        if is_atomic {
            self.text.push(')');
        }
    }

    fn class(&mut self, class: &Class) {
        self.text.push_str(if class.is_negated { "[^" } else { "[" });
        for item in &class.items {
            match *item {
                Item::Range(low, high) => {
                    self.member(low);
                    if low != high {
                        self.text.push('-');
                        self.member(high);
                    }
                }
                // Digits are those of ASCII, and each character beyond ASCII counts as a letter:
                // the tables of Unicode make automata that are a hundred times as large.
                Item::Perl(perl) => self.text.push_str(match perl {
                    'd' => "0-9",
                    'D' => "[^0-9]",
                    'w' => r"0-9A-Za-z_[^\x00-\x7F]",
                    'W' => r"\x00-\x2F\x3A-\x40\x5B-\x5E\x60\x7B-\x7F",
                    's' => r"\s\x1C-\x1F",
                    _ => r"[^\s\x1C-\x1F]",
                }),
            }
        }
        self.text.push(']');
    }

    fn member(&mut self, character: char) {
        if character.is_ascii_alphanumeric() || !character.is_ascii() {
            self.text.push(character);
        } else {
            self.put(format_args!("\\x{{{:X}}}", u32::from(character)));
        }
    }
}
