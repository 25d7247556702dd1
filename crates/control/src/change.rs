//! `load`, `diff` and `unload`.

use std::path::Path;
use std::time::Duration;

use nfguard_ban::Bans;
use nfguard_netlink::{Change, ConnectionTuple, Error, Nft, Table, protocol};
use nfguard_policy::{MARK, Policy, TABLE};
use serde_json::json;

use crate::args::Caution;
use crate::bans::{Scans, never};
use crate::connections::Ends;
use crate::failure::Failure;
use crate::history::{History, LoadOutcome, LoadRecord};
use crate::output::NOTE;
use crate::policy_file::PolicyFile;
use crate::reach::Visitor;
use crate::way_back::{After, Armed};
use crate::{Answer, Done, guard, output, stamp, way_back};

/// How long a list of changes `load` prints; all of it is for `diff`.
const SHORT: usize = 40;

/// Why those are never banned whom a policy names.
pub(crate) const POLICY: &str = "the policy says so";

pub(crate) fn load(path: &Path, caution: &Caution, history: &History, json: bool) -> Done {
    let file = PolicyFile::read_trusted(path)?.warned(json);
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
    let table = file.table();
    let obstacle = obstacle(&table, caution);
    if let Some(why) = &obstacle {
        if !caution.force {
            return Err(Failure::CutsOff(why.clone()));
        }
        output::warning(&format!("this cuts the way that you came in by: {why}"));
    }
    if let Some(ends) = Ends::of_session() {
        stay_connected(ends);
    }
    let lent = guard::borrow()?;
    let scans = Scans::now()?;
    let digest = stamp::digest(&file.policy.compile());
    let mut entry = LoadRecord::new(&file.name, Some(&file.text), digest, LoadOutcome::Loaded);
    entry.of = of;
    let (change, confirm) = match caution.confirm {
        None => {
            let change = apply(&table)?;
            if !change.transaction.is_empty() {
                history.add(entry);
            }
            (change, None)
        }
        Some(time) => with_way_back(&table, time, entry, history)?,
    };
    let kept = scans.outlive();
    // Before the guard owns the table again.
    let told = tell_bans(&file.policy);
    lent.give_back(&[], false)?;
    told.and(kept)?;
    print(file, &table, &change, obstacle.as_deref(), json);
    if !json {
        print_wait(confirm);
    }
    Ok(Answer::Yes)
}

/// Has the kernel know the connection that the load came by. Where no rule has yet asked about
/// connections it tracks none, and from the load on what the server says next would be taken for a
/// connection that it opens, and dropped, until the client says something. It is as well that the
/// load is done where this cannot be.
fn stay_connected(ends: Ends) {
    let flow = ConnectionTuple {
        source: ends.peer.ip(),
        destination: ends.local.ip(),
        protocol: protocol::TCP,
        source_port: ends.peer.port(),
        destination_port: ends.local.port(),
    };
    let _ = Nft::open().and_then(|mut kernel| kernel.track_connection(&flow));
}

/// Why the new rules would not let in whom they must.
fn obstacle(table: &Table, caution: &Caution) -> Option<String> {
    let visitor = match caution.peer {
        Some((address, port)) => Some(Visitor::given(address, port)),
        None => Visitor::of_session(),
    };
    visitor?.obstacle(table)
}

