//! Probes: real packets that test one path through a firewall.

use std::{
    fmt, io,
    io::Read,
    net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr, TcpStream},
    sync::{
        Mutex, PoisonError,
        atomic::{AtomicU64, AtomicUsize, Ordering},
    },
    thread,
    time::{Duration, Instant},
};

use nix::{
    libc,
    sys::socket::{
        setsockopt,
        sockopt::{Ipv4RecvErr, Ipv6RecvErr},
    },
};
use socket2::{Domain, Protocol, Socket, Type};

use crate::{Netns, packet, server::allow_routed_source};

/// The default timeout of a probe. It is long against the round trip between
/// two namespaces, and shorter than the first retransmission of TCP, so that one
/// probe sends one packet.
pub const DEFAULT_TIMEOUT: Duration = Duration::from_millis(500);

/// A packet from a namespace, and the answer that the probe waits for.
#[derive(Clone, Copy, Debug)]
pub struct Probe<'a> {
    netns: &'a Netns,
    kind: Kind,
    to: SocketAddr,
    from: Option<IpAddr>,
    source_port: u16,
    timeout: Duration,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Kind {
    Tcp,
    Udp,
    Ping,
}

/// The outcome of a probe.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum ProbeOutcome {
    /// The far side answered.
    Passed,
    /// A host or router refused.
    Refused(Refusal),
    /// No answer came in time.
    TimedOut,
    /// The probe could not be sent. The set-up is wrong, and there is no verdict.
    Failed(String),
}

/// The kind of a refusal.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Refusal {
    /// A TCP reset or an ICMP port unreachable: a closed port, or a reject.
    Closed,
    /// An ICMP host or network unreachable or prohibited, or no route.
    Unreachable,
    /// An ICMPv6 administratively prohibited or a policy reject.
    Prohibited,
    /// The sender's own kernel dropped the packet on its way out.
    NotPermitted,
}

impl<'a> Probe<'a> {
    /// Returns a probe that opens a TCP connection to a server that speaks
    /// first, such as [`Netns::serve_tcp`]. It passes with the first line.
    pub fn tcp(netns: &'a Netns, to: impl Into<SocketAddr>) -> Self {
        Self::new(netns, Kind::Tcp, to.into())
    }

    /// Returns a probe that sends a UDP datagram to an echo server.
    pub fn udp(netns: &'a Netns, to: impl Into<SocketAddr>) -> Self {
        Self::new(netns, Kind::Udp, to.into())
    }

    /// Returns a probe that sends an ICMP or ICMPv6 echo request.
    pub fn ping(netns: &'a Netns, to: impl Into<IpAddr>) -> Self {
        Self::new(netns, Kind::Ping, SocketAddr::new(to.into(), 0))
    }

    fn new(netns: &'a Netns, kind: Kind, to: SocketAddr) -> Self {
        Self { netns, kind, to, from: None, source_port: 0, timeout: DEFAULT_TIMEOUT }
    }

    /// Sets the source address, which the namespace must have or
    /// [own](Netns::own_prefix).
    pub fn from(self, address: impl Into<IpAddr>) -> Self {
        Self { from: Some(address.into()), ..self }
    }

    /// Sets the source port of TCP or UDP.
    pub fn source_port(self, source_port: u16) -> Self {
        Self { source_port, ..self }
    }

    /// Sets the timeout. TCP repeats its packet after about one second, three,
    /// seven …
    pub fn timeout(self, timeout: Duration) -> Self {
        Self { timeout, ..self }
    }

    /// Sends the packet and waits for the answer.
    pub fn run(&self) -> ProbeOutcome {
        let socket = match self.socket() {
            Ok(socket) => socket,
            Err(error) => return ProbeOutcome::Failed(error.to_string()),
        };
        let deadline = Instant::now() + self.timeout;
        let asked = match self.kind {
            Kind::Tcp => self.ask_tcp(&socket, deadline),
            Kind::Udp => self.ask_udp(&socket, deadline),
            Kind::Ping => self.ask_ping(&socket, deadline),
        };
        match asked {
            Ok(()) => ProbeOutcome::Passed,
            Err(error) => ProbeOutcome::from_error(&error),
        }
    }

