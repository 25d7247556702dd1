//! `neli`: netlink's headers and attributes; those of nftables are written here.

use std::io::Cursor;
use std::net::Ipv4Addr;

use neli::consts::nl::NlmF;
use neli::consts::socket::{Msg, NlFamily};
use neli::err::DeError;
use neli::genl::{AttrTypeBuilder, Nlattr, NlattrBuilder};
use neli::nl::{NlPayload, Nlmsghdr, NlmsghdrBuilder};
use neli::socket::NlSocket;
use neli::types::{Buffer, GenlBuffer, NlBuffer};
use neli::utils::Groups;
use neli::{FromBytesWithInput, Header, Size, ToBytes};

use crate::{Add, Result, TIMED, TIMEOUT};

const BATCH_BEGIN: u16 = 16;
const BATCH_END: u16 = 17;
const SUBSYSTEM: u16 = 10;
const NEW_ELEMENTS: u16 = SUBSYSTEM << 8 | 12;
const INET: u8 = 1;

const LIST_TABLE: u16 = 1;
const LIST_SET: u16 = 2;
const LIST_ELEMENTS: u16 = 3;
const ELEMENT: u16 = 1;
const KEY: u16 = 1;
const ELEMENT_TIMEOUT: u16 = 4;
const VALUE: u16 = 1;

/// The elements of a message. With more, the length of their attribute overflows.
const IN_A_MESSAGE: usize = 65_000 / TIMED;

/// `struct nfgenmsg` and its attributes.
#[derive(Debug, Size, ToBytes, FromBytesWithInput, Header)]
struct Netfilter {
    family: u8,
    version: u8,
    resource: u16,
    #[neli(input = "input.checked_sub(Self::header_size()).ok_or(DeError::InvalidInput(input))?")]
    attributes: GenlBuffer<u16, Buffer>,
}

type Message = Nlmsghdr<u16, Netfilter>;

pub(crate) fn open() -> Result<Add> {
    let socket = NlSocket::connect(NlFamily::Netfilter, None, Groups::empty())?;
    let mut buffer = vec![0; 128 * 1024];
    Ok(Box::new(move |addresses| {
        let (bytes, last) = transaction(addresses)?;
        socket.send(bytes, Msg::empty())?;
        loop {
            let (len, _) = socket.recv(&mut buffer, Msg::empty())?;
            let answer = buffer.get(..len).ok_or("a longer answer than the buffer")?;
            let answers: NlBuffer<u16, Netfilter> =
                NlBuffer::from_bytes_with_input(&mut Cursor::new(answer), len)?;
            for mut answer in answers {
                if let Some(error) = answer.get_err() {
                    return Err(error.to_string().into());
                }
                if *answer.nl_seq() == last {
                    return Ok(());
                }
            }
        }
    }))
}

/// Returns the bytes, and the sequence number of the acknowledged message.
fn transaction(addresses: &[Ipv4Addr]) -> Result<(Vec<u8>, u32)> {
    let mut messages: NlBuffer<u16, Netfilter> = NlBuffer::new();
    messages.push(message(BATCH_BEGIN, 0, NlmF::REQUEST, GenlBuffer::new())?);
    let parts = addresses.chunks(IN_A_MESSAGE);
    let last = u32::try_from(parts.len())?;
    for (part, number) in parts.zip(1..) {
        let mut flags = NlmF::REQUEST | NlmF::CREATE;
        if number == last {
            flags |= NlmF::ACK;
        }
        messages.push(message(NEW_ELEMENTS, number, flags, elements(part)?)?);
    }
    messages.push(message(BATCH_END, last + 1, NlmF::REQUEST, GenlBuffer::new())?);
    let mut bytes = Cursor::new(Vec::with_capacity(messages.padded_size()));
    messages.to_bytes(&mut bytes)?;
    Ok((bytes.into_inner(), last))
}

fn message(
    kind: u16,
    number: u32,
    flags: NlmF,
    attributes: GenlBuffer<u16, Buffer>,
) -> Result<Message> {
    let (family, resource) = if kind == NEW_ELEMENTS { (INET, 0) } else { (0, SUBSYSTEM.to_be()) };
    let payload = Netfilter { family, version: 0, resource, attributes };
    let message = NlmsghdrBuilder::default().nl_type(kind).nl_flags(flags).nl_seq(number);
    Ok(message.nl_payload(NlPayload::Payload(payload)).build()?)
}

fn elements(addresses: &[Ipv4Addr]) -> Result<GenlBuffer<u16, Buffer>> {
    let mut list = attribute(LIST_ELEMENTS, ())?;
    for address in addresses {
        let key = attribute(KEY, ())?.nest(&attribute(VALUE, address.octets())?)?;
        let timeout = attribute(ELEMENT_TIMEOUT, TIMEOUT.to_be_bytes())?;
        list = list.nest(&attribute(ELEMENT, ())?.nest(&key)?.nest(&timeout)?)?;
    }
    let (table, set) = (attribute(LIST_TABLE, "peers")?, attribute(LIST_SET, "b")?);
    Ok([table, set, list].into_iter().collect())
}

fn attribute(kind: u16, payload: impl Size + ToBytes) -> Result<Nlattr<u16, Buffer>> {
    let kind = AttrTypeBuilder::default().nla_type(kind).build()?;
    Ok(NlattrBuilder::default().nla_type(kind).nla_payload(payload).build()?)
}
