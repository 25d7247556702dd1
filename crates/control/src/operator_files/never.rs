//! The never-ban entries by hand, in a file.

use std::collections::BTreeMap;
use std::io::{self, ErrorKind};
use std::path::{Path, PathBuf};

use ipnetwork::IpNetwork;
use nfguard_ban::Target;
use serde::{Deserialize, Serialize};

use super::OperatorFiles;
use crate::saved_bans::{Text, keep_aside};
use crate::state_folder::{lock, sealed_line, unsealed_line};
use crate::trusted_file::read_own;
use crate::{Error, atomic_file};

/// A line of the file. The last one has the number of entries.
#[derive(Serialize, Deserialize)]
#[serde(deny_unknown_fields, rename_all = "snake_case")]
enum Line {
    Never { network: Text<IpNetwork>, reason: String },
    Entries(usize),
}

/// The entries with their reasons, and what could not be read.
type Entries = (BTreeMap<IpNetwork, String>, Vec<String>);

pub(super) fn path(folder: &Path) -> PathBuf {
    folder.join("never")
}

impl OperatorFiles {
    /// Writes never-ban entries down. Returns whether anything is kept at all.
    ///
    /// # Errors
    /// The file cannot be written.
    pub fn add_never_ban(&self, networks: &[IpNetwork], reason: &str) -> Result<bool, Error> {
        self.change_never_ban(|entries| {
            for network in networks {
                // The first reason stays, as in the kernel.
                entries.entry(normalised(*network)).or_insert_with(|| reason.to_owned());
            }
        })
    }

    /// Removes never-ban entries from the file. Returns whether anything is kept at all.
    ///
    /// # Errors
    /// The file cannot be written.
    pub fn remove_never_ban(&self, networks: &[IpNetwork]) -> Result<bool, Error> {
        self.change_never_ban(|entries| {
            for network in networks {
                entries.remove(&normalised(*network));
            }
        })
    }

    /// Returns the entries with their reasons, and what could not be read.
    pub(crate) fn never_ban(&self) -> Entries {
        self.folder().map(|folder| read(&path(folder))).unwrap_or_default()
    }

    fn change_never_ban(
        &self,
        change: impl FnOnce(&mut BTreeMap<IpNetwork, String>),
    ) -> Result<bool, Error> {
        let Some(folder) = self.folder() else { return Ok(false) };
        let path = path(folder);
        let write = || -> io::Result<()> {
            let _lock = lock(folder)?;
            let (before, problems) = read(&path);
            let mut entries = before.clone();
            change(&mut entries);
            if entries == before && problems.is_empty() && path.exists() {
                return Ok(());
            }
            if !problems.is_empty() && path.exists() {
                keep_aside(&path)?;
            }
            atomic_file::replace(&path, text(&entries)?.as_bytes())
        };
        write().map(|()| true).map_err(Error::file(&path))
    }
}

fn normalised(network: IpNetwork) -> IpNetwork {
    Target::from(network).network()
}

fn text(entries: &BTreeMap<IpNetwork, String>) -> io::Result<String> {
    let lines = entries
        .iter()
        .map(|(network, reason)| Line::Never { network: Text(*network), reason: reason.clone() })
        .chain([Line::Entries(entries.len())]);
    let mut text = String::new();
    for line in lines {
        text.push_str(&sealed_line(&serde_json::to_string(&line)?));
    }
    Ok(text)
}

/// Reads every line that is whole.
fn read(path: &Path) -> Entries {
    let (mut entries, mut problems) = (BTreeMap::new(), Vec::new());
    let name = path.display();
    let bytes = match read_own(path) {
        Ok(bytes) => bytes,
        Err(error) if error.kind() == ErrorKind::NotFound => return (entries, problems),
        Err(error) => return (entries, vec![format!("{name}: {error}")]),
    };
    let (mut count, mut damaged) = (None, 0);
    for line in String::from_utf8_lossy(&bytes).lines() {
        match unsealed_line(line).and_then(|line| serde_json::from_str(line).ok()) {
            Some(Line::Never { network: Text(network), reason }) => {
                entries.insert(network, reason);
            }
            Some(Line::Entries(entries)) => count = Some(entries),
            None => damaged += 1,
        }
    }
    if damaged > 0 || count != Some(entries.len()) {
        let whole = entries.len();
        problems.push(format!(
            "{name}: damaged: {whole} never-ban entries of it can be read, and others cannot; see \
             `nfguard never`, and add them again"
        ));
    }
    (entries, problems)
}

#[cfg(test)]
mod tests {
    use std::fs;

    use super::*;

    fn network(text: &str) -> IpNetwork {
        text.parse().expect("a network")
    }

    #[test]
    fn entries_are_kept_and_a_damaged_line_loses_no_other() {
        let folder = tempfile::tempdir().expect("a folder");
        let files = OperatorFiles::in_folder(Some(folder.path()));
        let both = [network("192.0.2.7/32"), network("2001:db8::/32")];
        assert!(files.add_never_ban(&both, "mine").expect("written"));
        files.add_never_ban(&[network("198.51.100.9/24")], "office").expect("written");
        files.remove_never_ban(&[network("192.0.2.7/32")]).expect("written");
        let (entries, problems) = files.never_ban();
        let expected = [("198.51.100.0/24", "office"), ("2001:db8::/32", "mine")];
        let expected = expected.map(|(text, reason)| (network(text), reason.to_owned()));
        assert_eq!((entries, problems.len()), (expected.clone().into(), 0));

        let path = path(folder.path());
        let whole = fs::read(&path).expect("written");
        let first_line = whole.iter().position(|byte| *byte == b'\n').expect("a line");
        for at in 0..whole.len() {
            let mut changed = whole.clone();
            changed[at] ^= 1;
            fs::write(&path, &changed).expect("written");
            let (entries, problems) = files.never_ban();
            assert_eq!(problems.len(), 1, "{at}");
            assert!(entries.keys().all(|network| expected.iter().any(|it| it.0 == *network)));
            assert!(at >= first_line || entries.contains_key(&expected[1].0), "{at}");
            fs::write(&path, &whole[..at]).expect("written");
            // Without its last newline the file is whole.
            let is_cut = usize::from(at + 1 < whole.len());
            assert_eq!(files.never_ban().1.len(), is_cut, "cut at {at}");
        }
    }
}
