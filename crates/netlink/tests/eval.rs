//! What a table does with a packet, one expression at a time.

use std::net::IpAddr;
use std::time::Duration;

use nfguard_netlink::build;
use nfguard_netlink::eval::{Fate, Memory, Packet, evaluate};
use nfguard_netlink::{
    Base, Chain, ChainPolicy, CmpOp, CtKey, Dynset, Element, Expr, Header, Hook, Key, KeyType,
    MetaKey, Reg, Reject, Rule, Set, Table, Verdict, ct_state, ct_status, fib_type, protocol,
};

const REG: Reg = Reg::FIRST;

fn packet() -> Packet {
    let address = |text: &str| text.parse::<IpAddr>().expect("an address");
    let packet =
        Packet::new(address("192.0.2.7"), address("198.51.100.1"), protocol::TCP, (5000, 443));
    Packet { in_interface: "eth0".to_owned(), ..packet }
}

/// A table that drops what these expressions match, and accepts the rest.
fn table(exprs: Vec<Expr>, sets: Vec<Set>) -> Table {
    let exprs = [exprs, vec![Expr::Verdict(Verdict::Drop)]].concat();
    let base = Some(Base { hook: Hook::Input, priority: 0, policy: ChainPolicy::Accept });
    let rules = vec![Rule { exprs, comment: None }];
    let chain = Chain { name: "in".to_owned(), base, rules, ..Chain::default() };
    Table { sets, chains: vec![chain], ..Table::default() }
}

fn fate(table: &Table, packet: &Packet, memory: &mut Memory) -> Fate {
    evaluate(table, Hook::Input, packet, memory).expect("a chain is there").fate
}

fn matches(exprs: Vec<Expr>, packet: &Packet) -> bool {
    fate(&table(exprs, Vec::new()), packet, &mut Memory::default()) == Fate::Drop
}

fn cmp(op: CmpOp, data: &[u8]) -> Expr {
    Expr::Cmp { reg: REG, op, data: data.to_vec() }
}

fn meta(key: MetaKey) -> Expr {
    Expr::Meta { key, reg: REG }
}

fn payload(header: Header, offset: u32, len: u32) -> Expr {
    Expr::Payload { header, offset, len, reg: REG }
}

#[test]
fn family_protocol_and_interface_are_compared() {
    assert!(matches(vec![meta(MetaKey::Nfproto), cmp(CmpOp::Eq, &[2])], &packet()));
    assert!(!matches(vec![meta(MetaKey::Nfproto), cmp(CmpOp::Eq, &[10])], &packet()));
    assert!(matches(vec![meta(MetaKey::L4proto), cmp(CmpOp::Neq, &[17])], &packet()));
    assert!(matches(vec![meta(MetaKey::Iifname), cmp(CmpOp::Eq, b"eth0\0\0\0\0")], &packet()));
    assert!(matches(vec![meta(MetaKey::Iifname), cmp(CmpOp::Eq, b"eth")], &packet()));
    assert!(!matches(vec![meta(MetaKey::Oifname), cmp(CmpOp::Neq, b"eth0")], &packet()));
}

#[test]
fn all_orders_compare_ports_as_big_endian_numbers() {
    let port = |op, port: u16| {
        matches(vec![payload(Header::Transport, 2, 2), cmp(op, &port.to_be_bytes())], &packet())
    };
    let ops = [CmpOp::Eq, CmpOp::Neq, CmpOp::Lt, CmpOp::Lte, CmpOp::Gt, CmpOp::Gte];
    let results = |number| ops.map(|op| port(op, number));
    assert_eq!(results(443), [true, false, false, true, false, true]);
    assert_eq!(results(444), [false, true, true, true, false, false]);
    assert_eq!(results(256), [false, true, false, false, true, true]);
}

#[test]
fn a_mask_leaves_the_prefix() {
    let source = payload(Header::Network, 12, 4);
    let mask = Expr::Bitwise { reg: REG, mask: vec![255, 255, 255, 0], xor: vec![0; 4] };
    assert!(matches(vec![source, mask, cmp(CmpOp::Eq, &[192, 0, 2, 0])], &packet()));
}

#[test]
fn a_field_behind_the_end_of_the_packet_does_not_match() {
    let beyond = payload(Header::Transport, 20, 2);
    assert!(!matches(vec![beyond, cmp(CmpOp::Neq, &[1, 1])], &packet()));
    assert!(!matches(vec![payload(Header::Network, u32::MAX, 16)], &packet()));
}

