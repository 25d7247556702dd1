//! A stand-in for nf_tables: keeps what transactions add, and answers requests from it.
//!
//! What a batch adds and what the kernel tells of it have the same attributes, so the messages of a
//! batch serve as answers. It judges nothing: every transaction succeeds.

use std::sync::{Arc, Mutex};

use nfguard_netlink::Nft;

// linux/netlink.h, linux/netfilter/nf_tables.h
const NLMSG_ERROR: u16 = 2;
const NLMSG_DONE: u16 = 3;
const NLM_F_DUMP: u16 = 0x300;
const BATCH_BEGIN: u16 = 16;
const NFTABLES: u8 = 10;
const NEWTABLE: u8 = 0;
const GETTABLE: u8 = 1;
const NEWRULE: u8 = 6;
const GETRULE: u8 = 7;
const NEWSET: u8 = 9;
const GETSET: u8 = 10;
const NEWSETELEM: u8 = 12;
const GETSETELEM: u8 = 13;
const NEWGEN: u8 = 15;
const GETGEN: u8 = 16;
const ENOENT: i32 = 2;
const HEADER: usize = 16;
const PAYLOAD: usize = 20;

/// What was asked, and what was added.
#[derive(Default)]
pub(crate) struct Log {
    /// Each request outside of a batch: its words, such as `elements never/v4`.
    pub(crate) requests: Vec<String>,
    /// How many transactions had at least one operation.
    pub(crate) transactions: usize,
    /// Each message that added something: its type and its attributes.
    added: Vec<(u8, Vec<u8>)>,
}

/// Makes an empty kernel, and the log of what is asked of it. Each connection shares the log.
pub(crate) fn connect(log: &Arc<Mutex<Log>>) -> Nft {
    let log = Arc::clone(log);
    Nft::from_exchange(move |request| Ok(log.lock().expect("no panic").answer(request)))
}

impl Log {
    /// Forgets what was asked, and keeps what was added.
    pub(crate) fn forget_requests(&mut self) {
        self.requests.clear();
        self.transactions = 0;
    }

    fn answer(&mut self, request: &[u8]) -> Vec<u8> {
        let kind = u16_at(request, 4);
        if kind == BATCH_BEGIN { self.commit(request) } else { self.respond(request) }
    }

    /// Keeps what a batch adds, and acknowledges its last operation.
    fn commit(&mut self, batch: &[u8]) -> Vec<u8> {
        let all: Vec<&[u8]> = messages(batch).collect();
        let operations = &all[1..all.len() - 1];
        for message in operations {
            let [kind, subsystem] = u16_at(message, 4).to_le_bytes();
            assert_eq!(subsystem, NFTABLES);
            self.added.push((kind, message[PAYLOAD..].to_vec()));
        }
        let Some(last) = operations.last() else { return Vec::new() };
        self.transactions += 1;
        outcome(0, last)
    }

    fn respond(&mut self, request: &[u8]) -> Vec<u8> {
        let [kind, _] = u16_at(request, 4).to_le_bytes();
        let attrs = &request[PAYLOAD..];
        let name = |kind| string(attrs, kind).unwrap_or_default();
        let (words, new, filters): (String, u8, Vec<u16>) = match kind {
            GETGEN => ("generation".to_owned(), NEWGEN, vec![]),
            GETTABLE => (format!("table {}", name(1)), NEWTABLE, vec![1]),
            GETSET => (format!("sets {}", name(1)), NEWSET, vec![1]),
            GETSETELEM => (format!("elements {}", name(2)), NEWSETELEM, vec![1, 2]),
            GETRULE => (format!("rules {}", name(2)), NEWRULE, vec![1, 2]),
            other => panic!("no answer to a message of type {other}"),
        };
        self.requests.push(words);
        let mut answer = Vec::new();
        if new == NEWGEN {
            let id = [8_u16.to_ne_bytes(), 1_u16.to_ne_bytes()].concat();
            push_message(&mut answer, new, request, &[id, vec![0, 0, 0, 1]].concat());
            return answer;
        }
        let matches = |added: &[u8]| {
            filters.iter().all(|filter| {
                let asked = string(attrs, *filter);
                asked.is_none() || asked == string(added, *filter)
            })
        };
        for (_, attrs) in self.added.iter().filter(|(kind, it)| *kind == new && matches(it)) {
            push_message(&mut answer, new, request, attrs);
        }
        if u16_at(request, 6) & NLM_F_DUMP == NLM_F_DUMP {
            let mut done = request[..HEADER].to_vec();
            done.extend(0_i32.to_ne_bytes());
            set_head(&mut done, NLMSG_DONE);
            answer.extend(done);
        } else if answer.is_empty() {
            return outcome(-ENOENT, request);
        }
        answer
    }
}

/// Splits what was sent into messages.
fn messages(mut bytes: &[u8]) -> impl Iterator<Item = &[u8]> {
    std::iter::from_fn(move || {
        let len = u32::from_ne_bytes(*bytes.first_chunk()?);
        let (message, rest) = bytes.split_at(usize::try_from(len).expect("a length"));
        bytes = rest;
        Some(message)
    })
}

/// Returns the string of an attribute.
fn string(mut attrs: &[u8], kind: u16) -> Option<String> {
    while attrs.len() >= 4 {
        let len = usize::from(u16_at(attrs, 0));
        if u16_at(attrs, 2) & 0x3fff == kind {
            let text = attrs[4..len].split(|byte| *byte == 0).next()?;
            return Some(String::from_utf8_lossy(text).into_owned());
        }
        attrs = attrs.get(len.next_multiple_of(4)..).unwrap_or_default();
    }
    None
}

fn push_message(out: &mut Vec<u8>, kind: u8, request: &[u8], attrs: &[u8]) {
    let mut message = request[..PAYLOAD].to_vec();
    message.extend(attrs);
    set_head(&mut message, u16::from_le_bytes([kind, NFTABLES]));
    out.extend(message);
}

fn outcome(errno: i32, request: &[u8]) -> Vec<u8> {
    let mut message = request[..HEADER].to_vec();
    message.extend(errno.to_ne_bytes());
    message.extend(&request[..HEADER]);
    set_head(&mut message, NLMSG_ERROR);
    message
}

/// Writes length, type and flags of a message; the sequence number stays the request's.
fn set_head(message: &mut [u8], kind: u16) {
    let len = u32::try_from(message.len()).expect("a length");
    message[..4].copy_from_slice(&len.to_ne_bytes());
    message[4..6].copy_from_slice(&kind.to_ne_bytes());
    message[6..8].copy_from_slice(&[0, 0]);
}

fn u16_at(bytes: &[u8], at: usize) -> u16 {
    u16::from_ne_bytes([bytes[at], bytes[at + 1]])
}
