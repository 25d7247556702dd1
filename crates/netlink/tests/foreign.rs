//! Rules of others, from the bytes that their programs leave in the kernel.

use std::net::IpAddr;

use nfguard_netlink::eval::Packet;
use nfguard_netlink::{
    Base, ChainPolicy, Expr, Family, ForeignChain, ForeignRule, ForeignTable, ForeignVerdict, Hook,
    Nat, Verdict, fib_type, protocol,
};
use proptest::collection::vec;
use proptest::prelude::*;

/// `NFTA_MATCH_*` and `NFTA_TARGET_*`, which are alike.
const NAME: u16 = 1;
const REVISION: u16 = 2;
const INFO: u16 = 3;

fn attr(kind: u16, value: &[u8]) -> Vec<u8> {
    let len = u16::try_from(4 + value.len()).expect("short");
    let mut out = [&len.to_ne_bytes()[..], &kind.to_ne_bytes(), value].concat();
    out.resize(out.len().next_multiple_of(4), 0);
    out
}

/// As iptables-nft has it in the kernel.
fn xt(what: &str, name: &str, revision: u32, info: &[u8]) -> Expr {
    let name = [name.as_bytes(), &[0]].concat();
    let parts = [attr(NAME, &name), attr(REVISION, &revision.to_be_bytes()), attr(INFO, info)];
    Expr::Unknown { name: what.to_owned(), data: parts.concat() }
}

/// `struct xt_tcp`: ports from and to, and what is wanted of flags and options.
fn tcp(from: [u16; 2], to: [u16; 2], more: [u8; 4]) -> Expr {
    let ports = [from, to].concat().into_iter().flat_map(u16::to_ne_bytes);
    xt("match", "tcp", 0, &ports.chain(more).collect::<Vec<u8>>())
}

/// `struct xt_conntrack_mtinfo3`.
fn conntrack(wanted: u16, inverted: u16, states: u16) -> Expr {
    let mut info = vec![0; 164];
    for (at, value) in [(146, wanted), (148, inverted), (150, states)] {
        info[at..at + 2].copy_from_slice(&value.to_ne_bytes());
    }
    xt("match", "conntrack", 3, &info)
}

/// `struct xt_multiport_v1`: which ports are looked at, the ports, and which begin a range.
fn multiport(how: u8, ports: &[u16], ranges: [u8; 15], inverted: u8) -> Expr {
    let mut all = [0u16; 15];
    all[..ports.len()].copy_from_slice(ports);
    let count = u8::try_from(ports.len()).expect("few");
    let ports = all.into_iter().flat_map(u16::to_ne_bytes);
    let info = [how, count].into_iter().chain(ports).chain(ranges).chain([inverted]);
    xt("match", "multiport", 1, &info.collect::<Vec<u8>>())
}

/// What is one rule.
fn read(family: Family, exprs: &[Expr]) -> ForeignRule {
    ForeignRule::read(family, exprs).pop().expect("one")
}

fn accept() -> Expr {
    Expr::Verdict(Verdict::Accept)
}

fn address(text: &str) -> IpAddr {
    text.parse().expect("an address")
}

/// What a chain at input makes of a new connection to port 443, if it drops what no rule accepts.
fn outcome(rules: &[&[Expr]]) -> ForeignVerdict {
    let base = Base { hook: Hook::Input, priority: 0, policy: ChainPolicy::Drop };
    let rules = rules.iter().flat_map(|exprs| ForeignRule::read(Family::Ip, exprs)).collect();
    let chain = ForeignChain { name: "INPUT".to_owned(), base: Some(base), is_nat: false, rules };
    let chains = vec![chain];
    let table =
        ForeignTable { family: Family::Ip, name: "filter".to_owned(), chains, sets: vec![] };
    let (from, to) = (address("203.0.113.7"), address("198.51.100.2"));
    let packet = Packet::new(from, to, protocol::TCP, (40_000, 443));
    let filter = table.filter_of(&table.chains[0]).expect("a base chain");
    let of_v6 = Packet { source: address("2001:db8::7"), ..packet.clone() };
    assert_eq!(filter.verdict(&of_v6), None);
    filter.verdict(&packet).expect("it sees IPv4")
}

const DROPS: ForeignVerdict = ForeignVerdict::Drops { certain: true };
const MAY_DROP: ForeignVerdict = ForeignVerdict::Drops { certain: false };

