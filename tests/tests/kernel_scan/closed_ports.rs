//! Scans of closed ports: the number of different ports within a time.

use std::net::IpAddr;

use nfguard_lab::{Probe, World, packet};
use nfguard_netlink::protocol;
use nfguard_tests::nft::nft;
use nfguard_tests::wait::TIMEOUT;

use crate::{Ground, OTHER_SOURCE, SOURCE, SOURCE_V6, USUAL, address};

#[test]
fn the_sixth_closed_port_bans_and_the_fifth_does_not() {
    let mut ground = Ground::new(USUAL);
    for source in [SOURCE, SOURCE_V6] {
        ground.syns(source, 1000, 5);
        assert!(!ground.is_banned(source), "{source}");
        ground.syn(source, 2000);
        assert!(ground.is_banned(source), "{source}");
        assert_eq!(
            ground.find("banned", source).expect("is").element.timeout.unwrap().as_secs(),
            7200
        );
    }
    assert!(!ground.is_banned(OTHER_SOURCE));
}

#[test]
fn tcp_and_udp_of_one_number_are_two_ports() {
    let mut ground = Ground::new(USUAL);
    for port in [500, 501, 502] {
        ground.syn(SOURCE, port);
        assert!(!ground.is_banned(SOURCE));
        ground.udp(SOURCE, 40_000, port);
    }
    assert!(ground.is_banned(SOURCE));
    for port in 500..506 {
        assert!(!ground.is_banned(SOURCE_V6));
        ground.udp(SOURCE_V6, 53, port);
    }
    assert!(ground.is_banned(SOURCE_V6), "from whatever port it sends");
}

#[test]
fn one_closed_port_is_no_scan_however_often_it_is_tried() {
    let mut ground = Ground::new(r#"{ "ports": 2, "seconds": 3600 }"#);
    for _ in 0..1000 {
        ground.syn(SOURCE, 8080);
        ground.syn(SOURCE_V6, 8080);
    }
    assert!(!ground.is_banned(SOURCE) && !ground.is_banned(SOURCE_V6));
    assert_eq!(ground.count("scan/closed"), 2);
    ground.syn(SOURCE, 8081);
    assert!(ground.is_banned(SOURCE), "the control");
}

#[test]
fn ports_named_by_a_rule_do_not_count() {
    let mut ground = Ground::new(r#"{ "ports": 2, "seconds": 3600 }"#);
    for port in [80, 443, 23, 24, 25, 26] {
        ground.syn(SOURCE, port);
    }
    assert!(!ground.is_banned(SOURCE));
    assert_eq!(ground.count("scan/closed"), 0);
    ground.syns(SOURCE, 444, 2);
    assert!(ground.is_banned(SOURCE), "the control");
}

#[test]
fn one_port_at_several_addresses_counts_as_several() {
    let mut ground = Ground::new(USUAL);
    let all: Vec<IpAddr> = (20..26).map(|last| address(&format!("198.51.100.{last}"))).collect();
    for to in &all {
        ground.world.host.address("eth0", *to, 24).expect("can be added");
    }
    for to in all {
        assert!(!ground.is_banned(SOURCE));
        let syn = |from, to| packet::tcp(from, to, 40_000, 3389, packet::SYN);
        ground.send_to(address(SOURCE), to, protocol::TCP, syn);
    }
    assert!(ground.is_banned(SOURCE));
}

#[test]
fn an_ipv6_source_is_its_64_network() {
    let mut ground = Ground::new(USUAL);
    for host in 1..=6 {
        ground.syn(&format!("2001:db8:7::{host}"), 1000 + host);
    }
    assert!(ground.is_banned("2001:db8:7::9"));
    assert!(!ground.is_banned("2001:db8:7:1::1"));
}

#[test]
fn an_old_probe_does_not_count() {
    let mut ground = Ground::new(r#"{ "ports": 3, "seconds": 2 }"#);
    ground.syns(SOURCE, 1000, 2);
    ground.wait_until("the first is forgotten", |it| it.find("2", SOURCE).is_none());
    ground.syn(SOURCE, 2000);
    assert!(!ground.is_banned(SOURCE));
}

#[test]
fn a_source_that_scans_around_a_published_port_loses_access_to_it() {
    let mut ground = Ground::new(USUAL);
    nft(
        &ground.world.host,
        "table inet publish { chain pre { type nat hook prerouting priority dstnat;
            tcp dport { 80, 5000 } dnat ip to 172.17.0.2:8080; }
        }\n",
    );
    let container = ground.world.container.as_ref().expect("the world has a container");
    let _server = container.serve_tcp((World::CONTAINER_V4, 8080)).expect("serves");
    let passes = |ground: &Ground, from: &str, seconds| {
        let probe = Probe::tcp(&ground.world.internet, (World::HOST_V4, 80)).from(address(from));
        probe.timeout(std::time::Duration::from_secs(seconds)).run().passed()
    };
    let timeout = TIMEOUT.as_secs();
    assert!(passes(&ground, SOURCE, timeout));
    // One of these ports is published, but no rule allows it.
    ground.syns(SOURCE, 4996, 6);
    assert!(ground.is_banned(SOURCE));
    assert!(!passes(&ground, SOURCE, 1));
    assert!(passes(&ground, OTHER_SOURCE, timeout), "the control");
}
