//! `history`: lists the last loads.

use nfguard_netlink::{Nft, Table};
use serde_json::{Value, json};

use crate::args::HistoryVerb;
use crate::output::failure::Failure;
use crate::output::{self, Answer, Done};
use nfguard_control::history::{History, LoadOutcome, LoadRecord};
use nfguard_control::policy_file::PolicyFile;
use nfguard_control::table::ours;
use nfguard_control::table_diff;

pub(crate) fn history(of: Option<&HistoryVerb>, history: &History, as_json: bool) -> Done {
    let entries = history.entries();
    match of {
        None => Ok(list(&entries, as_json)),
        Some(HistoryVerb::Show { number }) => {
            let entry = find(&entries, *number)?;
            let Some(policy) = &entry.policy else { return Ok(Answer::No) };
            if as_json {
                output::json(&json!({ "load": describe(entry), "policy": policy }));
            } else {
                output::lines(policy.trim_end());
            }
            Ok(Answer::Yes)
        }
        Some(HistoryVerb::Diff { number, other }) => {
            let before = table(find(&entries, *number)?)?;
            let after = match other {
                Some(other) => table(find(&entries, *other)?)?,
                None => {
                    let found = nfguard_netlink::read_own_table(&mut Nft::open()?, &ours())?;
                    found.loaded.map(|loaded| nfguard_control::digest::bare(loaded.table))
                }
            };
            let lines = table_diff::changes(before.as_ref(), after.as_ref());
            if as_json {
                output::json(&json!({ "differs": !lines.is_empty(), "changes": lines }));
            } else {
                output::print_changes(&lines);
            }
            Ok(Answer::from(lines.is_empty()))
        }
    }
}

fn find(entries: &[LoadRecord], number: u64) -> Result<&LoadRecord, Failure> {
    let found = entries.iter().find(|entry| entry.number == number);
    found.ok_or_else(|| Failure::Usage(format!("the history has no load {number}")))
}

/// Compiles the policy of a load with this version.
fn table(entry: &LoadRecord) -> Result<Option<Table>, Failure> {
    let Some(text) = &entry.policy else { return Ok(None) };
    Ok(Some(PolicyFile::parse(&entry.file, text.clone())?.policy.compile()))
}

fn list(entries: &[LoadRecord], as_json: bool) -> Answer {
    if as_json {
        let loads: Vec<Value> = entries.iter().map(describe).collect();
        output::json(&json!({ "loads": loads }));
        return Answer::Yes;
    }
    for entry in entries {
        let peer = entry.ssh.as_ref().and_then(|ssh| ssh.split(' ').next());
        let from = peer.map_or_else(String::new, |peer| format!(" from {peer}"));
        let what = match (&entry.policy, entry.of) {
            (None, _) => "unload".to_owned(),
            (Some(_), None) => entry.file.clone(),
            (Some(_), Some(of)) => format!("{} of load {of}", entry.file),
        };
        let outcome = match &entry.outcome {
            LoadOutcome::Loaded => String::new(),
            LoadOutcome::Pending => ", not confirmed yet".to_owned(),
            LoadOutcome::Confirmed(how) => format!(", confirmed {how}"),
            LoadOutcome::RolledBack => ", rolled back".to_owned(),
        };
        let (number, time) = (entry.number, output::time(entry.time));
        output::line(&format!("{number:>6} {time} {}{from}: {what}{outcome}", entry.user));
    }
    Answer::Yes
}

fn describe(entry: &LoadRecord) -> Value {
    let (outcome, confirmation) = match &entry.outcome {
        LoadOutcome::Loaded => ("loaded", None),
        LoadOutcome::Pending => ("pending", None),
        LoadOutcome::Confirmed(how) => ("confirmed", Some(how)),
        LoadOutcome::RolledBack => ("rolled_back", None),
    };
    json!({
        "number": entry.number,
        "time": output::time(entry.time),
        "user": entry.user,
        "ssh": entry.ssh,
        "file": entry.file,
        "unload": entry.policy.is_none(),
        "table_sha256": entry.table,
        "policy_of_load": entry.of,
        "outcome": outcome,
        "confirmation": confirmation,
    })
}
