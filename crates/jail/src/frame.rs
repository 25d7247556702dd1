//! Whole lines out of bytes that come in pieces of any size.

use serde::{Deserialize, Serialize};

use crate::MAX_LINE_BYTES;

/// The line of which a part has come.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
pub(crate) struct Lines {
    partial: Vec<u8>,
    is_too_long: bool,
}

/// A whole line.
pub(crate) enum Line<'a> {
    /// The line without its end.
    Text(&'a [u8]),
    /// The line was longer than what is judged.
    TooLong,
}

impl Lines {
    /// Hands over each line that the bytes complete.
    pub(crate) fn read(&mut self, bytes: &[u8], each: &mut dyn FnMut(Line<'_>)) {
        let mut rest = bytes;
        while let Some(end) = memchr::memchr(b'\n', rest) {
            let (line, after) = rest.split_at(end);
            rest = after.get(1..).unwrap_or_default();
            if self.partial.is_empty() && !self.is_too_long {
                each(checked(line));
            } else {
                self.keep(line);
                self.end(each);
            }
        }
        self.keep(rest);
    }

    /// Takes what has come as a whole line.
    pub(crate) fn finish(&mut self, each: &mut dyn FnMut(Line<'_>)) {
        if !self.partial.is_empty() || self.is_too_long {
            self.end(each);
        }
    }

    fn keep(&mut self, part: &[u8]) {
        if self.is_too_long {
            return;
        }
        // One byte more for a carriage return.
        if self.partial.len() + part.len() > MAX_LINE_BYTES + 1 {
            self.is_too_long = true;
            self.partial = Vec::new();
        } else {
            self.partial.extend_from_slice(part);
        }
    }

    fn end(&mut self, each: &mut dyn FnMut(Line<'_>)) {
        if std::mem::take(&mut self.is_too_long) {
            return each(Line::TooLong);
        }
        each(checked(&self.partial));
        self.partial.clear();
        // A long line was an exception.
        self.partial.shrink_to(64 * 1024);
    }
}

fn checked(line: &[u8]) -> Line<'_> {
    let line = line.strip_suffix(b"\r").unwrap_or(line);
    if line.len() > MAX_LINE_BYTES { Line::TooLong } else { Line::Text(line) }
}

/// Returns a line without what programs leave at its beginning: the mark of UTF-8, and the zeros of a
/// file that was cut while its writer went on.
pub(crate) fn without_leader(line: &[u8]) -> &[u8] {
    let line = line.strip_prefix(b"\xef\xbb\xbf").unwrap_or(line);
    let zeros = line.iter().take_while(|byte| **byte == 0).count();
    line.get(zeros..).unwrap_or_default()
}