#[test]
fn matches_of_iptables_decide_as_it_would() {
    let any = [0, u16::MAX];
    let local = xt("match", "addrtype", 1, &[0, 0, 4, 0, 0, 0, 0, 0]);
    let remote = xt("match", "addrtype", 1, &[0, 0, 4, 0, 2, 0, 0, 0]);
    let range = std::array::from_fn(|at| u8::from(at == 1));
    let comment = xt("match", "comment", 0, &[b'x'; 256]);
    for (exprs, expected) in [
        (vec![], DROPS),
        (vec![accept()], ForeignVerdict::Passes),
        (vec![comment, accept()], ForeignVerdict::Passes),
        (vec![tcp(any, [443, 443], [0; 4]), accept()], ForeignVerdict::Passes),
        (vec![tcp(any, [1, 442], [0; 4]), accept()], DROPS),
        (vec![tcp([1, 1023], any, [0; 4]), accept()], DROPS),
        (vec![tcp(any, any, [0; 4]), accept()], ForeignVerdict::Passes),
        // Flags of TCP, or the ports inverted: cannot be told.
        (vec![tcp(any, [443, 443], [0, 0x17, 0x02, 0]), accept()], MAY_DROP),
        (vec![tcp(any, [443, 443], [0, 0, 0, 2]), accept()], MAY_DROP),
        (vec![conntrack(1, 0, 2 | 4), accept()], DROPS),
        (vec![conntrack(1, 0, 8), accept()], ForeignVerdict::Passes),
        (vec![conntrack(1, 1, 2 | 4), accept()], ForeignVerdict::Passes),
        // An original port, or connections that were rewritten.
        (vec![conntrack(1 | 1024, 0, 8), accept()], MAY_DROP),
        (vec![conntrack(1, 0, 128), accept()], MAY_DROP),
        (vec![local, accept()], ForeignVerdict::Passes),
        (vec![remote, accept()], DROPS),
        (vec![multiport(1, &[80, 443], [0; 15], 0), accept()], ForeignVerdict::Passes),
        (vec![multiport(1, &[80, 8443], [0; 15], 0), accept()], DROPS),
        (vec![multiport(1, &[22, 400, 500], range, 0), accept()], ForeignVerdict::Passes),
        // From a port, or not to one.
        (vec![multiport(0, &[443], [0; 15], 0), accept()], MAY_DROP),
        (vec![multiport(1, &[80], [0; 15], 1), accept()], MAY_DROP),
        (vec![xt("match", "set", 4, &[0; 40]), accept()], MAY_DROP),
        (vec![xt("target", "NFQUEUE", 3, &[0; 8])], MAY_DROP),
        (vec![xt("target", "LOG", 0, &[0; 32])], DROPS),
    ] {
        assert_eq!(outcome(&[&exprs]), expected, "{exprs:?}");
    }
}

#[test]
fn what_cannot_be_read_makes_no_drop_of_an_accept() {
    let unreadable = xt("match", "set", 4, &[0; 40]);
    let drop = Expr::Verdict(Verdict::Drop);
    assert_eq!(
        outcome(&[&[unreadable.clone(), drop.clone()], &[accept()]]),
        ForeignVerdict::Passes
    );
    assert_eq!(outcome(&[&[unreadable, accept()], &[drop]]), MAY_DROP);
    let reject = xt("target", "REJECT", 0, &[0; 4]);
    assert_eq!(outcome(&[&[reject], &[accept()]]), DROPS);
}

#[test]
fn a_target_says_whom_it_sends_to_in_each_of_its_revisions() {
    let both = 3u32.to_ne_bytes();
    let (port, padding) = (8080u16.to_be_bytes(), [0; 12]);
    let v4 = [172, 17, 0, 2];
    let first = [&1u32.to_ne_bytes()[..], &both, &v4, &v4, &port, &port].concat();
    let later = [&both[..], &v4, &padding, &v4, &padding, &port, &port, &[0; 4]].concat();
    let v6 = address("2001:db8:d0c::2");
    let IpAddr::V6(six) = v6 else { panic!("{v6}") };
    let six = six.octets();
    let of_v6 = [&both[..], &six, &six, &port, &port, &[0; 4]].concat();
    let only_address = [&1u32.to_ne_bytes()[..], &six, &six, &[0; 8]].concat();
    for (family, revision, info, to, to_port) in [
        (Family::Ip, 0, &first, address("172.17.0.2"), Some(8080)),
        (Family::Ip, 2, &later, address("172.17.0.2"), Some(8080)),
        (Family::Ip6, 1, &of_v6, v6, Some(8080)),
        (Family::Ip6, 2, &only_address, v6, None),
    ] {
        let rule = read(family, &[xt("target", "DNAT", revision, info)]);
        let expected = Nat::Destination { address: Some(to), port: to_port };
        assert_eq!(rule.nat, Some(expected), "{family:?}, revision {revision}");
        assert_eq!(rule.exprs, []);
    }
    let cut = read(Family::Ip, &[xt("target", "DNAT", 2, &[1, 0])]);
    assert_eq!((cut.nat, cut.exprs.len()), (None, 1), "left as it is");
}

proptest! {
    #![proptest_config(ProptestConfig { failure_persistence: None, ..ProptestConfig::default() })]

    #[test]
    fn no_bytes_of_others_make_the_reader_panic(
        which in 0..8usize,
        name in prop::sample::select(vec!["tcp", "conntrack", "addrtype", "DNAT", "SNAT"]),
        revision in 0..4u32,
        info in vec(any::<u8>(), 0..180),
        raw in vec(0..20u8, 0..80),
        family in prop::sample::select(vec![Family::Ip, Family::Ip6, Family::Inet]),
    ) {
        let kinds = ["match", "target", "range", "meta", "immediate", "nat", "masq", "lookup"];
        let odd = Expr::Unknown { name: kinds[which].to_owned(), data: raw };
        let exprs = [xt(kinds[which], name, revision, &info), odd, accept()];
        let rules = ForeignRule::read(family, &exprs);
        let base = Base { hook: Hook::Prerouting, priority: -100, policy: ChainPolicy::Accept };
        let chain = |is_nat| ForeignChain {
            name: "c".to_owned(), base: Some(base), is_nat, rules: rules.clone(),
        };
        for is_nat in [false, true] {
            let chains = vec![chain(is_nat)];
            let table = ForeignTable { family, name: "t".to_owned(), chains, sets: vec![] };
            let _ = table.published();
            let packet = Packet::new(address("192.0.2.1"), address("192.0.2.2"), 6, (1, 2));
            let packet = Packet { fib_daddr_type: fib_type::LOCAL, ..packet };
            let _ = table.filter_of(&table.chains[0]).map(|filter| filter.verdict(&packet));
        }
    }
}
