//! The log of bans as the guard has it: open from before its sandbox.

use std::fs::{File, TryLockError};
use std::io::{self, ErrorKind, Write as _};
use std::mem;
use std::os::unix::fs::MetadataExt as _;
use std::thread;
use std::time::{Duration, Instant};

use nfguard_ban::{Port, Target};

use super::{BanLog, Change, ends_mid_line, open_to_append};
use crate::Error;
use crate::state_folder::{self, FOLDER_LOCK, lock_file, sealed_line};

/// How long a process that must not wait tries to get the folder's lock, and how often.
const LOCK_TIMEOUT: Duration = Duration::from_millis(200);
const LOCK_INTERVAL: Duration = Duration::from_millis(5);

impl BanLog<'_> {
    /// Opens the log for a process that can open no file later.
    ///
    /// # Errors
    /// It cannot be opened.
    pub(crate) fn open(self) -> Result<OpenBanLog, Error> {
        let [path, _] = self.paths();
        let open = || -> io::Result<OpenBanLog> {
            let lock = lock_file(self.folder, FOLDER_LOCK)?;
            let locked = state_folder::lock(self.folder)?;
            let file = open_to_append(&path)?;
            drop(locked);
            Ok(OpenBanLog { file, lock, pending: String::new() })
        };
        open().map_err(Error::file(&path))
    }
}

/// The log of a process that opened it before it entered its sandbox.
#[derive(Debug)]
pub(crate) struct OpenBanLog {
    file: File,
    lock: File,
    /// Lines that are not written yet.
    pending: String,
}

impl OpenBanLog {
    /// Takes note that these bans are ended; those of all sources without one.
    pub(crate) fn unbanned(
        &mut self,
        targets: impl IntoIterator<Item = (Target, Option<Port>)>,
        source: Option<&str>,
    ) {
        for change in Change::unbanned(targets, source) {
            // Text and numbers can be written as JSON.
            let line = serde_json::to_string(&change).unwrap_or_default();
            self.pending.push_str(&sealed_line(&line));
        }
    }

    /// Writes down what was noted. If another process holds the lock for long, it is left for the next
    /// time.
    ///
    /// # Errors
    /// It cannot be written, and is forgotten: the next save has what is in force.
    pub(crate) fn flush(&mut self) -> io::Result<()> {
        if self.pending.is_empty() {
            return Ok(());
        }
        let since = Instant::now();
        while let Err(error) = self.lock.try_lock() {
            match error {
                TryLockError::WouldBlock if since.elapsed() < LOCK_TIMEOUT => {
                    thread::sleep(LOCK_INTERVAL);
                }
                TryLockError::WouldBlock => return Ok(()),
                TryLockError::Error(error) => return Err(error),
            }
        }
        let mut text = mem::take(&mut self.pending);
        let written = self.write(&mut text);
        self.lock.unlock()?;
        written
    }

    fn write(&mut self, text: &mut String) -> io::Result<()> {
        if self.file.metadata()?.nlink() == 0 {
            let why = "the log of bans was removed; start the guard again";
            return Err(io::Error::new(ErrorKind::NotFound, why));
        }
        if ends_mid_line(&mut self.file)? {
            text.insert(0, '\n');
        }
        self.file.write_all(text.as_bytes())?;
        self.file.sync_data()
    }
}
