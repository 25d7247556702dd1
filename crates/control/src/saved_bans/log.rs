//! The log of bans: what commands have banned and ended since the last save, line by line.
//!
//! The kernel has each change before it is written. A save moves the lines aside before it reads the
//! kernel, so it holds all of that, and then removes them. What is written meanwhile is in the log again.
//! The file itself stays: the guard has it open, and can open no other.

mod open;

use std::collections::BTreeMap;
use std::fs::{self, File};
use std::io::{self, ErrorKind, Read as _, Seek as _, SeekFrom, Write as _};
use std::path::{Path, PathBuf};
use std::time::Duration;

use nfguard_ban::{ActiveBan, Ban, Port, Target, source_name};
use rustix::fs::OFlags;
use serde::{Deserialize, Serialize};

use super::{Line, Text};
use crate::clock::now;
use crate::state_folder::{lock, lock_file, lock_within, sealed_line, unsealed_line};
use crate::trusted_file::{open_own, read_own};
use crate::{Error, atomic_file};

pub(crate) use open::OpenBanLog;

/// Size above which the log is folded into the file of saved bans. Where `save` runs every few
/// minutes, no log grows to it.
const FOLDED_ABOVE_BYTES: u64 = 4 * 1024 * 1024;

/// The file of the lock that a save holds from before it moves the log aside until the end. Its
/// holder may wait for the folder's lock. The holder of that one only tries to get this one.
const SAVE_LOCK: &str = "save.lock";

/// Longest wait for another save, which may have to read many bans.
const SAVE_TIMEOUT: Duration = Duration::from_secs(100);

/// A change of bans that a command has made.
#[derive(Debug, Serialize, Deserialize)]
#[serde(deny_unknown_fields, rename_all = "snake_case")]
enum Change {
    /// A ban was made, or made longer.
    Ban(Line),
    /// The ban of one source, or of all, was ended.
    Unban {
        target: Text<Target>,
        #[serde(skip_serializing_if = "Option::is_none")]
        port: Option<Text<Port>>,
        #[serde(skip_serializing_if = "Option::is_none")]
        source: Option<String>,
    },
    /// All bans of one source were ended.
    End { source: String },
}

/// The log of bans in the state's folder.
#[derive(Clone, Copy, Debug)]
pub struct BanLog<'f> {
    folder: &'f Path,
}

impl<'f> BanLog<'f> {
    pub(crate) fn in_folder(folder: &'f Path) -> BanLog<'f> {
        BanLog { folder }
    }

    /// The log, and the one that a save has moved aside.
    pub(crate) fn paths(self) -> [PathBuf; 2] {
        [self.folder.join("bans.log"), self.folder.join("bans.log.old")]
    }

    /// Writes down that these bans are in force.
    ///
    /// # Errors
    /// They cannot be written.
    pub fn banned<'a>(self, bans: impl IntoIterator<Item = Ban<'a>>) -> Result<(), Error> {
        let now = now();
        self.append(bans.into_iter().map(|ban| {
            let Ban { target, port, duration, source, reason, created_at } = ban;
            Change::Ban(Line::new(
                ActiveBan {
                    target: target.target(),
                    port,
                    expires_in: duration,
                    source: source_name(source),
                    reason: reason.to_owned(),
                    created_at: created_at.or(Some(now as u64)),
                },
                now,
            ))
        }))
    }

    /// Writes down that these bans are ended; those of all sources without one.
    ///
    /// # Errors
    /// It cannot be written.
    pub fn unbanned(
        self,
        targets: impl IntoIterator<Item = (Target, Option<Port>)>,
        source: Option<&str>,
    ) -> Result<(), Error> {
        self.append(Change::unbanned(targets, source))
    }

    /// Writes down that all bans of a source are ended.
    ///
    /// # Errors
    /// It cannot be written.
    pub fn ended(self, source: &str) -> Result<(), Error> {
        self.append([Change::End { source: source_name(source) }])
    }

