//! What an import has to say about a place of a file.

use std::fmt;

use serde::Serialize;

/// A message about a place of UFW's configuration.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
#[non_exhaustive]
pub struct Diagnostic {
    /// Name of the file.
    pub file: String,
    /// Line of the file, from 1. `None` if the message is about the whole file.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub line: Option<usize>,
    /// What the reader should know.
    pub message: String,
}

impl fmt::Display for Diagnostic {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.line {
            Some(line) => write!(f, "{}:{line}: {}", self.file, self.message),
            None => write!(f, "{}: {}", self.file, self.message),
        }
    }
}

/// The diagnostics of an import, in the order in which they were found.
#[derive(Debug, Default)]
pub(crate) struct Diagnostics {
    /// What UFW does and the policy does not.
    pub(crate) not_carried_over: Vec<Diagnostic>,
    /// What is different in a detail, or good to know.
    pub(crate) notes: Vec<Diagnostic>,
}

impl Diagnostics {
    /// Adds something that UFW does and the policy does not.
    pub(crate) fn not_carried_over(
        &mut self,
        file: &str,
        line: impl Into<Option<usize>>,
        message: impl Into<String>,
    ) {
        self.not_carried_over.push(diagnostic(file, line, message));
    }

    /// Adds something that is different in a detail, or good to know.
    pub(crate) fn note(
        &mut self,
        file: &str,
        line: impl Into<Option<usize>>,
        message: impl Into<String>,
    ) {
        self.notes.push(diagnostic(file, line, message));
    }
}

fn diagnostic(
    file: &str,
    line: impl Into<Option<usize>>,
    message: impl Into<String>,
) -> Diagnostic {
    Diagnostic { file: file.to_owned(), line: line.into(), message: message.into() }
}
