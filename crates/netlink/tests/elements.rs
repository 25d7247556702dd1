//! Lists of elements, however they are written down.

use std::time::Duration;

use nfguard_netlink::{Element, ElementOptions, Elements, Key, Op, Transaction};

/// `NLM_F_EXCL`.
const EXCL: u16 = 0x200;

fn transaction(op: Op) -> Transaction {
    Transaction { table: "t".to_owned(), ops: vec![op] }
}

/// The messages of a transaction, and how many of them may not find their elements there.
fn messages(transaction: &Transaction) -> (Vec<Vec<u8>>, usize) {
    let bytes = transaction.to_bytes().expect("not too long");
    let (mut rest, mut all, mut exclusive) = (bytes.as_slice(), Vec::new(), 0);
    while let Some((len, _)) = rest.split_first_chunk::<4>() {
        let len = usize::try_from(u32::from_ne_bytes(*len)).expect("a length");
        let (message, others) = rest.split_at(len);
        let mut message = message.to_vec();
        let flags = u16::from_ne_bytes([message[6], message[7]]);
        exclusive += usize::from(flags & EXCL != 0);
        message[6..8].copy_from_slice(&(flags & !EXCL).to_ne_bytes());
        all.push(message);
        rest = others;
    }
    (all, exclusive)
}

#[test]
fn a_long_list_has_the_same_messages_as_its_elements_one_by_one() {
    // Its length is one for which the length of an element is known exactly, and not only at most.
    let (hour, comment) = (Some(Duration::from_secs(3600)), "a list");
    let attached = [ElementOptions::new(hour, Some(comment)), ElementOptions::new(hour, None)];
    let (mut list, mut elements) = (Elements::default(), Vec::new());
    for number in 0..5_000_u32 {
        let key = number.to_be_bytes().to_vec();
        let is_noted = number % 7 != 0;
        list.push(&key, &attached[usize::from(!is_noted)]);
        let comment = is_noted.then(|| comment.to_owned());
        elements.push(Element { key: Key::Value(key), timeout: hour, comment });
    }
    let set = || "s".to_owned();
    let create = transaction(Op::CreateElements { set: set(), elements: list });
    let add = transaction(Op::AddElements { set: set(), elements });
    let ((created, exclusive), (added, none)) = (messages(&create), messages(&add));
    assert!(created == added && created.len() > 4, "{} and {}", created.len(), added.len());
    assert_eq!((exclusive, none), (created.len() - 2, 0));
    assert_eq!(create.to_string(), add.to_string().replace("add element", "create element"));
}
