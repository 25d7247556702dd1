//! Indirect paths to host and containers, and deny rules that come before built-in allowances.

use std::net::{IpAddr, SocketAddr};
use std::process::Command;
use std::time::{Duration, Instant};

use nfguard_lab::{Netns, Probe, ProbeOutcome, World, packet};
use nfguard_netlink::protocol;
use nfguard_tests::judge::{self, Place};
use nfguard_tests::nft::nft;
use nfguard_tests::place::world_with_container;
use nfguard_tests::program::{TempFile, nfguard};
use nfguard_tests::wait::TIMEOUT;

/// An address that is routed to the host but not configured on it.
const ROUTED: [u8; 4] = [198, 51, 100, 60];

fn load(world: &World, rules: &str) {
    let policy = TempFile::new("paths.json", &format!(r#"{{ "version": 1, "rules": [{rules}] }}"#));
    let answer = nfguard(&world.host, &["load".as_ref(), policy.as_ref()]);
    assert_eq!(answer.status, Some(0), "{answer:?}");
}

fn run(netns: &Netns, program: &str, arguments: &str) {
    let output = netns.run(|| Command::new(program).args(arguments.split(' ')).output());
    let output = output.unwrap_or_else(|error| panic!("{program}: {error}"));
    assert!(output.status.success(), "{program} {arguments}: {output:?}");
}

fn tcp(world: &World, from: [u8; 4], to: impl Into<IpAddr>, port: u16) -> ProbeOutcome {
    let to = SocketAddr::new(to.into(), port);
    Probe::tcp(&world.internet, to).from(IpAddr::from(from)).run()
}

fn must_pass(world: &World, from: [u8; 4], to: impl Into<IpAddr>, port: u16) {
    let to = SocketAddr::new(to.into(), port);
    let probe = Probe::tcp(&world.internet, to).from(IpAddr::from(from)).timeout(TIMEOUT);
    let outcome = probe.run();
    assert!(outcome.passed(), "{to}: {outcome}");
}

const STRANGER: [u8; 4] = [203, 0, 113, 7];

/// Makes the internet send packets for the routed address to the host.
fn route_to_host(world: &World) {
    run(&world.internet, "ip", "route add 198.51.100.60/32 via 198.51.100.2");
}

#[test]
fn packets_that_a_routing_rule_delivers_locally_are_filtered() {
    let world = world_with_container();
    route_to_host(&world);
    run(&world.host, "ip", "rule add to 198.51.100.60 lookup 100 priority 1");
    run(&world.host, "ip", "route add local 198.51.100.60 dev lo table 100");
    judge::install(&world.host);
    // Only UDP sockets and transparent sockets can use such an address, so the test counts packets.
    // Each has a source of its own.
    let send = |source: [u8; 4], port| {
        let (source, to) = (source.into(), ROUTED.into());
        let datagram = packet::udp(source, to, 40_000, port, b"hello");
        let packet = packet::ip(source, to, protocol::UDP, 64, &datagram);
        world.internet.send_raw(None, &packet).expect("sent");
    };
    let came = |place: Place, source: [u8; 4]| {
        judge::seen(&world.host, place).contains(&IpAddr::from(source))
    };
    let must_come_in = |source| {
        let deadline = Instant::now() + TIMEOUT;
        while !came(Place::LetIn, source) {
            assert!(Instant::now() < deadline, "{source:?} did not come in");
        }
    };
    send([192, 0, 2, 1], 6667);
    must_come_in([192, 0, 2, 1]);

    load(&world, r#"{ "action": "allow", "proto": "udp", "port": 443 }"#);
    send([192, 0, 2, 2], 6667);
    send([192, 0, 2, 3], 443);
    must_come_in([192, 0, 2, 3]);
    assert!(came(Place::Arrived, [192, 0, 2, 2]) && !came(Place::LetIn, [192, 0, 2, 2]), "not");
}

#[test]
fn packets_of_foreign_nat_are_filtered_by_their_original_port() {
    let world = world_with_container();
    route_to_host(&world);
    nft(
        &world.host,
        "table ip other {
            chain redirects {
                type nat hook prerouting priority dstnat
                ip daddr 198.51.100.60 tcp dport { 80, 443 } redirect to :6667
            }
        }\n",
    );
    let address = SocketAddr::new(World::HOST_V4, 6667);
    let _server = world.host.serve_tcp(address).expect("a server");
    must_pass(&world, STRANGER, ROUTED, 80);
    load(
        &world,
        r#"{ "action": "deny", "from": "203.0.113.9" },
           { "action": "allow", "proto": "tcp", "port": 443 }"#,
    );
    must_pass(&world, STRANGER, ROUTED, 443);
    assert!(!tcp(&world, STRANGER, ROUTED, 80).passed(), "80 is not allowed");
    assert!(!tcp(&world, [203, 0, 113, 9], ROUTED, 443).passed(), "denied before");
    assert!(!tcp(&world, STRANGER, World::HOST_V4, 6667).passed(), "the port inside");
}

#[test]
fn deny_rules_hold_for_containers_behind_a_routed_address() {
    let world = world_with_container();
    route_to_host(&world);
    nft(
        &world.host,
        "table ip other {
            chain publishes {
                type nat hook prerouting priority dstnat
                ip daddr 198.51.100.60 tcp dport 443 dnat to 172.17.0.2:8443
            }
        }\n",
    );
    let container = world.container.as_ref().expect("a container");
    let address = SocketAddr::new(World::CONTAINER_V4, 8443);
    let _server = container.serve_tcp(address).expect("a server");
    load(
        &world,
        r#"{ "action": "deny", "from": "203.0.113.9" },
           { "action": "allow", "proto": "tcp", "port": 443 }"#,
    );
    must_pass(&world, STRANGER, ROUTED, 443);
    assert!(!tcp(&world, [203, 0, 113, 9], ROUTED, 443).passed());
}

#[test]
fn a_rule_can_deny_what_a_builtin_allows() {
    let world = world_with_container();
    load(
        &world,
        r#"{ "action": "deny", "from": "203.0.113.9" },
           { "action": "deny", "direction": "out", "to": "172.17.0.0/16" }"#,
    );
    let ping = |from: [u8; 4]| {
        Probe::ping(&world.internet, World::HOST_V4).from(IpAddr::from(from)).timeout(TIMEOUT)
    };
    assert!(ping(STRANGER).run().passed());
    assert!(!ping([203, 0, 113, 9]).timeout(Duration::from_millis(500)).run().passed());

    let container = world.container.as_ref().expect("a container");
    let mut servers = Vec::new();
    for address in [World::CONTAINER_V4, World::CONTAINER_V6] {
        servers.push(container.serve_tcp(SocketAddr::new(address, 80)).expect("a server"));
    }
    let to = |address| Probe::tcp(&world.host, SocketAddr::new(address, 80));
    assert!(to(World::CONTAINER_V6).timeout(TIMEOUT).run().passed());
    assert!(!to(World::CONTAINER_V4).run().passed());
}
