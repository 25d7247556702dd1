//! Netlink messages: a batch of operations, requests for dumps, and what the kernel answers.

use std::ops::Range;

use crate::error::{DecodeError, Error, Refusal};
use crate::ownership::OWNED;
use crate::transaction::{Op, Transaction};
use crate::wire::attr::{Attrs, Writer};
use crate::wire::element;
use crate::wire::expr::{Expr, Verdict};
use crate::wire::object;
use crate::wire::uapi::*;

/// `NFPROTO_INET`.
pub(crate) const INET: u8 = 1;
/// `NFNL_SUBSYS_NFTABLES`.
const SUBSYSTEM: u16 = 10;
const BATCH_BEGIN: u16 = 16;
const BATCH_END: u16 = 17;
/// `NFNL_BATCH_GENID`.
const BATCH_GENID: u16 = 1;

/// `NLM_F_*` of `linux/netlink.h`.
const REQUEST: u16 = 0x1;
const ACK: u16 = 0x4;
const DUMP_INTERRUPTED: u16 = 0x10;
const ACK_TLVS: u16 = 0x200;
const DUMP: u16 = 0x300;
const EXCL: u16 = 0x200;
const CREATE: u16 = 0x400;
const APPEND: u16 = 0x800;

/// `NLMSG_ERROR` and `NLMSG_DONE`.
const ERROR: u16 = 2;
const DONE: u16 = 3;
/// `NLMSGERR_ATTR_MSG` and `NLMSGERR_ATTR_OFFS`.
const ERROR_MESSAGE: u16 = 1;
const ERROR_OFFSET: u16 = 2;

/// Length of `struct nlmsghdr`, and of that with `struct nfgenmsg` behind it.
const HEADER: usize = 16;
const PAYLOAD: usize = 20;
/// Where `nlmsg_flags` stands in the header.
const FLAGS: usize = 6;

/// Keys that one message can delete: at most 40 bytes each, a concatenation of two addresses.
const KEYS_AT_ONCE: usize = 1500;

/// `errno`s that mean more to us than their text; the same on every architecture but a few that
/// Linux 6.1 runs no server on.
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

/// What stands before the attributes of a message of so many bytes.
fn header(bytes: usize, kind: u16, flags: u16, seq: u32, head: [u8; 4]) -> [[u8; 4]; 5] {
    let len = u32::try_from(bytes).unwrap_or(u32::MAX);
    let ([a, b], [c, d]) = (kind.to_ne_bytes(), flags.to_ne_bytes());
    [len.to_ne_bytes(), [a, b, c, d], seq.to_ne_bytes(), [0; 4], head]
}

/// Appends a message whose attributes `fill` writes; how long it is shows at its end.
fn message(out: &mut Writer, header: [[u8; 4]; 5], fill: impl FnOnce(&mut Writer)) {
    let start = out.len();
    out.raw(header.as_flattened());
    fill(out);
    let len = u32::try_from(out.len() - start).unwrap_or(u32::MAX);
    out.put(start, &len.to_ne_bytes());
}

/// The type of an nf_tables message.
pub(crate) fn nft(message: u16) -> u16 {
    SUBSYSTEM << 8 | message
}

/// The type of a message of connection tracking.
pub(crate) fn conntrack(message: u16) -> u16 {
    NFNL_SUBSYS_CTNETLINK << 8 | message
}

/// A message outside of a batch.
pub(crate) struct Request {
    /// Subsystem and message.
    kind: u16,
    flags: u16,
    /// `struct nfgenmsg`, or what else the subsystem has there.
    head: [u8; 4],
    body: Writer,
}

impl Request {
    /// For one object of nf_tables or, with `dump`, for all of a kind.
    pub(crate) fn nft(kind: u16, dump: bool, fill: impl FnOnce(&mut Writer)) -> Request {
        let flags = REQUEST | if dump { DUMP } else { 0 };
        let head = [INET, 0, 0, 0];
        let mut request = Request { kind: nft(kind), flags, head, body: Writer::default() };
        fill(&mut request.body);
        request
    }

    /// For all of something of another subsystem.
    pub(crate) fn dump(kind: u16, head: [u8; 4], body: Writer) -> Request {
        Request { kind, flags: REQUEST | DUMP, head, body }
    }

    /// For all connections that are tracked.
    pub(crate) fn connections() -> Request {
        Request::dump(conntrack(IPCTNL_MSG_CT_GET), [0; 4], Writer::default())
    }

