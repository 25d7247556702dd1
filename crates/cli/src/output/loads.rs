//! Loads of a policy, for people and for programs.

use std::time::Duration;

use nfguard_control::change::Loaded;
use nfguard_control::context::Context;
use nfguard_control::lockout::Obstacle;
use nfguard_control::policy_file::PolicyFile;
use nfguard_control::{rollback, table_diff};
use nfguard_policy::TABLE;
use serde_json::json;

use super::{NOTE, bans};
use crate::output;

/// The longest list of changes that a load prints. `diff` prints all.
const MAX_PRINTED_CHANGES: usize = 40;

/// Prints what a load has done.
pub(crate) fn print(file: &PolicyFile, loaded: &Loaded, context: &Context, as_json: bool) {
    if as_json {
        print_json(file, loaded, context);
    } else {
        print_text(file, loaded);
        bans::print_spared_peer(context);
        match loaded.confirm {
            Some(time) => print_confirm_hint(time),
            None => warn_of_waiting_load(),
        }
    }
}

fn print_json(file: &PolicyFile, loaded: &Loaded, context: &Context) {
    let Loaded { table, change, obstacle, .. } = loaded;
    output::json(&json!({
        "file": file.name,
        "warnings": file.warnings,
        "changed": !change.transaction.is_empty(),
        "verified": change.verified,
        "changes": table_diff::changes(change.before.as_ref(), Some(table)),
        "lockout": obstacle.as_ref().map(Obstacle::why),
        "ssh_peer": bans::spared_peer_to_json(context),
        "confirm_within_seconds": time_left().map(|left| left.as_secs_f64()),
    }));
}

fn print_text(file: &PolicyFile, loaded: &Loaded) {
    let Loaded { table, change, .. } = loaded;
    if change.transaction.is_empty() {
        output::line(&format!("{}: already loaded, nothing changed", file.name));
        return;
    }
    if change.before.is_some() {
        let lines = table_diff::changes(change.before.as_ref(), Some(table));
        if lines.len() <= MAX_PRINTED_CHANGES {
            output::print_changes(&lines);
        } else {
            output::line(&format!("{} lines of the ruleset changed", lines.len()));
        }
    }
    let rules: usize = table.chains.iter().map(|chain| chain.rules.len()).sum();
    output::line(&format!(
        "{}: loaded into table inet {TABLE} ({} rules of policy, {rules} of nftables){}",
        file.name,
        file.policy.rules().len(),
        if change.verified { " and read back" } else { "" },
    ));
    if !change.verified {
        output::line("another process changed the table before nfguard could read it back");
    }
}

fn print_confirm_hint(time: Duration) {
    let time = humantime::format_duration(time);
    output::styled(
        NOTE,
        &format!(
            "open another connection and run `nfguard confirm` within {time}, or the previous rules \
             come back"
        ),
    );
}

/// Returns how long a load still waits to be confirmed. A watchdog that does not tell is a warning.
pub(crate) fn time_left() -> Option<Duration> {
    rollback::time_left().unwrap_or_else(|error| {
        output::warning(&error.to_string());
        None
    })
}

/// Warns if an earlier load still waits to be confirmed.
pub(crate) fn warn_of_waiting_load() {
    let Some(left) = time_left() else { return };
    let left = humantime::format_duration(Duration::from_secs(left.as_secs()));
    output::warning(&format!(
        "an earlier load still waits for `nfguard confirm`; without it, the rules from before that \
         load replace these in {left}"
    ));
}

/// Prints what a load would change; `None`: nothing.
pub(crate) fn print_plan(
    file: &PolicyFile,
    changes: Option<&[String]>,
    lockout: Option<&Obstacle>,
    as_json: bool,
) {
    if as_json {
        output::json(&json!({
            "file": file.name, "warnings": file.warnings, "differs": changes.is_some(),
            "changes": changes.unwrap_or_default(), "lockout": lockout.map(Obstacle::why),
        }));
    } else if let Some(changes) = changes {
        output::print_changes(changes);
    } else {
        output::line(&format!("{}: no difference", file.name));
    }
    if let Some(obstacle) = lockout {
        output::warning(&obstacle.to_string());
    }
}
