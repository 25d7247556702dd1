//! The head of a netlink message, and requests: messages outside of a batch.

use crate::error::Error;
use crate::wire::attr::Writer;
use crate::wire::uapi::*;

/// `NFPROTO_INET`.
pub(crate) const INET: u8 = 1;
/// `NFNL_SUBSYS_NFTABLES`.
pub(crate) const SUBSYSTEM: u16 = 10;
/// `NLM_F_*` of `linux/netlink.h`.
pub(crate) const REQUEST: u16 = 0x1;
pub(crate) const ACK: u16 = 0x4;
const DUMP: u16 = 0x300;
pub(crate) const EXCL: u16 = 0x200;
pub(crate) const CREATE: u16 = 0x400;
pub(crate) const APPEND: u16 = 0x800;

/// Length of `struct nlmsghdr`, and of that with `struct nfgenmsg` behind it.
pub(crate) const HEADER_BYTES: usize = 16;
pub(crate) const PAYLOAD_OFFSET: usize = 20;
/// The offset of `nlmsg_flags` in the header.
pub(crate) const FLAGS_OFFSET: usize = 6;

/// The `errno`s that this crate tells apart. Their numbers are the same on every architecture that
/// servers have.
pub(crate) mod errno {
    pub(crate) const EPERM: i32 = 1;
    pub(crate) const ENOENT: i32 = 2;
    pub(crate) const EINTR: i32 = 4;
    pub(crate) const EBUSY: i32 = 16;
    pub(crate) const EEXIST: i32 = 17;
    pub(crate) const EINVAL: i32 = 22;
    pub(crate) const ERESTART: i32 = 85;
    pub(crate) const EOPNOTSUPP: i32 = 95;
}

/// Returns what stands before the attributes of a message of `bytes` bytes.
pub(crate) fn header(bytes: usize, kind: u16, flags: u16, seq: u32, head: [u8; 4]) -> [[u8; 4]; 5] {
    let len = u32::try_from(bytes).unwrap_or(u32::MAX);
    let ([a, b], [c, d]) = (kind.to_ne_bytes(), flags.to_ne_bytes());
    [len.to_ne_bytes(), [a, b, c, d], seq.to_ne_bytes(), [0; 4], head]
}

/// Appends a message whose attributes `fill` writes. Its length is put in afterwards.
pub(crate) fn message(out: &mut Writer, header: [[u8; 4]; 5], fill: impl FnOnce(&mut Writer)) {
    let start = out.len();
    out.raw(header.as_flattened());
    fill(out);
    let len = u32::try_from(out.len() - start).unwrap_or(u32::MAX);
    out.put(start, &len.to_ne_bytes());
}

/// Returns the type of an nf_tables message.
pub(crate) fn nft(message: u16) -> u16 {
    SUBSYSTEM << 8 | message
}

/// Returns the type of a message of connection tracking.
pub(crate) fn conntrack(message: u16) -> u16 {
    NFNL_SUBSYS_CTNETLINK << 8 | message
}

/// A message outside of a batch.
pub(crate) struct Request {
    /// Subsystem and message.
    kind: u16,
    flags: u16,
    /// `struct nfgenmsg`, or the first four bytes of another subsystem's fixed part.
    head: [u8; 4],
    body: Writer,
}

impl Request {
    /// Asks for one object of nf_tables.
    pub(crate) fn nft(kind: u16, fill: impl FnOnce(&mut Writer)) -> Request {
        let mut body = Writer::default();
        fill(&mut body);
        Request { kind: nft(kind), flags: REQUEST, head: [INET, 0, 0, 0], body }
    }

    /// Asks for all objects of a kind of nf_tables.
    pub(crate) fn nft_dump(kind: u16, fill: impl FnOnce(&mut Writer)) -> Request {
        let request = Request::nft(kind, fill);
        Request { flags: REQUEST | DUMP, ..request }
    }

    /// Asks for all objects of a kind, of any subsystem.
    pub(crate) fn dump(kind: u16, head: [u8; 4], body: Writer) -> Request {
        Request { kind, flags: REQUEST | DUMP, head, body }
    }

    /// Asks for one object, of any subsystem.
    pub(crate) fn one(kind: u16, head: [u8; 4], body: Writer) -> Request {
        Request { kind, flags: REQUEST, head, body }
    }

    /// Asks for all connections that are tracked.
    pub(crate) fn connections() -> Request {
        Request::dump(conntrack(IPCTNL_MSG_CT_GET), [0; 4], Writer::default())
    }

    /// Has the kernel forget or track a connection of this family, and acknowledge it.
    pub(crate) fn connection(kind: u16, family: u8, body: Writer) -> Request {
        let new = if kind == IPCTNL_MSG_CT_NEW { CREATE | EXCL } else { 0 };
        let flags = REQUEST | ACK | new;
        Request { kind: conntrack(kind), flags, head: [family, 0, 0, 0], body }
    }

    /// Has the kernel answer only if it refuses.
    pub(crate) fn without_ack(mut self) -> Request {
        self.flags &= !ACK;
        self
    }

    /// Has the kernel send the packets of an NFLOG group, and acknowledge it.
    pub(crate) fn log_group(kind: u16, [high, low]: [u8; 2], body: Writer) -> Request {
        Request { kind, flags: REQUEST | ACK, head: [0, 0, high, low], body }
    }

    pub(crate) fn is_dump(&self) -> bool {
        self.flags & DUMP == DUMP
    }

    /// Appends the request to the bytes to send.
    pub(crate) fn write(self, seq: u32, out: &mut Vec<u8>) -> Result<(), Error> {
        let too_long = |attribute| Error::TooLong { operation: "a request".to_owned(), attribute };
        let body = self.body.finish().map_err(too_long)?;
        let header = header(PAYLOAD_OFFSET + body.len(), self.kind, self.flags, seq, self.head);
        out.extend_from_slice(header.as_flattened());
        out.extend(body);
        Ok(())
    }
}
