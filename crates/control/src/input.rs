//! Whole files, or standard input.

use std::io::{self, ErrorKind};
use std::path::Path;

use crate::{Error, trusted_file};

/// The name that stands for standard input, or output.
pub const STANDARD: &str = "-";

/// Reads a whole file, or with `-` standard input.
///
/// # Errors
/// If it cannot be read, or is no UTF-8.
pub fn read(path: &Path) -> Result<String, Error> {
    text(path, read_bytes(path)?)
}

/// Returns the text of a file with these bytes.
pub(crate) fn text(path: &Path, bytes: Vec<u8>) -> Result<String, Error> {
    String::from_utf8(bytes).map_err(|_| {
        let error = io::Error::new(ErrorKind::InvalidData, "not valid UTF-8");
        Error::file(path)(error)
    })
}

/// As [`read`], of bytes.
///
/// # Errors
/// If it cannot be read.
pub fn read_bytes(path: &Path) -> Result<Vec<u8>, Error> {
    let read = if path == Path::new(STANDARD) {
        trusted_file::read_standard_input()
    } else {
        trusted_file::read_input(path)
    };
    read.map_err(Error::file(path))
}
