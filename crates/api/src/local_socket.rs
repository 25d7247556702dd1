//! The sockets of the guard and of the rollback watchdog, and who is at their other end.

use std::fs::{self, File};
use std::io::{self, ErrorKind, Read as _, Write as _};
use std::ops::Deref;
use std::os::fd::{AsFd, BorrowedFd};
use std::os::unix::fs::FileTypeExt as _;
use std::os::unix::net::{UnixListener, UnixStream};
use std::path::{Path, PathBuf};
use std::thread;
use std::time::{Duration, Instant};

use rustix::io::Errno;
use rustix::net::{AddressFamily, SocketAddrUnix, SocketFlags, SocketType, connect, socket_with};
use serde::Serialize;
use serde::de::DeserializeOwned;

pub use crate::credentials::{PeerCredentials, is_stopped, is_trusted, peer_credentials};

pub use crate::rendezvous::{VARIABLE, prepare};

use crate::codec::{self, LineBuffer, MAX_ANSWER};
use crate::error::Error;
use crate::rendezvous;

/// The names of the sockets, in the folder of [`rendezvous`]. Each network namespace has at most one
/// guard and one watchdog, as it has one of each table of nf_tables.
const GUARD: &str = "guard";
const WATCHDOG: &str = "watchdog";

/// Pause before a socket whose queue is full is tried again.
const RETRY_PAUSE: Duration = Duration::from_millis(10);

/// Longest wait for room in the queue of a socket. A process that is well makes room at once.
const CONNECT_TIMEOUT: Duration = Duration::from_secs(5);

/// How often a process that does not answer is looked at: it may be stopped.
const LOOK_INTERVAL: Duration = Duration::from_millis(500);

/// Where a process listens.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum LocalAddress {
    /// The guard of this network namespace, for root.
    Guard,
    /// The rollback watchdog of this network namespace, for root.
    Watchdog,
    /// A socket in the file system.
    File(PathBuf),
}

/// A socket that listens. Its name is this process's until it is dropped.
#[derive(Debug)]
pub struct LocalListener {
    socket: UnixListener,
    _claim: Option<File>,
}

impl Deref for LocalListener {
    type Target = UnixListener;

    fn deref(&self) -> &UnixListener {
        &self.socket
    }
}

/// A connection over which both ends send messages, each a line of JSON.
#[derive(Debug)]
pub struct Connection {
    stream: UnixStream,
    lines: LineBuffer,
    time_limit: Option<Duration>,
}

impl LocalAddress {
    /// Listens there, in place of a socket that a process left behind.
    ///
    /// # Errors
    /// [`ErrorKind::AddrInUse`] if another process does.
    pub fn listen(&self) -> io::Result<LocalListener> {
        let claim = match self {
            LocalAddress::File(path) => {
                return Ok(LocalListener { socket: bind(path)?, _claim: None });
            }
            LocalAddress::Guard => rendezvous::claim(GUARD),
            LocalAddress::Watchdog => rendezvous::claim(WATCHDOG),
        };
        let (path, claim) = claim?;
        Ok(LocalListener { socket: bind(&path)?, _claim: Some(claim) })
    }

    /// Connects, and waits at most `time_limit` while the queue of the socket is full.
    ///
    /// # Errors
    /// [`ErrorKind::ConnectionRefused`] or [`ErrorKind::NotFound`] if nothing listens there,
    /// [`ErrorKind::TimedOut`] after the time limit.
    pub fn connect(&self, time_limit: Duration) -> io::Result<UnixStream> {
        match self {
            LocalAddress::File(path) => connect_to(path, time_limit),
            LocalAddress::Guard => connect_to(&rendezvous::find(GUARD)?, time_limit),
            LocalAddress::Watchdog => connect_to(&rendezvous::find(WATCHDOG)?, time_limit),
        }
    }
}

fn bind(path: &Path) -> io::Result<UnixListener> {
    match UnixListener::bind(path) {
        Err(error) if error.kind() == ErrorKind::AddrInUse && is_left_behind(path) => {
            fs::remove_file(path)?;
            UnixListener::bind(path)
        }
        bound => bound,
    }
}

