//! The policy file that an import writes, key by key.

use serde::Serialize;
use serde_json::{Map, Value, json};

use crate::rule::Rule;
use crate::settings::{DefaultPolicy, LogLevel, Settings};

/// A policy file. The keys stand in the order in which people read them.
#[derive(Serialize)]
pub(crate) struct PolicyDocument {
    pub(crate) version: u8,
    pub(crate) comment: String,
    pub(crate) default: DefaultWords,
    #[serde(skip_serializing_if = "Map::is_empty")]
    pub(crate) builtin: Map<String, Value>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(crate) log: Option<Value>,
    pub(crate) containers: Value,
    pub(crate) rules: Vec<Rule>,
}

/// The key `default` of a policy file.
#[derive(Serialize)]
pub(crate) struct DefaultWords {
    pub(crate) r#in: &'static str,
    pub(crate) out: &'static str,
    pub(crate) forward: &'static str,
}

impl DefaultWords {
    /// Returns UFW's default policies in the words of a policy file.
    pub(crate) fn of(settings: &Settings) -> Self {
        Self {
            r#in: settings.input.word(),
            out: settings.output.word(),
            forward: settings.forward.word(),
        }
    }
}

/// Returns the key `log` of a policy file; `None` if UFW logs no unmatched packet.
pub(crate) fn log(settings: &Settings) -> Option<Value> {
    let directions =
        [("in", settings.input), ("out", settings.output), ("forward", settings.forward)];
    let closed = directions.into_iter().filter(|(_, default)| *default != DefaultPolicy::Accept);
    let unmatched: Vec<&str> = closed.map(|(word, _)| word).collect();
    if settings.log == LogLevel::Off || unmatched.is_empty() {
        return None;
    }
    let mut log = json!({ "prefix": "[UFW BLOCK] ", "unmatched": unmatched });
    if settings.log >= LogLevel::High {
        log["rate"] = json!("unlimited");
    }
    Some(log)
}
