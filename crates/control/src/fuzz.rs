//! What the fuzz targets read, and no public function reads alone.

use std::path::Path;

use nfguard_ban::NeverBan;

use crate::history::History;
use crate::saved_bans::{self, BanLog};
use crate::scanners;

/// Reads the files of a state folder as `boot` and `scans` do. Returns how many bans and loads they have.
pub fn read_state(folder: &Path) -> (usize, usize) {
    let saved = saved_bans::read_lines(&folder.join("bans")).unwrap_or_default();
    let (bans, _) = BanLog::in_folder(folder).applied_to(saved);
    for ban in &bans {
        let duration = ban.duration(0.0).flatten();
        let _ = ban.ban(&NeverBan::default(), duration).is_ok();
    }
    let history = History::open(Some(folder.to_owned()), |_| ());
    let _ = scanners::read(&history).is_ok();
    (bans.len(), history.entries().len())
}
