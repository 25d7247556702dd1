//! Raw packets, which an ordinary socket would not send.
//!
//! ```
//! use nfguard_lab::packet;
//! let (from, to) = ([192, 0, 2, 1].into(), [198, 51, 100, 2].into());
//! let xmas = packet::tcp(from, to, 40_000, 22, packet::FIN | packet::PSH | packet::URG);
//! let bytes = packet::ip(from, to, 6, 64, &xmas);
//! assert_eq!(packet::destination(&bytes), Some(to));
//! ```

use std::net::IpAddr;

/// TCP flag.
pub const FIN: u8 = 1;
/// TCP flag.
pub const SYN: u8 = 2;
/// TCP flag.
pub const RST: u8 = 4;
/// TCP flag.
pub const PSH: u8 = 8;
/// TCP flag.
pub const ACK: u8 = 16;
/// TCP flag.
pub const URG: u8 = 32;

/// Returns an IPv4 or IPv6 packet without options or extension headers. In
/// IPv6, `protocol` is the next header. In IPv4, `hop_limit` is the time to
/// live.
///
/// # Panics
/// If the addresses have different IP versions, or the payload is longer than a
/// packet can be.
pub fn ip(from: IpAddr, to: IpAddr, protocol: u8, hop_limit: u8, payload: &[u8]) -> Vec<u8> {
    let mut bytes = match (from, to) {
        (IpAddr::V4(from), IpAddr::V4(to)) => {
            let length = length_field(20 + payload.len());
            let mut header = vec![0x45, 0, length[0], length[1], 0, 0, 0, 0, hop_limit, protocol];
            header.extend([0, 0]);
            header.extend(from.octets());
            header.extend(to.octets());
            let sum = checksum(&[&header]);
            header[10..12].copy_from_slice(&sum);
            header
        }
        (IpAddr::V6(from), IpAddr::V6(to)) => {
            let length = length_field(payload.len());
            let mut header = vec![0x60, 0, 0, 0, length[0], length[1], protocol, hop_limit];
            header.extend(from.octets());
            header.extend(to.octets());
            header
        }
        _ => panic!("{from} and {to} are of two families"),
    };
    bytes.extend(payload);
    bytes
}

/// Returns a TCP segment with these flags and no data, for [`ip`] with
/// protocol 6. The checksum covers the addresses.
pub fn tcp(from: IpAddr, to: IpAddr, from_port: u16, to_port: u16, flags: u8) -> Vec<u8> {
    let mut segment = [from_port.to_be_bytes(), to_port.to_be_bytes()].concat();
    segment.extend([0, 0, 0, 1, 0, 0, 0, 0, 5 << 4, flags, 0xff, 0xff, 0, 0, 0, 0]);
    with_checksum(segment, 16, &pseudo_header(from, to, 6, 20))
}

/// Returns a UDP datagram for [`ip`] with protocol 17. The checksum covers the
/// addresses.
///
/// # Panics
/// If the data is longer than a datagram can be.
pub fn udp(from: IpAddr, to: IpAddr, from_port: u16, to_port: u16, data: &[u8]) -> Vec<u8> {
    let length = 8 + data.len();
    let mut datagram =
        [from_port.to_be_bytes(), to_port.to_be_bytes(), length_field(length), [0, 0]].concat();
    datagram.extend(data);
    with_checksum(datagram, 6, &pseudo_header(from, to, 17, length))
}

/// Returns an ICMP message for [`ip`] with protocol 1. `body` follows the
/// checksum.
pub fn icmp(kind: u8, code: u8, body: &[u8]) -> Vec<u8> {
    with_checksum([&[kind, code, 0, 0], body].concat(), 2, &[])
}

/// Returns an ICMPv6 message for [`ip`] with protocol 58. `body` follows the
/// checksum, which covers the addresses.
pub fn icmpv6(from: IpAddr, to: IpAddr, kind: u8, code: u8, body: &[u8]) -> Vec<u8> {
    let message = [&[kind, code, 0, 0], body].concat();
    let pseudo = pseudo_header(from, to, 58, message.len());
    with_checksum(message, 2, &pseudo)
}

/// Returns the source address of an IP packet, or `None` for other bytes.
pub fn source(packet: &[u8]) -> Option<IpAddr> {
    address(packet, 12, 8)
}

/// Returns the destination address of an IP packet, or `None` for other bytes.
pub fn destination(packet: &[u8]) -> Option<IpAddr> {
    address(packet, 16, 24)
}

fn address(packet: &[u8], in_v4: usize, in_v6: usize) -> Option<IpAddr> {
    match packet.first()? >> 4 {
        4 => Some(packet.get(in_v4..)?.first_chunk::<4>().copied()?.into()),
        6 => Some(packet.get(in_v6..)?.first_chunk::<16>().copied()?.into()),
        _ => None,
    }
}

fn length_field(length: usize) -> [u8; 2] {
    u16::try_from(length).expect("a packet is at most 65535 bytes long").to_be_bytes()
}

fn pseudo_header(from: IpAddr, to: IpAddr, protocol: u8, length: usize) -> Vec<u8> {
    let mut header = Vec::with_capacity(40);
    for address in [from, to] {
        match address {
            IpAddr::V4(address) => header.extend(address.octets()),
            IpAddr::V6(address) => header.extend(address.octets()),
        }
    }
    header.extend([0, protocol]);
    header.extend(length_field(length));
    header
}

fn with_checksum(mut message: Vec<u8>, at: usize, pseudo_header: &[u8]) -> Vec<u8> {
    let sum = checksum(&[pseudo_header, &message]);
    message[at..at + 2].copy_from_slice(&sum);
    message
}

/// Returns the Internet checksum over parts. All but the last have an even
/// length.
fn checksum(parts: &[&[u8]]) -> [u8; 2] {
    let mut sum: u32 = 0;
    for pair in parts.iter().flat_map(|part| part.chunks(2)) {
        let low = pair.get(1).copied().unwrap_or(0);
        sum += u32::from(u16::from_be_bytes([pair[0], low]));
    }
    while sum > 0xffff {
        sum = (sum & 0xffff) + (sum >> 16);
    }
    // The sum now fits sixteen bits.
    (!(sum as u16)).to_be_bytes()
}