#[test]
fn conntrack_knows_the_state_and_the_port_before_dnat() {
    let ct = |key| Expr::Ct { key, reg: REG };
    let bits =
        |bits: u32| Expr::Bitwise { reg: REG, mask: bits.to_ne_bytes().to_vec(), xor: vec![0; 4] };
    let any = cmp(CmpOp::Neq, &[0; 4]);
    let state = |state| vec![ct(CtKey::State), bits(state), any.clone()];
    assert!(matches(state(ct_state::NEW | ct_state::RELATED), &packet()));
    assert!(!matches(state(ct_state::ESTABLISHED), &packet()));

    let published = Packet { dnat_from: Some(("198.51.100.2".parse().unwrap(), 8443)), ..packet() };
    let dnat = vec![ct(CtKey::Status), bits(ct_status::DNAT), any.clone()];
    assert!(matches(dnat.clone(), &published));
    assert!(!matches(dnat, &packet()));
    let original =
        |port: u16| vec![ct(CtKey::OriginalProtoDst), cmp(CmpOp::Eq, &port.to_be_bytes())];
    assert!(matches(original(8443), &published));
    assert!(matches(original(443), &packet()));
    let invalid = Packet { ct_state: ct_state::INVALID, ..packet() };
    assert!(!matches(original(443), &invalid), "conntrack knows no ports of it");
    assert!(matches(state(ct_state::INVALID), &invalid));
}

#[test]
fn the_destinations_type_is_compared() {
    let fib =
        |kind: u32| vec![Expr::FibDaddrType { reg: REG }, cmp(CmpOp::Eq, &kind.to_ne_bytes())];
    assert!(matches(fib(fib_type::LOCAL), &packet()));
    assert!(!matches(fib(fib_type::MULTICAST), &packet()));
    let source = |op| build::source_type(op, fib_type::LOCAL);
    assert!(!matches(source(CmpOp::Eq), &packet()) && matches(source(CmpOp::Neq), &packet()));
    let own = Packet { fib_saddr_type: fib_type::LOCAL, ..packet() };
    assert!(matches(source(CmpOp::Eq), &own));
    assert!(!matches(build::no_return_path(), &packet()));
    let forged = Packet { has_return_path: false, ..packet() };
    assert!(matches(build::no_return_path(), &forged));
    assert!(matches(build::mark(CmpOp::Eq, 0), &packet()));
    let marked = Packet { mark: 0x100, ..packet() };
    assert!(matches(build::mark(CmpOp::Eq, 0x100), &marked));
    assert!(matches(build::mark(CmpOp::Neq, 0), &marked));
}

#[test]
fn lookups_know_values_ranges_and_inversion() {
    let ports = |key: Key, interval| Set {
        name: "s".to_owned(),
        key: vec![KeyType::InetService],
        interval,
        elements: vec![Element::from(key)],
        ..Set::default()
    };
    let found = |set: Set, inverted| {
        let lookup = Expr::Lookup { reg: REG, set: "s".to_owned(), inverted };
        let table = table(vec![payload(Header::Transport, 2, 2), lookup], vec![set]);
        fate(&table, &packet(), &mut Memory::default()) == Fate::Drop
    };
    let range = Key::Range(vec![1, 0], vec![1, 187]);
    assert!(found(ports(range.clone(), true), false), "the last of a range is in it");
    assert!(!found(ports(range, true), true));
    assert!(!found(ports(Key::Value(vec![1, 188]), false), false));
}

#[test]
fn a_dynamic_set_remembers_until_its_timeout_and_no_more_than_its_size() {
    let set = Set {
        name: "seen".to_owned(),
        key: vec![KeyType::Ipv4Addr],
        dynamic: true,
        timeout: Some(Duration::from_secs(30)),
        size: Some(1),
        ..Set::default()
    };
    let source = payload(Header::Network, 12, 4);
    let add =
        Expr::Dynset(Dynset { reg: REG, set: "seen".to_owned(), update: false, timeout: None });
    let lookup = Expr::Lookup { reg: REG, set: "seen".to_owned(), inverted: false };
    let adds = table(vec![source.clone(), add], vec![set.clone()]);
    let looks = table(vec![source, lookup], vec![set]);
    let other = Packet { source: "192.0.2.8".parse().expect("an address"), ..packet() };

    let mut memory = Memory::default();
    assert_eq!(fate(&looks, &packet(), &mut memory), Fate::Accept);
    assert_eq!(fate(&adds, &packet(), &mut memory), Fate::Drop);
    assert_eq!(fate(&adds, &other, &mut memory), Fate::Accept, "the set is full");
    memory.now = Duration::from_secs(29);
    assert_eq!(fate(&looks, &packet(), &mut memory), Fate::Drop);
    memory.now = Duration::from_secs(30);
    assert_eq!(fate(&looks, &packet(), &mut memory), Fate::Accept);
    assert_eq!(fate(&adds, &other, &mut memory), Fate::Drop, "there is room again");
}

