//! Files that are written whole or not at all.

use std::fs::{self, File};
use std::io::{self, Write as _};
use std::os::unix::fs::MetadataExt as _;
use std::path::Path;

use rustix::fs::{CWD, OFlags};
use tempfile::{Builder, NamedTempFile};

use crate::trusted_file::open_regular;

/// How the names of files begin that are not whole yet.
const PREFIX: &str = ".nfguard-";

/// Writes a file in this folder, for its owner alone and safe from a power cut. `name` gives the file
/// its name.
pub(crate) fn write(
    folder: &Path,
    contents: &[u8],
    name: impl FnOnce(NamedTempFile) -> io::Result<()>,
) -> io::Result<()> {
    remove_left_over(folder);
    let mut file = loop {
        let file = Builder::new().prefix(PREFIX).tempfile_in(folder)?;
        // As long as it is locked, a process is writing it. Before that, another one may remove it.
        if file.as_file().try_lock().is_ok() && file.as_file().metadata()?.nlink() > 0 {
            break file;
        }
    };
    file.write_all(contents)?;
    file.as_file().sync_all()?;
    name(file)?;
    // The name, too, is to be there after a power cut.
    File::open(folder)?.sync_all()
}

/// As [`write()`], in place of the file of this name.
pub(crate) fn replace(path: &Path, contents: &[u8]) -> io::Result<()> {
    let folder = path.parent().filter(|folder| *folder != Path::new(""));
    write(folder.unwrap_or(Path::new(".")), contents, |file| {
        file.persist(path)?;
        Ok(())
    })
}

/// Removes what processes that were killed have not finished.
fn remove_left_over(folder: &Path) {
    for entry in fs::read_dir(folder).into_iter().flatten().flatten() {
        let path = entry.path();
        let is_ours = entry.file_name().as_encoded_bytes().starts_with(PREFIX.as_bytes());
        let is_left =
            || open_regular(CWD, &path, OFlags::RDONLY).is_ok_and(|it| it.try_lock().is_ok());
        if is_ours && is_left() {
            // It does no harm if it stays.
            let _ = fs::remove_file(&path);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_a_killed_process_left_is_removed_and_what_is_being_written_is_not() {
        let folder = tempfile::tempdir().expect("a folder");
        let names = || -> Vec<String> {
            let entries = fs::read_dir(folder.path()).expect("there").map(|it| it.expect("one"));
            let mut names: Vec<_> =
                entries.map(|it| it.file_name().into_string().expect("text")).collect();
            names.sort();
            names
        };
        let [left, written] = [".nfguard-left", ".nfguard-written"]
            .map(|name| File::create(folder.path().join(name)).expect("made"));
        drop(left);
        written.lock().expect("free");
        fs::write(folder.path().join("other"), "").expect("written");
        replace(&folder.path().join("file"), b"new").expect("written");
        assert_eq!(names(), [".nfguard-written", "file", "other"]);
    }
}