    fn append(self, changes: impl IntoIterator<Item = Change>) -> Result<(), Error> {
        let [path, _] = self.paths();
        let append = || -> io::Result<()> {
            let mut text = String::new();
            for change in changes {
                text.push_str(&sealed_line(&serde_json::to_string(&change)?));
            }
            if text.is_empty() {
                return Ok(());
            }
            let _lock = lock(self.folder)?;
            let is_new = !path.exists();
            let mut file = open_to_append(&path)?;
            let length = file.metadata()?.len();
            if ends_mid_line(&mut file)? {
                text.insert(0, '\n');
            }
            if let Err(error) = file.write_all(text.as_bytes()).and_then(|()| file.sync_data()) {
                // A full disk: no half of a line is to stay.
                let _ = file.set_len(length);
                return Err(error);
            }
            if is_new {
                File::open(self.folder)?.sync_all()?;
            }
            if length > FOLDED_ABOVE_BYTES {
                // The changes are on the disk. The next command tries again to fold them.
                let _ = self.fold();
            }
            Ok(())
        };
        append().map_err(Error::file(&path))
    }

    /// Waits for its turn to save, until the value is dropped.
    pub(crate) fn lock_save(self) -> io::Result<File> {
        let file = lock_file(self.folder, SAVE_LOCK)?;
        lock_within(&file, SAVE_TIMEOUT)?;
        Ok(file)
    }

    /// Folds the log into the file of saved bans, without the kernel, unless a save is under way. A file
    /// that cannot be read is left to `boot`, which says so. A log with damaged lines is kept aside.
    fn fold(self) -> io::Result<()> {
        let save = lock_file(self.folder, SAVE_LOCK)?;
        if save.try_lock().is_err() {
            return Ok(());
        }
        let saved = self.folder.join("bans");
        let bytes = match read_own(&saved) {
            Err(error) if error.kind() == ErrorKind::NotFound => Vec::new(),
            bytes => bytes?,
        };
        let mut lines = Vec::new();
        if !bytes.is_empty() {
            let Ok((_, read)) = super::read(&bytes) else { return Ok(()) };
            lines = read;
        }
        self.move_aside()?;
        let (mut lines, problems) = self.applied_to(lines);
        let now = now();
        lines.retain(|line| line.duration(now).is_some());
        super::replace(&saved, super::text(&lines, now)?.as_bytes())?;
        let [log, old] = self.paths();
        if problems.is_empty() {
            return remove_if_present(&old);
        }
        fs::rename(old, super::free_name(&log))
    }

    /// Moves the lines aside, before the kernel is read.
    pub(crate) fn begin_save(self) -> io::Result<()> {
        let _lock = lock(self.folder)?;
        self.move_aside()
    }

    /// Moves the lines aside, with the lock held.
    fn move_aside(self) -> io::Result<()> {
        let [log, old] = self.paths();
        let Some(lines) = read_if_present(&log)?.filter(|lines| !lines.is_empty()) else {
            return Ok(());
        };
        // What is left of a save that did not come to its end. If this one does not either, what is in
        // both files is the same twice as once.
        let mut all = read_if_present(&old)?.unwrap_or_default();
        all.push(b'\n');
        all.extend(lines);
        atomic_file::replace(&old, &all)?;
        open_own(&log, OFlags::WRONLY)?.set_len(0)
    }

    /// Removes all lines, with the lock held. Returns whether there were any.
    pub(crate) fn clear(self) -> io::Result<bool> {
        let was_any = self.exists();
        self.move_aside()?;
        remove_if_present(&self.paths()[1])?;
        Ok(was_any)
    }

    /// Removes what was moved aside: the saved file has it.
    pub(crate) fn end_save(self) -> io::Result<()> {
        let [_, old] = self.paths();
        let _lock = lock(self.folder)?;
        remove_if_present(&old)
    }

    /// Tells whether there is anything in the log.
    pub(crate) fn exists(self) -> bool {
        self.paths().iter().any(|path| fs::metadata(path).is_ok_and(|it| it.len() > 0))
    }

