//! The kernel's answers to a transaction, and what is made of them.

use nfguard_netlink::{
    Chain, Element, Error, Expr, Key, KeyType, Nft, Op, Reg, Rule, Set, Table, Transaction, diff,
};

const EPERM: i32 = 1;
const ENOENT: i32 = 2;
const ERESTART: i32 = 85;
const EOPNOTSUPP: i32 = 95;
/// `NLMSG_ERROR`, `NLM_F_ACK_TLVS`, `NLMSGERR_ATTR_MSG` and `NLMSGERR_ATTR_OFFS`.
const ERROR: u16 = 2;
const ACK_TLVS: u16 = 0x200;
const MESSAGE: u16 = 1;
const OFFSET: u16 = 2;

fn attr(kind: u16, value: &[u8]) -> Vec<u8> {
    let len = u16::try_from(4 + value.len()).expect("short");
    let mut out = [&len.to_ne_bytes()[..], &kind.to_ne_bytes(), value].concat();
    out.resize(out.len().next_multiple_of(4), 0);
    out
}

/// An answer to the message number `at` of a batch whose first has number 0.
fn told(request: &[u8], at: u32, errno: i32, attrs: &[Vec<u8>]) -> Vec<u8> {
    let first = u32::from_ne_bytes(request[8..12].try_into().expect("a header"));
    let flags = if attrs.is_empty() { 0 } else { ACK_TLVS };
    let body = [&(-errno).to_ne_bytes()[..], &[0; 16], &attrs.concat()].concat();
    let len = u32::try_from(16 + body.len()).expect("short");
    let seq = (first + at).to_ne_bytes();
    let (kind, flags) = (ERROR.to_ne_bytes(), flags.to_ne_bytes());
    [&len.to_ne_bytes()[..], &kind, &flags, &seq, &[0; 4], &body].concat()
}

fn lookup() -> Rule {
    let load = Expr::Payload {
        header: nfguard_netlink::Header::Network,
        offset: 12,
        len: 4,
        reg: Reg::FIRST,
    };
    let lookup = Expr::Lookup { reg: Reg::FIRST, set: "admins".to_owned(), inverted: false };
    Rule { exprs: vec![load, lookup], comment: None }
}

/// Adds the table (message 1), the chain (2) and two rules (3 and 4).
fn transaction() -> Transaction {
    let rules = vec![lookup(), lookup()];
    let chain = Chain { name: "c".to_owned(), rules, ..Chain::default() };
    diff(None, &Table { name: "t".to_owned(), chains: vec![chain], ..Table::default() })
}

fn commit(answer: impl Fn(&[u8]) -> Vec<u8> + Send + 'static) -> Result<(), Error> {
    Nft::from_exchange(move |request| Ok(answer(request))).commit(&transaction(), None)
}

#[test]
fn success_is_the_acknowledgement_of_the_last_message() {
    assert!(commit(|request| told(request, 4, 0, &[])).is_ok());
}

#[test]
fn without_acknowledgement_nothing_is_known() {
    for answer in [Ok(Vec::new()), Err(3u32)] {
        let outcome = commit(move |request| match &answer {
            Ok(bytes) => bytes.clone(),
            Err(at) => told(request, *at, 0, &[]),
        });
        assert!(matches!(outcome, Err(Error::AnswerLost)), "{outcome:?}");
    }
}

#[test]
fn an_error_beside_an_acknowledgement_is_a_refusal() {
    let outcome =
        commit(|request| [told(request, 3, ENOENT, &[]), told(request, 4, 0, &[])].concat());
    assert!(matches!(outcome, Err(Error::Refused(refusals)) if refusals.len() == 1));
}

#[test]
fn all_refusals_are_told_with_operation_place_and_words() {
    let outcome = commit(|request| {
        // The second rule's second expression: where its name is followed by "lookup".
        let at = request.windows(6).rposition(|bytes| bytes == b"lookup").expect("sent");
        let start = start_of(request, 4);
        let offset = u32::try_from(at - start).expect("small").to_ne_bytes();
        let words = attr(MESSAGE, b"no such set\0");
        [told(request, 2, ENOENT, &[]), told(request, 4, ENOENT, &[words, attr(OFFSET, &offset)])]
            .concat()
    });
    let Err(Error::Refused(refusals)) = outcome else { panic!("{outcome:?}") };
    assert_eq!(refusals.len(), 2);
    assert_eq!(refusals[0].operation.as_deref(), Some("add chain inet t c {  }"));
    assert_eq!(refusals[0].place, None);
    assert_eq!(refusals[1].place.as_deref(), Some("expression 2, lookup @admins"));
    assert_eq!(refusals[1].message.as_deref(), Some("no such set"));
    let words = Error::Refused(refusals).to_string();
    assert!(words.contains(
        "@admins: No such file or directory (os error 2): no such set (expression 2, lookup @admins)"
    ));
}

