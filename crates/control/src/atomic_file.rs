//! Files that are written whole or not at all.

use std::fs::File;
use std::io::{self, Write as _};
use std::path::Path;

use tempfile::NamedTempFile;

/// Writes a file in this folder, for its owner alone and safe from a power cut. `name` gives the file
/// its name.
pub(crate) fn write(
    folder: &Path,
    contents: &[u8],
    name: impl FnOnce(NamedTempFile) -> io::Result<()>,
) -> io::Result<()> {
    let mut file = NamedTempFile::new_in(folder)?;
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
