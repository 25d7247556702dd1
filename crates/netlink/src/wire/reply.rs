//! Messages of the kernel: answers, acknowledgements and the end of a dump.

use crate::error::DecodeError;
use crate::wire::attr::Attrs;
use crate::wire::message::HEADER_BYTES;

/// Flags of an answer (`NLM_F_*` of `linux/netlink.h`).
const DUMP_INTERRUPTED: u16 = 0x10;
const ACK_TLVS: u16 = 0x200;

/// `NLMSG_ERROR` and `NLMSG_DONE`.
const ERROR: u16 = 2;
const DONE: u16 = 3;
/// `NLMSGERR_ATTR_MSG` and `NLMSGERR_ATTR_OFFS`.
const ERROR_MESSAGE: u16 = 1;
const ERROR_OFFSET: u16 = 2;

/// A message of the kernel.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Reply<'a> {
    pub(crate) kind: u16,
    flags: u16,
    pub(crate) seq: u32,
    /// The bytes behind the netlink header.
    pub(crate) body: &'a [u8],
}

/// The content of an acknowledgement.
pub(crate) struct Outcome {
    /// 0 for success.
    pub(crate) errno: i32,
    pub(crate) offset: Option<u32>,
    pub(crate) message: Option<String>,
}

impl<'a> Reply<'a> {
    /// Returns the attributes of a message of this type, behind the four bytes of its head.
    pub(crate) fn attrs(&self, kind: u16) -> Option<Attrs<'a>> {
        (self.kind == kind).then(|| Attrs(self.body.get(4..).unwrap_or_default()))
    }

    /// Returns whether the listed objects changed during the dump.
    pub(crate) fn interrupted(&self) -> bool {
        self.flags & DUMP_INTERRUPTED != 0
    }

    /// Returns whether it is the last message of an answer.
    pub(crate) fn ends(&self) -> bool {
        matches!(self.kind, ERROR | DONE)
    }

    /// Returns the content of an acknowledgement, an error or the end of a dump.
    pub(crate) fn outcome(&self) -> Result<Option<Outcome>, DecodeError> {
        if !self.ends() {
            return Ok(None);
        }
        let truncated = DecodeError::Truncated { rest: self.body.len() };
        let (code, rest) = match self.body.split_first_chunk::<4>() {
            Some((code, rest)) => (i32::from_ne_bytes(*code), rest),
            // The end of a dump may come without a code.
            None if self.kind == DONE => (0, self.body),
            None => return Err(truncated),
        };
        let mut outcome =
            Outcome { errno: code.checked_neg().unwrap_or(i32::MAX), offset: None, message: None };
        if self.flags & ACK_TLVS != 0 {
            let skip = if self.kind == ERROR { HEADER_BYTES } else { 0 };
            for attr in Attrs(rest.get(skip..).ok_or(truncated)?) {
                let attr = attr?;
                match attr.kind {
                    ERROR_MESSAGE => outcome.message = Some(attr.string()),
                    // A number of netlink itself, in the machine's byte order.
                    ERROR_OFFSET => outcome.offset = Some(attr.u32_native()?),
                    _ => {}
                }
            }
        }
        Ok(Some(outcome))
    }
}

/// The messages of an answer.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Replies<'a>(pub(crate) &'a [u8]);

impl<'a> Iterator for Replies<'a> {
    type Item = Result<Reply<'a>, DecodeError>;

    fn next(&mut self) -> Option<Self::Item> {
        if self.0.is_empty() {
            return None;
        }
        let reply = self.split();
        if reply.is_none() {
            let rest = self.0.len();
            self.0 = &[];
            return Some(Err(DecodeError::Truncated { rest }));
        }
        reply.map(Ok)
    }
}

impl<'a> Replies<'a> {
    fn split(&mut self) -> Option<Reply<'a>> {
        let (len, rest) = self.0.split_first_chunk::<4>()?;
        let (kind, rest) = rest.split_first_chunk::<2>()?;
        let (flags, rest) = rest.split_first_chunk::<2>()?;
        let (seq, _) = rest.split_first_chunk::<4>()?;
        let len = usize::try_from(u32::from_ne_bytes(*len)).ok()?;
        let body = self.0.get(HEADER_BYTES..len)?;
        self.0 = self.0.get(len.next_multiple_of(4)..).unwrap_or_default();
        Some(Reply {
            kind: u16::from_ne_bytes(*kind),
            flags: u16::from_ne_bytes(*flags),
            seq: u32::from_ne_bytes(*seq),
            body,
        })
    }
}
