//! What a change costs, and what it must leave alone.

use std::time::Duration;

use nfguard_netlink::{
    Base, Chain, ChainPolicy, Counter, CtHelper, Element, Expr, Hook, Key, KeyType, Op, Rule, Set,
    Table, Verdict, diff,
};

fn counter(name: &str) -> Counter {
    Counter { name: name.to_owned(), comment: None }
}

fn set(name: &str, dynamic: bool, keys: &[u8]) -> Set {
    let element = |last: &u8| Element::from(Key::Value(vec![192, 0, 2, *last]));
    Set {
        name: name.to_owned(),
        key: vec![KeyType::Ipv4Addr],
        dynamic,
        elements: keys.iter().map(element).collect(),
        ..Set::default()
    }
}

fn chain(name: &str, verdict: Verdict) -> Chain {
    let rule = Rule { exprs: vec![Expr::Verdict(verdict)], comment: None };
    Chain { name: name.to_owned(), rules: vec![rule], ..Chain::default() }
}

fn table() -> Table {
    Table {
        name: "t".to_owned(),
        counters: vec![counter("seen")],
        sets: vec![set("recent", true, &[]), set("fixed", false, &[1, 2])],
        chains: vec![chain("c", Verdict::Accept)],
        ..Table::default()
    }
}

fn printed(current: &Table, desired: &Table) -> Vec<String> {
    diff(Some(current), desired).to_string().lines().map(str::to_owned).collect()
}

#[test]
fn the_same_table_is_no_change() {
    assert!(diff(Some(&table()), &table()).is_empty());
}

#[test]
fn order_of_objects_and_state_of_dynamic_sets_are_no_change() {
    let mut other = table();
    other.sets.reverse();
    other.sets[1].elements = set("", true, &[7]).elements;
    other.sets[0].elements.reverse();
    assert!(diff(Some(&other), &table()).is_empty());
}

#[test]
fn an_element_timeout_that_is_the_sets_own_is_no_change() {
    let minute = Some(Duration::from_secs(60));
    let mut said_once = table();
    said_once.sets[1].timeout = minute;
    let mut said_twice = said_once.clone();
    said_twice.sets[1].elements[0].timeout = minute;
    assert!(diff(Some(&said_once), &said_twice).is_empty());
}

#[test]
fn a_changed_rule_leaves_counters_sets_and_chains() {
    let mut desired = table();
    desired.chains = vec![chain("c", Verdict::Drop)];
    assert_eq!(
        printed(&table(), &desired),
        ["add table inet t", "flush table inet t", "add rule inet t c drop"]
    );
}

#[test]
fn a_changed_static_set_is_made_anew_with_its_elements() {
    let mut desired = table();
    desired.sets[1] = set("fixed", false, &[2, 3]);
    assert_eq!(
        printed(&table(), &desired),
        [
            "add table inet t",
            "flush table inet t",
            "delete set inet t fixed",
            "add set inet t fixed { type ipv4_addr }",
            "add element inet t fixed { 192.0.2.2, 192.0.2.3 }",
            "add rule inet t c accept",
        ]
    );
}

#[test]
fn a_changed_helper_is_made_anew_and_one_that_no_rule_assigns_goes() {
    let helper = |protocol| CtHelper {
        name: "sip".to_owned(),
        kind: "sip".to_owned(),
        protocol,
        version: None,
    };
    let with = |helpers: Vec<CtHelper>| Table { helpers, ..table() };
    let (tcp, udp) = (with(vec![helper(6)]), with(vec![helper(17)]));
    assert!(diff(Some(&tcp), &tcp).is_empty());
    let removed = "delete ct helper inet t sip";
    let added = "add ct helper inet t sip { type \"sip\" protocol udp; l3proto inet; }";
    let printed_ops = |current: &Table, desired: &Table| {
        let mut lines = printed(current, desired);
        lines.retain(|line| line.contains("ct helper"));
        lines
    };
    assert_eq!(printed_ops(&tcp, &udp), [removed, added]);
    assert_eq!(printed_ops(&udp, &table()), [removed]);
    assert_eq!(printed_ops(&table(), &udp), [added]);
}

#[test]
fn what_is_no_longer_wanted_is_deleted_chains_first() {
    let desired = Table { name: "t".to_owned(), ..Table::default() };
    assert_eq!(
        printed(&table(), &desired),
        [
            "add table inet t",
            "flush table inet t",
            "delete chain inet t c",
            "delete set inet t recent",
            "delete set inet t fixed",
            "delete counter inet t seen",
        ]
    );
}

#[test]
fn a_base_chain_with_another_policy_is_made_anew() {
    let base = |policy| Base { hook: Hook::Input, priority: -5, policy };
    let mut current = table();
    current.chains[0].base = Some(base(ChainPolicy::Accept));
    let mut desired = current.clone();
    desired.chains[0].base = Some(base(ChainPolicy::Drop));
    let ops = diff(Some(&current), &desired).ops;
    assert!(ops.contains(&Op::DeleteChain("c".to_owned())));
    let head = Chain { rules: Vec::new(), ..desired.chains[0].clone() };
    assert!(ops.contains(&Op::AddChain(head)));
}

#[test]
fn a_dormant_table_is_woken() {
    let dormant = Table { dormant: true, ..table() };
    assert!(!diff(Some(&dormant), &table()).is_empty());
}

#[test]
fn a_new_table_has_nothing_to_flush() {
    let ops = diff(None, &table()).ops;
    assert!(!ops.contains(&Op::FlushRules));
    assert!(matches!(ops.first(), Some(Op::AddTable { .. })));
}
