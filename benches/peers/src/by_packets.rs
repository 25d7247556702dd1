//! `netlink-packet-netfilter`: messages as Rust's types, sent by its sister crate.

use std::net::Ipv4Addr;

use netlink_packet_core::{
    NLM_F_ACK, NLM_F_CREATE, NLM_F_REQUEST, NetlinkHeader, NetlinkMessage, NetlinkPayload,
};
use netlink_packet_netfilter::nftables::{
    DataAttribute, ListAttribute, NfTablesMessage, SetElementAttribute, SetElementList,
    SetElementMessage,
};
use netlink_packet_netfilter::none::ControlMessage;
use netlink_packet_netfilter::{
    NetfilterHeader, NetfilterMessage, NetfilterMessageInner, NetfilterProtoFamily,
};
use netlink_sys::Socket;
use netlink_sys::protocols::NETLINK_NETFILTER;

use crate::{Add, Result, TIMED, TIMEOUT};

const SUBSYSTEM: u16 = 10;

/// The elements of a message. With more, the length of their attribute overflows.
const IN_A_MESSAGE: usize = 65_000 / TIMED;

pub(crate) fn open() -> Result<Add> {
    let mut socket = Socket::new(NETLINK_NETFILTER)?;
    socket.bind_auto()?;
    let mut buffer = vec![0; 128 * 1024];
    Ok(Box::new(move |addresses| {
        socket.send(&transaction(addresses)?, 0)?;
        let len = socket.recv(&mut &mut buffer[..], 0)?;
        // The requested acknowledgement, or the first error.
        let answer = buffer.get(..len).ok_or("a longer answer than the buffer")?;
        match NetlinkMessage::<NetfilterMessage>::deserialize(answer)?.payload {
            NetlinkPayload::Error(error) if error.code.is_none() => Ok(()),
            NetlinkPayload::Error(error) => Err(error.to_io().into()),
            other => Err(format!("{other:?} is no acknowledgement").into()),
        }
    }))
}

fn transaction(addresses: &[Ipv4Addr]) -> Result<Vec<u8>> {
    let mut bytes = Vec::new();
    write(&mut bytes, 0, 0, ControlMessage::BatchBegin);
    let parts = addresses.chunks(IN_A_MESSAGE);
    let last = u32::try_from(parts.len())?;
    for (part, number) in parts.zip(1..) {
        let flags = if number == last { NLM_F_CREATE | NLM_F_ACK } else { NLM_F_CREATE };
        write(&mut bytes, number, flags, NfTablesMessage::NewSetElement(elements(part)));
    }
    write(&mut bytes, last + 1, 0, ControlMessage::BatchEnd);
    Ok(bytes)
}

fn write(bytes: &mut Vec<u8>, number: u32, flags: u16, inner: impl Into<NetfilterMessageInner>) {
    let inner = inner.into();
    let (family, resource) = match inner {
        NetfilterMessageInner::None(_) => (NetfilterProtoFamily::Unspec, SUBSYSTEM),
        _ => (NetfilterProtoFamily::Inet, 0),
    };
    let message = NetfilterMessage::new(NetfilterHeader::new(family, 0, resource), inner);
    let mut header = NetlinkHeader::default();
    header.flags = NLM_F_REQUEST | flags;
    header.sequence_number = number;
    let mut message = NetlinkMessage::new(header, NetlinkPayload::from(message));
    message.finalize();
    let start = bytes.len();
    bytes.resize(start + message.buffer_len(), 0);
    message.serialize(&mut bytes[start..]);
}

fn elements(addresses: &[Ipv4Addr]) -> SetElementMessage {
    let element = |address: &Ipv4Addr| {
        ListAttribute::Element(vec![
            SetElementAttribute::Key(DataAttribute::Value(address.octets().to_vec())),
            SetElementAttribute::Timeout(TIMEOUT),
        ])
    };
    SetElementMessage {
        attributes: vec![
            SetElementList::Table("peers".to_owned()),
            SetElementList::Set("b".to_owned()),
            SetElementList::Elements(addresses.iter().map(element).collect()),
        ],
    }
}
