//! What the kernel answers about addresses, interfaces and routes, and what is read of it.

use std::net::IpAddr;

use nfguard_netlink::{
    Error, InterfaceAddress, IpVersion, Link, NextHop, PerIpVersion, RouteAnswer, RouteQuestion,
    Rtnetlink,
};
use proptest::collection::vec;
use proptest::prelude::{ProptestConfig, any, proptest};

/// `RTM_*` of `linux/rtnetlink.h`: what is asked for, and the message of an answer to it.
const GETLINK: u16 = 18;
const NEWLINK: u16 = 16;
const GETADDR: u16 = 22;
const NEWADDR: u16 = 20;
const GETROUTE: u16 = 26;
const NEWROUTE: u16 = 24;
const GETNEIGH: u16 = 30;
const NEWNEIGH: u16 = 28;
const GETNEXTHOP: u16 = 106;
const NEWNEXTHOP: u16 = 104;
const ERROR: u16 = 2;
const DONE: u16 = 3;
/// `NLM_F_DUMP_INTR`.
const INTERRUPTED: u16 = 0x10;

fn attr(kind: u16, value: &[u8]) -> Vec<u8> {
    let len = u16::try_from(4 + value.len()).expect("short");
    let mut out = [&len.to_ne_bytes()[..], &kind.to_ne_bytes(), value].concat();
    out.resize(out.len().next_multiple_of(4), 0);
    out
}

fn message(request: &[u8], kind: u16, flags: u16, body: &[u8]) -> Vec<u8> {
    let len = u32::try_from(16 + body.len()).expect("short");
    let (kind, flags) = (kind.to_ne_bytes(), flags.to_ne_bytes());
    [&len.to_ne_bytes()[..], &kind, &flags, &request[8..12], &[0; 4], body].concat()
}

/// Answers each request with the bodies of its kind and the end of the dump.
fn answering(
    all: Vec<(u16, u16, Vec<u8>)>,
) -> impl FnMut(&[u8]) -> Result<Vec<u8>, Error> + Send + 'static {
    move |request| {
        let asked = u16::from_ne_bytes([request[4], request[5]]);
        let mut answer = Vec::new();
        for (ask, kind, body) in &all {
            if *ask == asked {
                answer.extend(message(request, *kind, 0, body));
            }
        }
        answer.extend(message(request, DONE, 0, &[0; 4]));
        Ok(answer)
    }
}

fn link(index: u32, name: &str) -> (u16, u16, Vec<u8>) {
    let head = [&[0; 4][..], &index.to_ne_bytes(), &[0; 8]].concat();
    (GETLINK, NEWLINK, [head, attr(3, format!("{name}\0").as_bytes())].concat())
}

fn address(family: u8, prefix: u8, index: u32, attrs: &[Vec<u8>]) -> (u16, u16, Vec<u8>) {
    let head = [&[family, prefix, 0, 0][..], &index.to_ne_bytes()].concat();
    (GETADDR, NEWADDR, [head, attrs.concat()].concat())
}

fn route(family: u8, prefix: u8, attrs: &[Vec<u8>]) -> (u16, u16, Vec<u8>) {
    let head = vec![family, prefix, 0, 0, 254, 2, 0, 1, 0, 0, 0, 0];
    (GETROUTE, NEWROUTE, [head, attrs.concat()].concat())
}

#[test]
fn a_link_is_what_it_is_made_of_and_hangs_on() {
    let four = |number: u32| number.to_ne_bytes();
    let with = |index: u32, flags: u32, attrs: &[Vec<u8>]| {
        let head = [&[0; 4][..], &four(index), &four(flags), &[0; 4]].concat();
        (GETLINK, NEWLINK, [head, attrs.concat()].concat())
    };
    let info = |kind: &str, data: &[u8]| {
        let kind = attr(1, format!("{kind}\0").as_bytes());
        attr(18, &[kind, attr(2, data)].concat())
    };
    let mut rtnetlink = Rtnetlink::from_exchange(answering(vec![
        with(1, 9, &[attr(3, b"lo\0")]),
        with(2, 1, &[attr(3, b"br0\0"), attr(1, &[2; 6]), info("bridge", &attr(36, &[1]))]),
        with(
            3,
            1,
            &[
                attr(3, b"veth1\0"),
                attr(10, &four(2)),
                attr(5, &four(9)),
                attr(37, &four(0)),
                info("veth", &[]),
            ],
        ),
        with(4, 0, &[attr(3, b"vnet0\0"), info("tun", &attr(3, &[2]))]),
    ]));
    let links = rtnetlink.links().expect("links");
    let expected = [
        Link { index: 1, name: "lo".into(), is_up: true, is_loopback: true, ..Link::default() },
        Link {
            index: 2,
            name: "br0".into(),
            kind: "bridge".into(),
            is_up: true,
            address: vec![2; 6],
            calls_hooks: PerIpVersion { v4: true, v6: false },
            ..Link::default()
        },
        Link {
            index: 3,
            name: "veth1".into(),
            kind: "veth".into(),
            is_up: true,
            master: Some(2),
            parent: Some(9),
            is_linked_elsewhere: true,
            ..Link::default()
        },
        Link {
            index: 4,
            name: "vnet0".into(),
            kind: "tun".into(),
            is_tap: true,
            ..Link::default()
        },
    ];
    assert_eq!(links.into_values().collect::<Vec<_>>(), expected);
}

