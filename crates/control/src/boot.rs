//! `boot`: a policy and the bans of the last time, whatever has become of the files.

use std::path::{Path, PathBuf};

use nfguard_netlink::Nft;
use serde_json::json;

use crate::bans::Scans;
use crate::failure::Failure;
use crate::history::{History, LoadOutcome, LoadRecord};
use crate::load::{apply, ours, tell_bans};
use crate::policy_file::PolicyFile;
use crate::state::Restored;
use crate::{Answer, Done, guard, output, stamp, state, way_back};

/// For a machine that has no policy which can be loaded, and never had. To let nobody in would be
/// as safe, but nobody could repair it.
const RESCUE: &str = include_str!("../../../policies/rescue.json");
const RESCUE_NAME: &str = "nfguard's rescue policy";

/// What came to be in force.
enum Source {
    File,
    /// This load of the history.
    LastGood(u64),
    /// What was in the kernel before.
    Kept,
    Rescue,
}

pub(crate) fn boot(path: &Path, bans: Option<PathBuf>, history: &History, as_json: bool) -> Done {
    // The bans hold without a policy, too.
    let policy = policy(path, history);
    let restored = bans.or_else(|| history.bans()).map_or(Ok(None), |bans| restore(&bans));
    let source = policy?;
    let words = match source {
        Source::File => format!("{} is in force", path.display()),
        Source::LastGood(number) => {
            format!("load {number} of the history is in force, the last that was good")
        }
        Source::Kept => "the policy that was loaded before stays in force".to_owned(),
        Source::Rescue => {
            format!("{RESCUE_NAME} is in force: SSH gets in at port 22, and nothing else")
        }
    };
    let is_file = matches!(source, Source::File);
    if !is_file {
        output::warning(&words);
    }
    if as_json {
        let (name, load) = match source {
            Source::File => ("file", None),
            Source::LastGood(number) => ("last_good", Some(number)),
            Source::Kept => ("kept", None),
            Source::Rescue => ("rescue", None),
        };
        let bans = restored.as_ref().ok().and_then(Option::as_ref).map(Restored::describe);
        output::json(&json!({ "policy": name, "load": load, "bans": bans }));
    } else {
        if is_file {
            output::line(&words);
        }
        if let Ok(Some(restored)) = &restored {
            restored.print(false);
        }
    }
    Ok(Answer::from(is_file && restored.is_ok()))
}

/// Loads the first of these that can be: the file, the last load that was good, and, if nothing of
/// ours is in the kernel, the rescue policy.
fn policy(path: &Path, history: &History) -> Result<Source, Failure> {
    if way_back::time_left().is_some() {
        let why = "a load still waits for `nfguard confirm`; nothing was loaded".to_owned();
        return Err(Failure::WayBack(why));
    }
    let mut entries = history.entries();
    if entries.iter().any(|entry| entry.outcome == LoadOutcome::Waiting) {
        // The machine went down while it waited, and its rules with it.
        history.settle(&LoadOutcome::WentBack);
        entries = history.entries();
    }
    let mut last_failure = None;
    let mut failed = |failure: Failure| {
        failure.print(false);
        last_failure = Some(failure);
    };
    match PolicyFile::read_trusted(path) {
        Err(failure) => failed(failure),
        Ok(file) if went_back(&file, &entries) => failed(Failure::Usage(format!(
            "{}: was loaded with `--confirm` and never confirmed; `nfguard load` makes it good",
            path.display()
        ))),
        Ok(file) => match put_in(&file) {
            Err(failure) => failed(failure),
            Ok(()) => {
                write_down(&file, &entries, history);
                return Ok(Source::File);
            }
        },
    }
    for (number, file) in good(&entries) {
        match put_in(&file) {
            Err(failure) => failed(failure),
            Ok(()) => return Ok(Source::LastGood(number)),
        }
    }
    if nfguard_netlink::own_table(&mut Nft::open()?, &ours())?.loaded.is_some() {
        return Ok(Source::Kept);
    }
    let rescued = PolicyFile::parse(RESCUE_NAME, RESCUE.to_owned()).and_then(|file| put_in(&file));
    rescued.map(|()| Source::Rescue).map_err(|failure| last_failure.unwrap_or(failure))
}

fn put_in(file: &PolicyFile) -> Result<(), Failure> {
    // A guard may have it, where this is no boot but the service started again.
    let lent = guard::borrow()?;
    let scans = Scans::now()?;
    apply(&file.table())?;
    let told = scans.outlive().and(tell_bans(&file.policy));
    lent.give_back(&[], false)?;
    if let Err(failure) = told {
        failure.print(false);
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
        let digest = stamp::digest(&file.policy.compile());
        history.add(LoadRecord::new(&file.name, Some(&file.text), digest, LoadOutcome::Loaded));
    }
}

/// Bans again whom the file names; `None` without a file, as before the first shutdown. A file that
/// cannot be used is renamed, for the next `save` would write over it.
fn restore(path: &Path) -> Result<Option<Restored>, ()> {
    if !path.exists() {
        return Ok(None);
    }
    state::bring_back(path).map(Some).map_err(|failure| {
        failure.print(false);
        if path.exists() {
            match state::keep_aside(path) {
                Ok(aside) => output::warning(&format!("the bans are now in {}", aside.display())),
                Err(error) => output::warning(&format!("{}: {error}", path.display())),
            }
        }
    })
}
