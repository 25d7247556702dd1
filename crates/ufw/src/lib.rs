//! `import`: another firewall's configuration as a policy file.
//!
//! Reading is pure: [`Config`] has the texts, [`ufw`] makes an [`Import`] of them.

mod assemble;
mod framework;
mod known;
mod merge;
mod ping;
mod profile;
mod rule;
mod run;
mod settings;
mod tuple;

#[cfg(test)]
mod tests;

use serde::Serialize;

pub(crate) use assemble::ufw;
pub(crate) use run::run;

/// A file as it was read.
#[derive(Clone, Debug, Default)]
pub(crate) struct Text {
    /// Its path, as people are told it.
    pub(crate) name: String,
    pub(crate) text: String,
}

/// Everything that UFW reads.
#[derive(Debug, Default)]
pub(crate) struct Config {
    /// `/etc/default/ufw`.
    pub(crate) defaults: Text,
    /// `ufw.conf`.
    pub(crate) conf: Text,
    /// `user.rules` and `user6.rules`.
    pub(crate) user: [Text; 2],
    /// `before.rules` and `before6.rules`.
    pub(crate) before: [Text; 2],
    /// `after.rules` and `after6.rules`.
    pub(crate) after: [Text; 2],
    /// What the settings name as `IPT_SYSCTL`, where it is there.
    pub(crate) sysctl: Option<Text>,
    /// `applications.d`.
    pub(crate) profiles: Vec<Text>,
    /// `before.init` and `after.init`, where UFW would run them.
    pub(crate) scripts: Vec<String>,
}

/// What became of a configuration.
#[derive(Debug)]
pub(crate) struct Import {
    /// The policy file.
    pub(crate) text: String,
    pub(crate) rules: usize,
    pub(crate) findings: Findings,
}

/// What is to be said about a configuration.
#[derive(Debug, Default)]
pub(crate) struct Findings {
    /// What the policy does not do, although UFW did.
    pub(crate) lost: Vec<Finding>,
    /// What is good to know.
    pub(crate) notes: Vec<Finding>,
}

/// Something about a place of a file.
#[derive(Debug, PartialEq, Eq, Serialize)]
pub(crate) struct Finding {
    pub(crate) file: String,
    /// From 1; nothing for what a file does not have.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(crate) line: Option<usize>,
    pub(crate) message: String,
}

impl Findings {
    fn lost(&mut self, file: &str, line: impl Into<Option<usize>>, message: impl Into<String>) {
        self.lost.push(Finding {
            file: file.to_owned(),
            line: line.into(),
            message: message.into(),
        });
    }

    fn note(&mut self, file: &str, line: impl Into<Option<usize>>, message: impl Into<String>) {
        self.notes.push(Finding {
            file: file.to_owned(),
            line: line.into(),
            message: message.into(),
        });
    }
}

impl std::fmt::Display for Finding {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self.line {
            Some(line) => write!(f, "{}:{line}: {}", self.file, self.message),
            None => write!(f, "{}: {}", self.file, self.message),
        }
    }
}
