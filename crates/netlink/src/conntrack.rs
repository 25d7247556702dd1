//! Tracked connections: list them, have the kernel forget them or track others (ctnetlink).

use std::io::{self, ErrorKind};
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

use crate::error::{DecodeError, Error};
use crate::ip_version::IpVersion;
use crate::nft::Nft;
use crate::symbols::protocol;
use crate::wire::attr::{Attr, Attrs, Writer};
use crate::wire::channel::MAX_REQUESTS_PER_SEND;
use crate::wire::message::{Request, conntrack, errno};
use crate::wire::uapi::*;

/// A connection that the kernel tracks.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Connection {
    /// The packets of the end that opened the connection, as they come in.
    pub original: ConnectionTuple,
    /// The packets of the end that answers, as they come in.
    pub reply: ConnectionTuple,
    id: ConnectionId,
}

/// The addresses and ports of one direction's packets, before any address translation. So the
/// source is the host that really sent them.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct ConnectionTuple {
    /// The address of the sender.
    pub source: IpAddr,
    /// The address that the sender uses for the other end.
    pub destination: IpAddr,
    /// The transport protocol's number.
    pub protocol: u8,
    /// 0 if the protocol has no ports.
    pub source_port: u16,
    /// 0 if the protocol has no ports. In [`Connection::original`] it is the published port.
    pub destination_port: u16,
}

/// The identity of a connection, in the kernel's own bytes. The number tells a connection from a
/// later one of the same addresses and ports.
#[derive(Clone, Debug, PartialEq, Eq)]
struct ConnectionId {
    original: Vec<u8>,
    number: Option<u32>,
    zone: Option<u16>,
}

/// A connection that may have been opened while the kernel tracked none.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct OpenConnection {
    /// The tuple of the first packet.
    pub original: ConnectionTuple,
    /// How far the connection is from its end.
    pub phase: ConnectionPhase,
}

/// How far a connection is from its end.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum ConnectionPhase {
    /// Both ends may send.
    Established,
    /// One end, or both, will send nothing more.
    Closing,
}

/// Timeouts of a TCP connection that is established, of one that is closing, and of UDP packets in
/// both directions: the kernel's defaults. From the next packet on, the kernel uses its own.
const ESTABLISHED_SECONDS: u32 = 5 * 24 * 60 * 60;
const CLOSING_SECONDS: u32 = 120;
const UDP_SECONDS: u32 = 120;

impl Nft {
    /// Returns the tracked connections that `wanted` is true of, in no order. Returns none if nothing
    /// is tracked, or if the kernel has no `nf_conntrack_netlink`.
    ///
    /// The kernel lists all connections: 0.7 µs and 190 bytes each, and 4 ms for a table with room
    /// for 262,144 (measured, Linux 6.18). So ask once for many peers.
    ///
    /// # Errors
    /// [`Error::Permission`], or the socket's.
    pub fn connections(
        &mut self,
        mut wanted: impl FnMut(&Connection) -> bool,
    ) -> Result<Vec<Connection>, Error> {
        let mut found = Vec::new();
        let listed = self.ask(Request::connections(), conntrack(IPCTNL_MSG_CT_NEW), |attrs| {
            found.extend(Some(Connection::decode(attrs)?).filter(&mut wanted));
            Ok(())
        });
        match listed {
            // EINVAL: no module answers.
            Err(Error::NoNftables(_)) => Ok(Vec::new()),
            listed => listed.map(|()| found),
        }
    }

    /// Has the kernel forget the connections that `wanted` is true of, and returns their number. A
    /// connection that ends meanwhile does not count.
    ///
    /// To the kernel their next packet begins another connection. So ban a peer before its
    /// connections are forgotten. A flowtable forwards a connection's packets past every rule,
    /// bans included, until the connection is forgotten (measured, Linux 6.1 and 6.12).
    ///
    /// # Errors
    /// As [`Nft::connections`]; some connections may be forgotten then.
    pub fn forget_connections(
        &mut self,
        wanted: impl FnMut(&Connection) -> bool,
    ) -> Result<usize, Error> {
        let mut forgotten = 0;
        for part in self.connections(wanted)?.chunks(MAX_REQUESTS_PER_SEND) {
            let mut answers = 0;
            self.channel.ask_each(part.iter().map(Connection::forget), |_, reply| {
                let Some(outcome) = reply.outcome()? else { return Ok(()) };
                answers += 1;
                match outcome.errno {
                    0 => forgotten += 1,
                    errno::ENOENT => {}
                    errno::EPERM => return Err(Error::Permission),
                    errno => return Err(io::Error::from_raw_os_error(errno).into()),
                }
                Ok(())
            })?;
            if answers < part.len() {
                return Err(Error::AnswerLost);
            }
        }
        Ok(forgotten)
    }

