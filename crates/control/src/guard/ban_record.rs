//! The file in which the guard records the bans that it knows, so that the next guard need not read them
//! all from the kernel, and `save` neither.

use std::fs::{self, File};
use std::io::{self, Read as _, Seek as _, SeekFrom, Write as _};
use std::os::unix::fs::MetadataExt as _;
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use nfguard_ban::{BanMirror, Port, SLOT_BYTES, Target, recorded_targets};
use rustix::fs::OFlags;
use rustix::time::{ClockId, clock_gettime};

use crate::trusted_file;

/// The record, open.
pub(super) struct BanRecord(File);

impl BanRecord {
    /// Opens the record in this folder, and has the mirror recall what it says, if it is of this table: of
    /// this boot and this network namespace.
    pub(super) fn open(folder: &Path, mirror: &mut BanMirror) -> io::Result<BanRecord> {
        let mut file = trusted_file::open_own(&path(folder), OFlags::CREATE | OFlags::RDWR)?;
        file.try_lock()?;
        let mut bytes = Vec::new();
        file.read_to_end(&mut bytes)?;
        let head = head()?;
        if !bytes.starts_with(&head) {
            file.set_len(0)?;
            file.rewind()?;
            file.write_all(&head)?;
            bytes.clear();
        }
        mirror.recall(&bytes, Instant::now(), monotonic());
        Ok(BanRecord(file))
    }

    /// Writes what has changed.
    pub(super) fn write(&mut self, mirror: &mut BanMirror) -> io::Result<()> {
        for write in mirror.record_writes(Instant::now(), monotonic()) {
            self.0.seek(SeekFrom::Start(write.offset))?;
            self.0.write_all(&write.bytes)?;
        }
        Ok(())
    }
}

/// Returns what the record in this folder says is banned, and in how much time each ban ends; nothing if
/// there is none of this table.
pub(crate) fn recorded(folder: &Path) -> Vec<(Target, Option<Port>, Option<Duration>)> {
    let (Ok(bytes), Ok(head)) = (trusted_file::read_own(&path(folder)), head()) else {
        return Vec::new();
    };
    if !bytes.starts_with(&head) {
        return Vec::new();
    }
    let now = monotonic();
    // Without a guard the record grows old. What ended long ago must not count as what has just ended.
    let left = |(target, port, end): (_, _, Option<Duration>)| match end {
        None => Some((target, port, None)),
        Some(end) => Some((target, port, Some(end.checked_sub(now)?))),
    };
    recorded_targets(&bytes).filter_map(left).collect()
}

fn path(folder: &Path) -> PathBuf {
    folder.join("bans.record")
}

/// Returns the first slot: it tells the table that the record is of.
fn head() -> io::Result<Vec<u8>> {
    let boot = fs::read_to_string("/proc/sys/kernel/random/boot_id")?;
    let namespace = fs::metadata("/proc/thread-self/ns/net")?.ino();
    let mut head = format!("nfguard bans, record 1\n{boot}net {namespace}\n").into_bytes();
    head.resize(SLOT_BYTES, 0);
    Ok(head)
}

fn monotonic() -> Duration {
    let now = clock_gettime(ClockId::Monotonic);
    Duration::new(now.tv_sec.unsigned_abs(), u32::try_from(now.tv_nsec).unwrap_or(0))
}