    /// Returns these bans with all changes of the log, and what could not be read of it. The last line
    /// may end in the middle: its command has not answered.
    pub(crate) fn applied_to(self, lines: Vec<Line>) -> (Vec<Line>, Vec<String>) {
        let mut all: BTreeMap<(Target, Option<Port>), Vec<Line>> = BTreeMap::new();
        for line in lines {
            all.entry(line.key()).or_default().push(line);
        }
        let [log, old] = self.paths();
        let mut problems = Vec::new();
        for path in [old, log] {
            let bytes = match read_own(&path) {
                Ok(bytes) => bytes,
                Err(error) if error.kind() == ErrorKind::NotFound => continue,
                Err(error) => {
                    problems.push(format!("{}: {error}", path.display()));
                    continue;
                }
            };
            let text = String::from_utf8_lossy(&bytes);
            for (number, line) in (1..).zip(text.lines()).filter(|(_, line)| !line.is_empty()) {
                match unsealed_line(line).and_then(|line| serde_json::from_str(line).ok()) {
                    Some(change) => apply(change, &mut all),
                    None if text.ends_with(line) => {}
                    None => problems.push(format!(
                        "{}: line {number} is damaged; that ban, or its end, is lost",
                        path.display()
                    )),
                }
            }
        }
        (all.into_values().flatten().collect(), problems)
    }
}

impl Change {
    fn unbanned(
        targets: impl IntoIterator<Item = (Target, Option<Port>)>,
        source: Option<&str>,
    ) -> impl Iterator<Item = Change> {
        let source = source.map(source_name);
        targets.into_iter().map(move |(target, port)| Change::Unban {
            target: Text(target),
            port: port.map(Text),
            source: source.clone(),
        })
    }
}

fn apply(change: Change, all: &mut BTreeMap<(Target, Option<Port>), Vec<Line>>) {
    match change {
        Change::Ban(line) => {
            let owners = all.entry(line.key()).or_default();
            match owners.iter_mut().find(|own| own.source == line.source) {
                None => owners.push(line),
                // The later end counts, as in the kernel.
                Some(own) => {
                    let ends = |line: &Line| line.until.unwrap_or(f64::INFINITY);
                    if ends(&line) > ends(own) {
                        *own = line;
                    }
                }
            }
        }
        Change::Unban { target, port, source } => {
            if let Some(owners) = all.get_mut(&(target.0, port.map(|port| port.0))) {
                owners.retain(|own| source.as_ref().is_some_and(|source| own.source != *source));
            }
        }
        Change::End { source } => {
            all.values_mut().for_each(|owners| owners.retain(|own| own.source != source));
        }
    }
}

/// Tells whether the file ends in the middle of a line: the machine lost its power.
fn ends_mid_line(file: &mut File) -> io::Result<bool> {
    if file.metadata()?.len() == 0 {
        return Ok(false);
    }
    let mut last = [0];
    file.seek(SeekFrom::End(-1))?;
    file.read_exact(&mut last)?;
    Ok(last != *b"\n")
}

fn open_to_append(path: &Path) -> io::Result<File> {
    open_own(path, OFlags::CREATE | OFlags::APPEND | OFlags::RDWR)
}

fn read_if_present(path: &Path) -> io::Result<Option<Vec<u8>>> {
    match read_own(path) {
        Err(error) if error.kind() == ErrorKind::NotFound => Ok(None),
        bytes => bytes.map(Some),
    }
}

fn remove_if_present(path: &Path) -> io::Result<()> {
    match fs::remove_file(path) {
        Err(error) if error.kind() != ErrorKind::NotFound => Err(error),
        _ => Ok(()),
    }
}

#[cfg(test)]
mod tests {
    use nfguard_ban::NeverBan;

    use super::*;

