//! Sockets that wait for somebody: who answers at a port (sock_diag).

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

use crate::attr::{Attrs, Writer};
use crate::error::{DecodeError, Error};
use crate::kernel::Nft;
use crate::message::Request;
use crate::uapi::*;
use crate::words::{NFPROTO_IPV4, NFPROTO_IPV6, protocol};

/// A TCP socket that listens, or a UDP socket that is not connected.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct ListeningSocket {
    /// The transport protocol's number.
    pub protocol: u8,
    /// The address that it is bound to; unspecified for all.
    pub address: IpAddr,
    /// The port that it is bound to.
    pub port: u16,
    /// It takes IPv4 packets too, although its address is an IPv6 one.
    pub both_families: bool,
    /// By which `/proc/PID/fd` names it; 0 for one of the kernel's own.
    pub inode: u32,
}

/// `TCP_LISTEN`, and `TCP_CLOSE` which UDP sockets are in that are not connected
/// (`net/tcp_states.h`).
const LISTEN: u32 = 10;
const CLOSE: u32 = 7;

/// The length of `struct inet_diag_req_v2` and of `struct inet_diag_msg`, without the four bytes
/// that are sent as the request's head and taken off an answer.
const REQUEST: usize = 52;
const ANSWER: usize = 68;

impl Nft {
    /// Who waits for connections and datagrams in this network namespace, TCP and UDP, IPv4 and
    /// IPv6. Only from [`Nft::open_for_sockets`]. Needs no privilege.
    ///
    /// # Errors
    /// The kernel does not tell: [`Error::Io`].
    pub fn listening(&mut self) -> Result<Vec<ListeningSocket>, Error> {
        let mut found = Vec::new();
        for family in [NFPROTO_IPV4, NFPROTO_IPV6] {
            for (protocol, state) in [(protocol::TCP, LISTEN), (protocol::UDP, CLOSE)] {
                let mut body = Writer::default();
                let mut rest = [0; REQUEST];
                for (to, from) in rest.iter_mut().zip((1u32 << state).to_ne_bytes()) {
                    *to = from;
                }
                body.raw(&rest);
                let request = Request::dump(SOCK_DIAG_BY_FAMILY, [family, protocol, 0, 0], body);
                self.ask(request, SOCK_DIAG_BY_FAMILY, |answer| {
                    let socket = decode(family, protocol, answer.0)?;
                    // One that was never bound waits for nobody.
                    found.extend(Some(socket).filter(|socket| socket.port != 0));
                    Ok(())
                })?;
            }
        }
        Ok(found)
    }
}

/// `struct inet_diag_msg` without its head, and the attributes behind it.
fn decode(family: u8, protocol: u8, bytes: &[u8]) -> Result<ListeningSocket, DecodeError> {
    let truncated = DecodeError::Truncated { rest: bytes.len() };
    let (fixed, attrs) = bytes.split_at_checked(ANSWER).ok_or(truncated.clone())?;
    let four = |at: usize| fixed.get(at..)?.first_chunk::<4>().copied();
    let port = fixed.first_chunk::<2>().copied().map(u16::from_be_bytes);
    let address = match family {
        NFPROTO_IPV4 => four(4).map(|bytes| IpAddr::from(Ipv4Addr::from(bytes))),
        _ => fixed
            .get(4..)
            .and_then(|rest| rest.first_chunk::<16>().copied())
            .map(|bytes| IpAddr::from(Ipv6Addr::from(bytes))),
    };
    let (Some(port), Some(address), Some(inode)) = (port, address, four(64)) else {
        return Err(truncated);
    };
    let mut both_families = family == NFPROTO_IPV6 && address.is_unspecified();
    for attr in Attrs(attrs) {
        let attr = attr?;
        if attr.kind == INET_DIAG_SKV6ONLY && attr.u8()? != 0 {
            both_families = false;
        }
    }
    let inode = u32::from_ne_bytes(inode);
    Ok(ListeningSocket { protocol, address, port, both_families, inode })
}
