//! Whole files, or standard input.

use std::io::{self, ErrorKind, Read as _};
use std::path::Path;

use crate::Error;

/// The name that stands for standard input, or output.
pub const STANDARD: &str = "-";

/// Reads a whole file, or with `-` standard input.
///
/// # Errors
/// If it cannot be read, or is no UTF-8.
pub fn read(path: &Path) -> Result<String, Error> {
    String::from_utf8(read_bytes(path)?).map_err(|_| {
        let error = io::Error::new(ErrorKind::InvalidData, "not valid UTF-8");
        Error::file(path)(error)
    })
}

/// As [`read`], of bytes.
///
/// # Errors
/// If it cannot be read.
pub fn read_bytes(path: &Path) -> Result<Vec<u8>, Error> {
    let mut bytes = Vec::new();
    let read = if path == Path::new(STANDARD) {
        io::stdin().read_to_end(&mut bytes).map(|_| bytes)
    } else {
        std::fs::read(path)
    };
    read.map_err(Error::file(path))
}
