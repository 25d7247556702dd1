//! The folder of the state: its lock, and lines with a checksum.

use std::fs::{DirBuilder, File, OpenOptions};
use std::io;
use std::os::unix::fs::{DirBuilderExt as _, OpenOptionsExt as _};
use std::path::Path;

use crate::digest::sha256;

/// Letters of the checksum of a line.
const SUM_LETTERS: usize = 16;

/// The file that stands for the lock of a folder.
pub(crate) const FOLDER_LOCK: &str = "lock";

/// Locks the files of this folder, which is made if it is absent, until the value is dropped.
pub(crate) fn lock(folder: &Path) -> io::Result<File> {
    let file = lock_file(folder, FOLDER_LOCK)?;
    file.lock()?;
    Ok(file)
}

/// Opens the file of this name that stands for a lock of this folder.
pub(crate) fn lock_file(folder: &Path, name: &str) -> io::Result<File> {
    make_folder(folder)?;
    OpenOptions::new().create(true).append(true).mode(0o600).open(folder.join(name))
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