fn is_left_behind(path: &Path) -> bool {
    let is_socket = || fs::symlink_metadata(path).is_ok_and(|it| it.file_type().is_socket());
    let refused = |error: io::Error| error.kind() == ErrorKind::ConnectionRefused;
    is_socket() && connect_to(path, Duration::ZERO).is_err_and(refused)
}

fn connect_to(path: &Path, time_limit: Duration) -> io::Result<UnixStream> {
    let address = SocketAddrUnix::new(path)?;
    let flags = SocketFlags::CLOEXEC | SocketFlags::NONBLOCK;
    let socket = socket_with(AddressFamily::UNIX, SocketType::STREAM, flags, None)?;
    let start = Instant::now();
    loop {
        match connect(&socket, &address) {
            Ok(()) => break,
            Err(Errno::AGAIN | Errno::INTR) if start.elapsed() < time_limit => {
                thread::sleep(RETRY_PAUSE);
            }
            Err(Errno::AGAIN) => {
                let why = format!("{}: the queue of the socket is full", path.display());
                return Err(io::Error::new(ErrorKind::TimedOut, why));
            }
            Err(errno) => return Err(errno.into()),
        }
    }
    let stream = UnixStream::from(socket);
    stream.set_nonblocking(false)?;
    Ok(stream)
}

impl Connection {
    /// Takes a stream, from either end. With a time limit, each message has to be sent, or to
    /// arrive, within that time.
    ///
    /// # Errors
    /// The stream is in a state that allows no time limit.
    pub fn new(stream: UnixStream, time_limit: Option<Duration>) -> io::Result<Connection> {
        stream.set_nonblocking(false)?;
        Ok(Connection { stream, lines: LineBuffer::new(MAX_ANSWER), time_limit })
    }

    /// Connects to a process that runs as root or as the user of this process.
    ///
    /// # Errors
    /// [`Error::Untrusted`] if it is another user's; else as [`LocalAddress::connect`].
    pub fn open(address: &LocalAddress, time_limit: Duration) -> Result<Connection, Error> {
        let stream = address.connect(time_limit.min(CONNECT_TIMEOUT)).map_err(Error::Io)?;
        let connection = Connection::new(stream, Some(time_limit))?;
        let peer = connection.peer()?;
        if is_trusted(peer.user) { Ok(connection) } else { Err(Error::Untrusted(peer)) }
    }

    /// Returns the process at the other end.
    ///
    /// # Errors
    /// As [`peer_credentials`].
    pub fn peer(&self) -> io::Result<PeerCredentials> {
        peer_credentials(&self.stream)
    }

    /// Changes the time limit of each message; `None` waits without end.
    pub fn set_time_limit(&mut self, time_limit: Option<Duration>) {
        self.time_limit = time_limit;
    }

    /// Sends a message.
    ///
    /// # Errors
    /// [`Error::Closed`] or [`Error::TimedOut`], or the socket fails.
    pub fn send(&mut self, message: &impl Serialize) -> Result<(), Error> {
        let line = codec::encode(message).map_err(Error::Malformed)?;
        let deadline = self.deadline();
        let mut rest = line.as_slice();
        while !rest.is_empty() {
            self.stream.set_write_timeout(self.left(deadline)?)?;
            match self.stream.write(rest) {
                Ok(sent) => rest = rest.get(sent..).unwrap_or_default(),
                // Then no time is left.
                Err(error)
                    if matches!(error.kind(), ErrorKind::Interrupted | ErrorKind::WouldBlock) => {}
                Err(error) => return Err(error.into()),
            }
        }
        Ok(())
    }

    /// Receives the next message.
    ///
    /// # Errors
    /// [`Error::Closed`], [`Error::TimedOut`], [`Error::Stopped`], [`Error::TooLong`] or
    /// [`Error::Malformed`], or the socket fails.
    pub fn receive<T: DeserializeOwned>(&mut self) -> Result<T, Error> {
        let line = self.receive_line()?;
        codec::decode(&line).map_err(Error::Malformed)
    }

    /// Sends a request and receives its answer.
    ///
    /// # Errors
    /// As [`Connection::send`] and [`Connection::receive`].
    pub fn request<T: DeserializeOwned>(&mut self, request: &impl Serialize) -> Result<T, Error> {
        self.send(request)?;
        self.receive()
    }

