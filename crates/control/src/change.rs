//! Changing the policy in the kernel.

use std::net::IpAddr;
use std::time::Duration;

use nfguard_netlink::{Change, ConnectionTuple, Error as KernelError, Nft, Table, protocol};
use nfguard_policy::TABLE;

use crate::ban_table::tell_bans;
use crate::connections::Ends;
use crate::history::{History, LoadOutcome, LoadRecord};
use crate::lockout::Visitor;
use crate::policy_file::PolicyFile;
use crate::rollback::{After, Armed};
use crate::scan_bans::Scans;
use crate::table::{apply, ours};
use crate::{Error, digest, lease};

/// How careful a load is.
#[derive(Clone, Copy, Debug, Default)]
pub struct Caution {
    /// What was there before comes back unless the load is confirmed within this time.
    pub confirm: Option<Duration>,
    /// Who must still get in, and to which port; without it, the peer of the SSH session.
    pub peer: Option<(IpAddr, Option<u16>)>,
    /// Load even what would not let in the peer again.
    pub force: bool,
}

/// What a load has done.
#[derive(Debug)]
pub struct Loaded {
    /// What the kernel was to hold.
    pub table: Table,
    /// What was changed.
    pub change: Change,
    /// Why the peer would not get in again.
    pub obstacle: Option<String>,
    /// How long the load waits to be confirmed.
    pub confirm: Option<Duration>,
}

/// Loads a policy as carefully as is asked for. `of` is the load in the history whose policy it is.
///
/// # Errors
/// If it would lock out the peer, or cannot be done.
pub fn load(
    file: &PolicyFile,
    of: Option<u64>,
    caution: &Caution,
    history: &History,
) -> Result<Loaded, Error> {
    let table = file.table();
    let obstacle = obstacle(&table, caution);
    if let Some(why) = &obstacle {
        if !caution.force {
            return Err(Error::CutsOff(why.clone()));
        }
        (history.warn)(&format!("this cuts the way that you came in by: {why}"));
    }
    if let Some(ends) = Ends::of_session() {
        stay_connected(ends);
    }
    let lent = lease::borrow(history.warn)?;
    let scans = Scans::now()?;
    let digest = digest::digest(&file.policy.compile());
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
    Ok(Loaded { table, change, obstacle, confirm })
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
pub fn obstacle(table: &Table, caution: &Caution) -> Option<String> {
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
) -> Result<(Change, Option<Duration>), Error> {
    let armed =
        Armed::ready(time, Ends::of_session(), history).map_err(|failure| match failure {
            Error::WayBack(why) => Error::WayBack(format!("nothing was loaded: {why}")),
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
        Err(error @ (KernelError::ReadBack(_) | KernelError::Unknown)) => {
            let time = humantime::format_duration(time);
            (history.warn)(&format!("the rules from before the load come back in {time}"));
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
    Err(Error::WayBack(format!("{why}; the rules from before the load are back")))
}

/// First the policy, then with `all` the bans: between the two everything is let in but the banned.
/// The tables that were removed.
///
/// # Errors
/// If the guard or the kernel does not let go of them.
pub fn unload(all: bool, history: &History) -> Result<Vec<String>, Error> {
    let mut kernel = Nft::open()?;
    let mut tables = vec![ours()];
    if all {
        tables.push(nfguard_ban::table_identity());
    }
    let lent = lease::borrow(history.warn)?;
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
    Ok(removed)
}