    /// To forget a connection of this family, or to know it from now on, and say so.
    pub(crate) fn connection(kind: u16, family: u8, body: Writer) -> Request {
        let new = if kind == IPCTNL_MSG_CT_NEW { CREATE | EXCL } else { 0 };
        let flags = REQUEST | ACK | new;
        Request { kind: conntrack(kind), flags, head: [family, 0, 0, 0], body }
    }

    /// To send on what is logged to a group, and say so.
    pub(crate) fn log_group(kind: u16, [high, low]: [u8; 2], body: Writer) -> Request {
        Request { kind, flags: REQUEST | ACK, head: [0, 0, high, low], body }
    }

    pub(crate) fn is_dump(&self) -> bool {
        self.flags & DUMP == DUMP
    }

    /// Appends it to what is to be sent.
    pub(crate) fn write(self, seq: u32, out: &mut Vec<u8>) -> Result<(), Error> {
        let too_long = |attribute| Error::TooLong { operation: "a request".to_owned(), attribute };
        let body = self.body.finish().map_err(too_long)?;
        let header = header(PAYLOAD + body.len(), self.kind, self.flags, seq, self.head);
        out.extend_from_slice(header.as_flattened());
        out.extend(body);
        Ok(())
    }
}

/// A transaction as the bytes of one send, and which bytes are whose.
pub(crate) struct Batch<'a> {
    transaction: &'a Transaction,
    pub(crate) bytes: Vec<u8>,
    begin_seq: u32,
    /// One for each message between begin and end: its operation and where it stands.
    sent: Vec<(usize, Range<usize>)>,
}

impl<'a> Batch<'a> {
    /// `generation`: commit only if the ruleset is still this one.
    pub(crate) fn encode(
        transaction: &'a Transaction,
        generation: Option<u32>,
        begin_seq: u32,
    ) -> Result<Batch<'a>, Error> {
        let mut batch = Batch { transaction, bytes: Vec::new(), begin_seq, sent: Vec::new() };
        let mut out = Writer::default();
        let [high, low] = SUBSYSTEM.to_be_bytes();
        let of_batch = [0, 0, high, low];
        message(&mut out, header(0, BATCH_BEGIN, REQUEST, begin_seq, of_batch), |out| {
            if let Some(generation) = generation {
                out.u32(BATCH_GENID, generation);
            }
        });
        let mut last = None;
        for (index, op) in transaction.ops.iter().enumerate() {
            encode_op(&transaction.table, index, op, &mut |kind, flags, fill| {
                let (start, flags) = (out.len(), REQUEST | flags);
                let seq = begin_seq.wrapping_add(1).wrapping_add(batch.messages());
                message(&mut out, header(0, nft(kind), flags, seq, [INET, 0, 0, 0]), fill);
                batch.sent.push((index, start..out.len()));
                last = Some((start, flags));
            });
            if let Some(attribute) = out.too_long() {
                let operation = transaction.describe_short(op);
                return Err(Error::TooLong { operation, attribute });
            }
        }
        if let Some((start, flags)) = last {
            out.put(start + FLAGS, &(flags | ACK).to_ne_bytes());
        }
        let end_seq = begin_seq.wrapping_add(1).wrapping_add(batch.messages());
        message(&mut out, header(0, BATCH_END, REQUEST, end_seq, of_batch), |_| {});
        batch.bytes = out.finish().unwrap_or_default();
        Ok(batch)
    }

    /// How many messages stand between begin and end.
    pub(crate) fn messages(&self) -> u32 {
        u32::try_from(self.sent.len()).unwrap_or(u32::MAX)
    }

    /// Whether the kernel did it: no error in the whole answer, and the last message, if there is
    /// one, acknowledged.
    pub(crate) fn judge(&self, answer: &[u8]) -> Result<(), Error> {
        let mut refusals = Vec::new();
        let mut acknowledged = self.sent.is_empty();
        for reply in Replies(answer) {
            let reply = reply?;
            let Some(outcome) = reply.outcome()? else { continue };
            if outcome.errno == 0 {
                acknowledged |= reply.seq == self.begin_seq.wrapping_add(self.messages());
                continue;
            }
            match (outcome.errno, reply.seq == self.begin_seq) {
                // Of one operation it means a table that another process owns.
                (errno::EPERM, true) => return Err(Error::Permission),
                (errno::ERESTART, _) => return Err(Error::Interrupted),
                (errno::EOPNOTSUPP, true) => {
                    return Err(Error::NoNftables(std::io::Error::from_raw_os_error(
                        outcome.errno,
                    )));
                }
                _ => refusals.push(self.refusal(reply.seq, outcome)),
            }
        }
        match (refusals.is_empty(), acknowledged) {
            (false, _) => Err(Error::Refused(refusals)),
            (true, true) => Ok(()),
            (true, false) => Err(Error::Unknown),
        }
    }

    fn refusal(&self, seq: u32, outcome: Outcome) -> Refusal {
        let at = usize::try_from(seq.wrapping_sub(self.begin_seq).wrapping_sub(1)).ok();
        let found = at.and_then(|at| self.sent.get(at)).and_then(|(index, range)| {
            Some((self.transaction.ops.get(*index)?, self.bytes.get(range.clone())?))
        });
        Refusal {
            operation: found.map(|(op, _)| self.transaction.describe_short(op)),
            place: found.and_then(|(op, bytes)| place(op, bytes, outcome.offset?)),
            errno: outcome.errno,
            message: outcome.message,
        }
    }
}

