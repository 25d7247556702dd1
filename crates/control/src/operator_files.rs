//! What operators put in besides a policy, written down so that the next boot has it: never-ban
//! entries by hand, feeds, and what commands have changed of bans since the last `save`.
//!
//! | File of the state's folder | Has | Is written |
//! |---|---|---|
//! | `never` | the never-ban entries by hand | as a whole, at each change |
//! | `feeds/NAME.list` | one feed, as it was given | as a whole, when the feed is put in |
//! | `bans` | all bans | as a whole, by `save` |
//! | `bans.log` | bans and their ends since then | line by line, at each command |
//!
//! A command writes before it answers. Each file is judged by itself: damage to one loses nothing of
//! another, and is named.

mod feeds;
mod never;

use std::fs;
use std::io;
use std::path::{Path, PathBuf};

use crate::Error;
use crate::saved_bans::BanLog;
use crate::state_folder::lock;

/// The files of what operators put in; none if nothing is to be kept.
#[derive(Clone, Debug)]
pub struct OperatorFiles {
    folder: Option<PathBuf>,
}

impl OperatorFiles {
    pub(crate) fn in_folder(folder: Option<&Path>) -> OperatorFiles {
        OperatorFiles { folder: folder.map(Path::to_owned) }
    }

    /// Returns the folder; `None` if nothing is kept.
    pub fn folder(&self) -> Option<&Path> {
        self.folder.as_deref()
    }

    /// Returns the log of bans; `None` if nothing is kept.
    pub fn ban_log(&self) -> Option<BanLog<'_>> {
        self.folder().map(BanLog::in_folder)
    }

    /// Returns every file that there may be, but for the log of bans.
    fn paths(&self) -> Vec<PathBuf> {
        let Some(folder) = self.folder() else { return Vec::new() };
        let mut all =
            vec![never::path(folder), folder.join("bans"), folder.join("bans.unrestored")];
        all.extend(feeds::paths(folder));
        all
    }

    /// Tells whether nothing is written down.
    pub(crate) fn is_empty(&self) -> bool {
        let has_log = self.ban_log().is_some_and(BanLog::exists);
        !has_log && !self.paths().iter().any(|path| path.exists())
    }

    /// Removes all of it: the operator has ended it. Returns whether there was anything.
    ///
    /// # Errors
    /// A file cannot be removed.
    pub fn forget(&self) -> Result<bool, Error> {
        let Some(folder) = self.folder() else { return Ok(false) };
        if !folder.exists() {
            return Ok(false);
        }
        let _lock = lock(folder).map_err(Error::file(folder))?;
        let log = BanLog::in_folder(folder);
        let mut was_any = log.clear().map_err(Error::file(folder))?;
        for path in self.paths() {
            match fs::remove_file(&path) {
                Ok(()) => was_any = true,
                Err(error) if error.kind() == io::ErrorKind::NotFound => {}
                Err(error) => return Err(Error::file(&path)(error)),
            }
        }
        Ok(was_any)
    }
}
