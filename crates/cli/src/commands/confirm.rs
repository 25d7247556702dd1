//! `confirm` and `rollback`.

use nfguard_control::change::Caution;
use nfguard_control::digest;
use nfguard_control::rollback::{self, Confirmed, Proof};
use serde_json::json;

use crate::commands::load;
use crate::{Answer, Done, output};
use nfguard_control::connections::Ends;
use nfguard_control::history::{History, LoadOutcome, LoadRecord};
use nfguard_control::policy_file::PolicyFile;

pub(crate) fn confirm(history: &History, as_json: bool) -> Done {
    let (why, proof) = match rollback::confirm(Ends::of_session())? {
        Confirmed::Yes(proof) => {
            history.settle(&LoadOutcome::Confirmed(proof.phrase().to_owned()));
            (None, Some(proof))
        }
        Confirmed::TooLate => (Some(TOO_LATE), None),
        Confirmed::Nothing => {
            let last = history.entries().pop();
            let went_back = last.is_some_and(|last| last.outcome == LoadOutcome::WentBack);
            (Some(if went_back { TOO_LATE } else { NOTHING }), None)
        }
    };
    if as_json {
        output::json(&json!({
            "confirmed": proof.is_some(),
            "from": proof.map(Proof::word),
            "proof": proof == Some(Proof::New),
            "reason": why,
        }));
    } else if let Some(proof) = proof {
        output::line(&format!("confirmed {}", proof.phrase()));
    }
    if let (Some(why), false) = (why, as_json) {
        output::warning(why);
    }
    Ok(Answer::from(proof.is_some()))
}

const TOO_LATE: &str = "too late: the rules from before the load are back";
const NOTHING: &str = "nothing waits to be confirmed; if something did, the rules from before it \
                       are back, or somebody else was faster";

pub(crate) fn rollback(
    number: Option<u64>,
    caution: &Caution,
    history: &History,
    as_json: bool,
) -> Done {
    if number.is_none() && rollback::go_back()? {
        if as_json {
            output::json(&json!({ "went_back": true }));
        } else {
            output::line("the rules from before the load that was to be confirmed are back");
        }
        return Ok(Answer::Yes);
    }
    let entries = history.entries();
    let found = match number {
        Some(number) => entries.iter().find(|entry| entry.number == number),
        None => before(&entries),
    };
    let Some((entry, text)) = found.and_then(|it| Some((it, it.policy.clone()?))) else {
        let what = match number {
            Some(number) => format!("the history has no policy of a load {number}"),
            None => "the history has no load before the one in force; `nfguard unload` removes a \
                     policy"
                .to_owned(),
        };
        if as_json {
            output::json(&json!({ "went_back": false, "reason": what }));
        } else {
            output::warning(&what);
        }
        return Ok(Answer::No);
    };
    let file = PolicyFile::parse(&entry.file, text)?;
    if digest::digest(&file.policy.compile()) != entry.table {
        output::warning(&format!(
            "load {} was done by another version of nfguard; this one makes other rules of the same \
             policy",
            entry.number
        ));
    }
    load::put_in(&file, Some(entry.of.unwrap_or(entry.number)), caution, history, as_json)
}

/// The load before the one in force, which made other rules. Going back takes away what was loaded
/// since, so that going back twice goes two loads back.
fn before(entries: &[LoadRecord]) -> Option<&LoadRecord> {
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
    use super::*;

    #[test]
    fn going_back_again_and_again_goes_back_load_by_load() {
        let entry = |number: u64, policy: Option<&str>, of: Option<u64>, outcome| {
            let table = policy.map(|_| of.unwrap_or(number).to_string()).unwrap_or_default();
            let mut entry = LoadRecord::new("a.json", policy, table, outcome);
            (entry.number, entry.of) = (number, of);
            entry
        };
        let load = |number| entry(number, Some("{}"), None, LoadOutcome::Loaded);
        let mut all = vec![load(1), load(2), load(3)];
        all.push(entry(4, Some("{}"), None, LoadOutcome::WentBack));
        let back = |all: &[LoadRecord]| before(all).map(|entry| entry.number);
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
        assert_eq!(back(&all), Some(7), "10 has put right what somebody had changed of 9");
    }
}