/// Where the message of this number begins.
fn start_of(request: &[u8], number: u32) -> usize {
    (0..number).fold(0, |at, _| {
        let len = request[at..].first_chunk().expect("a header");
        at + usize::try_from(u32::from_ne_bytes(*len)).expect("small")
    })
}

#[test]
fn an_offset_outside_of_the_message_names_no_place() {
    let offset = attr(OFFSET, &u32::MAX.to_ne_bytes());
    let outcome = commit(move |request| told(request, 3, ENOENT, std::slice::from_ref(&offset)));
    assert!(matches!(outcome, Err(Error::Refused(refusals)) if refusals[0].place.is_none()));
}

#[test]
fn an_error_of_no_operation_is_of_the_whole() {
    let outcome = commit(|request| told(request, 77, ENOENT, &[]));
    let Err(Error::Refused(refusals)) = outcome else { panic!("{outcome:?}") };
    assert!(refusals[0].to_string().starts_with("the ruleset as a whole: "));
}

#[test]
fn errors_of_the_batch_itself_have_their_own_meaning() {
    let outcome = |errno| commit(move |request| told(request, 0, errno, &[]));
    assert!(matches!(outcome(EPERM), Err(Error::Permission)));
    assert!(matches!(outcome(ERESTART), Err(Error::Interrupted)));
    assert!(matches!(outcome(EOPNOTSUPP), Err(Error::NoNftables(_))));
}

#[test]
fn a_table_that_another_process_owns_is_no_lack_of_privilege() {
    let outcome = commit(|request| told(request, 1, EPERM, &[]));
    assert!(matches!(outcome, Err(Error::Refused(_))), "{outcome:?}");
}

#[test]
fn a_truncated_answer_is_an_error() {
    let outcome = commit(|request| {
        let mut answer = told(request, 4, 0, &[]);
        answer.pop();
        answer
    });
    assert!(matches!(outcome, Err(Error::Decode(_))), "{outcome:?}");
}

#[test]
fn a_dump_without_end_is_not_taken_for_the_whole() {
    let mut kernel = Nft::from_exchange(|_| Ok(Vec::new()));
    assert!(matches!(kernel.table("t"), Err(Error::AnswerLost)));
}

#[test]
fn a_key_without_an_answer_is_not_taken_for_absent() {
    let keys = vec![vec![0; 4]; 2];
    for (answers, all) in [(2, true), (1, false), (0, false)] {
        let answer = move |request: &[u8]| {
            Ok((0..answers).flat_map(|at| told(request, at, ENOENT, &[])).collect())
        };
        let found = Nft::from_exchange(answer).find_elements("t", "s", &keys);
        match found {
            Ok(found) => assert!(all && found == [None, None]),
            Err(error) => assert!(!all && matches!(error, Error::AnswerLost), "{error}"),
        }
    }
}

#[test]
fn an_attribute_longer_than_its_length_field_is_an_error_and_nothing_is_sent() {
    let exprs = vec![lookup().exprs.remove(0); 3000];
    let rule = Op::AddRule { chain: "c".to_owned(), rule: Rule { exprs, comment: None } };
    let transaction = Transaction { table: "t".to_owned(), ops: vec![rule] };
    let outcome = Nft::from_exchange(|_| panic!("sent")).commit(&transaction, None);
    assert!(matches!(outcome, Err(Error::TooLong { attribute: 4, .. })), "{outcome:?}");
}

#[test]
fn elements_are_spread_over_messages_that_each_can_hold() {
    let keys = (0..10_000u32).map(|key| Key::Value(key.to_be_bytes().to_vec()));
    let elements: Vec<_> =
        keys.map(|key| Element { comment: Some("x".repeat(127)), ..Element::from(key) }).collect();
    let set =
        Set { name: "s".to_owned(), key: vec![KeyType::Ipv4Addr], elements, ..Set::default() };
    let table = Table { name: "t".to_owned(), sets: vec![set], ..Table::default() };
    let outcome = Nft::from_exchange(|request| {
        let mut at = 0;
        let mut kinds = Vec::new();
        while let Some(len) = request[at..].first_chunk() {
            kinds.push(request[at + 4]);
            at += usize::try_from(u32::from_ne_bytes(*len)).expect("small");
        }
        // NFT_MSG_NEWSETELEM.
        let parts = kinds.iter().filter(|kind| **kind == 12).count();
        assert!((20..40).contains(&parts), "{parts} messages");
        let last = u32::try_from(kinds.len() - 2).expect("few");
        Ok(told(request, last, 0, &[]))
    })
    .commit(&diff(None, &table), None);
    assert!(outcome.is_ok(), "{outcome:?}");
}
