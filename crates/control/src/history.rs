//! The history of loads: one file for each load, of which the newest are kept.
//!
//! A file has two lines: the record as JSON, and the SHA-256 of that line. A load goes on if it cannot
//! be written down.

use std::env;
use std::fs::{self, DirBuilder};
use std::io::{self, ErrorKind};
use std::os::unix::fs::DirBuilderExt as _;
use std::path::{Path, PathBuf};

use nix::unistd::{Uid, User};
use serde::{Deserialize, Serialize};
use serde_json::json;

use crate::digest::sha256;
use crate::{Warn, atomic_file, trusted_file};
use nfguard_host::TcpConnection;

const VERSION: u32 = 1;
/// Number of loads that are kept.
const KEPT: usize = 50;
/// Digits of a file's name: names sort as numbers do.
const DIGITS: usize = 10;
/// The largest number that has these digits.
const LAST_NUMBER: u64 = 9_999_999_999;

/// The folder of the state, unless another one is named.
const FOLDER: &str = "/var/lib/nfguard";
/// Environment variable that names another folder; if it is empty, nothing is kept.
pub const VARIABLE: &str = "NFGUARD_STATE_DIR";

/// One load, or the removal of what was loaded.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct LoadRecord {
    /// The format.
    nfguard_load: u32,
    /// Its number, from 1.
    pub number: u64,
    /// Seconds since 1970.
    pub time: u64,
    /// Who loaded.
    pub user: String,
    /// The SSH session that it came by, as `SSH_CONNECTION` has it.
    pub ssh: Option<String>,
    /// The file's name as it was given.
    pub file: String,
    /// The file's text; `None` for an unload.
    pub policy: Option<String>,
    /// SHA-256 of the table that was made of it.
    pub table: String,
    /// The load whose policy this brought back.
    pub of: Option<u64>,
    /// What became of it.
    pub outcome: LoadOutcome,
}

/// What became of a load.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum LoadOutcome {
    /// It is in force for good.
    Loaded,
    /// It is rolled back unless it is confirmed.
    Pending,
    /// It was confirmed: how, in words.
    Confirmed(String),
    /// The rules from before are back.
    RolledBack,
}

impl LoadRecord {
    /// Makes the record of a load at this moment. [`History::add`] gives it its number.
    pub(crate) fn new(
        file: &str,
        policy: Option<&str>,
        table: String,
        session: Option<TcpConnection>,
    ) -> LoadRecord {
        LoadRecord {
            nfguard_load: VERSION,
            number: 0,
            time: crate::clock::now() as u64,
            user: user(),
            ssh: session.map(|ends| ends.to_string()),
            file: file.to_owned(),
            policy: policy.map(str::to_owned),
            table,
            of: None,
            outcome: LoadOutcome::Loaded,
        }
    }

    /// Whether its rules were not rolled back.
    pub fn holds(&self) -> bool {
        self.outcome != LoadOutcome::RolledBack
    }
}

/// Returns the last load before the one in force that made other rules. A rollback discards the loads
/// after it: two rollbacks go back by two loads.
///
/// `in_force` is the digest of the table that the kernel holds. A load that was killed after it was
/// written down, and before the kernel had it, is a record without rules in force. Such records stand
/// at the end, and do not count.
pub fn previous<'e>(entries: &'e [LoadRecord], in_force: Option<&str>) -> Option<&'e LoadRecord> {
    let last = in_force.and_then(|digest| {
        entries.iter().rposition(|entry| entry.holds() && entry.table == digest)
    });
    let entries = last.and_then(|last| entries.get(..=last)).unwrap_or(entries);
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

/// Returns the name of the user: behind `sudo`, of the user who ran that.
fn user() -> String {
    let behind = env::var("SUDO_USER").ok().filter(|user| !user.is_empty());
    let own = || {
        let uid = Uid::current();
        let user = User::from_uid(uid).ok().flatten();
        user.map_or_else(|| uid.to_string(), |user| user.name)
    };
    behind.unwrap_or_else(own)
}

/// The files of the state; none if nothing is to be kept.
#[derive(Clone, Debug)]
pub struct History {
    folder: Option<PathBuf>,
    pub(crate) warn: Warn,
}

impl History {
    /// Opens the state in this folder, or in that of the environment, or in the usual one.
    pub fn open(given: Option<PathBuf>, warn: Warn) -> History {
        let folder = given.or_else(|| env::var_os(VARIABLE).map(PathBuf::from));
        let folder = folder.unwrap_or_else(|| FOLDER.into());
        let folder =
            (folder != Path::new("")).then(|| std::path::absolute(&folder).unwrap_or(folder));
        History { folder, warn }
    }

    /// The folder, as [`VARIABLE`] names it.
    pub fn variable(&self) -> &Path {
        self.folder.as_deref().unwrap_or(Path::new(""))
    }

    /// The folder; none if nothing is to be kept.
    pub(crate) fn folder(&self) -> Option<&Path> {
        self.folder.as_deref()
    }

    fn loads(&self) -> Option<PathBuf> {
        self.folder.as_ref().map(|folder| folder.join("history"))
    }

