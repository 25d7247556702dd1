//! The two engines that run expressions: one in linear time, one that goes back up to a limit.

use super::translate::Dialect;
use std::fmt::Display;
use std::ops::Range;
use std::sync::OnceLock;

/// Steps that the backtracking engine may take for one text and expression.
const BACKTRACK_LIMIT: usize = 200_000;
/// Memory that one compiled expression, or a set of them, may take.
pub(super) const SIZE_LIMIT: usize = 32 * 1024 * 1024;

/// An expression with the engine that runs it.
#[derive(Debug)]
pub(super) struct Engine {
    text: String,
    dialect: Dialect,
    /// Compiled when it is first needed: a set of expressions has said that it may match. `None` if it
    /// is too large.
    compiled: OnceLock<Option<Compiled>>,
}

#[derive(Debug)]
enum Compiled {
    Linear(Box<regex::Regex>),
    Backtracking(Box<fancy_regex::Regex>),
}

/// The groups of a match.
pub(super) enum Groups<'t> {
    Linear(regex::Captures<'t>),
    Backtracking(fancy_regex::Captures<'t, str>),
}

/// An engine has reached its limit.
#[derive(Debug)]
pub(super) struct LimitReached;

impl Engine {
    /// Takes an expression that is written in this dialect.
    pub(super) fn new(text: String, dialect: Dialect) -> Self {
        Self { text, dialect, compiled: OnceLock::new() }
    }

    /// Compiles the expression now, and says what is wrong with it.
    pub(super) fn check(&self) -> Result<(), String> {
        let compiled = self.compile()?;
        self.compiled.get_or_init(|| Some(compiled));
        Ok(())
    }

    /// Tells whether the expression needs the backtracking engine.
    pub(super) fn is_backtracking(&self) -> bool {
        self.dialect == Dialect::Backtracking
    }

    fn compile(&self) -> Result<Compiled, String> {
        if self.is_backtracking() {
            let mut builder = fancy_regex::RegexBuilder::new(&self.text);
            let built =
                builder.backtrack_limit(BACKTRACK_LIMIT).delegate_size_limit(SIZE_LIMIT).build();
            let built = built.map(|it| Compiled::Backtracking(Box::new(it)));
            return built.map_err(|error| last_line(&error));
        }
        let built = regex::RegexBuilder::new(&self.text).size_limit(SIZE_LIMIT).build();
        built.map(|it| Compiled::Linear(Box::new(it))).map_err(|error| last_line(&error))
    }

    /// Looks for the expression in a text.
    pub(super) fn find<'t>(&self, text: &'t str) -> Result<Option<Groups<'t>>, LimitReached> {
        match self.compiled.get_or_init(|| self.compile().ok()) {
            Some(Compiled::Linear(regex)) => Ok(regex.captures(text).map(Groups::Linear)),
            Some(Compiled::Backtracking(regex)) => match regex.captures(text) {
                Ok(captures) => Ok(captures.map(Groups::Backtracking)),
                Err(_) => Err(LimitReached),
            },
            None => Err(LimitReached),
        }
    }
}

impl Groups<'_> {
    /// Returns where a group matched. The group 0 is the whole match.
    pub(super) fn range(&self, group: usize) -> Option<Range<usize>> {
        match self {
            Self::Linear(captures) => captures.get(group).map(|found| found.range()),
            Self::Backtracking(captures) => captures.get(group).map(|found| found.range()),
        }
    }
}

/// Returns the line of an error that says what is wrong; those before it draw the place.
fn last_line(error: &dyn Display) -> String {
    error.to_string().lines().last().unwrap_or_default().trim_start_matches("error: ").to_owned()
}
