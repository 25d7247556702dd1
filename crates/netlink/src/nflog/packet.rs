//! A packet that a rule has logged, and how it is read.

use std::time::Duration;

use crate::error::DecodeError;
use crate::model::Hook;
use crate::wire::attr::Attrs;
use crate::wire::reply::Replies;
use crate::wire::uapi::*;

/// A packet that a rule has logged to an NFLOG group.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct LoggedPacket {
    /// The NFLOG group.
    pub group: u16,
    /// The packet's number in its group. A gap between two numbers means lost packets.
    pub number: Option<u32>,
    /// The time since 1970, if the kernel has noted it.
    pub time: Option<Duration>,
    /// The hook of the rule's chain.
    pub hook: Option<Hook>,
    /// The index of the interface that the packet came in by.
    pub in_interface: Option<u32>,
    /// The index of the interface that the packet leaves by.
    pub out_interface: Option<u32>,
    /// The rule's log prefix.
    pub prefix: String,
    /// The start of the packet, from its IP header on.
    pub packet: Vec<u8>,
}

impl LoggedPacket {
    /// Reads messages of the kernel. Messages that hold no packet are left out.
    ///
    /// # Errors
    /// The bytes are not what a kernel would send.
    pub fn read(bytes: &[u8]) -> Result<Vec<LoggedPacket>, DecodeError> {
        let mut packets = Vec::new();
        for reply in Replies(bytes) {
            let reply = reply?;
            if let Some(attrs) = reply.attrs(NFNL_SUBSYS_ULOG << 8 | NFULNL_MSG_PACKET) {
                // The group stands in the head, behind family and version.
                let group = reply.body.get(2..).and_then(|rest| rest.first_chunk());
                let group = group.copied().map(u16::from_be_bytes).unwrap_or_default();
                packets.push(LoggedPacket::decode(group, attrs)?);
            }
        }
        Ok(packets)
    }

    fn decode(group: u16, attrs: Attrs<'_>) -> Result<LoggedPacket, DecodeError> {
        let mut logged = LoggedPacket {
            group,
            number: None,
            time: None,
            hook: None,
            in_interface: None,
            out_interface: None,
            prefix: String::new(),
            packet: Vec::new(),
        };
        for attr in attrs {
            let attr = attr?;
            match attr.kind {
                // Behind two bytes of the protocol.
                NFULA_PACKET_HDR => {
                    logged.hook =
                        attr.value.get(2).and_then(|hook| Hook::from_number(u32::from(*hook)));
                }
                NFULA_TIMESTAMP => {
                    let both = attr.u128()?;
                    let part = |bits: u128| u64::try_from(bits & u128::from(u64::MAX));
                    if let (Ok(seconds), Ok(micros)) = (part(both >> 64), part(both)) {
                        let micros = Duration::from_micros(micros);
                        logged.time = Duration::from_secs(seconds).checked_add(micros);
                    }
                }
                NFULA_IFINDEX_INDEV => logged.in_interface = Some(attr.u32()?),
                NFULA_IFINDEX_OUTDEV => logged.out_interface = Some(attr.u32()?),
                NFULA_PAYLOAD => logged.packet = attr.value.to_vec(),
                NFULA_PREFIX => logged.prefix = attr.string(),
                NFULA_SEQ => logged.number = Some(attr.u32()?),
                _ => {}
            }
        }
        Ok(logged)
    }
}
