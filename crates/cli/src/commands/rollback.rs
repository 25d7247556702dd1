//! `rollback`: returns to a previous load.

use nfguard_control::change::{self, Caution};
use nfguard_control::digest;
use nfguard_control::history::{History, LoadRecord};
use nfguard_control::policy_file::PolicyFile;
use nfguard_control::rollback;
use serde_json::json;

use crate::output::{self, Answer, Done};

pub(crate) fn rollback(
    number: Option<u64>,
    caution: &Caution,
    history: &History,
    as_json: bool,
) -> Done {
    if number.is_none() && rollback::go_back()? {
        if as_json {
            output::json(&json!({ "rolled_back": true }));
        } else {
            output::line("the load was not confirmed yet: the rules from before it are back");
        }
        return Ok(Answer::Yes);
    }
    let loads = history.entries();
    let found = match number {
        Some(number) => loads.iter().find(|load| load.number == number),
        None => previous(&loads),
    };
    let Some((load, text)) = found.and_then(|it| Some((it, it.policy.clone()?))) else {
        let why = match number {
            Some(number) => format!("the history has no policy of load {number}"),
            None => "the history has no load before the current one; `nfguard unload` removes a \
                     policy"
                .to_owned(),
        };
        if as_json {
            output::json(&json!({ "rolled_back": false, "reason": why }));
        } else {
            output::warning(&why);
        }
        return Ok(Answer::No);
    };
    let file = PolicyFile::parse(&load.file, text)?;
    if digest::digest(&file.policy.compile()) != load.table {
        output::warning(&format!(
            "another version of nfguard did load {}; this version makes other rules of the same \
             policy",
            load.number
        ));
    }
    let loaded = change::load(&file, Some(load.of.unwrap_or(load.number)), caution, history)?;
    output::loads::print(&file, &loaded, as_json);
    Ok(Answer::Yes)
}

/// Returns the last load before the one in force that made other rules. A rollback discards the loads
/// after it: two rollbacks go back by two loads.
fn previous(entries: &[LoadRecord]) -> Option<&LoadRecord> {
    let mut loads: Vec<&LoadRecord> = Vec::new();
    for entry in entries.iter().filter(|entry| entry.holds()) {
        match loads.iter().position(|load| Some(load.number) == entry.of) {
            Some(place) => loads.truncate(place + 1),
            None => loads.push(entry),
        }
    }
    let last = loads.pop()?;
    loads.into_iter().rfind(|load| load.policy.is_some() && load.table != last.table)
}

#[cfg(test)]
mod tests {
    use nfguard_control::history::LoadOutcome;

    use super::*;

    #[test]
    fn each_rollback_goes_back_by_one_load() {
        let entry = |number: u64, policy: Option<&str>, of: Option<u64>, outcome| {
            let table = policy.map(|_| of.unwrap_or(number).to_string()).unwrap_or_default();
            let mut entry = LoadRecord::new("a.json", policy, table, outcome);
            (entry.number, entry.of) = (number, of);
            entry
        };
        let load = |number| entry(number, Some("{}"), None, LoadOutcome::Loaded);
        let mut all = vec![load(1), load(2), load(3)];
        all.push(entry(4, Some("{}"), None, LoadOutcome::WentBack));
        let back = |all: &[LoadRecord]| previous(all).map(|entry| entry.number);
        assert_eq!(back(&all), Some(2), "3 is in force");
        all.push(entry(5, Some("{}"), Some(2), LoadOutcome::Loaded));
        assert_eq!(back(&all), Some(1));
        all.push(entry(6, Some("{}"), Some(1), LoadOutcome::Loaded));
        assert_eq!(back(&all), None);
        all.push(load(7));
        assert_eq!(back(&all), Some(1), "which was in force before");
        all.push(entry(8, None, None, LoadOutcome::Loaded));
        assert_eq!(back(&all), Some(7), "what was unloaded comes back");
        all.push(load(9));
        let mut again = load(10);
        again.table = "9".to_owned();
        all.push(again);
        assert_eq!(back(&all), Some(7), "10 has restored what another program had changed of 9");
    }
}
