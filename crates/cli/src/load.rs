//! `load`, `diff` and `unload`.

use std::path::Path;

use nfguard_ban::Bans;
use nfguard_netlink::{Change, Error, Kernel, Table};
use nfguard_policy::{MARK, Policy, TABLE};
use serde_json::json;

use crate::bans::never;
use crate::failure::Failure;
use crate::policy_file::PolicyFile;
use crate::{Answer, Done, output};

/// How long a list of changes `load` prints; all of it is for `diff`.
const SHORT: usize = 40;

/// Why those are never banned whom a policy names.
const POLICY: &str = "the policy says so";

pub(crate) fn load(path: &Path, dry_run: bool, json: bool) -> Done {
    if dry_run {
        compare(path, json)?;
        return Ok(Answer::Yes);
    }
    let file = PolicyFile::read_and_warn(path, json)?;
    let table = file.table();
    let change = apply(&table)?;
    tell_bans(&file.policy)?;
    let changed = !change.transaction.is_empty();
    let changes = || output::changes(change.before.as_ref(), Some(&table));
    if json {
        output::json(&json!({
            "file": file.name,
            "warnings": file.warnings,
            "changed": changed,
            "verified": change.verified,
            "changes": changes(),
        }));
        return Ok(Answer::Yes);
    }
    if !changed {
        output::line(&format!("{}: loaded already, nothing changed", file.name));
        return Ok(Answer::Yes);
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
    Ok(Answer::Yes)
}

/// Tells the bans what the policy says of them. A host without bans gets no table for a policy that
/// says nothing.
fn tell_bans(policy: &Policy) -> Result<(), Failure> {
    let never = never()?;
    let bans = match policy.never_ban() {
        [] if !policy.ban_outgoing() => Bans::open_existing(never)?,
        _ => Some(Bans::open(never)?),
    };
    if let Some(mut bans) = bans {
        bans.spare(POLICY, policy.never_ban())?;
        bans.drop_outgoing(policy.ban_outgoing())?;
    }
    Ok(())
}

/// Makes the kernel of this thread's network namespace hold the table.
pub(crate) fn apply(table: &Table) -> Result<Change, Error> {
    nfguard_netlink::load(&mut Kernel::open()?, table)
}

pub(crate) fn diff(path: &Path, json: bool) -> Done {
    compare(path, json).map(|differs| Answer::from(!differs))
}

/// Prints what a load would change; whether that is anything.
fn compare(path: &Path, json: bool) -> Result<bool, Failure> {
    let file = PolicyFile::read_and_warn(path, json)?;
    let table = file.table();
    let (snapshot, transaction) = nfguard_netlink::plan(&mut Kernel::open()?, &table)?;
    let differs = !transaction.is_empty();
    let before = snapshot.loaded.map(|loaded| loaded.table);
    let lines = if differs { output::changes(before.as_ref(), Some(&table)) } else { Vec::new() };
    if json {
        output::json(&json!({
            "file": file.name, "warnings": file.warnings, "differs": differs, "changes": lines,
        }));
    } else if differs {
        output::print_changes(&lines);
    } else {
        output::line(&format!("{}: no difference", file.name));
    }
    Ok(differs)
}

/// First the policy, then with `all` the bans: between the two everything is let in but the banned.
pub(crate) fn unload(all: bool, json: bool) -> Done {
    let mut kernel = Kernel::open()?;
    let mut tables = vec![ours()];
    if all {
        tables.push(nfguard_ban::known_by());
    }
    let mut removed = Vec::new();
    for table in tables {
        if nfguard_netlink::unload(&mut kernel, &table)? {
            removed.push(table.name);
        }
    }
    if json {
        output::json(&json!({ "removed": !removed.is_empty(), "tables": removed }));
    } else if removed.is_empty() {
        output::line("no policy was loaded");
    }
    if !json {
        removed.iter().for_each(|table| output::line(&format!("removed table inet {table}")));
    }
    Ok(Answer::Yes)
}

/// What our table is known by.
pub(crate) fn ours() -> Table {
    Table { name: TABLE.to_owned(), comment: Some(MARK.to_owned()), ..Table::default() }
}
