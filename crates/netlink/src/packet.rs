//! The headers of an IP packet, as far as its bytes go.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

use crate::symbols::protocol;

/// The fields of an IP packet's headers. Port scanners send packets that no host would, so nothing
/// but the addresses has to be present or consistent.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ParsedPacket<'a> {
    /// The source address, which may be forged.
    pub source: IpAddr,
    /// The destination address.
    pub destination: IpAddr,
    /// The number of the protocol behind all IP headers.
    pub protocol: u8,
    /// The packet's length in bytes, headers included.
    pub length: u32,
    /// The fragment's offset in bytes; `None` for a whole packet.
    pub fragment: Option<u16>,
    /// Source and destination port, of TCP, UDP and SCTP.
    pub ports: Option<(u16, u16)>,
    /// The flags of TCP; the lowest bit is FIN.
    pub tcp_flags: Option<u8>,
    /// Type and code of ICMP and ICMPv6.
    pub icmp: Option<(u8, u8)>,
    /// The bytes behind the IP headers, as far as they were captured.
    pub payload: &'a [u8],
}

/// What stands behind the IP headers.
struct Behind<'a> {
    protocol: u8,
    fragment: Option<u16>,
    bytes: &'a [u8],
}

/// Numbers of IPv6 headers that have another header behind them (IANA "IPv6 Extension Header Types").
const HOP_BY_HOP: u8 = 0;
const ROUTING: u8 = 43;
const FRAGMENT: u8 = 44;
const AUTHENTICATION: u8 = 51;
const DESTINATION_OPTIONS: u8 = 60;
const MOBILITY: u8 = 135;
/// IANA "Assigned Internet Protocol Numbers".
const SCTP: u8 = 132;

impl<'a> ParsedPacket<'a> {
    /// Reads the first bytes of a packet; `None` without a whole header of IPv4 or IPv6.
    #[must_use]
    pub fn read(bytes: &'a [u8]) -> Option<ParsedPacket<'a>> {
        let (source, destination, length, behind) = match bytes.first()? >> 4 {
            4 => {
                let addresses = bytes.get(12..20)?.split_first_chunk::<4>()?;
                let (source, destination) = (addresses.0, addresses.1.first_chunk::<4>()?);
                let length = u32::from(number(bytes, 2)?);
                let [source, destination] = [*source, *destination].map(Ipv4Addr::from);
                (source.into(), destination.into(), length, Behind::v4(bytes)?)
            }
            6 => {
                let addresses = bytes.get(8..40)?.split_first_chunk::<16>()?;
                let (source, destination) = (addresses.0, addresses.1.first_chunk::<16>()?);
                let length = 40 + u32::from(number(bytes, 4)?);
                let [source, destination] = [*source, *destination].map(Ipv6Addr::from);
                (source.into(), destination.into(), length, Behind::v6(bytes)?)
            }
            _ => return None,
        };
        let Behind { protocol, fragment, bytes } = behind;
        let mut packet = ParsedPacket {
            source,
            destination,
            protocol,
            length,
            fragment,
            ports: None,
            tcp_flags: None,
            icmp: None,
            payload: bytes,
        };
        // Only the first fragment has the transport header.
        if fragment.is_none_or(|offset| offset == 0) {
            match protocol {
                protocol::TCP | protocol::UDP | SCTP => {
                    packet.ports = number(bytes, 0).zip(number(bytes, 2));
                    packet.tcp_flags = bytes.get(13).copied().filter(|_| protocol == protocol::TCP);
                }
                protocol::ICMP | protocol::ICMPV6 => {
                    packet.icmp = bytes.first_chunk().map(|[kind, code]| (*kind, *code));
                }
                _ => {}
            }
        }
        Some(packet)
    }

    /// Returns the options of the TCP header in nft's words, in their order. They tell one
    /// system's handshake from another's.
    #[must_use]
    pub fn tcp_options(&self) -> Option<String> {
        self.tcp_flags?;
        // Counted in words of four bytes.
        let end = usize::from(self.payload.get(12)? >> 4) * 4;
        let whole = self.payload.get(20..end);
        let mut rest = whole.or_else(|| self.payload.get(20..)).unwrap_or_default();
        let mut words = Vec::new();
        while let Some((kind, behind)) = rest.split_first() {
            let len = match kind {
                0 | 1 => 1,
                _ => usize::from(*behind.first().unwrap_or(&0)).max(2),
            };
            let Some((option, later)) = rest.split_at_checked(len) else { break };
            words.push(match (kind, option) {
                (0, _) => "eol".to_owned(),
                (1, _) => "nop".to_owned(),
                (2, [_, _, high, low]) => format!("maxseg {}", u16::from_be_bytes([*high, *low])),
                (3, [_, _, shift]) => format!("window {shift}"),
                (4, _) => "sack-perm".to_owned(),
                (8, _) => "timestamp".to_owned(),
                (kind, _) => format!("option {kind}"),
            });
            rest = if *kind == 0 { &[] } else { later };
        }
        Some(words.join(", "))
    }
}

impl<'a> Behind<'a> {
    fn v4(bytes: &'a [u8]) -> Option<Behind<'a>> {
        // Counted in words of four bytes.
        let header = usize::from(bytes.first()? & 0xf) * 4;
        // Two flags, of which the lower one announces more fragments, and the offset in eights.
        let field = number(bytes, 6)? & 0x3fff;
        let fragment = (field != 0).then_some((field & 0x1fff) << 3);
        let protocol = *bytes.get(9)?;
        Some(Behind { protocol, fragment, bytes: bytes.get(header..).unwrap_or_default() })
    }

    fn v6(bytes: &'a [u8]) -> Option<Behind<'a>> {
        let mut behind =
            Behind { protocol: *bytes.get(6)?, fragment: None, bytes: bytes.get(40..)? };
        // Each header has at least eight bytes, so the loop ends.
        while let Some(header) = behind.bytes.first_chunk::<8>() {
            let [next, len, high, low, ..] = *header;
            let len = match behind.protocol {
                HOP_BY_HOP | ROUTING | DESTINATION_OPTIONS | MOBILITY => usize::from(len) * 8 + 8,
                AUTHENTICATION => usize::from(len) * 4 + 8,
                FRAGMENT => {
                    behind.fragment = Some(u16::from_be_bytes([high, low]) & !7);
                    8
                }
                _ => break,
            };
            behind.protocol = next;
            behind.bytes = behind.bytes.get(len..).unwrap_or_default();
            // A later fragment has data here.
            if behind.fragment.is_some_and(|offset| offset > 0) {
                break;
            }
        }
        Some(behind)
    }
}

fn number(bytes: &[u8], at: usize) -> Option<u16> {
    bytes.get(at..)?.first_chunk().copied().map(u16::from_be_bytes)
}