    /// Opens a TCP connection and returns it before any read. Reads have the
    /// timeout of the probe.
    ///
    /// # Errors
    /// The outcome, if the probe has not passed.
    pub fn connect(&self) -> Result<TcpStream, ProbeOutcome> {
        let probe = Self { kind: Kind::Tcp, ..*self };
        let socket = probe.socket().map_err(|error| ProbeOutcome::Failed(error.to_string()))?;
        connect(&socket, self.to, self.timeout)
            .and_then(|()| socket.set_read_timeout(Some(self.timeout)))
            .map_err(|error| ProbeOutcome::from_error(&error))?;
        Ok(socket.into())
    }

    fn socket(&self) -> io::Result<Socket> {
        let (kind, protocol) = match (self.kind, self.to) {
            (Kind::Tcp, _) => (Type::STREAM, Protocol::TCP),
            (Kind::Udp, _) => (Type::DGRAM, Protocol::UDP),
            (Kind::Ping, SocketAddr::V4(_)) => (Type::RAW, Protocol::ICMPV4),
            (Kind::Ping, SocketAddr::V6(_)) => (Type::RAW, Protocol::ICMPV6),
        };
        let socket =
            self.netns.run(|| Socket::new(Domain::for_address(self.to), kind, Some(protocol)))?;
        socket.set_reuse_address(true)?;
        allow_routed_source(&socket, self.to)?;
        if self.kind != Kind::Tcp {
            socket.set_broadcast(true)?;
        }
        // Without this option some ICMP errors do not reach a datagram socket,
        // and none reaches a TCP socket that still sends.
        match self.to {
            SocketAddr::V4(_) => setsockopt(&socket, Ipv4RecvErr, &true)?,
            SocketAddr::V6(_) => setsockopt(&socket, Ipv6RecvErr, &true)?,
        }
        if self.from.is_some() || self.source_port != 0 {
            let any: IpAddr = match self.to {
                SocketAddr::V4(_) => Ipv4Addr::UNSPECIFIED.into(),
                SocketAddr::V6(_) => Ipv6Addr::UNSPECIFIED.into(),
            };
            let source = SocketAddr::new(self.from.unwrap_or(any), self.source_port);
            socket.bind(&source.into())?;
        }
        Ok(socket)
    }

    fn ask_tcp(&self, socket: &Socket, deadline: Instant) -> io::Result<()> {
        // A reset ends the connection, so that no state blocks the next probe
        // from the same port.
        socket.set_linger(Some(Duration::ZERO))?;
        connect(socket, self.to, remaining(deadline)?)?;
        wait_for(socket, deadline, |line| line.contains(&b'\n'))
    }

    fn ask_udp(&self, socket: &Socket, deadline: Instant) -> io::Result<()> {
        let token = token();
        socket.connect(&self.to.into())?;
        socket.send(&token)?;
        wait_for(socket, deadline, |datagram| datagram == token)
    }

    fn ask_ping(&self, socket: &Socket, deadline: Instant) -> io::Result<()> {
        let token = token();
        let request = match self.to {
            SocketAddr::V4(_) => packet::icmp(8, 0, &token),
            // The kernel fills in the checksum of ICMPv6.
            SocketAddr::V6(_) => [&[128, 0, 0, 0], &token[..]].concat(),
        };
        socket.connect(&self.to.into())?;
        socket.send(&request)?;
        wait_for(socket, deadline, |received| {
            // A raw IPv4 socket returns the IP header, a raw IPv6 socket does not.
            let (reply, header) = match self.to {
                SocketAddr::V4(_) => (0, received.first().map_or(0, |b| usize::from(b & 15) * 4)),
                SocketAddr::V6(_) => (129, 0),
            };
            received.get(header) == Some(&reply) && received.get(header + 4..) == Some(&token[..])
        })
    }
}