/// Whether this is all that the kernel answers to a batch: the last operation acknowledged, and
/// nothing said of those before it. It answers in the order of the operations, and only the last
/// one asks for an answer.
pub(crate) fn is_done(request: &[u8], first_answer: &[u8]) -> bool {
    let mut replies = Replies(first_answer);
    let (Some(Ok(reply)), None) = (replies.next(), replies.next()) else { return false };
    let seq = |header: &[u8]| header.get(8..12)?.try_into().ok().map(u32::from_ne_bytes);
    let end = request.len().checked_sub(PAYLOAD).and_then(|end| request.get(end..));
    let is_batch = request.get(4..6) == Some(BATCH_BEGIN.to_ne_bytes().as_slice());
    is_batch
        && end.and_then(seq) == Some(reply.seq.wrapping_add(1))
        && matches!(reply.outcome(), Ok(Some(Outcome { errno: 0, .. })))
}

/// Takes one message: kind, flags, and what writes its payload.
type Message<'m> = dyn FnMut(u16, u16, &dyn Fn(&mut Writer)) + 'm;

/// Hands each message of an operation to `one`.
fn encode_op(table: &str, index: usize, op: &Op, one: &mut Message<'_>) {
    match op {
        Op::AddTable { comment, awake } => one(NFT_MSG_NEWTABLE, CREATE, &|out| {
            object::encode_table(out, table, comment.as_deref(), awake.then_some(0));
        }),
        Op::OwnTable { comment } => one(NFT_MSG_NEWTABLE, CREATE, &|out| {
            object::encode_table(out, table, comment.as_deref(), Some(OWNED));
        }),
        Op::DeleteTable => one(NFT_MSG_DELTABLE, 0, &|out| out.string(NFTA_TABLE_NAME, table)),
        Op::FlushRules => one(NFT_MSG_DELRULE, 0, &|out| out.string(NFTA_RULE_TABLE, table)),
        Op::FlushChain(chain) => one(NFT_MSG_DELRULE, 0, &|out| {
            out.string(NFTA_RULE_TABLE, table);
            out.string(NFTA_RULE_CHAIN, chain);
        }),
        Op::AddChain(chain) => {
            one(NFT_MSG_NEWCHAIN, CREATE, &|out| object::encode_chain(out, table, chain));
        }
        Op::DeleteChain(chain) => one(NFT_MSG_DELCHAIN, 0, &|out| {
            out.string(NFTA_CHAIN_TABLE, table);
            out.string(NFTA_CHAIN_NAME, chain);
        }),
        Op::AddRule { chain, rule } => one(NFT_MSG_NEWRULE, CREATE | APPEND, &|out| {
            object::encode_rule(out, table, chain, rule);
        }),
        Op::AddSet(set) => one(NFT_MSG_NEWSET, CREATE, &|out| {
            object::encode_set(out, table, set, u32::try_from(index).unwrap_or(u32::MAX));
        }),
        Op::DeleteSet(set) => one(NFT_MSG_DELSET, 0, &|out| {
            out.string(NFTA_SET_TABLE, table);
            out.string(NFTA_SET_NAME, set);
        }),
        Op::AddElements { set, elements } => {
            for chunk in element::chunks(elements) {
                one(NFT_MSG_NEWSETELEM, CREATE, &|out| {
                    element::encode_list(out, table, set, |out| {
                        chunk.iter().for_each(|element| element::encode_element(out, element));
                    });
                });
            }
        }
        Op::CreateElements { set, elements } => {
            for part in elements.parts() {
                one(NFT_MSG_NEWSETELEM, CREATE | EXCL, &|out| {
                    element::encode_list(out, table, set, |out| out.append(part));
                });
            }
        }
        Op::DeleteElements { set, keys } => {
            for keys in keys.chunks(KEYS_AT_ONCE) {
                one(NFT_MSG_DELSETELEM, 0, &|out| element::encode_keys(out, table, set, keys));
            }
        }
        Op::FlushElements(set) => one(NFT_MSG_DELSETELEM, 0, &|out| {
            out.string(NFTA_SET_ELEM_LIST_TABLE, table);
            out.string(NFTA_SET_ELEM_LIST_SET, set);
        }),
        Op::AddCounter(counter) => {
            one(NFT_MSG_NEWOBJ, CREATE, &|out| object::encode_counter(out, table, counter));
        }
        Op::DeleteCounter(counter) => one(NFT_MSG_DELOBJ, 0, &|out| {
            out.string(NFTA_OBJ_TABLE, table);
            out.string(NFTA_OBJ_NAME, counter);
            out.u32(NFTA_OBJ_TYPE, object::COUNTER);
        }),
    }
}

