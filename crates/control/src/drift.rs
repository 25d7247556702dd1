//! What became of the policy since it was loaded, rule by rule.

use std::path::Path;

use nfguard_netlink::Table;

use crate::failure::Failure;
use crate::history::{History, LoadRecord};
use crate::policy_file::PolicyFile;
use crate::{output, stamp};

/// What was loaded, as far as anybody remembers.
pub(crate) struct Loaded {
    /// The name of its file.
    pub(crate) file: String,
    /// When, in seconds since 1970, if the history tells.
    pub(crate) time: Option<u64>,
    /// What this version makes of it.
    table: Table,
}

impl Loaded {
    /// By this policy if one is given; else by the load in the history whose table has the digest
    /// that is stamped into the kernel's, or if the stamp is gone, too, by the last one.
    pub(crate) fn recall(
        held: Option<&Table>,
        policy: Option<&Path>,
        history: &History,
    ) -> Result<Option<Loaded>, Failure> {
        if let Some(path) = policy {
            let file = PolicyFile::read(path)?;
            let table = file.policy.compile();
            return Ok(Some(Loaded { file: file.name, time: None, table }));
        }
        let entries = history.entries();
        let last = || entries.iter().rfind(|entry| entry.holds());
        let entry = match held.and_then(stamp::digest_when_loaded) {
            Some(digest) => entries.iter().rfind(|entry| entry.table == digest),
            None => last(),
        };
        Ok(entry.and_then(Loaded::of))
    }

    /// `None` if that was an unload, or another version made another table of the policy.
    fn of(entry: &LoadRecord) -> Option<Loaded> {
        let policy = PolicyFile::parse(&entry.file, entry.policy.clone()?).ok()?.policy;
        let table = policy.compile();
        let same = stamp::digest(&table) == entry.table;
        same.then(|| Loaded { file: entry.file.clone(), time: Some(entry.time), table })
    }

    /// "FILE was loaded at such a time".
    pub(crate) fn described(&self) -> String {
        match self.time {
            Some(time) => format!("{} was loaded at {}", self.file, output::time(time)),
            None => format!("{} was loaded", self.file),
        }
    }

    /// Each line that is missing from the kernel's table (`-`) or was added to it (`+`), under the
    /// chain, set or counter that it stands in.
    pub(crate) fn drift(&self, held: Option<&Table>) -> Vec<String> {
        let bare = held.cloned().map(stamp::bare);
        let mut lines = output::changes(Some(&self.table), bare.as_ref());
        if held.is_some_and(|held| stamp::digest_when_loaded(held).is_none()) {
            lines.push("-the note of what was loaded".to_owned());
        }
        lines
    }
}
