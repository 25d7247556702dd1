//! The envelope that Docker's `json-file` driver puts around each line.

use serde::{Deserialize, Serialize};

use crate::MAX_LINE_BYTES;
use crate::json::{self, Value};
use crate::time::{Time, Zone, rfc3339};

/// A stream of the container.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Stream {
    Stdout,
    Stderr,
}

/// A line or a piece of one: Docker cuts lines into pieces of 16 KiB.
pub(crate) struct Piece {
    pub(crate) text: Vec<u8>,
    pub(crate) stream: Stream,
    pub(crate) time: Option<Time>,
}

/// Reads an envelope.
pub(crate) fn read(line: &[u8]) -> Option<Piece> {
    let (mut text, mut stream, mut time) = (None, None, None);
    json::object(line, |key, value| {
        let slot = match key {
            b"log" => &mut text,
            b"stream" => &mut stream,
            b"time" => &mut time,
            _ => return Some(()),
        };
        let Value::Text(value) = value else { return None };
        slot.replace(value).is_none().then_some(())
    })?;
    let stream = match stream?.plain()? {
        b"stdout" => Stream::Stdout,
        b"stderr" => Stream::Stderr,
        _ => return None,
    };
    let time = time.and_then(|time| rfc3339(time.plain()?, &Zone::UTC));
    Some(Piece { text: text?.decode().into_owned(), stream, time })
}

/// Bytes of a piece that is not the last of its line.
const PIECE_BYTES: usize = 16 * 1024;

/// The pieces of a line that have come.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
pub(crate) struct Pieces {
    text: Vec<u8>,
    is_too_long: bool,
}

/// What the next piece of a line makes of it.
pub(crate) enum Joined {
    /// The line is not at its end.
    Part,
    /// The line, without its end.
    Line(Vec<u8>),
    /// The line was longer than what is judged.
    TooLong,
}

impl Pieces {
    pub(crate) fn join(&mut self, piece: Vec<u8>) -> Joined {
        let is_full = piece.len() >= PIECE_BYTES;
        if self.text.is_empty() {
            self.text = piece;
        } else {
            self.text.extend_from_slice(&piece);
        }
        if self.text.len() > MAX_LINE_BYTES + 1 {
            self.is_too_long = true;
        }
        if self.text.last() != Some(&b'\n') {
            if !is_full {
                // The writer ended in the middle of a line. What comes next is another line.
                *self = Self::default();
            }
            if self.is_too_long {
                self.text.truncate(1);
            }
            return Joined::Part;
        }
        let mut line = std::mem::take(&mut self.text);
        if std::mem::take(&mut self.is_too_long) {
            return Joined::TooLong;
        }
        line.pop();
        Joined::Line(line)
    }
}
