//! The folder of the state: its lock, and lines with a checksum.

use std::fs::{self, DirBuilder, File, TryLockError};
use std::io::{self, ErrorKind};
use std::os::unix::fs::{DirBuilderExt as _, MetadataExt as _};
use std::path::Path;
use std::thread;
use std::time::{Duration, Instant};

use nfguard_api::local_socket::is_stopped;
use rustix::fs::OFlags;

use crate::digest::sha256;
use crate::trusted_file;

/// Letters of the checksum of a line.
const SUM_LETTERS: usize = 16;

/// The file that stands for the lock of a folder.
pub(crate) const FOLDER_LOCK: &str = "lock";

/// Longest wait for another command, which holds the lock while it writes.
const LOCK_TIMEOUT: Duration = Duration::from_secs(30);
const LOCK_INTERVAL: Duration = Duration::from_millis(10);
/// How often its holder is looked at.
const LOOK_INTERVAL: Duration = Duration::from_millis(500);

/// Locks the files of this folder, which is made if it is absent, until the value is dropped.
pub(crate) fn lock(folder: &Path) -> io::Result<File> {
    let file = lock_file(folder, FOLDER_LOCK)?;
    lock_within(&file, LOCK_TIMEOUT)?;
    Ok(file)
}

/// Locks a file, and waits at most so long. The error names the process that holds the lock. One that is
/// stopped is not waited for.
pub(crate) fn lock_within(file: &File, time_limit: Duration) -> io::Result<()> {
    let start = Instant::now();
    let (mut looked_at, mut was_stopped) = (start, false);
    loop {
        match file.try_lock() {
            Err(TryLockError::WouldBlock) => {}
            locked => return Ok(locked?),
        }
        let is_over = start.elapsed() >= time_limit;
        if is_over || looked_at.elapsed() >= LOOK_INTERVAL {
            let holder = holder(file)?;
            let is_stopped = holder.is_some_and(is_stopped);
            if is_over || is_stopped && was_stopped {
                let who = holder.map_or("another process".to_owned(), |it| format!("process {it}"));
                let how = if is_stopped { "and is stopped by a signal" } else { "for too long" };
                let why = format!("{who} holds the lock {how}");
                return Err(io::Error::new(ErrorKind::TimedOut, why));
            }
            (looked_at, was_stopped) = (Instant::now(), is_stopped);
        }
        thread::sleep(LOCK_INTERVAL);
    }
}

/// Returns the process that holds the lock of a file, if it can be seen from here.
fn holder(file: &File) -> io::Result<Option<i32>> {
    // `1: FLOCK  ADVISORY  WRITE 4711 fe:00:131075 0 EOF`
    let locks = fs::read_to_string("/proc/locks").unwrap_or_default();
    let inode = format!(":{}", file.metadata()?.ino());
    let mut lines = locks.lines().map(|line| line.split_whitespace().collect::<Vec<_>>());
    let line = lines.find(|words| words.get(5).is_some_and(|place| place.ends_with(&inode)));
    Ok(line.and_then(|words| words.get(4)?.parse().ok()))
}

/// Opens the file of this name that stands for a lock of this folder.
pub(crate) fn lock_file(folder: &Path, name: &str) -> io::Result<File> {
    make_folder(folder)?;
    trusted_file::open_own(&folder.join(name), OFlags::CREATE | OFlags::APPEND | OFlags::WRONLY)
}

pub(crate) fn make_folder(folder: &Path) -> io::Result<()> {
    DirBuilder::new().recursive(true).mode(0o700).create(folder)
}

/// Returns a line with its checksum before it.
pub(crate) fn sealed_line(text: &str) -> String {
    let sum = sha256(text.as_bytes());
    format!("{} {text}\n", sum.get(..SUM_LETTERS).unwrap_or_default())
}

/// Returns what [`sealed_line`] was given; `None` if the line is damaged.
pub(crate) fn unsealed_line(line: &str) -> Option<&str> {
    let (sum, text) = line.split_once(' ')?;
    (sha256(text.as_bytes()).get(..SUM_LETTERS) == Some(sum)).then_some(text)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_lock_is_waited_for_so_long_and_its_holder_is_named() {
        let folder = tempfile::tempdir().expect("a folder");
        let held = lock(folder.path()).expect("free");
        let other = lock_file(folder.path(), FOLDER_LOCK).expect("opened");
        let error = lock_within(&other, Duration::from_millis(30)).expect_err("it is held");
        assert_eq!(error.kind(), ErrorKind::TimedOut);
        let process = format!("process {} holds the lock", std::process::id());
        assert!(error.to_string().starts_with(&process), "{error}");
        drop(held);
        lock_within(&other, Duration::ZERO).expect("free");
    }

    #[test]
    fn a_line_is_read_as_it_was_sealed_and_no_byte_of_it_can_change() {
        let line = sealed_line(r#"{"a":1}"#);
        let line = line.trim_end();
        assert_eq!(unsealed_line(line), Some(r#"{"a":1}"#));
        for at in 0..line.len() {
            let mut bytes = line.as_bytes().to_vec();
            bytes[at] ^= 1;
            let changed = String::from_utf8(bytes).expect("ASCII");
            assert_eq!(unsealed_line(&changed), None, "{at}");
            assert_eq!(unsealed_line(&line[..at]), None, "{at}");
        }
    }
}