#[test]
fn further_addresses_are_the_links_own_and_no_groups() {
    let entry = |index: u32, state: u8, flags: u8, attrs: &[Vec<u8>]| {
        let head = [&[7, 0, 0, 0][..], &index.to_ne_bytes(), &[state, 0, flags, 0]].concat();
        (GETNEIGH, NEWNEIGH, [head, attrs.concat()].concat())
    };
    let macvlan = [2, 0, 0, 0, 0, 7];
    let mut rtnetlink = Rtnetlink::from_exchange(answering(vec![
        entry(2, 0x80, 2, &[attr(2, &macvlan)]),
        entry(2, 0x80, 2, &[attr(2, &[1, 0, 0x5e, 0, 0, 1])]),
        entry(3, 0x80, 0, &[attr(2, &[2, 0, 0, 0, 0, 8])]),
        entry(3, 0x02, 2, &[attr(2, &[2, 0, 0, 0, 0, 9])]),
        entry(4, 0x80, 2, &[attr(2, &[2, 0, 0, 0, 0, 10]), attr(1, &[192, 0, 2, 1])]),
    ]));
    let found = rtnetlink.further_addresses().expect("addresses");
    assert_eq!(found, [(2, macvlan.to_vec())]);
}

#[test]
fn each_question_for_a_route_has_its_own_answer_or_none() {
    // A gateway for even addresses, and ENETUNREACH for odd ones.
    let mut rtnetlink = Rtnetlink::from_exchange(|requests| {
        let (mut rest, mut answer) = (requests, Vec::new());
        while !rest.is_empty() {
            let len = u32::from_ne_bytes(rest[..4].try_into().expect("four bytes"));
            let (request, more) = rest.split_at(usize::try_from(len).expect("small"));
            rest = more;
            assert_eq!(request[16..20], [2, 32, 32, 0], "a whole destination and source");
            let last = request[35];
            answer.extend(match last % 2 {
                0 => {
                    let body = [
                        vec![2, 32, 0, 0, 254, 0, 0, 1, 0, 0, 0, 0],
                        attr(4, &7u32.to_ne_bytes()),
                        attr(5, &[192, 0, 2, last]),
                        attr(7, &[198, 51, 100, 2]),
                    ];
                    message(request, NEWROUTE, 0, &body.concat())
                }
                _ => message(request, ERROR, 0, &[&(-101i32).to_ne_bytes()[..], &[0; 16]].concat()),
            });
        }
        Ok(answer)
    });
    let question = |last: u8| RouteQuestion {
        source: Some(ip("203.0.113.7")),
        in_interface: Some(3),
        ..RouteQuestion::to([172, 18, 0, last].into())
    };
    let answers = rtnetlink.look_up(&(0..120).map(question).collect::<Vec<_>>()).expect("answers");
    for (last, answer) in (0u8..).zip(answers) {
        let expected = (last % 2 == 0).then_some(RouteAnswer {
            kind: 1,
            interface: Some(7),
            gateway: Some([192, 0, 2, last].into()),
            source: Some(ip("198.51.100.2")),
        });
        assert_eq!(answer, expected, "{last}");
    }
    let mut silent = Rtnetlink::from_exchange(|_| Ok(Vec::new()));
    assert!(matches!(silent.look_up(&[question(0)]), Err(Error::AnswerLost)));
}

fn ip(text: &str) -> IpAddr {
    text.parse().expect("an address")
}

#[test]
fn an_address_is_the_local_end_with_its_label_or_its_interfaces_name() {
    let v6 = [0x20, 1, 0x0d, 0xb8, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 1];
    let mut rtnetlink = Rtnetlink::from_exchange(answering(vec![
        link(7, "eth0"),
        link(8, "ppp0"),
        address(2, 24, 7, &[attr(1, &[192, 0, 2, 1]), attr(3, b"eth0:1\0")]),
        address(2, 32, 8, &[attr(1, &[192, 0, 2, 9]), attr(2, &[192, 0, 2, 8])]),
        address(10, 64, 7, &[attr(1, &v6)]),
        // Neither IPv4 nor IPv6.
        address(28, 0, 7, &[attr(1, &[1, 2, 3, 4])]),
    ]));
    let expected = |interface: &str, index, address: &str, prefix_len| InterfaceAddress {
        interface: interface.to_owned(),
        index,
        address: ip(address),
        prefix_len,
    };
    assert_eq!(
        rtnetlink.addresses().expect("addresses"),
        [
            expected("eth0:1", 7, "192.0.2.1", 24),
            expected("ppp0", 8, "192.0.2.8", 32),
            expected("eth0", 7, "2001:db8::1", 64),
        ]
    );
}

