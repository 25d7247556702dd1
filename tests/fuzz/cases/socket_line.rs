//! Any bytes that a client sends are requests or errors, in whatever pieces they come. What is read is
//! written as it was. So are the answers, for clients.

use nfguard_api::codec::{LineBuffer, MAX_LINE, decode, encode};
use nfguard_api::message::watchdog::{WatchdogRequest, WatchdogResponse};
use nfguard_api::message::{Event, Request, Response};
use serde::Serialize;
use serde::de::DeserializeOwned;

/// Reads the bytes in two pieces. The first byte says where the second begins.
pub(crate) fn run(input: &[u8]) {
    let Some((at, bytes)) = input.split_first() else { return };
    let whole = lines(&[bytes]);
    let (first, second) = bytes.split_at(usize::from(*at).min(bytes.len()));
    assert_eq!(lines(&[first, second]), whole);
    for line in &whole {
        read::<Request>(line);
        read::<Response>(line);
        read::<Event>(line);
        read::<WatchdogRequest>(line);
        read::<WatchdogResponse>(line);
    }
}

fn lines(pieces: &[&[u8]]) -> Vec<Vec<u8>> {
    let mut buffer = LineBuffer::new(MAX_LINE);
    let mut lines = Vec::new();
    for piece in pieces {
        buffer.push(piece);
        while let Ok(Some(line)) = buffer.next_line() {
            lines.push(line);
        }
    }
    lines
}

fn read<T: DeserializeOwned + Serialize>(line: &[u8]) {
    let Ok(message) = decode::<T>(line) else { return };
    let Ok(written) = encode(&message) else { return };
    let again: T = decode(&written).expect("what is written can be read");
    assert_eq!(encode(&again).expect("as before"), written);
}
