//! The bytes of a load, read back as the answer of a kernel, give the same table.

use std::sync::{Arc, Mutex};

use nfguard_netlink::{Error, Nft, Table, diff};
use nfguard_policy::arbitrary::{Pool, policy_text};
use nfguard_policy::{Policy, TABLE};
use nfguard_tests::tables::{self, AnyTable};
use proptest::prelude::*;

const NAME: &str = "nfguard";
const HEADER: usize = 16;
/// `NLMSG_DONE`, and the subsystem in the upper byte of the type of an `nf_tables` message.
const DONE: u16 = 3;
const NFTABLES: u16 = 10 << 8;
const GETGEN: u16 = NFTABLES | 16;
const NEWGEN: u16 = NFTABLES | 15;
const DUMP: u16 = 0x300;

/// Returns the messages that load the table into an empty kernel.
fn load_messages(table: &Table) -> Vec<Vec<u8>> {
    let bytes = Arc::new(Mutex::new(Vec::new()));
    let record = Arc::clone(&bytes);
    let mut kernel = Nft::from_exchange(move |request| {
        record.lock().expect("no panic").extend_from_slice(request);
        Ok(Vec::new())
    });
    let outcome = kernel.commit(&diff(None, table), None);
    assert!(matches!(outcome, Err(Error::AnswerLost)), "no answer is no success: {outcome:?}");
    messages(&bytes.lock().expect("no panic"))
}

fn messages(bytes: &[u8]) -> Vec<Vec<u8>> {
    let mut rest = bytes;
    let mut messages = Vec::new();
    while let Some(len) = rest.first_chunk::<4>() {
        let len = usize::try_from(u32::from_ne_bytes(*len)).expect("small");
        let (message, later) = rest.split_at(len);
        messages.push(message.to_vec());
        rest = later;
    }
    messages
}

fn kind(message: &[u8]) -> u16 {
    u16::from_ne_bytes([message[4], message[5]])
}

fn message(kind: u16, seq: &[u8], body: &[u8]) -> Vec<u8> {
    let len = u32::try_from(HEADER + body.len()).expect("small");
    [&len.to_ne_bytes()[..], &kind.to_ne_bytes(), &[2, 0], seq, &[0; 4], body].concat()
}

/// Answers a request as a kernel that has received these messages.
fn answer(held: &[Vec<u8>], request: &[u8]) -> Vec<u8> {
    let (asked, seq) = (kind(request), &request[8..12]);
    let flags = u16::from_ne_bytes([request[6], request[7]]);
    if asked == GETGEN {
        return message(NEWGEN, seq, &[0, 0, 0, 0, 8, 0, 1, 0, 0, 0, 0, 7]);
    }
    // The message type of NEW is the one before GET. The attributes of GET, if any, come first.
    let names = &request[HEADER + 4..];
    let made_by = |message: &&Vec<u8>| {
        asked > NFTABLES && kind(message) == asked - 1 && message[HEADER + 4..].starts_with(names)
    };
    let mut answer: Vec<u8> = held
        .iter()
        .filter(made_by)
        .flat_map(|held| message(kind(held), seq, &held[HEADER..]))
        .collect();
    if flags & DUMP == DUMP {
        answer.extend(message(DONE, seq, &[0; 4]));
    }
    answer
}

proptest! {
    #![proptest_config(ProptestConfig { failure_persistence: None, ..ProptestConfig::default() })]

    #[test]
    fn any_table_reads_back_from_its_own_bytes(AnyTable(table) in tables::table(NAME, "ours")) {
        let held = load_messages(&table);
        let mut kernel = Nft::from_exchange(move |request| Ok(answer(&held, request)));
        let read = kernel.table(NAME).map_err(|error| TestCaseError::fail(error.to_string()))?;
        prop_assert_eq!(read.generation, 7);
        let read = read.loaded.map(|loaded| loaded.table.normalized());
        prop_assert_eq!(read, Some(table.normalized()));
    }

    #[test]
    fn any_policy_that_parses_compiles_and_reads_back_from_its_own_bytes(
        choices in proptest::collection::vec(any::<u16>(), 0..400),
    ) {
        let text = policy_text(&choices, &Pool::default());
        let (policy, _) = Policy::parse(&text).expect("a valid policy");
        let table = policy.compile();
        let held = load_messages(&table);
        let mut kernel = Nft::from_exchange(move |request| Ok(answer(&held, request)));
        let read = kernel.table(TABLE).expect("a table").loaded.expect("it is there").table;
        prop_assert_eq!(read.normalized(), table.normalized(), "{}", text);
    }

    #[test]
    fn any_answer_is_a_value_or_an_error(bytes in proptest::collection::vec(any::<u8>(), 0..200)) {
        let mut kernel = Nft::from_exchange(move |_| Ok(bytes.clone()));
        let _ = kernel.generation();
        let _ = kernel.table_head(NAME);
        let _ = kernel.table(NAME);
        let _ = kernel.commit(&diff(None, &Table::default()), Some(1));
        let _ = kernel.connections(|_| true);
        let _ = kernel.find_elements("t", "s", &vec![vec![0; 4]; 3]);
    }

    #[test]
    fn a_damaged_answer_is_a_value_or_an_error(
        AnyTable(table) in tables::table(NAME, "ours"),
        damage in proptest::collection::vec((any::<prop::sample::Index>(), any::<u8>()), 1..6),
        cut in any::<prop::sample::Index>(),
        cuts in any::<bool>(),
    ) {
        let held = load_messages(&table);
        let mut kernel = Nft::from_exchange(move |request| {
            let mut answer = answer(&held, request);
            if answer.len() > HEADER && kind(request) != GETGEN {
                for (at, byte) in &damage {
                    let at = HEADER + at.index(answer.len() - HEADER);
                    answer[at] = *byte;
                }
                if cuts {
                    answer.truncate(cut.index(answer.len()));
                }
            }
            Ok(answer)
        });
        // Any decoded value can be printed and compared.
        if let Some(loaded) = kernel.table(NAME).ok().and_then(|read| read.loaded) {
            let _ = nfguard_netlink::text::table(&loaded.table);
            let _ = diff(Some(&loaded.table), &table).to_string();
        }
    }
}

