//! Sockets that listen: which process answers at a port (sock_diag).

use std::io::{self, ErrorKind};
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

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
    /// The socket takes IPv4 packets too, although its address is an IPv6 one.
    pub both_families: bool,
    /// The inode, by which `/proc/PID/fd` names the socket; 0 for a socket of the kernel.
    pub inode: u32,
}

/// The state of TCP sockets that listen, and of UDP sockets that are not connected
/// (`net/tcp_states.h`).
const TCP_LISTEN: u32 = 10;
const TCP_CLOSE: u32 = 7;

/// Lengths of `struct inet_diag_req_v2` and of `struct inet_diag_msg` without their first four bytes,
/// which the request has as its head.
const REQUEST_BYTES: usize = 52;
const ANSWER_BYTES: usize = 68;

impl SockDiag {
    /// Opens a socket in the network namespace of this thread.
    ///
    /// # Errors
    /// [`Error::Io`] if there is no netlink.
    #[cfg(feature = "socket")]
    pub fn open() -> Result<SockDiag, Error> {
        Ok(SockDiag { channel: Channel::open(libc::NETLINK_SOCK_DIAG)? })
    }

    /// Talks to the kernel, or to a test, through a function. The function sends one request and
    /// returns all bytes of the answer.
    pub fn from_exchange(
        exchange: impl FnMut(&[u8]) -> Result<Vec<u8>, Error> + Send + 'static,
    ) -> SockDiag {
        SockDiag { channel: Channel::from_exchange(exchange) }
    }

    /// Returns the sockets that wait for connections and datagrams, TCP and UDP, IPv4 and IPv6.
    ///
    /// # Errors
    /// [`Error::Io`] if the kernel cannot list sockets.
    pub fn listening(&mut self) -> Result<Vec<ListeningSocket>, Error> {
        let mut found = Vec::new();
        for version in IpVersion::ALL {
            for (protocol, state) in [(protocol::TCP, TCP_LISTEN), (protocol::UDP, TCP_CLOSE)] {
                let mut body = Writer::default();
                let mut rest = [0; REQUEST_BYTES];
                for (to, from) in rest.iter_mut().zip((1u32 << state).to_ne_bytes()) {
                    *to = from;
                }
                body.raw(&rest);
                let head = [version.family(), protocol, 0, 0];
                let request = Request::dump(SOCK_DIAG_BY_FAMILY, head, body);
                self.channel.ask(request, |reply| {
                    if reply.interrupted() {
                        return Err(Error::Interrupted);
                    }
                    match reply.outcome()?.map_or(0, |outcome| outcome.errno) {
                        0 => {}
                        // The kernel has no module that answers: not the same as no sockets.
                        errno::ENOENT => return Err(Error::Io(ErrorKind::Unsupported.into())),
                        errno => return Err(io::Error::from_raw_os_error(errno).into()),
                    }
                    let Some(attrs) = reply.attrs(SOCK_DIAG_BY_FAMILY) else { return Ok(()) };
                    let socket = decode(version, protocol, attrs.0)?;
                    // A socket that was never bound waits for nothing.
                    found.extend(Some(socket).filter(|socket| socket.port != 0));
                    Ok(())
                })?;
            }
        }
        Ok(found)
    }
}

/// Reads `struct inet_diag_msg` without its first four bytes, and the attributes behind it.
fn decode(version: IpVersion, protocol: u8, bytes: &[u8]) -> Result<ListeningSocket, DecodeError> {
    let truncated = DecodeError::Truncated { rest: bytes.len() };
    let (fixed, attrs) = bytes.split_at_checked(ANSWER_BYTES).ok_or(truncated.clone())?;
    let four = |at: usize| fixed.get(at..)?.first_chunk::<4>().copied();
    let port = fixed.first_chunk::<2>().copied().map(u16::from_be_bytes);
    let address = match version {
        IpVersion::V4 => four(4).map(|bytes| IpAddr::from(Ipv4Addr::from(bytes))),
        IpVersion::V6 => fixed
            .get(4..)
            .and_then(|rest| rest.first_chunk::<16>().copied())
            .map(|bytes| IpAddr::from(Ipv6Addr::from(bytes))),
    };
    let (Some(port), Some(address), Some(inode)) = (port, address, four(64)) else {
        return Err(truncated);
    };
    let mut both_families = version == IpVersion::V6 && address.is_unspecified();
    for attr in Attrs(attrs) {
        let attr = attr?;
        if attr.kind == INET_DIAG_SKV6ONLY && attr.u8()? != 0 {
            both_families = false;
        }
    }
    let inode = u32::from_ne_bytes(inode);
    Ok(ListeningSocket { protocol, address, port, both_families, inode })
}
