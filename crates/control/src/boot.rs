//! A boot: loads a policy, and restores bans, feeds and never-ban entries, whatever has become of their
//! files.

use std::path::{Path, PathBuf};

use nfguard_netlink::Nft;

use crate::ban_table::BanRules;
use crate::change::PolicyChange;
use crate::context::Context;
use crate::history::{LoadOutcome, LoadRecord};
use crate::lease::Release;
use crate::persistence::{self, RestoredState};
use crate::policy_file::{PolicyFile, Sealed};
use crate::table::ours;
use crate::{Error, rollback, saved_bans};

/// The policy of a machine that has none which can be loaded, and never had one. To refuse every
/// connection would be as safe, but then the machine could not be repaired.
const RESCUE: &str = include_str!("../../../policies/rescue.json");
/// What the rescue policy is called in place of a file.
pub const RESCUE_NAME: &str = "nfguard's rescue policy";

/// The policy that a boot has put in force.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Source {
    /// The policy file.
    File,
    /// This load of the history.
    LastGood(u64),
    /// The policy that the kernel held before.
    Kept,
    /// The rescue policy.
    Rescue,
}

/// What a boot has done.
#[derive(Debug)]
pub struct Booted {
    /// What came to be in force.
    pub source: Source,
    /// What else was written down, and is in force again; `Err` if the bans cannot be opened.
    pub kept: Result<RestoredState, ()>,
}

/// Loads a policy that can be loaded, and restores what else is written down. Errors on the way go to `report`.
///
/// # Errors
/// If no policy can be loaded at all.
pub fn boot(
    path: &Path,
    bans: Option<PathBuf>,
    context: &Context,
    report: fn(&Error),
    next: impl FnMut(usize),
) -> Result<Booted, Error> {
    // The bans hold without a policy, too. The policy comes first: it shuts more out.
    let context = &context.of_boot();
    // No `save` is to write over the bans before they are in force.
    let bans = bans.or_else(|| context.history.bans());
    if let Some(bans) = bans.as_deref().filter(|bans| bans.exists() || !context.files.is_empty()) {
        saved_bans::begin_restore(bans);
    }
    let policy = policy(path, context, report);
    let kept = restore(bans.as_deref(), context, report, next);
    Ok(Booted { source: policy?, kept })
}

/// Restores what is written down; nothing is made where nothing is.
fn restore(
    bans: Option<&Path>,
    context: &Context,
    report: fn(&Error),
    next: impl FnMut(usize),
) -> Result<RestoredState, ()> {
    if bans.is_none_or(|bans| !bans.exists()) && context.files.is_empty() {
        return Ok(RestoredState::nothing());
    }
    match persistence::open(context) {
        Ok(mut open) => Ok(persistence::restore_all(&mut open, bans, context, &report, next)),
        Err(error) => {
            report(&error);
            Err(())
        }
    }
}

/// Loads the first of these that can be loaded: the file, the last good load, and, if the kernel holds
/// no policy of ours, the rescue policy.
fn policy(path: &Path, context: &Context, report: fn(&Error)) -> Result<Source, Error> {
    if rollback::time_left()?.is_some() {
        let why =
            "nothing was loaded: an earlier load still waits for `nfguard confirm`".to_owned();
        return Err(Error::Rollback(why));
    }
    let history = &context.history;
    let mut records = history.entries();
    if records.iter().any(|record| record.outcome == LoadOutcome::Pending) {
        // The machine went down while it waited, and its rules with it.
        history.settle(&LoadOutcome::RolledBack);
        records = history.entries();
    }
    let mut last_error = None;
    let mut failed = |error: Error| {
        report(&error);
        last_error = Some(error);
    };
    match PolicyFile::read_trusted(path) {
        Err(error) => failed(error),
        Ok(file) if was_rolled_back(&file, &records) => failed(Error::Usage(format!(
            "{}: this policy was loaded with `--confirm` and never confirmed; `nfguard load` makes it \
             the good one",
            path.display()
        ))),
        Ok(file) => match load(&file, is_new(&file, &records), context, report) {
            Err(error) => failed(error),
            Ok(()) => return Ok(Source::File),
        },
    }
    for (number, file) in good(&records) {
        match load(&file, false, context, report) {
            Err(error) => failed(error),
            Ok(()) => return Ok(Source::LastGood(number)),
        }
    }
    if nfguard_netlink::read_own_head(&mut Nft::open()?, &ours())?.is_some() {
        return Ok(Source::Kept);
    }
    let rescue = PolicyFile::parse(RESCUE_NAME, RESCUE.to_owned());
    let rescued = rescue.and_then(|file| load(&file, false, context, report));
    rescued.map(|()| Source::Rescue).map_err(|error| last_error.unwrap_or(error))
}

/// Loads a policy. A guard may be there already, where this is no boot but the service started again.
fn load(
    file: &PolicyFile,
    is_new: bool,
    context: &Context,
    report: fn(&Error),
) -> Result<(), Error> {
    let Sealed { table, digest } = file.seal();
    let mut change = PolicyChange::begin(context)?;
    if is_new {
        change.record(file.record(digest, context.connection()));
    }
    change.load(&table, None)?;
    if let Err(error) = change.finish(BanRules::of(&file.policy), &table, Release::Loaded) {
        report(&error);
    }
    Ok(())
}

/// Whether the last load of this policy was rolled back.
fn was_rolled_back(file: &PolicyFile, entries: &[LoadRecord]) -> bool {
    let same = |entry: &&LoadRecord| entry.policy.as_ref() == Some(&file.text);
    entries.iter().rev().find(same).is_some_and(|last| last.outcome == LoadOutcome::RolledBack)
}

/// Returns the good loads, the last one first.
fn good(entries: &[LoadRecord]) -> impl Iterator<Item = (u64, PolicyFile)> {
    let is_good = |entry: &&LoadRecord| {
        matches!(entry.outcome, LoadOutcome::Loaded | LoadOutcome::Confirmed(_))
            && entry.policy.is_some()
    };
    entries.iter().rev().filter(is_good).filter_map(|entry| {
        // A policy that only an older version takes is left out.
        let file = PolicyFile::parse(&entry.file, entry.policy.clone()?).ok()?;
        Some((entry.number, file))
    })
}

/// Whether the newest good load was of another policy. One that is loaded at each boot is written
/// down once.
fn is_new(file: &PolicyFile, records: &[LoadRecord]) -> bool {
    good(records).next().is_none_or(|(_, newest)| newest.text != file.text)
}