/// Loads with the way back made ready first, and the load written down, for nobody knows how far
/// this process will come. What was done, and how long it waits to be confirmed.
fn with_way_back(
    table: &Table,
    time: Duration,
    mut entry: LoadRecord,
    history: &History,
) -> Result<(Change, Option<Duration>), Failure> {
    let armed =
        Armed::ready(time, Ends::of_session(), history).map_err(|failure| match failure {
            Failure::WayBack(why) => Failure::WayBack(format!("nothing was loaded: {why}")),
            other => other,
        })?;
    entry.outcome = LoadOutcome::Waiting;
    let number = history.add(entry);
    let change = match apply(table) {
        Ok(change) if change.transaction.is_empty() => {
            history.forget(number);
            armed.stop();
            return Ok((change, None));
        }
        Ok(change) => change,
        // Something is in force now that nobody has asked for: it goes in time.
        Err(error @ (Error::ReadBack(_) | Error::Unknown)) => {
            let time = humantime::format_duration(time);
            output::warning(&format!("the rules from before the load come back in {time}"));
            return Err(error.into());
        }
        Err(error) => {
            history.forget(number);
            armed.stop();
            return Err(error.into());
        }
    };
    let why = match armed.loaded() {
        After::Waits => return Ok((change, Some(time))),
        After::TooLate => "loading took longer than there was time to confirm it",
        After::Gone => {
            match &change.before {
                Some(before) => apply(before).map(drop)?,
                None => nfguard_netlink::unload(&mut Nft::open()?, &ours()).map(drop)?,
            }
            history.settle(&LoadOutcome::WentBack);
            "somebody has ended its process"
        }
    };
    Err(Failure::WayBack(format!("{why}; the rules from before the load are back")))
}

fn print_wait(confirm: Option<Duration>) {
    let left = confirm.or_else(|| {
        // Of a load before this one.
        let left = way_back::time_left()?;
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

fn print(file: &PolicyFile, table: &Table, change: &Change, obstacle: Option<&str>, json: bool) {
    let changed = !change.transaction.is_empty();
    let changes = || output::changes(change.before.as_ref(), Some(table));
    if json {
        output::json(&json!({
            "file": file.name,
            "warnings": file.warnings,
            "changed": changed,
            "verified": change.verified,
            "changes": changes(),
            "cuts_off": obstacle,
            "confirm_within_seconds": way_back::time_left().map(|left| left.as_secs_f64()),
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

/// Tells the bans what the policy says of them. A host without bans gets no table for a policy that
/// says nothing and bans nobody.
pub(crate) fn tell_bans(policy: &Policy) -> Result<(), Failure> {
    let never = never()?;
    let bans = match policy.never_ban() {
        [] if !policy.ban_outgoing() && !policy.bans_scans() => Bans::open_existing(never)?,
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
    nfguard_netlink::load(&mut Nft::open()?, table)
}

pub(crate) fn dry_run(path: &Path, caution: &Caution, json: bool) -> Done {
    let file = PolicyFile::read_trusted(path)?.warned(json);
    let table = file.table();
    let obstacle = obstacle(&table, caution);
    tell_changes(&file, changes_here(&table)?.as_deref(), obstacle.as_deref(), json);
    Ok(Answer::Yes)
}

/// What `load` would change here or, with `held`, where that policy is loaded.
pub(crate) fn diff(path: &Path, held: Option<&Path>, json: bool) -> Done {
    let file = PolicyFile::read_and_warn(path, json)?;
    let changes = match held {
        Some(held) => {
            let [held, table] = [&PolicyFile::read(held)?, &file].map(|it| it.policy.compile());
            (held != table).then(|| output::changes(Some(&held), Some(&table)))
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
    Ok(differs.then(|| output::changes(before.as_ref(), Some(table))))
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

/// First the policy, then with `all` the bans: between the two everything is let in but the banned.
pub(crate) fn unload(all: bool, history: &History, json: bool) -> Done {
    let mut kernel = Nft::open()?;
    let mut tables = vec![ours()];
    if all {
        tables.push(nfguard_ban::known_by());
    }
    let lent = guard::borrow()?;
    let scans = (!all).then(Scans::now).transpose()?;
    let mut removed = Vec::new();
    for table in tables {
        if nfguard_netlink::unload(&mut kernel, &table)? {
            removed.push(table.name);
        }
    }
    lent.give_back(&removed, false)?;
    scans.map_or(Ok(()), Scans::outlive)?;
    if removed.iter().any(|table| table == TABLE) {
        history.add(LoadRecord::new("", None, String::new(), LoadOutcome::Loaded));
    }
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

/// What our table is known by.
pub(crate) fn ours() -> Table {
    Table { name: TABLE.to_owned(), comment: Some(MARK.to_owned()), ..Table::default() }
}
