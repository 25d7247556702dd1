//! Lines of JSON: from messages to bytes and back.

use std::fmt;

use serde::Serialize;
use serde::de::DeserializeOwned;

/// Length of the longest line that a client without the right to ban may send, in bytes.
pub const MAX_LINE: usize = 64 * 1024;

/// Length of the longest line with bans in bulk, in bytes.
pub const MAX_BULK_LINE: usize = 4 * 1024 * 1024;

/// Length of the longest answer that this crate's client reads, in bytes.
pub const MAX_ANSWER: usize = 16 * 1024 * 1024;

/// A buffer larger than this is released once it is empty, in bytes.
const KEPT_CAPACITY: usize = 64 * 1024;

/// The line is longer than the buffer takes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct TooLong;

impl fmt::Display for TooLong {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("the line is too long")
    }
}

impl std::error::Error for TooLong {}

/// Returns the message as one line, line break included.
///
/// # Errors
/// The message cannot be written as JSON. The messages of this crate all can.
pub fn encode(message: &impl Serialize) -> serde_json::Result<Vec<u8>> {
    let mut line = serde_json::to_vec(message)?;
    line.push(b'\n');
    Ok(line)
}

/// Reads a message from a line.
///
/// # Errors
/// The line is no such message. The error says where.
pub fn decode<T: DeserializeOwned>(line: &[u8]) -> serde_json::Result<T> {
    serde_json::from_slice(line)
}

/// Bytes that arrived and are not yet read as lines. Bounded: see [`LineBuffer::next_line`].
#[derive(Clone, Debug)]
pub struct LineBuffer {
    bytes: Vec<u8>,
    /// Where the next line begins.
    start: usize,
    /// Up to where there is no line break.
    searched: usize,
    max_line: usize,
}

impl LineBuffer {
    /// Returns an empty buffer for lines of at most `max_line` bytes.
    #[must_use]
    pub fn new(max_line: usize) -> LineBuffer {
        LineBuffer { bytes: Vec::new(), start: 0, searched: 0, max_line }
    }

    /// Appends what arrived.
    pub fn push(&mut self, bytes: &[u8]) {
        if self.start > 0 && self.bytes.len() + bytes.len() > self.bytes.capacity() {
            self.bytes.drain(..self.start);
            (self.start, self.searched) = (0, self.searched - self.start);
        }
        self.bytes.extend_from_slice(bytes);
    }

    /// Returns the next line without its line break; `None` if no line is complete.
    ///
    /// # Errors
    /// [`TooLong`] if the next line is, or will be, longer than the buffer takes.
    pub fn next_line(&mut self) -> Result<Option<Vec<u8>>, TooLong> {
        let unsearched = self.bytes.get(self.searched..).unwrap_or_default();
        let Some(found) = unsearched.iter().position(|byte| *byte == b'\n') else {
            self.searched = self.bytes.len();
            return if self.len() > self.max_line { Err(TooLong) } else { Ok(None) };
        };
        let end = self.searched + found;
        let line = self.bytes.get(self.start..end).unwrap_or_default();
        if line.len() > self.max_line {
            return Err(TooLong);
        }
        let line = line.to_vec();
        (self.start, self.searched) = (end + 1, end + 1);
        if self.is_empty() {
            self.clear();
        }
        Ok(Some(line))
    }

    /// Whether [`LineBuffer::next_line`] may return a line, or an error.
    #[must_use]
    pub fn may_have_line(&self) -> bool {
        self.searched < self.bytes.len() || self.len() > self.max_line
    }

    /// Returns the bytes that no line was made of yet.
    #[must_use]
    pub fn pending(&self) -> &[u8] {
        self.bytes.get(self.start..).unwrap_or_default()
    }

    /// Returns the number of these bytes.
    #[must_use]
    pub fn len(&self) -> usize {
        self.bytes.len() - self.start
    }

    /// Whether there are none.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }

    /// Drops all bytes.
    pub fn clear(&mut self) {
        self.bytes.clear();
        self.bytes.shrink_to(KEPT_CAPACITY);
        (self.start, self.searched) = (0, 0);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn lines_come_out_as_they_went_in_however_the_bytes_are_cut() {
        let text = b"one\n\ntwo and a half\nrest";
        for size in 1..=text.len() {
            let mut buffer = LineBuffer::new(100);
            let mut lines = Vec::new();
            for part in text.chunks(size) {
                buffer.push(part);
                while let Some(line) = buffer.next_line().expect("short") {
                    lines.push(line);
                }
            }
            assert_eq!(lines, [b"one".as_slice(), b"", b"two and a half"], "{size}");
            assert_eq!(buffer.pending(), b"rest");
        }
    }

    #[test]
    fn a_line_of_the_longest_length_is_read_and_a_longer_one_is_refused_with_and_without_its_end() {
        let read = |bytes: &[u8]| {
            let mut buffer = LineBuffer::new(4);
            buffer.push(bytes);
            buffer.next_line()
        };
        assert_eq!(read(b"1234\n"), Ok(Some(b"1234".to_vec())));
        assert_eq!(read(b"1234"), Ok(None));
        assert_eq!(read(b"12345\n"), Err(TooLong));
        assert_eq!(read(b"12345"), Err(TooLong));
    }

    #[test]
    fn memory_of_a_long_line_is_released() {
        let mut buffer = LineBuffer::new(MAX_BULK_LINE);
        buffer.push(&vec![b'x'; MAX_BULK_LINE]);
        buffer.push(b"\n");
        assert_eq!(
            buffer.next_line().map(|line| line.map(|line| line.len())),
            Ok(Some(MAX_BULK_LINE))
        );
        assert!(buffer.bytes.capacity() <= KEPT_CAPACITY, "{}", buffer.bytes.capacity());
    }
}