    /// Returns the file that `boot` restores the bans from.
    pub fn bans(&self) -> Option<PathBuf> {
        self.folder.as_ref().map(|folder| folder.join("bans"))
    }

    /// Returns the file of `log --keep`.
    pub fn scans(&self) -> Option<PathBuf> {
        self.folder.as_ref().map(|folder| folder.join("scans"))
    }

    /// Writes a load down, and returns its number. An error is only a warning.
    pub fn add(&self, entry: LoadRecord) -> Option<u64> {
        let folder = self.loads()?;
        let added = add(&folder, entry);
        if let Err(error) = &added {
            (self.warn)(&format!("this load is not in the history: {}: {error}", folder.display()));
        }
        added.ok()
    }

    /// Removes a load that was not done after all.
    pub fn forget(&self, number: Option<u64>) {
        let path = self.loads().zip(number).map(|(folder, number)| file(&folder, number));
        if let Some(Err(error)) = path.map(fs::remove_file) {
            (self.warn)(&format!("the history still has a load that failed: {error}"));
        }
    }

    /// Writes down what became of the load that waits to be confirmed. A rollback takes back what was
    /// loaded since, too.
    pub fn settle(&self, outcome: &LoadOutcome) {
        let Some(folder) = self.loads() else { return };
        let mut entries = self.entries();
        if *outcome == LoadOutcome::RolledBack {
            let waiting = entries.iter().position(|it| it.outcome == LoadOutcome::Pending);
            entries.drain(..waiting.unwrap_or(entries.len()));
        } else {
            entries.retain(|it| it.outcome == LoadOutcome::Pending);
        }
        for mut entry in entries {
            entry.outcome = outcome.clone();
            let written = text(&entry)
                .and_then(|text| atomic_file::replace(&file(&folder, entry.number), &text));
            if let Err(error) = written {
                (self.warn)(&format!("the history is not up to date: {error}"));
            }
        }
    }

    /// Returns the loads that are kept, the oldest first. One that cannot be read is left out with a
    /// warning.
    pub fn entries(&self) -> Vec<LoadRecord> {
        let Some(folder) = self.loads() else { return Vec::new() };
        let (entries, problems) = read_all(&folder);
        problems.iter().for_each(|problem| (self.warn)(problem));
        entries
    }
}

fn read_all(folder: &Path) -> (Vec<LoadRecord>, Vec<String>) {
    let (mut entries, mut problems) = (Vec::new(), Vec::new());
    match numbers(folder) {
        Err(error) => problems.push(format!("{}: {error}", folder.display())),
        Ok(numbers) => {
            for path in numbers.into_iter().map(|number| file(folder, number)) {
                match read(&path) {
                    Ok(entry) => entries.push(entry),
                    Err(why) => problems.push(format!("{}: {why}; skipped", path.display())),
                }
            }
        }
    }
    (entries, problems)
}

fn add(folder: &Path, mut entry: LoadRecord) -> io::Result<u64> {
    DirBuilder::new().recursive(true).mode(0o700).create(folder)?;
    trusted_file::open_own_folder(folder)?;
    loop {
        let taken = numbers(folder)?;
        entry.number = taken.last().map_or(1, |last| last + 1);
        if entry.number > LAST_NUMBER {
            return Err(io::Error::other(format!("{LAST_NUMBER}.json has the last number")));
        }
        let path = file(folder, entry.number);
        let written = atomic_file::write(folder, &text(&entry)?, |file| {
            file.persist_noclobber(&path)?;
            Ok(())
        });
        match written {
            // Another process loaded at the same moment.
            Err(error) if error.kind() == ErrorKind::AlreadyExists => {}
            Err(error) => return Err(error),
            Ok(()) => {
                for old in taken.iter().rev().skip(KEPT - 1) {
                    // It does no harm if it stays.
                    let _ = fs::remove_file(file(folder, *old));
                }
                return Ok(entry.number);
            }
        }
    }
}

fn file(folder: &Path, number: u64) -> PathBuf {
    folder.join(format!("{number:0DIGITS$}.json"))
}

/// The numbers of the files, in order.
fn numbers(folder: &Path) -> io::Result<Vec<u64>> {
    let files = match fs::read_dir(folder) {
        Err(error) if error.kind() == ErrorKind::NotFound => return Ok(Vec::new()),
        files => files?,
    };
    let mut numbers = Vec::new();
    for entry in files {
        let name = entry?.file_name();
        let number = name.to_str().and_then(|name| name.strip_suffix(".json"));
        let number = number.filter(|number| number.len() == DIGITS);
        numbers.extend(number.and_then(|number| number.parse::<u64>().ok()));
    }
    numbers.sort_unstable();
    Ok(numbers)
}

fn text(entry: &LoadRecord) -> io::Result<Vec<u8>> {
    let entry = serde_json::to_string(entry)?;
    let foot = json!({ "sha256": sha256(entry.as_bytes()) });
    Ok(format!("{entry}\n{foot}\n").into_bytes())
}

