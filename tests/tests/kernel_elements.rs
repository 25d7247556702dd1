//! Single elements and flushes of single chains in the real kernel.

use std::time::Duration;

use nfguard_lab::Netns;
use nfguard_netlink::{
    Element, ElementOptions, Elements, Error, Key, KeyType, Nft, Op, Set, Table, Transaction, diff,
};
use nfguard_tests::nft::{listed, nft};
use nfguard_tests::place::netns;

const NAME: &str = "t";
const HOUR: Duration = Duration::from_secs(3600);

fn kernel(netns: &Netns) -> Nft {
    netns.run(|| Nft::open().expect("netlink is there"))
}

fn key(number: u32) -> Vec<u8> {
    number.to_be_bytes().to_vec()
}

fn elements(numbers: impl IntoIterator<Item = u32>) -> Vec<Element> {
    let element = |number| Element { timeout: Some(HOUR), ..Key::Value(key(number)).into() };
    numbers.into_iter().map(element).collect()
}

/// Loads a table with an empty set `s`.
fn with_set(netns: &Netns) -> Nft {
    let mut kernel = kernel(netns);
    let set = Set {
        name: "s".to_owned(),
        key: vec![KeyType::Ipv4Addr],
        timeout: Some(Duration::ZERO),
        ..Set::default()
    };
    let table = Table { name: NAME.to_owned(), sets: vec![set], ..Table::default() };
    kernel.commit(&diff(None, &table), None).expect("made");
    kernel
}

fn commit(kernel: &mut Nft, op: Op) -> Result<(), Error> {
    kernel.commit(&Transaction { table: NAME.to_owned(), ops: vec![op] }, None)
}

fn create(kernel: &mut Nft, numbers: impl IntoIterator<Item = u32>) -> Result<(), Error> {
    let mut elements = Elements::default();
    let alike = ElementOptions::new(Some(HOUR), None);
    numbers.into_iter().for_each(|number| elements.push(&key(number), &alike));
    commit(kernel, Op::CreateElements { set: "s".to_owned(), elements })
}

#[test]
fn the_creation_of_an_existing_element_is_refused_as_a_whole_and_names_it() {
    const EEXIST: i32 = 17;
    let netns = netns();
    let mut kernel = with_set(&netns);
    create(&mut kernel, [7]).expect("created");
    let Err(Error::Refused(refusals)) = create(&mut kernel, [5, 6, 7, 8]) else {
        panic!("not refused");
    };
    assert_eq!(refusals[0].errno, EEXIST);
    assert_eq!(refusals[0].place.as_deref(), Some("element 3"));
    let words = refusals[0].to_string();
    assert!(words.starts_with("create element inet t s { 0.0.0.5, "), "{words}");
    assert_eq!(kernel.count(NAME, "s").expect("a number"), 1, "nothing was changed");

    let add = Op::AddElements { set: "s".to_owned(), elements: elements([7, 8]) };
    commit(&mut kernel, add).expect("adding is silent");
    assert_eq!(kernel.count(NAME, "s").expect("a number"), 2);
}

#[test]
fn the_count_of_a_set_is_the_number_of_added_elements_and_zero_when_absent() {
    let netns = netns();
    let mut kernel = with_set(&netns);
    for count in [0, 1, 4_000, 12_000] {
        commit(&mut kernel, Op::FlushElements("s".to_owned())).expect("emptied");
        // At most as much as the socket of a plain user sends at once.
        for first in (0..count).step_by(4_000) {
            create(&mut kernel, first..count.min(first + 4_000)).expect("created");
        }
        assert_eq!(kernel.count(NAME, "s").expect("a number"), u64::from(count));
    }
    assert_eq!(kernel.count(NAME, "other").expect("a number"), 0);
    assert_eq!(kernel.count("other", "s").expect("a number"), 0);
}

#[test]
fn a_lookup_of_many_keys_agrees_with_lookups_of_each() {
    let netns = netns();
    let mut kernel = with_set(&netns);
    create(&mut kernel, (0..1000).step_by(3)).expect("created");
    let keys: Vec<_> = (0..1000).rev().map(key).collect();
    let found = kernel.find_elements(NAME, "s", &keys).expect("an answer");
    assert_eq!(found.len(), keys.len());
    for (key, found) in keys.iter().zip(&found) {
        let alone = kernel.element(NAME, "s", key).expect("an answer");
        assert_eq!(found.as_ref().map(|one| &one.element), alone.as_ref().map(|one| &one.element));
    }
    assert_eq!(found.iter().flatten().count(), 334);
    assert!(found.iter().flatten().all(|one| one.expires_in.is_some()));
    for (table, set) in [(NAME, "other"), ("other", "s")] {
        assert_eq!(kernel.find_elements(table, set, &keys).expect("an answer"), vec![None; 1000]);
    }
}

#[test]
fn a_flush_of_a_chain_leaves_its_neighbours() {
    let (ours, theirs) = (netns(), netns());
    for netns in [&ours, &theirs] {
        let rules = "iifname lo accept; ip saddr 192.0.2.1 drop;";
        nft(netns, &format!("table inet t {{ chain a {{ {rules} }}; chain b {{ {rules} }}; }}\n"));
    }
    let flush = Op::FlushChain("a".to_owned());
    let transaction = Transaction { table: NAME.to_owned(), ops: vec![flush] };
    kernel(&ours).commit(&transaction, None).expect("flushed");
    nft(&theirs, &transaction.to_string());
    let left = listed(&ours, NAME);
    assert_eq!(left, listed(&theirs, NAME));
    assert_eq!(left.matches("192.0.2.1").count(), 1, "{left}");
}
