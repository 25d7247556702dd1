//! Input besides the arguments: lists of addresses.

pub(crate) mod ban_list;
pub(crate) mod judged;

use std::path::Path;

use nfguard_control::{Error, input};

/// Reads a text from a file, or from standard input for `-`. Comments may have any encoding.
pub(crate) fn read_list(path: &Path) -> Result<String, Error> {
    let text = String::from_utf8(input::read_bytes(path)?);
    Ok(text.unwrap_or_else(|error| String::from_utf8_lossy(error.as_bytes()).into_owned()))
}
