//! The answers that a rejected sender gets.

use std::net::IpAddr;

use nfguard_lab::{World, packet};
use nfguard_netlink::protocol::{ICMP, ICMPV6, TCP, UDP};
use nfguard_tests::program::TempFile;
use nfguard_tests::ufw::ufw;
use nfguard_tests::wait::TIMEOUT;

use crate::nfguard_load;

/// Port, protocol of the packet, and whether ufw and nfguard answer with a TCP reset. Otherwise
/// they answer "port unreachable".
const ANSWERS: [(u16, u8, bool, bool); 5] = [
    (113, TCP, true, true),
    (113, UDP, false, false),
    // The default of nfguard answers like a closed port. The default of ufw does not.
    (114, TCP, false, true),
    (114, UDP, false, false),
    (114, 47, false, false),
];

#[test]
fn a_rejected_sender_gets_the_answer_of_a_closed_port() {
    let [judge, ours] = [crate::world(), crate::world()];
    ufw(&judge.host, &["default reject incoming", "reject 113/tcp", "reject 113/udp"]);
    let policy = r#"{
        "version": 1,
        "default": {"in": "reject", "out": "accept", "forward": "drop"},
        "rules": [{"action": "reject", "proto": ["tcp", "udp"], "port": 113}]
    }"#;
    nfguard_load(&ours.host, TempFile::new("reject.json", policy));
    for (port, protocol, by_ufw, by_us) in ANSWERS {
        for (from, to) in
            [(World::INTERNET_V4, World::HOST_V4), (World::INTERNET_V6, World::HOST_V6)]
        {
            for (who, world, is_reset) in [("ufw", &judge, by_ufw), ("nfguard", &ours, by_us)] {
                let unreachable = if from.is_ipv4() { ICMP } else { ICMPV6 };
                let expected = if is_reset { TCP } else { unreachable };
                let heard = answer(world, (from, to), (protocol, port), unreachable);
                assert_eq!(heard, expected, "{who}, protocol {protocol}, port {port}, {to}");
            }
        }
    }
}

/// Returns the protocol of the answer: a TCP reset, or "port unreachable".
fn answer(
    world: &World,
    (from, to): (IpAddr, IpAddr),
    (protocol, port): (u8, u16),
    icmp: u8,
) -> u8 {
    let payload = match protocol {
        TCP => packet::tcp(from, to, 40_000, port, packet::SYN),
        UDP => packet::udp(from, to, 40_000, port, b"probe"),
        _ => vec![0, 0, 8, 0, 0, 0, 0, 0],
    };
    let (at, header) = if from.is_ipv4() { (9, 20) } else { (6, 40) };
    let mut capture = world.internet.capture().expect("packets can be captured");
    world
        .internet
        .send_raw(None, &packet::ip(from, to, protocol, 64, &payload))
        .expect("nothing stops it here");
    let port_unreachable: &[u8] = if from.is_ipv4() { &[3, 3] } else { &[1, 4] };
    let is_answer = |packet: &[u8]| {
        let of = packet.get(at).copied();
        let body = packet.get(header..).unwrap_or_default();
        let is_reset = of == Some(TCP) && body.get(13).is_some_and(|flags| flags & 4 != 0);
        let is_unreachable = of == Some(icmp) && body.starts_with(port_unreachable);
        packet::source(packet) == Some(to) && (is_reset || is_unreachable)
    };
    let heard = capture.wait(TIMEOUT, is_answer).expect("packets can be captured");
    heard.and_then(|packet| packet.get(at).copied()).expect("an answer comes")
}