/// Runs probes in parallel, so that many timeouts take as long as one. Returns
/// the outcomes in the order of the probes.
pub fn run_all(probes: &[Probe<'_>]) -> Vec<ProbeOutcome> {
    const MAX_PARALLEL_PROBES: usize = 64;
    let next = AtomicUsize::new(0);
    let outcomes = Mutex::new(vec![ProbeOutcome::TimedOut; probes.len()]);
    thread::scope(|scope| {
        for _ in 0..MAX_PARALLEL_PROBES.min(probes.len()) {
            scope.spawn(|| {
                loop {
                    let number = next.fetch_add(1, Ordering::Relaxed);
                    let Some(probe) = probes.get(number) else {
                        return;
                    };
                    let outcome = probe.run();
                    outcomes.lock().unwrap_or_else(PoisonError::into_inner)[number] = outcome;
                }
            });
        }
    });
    outcomes.into_inner().unwrap_or_else(PoisonError::into_inner)
}

impl ProbeOutcome {
    /// Reports whether the far side answered.
    pub fn passed(&self) -> bool {
        *self == Self::Passed
    }

    fn from_error(error: &io::Error) -> Self {
        match error.raw_os_error() {
            Some(libc::ECONNREFUSED | libc::ECONNRESET | libc::EPIPE) => {
                Self::Refused(Refusal::Closed)
            }
            Some(libc::EHOSTUNREACH | libc::ENETUNREACH) => Self::Refused(Refusal::Unreachable),
            Some(libc::EACCES) => Self::Refused(Refusal::Prohibited),
            Some(libc::EPERM) => Self::Refused(Refusal::NotPermitted),
            _ => match error.kind() {
                io::ErrorKind::TimedOut | io::ErrorKind::WouldBlock => Self::TimedOut,
                // A relay with an unreachable far side accepts and closes at
                // once.
                io::ErrorKind::UnexpectedEof => Self::Refused(Refusal::Closed),
                _ => Self::Failed(error.to_string()),
            },
        }
    }
}

impl fmt::Display for ProbeOutcome {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Passed => "passed",
            Self::Refused(Refusal::Closed) => "refused",
            Self::Refused(Refusal::Unreachable) => "unreachable",
            Self::Refused(Refusal::Prohibited) => "prohibited",
            Self::Refused(Refusal::NotPermitted) => "not permitted",
            Self::TimedOut => "timed out",
            Self::Failed(reason) => return write!(f, "failed: {reason}"),
        })
    }
}

fn connect(socket: &Socket, to: SocketAddr, timeout: Duration) -> io::Result<()> {
    socket.connect_timeout(&to.into(), timeout).map_err(|error| {
        // The kernel keeps an ICMP error that came during the sending as a
        // soft error.
        let aside = match error.raw_os_error() {
            Some(_) => None,
            None => socket.take_error().ok().flatten(),
        };
        aside.unwrap_or(error)
    })
}

/// Reads until `accept` returns true. On a stream `accept` sees each piece.
fn wait_for(
    mut socket: &Socket,
    deadline: Instant,
    accept: impl Fn(&[u8]) -> bool,
) -> io::Result<()> {
    let mut buffer = [0; 2048];
    loop {
        socket.set_read_timeout(Some(remaining(deadline)?))?;
        let length = match socket.read(&mut buffer) {
            // Without a signal, too, where the machine was stopped for a moment.
            Err(error) if error.kind() == io::ErrorKind::Interrupted => continue,
            read => read?,
        };
        if accept(buffer.get(..length).unwrap_or_default()) {
            return Ok(());
        }
        if length == 0 {
            return Err(io::ErrorKind::UnexpectedEof.into());
        }
    }
}

fn remaining(deadline: Instant) -> io::Result<Duration> {
    match deadline.saturating_duration_since(Instant::now()) {
        // A socket takes a timeout of zero for "for ever".
        Duration::ZERO => Err(io::ErrorKind::TimedOut.into()),
        remaining => Ok(remaining),
    }
}

/// Returns a token that identifies the answer to one probe.
fn token() -> [u8; 12] {
    static NEXT: AtomicU64 = AtomicU64::new(1);
    let number = NEXT.fetch_add(1, Ordering::Relaxed);
    let mut token = [0; 12];
    // The first four bytes are the identifier and sequence number of a ping.
    // Connection tracking separates flows by them.
    token[..4]
        .copy_from_slice(&((number as u32) ^ std::process::id().rotate_left(16)).to_be_bytes());
    token[4..].copy_from_slice(&number.to_be_bytes());
    token
}
