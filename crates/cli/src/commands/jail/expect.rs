//! `jail test --expect`: what a log has to give.

use std::collections::BTreeMap;
use std::path::Path;

use nfguard_control::input;
use nfguard_jail::Event;
use serde::Deserialize;
use serde_json::{Map, Value};

use crate::commands::jail::report::ban_json;
use crate::output::failure::Failure;

/// What is expected. What a file leaves out is not compared.
#[derive(Debug, Deserialize)]
pub(super) struct Expected {
    /// The bans in their order, each with the keys that matter.
    bans: Option<Vec<Map<String, Value>>>,
    /// How many lines of each client are evidence.
    evidence: Option<BTreeMap<String, u64>>,
}

/// What was found.
#[derive(Default)]
pub(super) struct Found {
    bans: Vec<Value>,
    evidence: BTreeMap<String, u64>,
}

impl Found {
    pub(super) fn add(&mut self, event: &Event) {
        match event {
            Event::Ban(ban) => self.bans.push(ban_json(ban)),
            Event::Evidence(taken) => {
                *self.evidence.entry(taken.client.clone()).or_default() += 1;
            }
            _ => {}
        }
    }
}

pub(super) fn read(path: &Path) -> Result<Expected, Failure> {
    let text = input::read(path)?;
    let expected: Result<Expected, _> = serde_json::from_str(&text);
    expected.map_err(|error| Failure::Usage(format!("{}: {error}", path.display())))
}

impl Expected {
    /// Returns each difference in words.
    pub(super) fn differences(&self, found: &Found) -> Vec<String> {
        let mut differences = Vec::new();
        if let Some(bans) = &self.bans {
            for at in 0..bans.len().max(found.bans.len()) {
                match (bans.get(at), found.bans.get(at)) {
                    (Some(expected), Some(ban)) => differences.extend(
                        expected.iter().filter(|(key, value)| ban[key.as_str()] != **value).map(
                            |(key, value)| {
                                let found = &ban[key.as_str()];
                                format!("ban {}: {key} is {found}; expected {value}", at + 1)
                            },
                        ),
                    ),
                    (Some(expected), None) => {
                        let expected = Value::from(expected.clone());
                        differences.push(format!("ban {} is missing: {expected}", at + 1));
                    }
                    (None, Some(ban)) => {
                        differences.push(format!("ban {} was not expected: {ban}", at + 1));
                    }
                    (None, None) => {}
                }
            }
        }
        if let Some(evidence) = &self.evidence {
            let clients = evidence.keys().chain(found.evidence.keys());
            let mut clients: Vec<&String> = clients.collect();
            clients.sort();
            clients.dedup();
            for client in clients {
                let of = |map: &BTreeMap<String, u64>| map.get(client).copied().unwrap_or(0);
                let (expected, found) = (of(evidence), of(&found.evidence));
                if expected != found {
                    differences
                        .push(format!("evidence of {client}: {found} lines; expected {expected}"));
                }
            }
        }
        differences
    }
}