fn read(path: &Path) -> Result<LoadRecord, String> {
    let bytes = trusted_file::read_own(path).map_err(|error| error.to_string())?;
    let damaged = || "damaged".to_owned();
    let text = String::from_utf8(bytes).map_err(|_| damaged())?;
    let (entry, foot) = text.split_once('\n').ok_or_else(damaged)?;
    let expected = json!({ "sha256": sha256(entry.as_bytes()) });
    if foot != format!("{expected}\n") {
        return Err(damaged());
    }
    serde_json::from_str(entry).map_err(|error| format!("written by another version: {error}"))
}

#[cfg(test)]
mod tests {
    use std::os::unix::fs::PermissionsExt as _;

    use super::*;

    fn entry(file: &str) -> LoadRecord {
        LoadRecord::new(file, Some("{}"), "d".to_owned(), None)
    }

    #[test]
    fn the_last_loads_are_kept_in_order_and_for_their_owner_alone() {
        let folder = tempfile::tempdir().expect("a folder");
        let history = History::open(Some(folder.path().join("deep/down")), |_| ());
        for number in 0..KEPT + 5 {
            history.add(entry(&number.to_string()));
        }
        let entries = history.entries();
        assert_eq!(entries.len(), KEPT);
        assert_eq!((entries[0].number, entries[0].file.as_str()), (6, "5"));
        let place = history.loads().expect("one");
        let mode = |path: &Path| fs::metadata(path).expect("there").permissions().mode() & 0o777;
        assert_eq!((mode(&place), mode(&file(&place, 6))), (0o700, 0o600));
    }

    #[test]
    fn a_damaged_entry_is_left_out_whatever_byte_was_changed_or_lost() {
        let folder = tempfile::tempdir().expect("a folder");
        let history = History::open(Some(folder.path().to_owned()), |_| ());
        history.add(entry("a"));
        history.add(entry("b"));
        let path = file(&history.loads().expect("one"), 1);
        let whole = fs::read(&path).expect("written");
        for at in 0..whole.len() {
            let mut changed = whole.clone();
            changed[at] ^= 1;
            for damaged in [&changed[..], &whole[..at]] {
                fs::write(&path, damaged).expect("writes");
                let (entries, problems) = read_all(path.parent().expect("a folder"));
                assert_eq!(entries.iter().map(|it| it.number).collect::<Vec<_>>(), [2], "{at}");
                assert_eq!(problems.len(), 1);
            }
        }
        fs::write(&path, whole).expect("writes");
        assert_eq!(history.entries().len(), 2);
    }

    #[test]
    fn what_becomes_of_a_load_is_written_down_and_nothing_else_is_touched() {
        let folder = tempfile::tempdir().expect("a folder");
        let history = History::open(Some(folder.path().to_owned()), |_| ());
        history.add(entry("a"));
        history.add(LoadRecord { outcome: LoadOutcome::Pending, ..entry("b") });
        history.settle(&LoadOutcome::RolledBack);
        let outcomes: Vec<_> = history.entries().into_iter().map(|it| it.outcome).collect();
        assert_eq!(outcomes, [LoadOutcome::Loaded, LoadOutcome::RolledBack]);
    }

    #[test]
    fn each_rollback_goes_back_by_one_load() {
        let entry = |number: u64, policy: Option<&str>, of: Option<u64>, outcome| {
            let table = policy.map(|_| of.unwrap_or(number).to_string()).unwrap_or_default();
            let mut entry = LoadRecord::new("a.json", policy, table, None);
            (entry.number, entry.of, entry.outcome) = (number, of, outcome);
            entry
        };
        let load = |number| entry(number, Some("{}"), None, LoadOutcome::Loaded);
        let mut all = vec![load(1), load(2), load(3)];
        all.push(entry(4, Some("{}"), None, LoadOutcome::RolledBack));
        let back = |all: &[LoadRecord]| previous(all, None).map(|entry| entry.number);
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
        assert_eq!(back(&all), Some(7), "10 has restored what another program had changed of 9");
    }

    #[test]
    fn a_load_that_was_killed_before_its_commit_is_not_what_a_rollback_leaves() {
        let load = |number: u64, of: Option<u64>| {
            let table = of.unwrap_or(number).to_string();
            let mut entry = LoadRecord::new("a.json", Some("{}"), table, None);
            (entry.number, entry.of) = (number, of);
            entry
        };
        let back = |all: &[LoadRecord], in_force: Option<&str>| {
            previous(all, in_force).map(|entry| entry.number)
        };
        let mut all = vec![load(1, None), load(2, None), load(3, None)];
        assert_eq!(back(&all, Some("3")), Some(2));
        assert_eq!(back(&all, Some("2")), Some(1), "3 was killed");
        all.push(load(4, Some(1)));
        assert_eq!(back(&all, Some("3")), Some(2), "the rollback to 1 was killed");
        let mut unload = LoadRecord::new("", None, String::new(), None);
        unload.number = 5;
        all.push(unload);
        assert_eq!(back(&all, Some("3")), Some(2), "so was the unload");
        assert_eq!(
            back(&all, Some("of another state folder")),
            Some(1),
            "as if the kernel told nothing"
        );
    }
}
