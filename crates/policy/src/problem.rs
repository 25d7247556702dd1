//! What is wrong with a policy file, and where.

use std::fmt;

use serde::Serialize;

/// How bad a [`Problem`] is.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "lowercase")]
pub enum Severity {
    /// The file is no policy.
    Error,
    /// The file is a policy, but probably not the one that was meant.
    Warning,
}

/// One mistake in a policy file, or one thing that its author should look at again.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct Problem {
    /// Whether the policy can be used all the same.
    pub severity: Severity,
    /// JSON pointer (RFC 6901) to the value; empty for the whole file.
    pub pointer: String,
    /// Line of the text, from 1.
    pub line: usize,
    /// Character of the line, from 1; one past the last character at the end of a line.
    pub column: usize,
    /// What was found and what was expected.
    pub message: String,
    /// JSON to put there instead, for a near miss.
    pub suggestion: Option<String>,
}

impl fmt::Display for Problem {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let severity = match self.severity {
            Severity::Error => "error",
            Severity::Warning => "warning",
        };
        write!(f, "{}:{}: {severity}: ", self.line, self.column)?;
        if !self.pointer.is_empty() {
            write!(f, "{}: ", self.pointer)?;
        }
        f.write_str(&self.message)?;
        match &self.suggestion {
            Some(suggestion) => write!(f, "; did you mean {suggestion}?"),
            None => Ok(()),
        }
    }
}
