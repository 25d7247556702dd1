//! One client: what it has sent and not yet been answered, and what waits to be sent to it.

use std::fs::File;
use std::io::{self, ErrorKind, Read as _, Write as _};
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::time::{Duration, Instant};

use nix::poll::PollFlags;

use super::api::LINE;

/// How long a line may take from its first byte to its last.
const PATIENCE: Duration = Duration::from_secs(10);
/// So much may wait for a subscriber that does not read.
const BEHIND: usize = 256 * 1024;
/// An answer that long waits to be read before the next line is looked at.
const ENOUGH: usize = 16 * 1024;

/// What a client may do.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(super) enum Right {
    /// Ask.
    Read,
    /// Ban too.
    Write,
    /// Change the policy too.
    Load,
    /// Be told numbers, over HTTP.
    Scrape,
}

pub(super) struct Peer {
    pub(super) number: u64,
    pub(super) right: Right,
    pub(super) subscribes: bool,
    /// Lines of it may wait to be answered.
    pub(super) busy: bool,
    /// It will say nothing more.
    pub(super) hung_up: bool,
    /// To be forgotten.
    pub(super) gone: bool,
    /// Closed once all is sent.
    pub(super) ends: bool,
    connection: File,
    input: Vec<u8>,
    /// When it last got on with what is unfinished.
    since: Option<Instant>,
    output: Vec<u8>,
    sent: usize,
}

impl Peer {
    pub(super) fn new(number: u64, right: Right, connection: impl Into<OwnedFd>) -> Peer {
        Peer {
            number,
            right,
            subscribes: false,
            busy: false,
            hung_up: false,
            gone: false,
            ends: false,
            connection: File::from(connection.into()),
            input: Vec::new(),
            since: None,
            output: Vec::new(),
            sent: 0,
        }
    }

    /// Whether it is to be answered: not before it has taken the answers that it has.
    pub(super) fn has_room(&self) -> bool {
        !self.ends && self.waiting() < ENOUGH
    }

    /// What it is waited for.
    pub(super) fn awaited(&self) -> PollFlags {
        let mut awaited = PollFlags::empty();
        awaited.set(PollFlags::POLLIN, self.has_room() && !self.hung_up);
        awaited.set(PollFlags::POLLOUT, self.waiting() > 0);
        awaited
    }

    pub(super) fn waiting(&self) -> usize {
        self.output.len() - self.sent
    }

    /// Reads what has come; `false` if the client has gone.
    pub(super) fn read(&mut self, now: Instant) -> bool {
        let mut buffer = [0; 16 * 1024];
        match self.connection.read(&mut buffer) {
            Ok(0) => return false,
            Ok(len) => self.input.extend_from_slice(buffer.get(..len).unwrap_or_default()),
            Err(error) => return is_for_now(&error),
        }
        self.since = self.since.or(Some(now));
        true
    }

    /// The next whole line; `Err` if it is too long.
    pub(super) fn line(&mut self, now: Instant) -> Result<Option<Vec<u8>>, ()> {
        match self.input.iter().position(|byte| *byte == b'\n') {
            Some(end) if end <= LINE => {
                // What a long line took is not kept for as long as its client stays.
                let rest = self.input.get(end + 1..).unwrap_or_default().to_vec();
                let line = std::mem::replace(&mut self.input, rest);
                self.since = Some(now);
                Ok(Some(line.into_iter().take(end).collect()))
            }
            None if self.input.len() <= LINE => Ok(None),
            _ => Err(()),
        }
    }

    /// All that has come so far, of a request that ends with an empty line.
    pub(super) fn head(&self) -> Option<&[u8]> {
        self.input.windows(4).any(|four| four == b"\r\n\r\n").then_some(&self.input)
    }

    pub(super) fn is_too_long(&self) -> bool {
        self.input.len() > LINE
    }

    /// Whether an unfinished line, or an answer that waits, has got no further for too long.
    pub(super) fn is_too_slow(&self, now: Instant) -> bool {
        let is_unfinished = !self.input.is_empty() || self.waiting() > 0;
        let over = |since: Instant| now.saturating_duration_since(since) > PATIENCE;
        is_unfinished && self.since.is_some_and(over)
    }

    pub(super) fn say(&mut self, text: &[u8], now: Instant) {
        if self.waiting() == 0 {
            self.since = Some(now);
        }
        self.output.extend_from_slice(text);
    }

    /// Tells a subscriber; `false` if it is too far behind.
    pub(super) fn tell(&mut self, line: &[u8], now: Instant) -> bool {
        self.say(line, now);
        self.waiting() <= BEHIND
    }

    /// Sends what it takes; `false` if the client has gone, or all is sent that there will be.
    pub(super) fn write(&mut self, now: Instant) -> bool {
        while self.waiting() > 0 {
            match self.connection.write(self.output.get(self.sent..).unwrap_or_default()) {
                Ok(len) => (self.sent, self.since) = (self.sent + len, Some(now)),
                Err(error) => return is_for_now(&error),
            }
        }
        (self.output, self.sent) = (Vec::new(), 0);
        !self.ends
    }
}

impl AsFd for Peer {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.connection.as_fd()
    }
}

fn is_for_now(error: &io::Error) -> bool {
    [ErrorKind::WouldBlock, ErrorKind::Interrupted].contains(&error.kind())
}
