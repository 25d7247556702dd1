//! Sources that must not be banned.

use std::io::{Read as _, Write as _};
use std::net::IpAddr;

use nfguard_lab::{Probe, ProbeOutcome, World, packet, run_all};
use nfguard_netlink::protocol;
use nfguard_tests::program::many;
use nfguard_tests::wait::TIMEOUT;

use crate::{Ground, OTHER_SOURCE, SOURCE, SOURCE_V6, USUAL, address};

/// Two closed ports are a scan, and no source counts as known.
const STRICT: &str = r#"{ "ports": 2, "seconds": 3600, "known_seconds": 0 }"#;

#[test]
fn a_never_ban_entry_is_not_banned_for_a_scan() {
    let mut ground = Ground::with(USUAL, r#""never_ban": ["192.0.2.0/28", "2001:db8:7::1"],"#);
    let gateways = [World::INTERNET_V4, World::INTERNET_V6].map(|it| it.to_string());
    for source in [SOURCE, SOURCE_V6, &gateways[0], &gateways[1]] {
        ground.syns(source, 1000, 20);
        ground.tcp(source, 9, 0);
        assert!(!ground.is_banned(source), "{source}");
    }
    assert!(ground.count("scan/exempt") > 0);
    ground.tcp("192.0.2.16", 9, 0);
    assert!(ground.is_banned("192.0.2.16"), "the control");
    // Another address of the network is banned. The entry itself is not.
    ground.tcp("2001:db8:7::2", 9, 0);
    assert!(ground.is_banned(SOURCE_V6));
    let dropped = ground.count("scan/dropped");
    ground.syn(SOURCE_V6, 80);
    assert_eq!(ground.count("scan/dropped"), dropped);
    ground.syn("2001:db8:7::2", 80);
    assert_eq!(ground.count("scan/dropped"), dropped + 1);
}

#[test]
fn a_new_never_ban_entry_is_exempt_at_once() {
    let mut ground = Ground::new(USUAL);
    ground.tcp(SOURCE, 9, 0);
    assert!(ground.is_banned(SOURCE));
    ground.nfguard(&["never", "add", "192.0.2.0/24", "--reason", "the office"]);
    ground.syn(SOURCE, 80);
    assert_eq!(ground.count("scan/dropped"), 0);
    ground.tcp("192.0.2.8", 9, 0);
    assert!(!ground.is_banned("192.0.2.8"));
    ground.nfguard(&["never", "remove", "192.0.2.0/24"]);
    ground.tcp("192.0.2.8", 9, 0);
    assert!(ground.is_banned("192.0.2.8"));
}

#[test]
fn a_new_address_of_the_host_is_exempt_from_the_next_save_on() {
    let mut ground = Ground::new(USUAL);
    let (own, other) = ("198.51.100.60", "198.51.100.61");
    ground.world.host.address("eth0", address(own), 24).expect("can be added");
    let saved = ground.folder.path().join("bans");
    ground.nfguard(&["save", saved.to_str().expect("UTF-8")]);
    ground.tcp(other, 9, 0);
    ground.tcp(own, 9, 0);
    assert!(ground.is_banned(other) && !ground.is_banned(own));
}

#[test]
fn a_peer_that_has_sent_data_is_not_banned_for_closed_ports_nor_for_flags() {
    let mut ground = Ground::new(USUAL);
    let _servers = ground.serve();
    for (source, to) in [(SOURCE, World::HOST_V4), (SOURCE_V6, World::HOST_V6)] {
        visit(&ground, source, to);
        assert!(ground.find("known", source).is_some(), "{source}");
        ground.syns(source, 1000, 20);
        assert!(!ground.is_banned(source), "{source}");
        // Anyone could have sent these in its name.
        for flags in [0, packet::FIN, packet::SYN | packet::FIN, packet::SYN | packet::RST] {
            ground.tcp(source, 9, flags);
        }
        assert!(!ground.is_banned(source), "{source}");
    }
    assert!(ground.count("scan/exempt") > 0);
    ground.tcp(OTHER_SOURCE, 9, 0);
    assert!(ground.is_banned(OTHER_SOURCE), "the control");
}

/// The networks are younger than the never-ban list.
#[test]
fn what_comes_in_elsewhere_bans_no_network_behind_this_host() {
    let mut ground = Ground::new(STRICT);
    let host = &ground.world.host;
    let inner = nfguard_tests::place::netns();
    nfguard_lab::veth(host, "inner0", &inner, "eth0").expect("a link");
    host.bridge("br-late").expect("a bridge");
    let networks =
        [("br-late", "10.99.0.1", "2001:db8:99::1"), ("inner0", "10.98.0.1", "2001:db8:98::1")];
    for (link, v4, v6) in networks {
        host.address(link, address(v4), 24).expect("an address");
        host.address(link, address(v6), 64).expect("an address");
    }
    let illegal = [
        0,
        packet::FIN,
        packet::FIN | packet::PSH | packet::URG,
        packet::SYN | packet::FIN,
        packet::SYN | packet::RST,
    ];
    for filter in ["0", "2", "1"] {
        for interface in ["all", "eth0", "inner0"] {
            let setting = format!("ipv4/conf/{interface}/rp_filter");
            ground.world.host.sysctl(&setting, filter).expect("can be set");
        }
        let mut claimed = vec!["10.99.0.2", "10.98.0.2", "2001:db8:99::2", "2001:db8:98::2"];
        // Of the host's own uplink and its neighbours there.
        claimed.extend(["172.17.0.2", "172.17.0.99", "2001:db8:d0c::2"]);
        for source in &claimed {
            illegal.into_iter().for_each(|flags| ground.tcp(source, 9, flags));
            ground.syns(source, 1000, 10);
            (500..510).for_each(|port| ground.udp(source, 40_000, port));
        }
        for source in claimed {
            assert!(!ground.is_banned(source), "{source} with rp_filter {filter}");
            assert!(ground.find("flags", source).is_none(), "{source} with rp_filter {filter}");
        }
    }
    // What comes from there itself counts.
    let sender = inner.raw_sender().expect("raw sockets");
    for (from, to) in [("10.98.0.7", "10.98.0.1"), ("2001:db8:98::7", "2001:db8:98::1")] {
        let (from, to) = (address(from), address(to));
        inner.address("eth0", from, 24).expect("an address");
        let tcp = packet::tcp(from, to, 40_000, 9, packet::FIN);
        sender.send(&packet::ip(from, to, protocol::TCP, 77, &tcp)).expect("it is sent");
        ground.sent += 1;
        assert!(ground.is_banned(&from.to_string()), "the control: {from}");
    }
}

/// Requests a page, as a browser does.
fn visit(ground: &Ground, source: &str, to: IpAddr) {
    let probe = Probe::tcp(&ground.world.internet, (to, 80)).from(address(source));
    let mut connection = probe.timeout(TIMEOUT).connect().expect("is let in");
    connection.write_all(b"GET / HTTP/1.1\r\n\r\n").expect("sends");
    let _ = connection.read(&mut [0; 16]).expect("is answered");
}

#[test]
fn an_office_behind_one_address_is_not_banned_for_the_wrong_bookmarks_of_many() {
    let mut ground = Ground::new(USUAL);
    let _servers = ground.serve();
    ground.syns(SOURCE, 1000, 5);
    for port in 2000..2050 {
        visit(&ground, SOURCE, World::HOST_V4);
        ground.syn(SOURCE, port);
    }
    assert!(!ground.is_banned(SOURCE));
    ground.syns(OTHER_SOURCE, 2000, 6);
    assert!(ground.is_banned(OTHER_SOURCE), "the control");
}

#[test]
fn a_handshake_without_its_answer_makes_no_source_known() {
    let mut ground = Ground::new(USUAL);
    let _servers = ground.serve();
    // The packets of a sender with a forged source, which sees no answer.
    let send = packet::PSH | packet::ACK;
    for flags in [packet::SYN, packet::ACK, send, send] {
        ground.tcp(SOURCE, 80, flags);
    }
    assert!(ground.find("known", SOURCE).is_none());
    ground.syns(SOURCE, 1000, 6);
    assert!(ground.is_banned(SOURCE));
}

#[test]
fn ten_thousand_honest_connections_cause_no_ban() {
    let mut ground = Ground::new(STRICT);
    let _servers = ground.serve();
    let each = usize::try_from(many(10_000) / 4).expect("few");
    for port in [80, 443] {
        for (source, to) in [(SOURCE, World::HOST_V4), (SOURCE_V6, World::HOST_V6)] {
            let probe = Probe::tcp(&ground.world.internet, (to, port)).from(address(source));
            let probes = vec![probe.timeout(TIMEOUT); each];
            let passed = run_all(&probes).into_iter().filter(ProbeOutcome::passed).count();
            assert_eq!(passed, each, "{source}");
        }
    }
    assert!(!ground.is_banned(SOURCE) && !ground.is_banned(SOURCE_V6));
    assert_eq!(ground.count("scan/closed"), 0);
}

#[test]
fn tracing_a_route_and_its_mtu_is_no_scan() {
    let mut ground = Ground::new(STRICT);
    // traceroute, mtr and tracepath.
    for port in (33_434..33_534).chain(33_000..33_100).chain(44_444..44_540) {
        for source in [SOURCE, SOURCE_V6] {
            ground.udp(source, 40_000, port);
        }
    }
    for kind in [0, 3, 4, 5, 8, 11, 12] {
        let quoted = [0; 32];
        ground.send(SOURCE, protocol::ICMP, |_, _| packet::icmp(kind, 4, &quoted));
    }
    for kind in [1, 2, 3, 4, 128, 129] {
        let icmp = |from, to| packet::icmpv6(from, to, kind, 0, &[0; 44]);
        ground.send(SOURCE_V6, protocol::ICMPV6, icmp);
    }
    assert!(!ground.is_banned(SOURCE) && !ground.is_banned(SOURCE_V6));
    for source in [SOURCE, SOURCE_V6] {
        (500..502).for_each(|port| ground.udp(source, 40_000, port));
        assert!(ground.is_banned(source), "the control");
    }
}

#[test]
fn late_answers_are_no_scan() {
    let mut ground = Ground::new(STRICT);
    for port in 50_000..50_050 {
        for source in [SOURCE, SOURCE_V6] {
            ground.udp(source, 53, port);
            ground.udp(source, 443, port);
            // Answers to multicast questions on the link: SSDP, WSD, mDNS.
            for from in [1900, 3702, 5353] {
                ground.udp(source, from, port);
            }
            // Some resolvers use low source ports.
            ground.udp(source, 53, port - 45_000);
            ground.tcp(source, port, packet::SYN | packet::ACK);
        }
    }
    assert!(!ground.is_banned(SOURCE) && !ground.is_banned(SOURCE_V6));
}

#[test]
fn broadcast_and_multicast_packets_are_no_scan() {
    for builtin in ["{}", r#"{ "quiet-broadcast": false }"#] {
        let mut ground = Ground::with(STRICT, &format!(r#""builtin": {builtin},"#));
        for port in 600..620 {
            let udp = |from, to| packet::udp(from, to, 40_000, port, b"x");
            for to in ["255.255.255.255", "198.51.100.255", "224.0.0.1"] {
                let (from, to) = (World::INTERNET_V4, address(to));
                let bytes = packet::ip(from, to, protocol::UDP, 77, &udp(from, to));
                ground.world.internet.send_raw(Some("eth0"), &bytes).expect("it is sent");
                ground.sent += 1;
            }
        }
        assert_eq!(ground.count("scan/closed"), 0, "{builtin}");
    }
}

#[test]
fn containers_of_this_host_are_not_banned() {
    let mut ground = Ground::new(STRICT);
    let container = ground.world.container.as_ref().expect("the world has a container");
    let sender = container.raw_sender().expect("raw sockets");
    for (from, to) in [(World::CONTAINER_V4, World::HOST_V4), (World::CONTAINER_V6, World::HOST_V6)]
    {
        for port in 1000..1010 {
            for flags in [packet::SYN, 0] {
                let tcp = packet::tcp(from, to, 40_000, port, flags);
                sender.send(&packet::ip(from, to, protocol::TCP, 77, &tcp)).expect("it is sent");
                ground.sent += 1;
            }
        }
        assert!(!ground.is_banned(&from.to_string()), "{from}");
    }
}

#[test]
fn only_packets_of_the_named_interfaces_count() {
    let mut ground =
        Ground::new(r#"{ "ports": 2, "seconds": 3600, "in_interface": ["eth1", "wg*"] }"#);
    ground.syns(SOURCE, 1000, 10);
    ground.tcp(SOURCE, 9, 0);
    assert!(!ground.is_banned(SOURCE));
    ground.load(r#"{ "ports": 2, "seconds": 3600, "in_interface": "eth*" }"#, "");
    ground.syns(SOURCE, 1000, 2);
    ground.tcp(OTHER_SOURCE, 9, 0);
    assert!(ground.is_banned(SOURCE) && ground.is_banned(OTHER_SOURCE));
}
