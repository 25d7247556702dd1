//! Sockets: which process answers at a port, and which connections are open (sock_diag).

use std::collections::{BTreeSet, HashSet};
use std::io::{self, ErrorKind};
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};

use crate::conntrack::{ConnectionPhase, ConnectionTuple, OpenConnection};
use crate::error::{DecodeError, Error};
use crate::ip_version::IpVersion;
use crate::symbols::protocol;
use crate::wire::attr::{Attrs, Writer};
use crate::wire::channel::Channel;
use crate::wire::message::{Request, errno};
use crate::wire::uapi::*;

/// sock_diag of one network namespace. Needs no privilege.
pub struct SockDiag {
    channel: Channel,
    unlisted: BTreeSet<u8>,
}

/// A TCP socket that listens, or a UDP socket that is not connected.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct ListeningSocket {
    /// The transport protocol's number.
    pub protocol: u8,
    /// The address that the socket is bound to; unspecified for all addresses.
    pub address: IpAddr,
    /// The port that the socket is bound to.
    pub port: u16,
    /// The index of the only interface whose packets the socket takes; `None` for all.
    pub interface: Option<u32>,
    /// The socket takes IPv4 packets too, although its address is an IPv6 one.
    pub both_families: bool,
    /// The inode, by which `/proc/PID/fd` names the socket; 0 for a socket of the kernel.
    pub inode: u32,
}

/// The state of TCP sockets that listen, and of UDP sockets that are not connected
/// (`net/tcp_states.h`).
const TCP_LISTEN: u8 = 10;
const TCP_CLOSE: u8 = 7;
/// The state of connections, TCP and UDP; and the states of TCP connections that are closing, from
/// `TCP_FIN_WAIT1` to `TCP_CLOSING`. A connection in `TCP_TIME_WAIT` has ended, and one that is only
/// being opened is not known to both ends.
const TCP_ESTABLISHED: u8 = 1;
const TCP_STATES_CLOSING: [u8; 5] = [4, 5, 8, 9, 11];

/// Lengths of `struct inet_diag_req_v2` without its first four bytes, which are the head of the
/// request, and of `struct inet_diag_msg`.
const REQUEST_BYTES: usize = 52;
const ANSWER_BYTES: usize = 72;

impl SockDiag {
    /// Opens a socket in the network namespace of this thread.
    ///
    /// # Errors
    /// [`Error::Io`] if there is no netlink.
    #[cfg(feature = "socket")]
    pub fn open() -> Result<SockDiag, Error> {
        Ok(SockDiag::over(Channel::open(libc::NETLINK_SOCK_DIAG)?))
    }

    /// Talks to the kernel, or to a test, through a function. The function sends one request and
    /// returns all bytes of the answer.
    pub fn from_exchange(
        exchange: impl FnMut(&[u8]) -> Result<Vec<u8>, Error> + Send + 'static,
    ) -> SockDiag {
        SockDiag::over(Channel::from_exchange(exchange))
    }

    fn over(channel: Channel) -> SockDiag {
        SockDiag { channel, unlisted: BTreeSet::new() }
    }

    /// Returns the numbers of the transport protocols of which the kernel has listed no sockets, because
    /// it has no module for it (`tcp_diag`, `udp_diag`). That is not the same as no sockets.
    #[must_use]
    pub fn unlisted(&self) -> &BTreeSet<u8> {
        &self.unlisted
    }

    /// Returns the sockets that wait for connections and datagrams, TCP and UDP, IPv4 and IPv6.
    ///
    /// # Errors
    /// [`Error::Io`] if the kernel can list none of them. If it can list one transport protocol alone,
    /// [`SockDiag::unlisted`] names the other.
    pub fn listening(&mut self) -> Result<Vec<ListeningSocket>, Error> {
        let mut found = Vec::new();
        self.dump([1 << TCP_LISTEN, 1 << TCP_CLOSE], |socket| {
            // A socket that was never bound waits for nothing.
            found.extend(Some(socket.bound).filter(|socket| socket.port != 0));
        })?;
        Ok(found)
    }

    /// Returns the connections that end at sockets of a local address that `wanted` is true of, TCP
    /// and UDP, IPv4 and IPv6. Connections over loopback and with groups are left out, as are those
    /// that are only being opened and those that have ended. If other sockets listen at the local
    /// port, the far end opened the connection.
    ///
    /// # Errors
    /// As [`SockDiag::listening`].
    pub fn connections(
        &mut self,
        mut wanted: impl FnMut(IpAddr) -> bool,
    ) -> Result<Vec<OpenConnection>, Error> {
        let open = TCP_STATES_CLOSING.iter().fold(1 << TCP_ESTABLISHED, |all, one| all | 1 << one);
        let (mut servers, mut found) = (HashSet::new(), Vec::new());
        self.dump([open | 1 << TCP_LISTEN, 1 << TCP_ESTABLISHED | 1 << TCP_CLOSE], |socket| {
            let ListeningSocket { protocol, address, port, .. } = socket.bound;
            if matches!(socket.state, TCP_LISTEN | TCP_CLOSE) {
                servers.insert((protocol, port));
                return;
            }
            let phase = match socket.state {
                TCP_ESTABLISHED => ConnectionPhase::Established,
                _ => ConnectionPhase::Closing,
            };
            // An IPv6 socket may have IPv4 ends.
            let original = ConnectionTuple {
                source: address.to_canonical(),
                destination: socket.peer.to_canonical(),
                protocol,
                source_port: port,
                destination_port: socket.peer_port,
            };
            if crosses_the_network(&original) && wanted(original.source) {
                found.push(OpenConnection { original, phase });
            }
        })?;
        for OpenConnection { original, .. } in &mut found {
            if servers.contains(&(original.protocol, original.source_port)) {
                *original = original.reversed();
            }
        }
        Ok(found)
    }

