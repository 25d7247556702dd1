//! Operations that the kernel permits only to real root.

use nfguard_lab::Netns;
use nfguard_netlink::{Element, Key, KeyType, Nft, Set, Table, load};

#[test]
fn a_table_of_any_size_goes_out_in_one_send() {
    let netns = Netns::new()
        .unwrap_or_else(|error| panic!("{error}\nrun me with `cargo xtask netns-test`"));
    let keys = (0..100_000u32).map(|key| Key::Value(key.to_be_bytes().to_vec()));
    let set = Set {
        name: "large".to_owned(),
        key: vec![KeyType::Ipv4Addr],
        elements: keys.map(Element::from).collect(),
        ..Set::default()
    };
    let table = Table { name: "nfguard".to_owned(), sets: vec![set], ..Table::default() };
    let mut kernel = netns.run(|| Nft::open().expect("netlink is there"));
    assert!(load(&mut kernel, &table).expect("loads").verified);
}