    fn receive_line(&mut self) -> Result<Vec<u8>, Error> {
        let deadline = self.deadline();
        let mut buffer = [0; 16 * 1024];
        let mut was_stopped = false;
        loop {
            if let Some(line) = self.lines.next_line().map_err(|_| Error::TooLong)? {
                return Ok(line);
            }
            let wait = self.left(deadline)?.map(|left| left.min(LOOK_INTERVAL));
            self.stream.set_read_timeout(wait)?;
            match self.stream.read(&mut buffer) {
                Ok(0) => return Err(Error::Closed),
                Ok(len) => self.lines.push(buffer.get(..len).unwrap_or_default()),
                Err(error) if error.kind() == ErrorKind::Interrupted => {}
                Err(error) if error.kind() == ErrorKind::WouldBlock => {
                    let peer = self.peer()?;
                    // Twice: it may go on at once.
                    let is_stopped = is_stopped(peer.process);
                    if is_stopped && was_stopped {
                        return Err(Error::Stopped(peer));
                    }
                    was_stopped = is_stopped;
                }
                Err(error) => return Err(error.into()),
            }
        }
    }

    fn deadline(&self) -> Option<Instant> {
        self.time_limit.and_then(|limit| Instant::now().checked_add(limit))
    }

    /// Returns the time until the deadline; `None` if there is none.
    fn left(&self, deadline: Option<Instant>) -> Result<Option<Duration>, Error> {
        let left = deadline.map(|deadline| deadline.saturating_duration_since(Instant::now()));
        if left.is_some_and(|left| left.is_zero()) {
            return Err(Error::TimedOut(self.peer()?));
        }
        Ok(left)
    }
}

impl AsFd for Connection {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.stream.as_fd()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn messages_arrive_whole_and_an_end_that_is_silent_or_gone_is_told_apart() {
        let (one, other) = UnixStream::pair().expect("a pair");
        let limit = Some(Duration::from_millis(50));
        let mut one = Connection::new(one, limit).expect("a connection");
        let mut other = Connection::new(other, limit).expect("a connection");
        one.send(&"first").expect("sent");
        one.send(&vec![1, 2]).expect("sent");
        assert_eq!(other.receive::<String>().expect("arrives"), "first");
        assert_eq!(other.receive::<Vec<u32>>().expect("arrives"), [1, 2]);
        assert!(matches!(other.receive::<String>(), Err(Error::TimedOut(_))));
        assert_eq!(one.peer().expect("known").process, std::process::id().cast_signed());
        drop(one);
        assert!(matches!(other.receive::<String>(), Err(Error::Closed)));
    }

    #[test]
    fn one_byte_now_and_then_does_not_move_the_deadline() {
        let (mut one, other) = UnixStream::pair().expect("a pair");
        let mut other = Connection::new(other, Some(Duration::from_millis(200))).expect("one");
        thread::scope(|scope| {
            scope.spawn(move || {
                let until = Instant::now() + Duration::from_secs(60);
                while Instant::now() < until && one.write_all(b" ").is_ok() {
                    thread::sleep(Duration::from_millis(20));
                }
            });
            assert!(matches!(other.receive::<String>(), Err(Error::TimedOut(_))));
            drop(other);
        });
    }

    #[test]
    fn a_full_queue_ends_in_a_timeout_and_an_absent_socket_in_an_error() {
        let folder = tempfile::tempdir().expect("a folder");
        let address = LocalAddress::File(folder.path().join("socket"));
        let connect = || address.connect(Duration::from_millis(50)).map_err(|error| error.kind());
        assert_eq!(connect().map(drop), Err(ErrorKind::NotFound));
        let listener = address.listen().expect("listens");
        rustix::net::listen(&*listener, 0).expect("a short queue");
        let mut waiting = Vec::new();
        let outcome = loop {
            match connect() {
                Ok(stream) if waiting.len() < 100 => waiting.push(stream),
                outcome => break outcome,
            }
        };
        assert_eq!(outcome.map(drop), Err(ErrorKind::TimedOut));
        drop(listener);
        assert_eq!(connect().map(drop), Err(ErrorKind::ConnectionRefused));
    }
}