#[test]
fn a_jump_comes_back_and_a_goto_does_not() {
    let to = |verdict: Verdict| Rule { exprs: vec![Expr::Verdict(verdict)], comment: None };
    let base = Some(Base { hook: Hook::Input, priority: 0, policy: ChainPolicy::Accept });
    let decided = |first: Verdict| {
        let rules =
            vec![to(first), Rule { exprs: vec![Expr::Reject(Reject::TcpReset)], comment: None }];
        let main = Chain { name: "in".to_owned(), base, rules, ..Chain::default() };
        let back =
            Chain { name: "b".to_owned(), rules: vec![to(Verdict::Return)], ..Chain::default() };
        let table = Table { chains: vec![back, main], ..Table::default() };
        fate(&table, &packet(), &mut Memory::default())
    };
    assert_eq!(decided(Verdict::Jump("b".to_owned())), Fate::Reject(Reject::TcpReset));
    assert_eq!(decided(Verdict::Goto("b".to_owned())), Fate::Accept);
}

#[test]
fn base_chains_of_a_hook_run_in_their_order_until_one_stops_the_packet() {
    let chain = |name: &str, priority, verdict: Option<Verdict>| {
        let base = Some(Base { hook: Hook::Input, priority, policy: ChainPolicy::Accept });
        let exprs = verdict.map(Expr::Verdict);
        let rules = exprs.map(|it| Rule { exprs: vec![it], comment: None }).into_iter().collect();
        Chain { name: name.to_owned(), base, rules, ..Chain::default() }
    };
    let decided = |chains: Vec<Chain>| {
        let table = Table { chains, ..Table::default() };
        let decision = evaluate(&table, Hook::Input, &packet(), &mut Memory::default());
        decision.map(|it| (it.fate, it.chain.to_owned(), it.matched.len()))
    };
    let late = chain("late", 10, Some(Verdict::Drop));
    let passes = chain("early", -300, Some(Verdict::Accept));
    let stops = chain("early", -300, Some(Verdict::Drop));
    let last = chain("last", 20, None);
    let both = decided(vec![last.clone(), late.clone(), passes.clone()]);
    assert_eq!(both, Some((Fate::Drop, "late".to_owned(), 2)), "an accept is not final");
    assert_eq!(decided(vec![late, stops]), Some((Fate::Drop, "early".to_owned(), 1)));
    assert_eq!(decided(vec![last, passes]), Some((Fate::Accept, "last".to_owned(), 1)));
    assert_eq!(decided(Vec::new()), None);
}

#[test]
fn what_a_rule_adds_may_have_a_time_of_its_own() {
    let set = Set {
        name: "banned".to_owned(),
        key: vec![KeyType::Ipv4Addr],
        dynamic: true,
        timeout: Some(Duration::ZERO),
        ..Set::default()
    };
    let source = payload(Header::Network, 12, 4);
    let timeout = Some(Duration::from_secs(600));
    let add = Dynset { reg: REG, set: "banned".to_owned(), update: false, timeout };
    let lookup = Expr::Lookup { reg: REG, set: "banned".to_owned(), inverted: false };
    let adds = table(vec![source.clone(), Expr::Dynset(add)], vec![set.clone()]);
    let looks = table(vec![source, lookup], vec![set]);
    let mut memory = Memory::default();
    assert_eq!(fate(&adds, &packet(), &mut memory), Fate::Drop);
    memory.now = Duration::from_secs(599);
    assert_eq!(fate(&looks, &packet(), &mut memory), Fate::Drop);
    memory.now = Duration::from_secs(600);
    assert_eq!(fate(&looks, &packet(), &mut memory), Fate::Accept);
}
