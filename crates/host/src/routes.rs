//! The gateways of all routes, over rtnetlink.
//!
//! `/proc/net/route` has one table and one next hop of each route. Of the kernel's answer only what
//! names a gateway is read: a router has a million routes, and an attribute that this library never
//! heard of is no reason not to ban.

use std::collections::BTreeSet;
use std::io;
use std::iter;
use std::net::IpAddr;
use std::os::fd::{AsRawFd as _, OwnedFd};

use netlink_packet_core::{
    DecodeError, NLM_F_DUMP, NLM_F_REQUEST, NetlinkBuffer, NetlinkDeserializable, NetlinkHeader,
    NetlinkMessage, NetlinkPayload, NetlinkSerializable, NlasIterator,
};
use nix::libc;
use nix::sys::socket::{
    AddressFamily, MsgFlags, SockFlag, SockProtocol, SockType, recv, send, socket,
};

/// As `linux/rtnetlink.h` has it; libc knows it only beside glibc.
const RTA_VIA: u16 = 18;

/// What is asked for; each with no family named, which means all.
const QUESTIONS: [Question; 2] = [
    Question { kind: libc::RTM_GETROUTE, header: RTMSG },
    // Routes may name their next hops by number only (net.ipv4.nexthop_compat_mode = 0).
    Question { kind: RTM_GETNEXTHOP, header: NHMSG },
];

// linux/rtnetlink.h, linux/nexthop.h
const RTM_NEWNEXTHOP: u16 = 104;
const RTM_GETNEXTHOP: u16 = 106;
const NHA_GATEWAY: u16 = 6;
const RTMSG: usize = 12;
const NHMSG: usize = 8;
const RTNEXTHOP: usize = 8;

/// The kernel fills the buffer up to 32 KiB.
const RECEIVE: usize = 64 * 1024;

/// Returns the gateways of this thread's network namespace, IPv4 and IPv6, of all routing tables.
pub(crate) fn gateways() -> io::Result<BTreeSet<IpAddr>> {
    let netlink = SockProtocol::NetlinkRoute;
    let socket = socket(AddressFamily::Netlink, SockType::Raw, SockFlag::SOCK_CLOEXEC, netlink)?;
    let mut found = BTreeSet::new();
    for question in QUESTIONS {
        ask(&socket, question, &mut found)?;
    }
    Ok(found)
}

/// One dump. Routes that change meanwhile may be missed: a router's never stand still.
fn ask(socket: &OwnedFd, question: Question, found: &mut BTreeSet<IpAddr>) -> io::Result<()> {
    let mut header = NetlinkHeader::default();
    header.flags = NLM_F_REQUEST | NLM_F_DUMP;
    let mut message = NetlinkMessage::new(header, NetlinkPayload::InnerMessage(question));
    message.finalize();
    let mut request = vec![0; message.buffer_len()];
    message.serialize(&mut request);
    send(socket.as_raw_fd(), &request, MsgFlags::empty())?;
    let mut buffer = vec![0; RECEIVE];
    loop {
        let len = recv(socket.as_raw_fd(), &mut buffer, MsgFlags::empty())?;
        for message in messages(buffer.get(..len).unwrap_or_default()) {
            match message.map_err(invalid)?.payload {
                NetlinkPayload::InnerMessage(Gateways(gateways)) => found.extend(gateways),
                NetlinkPayload::Done(done) if done.code == 0 => return Ok(()),
                NetlinkPayload::Done(done) => {
                    return Err(io::Error::from_raw_os_error(done.code.saturating_neg()));
                }
                NetlinkPayload::Error(error) => return Err(error.to_io()),
                _ => {}
            }
        }
    }
}

fn messages(
    mut bytes: &[u8],
) -> impl Iterator<Item = Result<NetlinkMessage<Gateways>, DecodeError>> {
    iter::from_fn(move || {
        let len =
            NetlinkBuffer::new_checked(bytes).map_or(bytes.len(), |one| one.length() as usize);
        let message = (!bytes.is_empty()).then(|| NetlinkMessage::deserialize(bytes));
        bytes = bytes.get(len.next_multiple_of(4)..).unwrap_or_default();
        message
    })
}