/// Returns the batch that nft 1.0.6 has sent for `fixtures/nft-1.0.6.nft`, as
/// `unshare -Urn strace -e trace=sendmsg -e write=3 nft -f nft-1.0.6.nft` shows it.
fn nft_messages() -> Vec<Vec<u8>> {
    let digits: String = include_str!("../fixtures/nft-1.0.6.hex").split_whitespace().collect();
    let pairs = digits.as_bytes().chunks_exact(2);
    let byte = |pair: &[u8]| {
        let pair = std::str::from_utf8(pair).expect("digits");
        u8::from_str_radix(pair, 16).expect("hexadecimal")
    };
    messages(&pairs.map(byte).collect::<Vec<_>>())
}

#[test]
fn the_bytes_of_nft_read_back_as_the_text_that_it_was_given() {
    let held = nft_messages();
    let mut kernel = Nft::from_exchange(move |request| Ok(answer(&held, request)));
    let loaded = kernel.table("t").expect("can be read").loaded.expect("is there");
    let lines = |text: &str| {
        let mut lines: Vec<_> = text.lines().map(|line| line.trim().to_owned()).collect();
        lines.retain(|line| !line.is_empty() && !line.starts_with("packets "));
        lines.sort();
        lines
    };
    let text = nfguard_netlink::text::table(&loaded.table);
    assert_eq!(lines(&text), lines(include_str!("../fixtures/nft-1.0.6.nft")), "{text}");
}

#[test]
fn our_rules_are_the_bytes_of_nft_but_for_order_and_defaults() {
    let theirs = nft_messages();
    let held = theirs.clone();
    let mut kernel = Nft::from_exchange(move |request| Ok(answer(&held, request)));
    let loaded = kernel.table("t").expect("can be read").loaded.expect("is there");
    let bodies = |messages: &[Vec<u8>]| -> Vec<_> {
        let rules = messages.iter().filter(|message| kind(message) == NFTABLES | 6);
        rules.map(|message| sort_attributes(&message[HEADER + 4..])).collect()
    };
    let ours = load_messages(&loaded.table);
    assert_eq!(bodies(&ours), bodies(&theirs));
}

/// Sorts the attributes of a message by their numbers, in each list of different ones.
fn sort_attributes(mut attrs: &[u8]) -> Vec<u8> {
    const NESTED: u16 = 0x8000;
    let mut list = Vec::new();
    while let Some([a, b, c, d]) = attrs.first_chunk() {
        let (len, kind) = (u16::from_ne_bytes([*a, *b]), u16::from_ne_bytes([*c, *d]));
        let len = usize::from(len);
        let value = &attrs[4..len];
        // nft also sends default zeros, and some strings without a final NUL.
        let value = match value.strip_suffix(&[0]) {
            _ if kind & NESTED != 0 => sort_attributes(value),
            _ if value.iter().all(|byte| *byte == 0) => Vec::new(),
            Some(text) => text.to_vec(),
            None => value.to_vec(),
        };
        if !value.is_empty() {
            list.push((kind, value));
        }
        attrs = attrs.get(len.next_multiple_of(4)..).unwrap_or_default();
    }
    list.sort_by_key(|(kind, _)| *kind);
    let join = |(kind, value): (u16, Vec<u8>)| [kind.to_ne_bytes().to_vec(), value].concat();
    list.into_iter().flat_map(join).collect()
}
