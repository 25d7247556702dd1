//! A transaction as one batch, and the kernel's answer to it.

use std::ops::Range;

use crate::error::{Error, Refusal};
use crate::model::{CtHelper, Expr, Verdict};
use crate::transaction::{Op, Transaction};
use crate::wire::attr::{Attrs, Writer};
use crate::wire::message::{
    ACK, APPEND, CREATE, EXCL, FLAGS_OFFSET, INET, PAYLOAD_OFFSET, REQUEST, SUBSYSTEM, errno,
    header, message, nft,
};
use crate::wire::object::OWNER_FLAGS;
use crate::wire::reply::{Outcome, Replies};
use crate::wire::uapi::*;
use crate::wire::{element, object};

const BATCH_BEGIN: u16 = 16;
const BATCH_END: u16 = 17;
/// `NFNL_BATCH_GENID`.
const BATCH_GENID: u16 = 1;

/// Number of keys in one message. A key has at most 40 bytes, as a concatenation of two addresses.
const MAX_KEYS_PER_MESSAGE: usize = 1500;

/// A transaction as the bytes of one send, and the operation of each of its messages.
pub(crate) struct Batch<'a> {
    transaction: &'a Transaction,
    pub(crate) bytes: Vec<u8>,
    begin_seq: u32,
    /// For each message between begin and end the index of its operation, and its place in the bytes.
    sent: Vec<(usize, Range<usize>)>,
}

impl<'a> Batch<'a> {
    /// Encodes a transaction. With a generation, the kernel commits it only if the ruleset still has
    /// that generation.
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
            out.put(start + FLAGS_OFFSET, &(flags | ACK).to_ne_bytes());
        }
        let end_seq = begin_seq.wrapping_add(1).wrapping_add(batch.messages());
        message(&mut out, header(0, BATCH_END, REQUEST, end_seq, of_batch), |_| {});
        batch.bytes = out.finish().unwrap_or_default();
        Ok(batch)
    }

    /// Returns the number of messages between begin and end.
    pub(crate) fn messages(&self) -> u32 {
        u32::try_from(self.sent.len()).unwrap_or(u32::MAX)
    }

    /// Returns success if the whole answer has no error, and the last message, if there is one, is
    /// acknowledged.
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
                // EPERM of one operation means a table that another process owns.
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
            (true, false) => Err(Error::AnswerLost),
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
            message: outcome
                .message
                .or_else(|| found.and_then(|(op, _)| absent_helper(op, outcome.errno))),
        }
    }
}

/// Says what the kernel means if it finds no helper. It has no words for it.
fn absent_helper(op: &Op, errno: i32) -> Option<String> {
    let Op::AddHelper(CtHelper { kind, .. }) = op else { return None };
    (errno == errno::ENOENT).then(|| {
        let module = kind.replace('-', "_");
        format!(
            "this kernel has no connection tracking helper {kind:?}; its module is nf_conntrack_{module}"
        )
    })
}

impl Transaction {
    /// Returns the bytes that a commit of the transaction sends: the same for the same transaction,
    /// on any machine of the same byte order.
    ///
    /// # Errors
    /// [`Error::TooLong`] if an object does not fit a message.
    pub fn to_bytes(&self) -> Result<Vec<u8>, Error> {
        Ok(Batch::encode(self, None, 0)?.bytes)
    }
}

/// Returns whether this is the whole answer to a batch: an acknowledgement of the last operation and
/// nothing else. The kernel answers in the order of the operations, and only the last one asks for
/// an answer.
pub(crate) fn is_done(request: &[u8], first_answer: &[u8]) -> bool {
    let mut replies = Replies(first_answer);
    let (Some(Ok(reply)), None) = (replies.next(), replies.next()) else { return false };
    let seq = |header: &[u8]| header.get(8..12)?.try_into().ok().map(u32::from_ne_bytes);
    let end = request.len().checked_sub(PAYLOAD_OFFSET).and_then(|end| request.get(end..));
    let is_batch = request.get(4..6) == Some(BATCH_BEGIN.to_ne_bytes().as_slice());
    is_batch
        && end.and_then(seq) == Some(reply.seq.wrapping_add(1))
        && matches!(reply.outcome(), Ok(Some(Outcome { errno: 0, .. })))
}

/// Takes one message: its type, its flags, and the function that writes its attributes.
type Message<'m> = dyn FnMut(u16, u16, &dyn Fn(&mut Writer)) + 'm;

/// Hands each message of an operation to `one`.
fn encode_op(table: &str, index: usize, op: &Op, one: &mut Message<'_>) {
    match op {
        Op::AddTable { comment, awake } => one(NFT_MSG_NEWTABLE, CREATE, &|out| {
            object::encode_table(out, table, comment.as_deref(), awake.then_some(0));
        }),
        Op::OwnTable { comment } => one(NFT_MSG_NEWTABLE, CREATE, &|out| {
            object::encode_table(out, table, comment.as_deref(), Some(OWNER_FLAGS));
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
            for keys in keys.chunks(MAX_KEYS_PER_MESSAGE) {
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
            object::encode_object_head(out, table, counter, NFT_OBJECT_COUNTER);
        }),
        Op::AddHelper(helper) => {
            one(NFT_MSG_NEWOBJ, CREATE, &|out| object::encode_helper(out, table, helper));
        }
        Op::DeleteHelper(helper) => one(NFT_MSG_DELOBJ, 0, &|out| {
            object::encode_object_head(out, table, helper, NFT_OBJECT_CT_HELPER);
        }),
    }
}

/// Names the place in an operation that the kernel's offset points to.
fn place(op: &Op, bytes: &[u8], offset: u32) -> Option<String> {
    let offset = usize::try_from(offset).ok()?;
    let (kind, start, value) = attribute_at(bytes.get(PAYLOAD_OFFSET..)?, PAYLOAD_OFFSET, offset)?;
    match op {
        Op::AddRule { rule, .. } if kind == NFTA_RULE_EXPRESSIONS => {
            let index = element_at(value, start, offset)?;
            let expr = rule.exprs.get(index)?;
            let name = match expr {
                Expr::Lookup { set, .. } => format!("lookup @{set}"),
                Expr::Counter(name) => format!("counter {name}"),
                Expr::Helper(name) => format!("ct helper {name}"),
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

/// Returns the attribute that holds this offset: its type, the offset of its value, its value.
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
