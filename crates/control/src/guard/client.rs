//! A client: what it may do, what it sent, and what waits to be sent to it.

use std::fs::File;
use std::io::{self, ErrorKind, Read as _, Write as _};
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::time::{Duration, Instant};

use nfguard_api::codec::{LineBuffer, MAX_BULK_LINE, MAX_LINE, TooLong};
use nfguard_api::message::Request;
use nix::poll::PollFlags;
use nix::sys::socket::{setsockopt, sockopt};

use super::batch::Batch;

/// Longest time from the first byte of a line to its last, and between two reads of an answer; and of a
/// connection for metrics, whatever it does.
const REQUEST_TIMEOUT: Duration = Duration::from_secs(10);
/// Most bytes of events that wait for a subscriber.
const MAX_SUBSCRIBER_BACKLOG: usize = 256 * 1024;
/// With this many bytes of answers unread, a client's next request waits.
const MAX_UNREAD_ANSWERS: usize = 16 * 1024;
/// Bytes that are read at once.
const READ_SIZE: usize = 16 * 1024;
/// Most reads from one client before the turn of the next.
const READS_PER_TURN: usize = 4;
/// Bytes of answers that the kernel holds for a client that may only read, and for metrics. The kernel
/// doubles the number, and counts it as memory of the guard.
const READER_SEND_BUFFER: usize = 16 * 1024;

/// What a client of the API may do. Each right includes those before it.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(super) enum Right {
    /// Asks and subscribes.
    Read,
    /// Bans and unbans.
    Write,
    /// Changes the policy.
    Load,
}

/// What a connection is for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum ConnectionKind {
    /// Requests and answers, as far as the client's right goes.
    Api(Right),
    /// One answer over HTTP, for Prometheus.
    Metrics,
}

/// What a kind of connection may take up.
pub(super) struct Quota {
    /// Most connections, and most of one user.
    pub(super) connections: usize,
    pub(super) of_one_user: usize,
    /// Most bytes of all of them together: that are read and not carried out yet, and of answers that
    /// are not sent yet.
    pub(super) input_bytes: usize,
    pub(super) output_bytes: usize,
}

const MIB: usize = 1024 * 1024;

impl ConnectionKind {
    /// The kinds, in the order in which they are served.
    pub(super) const ALL: [ConnectionKind; 4] = [
        ConnectionKind::Api(Right::Load),
        ConnectionKind::Api(Right::Write),
        ConnectionKind::Api(Right::Read),
        ConnectionKind::Metrics,
    ];

    /// Returns the place among [`ConnectionKind::ALL`].
    pub(super) fn index(self) -> usize {
        match self {
            ConnectionKind::Api(Right::Load) => 0,
            ConnectionKind::Api(Right::Write) => 1,
            ConnectionKind::Api(Right::Read) => 2,
            ConnectionKind::Metrics => 3,
        }
    }

    /// Returns the quota of the kind. What one kind takes up is missing in no other.
    pub(super) fn quota(self) -> Quota {
        let (connections, of_one_user, input, output) = match self {
            ConnectionKind::Api(Right::Load) => (2000, 2000, 64, 64),
            ConnectionKind::Api(Right::Write) => (1024, 256, 64, 32),
            ConnectionKind::Api(Right::Read) => (512, 64, 16, 16),
            ConnectionKind::Metrics => (32, 32, 4, 16),
        };
        Quota { connections, of_one_user, input_bytes: input * MIB, output_bytes: output * MIB }
    }
}

/// How far a connection has come.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum ClientState {
    /// The client sends requests.
    Open,
    /// The client has closed its sending side, and waits for answers or events.
    HalfClosed,
    /// No request is read any more. The connection is closed once the last answer is sent.
    Closing,
    /// The connection is over.
    Closed,
}

pub(super) struct Client {
    pub(super) id: u64,
    pub(super) kind: ConnectionKind,
    /// The user at the other end, as far as the kernel tells.
    pub(super) user: Option<u32>,
    /// The turn in which the client was served last.
    pub(super) served_in: u64,
    /// The request that is carried out next: it takes long, and others go first.
    pub(super) request: Option<Request>,
    state: ClientState,
    is_subscribed: bool,
    /// The request in bulk that is under way.
    pub(super) batch: Option<Batch>,
    connection: File,
    input: LineBuffer,
    output: Vec<u8>,
    sent: usize,
    connected_at: Instant,
    /// When the unfinished line or answer last made progress.
    progress_at: Instant,
}

impl Client {
    pub(super) fn new(
        id: u64,
        kind: ConnectionKind,
        user: Option<u32>,
        connection: OwnedFd,
        now: Instant,
    ) -> Client {
        let max_line = match kind {
            ConnectionKind::Api(Right::Write | Right::Load) => MAX_BULK_LINE,
            ConnectionKind::Api(Right::Read) | ConnectionKind::Metrics => {
                // Without it the connection takes more, and works.
                let _ = setsockopt(&connection, sockopt::SndBuf, &READER_SEND_BUFFER);
                MAX_LINE
            }
        };
        Client {
            id,
            kind,
            user,
            served_in: 0,
            request: None,
            state: ClientState::Open,
            is_subscribed: false,
            batch: None,
            connection: File::from(connection),
            input: LineBuffer::new(max_line),
            output: Vec::new(),
            sent: 0,
            connected_at: now,
            progress_at: now,
        }
    }

