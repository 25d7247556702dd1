//! Raw packets, sent and captured.

mod common;

use std::{io, net::IpAddr, time::Duration};

use common::{nft, world};
use nfguard_lab::{World, packet};

const TIMEOUT: Duration = Duration::from_secs(30);

fn pairs() -> [(IpAddr, IpAddr); 2] {
    let from: [IpAddr; 2] = ["203.0.113.9".parse(), "2001:db8:9::9".parse()]
        .map(|address| address.expect("an address"));
    [(from[0], World::HOST_V4), (from[1], World::HOST_V6)]
}

/// Returns odd packets of each kind, all with valid checksums.
fn odd_packets(from: IpAddr, to: IpAddr) -> Vec<Vec<u8>> {
    let xmas = packet::tcp(from, to, 40_000, 22, packet::FIN | packet::PSH | packet::URG);
    let udp = packet::udp(from, to, 9, 9, b"odd");
    let timestamp = match from {
        IpAddr::V4(_) => packet::ip(from, to, 1, 64, &packet::icmp(13, 0, &[0; 16])),
        IpAddr::V6(_) => packet::ip(from, to, 58, 255, &packet::icmpv6(from, to, 134, 0, &[0; 12])),
    };
    let routing_header = [59, 2, 0, 1, 0, 0, 0, 0];
    vec![
        packet::ip(from, to, 6, 1, &xmas),
        packet::ip(from, to, 17, 64, &udp),
        timestamp,
        packet::ip(from, to, 47, 64, &[0; 8]),
        packet::ip(from, to, 43, 64, &[&routing_header[..], &[0; 16]].concat()),
    ]
}

#[test]
fn a_raw_packet_arrives_as_it_was_sent() {
    let world = world();
    for (from, to) in pairs() {
        for sent in odd_packets(from, to) {
            let mut capture = world.host.capture().expect("a capture");
            world.internet.send_raw(None, &sent).expect("sent");
            let payload = &sent[if from.is_ipv4() { 20 } else { 40 }..];
            let seen = capture
                .wait(TIMEOUT, |packet| packet.ends_with(payload))
                .expect("captured")
                .unwrap_or_else(|| panic!("{sent:02x?} arrives"));
            assert_eq!(packet::source(&seen), Some(from));
            assert_eq!(packet::destination(&seen), Some(to));
            if from.is_ipv6() {
                assert_eq!(seen, sent);
            }
        }
    }
}

#[test]
fn the_kernel_accepts_the_checksums() {
    let world = world();
    // Connection tracking calls a packet with a wrong checksum invalid.
    nft(
        &world.host,
        "input",
        "ct state new meta l4proto { tcp, udp } counter name seen; \
         ct state new icmp type echo-request counter name seen; \
         ct state new icmpv6 type echo-request counter name seen",
    );
    for (from, to) in pairs() {
        let echo = [0, 7, 0, 1, b'x'];
        let (protocol, ping) = match from {
            IpAddr::V4(_) => (1, packet::icmp(8, 0, &echo)),
            IpAddr::V6(_) => (58, packet::icmpv6(from, to, 128, 0, &echo)),
        };
        let syn = packet::tcp(from, to, 40_000, 22, packet::SYN);
        let datagram = packet::udp(from, to, 9, 9, b"odd");
        for (protocol, payload) in [(protocol, ping), (6, syn), (17, datagram)] {
            let bytes = packet::ip(from, to, protocol, 64, &payload);
            world.internet.send_raw(None, &bytes).expect("sent");
        }
    }
    let listed = world.host.run(|| {
        std::process::Command::new("nft").args(["list", "counters"]).output().expect("nft runs")
    });
    let listed = String::from_utf8_lossy(&listed.stdout);
    assert!(listed.contains("packets 6 "), "{listed}");
}

#[test]
fn a_multicast_packet_needs_an_interface() {
    let world = world();
    let from: IpAddr = "fe80::1".parse().expect("an address");
    let to: IpAddr = "ff02::1".parse().expect("an address");
    let bytes = packet::ip(from, to, 17, 255, &packet::udp(from, to, 9, 9, b"all"));
    let mut capture = world.host.capture().expect("a capture");
    world.internet.send_raw(Some("eth0"), &bytes).expect("sent");
    let seen = capture.wait(TIMEOUT, |packet| packet == bytes).expect("captured");
    assert!(seen.is_some());
}

#[test]
fn a_packet_that_the_sender_drops_is_not_captured_and_not_permitted() {
    let world = world();
    nft(&world.internet, "output", "udp dport 9 drop");
    let (from, to) = pairs()[0];
    let bytes = |port| packet::ip(from, to, 17, 64, &packet::udp(from, to, 7, port, b""));
    let mut capture = world.host.capture().expect("a capture");
    let error = world.internet.send_raw(None, &bytes(9)).expect_err("dropped");
    assert_eq!(error.kind(), io::ErrorKind::PermissionDenied);
    world.internet.send_raw(None, &bytes(10)).expect("sent");
    let seen = capture
        .wait(TIMEOUT, |packet| packet::source(packet) == Some(from))
        .expect("captured")
        .expect("the second arrives");
    assert_eq!(seen[20..24], [0, 7, 0, 10], "and it is the first to arrive");
    assert!(world.internet.send_raw(None, b"no packet").is_err());
}
