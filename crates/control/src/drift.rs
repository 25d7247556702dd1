//! Drift: how the table differs from what was loaded.

use std::path::Path;

use nfguard_netlink::Table;

use crate::Error;
use crate::history::{History, LoadRecord};
use crate::policy_file::PolicyFile;
use crate::{digest, table_diff};

/// What was loaded, as far as the history tells.
pub struct Loaded {
    /// The name of its file.
    pub file: String,
    /// When, in seconds since 1970, if the history tells.
    pub time: Option<u64>,
    /// What this version makes of it.
    table: Table,
}

impl Loaded {
    /// Finds what was loaded: the given policy; without one, the load in the history whose digest the
    /// kernel's table has; without a digest in the table, the last load.
    ///
    /// # Errors
    /// If the policy cannot be read.
    pub fn recall(
        held: Option<&Table>,
        policy: Option<&Path>,
        history: &History,
    ) -> Result<Option<Loaded>, Error> {
        if let Some(path) = policy {
            let file = PolicyFile::read(path)?;
            let table = file.policy.compile();
            return Ok(Some(Loaded { file: file.name, time: None, table }));
        }
        let entries = history.entries();
        let last = || entries.iter().rfind(|entry| entry.holds());
        let entry = match held.and_then(digest::digest_when_loaded) {
            Some(digest) => entries.iter().rfind(|entry| entry.table == digest),
            None => last(),
        };
        Ok(entry.and_then(Loaded::of))
    }

    /// Returns `None` if that was an unload, or another version made another table of the policy.
    fn of(entry: &LoadRecord) -> Option<Loaded> {
        let policy = PolicyFile::parse(&entry.file, entry.policy.clone()?).ok()?.policy;
        let table = policy.compile();
        let same = digest::digest(&table) == entry.table;
        same.then(|| Loaded { file: entry.file.clone(), time: Some(entry.time), table })
    }

    /// Returns each line that is missing from the kernel's table (`-`) or was added to it (`+`), under the
    /// chain, set or counter that it stands in.
    pub fn drift(&self, held: Option<&Table>) -> Vec<String> {
        let bare = held.cloned().map(digest::bare);
        let mut lines = table_diff::changes(Some(&self.table), bare.as_ref());
        if held.is_some_and(|held| digest::digest_when_loaded(held).is_none()) {
            lines.push("-the digest of the loaded policy".to_owned());
        }
        lines
    }
}