    /// Returns the place in a turn, lower ones first: by right, those that ask for long answers behind
    /// the others, and then those that waited longest.
    pub(super) fn precedence(&self) -> (usize, bool, u64) {
        (self.kind.index(), matches!(self.request, Some(Request::Bans { .. })), self.served_in)
    }

    pub(super) fn connected_at(&self) -> Instant {
        self.connected_at
    }

    pub(super) fn is_subscribed(&self) -> bool {
        self.is_subscribed
    }

    pub(super) fn subscribe(&mut self) {
        self.is_subscribed = true;
    }

    pub(super) fn is_closed(&self) -> bool {
        self.state == ClientState::Closed
    }

    /// Closes the connection now.
    pub(super) fn close(&mut self) {
        self.state = ClientState::Closed;
    }

    /// Closes the connection once all answers are sent.
    pub(super) fn close_when_sent(&mut self) {
        if self.state != ClientState::Closed {
            self.state = ClientState::Closing;
        }
    }

    /// Whether a request may be carried out: its answer has to be read before the next one.
    pub(super) fn accepts_requests(&self) -> bool {
        matches!(self.state, ClientState::Open | ClientState::HalfClosed)
            && self.unsent() < MAX_UNREAD_ANSWERS
    }

    /// Whether a request of the client can be carried out without waiting.
    pub(super) fn has_work(&self) -> bool {
        self.accepts_requests() && self.has_requests()
    }

    /// Whether a request is under way, or may be among what was read.
    fn has_requests(&self) -> bool {
        let has_lines = self.kind != ConnectionKind::Metrics && self.input.may_have_line();
        self.batch.is_some() || self.request.is_some() || has_lines
    }

    /// Returns what to poll the connection for.
    pub(super) fn poll_flags(&self) -> PollFlags {
        let mut flags = PollFlags::empty();
        // What was read is carried out first. So a client that sends faster than it reads answers
        // fills no memory.
        let reads = self.state == ClientState::Open && !self.has_requests();
        flags.set(PollFlags::POLLIN, reads && self.accepts_requests());
        flags.set(PollFlags::POLLOUT, self.unsent() > 0);
        flags
    }

    /// Returns the number of bytes that are read and not yet carried out.
    pub(super) fn unread_input(&self) -> usize {
        self.input.len()
    }

    /// Returns the number of bytes that wait to be sent.
    pub(super) fn unsent(&self) -> usize {
        self.output.len() - self.sent
    }

    /// Reads what has arrived.
    pub(super) fn receive(&mut self, now: Instant) {
        // The client has closed its side: nothing more arrives, and what arrived is carried out.
        if self.state != ClientState::Open {
            return;
        }
        let mut buffer = [0; READ_SIZE];
        for _ in 0..READS_PER_TURN {
            match self.connection.read(&mut buffer) {
                Ok(0) => return self.state = ClientState::HalfClosed,
                Ok(len) => {
                    if self.input.is_empty() {
                        self.progress_at = now;
                    }
                    self.input.push(buffer.get(..len).unwrap_or_default());
                }
                Err(error) if is_temporary(&error) => return,
                Err(_) => return self.close(),
            }
        }
    }

    /// Returns the next line, if one is complete.
    pub(super) fn next_line(&mut self, now: Instant) -> Result<Option<Vec<u8>>, TooLong> {
        let line = self.input.next_line()?;
        if line.is_some() {
            self.progress_at = now;
        }
        Ok(line)
    }

    /// Whether an HTTP request is complete: it ends with an empty line. An error if it is too long.
    pub(super) fn has_http_request(&self) -> Result<bool, TooLong> {
        let bytes = self.input.pending();
        if bytes.windows(4).any(|end| end == b"\r\n\r\n") {
            return Ok(true);
        }
        if bytes.len() > MAX_LINE { Err(TooLong) } else { Ok(false) }
    }

    /// Whether an unfinished line or an unread answer has made no progress for too long.
    pub(super) fn is_stalled(&self, now: Instant) -> bool {
        let is_over = |since| now.saturating_duration_since(since) > REQUEST_TIMEOUT;
        if self.kind == ConnectionKind::Metrics {
            return is_over(self.connected_at);
        }
        if self.batch.is_some() || !is_over(self.progress_at) {
            return false;
        }
        // A whole line waits for its turn.
        let is_unfinished = !self.input.is_empty() && !self.input.pending().contains(&b'\n');
        is_unfinished || self.unsent() > 0
    }

