//! The sockets of the guard and of the rollback watchdog, and who is at their other end.

use std::io::{self, ErrorKind, Read as _, Write as _};
use std::os::fd::{AsFd, BorrowedFd};
use std::os::linux::net::SocketAddrExt as _;
use std::os::unix::net::{SocketAddr, UnixListener, UnixStream};
use std::path::PathBuf;
use std::thread;
use std::time::{Duration, Instant};

use rustix::io::Errno;
use rustix::net::{AddressFamily, SocketAddrUnix, SocketFlags, SocketType, connect, socket_with};
use serde::Serialize;
use serde::de::DeserializeOwned;

pub use crate::credentials::{PeerCredentials, is_trusted, peer_credentials};

use crate::codec::{self, LineBuffer, MAX_ANSWER};
use crate::error::Error;

/// Names in the abstract namespace. Such a name belongs to the network namespace, as the tables of
/// nf_tables do, so each network namespace has at most one guard and one watchdog.
const GUARD: &str = "nfguard/guard";
const WATCHDOG: &str = "nfguard/watchdog";

/// Pause before a socket whose queue is full is tried again.
const RETRY_PAUSE: Duration = Duration::from_millis(10);

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

/// A connection over which both ends send messages, each a line of JSON.
#[derive(Debug)]
pub struct Connection {
    stream: UnixStream,
    lines: LineBuffer,
    time_limit: Option<Duration>,
}

impl LocalAddress {
    /// Listens there.
    ///
    /// # Errors
    /// [`ErrorKind::AddrInUse`] if another process does.
    pub fn listen(&self) -> io::Result<UnixListener> {
        match self {
            LocalAddress::File(path) => UnixListener::bind(path),
            LocalAddress::Guard => UnixListener::bind_addr(&abstract_name(GUARD)?),
            LocalAddress::Watchdog => UnixListener::bind_addr(&abstract_name(WATCHDOG)?),
        }
    }

    /// Connects, and waits at most `time_limit` while the queue of the socket is full.
    ///
    /// # Errors
    /// [`ErrorKind::ConnectionRefused`] or [`ErrorKind::NotFound`] if nothing listens there,
    /// [`ErrorKind::TimedOut`] after the time limit.
    pub fn connect(&self, time_limit: Duration) -> io::Result<UnixStream> {
        let address = match self {
            LocalAddress::File(path) => SocketAddrUnix::new(path.as_path())?,
            LocalAddress::Guard => SocketAddrUnix::new_abstract_name(GUARD.as_bytes())?,
            LocalAddress::Watchdog => SocketAddrUnix::new_abstract_name(WATCHDOG.as_bytes())?,
        };
        let flags = SocketFlags::CLOEXEC | SocketFlags::NONBLOCK;
        let socket = socket_with(AddressFamily::UNIX, SocketType::STREAM, flags, None)?;
        let start = Instant::now();
        loop {
            match connect(&socket, &address) {
                Ok(()) => break,
                Err(Errno::AGAIN | Errno::INTR) if start.elapsed() < time_limit => {
                    thread::sleep(RETRY_PAUSE);
                }
                Err(Errno::AGAIN) => return Err(ErrorKind::TimedOut.into()),
                Err(errno) => return Err(errno.into()),
            }
        }
        let stream = UnixStream::from(socket);
        stream.set_nonblocking(false)?;
        Ok(stream)
    }
}

fn abstract_name(name: &str) -> io::Result<SocketAddr> {
    SocketAddr::from_abstract_name(name)
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
        let connection = Connection::new(address.connect(time_limit)?, Some(time_limit))?;
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
            self.stream.set_write_timeout(left(deadline)?)?;
            match self.stream.write(rest) {
                Ok(sent) => rest = rest.get(sent..).unwrap_or_default(),
                Err(error) if error.kind() == ErrorKind::Interrupted => {}
                Err(error) => return Err(error.into()),
            }
        }
        Ok(())
    }

    /// Receives the next message.
    ///
    /// # Errors
    /// [`Error::Closed`], [`Error::TimedOut`], [`Error::TooLong`] or [`Error::Malformed`], or the
    /// socket fails.
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
        loop {
            if let Some(line) = self.lines.next_line().map_err(|_| Error::TooLong)? {
                return Ok(line);
            }
            self.stream.set_read_timeout(left(deadline)?)?;
            match self.stream.read(&mut buffer) {
                Ok(0) => return Err(Error::Closed),
                Ok(len) => self.lines.push(buffer.get(..len).unwrap_or_default()),
                Err(error) if error.kind() == ErrorKind::Interrupted => {}
                Err(error) => return Err(error.into()),
            }
        }
    }

    fn deadline(&self) -> Option<Instant> {
        self.time_limit.and_then(|limit| Instant::now().checked_add(limit))
    }
}

/// Time until the deadline; `None` if there is none.
fn left(deadline: Option<Instant>) -> Result<Option<Duration>, Error> {
    let left = deadline.map(|deadline| deadline.saturating_duration_since(Instant::now()));
    if left.is_some_and(|left| left.is_zero()) { Err(Error::TimedOut) } else { Ok(left) }
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
        assert!(matches!(other.receive::<String>(), Err(Error::TimedOut)));
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
            assert!(matches!(other.receive::<String>(), Err(Error::TimedOut)));
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
        rustix::net::listen(&listener, 0).expect("a short queue");
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
