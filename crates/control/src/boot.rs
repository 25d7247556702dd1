//! `boot`: a policy and the bans of the last time, whatever has become of the files.

use std::path::{Path, PathBuf};

use nfguard_netlink::Nft;

use crate::Error;
use crate::ban_table::tell_bans;
use crate::history::{History, LoadOutcome, LoadRecord};
use crate::policy_file::PolicyFile;
use crate::saved_bans::{self, Restored};
use crate::scan_bans::Scans;
use crate::table::{apply, ours};
use crate::{Warn, digest, lease, rollback};

/// For a machine that has no policy which can be loaded, and never had. To let nobody in would be
/// as safe, but nobody could repair it.
const RESCUE: &str = include_str!("../../../policies/rescue.json");
/// What the rescue policy is called in place of a file.
pub const RESCUE_NAME: &str = "nfguard's rescue policy";

/// What came to be in force.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Source {
    /// The policy file.
    File,
    /// This load of the history.
    LastGood(u64),
    /// What was in the kernel before.
    Kept,
    /// The rescue policy.
    Rescue,
}

/// What a boot has done.
#[derive(Debug)]
pub struct Booted {
    /// What came to be in force.
    pub source: Source,
    /// What came of the bans; `Ok(None)` without a file, `Err` if they are not in force.
    pub bans: Result<Option<Restored>, ()>,
}

/// Puts in force what can be, and the bans of the last time. What goes wrong goes to `report`.
///
/// # Errors
/// If no policy can be loaded at all.
pub fn boot(
    path: &Path,
    bans: Option<PathBuf>,
    history: &History,
    report: fn(&Error),
    next: impl FnMut(usize),
) -> Result<Booted, Error> {
    // The bans hold without a policy, too.
    let policy = policy(path, history, report);
    let bans = bans.or_else(|| history.bans());
    let bans = bans.map_or(Ok(None), |bans| restore(&bans, history.warn, report, next));
    Ok(Booted { source: policy?, bans })
}

/// Loads the first of these that can be: the file, the last load that was good, and, if nothing of
/// ours is in the kernel, the rescue policy.
fn policy(path: &Path, history: &History, report: fn(&Error)) -> Result<Source, Error> {
    if rollback::time_left().is_some() {
        let why = "a load still waits for `nfguard confirm`; nothing was loaded".to_owned();
        return Err(Error::WayBack(why));
    }
    let mut entries = history.entries();
    if entries.iter().any(|entry| entry.outcome == LoadOutcome::Waiting) {
        // The machine went down while it waited, and its rules with it.
        history.settle(&LoadOutcome::WentBack);
        entries = history.entries();
    }
    let mut last_failure = None;
    let mut failed = |failure: Error| {
        report(&failure);
        last_failure = Some(failure);
    };
    match PolicyFile::read_trusted(path) {
        Err(failure) => failed(failure),
        Ok(file) if went_back(&file, &entries) => failed(Error::Usage(format!(
            "{}: was loaded with `--confirm` and never confirmed; `nfguard load` makes it good",
            path.display()
        ))),
        Ok(file) => match put_in(&file, history.warn, report) {
            Err(failure) => failed(failure),
            Ok(()) => {
                write_down(&file, &entries, history);
                return Ok(Source::File);
            }
        },
    }
    for (number, file) in good(&entries) {
        match put_in(&file, history.warn, report) {
            Err(failure) => failed(failure),
            Ok(()) => return Ok(Source::LastGood(number)),
        }
    }
    if nfguard_netlink::own_table(&mut Nft::open()?, &ours())?.loaded.is_some() {
        return Ok(Source::Kept);
    }
    let rescued = PolicyFile::parse(RESCUE_NAME, RESCUE.to_owned())
        .and_then(|file| put_in(&file, history.warn, report));
    rescued.map(|()| Source::Rescue).map_err(|failure| last_failure.unwrap_or(failure))
}

fn put_in(file: &PolicyFile, warn: Warn, report: fn(&Error)) -> Result<(), Error> {
    // A guard may have it, where this is no boot but the service started again.
    let lent = lease::borrow(warn)?;
    let scans = Scans::now()?;
    apply(&file.table())?;
    let told = scans.outlive().and(tell_bans(&file.policy));
    lent.give_back(&[], false)?;
    if let Err(failure) = told {
        report(&failure);
    }
    Ok(())
}

/// Whether the last that happened to this policy is that it was not confirmed.
fn went_back(file: &PolicyFile, entries: &[LoadRecord]) -> bool {
    let same = |entry: &&LoadRecord| entry.policy.as_ref() == Some(&file.text);
    entries.iter().rev().find(same).is_some_and(|last| last.outcome == LoadOutcome::WentBack)
}

/// The loads that were for good, the last first.
fn good(entries: &[LoadRecord]) -> impl Iterator<Item = (u64, PolicyFile)> {
    let for_good = |entry: &&LoadRecord| {
        matches!(entry.outcome, LoadOutcome::Loaded | LoadOutcome::Confirmed(_))
            && entry.policy.is_some()
    };
    entries.iter().rev().filter(for_good).filter_map(|entry| {
        // What an older version took and this one does not is passed over.
        let file = PolicyFile::parse(&entry.file, entry.policy.clone()?).ok()?;
        Some((entry.number, file))
    })
}

/// Makes the policy one to fall back to. One that is loaded at each boot is written down once.
fn write_down(file: &PolicyFile, entries: &[LoadRecord], history: &History) {
    let newest = good(entries).next();
    if newest.is_none_or(|(_, newest)| newest.text != file.text) {
        let digest = digest::digest(&file.policy.compile());
        history.add(LoadRecord::new(&file.name, Some(&file.text), digest, LoadOutcome::Loaded));
    }
}

/// Bans again whom the file names; `None` without a file, as before the first shutdown. A file that
/// cannot be used is renamed, for the next `save` would write over it.
fn restore(
    path: &Path,
    warn: Warn,
    report: fn(&Error),
    next: impl FnMut(usize),
) -> Result<Option<Restored>, ()> {
    if !path.exists() {
        return Ok(None);
    }
    saved_bans::restore(path, warn, next).map(Some).map_err(|failure| {
        report(&failure);
        if path.exists() {
            match saved_bans::keep_aside(path) {
                Ok(aside) => warn(&format!("the bans are now in {}", aside.display())),
                Err(error) => warn(&format!("{}: {error}", path.display())),
            }
        }
    })
}
