//! `load`, `diff` and `unload`.

use std::path::Path;
use std::time::Duration;

use nfguard_control::change::{self, Caution, Loaded};
use nfguard_control::history::History;
use nfguard_control::policy_file::PolicyFile;
use nfguard_control::{rollback, table_diff};
use nfguard_netlink::{Nft, Table};
use nfguard_policy::TABLE;
use serde_json::json;

use crate::output::failure::Failure;
use crate::output::{self, NOTE};
use crate::{Answer, Done};

/// How long a list of changes `load` prints; all of it is for `diff`.
const SHORT: usize = 40;

pub(crate) fn load(path: &Path, caution: &Caution, history: &History, json: bool) -> Done {
    let file = output::warned(PolicyFile::read_trusted(path)?, json);
    put_in(&file, None, caution, history, json)
}

/// Loads a policy as carefully as is asked for. `of` is the load in the history whose policy it is.
pub(crate) fn put_in(
    file: &PolicyFile,
    of: Option<u64>,
    caution: &Caution,
    history: &History,
    json: bool,
) -> Done {
    let loaded = change::load(file, of, caution, history)?;
    print(file, &loaded, json);
    if !json {
        print_wait(loaded.confirm);
    }
    Ok(Answer::Yes)
}

fn print_wait(confirm: Option<Duration>) {
    let left = confirm.or_else(|| {
        // Of a load before this one.
        let left = rollback::time_left()?;
        Some(Duration::from_secs(left.as_secs()))
    });
    let Some(left) = left else { return };
    let left = humantime::format_duration(left);
    if confirm.is_some() {
        output::line(&format!(
            "{NOTE}open another connection and run `nfguard confirm` within {left}, else what was \
             there before comes back{NOTE:#}"
        ));
    } else {
        output::warning(&format!(
            "an earlier load still waits for `nfguard confirm`; without it, the rules from before \
             that one replace these in {left}"
        ));
    }
}

fn print(file: &PolicyFile, loaded: &Loaded, json: bool) {
    let Loaded { table, change, obstacle, .. } = loaded;
    let changed = !change.transaction.is_empty();
    let changes = || table_diff::changes(change.before.as_ref(), Some(table));
    if json {
        output::json(&json!({
            "file": file.name,
            "warnings": file.warnings,
            "changed": changed,
            "verified": change.verified,
            "changes": changes(),
            "cuts_off": obstacle,
            "confirm_within_seconds": rollback::time_left().map(|left| left.as_secs_f64()),
        }));
        return;
    }
    if !changed {
        output::line(&format!("{}: loaded already, nothing changed", file.name));
        return;
    }
    if change.before.is_some() {
        let lines = changes();
        if lines.len() <= SHORT {
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
        output::line("another process changed the table before it could be read back");
    }
}

pub(crate) fn dry_run(path: &Path, caution: &Caution, json: bool) -> Done {
    let file = output::warned(PolicyFile::read_trusted(path)?, json);
    let table = file.table();
    let obstacle = change::obstacle(&table, caution);
    tell_changes(&file, changes_here(&table)?.as_deref(), obstacle.as_deref(), json);
    Ok(Answer::Yes)
}

/// What `load` would change here or, with `held`, where that policy is loaded.
pub(crate) fn diff(path: &Path, held: Option<&Path>, json: bool) -> Done {
    let file = output::read_policy(path, json)?;
    let changes = match held {
        Some(held) => {
            let [held, table] = [&PolicyFile::read(held)?, &file].map(|it| it.policy.compile());
            (held != table).then(|| table_diff::changes(Some(&held), Some(&table)))
        }
        None => changes_here(&file.table())?,
    };
    tell_changes(&file, changes.as_deref(), None, json);
    Ok(Answer::from(changes.is_none()))
}

/// What a load would change in the kernel, if anything.
fn changes_here(table: &Table) -> Result<Option<Vec<String>>, Failure> {
    let (snapshot, transaction) = nfguard_netlink::plan(&mut Nft::open()?, table)?;
    let before = snapshot.loaded.map(|loaded| loaded.table);
    let differs = !transaction.is_empty();
    Ok(differs.then(|| table_diff::changes(before.as_ref(), Some(table))))
}

fn tell_changes(file: &PolicyFile, changes: Option<&[String]>, obstacle: Option<&str>, json: bool) {
    if json {
        output::json(&json!({
            "file": file.name, "warnings": file.warnings, "differs": changes.is_some(),
            "changes": changes.unwrap_or_default(), "cuts_off": obstacle,
        }));
    } else if let Some(changes) = changes {
        output::print_changes(changes);
    } else {
        output::line(&format!("{}: no difference", file.name));
    }
    if let Some(why) = obstacle {
        output::warning(&format!("it would cut the way that you came in by: {why}"));
    }
}

pub(crate) fn unload(all: bool, history: &History, json: bool) -> Done {
    let removed = change::unload(all, history)?;
    if json {
        output::json(&json!({ "removed": !removed.is_empty(), "tables": removed }));
    } else if removed.is_empty() {
        output::line("no policy was loaded");
    }
    if !json {
        print_wait(None);
        removed.iter().for_each(|table| output::line(&format!("removed table inet {table}")));
    }
    Ok(Answer::Yes)
}
