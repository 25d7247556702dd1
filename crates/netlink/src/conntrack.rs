//! Tracked connections: list them, make the kernel forget them, or know one (ctnetlink).

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

use crate::error::{DecodeError, Error};
use crate::nft::Nft;
use crate::symbols::{NFPROTO_IPV4, NFPROTO_IPV6};
use crate::wire::attr::{Attr, Attrs, Writer};
use crate::wire::channel::MAX_REQUESTS_PER_SEND;
use crate::wire::message::{Request, conntrack, errno};
use crate::wire::uapi::*;

/// A connection that the kernel tracks, as it is now.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Connection {
    /// The packets of the one who opened it, as they come in.
    pub original: ConnectionTuple,
    /// The packets of the one who answers, as they come in.
    pub reply: ConnectionTuple,
    name: Name,
}

/// The packets of one direction, before any address translation: where they come from is who
/// really sent them.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct ConnectionTuple {
    /// Who sends them.
    pub source: IpAddr,
    /// Where they are sent to.
    pub destination: IpAddr,
    /// The transport protocol's number.
    pub protocol: u8,
    /// 0 if the protocol has no ports.
    pub source_port: u16,
    /// 0 if the protocol has no ports. Of [`Connection::original`] it is the published port.
    pub destination_port: u16,
}

/// What the kernel knows a connection by, in its own words. With the number no later connection of
/// the same addresses and ports is taken for it.
#[derive(Clone, Debug, PartialEq, Eq)]
struct Name {
    original: Vec<u8>,
    id: Option<u32>,
    zone: Option<u16>,
}

/// How long a connection that is open may be silent: the kernel's own five days.
const OPEN: u32 = 5 * 24 * 60 * 60;

impl Nft {
    /// The tracked connections that are wanted, in no order. None where nothing is tracked, or the
    /// kernel does not tell because it has no `nf_conntrack_netlink`.
    ///
    /// The kernel tells of all, wanted or not: 0.7 µs and 190 bytes each, beside 4 ms for a table
    /// with room for 262,144 (measured, Linux 6.18). So ask once for many peers.
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
            // EINVAL: nobody is there to answer.
            Err(Error::NoNftables(_)) => Ok(Vec::new()),
            listed => listed.map(|()| found),
        }
    }

    /// Has the kernel forget the connections that are wanted, and gives their number. One that
    /// ends meanwhile does not count.
    ///
    /// To the kernel their next packet begins another connection; so ban first whoever is to be
    /// kept out. What a flowtable forwards passes by every rule, bans too, until it is forgotten
    /// (measured, Linux 6.1 and 6.12).
    ///
    /// # Errors
    /// As [`Nft::connections`]; some may be forgotten then.
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
                    errno => return Err(std::io::Error::from_raw_os_error(errno).into()),
                }
                Ok(())
            })?;
            if answers < part.len() {
                return Err(Error::Unknown);
            }
        }
        Ok(forgotten)
    }

    /// Has the kernel track a TCP connection that was opened while it tracked none, as an open one
    /// whose first packet came as `original` says: so that the next packet, of either side, belongs
    /// to it, and begins none of its own. `false` if it is tracked already, or nothing can be.
    ///
    /// # Errors
    /// [`Error::Permission`], or the socket's.
    pub fn track_connection(&mut self, original: &ConnectionTuple) -> Result<bool, Error> {
        let ConnectionTuple { source, destination, source_port, destination_port, .. } = *original;
        let reply = ConnectionTuple {
            source: destination,
            destination: source,
            source_port: destination_port,
            destination_port: source_port,
            ..*original
        };
        let mut body = Writer::default();
        body.nest(CTA_TUPLE_ORIG, |out| original.encode(out));
        body.nest(CTA_TUPLE_REPLY, |out| reply.encode(out));
        body.u32(CTA_STATUS, IPS_SEEN_REPLY | IPS_ASSURED | IPS_CONFIRMED);
        body.u32(CTA_TIMEOUT, OPEN);
        body.nest(CTA_PROTOINFO, |out| {
            out.nest(CTA_PROTOINFO_TCP, |out| {
                out.u8(CTA_PROTOINFO_TCP_STATE, TCP_CONNTRACK_ESTABLISHED);
            });
        });
        let request = Request::connection(IPCTNL_MSG_CT_NEW, original.family(), body);
        let mut is_new = None;
        self.channel.ask_each([request], |_, reply| {
            let Some(outcome) = reply.outcome()? else { return Ok(()) };
            is_new = match outcome.errno {
                0 => Some(true),
                // EINVAL: nobody is there to answer.
                errno::EEXIST | errno::EINVAL => Some(false),
                errno::EPERM => return Err(Error::Permission),
                errno => return Err(std::io::Error::from_raw_os_error(errno).into()),
            };
            Ok(())
        })?;
        is_new.ok_or(Error::Unknown)
    }
}

impl Connection {
    /// Whose packets make it up: the one who opened it and the one who answers. A ban of either
    /// cuts it.
    #[must_use]
    pub fn senders(&self) -> [IpAddr; 2] {
        [self.original.source, self.reply.source]
    }

    fn decode(attrs: Attrs<'_>) -> Result<Connection, DecodeError> {
        let (mut original, mut reply) = (None, None);
        let (mut id, mut zone) = (None, None);
        for attr in attrs {
            let attr = attr?;
            match attr.kind {
                CTA_TUPLE_ORIG => {
                    original = Some((ConnectionTuple::decode(attr.nested())?, attr.value))
                }
                CTA_TUPLE_REPLY => reply = Some(ConnectionTuple::decode(attr.nested())?),
                CTA_ID => id = Some(attr.u32()?),
                CTA_ZONE => zone = Some(attr.u16()?),
                _ => {}
            }
        }
        let missing = |attribute| DecodeError::Missing { object: "connection", attribute };
        let (original, words) = original.ok_or(missing("original direction"))?;
        let reply = reply.ok_or(missing("reply direction"))?;
        let name = Name { original: words.to_vec(), id, zone };
        Ok(Connection { original, reply, name })
    }

    fn forget(&self) -> Request {
        let Name { original, id, zone } = &self.name;
        let mut body = Writer::default();
        body.nest(CTA_TUPLE_ORIG, |out| out.raw(original));
        if let Some(id) = id {
            body.u32(CTA_ID, *id);
        }
        if let Some(zone) = zone {
            body.u16(CTA_ZONE, *zone);
        }
        Request::connection(IPCTNL_MSG_CT_DELETE, self.original.family(), body)
    }
}

impl ConnectionTuple {
    fn family(&self) -> u8 {
        if self.source.is_ipv4() { NFPROTO_IPV4 } else { NFPROTO_IPV6 }
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