    /// Queues an answer.
    pub(super) fn queue(&mut self, bytes: &[u8], now: Instant) {
        if self.unsent() == 0 {
            self.progress_at = now;
        }
        self.output.extend_from_slice(bytes);
    }

    /// Queues an event for a subscriber. A subscriber that reads too slowly is closed.
    pub(super) fn queue_event(&mut self, line: &[u8], now: Instant) {
        self.queue(line, now);
        if self.unsent() > MAX_SUBSCRIBER_BACKLOG {
            // The events of one turn may be many: only those that the connection does not take count.
            self.send(now);
        }
        if self.unsent() > MAX_SUBSCRIBER_BACKLOG {
            self.close();
        }
    }

    /// Sends as much as the connection takes.
    pub(super) fn send(&mut self, now: Instant) {
        while self.unsent() > 0 {
            match self.connection.write(self.output.get(self.sent..).unwrap_or_default()) {
                Ok(len) => (self.sent, self.progress_at) = (self.sent + len, now),
                Err(error) if is_temporary(&error) => return,
                Err(_) => return self.close(),
            }
        }
        (self.output, self.sent) = (Vec::new(), 0);
    }

    /// Closes a connection whose client waits for nothing more.
    pub(super) fn close_if_done(&mut self) {
        let waits = self.is_subscribed || self.has_requests();
        if self.state == ClientState::HalfClosed && !waits {
            self.state = ClientState::Closing;
        }
        if self.state == ClientState::Closing && self.unsent() == 0 {
            self.close();
        }
    }

    /// Closes a connection whose other end is gone, once all that it sent is carried out.
    pub(super) fn hang_up(&mut self) {
        if self.state != ClientState::Open && !self.has_work() {
            self.close();
        }
    }
}

impl AsFd for Client {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.connection.as_fd()
    }
}

fn is_temporary(error: &io::Error) -> bool {
    [ErrorKind::WouldBlock, ErrorKind::Interrupted].contains(&error.kind())
}

#[cfg(test)]
mod tests {
    use std::os::unix::net::UnixStream;

    use super::*;

    /// A client with this right, and the stream of its program.
    fn client(right: Right, now: Instant) -> (Client, UnixStream) {
        let (program, guard) = UnixStream::pair().expect("a pair");
        guard.set_nonblocking(true).expect("can be set");
        (Client::new(1, ConnectionKind::Api(right), None, guard.into(), now), program)
    }

    #[test]
    fn only_clients_that_may_ban_send_long_lines() {
        let now = Instant::now();
        for (right, is_long_allowed) in
            [(Right::Read, false), (Right::Write, true), (Right::Load, true)]
        {
            let (mut client, mut program) = client(right, now);
            for _ in 0..2 {
                program.write_all(&[b' '; MAX_LINE / 2 + 1]).expect("has room");
                client.receive(now);
            }
            assert_eq!(client.next_line(now).is_ok(), is_long_allowed, "{right:?}");
        }
    }

    #[test]
    fn a_line_has_its_time_from_its_first_byte_on_however_long_the_client_was_idle() {
        let start = Instant::now();
        let (mut client, mut program) = client(Right::Write, start);
        program.write_all(b"one\n").expect("has room");
        client.receive(start);
        assert_eq!(client.next_line(start), Ok(Some(b"one".to_vec())));
        let later = start + REQUEST_TIMEOUT * 6;
        assert!(!client.is_stalled(later), "nothing is unfinished");
        program.write_all(b"half of").expect("has room");
        client.receive(later);
        assert!(!client.is_stalled(later + REQUEST_TIMEOUT / 2));
        program.write_all(b" a line").expect("has room");
        client.receive(later + REQUEST_TIMEOUT / 2);
        assert!(client.is_stalled(later + REQUEST_TIMEOUT * 2), "the first byte counts");
    }

    #[test]
    fn what_a_client_sent_before_it_closed_is_carried_out_before_it_is_forgotten() {
        let now = Instant::now();
        let (mut client, mut program) = client(Right::Write, now);
        program.write_all(b"one\ntwo\n").expect("has room");
        drop(program);
        client.receive(now);
        for line in [b"one".to_vec(), b"two".to_vec()] {
            client.hang_up();
            client.close_if_done();
            assert!(client.has_work() && !client.is_closed());
            assert_eq!(client.next_line(now), Ok(Some(line)));
        }
        client.close_if_done();
        assert!(client.is_closed());
    }

    #[test]
    fn a_subscriber_that_reads_too_slowly_is_closed() {
        let now = Instant::now();
        let (mut client, _program) = client(Right::Read, now);
        client.subscribe();
        let events = vec![b'x'; MAX_SUBSCRIBER_BACKLOG];
        client.queue_event(&events, now);
        // The connection has room for some of it.
        client.queue_event(b"x", now);
        assert!(!client.is_closed());
        client.queue_event(&events, now);
        client.queue_event(&events, now);
        assert!(client.is_closed());
    }
}