    /// Has the kernel track connections that were opened while it tracked none, and returns the
    /// number of those that it did not know. The next packet of either end then belongs to the
    /// connection, and does not begin another one. A connection that the kernel knows, in either
    /// direction and with whatever address translation, stays as it is.
    ///
    /// # Errors
    /// [`Error::Permission`]; [`Error::Io`] if the kernel cannot track connections, or some of these:
    /// then the others are tracked.
    pub fn track_connections(&mut self, open: &[OpenConnection]) -> Result<usize, Error> {
        let (mut tracked, mut refused) = (0, None);
        for part in open.chunks(MAX_REQUESTS_PER_SEND) {
            let last = part.len().saturating_sub(1);
            let requests = part.iter().enumerate().map(|(index, connection)| {
                let request = connection.track();
                if index == last { request } else { request.without_ack() }
            });
            let (mut not_new, mut is_done) = (0, false);
            self.channel.ask_each(requests, |index, reply| {
                let Some(outcome) = reply.outcome()? else { return Ok(()) };
                is_done |= index == last;
                match outcome.errno {
                    0 => {}
                    errno::EEXIST => not_new += 1,
                    errno::EPERM => return Err(Error::Permission),
                    // No module answers.
                    errno::EINVAL => return Err(Error::Io(ErrorKind::Unsupported.into())),
                    errno => {
                        refused = Some(errno);
                        not_new += 1;
                    }
                }
                Ok(())
            })?;
            if !is_done {
                return Err(Error::AnswerLost);
            }
            tracked += part.len() - not_new;
        }
        match refused {
            Some(errno) => Err(io::Error::from_raw_os_error(errno).into()),
            None => Ok(tracked),
        }
    }
}

impl OpenConnection {
    fn track(&self) -> Request {
        let OpenConnection { original, phase } = self;
        let mut body = Writer::default();
        body.nest(CTA_TUPLE_ORIG, |out| original.encode(out));
        body.nest(CTA_TUPLE_REPLY, |out| original.reversed().encode(out));
        body.u32(CTA_STATUS, IPS_SEEN_REPLY | IPS_ASSURED | IPS_CONFIRMED);
        if original.protocol != protocol::TCP {
            body.u32(CTA_TIMEOUT, UDP_SECONDS);
            return Request::connection(IPCTNL_MSG_CT_NEW, original.family(), body);
        }
        // The window scale is not known, so a window would be taken for a smaller one. A connection
        // that is picked up by its packets is judged in the same way (`tcp_new` of the kernel).
        let (seconds, state, flags) = match phase {
            ConnectionPhase::Established => {
                (ESTABLISHED_SECONDS, TCP_CONNTRACK_ESTABLISHED, IP_CT_TCP_FLAG_BE_LIBERAL)
            }
            // Data and the last FIN pass, and a SYN begins another connection.
            ConnectionPhase::Closing => (
                CLOSING_SECONDS,
                TCP_CONNTRACK_TIME_WAIT,
                IP_CT_TCP_FLAG_BE_LIBERAL | IP_CT_TCP_FLAG_CLOSE_INIT,
            ),
        };
        body.u32(CTA_TIMEOUT, seconds);
        body.nest(CTA_PROTOINFO, |out| {
            out.nest(CTA_PROTOINFO_TCP, |out| {
                out.u8(CTA_PROTOINFO_TCP_STATE, state);
                // `struct nf_ct_tcp_flags`: the flags, and which of them are meant.
                out.bytes(CTA_PROTOINFO_TCP_FLAGS_ORIGINAL, &[flags, flags]);
                out.bytes(CTA_PROTOINFO_TCP_FLAGS_REPLY, &[flags, flags]);
            });
        });
        Request::connection(IPCTNL_MSG_CT_NEW, original.family(), body)
    }
}

impl Connection {
    /// Returns the addresses of both ends: the one that opened the connection, and the one that
    /// answers. A ban of either cuts the connection.
    #[must_use]
    pub fn senders(&self) -> [IpAddr; 2] {
        [self.original.source, self.reply.source]
    }