    /// Returns the established TCP connections of the sockets at a local port, each with its near and
    /// its far end. The kernel lists no others.
    ///
    /// # Errors
    /// As [`SockDiag::listening`].
    pub fn established_at(&mut self, port: u16) -> Result<Vec<(SocketAddr, SocketAddr)>, Error> {
        let mut found = Vec::new();
        self.dump_at(port, [1 << TCP_ESTABLISHED, 0], |socket| {
            let ListeningSocket { address, port, .. } = socket.bound;
            let near = SocketAddr::new(address.to_canonical(), port);
            found.push((near, SocketAddr::new(socket.peer.to_canonical(), socket.peer_port)));
        })?;
        Ok(found)
    }

    /// Lists the sockets of these states, of TCP and of UDP, both IPv4 and IPv6.
    fn dump(&mut self, states: [u32; 2], each: impl FnMut(InetSocket)) -> Result<(), Error> {
        self.dump_at(0, states, each)
    }

    /// As [`SockDiag::dump`], of a local port; 0: of all.
    fn dump_at(
        &mut self,
        port: u16,
        [tcp, udp]: [u32; 2],
        mut each: impl FnMut(InetSocket),
    ) -> Result<(), Error> {
        let mut asked = vec![(protocol::TCP, tcp), (protocol::UDP, udp)];
        asked.retain(|(_, states)| *states != 0);
        for version in IpVersion::ALL {
            for (protocol, states) in asked.iter().copied() {
                let mut body = Writer::default();
                let mut rest = [0; REQUEST_BYTES];
                let wanted = states.to_ne_bytes().into_iter().chain(port.to_be_bytes());
                for (to, from) in rest.iter_mut().zip(wanted) {
                    *to = from;
                }
                body.raw(&rest);
                let head = [version.family(), protocol, 0, 0];
                let request = Request::dump(SOCK_DIAG_BY_FAMILY, head, body);
                let unlisted = &mut self.unlisted;
                self.channel.ask(request, |reply| {
                    if reply.interrupted() {
                        return Err(Error::Interrupted);
                    }
                    match reply.outcome()?.map_or(0, |outcome| outcome.errno) {
                        0 => {}
                        errno::ENOENT => {
                            unlisted.insert(protocol);
                        }
                        errno => return Err(io::Error::from_raw_os_error(errno).into()),
                    }
                    if reply.kind == SOCK_DIAG_BY_FAMILY {
                        each(decode(version, protocol, reply.body)?);
                    }
                    Ok(())
                })?;
            }
        }
        let is_some_listed = asked.iter().any(|(protocol, _)| !self.unlisted.contains(protocol));
        is_some_listed.then_some(()).ok_or_else(|| Error::Io(ErrorKind::Unsupported.into()))
    }
}

/// A socket, as `struct inet_diag_msg` tells of it.
struct InetSocket {
    state: u8,
    bound: ListeningSocket,
    peer: IpAddr,
    peer_port: u16,
}

/// Returns whether packets of this connection pass an interface other than that of loopback, between
/// two ends.
fn crosses_the_network(tuple: &ConnectionTuple) -> bool {
    let is_end = |address: IpAddr| {
        let is_broadcast = address == IpAddr::from(Ipv4Addr::BROADCAST);
        let is_group = address.is_multicast() || address.is_unspecified() || is_broadcast;
        !is_group && !address.is_loopback()
    };
    is_end(tuple.source) && is_end(tuple.destination) && tuple.source != tuple.destination
}

/// Reads `struct inet_diag_msg`, and the attributes behind it.
fn decode(version: IpVersion, protocol: u8, bytes: &[u8]) -> Result<InetSocket, DecodeError> {
    let truncated = DecodeError::Truncated { rest: bytes.len() };
    let (fixed, attrs) = bytes.split_at_checked(ANSWER_BYTES).ok_or(truncated.clone())?;
    let two = |at: usize| fixed.get(at..)?.first_chunk::<2>().copied().map(u16::from_be_bytes);
    let four = |at: usize| fixed.get(at..)?.first_chunk::<4>().copied();
    let address = |at: usize| match version {
        IpVersion::V4 => four(at).map(|bytes| IpAddr::from(Ipv4Addr::from(bytes))),
        IpVersion::V6 => {
            let bytes = fixed.get(at..)?.first_chunk::<16>().copied();
            bytes.map(|bytes| IpAddr::from(Ipv6Addr::from(bytes)))
        }
    };
    let fields = (fixed.get(1), two(4), two(6), address(8), address(24), four(40), four(68));
    let (
        Some(&state),
        Some(port),
        Some(peer_port),
        Some(local),
        Some(peer),
        Some(interface),
        Some(inode),
    ) = fields
    else {
        return Err(truncated);
    };
    let mut both_families = version == IpVersion::V6 && local.is_unspecified();
    for attr in Attrs(attrs) {
        let attr = attr?;
        if attr.kind == INET_DIAG_SKV6ONLY && attr.u8()? != 0 {
            both_families = false;
        }
    }
    let inode = u32::from_ne_bytes(inode);
    let interface = Some(u32::from_ne_bytes(interface)).filter(|index| *index != 0);
    let bound = ListeningSocket { protocol, address: local, port, interface, both_families, inode };
    Ok(InetSocket { state, bound, peer, peer_port })
}