fn routes() -> Vec<(u16, u16, Vec<u8>)> {
    let hop = |index: u32, attrs: Vec<u8>| {
        let len = u16::try_from(8 + attrs.len()).expect("short");
        [&len.to_ne_bytes()[..], &[0, 0], &index.to_ne_bytes(), &attrs].concat()
    };
    let hops = [hop(7, attr(5, &[192, 0, 2, 2])), hop(8, Vec::new())].concat();
    // Another version's gateway, with its family before it.
    let via =
        [&10u16.to_ne_bytes()[..], &[0xfe, 0x80, 0, 0, 0, 0, 0, 0], &[0, 0, 0, 0, 0, 0, 0, 1]];
    vec![
        route(2, 0, &[attr(5, &[192, 0, 2, 1]), attr(4, &7u32.to_ne_bytes())]),
        route(2, 8, &[attr(1, &[10, 0, 0, 0]), attr(15, &1000u32.to_ne_bytes()), attr(9, &hops)]),
        route(2, 16, &[attr(1, &[172, 16, 0, 0]), attr(18, &via.concat())]),
        // On the link.
        route(2, 24, &[attr(1, &[192, 0, 2, 0]), attr(4, &7u32.to_ne_bytes())]),
        (GETNEXTHOP, NEWNEXTHOP, [vec![0; 8], attr(6, &[192, 0, 2, 3])].concat()),
    ]
}

#[test]
fn a_route_has_its_table_and_all_of_its_next_hops() {
    let all = Rtnetlink::from_exchange(answering(routes())).routes(|_| true).expect("routes");
    assert_eq!(all.len(), 4);
    let hop = |gateway: Option<&str>, interface| NextHop { gateway: gateway.map(ip), interface };
    assert_eq!((all[0].version, all[0].destination, all[0].table), (IpVersion::V4, None, 254));
    assert_eq!(all[0].next_hops, [hop(Some("192.0.2.1"), Some(7))]);
    assert_eq!(
        (all[1].destination, all[1].prefix_len, all[1].table),
        (Some(ip("10.0.0.0")), 8, 1000)
    );
    assert_eq!(all[1].next_hops, [hop(Some("192.0.2.2"), Some(7)), hop(None, Some(8))]);
    assert_eq!(all[2].next_hops, [hop(Some("fe80::1"), None)]);
    assert_eq!(all[3].next_hops, [hop(None, Some(7))]);
    let mut rtnetlink = Rtnetlink::from_exchange(answering(routes()));
    let defaults = rtnetlink.routes(|route| route.prefix_len == 0).expect("routes");
    assert_eq!(defaults, all[..1]);
}

#[test]
fn gateways_are_those_of_every_route_and_next_hop_object() {
    let gateways = Rtnetlink::from_exchange(answering(routes())).gateways().expect("gateways");
    let expected = ["192.0.2.1", "192.0.2.2", "192.0.2.3", "fe80::1"].map(ip);
    assert_eq!(gateways, expected.into());
}

#[test]
fn a_list_that_changed_meanwhile_is_read_again() {
    let mut reads = 0;
    let mut rtnetlink = Rtnetlink::from_exchange(move |request| {
        reads += 1;
        let (_, kind, body) = link(reads, "eth0");
        let flags = if reads < 3 { INTERRUPTED } else { 0 };
        Ok([message(request, kind, flags, &body), message(request, DONE, 0, &[0; 4])].concat())
    });
    let interfaces = rtnetlink.interfaces().expect("interfaces");
    assert_eq!(interfaces, [(3, "eth0".to_owned())].into());
}

#[test]
fn a_list_that_never_stands_still_or_has_no_end_is_an_error() {
    let mut changing =
        Rtnetlink::from_exchange(|request| Ok(message(request, DONE, INTERRUPTED, &[0; 4])));
    assert!(matches!(changing.interfaces(), Err(Error::Interrupted)));
    // Routes may change: a router's never stand still.
    assert_eq!(changing.gateways().expect("none"), [].into());
    let (_, kind, body) = link(1, "eth0");
    let mut endless = Rtnetlink::from_exchange(move |request| Ok(message(request, kind, 0, &body)));
    assert!(matches!(endless.interfaces(), Err(Error::AnswerLost)));
}

proptest! {
    #![proptest_config(ProptestConfig { failure_persistence: None, ..ProptestConfig::default() })]

    #[test]
    fn no_bytes_make_the_reader_panic_or_read_for_ever(
        which in 0..4usize,
        is_done in any::<bool>(),
        // Small numbers, as in lengths and types.
        body in vec(0..24u8, 0..200),
    ) {
        let kind = [NEWLINK, NEWADDR, NEWROUTE, NEWNEXTHOP][which];
        let mut rtnetlink = Rtnetlink::from_exchange(move |request| {
            let end = if is_done { message(request, DONE, 0, &[0; 4]) } else { Vec::new() };
            Ok([message(request, kind, 0, &body), end].concat())
        });
        let _ = rtnetlink.addresses();
        let _ = rtnetlink.routes(|_| true);
        let _ = rtnetlink.gateways();
        let _ = rtnetlink.links();
        let _ = rtnetlink.further_addresses();
        let _ = rtnetlink.look_up(&[RouteQuestion::to(ip("192.0.2.1"))]);
    }
}