    fn decode(attrs: Attrs<'_>) -> Result<Connection, DecodeError> {
        let (mut original, mut reply) = (None, None);
        let (mut number, mut zone) = (None, None);
        for attr in attrs {
            let attr = attr?;
            match attr.kind {
                CTA_TUPLE_ORIG => {
                    original = Some((ConnectionTuple::decode(attr.nested())?, attr.value));
                }
                CTA_TUPLE_REPLY => reply = Some(ConnectionTuple::decode(attr.nested())?),
                CTA_ID => number = Some(attr.u32()?),
                CTA_ZONE => zone = Some(attr.u16()?),
                _ => {}
            }
        }
        let missing = |attribute| DecodeError::Missing { object: "connection", attribute };
        let (original, bytes) = original.ok_or(missing("original direction"))?;
        let reply = reply.ok_or(missing("reply direction"))?;
        let id = ConnectionId { original: bytes.to_vec(), number, zone };
        Ok(Connection { original, reply, id })
    }

    fn forget(&self) -> Request {
        let ConnectionId { original, number, zone } = &self.id;
        let mut body = Writer::default();
        body.nest(CTA_TUPLE_ORIG, |out| out.raw(original));
        if let Some(number) = number {
            body.u32(CTA_ID, *number);
        }
        if let Some(zone) = zone {
            body.u16(CTA_ZONE, *zone);
        }
        Request::connection(IPCTNL_MSG_CT_DELETE, self.original.family(), body)
    }
}

impl ConnectionTuple {
    /// Returns the tuple of the answers, where no address is translated.
    #[must_use]
    pub fn reversed(&self) -> ConnectionTuple {
        ConnectionTuple {
            source: self.destination,
            destination: self.source,
            source_port: self.destination_port,
            destination_port: self.source_port,
            protocol: self.protocol,
        }
    }

    fn family(&self) -> u8 {
        IpVersion::of(self.source).family()
    }

    fn encode(&self, out: &mut Writer) {
        out.nest(CTA_TUPLE_IP, |out| match (self.source, self.destination) {
            (IpAddr::V4(source), IpAddr::V4(destination)) => {
                out.bytes(CTA_IP_V4_SRC, &source.octets());
                out.bytes(CTA_IP_V4_DST, &destination.octets());
            }
            (source, destination) => {
                out.bytes(CTA_IP_V6_SRC, &v6(source).octets());
                out.bytes(CTA_IP_V6_DST, &v6(destination).octets());
            }
        });
        out.nest(CTA_TUPLE_PROTO, |out| {
            out.u8(CTA_PROTO_NUM, self.protocol);
            out.u16(CTA_PROTO_SRC_PORT, self.source_port);
            out.u16(CTA_PROTO_DST_PORT, self.destination_port);
        });
    }

    fn decode(attrs: Attrs<'_>) -> Result<ConnectionTuple, DecodeError> {
        let (mut source, mut destination) = (None, None);
        let (mut protocol, mut source_port, mut destination_port) = (None, 0, 0);
        for attr in attrs {
            let attr = attr?;
            match attr.kind {
                CTA_TUPLE_IP => {
                    for part in attr.nested() {
                        let part = part?;
                        match part.kind {
                            CTA_IP_V4_SRC | CTA_IP_V6_SRC => source = Some(address(part)?),
                            CTA_IP_V4_DST | CTA_IP_V6_DST => destination = Some(address(part)?),
                            _ => {}
                        }
                    }
                }
                CTA_TUPLE_PROTO => {
                    for part in attr.nested() {
                        let part = part?;
                        match part.kind {
                            CTA_PROTO_NUM => protocol = Some(part.u8()?),
                            CTA_PROTO_SRC_PORT => source_port = part.u16()?,
                            CTA_PROTO_DST_PORT => destination_port = part.u16()?,
                            _ => {}
                        }
                    }
                }
                _ => {}
            }
        }
        let missing = |attribute| DecodeError::Missing { object: "connection", attribute };
        Ok(ConnectionTuple {
            source: source.ok_or(missing("source address"))?,
            destination: destination.ok_or(missing("destination address"))?,
            protocol: protocol.ok_or(missing("protocol"))?,
            source_port,
            destination_port,
        })
    }
}

fn address(attr: Attr<'_>) -> Result<IpAddr, DecodeError> {
    match attr.kind {
        CTA_IP_V4_SRC | CTA_IP_V4_DST => attr.u32().map(|bits| Ipv4Addr::from_bits(bits).into()),
        _ => attr.u128().map(|bits| Ipv6Addr::from_bits(bits).into()),
    }
}

fn v6(address: IpAddr) -> Ipv6Addr {
    match address {
        IpAddr::V4(v4) => v4.to_ipv6_mapped(),
        IpAddr::V6(v6) => v6,
    }
}