/// Where in an operation the kernel's offset points to.
fn place(op: &Op, bytes: &[u8], offset: u32) -> Option<String> {
    let offset = usize::try_from(offset).ok()?;
    let (kind, start, value) = attribute_at(bytes.get(PAYLOAD..)?, PAYLOAD, offset)?;
    match op {
        Op::AddRule { rule, .. } if kind == NFTA_RULE_EXPRESSIONS => {
            let index = element_at(value, start, offset)?;
            let expr = rule.exprs.get(index)?;
            let name = match expr {
                Expr::Lookup { set, .. } => format!("lookup @{set}"),
                Expr::Counter(name) => format!("counter {name}"),
                Expr::Dynset(dynset) => format!("dynset @{}", dynset.set),
                Expr::Verdict(Verdict::Jump(chain)) => format!("jump {chain}"),
                Expr::Verdict(Verdict::Goto(chain)) => format!("goto {chain}"),
                _ => expr.name().to_owned(),
            };
            Some(format!("expression {}, {name}", index + 1))
        }
        Op::AddElements { .. } | Op::CreateElements { .. }
            if kind == NFTA_SET_ELEM_LIST_ELEMENTS =>
        {
            Some(format!("element {}", element_at(value, start, offset)? + 1))
        }
        _ => Some(format!("attribute {kind}")),
    }
}

/// The attribute that holds this offset: its type, where its value starts, its value.
fn attribute_at(attrs: &[u8], base: usize, offset: usize) -> Option<(u16, usize, &[u8])> {
    let mut start = base;
    for attr in Attrs(attrs) {
        let attr = attr.ok()?;
        let end = start + (4 + attr.value.len()).next_multiple_of(4);
        if (start..end).contains(&offset) {
            return Some((attr.kind, start + 4, attr.value));
        }
        start = end;
    }
    None
}

fn element_at(list: &[u8], base: usize, offset: usize) -> Option<usize> {
    let mut start = base;
    for (index, attr) in Attrs(list).enumerate() {
        start += (4 + attr.ok()?.value.len()).next_multiple_of(4);
        if offset < start {
            return Some(index);
        }
    }
    None
}

/// One message from the kernel.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Reply<'a> {
    pub(crate) kind: u16,
    flags: u16,
    pub(crate) seq: u32,
    /// What stands behind the netlink header.
    pub(crate) body: &'a [u8],
}

/// What an acknowledgement says.
pub(crate) struct Outcome {
    /// 0 for success.
    pub(crate) errno: i32,
    offset: Option<u32>,
    message: Option<String>,
}

impl<'a> Reply<'a> {
    /// The attributes of a message of this type.
    pub(crate) fn attrs(&self, kind: u16) -> Option<Attrs<'a>> {
        (self.kind == kind).then(|| Attrs(self.body.get(4..).unwrap_or_default()))
    }

    pub(crate) fn interrupted(&self) -> bool {
        self.flags & DUMP_INTERRUPTED != 0
    }

    /// Whether nothing more comes after it.
    pub(crate) fn ends(&self) -> bool {
        matches!(self.kind, ERROR | DONE)
    }

    /// What it says, if it is an acknowledgement, an error or the end of a dump.
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
            let skip = if self.kind == ERROR { HEADER } else { 0 };
            for attr in Attrs(rest.get(skip..).ok_or(truncated)?) {
                let attr = attr?;
                match attr.kind {
                    ERROR_MESSAGE => outcome.message = Some(attr.string()),
                    // The one number here that is in the machine's own byte order.
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
        let body = self.0.get(HEADER..len)?;
        self.0 = self.0.get(len.next_multiple_of(4)..).unwrap_or_default();
        Some(Reply {
            kind: u16::from_ne_bytes(*kind),
            flags: u16::from_ne_bytes(*flags),
            seq: u32::from_ne_bytes(*seq),
            body,
        })
    }
}