    fn ban<'a>(target: &str, source: &'a str, seconds: u64) -> Ban<'a> {
        let target = target.parse().expect("a target");
        Ban {
            target: NeverBan::default().admit(target).expect("admitted"),
            port: None,
            duration: Some(Duration::from_secs(seconds)),
            source,
            reason: "",
            created_at: None,
        }
    }

    fn shown(log: BanLog<'_>) -> (Vec<String>, usize) {
        let (lines, problems) = log.applied_to(Vec::new());
        let left = |line: &Line| line.until.map(|until| (until - now()).round());
        let shown = |line: &Line| format!("{} {} {:?}", line.target.0, line.source, left(line));
        (lines.iter().map(shown).collect(), problems.len())
    }

    #[test]
    fn the_log_ends_in_what_the_commands_left() {
        let folder = tempfile::tempdir().expect("a folder");
        let log = BanLog::in_folder(folder.path());
        let of = |text: &str| (text.parse::<Target>().expect("a target"), None);
        log.banned([ban("192.0.2.1", "a", 600), ban("192.0.2.1", "b", 60)]).expect("written");
        log.banned([ban("192.0.2.1", "a", 60), ban("192.0.2.2", "a", 60)]).expect("written");
        log.unbanned([of("192.0.2.2")], None).expect("written");
        log.banned([ban("192.0.2.3", "c", 60), ban("192.0.2.4", "c", 60)]).expect("written");
        log.ended("c").expect("written");
        log.unbanned([of("192.0.2.1")], Some("b")).expect("written");
        let left = vec!["192.0.2.1 a Some(600.0)".to_owned()];
        assert_eq!(shown(log), (left.clone(), 0));

        log.begin_save().expect("moved");
        log.banned([ban("192.0.2.5", "a", 60)]).expect("written");
        assert_eq!(shown(log).0.len(), 2, "a save that is killed loses nothing");
        log.begin_save().expect("moved");
        assert_eq!(shown(log).0.len(), 2, "nor does the next one");
        log.end_save().expect("removed");
        assert_eq!(shown(log).0.len(), 0);
    }

    #[test]
    fn a_line_that_is_cut_or_changed_loses_itself_alone_and_is_named() {
        let folder = tempfile::tempdir().expect("a folder");
        let log = BanLog::in_folder(folder.path());
        log.banned([ban("192.0.2.1", "a", 600)]).expect("written");
        let [path, _] = log.paths();
        let first = fs::read(&path).expect("written");
        for cut in 1..first.len() {
            fs::write(&path, &first[..cut]).expect("written");
            log.banned([ban("192.0.2.2", "a", 600)]).expect("written");
            let (left, problems) = shown(log);
            let whole = cut + 1 == first.len();
            assert_eq!((left.len(), problems), (1 + usize::from(whole), usize::from(!whole)));
        }
    }

    #[test]
    fn a_log_that_nothing_saves_is_folded_into_the_saved_bans() {
        let folder = tempfile::tempdir().expect("a folder");
        let log = BanLog::in_folder(folder.path());
        log.banned([ban("192.0.2.1", "a", 600), ban("192.0.2.2", "a", 600)]).expect("written");
        let saved = || {
            let saved = fs::read(folder.path().join("bans")).expect("written");
            super::super::read(&saved).expect("whole").1.len()
        };
        let save = log.lock_save().expect("locked");
        log.fold().expect("left");
        assert!(log.exists(), "a save is under way, and reads the kernel");
        drop(save);
        log.fold().expect("folded");
        assert!(!log.exists());
        assert_eq!(saved(), 2);

        // One damaged line does not keep the rest in the log for good.
        let [path, _] = log.paths();
        log.banned([ban("192.0.2.3", "a", 600)]).expect("written");
        let mut text = fs::read(&path).expect("written");
        text.extend_from_slice(b"damaged\n");
        fs::write(&path, text).expect("written");
        log.fold().expect("folded");
        assert!(!log.exists());
        assert_eq!(saved(), 3);
        assert!(folder.path().join("bans.log.damaged-1").exists());
    }

    #[test]
    fn what_is_in_the_log_is_written_down_although_it_cannot_be_folded() {
        let folder = tempfile::tempdir().expect("a folder");
        let log = BanLog::in_folder(folder.path());
        fs::create_dir(folder.path().join("bans")).expect("made");
        let [path, _] = log.paths();
        let filler = "\n".repeat(usize::try_from(FOLDED_ABOVE_BYTES).expect("fits") + 1);
        fs::write(path, filler).expect("written");
        log.banned([ban("192.0.2.1", "a", 600)]).expect("written");
        assert_eq!(shown(log).0.len(), 1);
    }

    #[test]
    fn a_last_line_that_is_cut_is_no_damage() {
        let folder = tempfile::tempdir().expect("a folder");
        let log = BanLog::in_folder(folder.path());
        log.banned([ban("192.0.2.1", "a", 600)]).expect("written");
        let [path, _] = log.paths();
        let first = fs::read(&path).expect("written");
        log.banned([ban("192.0.2.2", "a", 600)]).expect("written");
        let both = fs::read(&path).expect("written");
        for cut in first.len()..both.len() {
            fs::write(&path, &both[..cut]).expect("written");
            let whole = usize::from(cut + 1 == both.len());
            let (left, problems) = shown(log);
            assert_eq!((left.len(), problems), (1 + whole, 0), "cut at {cut}");
        }
    }
}
