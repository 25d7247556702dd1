//! Feeds, each in a file.

use std::fs;
use std::io::{self, ErrorKind};
use std::path::{Path, PathBuf};

use nfguard_ban::Feed;
use serde::{Deserialize, Serialize};

use super::OperatorFiles;
use crate::digest::sha256;
use crate::state_folder::{lock, make_folder};
use crate::{Error, atomic_file, input, trusted_file};

/// The first line of a file.
#[derive(Serialize, Deserialize)]
struct Head {
    nfguard_feed: u32,
    name: String,
}

const VERSION: u32 = 1;
const SUFFIX: &str = ".list";

impl OperatorFiles {
    /// Writes a feed down as it was given, in the place of an older list of its name: which addresses
    /// must not be dropped is a question of when it is put in. Returns whether anything is kept at
    /// all.
    ///
    /// # Errors
    /// The file cannot be written.
    pub fn write_feed(&self, name: &str, feed: &Feed) -> Result<bool, Error> {
        let Some(folder) = self.folder() else { return Ok(false) };
        let path = path(folder, name);
        let write = || -> io::Result<()> {
            let _lock = lock(folder)?;
            make_folder(&feeds(folder))?;
            let head = Head { nfguard_feed: VERSION, name: name.to_owned() };
            let mut text = serde_json::to_string(&head)?;
            text.push('\n');
            for (first, last) in feed.blocks() {
                text.push_str(&format!("{first}-{last}\n"));
            }
            let sum = sha256(text.as_bytes());
            text.push_str(&format!("{sum}\n"));
            atomic_file::replace(&path, text.as_bytes())
        };
        write().map(|()| true).map_err(Error::file(&path))
    }

    /// Removes a feed from what is written down; `false` if it was not.
    ///
    /// # Errors
    /// The file cannot be removed.
    pub fn remove_feed(&self, name: &str) -> Result<bool, Error> {
        let Some(folder) = self.folder() else { return Ok(false) };
        let path = path(folder, name);
        match fs::remove_file(&path) {
            Ok(()) => Ok(true),
            Err(error) if error.kind() == ErrorKind::NotFound => Ok(false),
            Err(error) => Err(Error::file(&path)(error)),
        }
    }

    /// Returns each feed that is written down, by name.
    pub(crate) fn feeds(&self) -> Vec<Result<(String, Feed), Error>> {
        let paths = self.folder().map(paths).unwrap_or_default();
        paths.iter().map(|path| read(path)).collect()
    }
}

fn feeds(folder: &Path) -> PathBuf {
    folder.join("feeds")
}

fn path(folder: &Path, name: &str) -> PathBuf {
    feeds(folder).join(format!("{name}{SUFFIX}"))
}

/// Returns the files of all feeds, in order.
pub(super) fn paths(folder: &Path) -> Vec<PathBuf> {
    let files = fs::read_dir(feeds(folder)).into_iter().flatten().flatten();
    let mut paths: Vec<PathBuf> = files.map(|file| file.path()).collect();
    paths.retain(|path| path.to_string_lossy().ends_with(SUFFIX));
    paths.sort();
    paths
}

fn read(path: &Path) -> Result<(String, Feed), Error> {
    let bytes = trusted_file::read_own(path).map_err(Error::file(path))?;
    let text = input::text(path, bytes)?;
    parse(&text).ok_or_else(|| {
        Error::Usage(format!(
            "{}: damaged; this feed is not in force: put the list in again",
            path.display()
        ))
    })
}

fn parse(text: &str) -> Option<(String, Feed)> {
    let whole = text.strip_suffix('\n')?;
    let start = whole.rfind('\n')? + 1;
    let (body, sum) = whole.split_at_checked(start)?;
    if sum != sha256(body.as_bytes()) {
        return None;
    }
    let (head, ranges) = body.split_once('\n')?;
    let head: Head = serde_json::from_str(head).ok()?;
    let mut feed = Feed::default();
    for range in ranges.lines() {
        let (first, last) = range.split_once('-')?;
        feed.add_range(first.parse().ok()?, last.parse().ok()?).ok()?;
    }
    (head.nfguard_feed == VERSION).then_some((head.name, feed))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_feed_is_read_as_it_was_written_and_a_damaged_one_loses_no_other() {
        let folder = tempfile::tempdir().expect("a folder");
        let files = OperatorFiles::in_folder(Some(folder.path()));
        let mut feed = Feed::default();
        for text in ["1.2.3.0/24", "1.2.4.0/24", "10.0.0.0/8", "2a00::/32"] {
            feed.add(text.parse().expect("a network"));
        }
        files.write_feed("..", &feed).expect("written");
        files.write_feed("drop", &feed).expect("written");
        let all: Vec<_> = files.feeds().into_iter().map(|it| it.expect("read")).collect();
        assert_eq!(all.iter().map(|(name, _)| name.as_str()).collect::<Vec<_>>(), ["..", "drop"]);
        assert!(all.iter().all(|(_, read)| read.blocks().eq(feed.blocks())));

        let path = path(folder.path(), "drop");
        let whole = fs::read(&path).expect("written");
        for at in 0..whole.len() {
            let mut changed = whole.clone();
            changed[at] ^= 1;
            for damaged in [&changed[..], &whole[..at]] {
                fs::write(&path, damaged).expect("written");
                let all = files.feeds();
                assert!(all.len() == 2 && all[0].is_ok() && all[1].is_err(), "{at}");
            }
        }
        assert!(files.remove_feed("drop").expect("removed"));
        assert!(!files.remove_feed("drop").expect("it is gone"));
    }
}
