//! Packets that rules have logged to an NFLOG group (nfnetlink_log).

use std::time::Duration;

use crate::error::DecodeError;
use crate::model::Hook;
use crate::wire::attr::Attrs;
use crate::wire::reply::Replies;
use crate::wire::uapi::*;

/// A packet that a rule has logged.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct LoggedPacket {
    /// Where the rule logs to.
    pub group: u16,
    /// One more than that of the group's packet before it, unless some were lost in between.
    pub number: Option<u32>,
    /// Since 1970, where the kernel has noted it.
    pub time: Option<Duration>,
    /// Where the rule stands.
    pub hook: Option<Hook>,
    /// The number of the interface that it came by.
    pub in_interface: Option<u32>,
    /// The number of the interface that it leaves by.
    pub out_interface: Option<u32>,
    /// What the rule calls it.
    pub prefix: String,
    /// From the IP header on, and not all of it.
    pub packet: Vec<u8>,
}

impl LoggedPacket {
    /// Reads messages of the kernel; those that tell of something else are left out.
    ///
    /// # Errors
    /// They are not what the kernel would send.
    pub fn read(bytes: &[u8]) -> Result<Vec<LoggedPacket>, DecodeError> {
        let mut all = Vec::new();
        for reply in Replies(bytes) {
            let reply = reply?;
            if let Some(attrs) = reply.attrs(NFNL_SUBSYS_ULOG << 8 | NFULNL_MSG_PACKET) {
                // The group stands in the head, behind family and version.
                let group = reply.body.get(2..).and_then(|rest| rest.first_chunk());
                let group = group.copied().map(u16::from_be_bytes).unwrap_or_default();
                all.push(LoggedPacket::decode(group, attrs)?);
            }
        }
        Ok(all)
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
                // Two bytes of the protocol before it.
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