fn invalid(error: DecodeError) -> io::Error {
    io::Error::new(io::ErrorKind::InvalidData, error.to_string())
}

/// A message type whose header is all zero in a question.
#[derive(Clone, Copy)]
struct Question {
    kind: u16,
    header: usize,
}

impl NetlinkSerializable for Question {
    fn message_type(&self) -> u16 {
        self.kind
    }

    fn buffer_len(&self) -> usize {
        self.header
    }

    fn serialize(&self, buffer: &mut [u8]) {
        buffer.fill(0);
    }
}

/// Those that one route or next hop names.
#[derive(Debug, PartialEq, Eq)]
struct Gateways(Vec<IpAddr>);

impl NetlinkDeserializable for Gateways {
    type Error = DecodeError;

    fn deserialize(header: &NetlinkHeader, payload: &[u8]) -> Result<Gateways, DecodeError> {
        let mut gateways = Vec::new();
        let attributes = |header| payload.get(header..).unwrap_or_default();
        match header.message_type {
            libc::RTM_NEWROUTE => of_route(attributes(RTMSG), &mut gateways)?,
            RTM_NEWNEXTHOP => {
                for attribute in NlasIterator::new(attributes(NHMSG)) {
                    let attribute = attribute?;
                    if attribute.kind() == NHA_GATEWAY {
                        gateways.extend(address(attribute.value()));
                    }
                }
            }
            _ => {}
        }
        Ok(Gateways(gateways))
    }
}

fn of_route(attributes: &[u8], gateways: &mut Vec<IpAddr>) -> Result<(), DecodeError> {
    for attribute in NlasIterator::new(attributes) {
        let attribute = attribute?;
        let value = attribute.value();
        match attribute.kind() {
            libc::RTA_GATEWAY => gateways.extend(address(value)),
            // Of another family than the route's, which stands before it.
            RTA_VIA => gateways.extend(value.get(2..).and_then(address)),
            libc::RTA_MULTIPATH => {
                for attributes in next_hops(value) {
                    of_route(attributes, gateways)?;
                }
            }
            _ => {}
        }
    }
    Ok(())
}

/// The attributes of each `struct rtnexthop`, which begins with its length.
fn next_hops(mut bytes: &[u8]) -> impl Iterator<Item = &[u8]> {
    iter::from_fn(move || {
        let len = usize::from(u16::from_ne_bytes(*bytes.first_chunk()?));
        let attributes = bytes.get(RTNEXTHOP..len)?;
        bytes = bytes.get(len.next_multiple_of(4)..).unwrap_or_default();
        Some(attributes)
    })
}

fn address(bytes: &[u8]) -> Option<IpAddr> {
    let v4 = <[u8; 4]>::try_from(bytes).map(IpAddr::from);
    let address = v4.or_else(|_| <[u8; 16]>::try_from(bytes).map(IpAddr::from)).ok()?;
    Some(address).filter(|address| !address.is_unspecified())
}

#[cfg(test)]
mod tests {
    use proptest::collection::vec;
    use proptest::prelude::{any, proptest};

    use super::*;

    proptest! {
        #[test]
        fn no_bytes_make_the_reader_panic_or_read_for_ever(
            route in any::<bool>(),
            // Small numbers, as in lengths and types.
            mut bytes in vec(0..24u8, 16..200),
        ) {
            let kind = if route { libc::RTM_NEWROUTE } else { RTM_NEWNEXTHOP };
            for (at, byte) in kind.to_ne_bytes().into_iter().enumerate() {
                bytes[4 + at] = byte;
            }
            messages(&bytes).for_each(drop);
            of_route(&bytes, &mut Vec::new()).ok();
            next_hops(&bytes).for_each(drop);
        }
    }
}
