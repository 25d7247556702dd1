//! Probes between two namespaces, with and without a firewall in between.

mod common;

use std::{
    io::{BufRead, BufReader, Write},
    net::{IpAddr, SocketAddr},
    time::{Duration, Instant},
};

use common::{nft, world};
use nfguard_lab::{Netns, Probe, ProbeOutcome, Refusal, Server, World, run_all};

const TIMEOUT: Duration = Duration::from_secs(30);
const HOST: [IpAddr; 2] = [World::HOST_V4, World::HOST_V6];

/// Returns an address of each IP version on the internet that no interface has.
fn elsewhere() -> [IpAddr; 2] {
    ["203.0.113.7".parse(), "2001:db8:beef::7".parse()].map(|address| address.expect("an address"))
}

fn serve(netns: &Netns, addresses: [IpAddr; 2], port: u16) -> Vec<Server> {
    addresses
        .into_iter()
        .flat_map(|address| {
            let at = SocketAddr::new(address, port);
            [netns.serve_tcp(at), netns.serve_udp(at)]
        })
        .map(|server| server.expect("a server"))
        .collect()
}

/// Returns probes of TCP, UDP and ping over both IP versions.
fn probes(netns: &Netns, to: [IpAddr; 2], port: u16) -> Vec<Probe<'_>> {
    to.into_iter()
        .flat_map(|address| {
            let at = SocketAddr::new(address, port);
            [Probe::tcp(netns, at), Probe::udp(netns, at), Probe::ping(netns, address)]
        })
        .collect()
}

fn with_long_timeout(probes: Vec<Probe<'_>>) -> Vec<Probe<'_>> {
    probes.into_iter().map(|p| p.timeout(TIMEOUT)).collect()
}

fn assert_all(probes: &[Probe<'_>], expected: impl Fn(&ProbeOutcome) -> bool) {
    for (probe, outcome) in probes.iter().zip(run_all(probes)) {
        assert!(expected(&outcome), "{outcome}: {probe:?}");
    }
}

#[test]
fn every_kind_of_probe_passes_into_the_host() {
    let world = world();
    let _servers = serve(&world.host, HOST, 4433);
    let from_gateway = with_long_timeout(probes(&world.internet, HOST, 4433));
    assert_all(&from_gateway, ProbeOutcome::passed);
    let from_elsewhere: Vec<_> = from_gateway
        .iter()
        .enumerate()
        .map(|(number, probe)| probe.from(elsewhere()[number / 3]))
        .collect();
    assert_all(&from_elsewhere, ProbeOutcome::passed);
}

#[test]
fn every_kind_of_probe_passes_out_to_any_address() {
    let world = world();
    let _servers = serve(&world.internet, elsewhere(), 53);
    assert_all(&with_long_timeout(probes(&world.host, elsewhere(), 53)), ProbeOutcome::passed);
}

#[test]
fn every_kind_of_probe_passes_within_one_host() {
    let world = world();
    let loopback = [[127, 0, 0, 1].into(), "::1".parse().expect("an address")];
    for addresses in [loopback, HOST] {
        let _servers = serve(&world.host, addresses, 8080);
        assert_all(&with_long_timeout(probes(&world.host, addresses, 8080)), ProbeOutcome::passed);
    }
}

#[test]
fn a_wildcard_tcp_server_answers_on_every_address() {
    let world = world();
    let server = world
        .internet
        .serve_tcp("[::]:443".parse::<SocketAddr>().expect("an address"))
        .expect("a server");
    for address in elsewhere() {
        let to = SocketAddr::new(address, server.address().port());
        let outcome = Probe::tcp(&world.host, to).timeout(TIMEOUT).run();
        assert_eq!(outcome, ProbeOutcome::Passed, "{to}");
    }
    drop(server);
    let to = SocketAddr::new(elsewhere()[0], 443);
    let outcome = Probe::tcp(&world.host, to).timeout(TIMEOUT).run();
    assert_eq!(outcome, ProbeOutcome::Refused(Refusal::Closed));
}

#[test]
fn a_probe_dropped_on_input_times_out() {
    let world = world();
    let _servers = serve(&world.host, HOST, 4433);
    let probes = probes(&world.internet, HOST, 4433);
    assert_all(&with_long_timeout(probes.clone()), ProbeOutcome::passed);
    nft(
        &world.host,
        "input",
        "meta l4proto { tcp, udp } drop; icmp type echo-request drop; icmpv6 type echo-request drop",
    );
    assert_all(&probes, |outcome| *outcome == ProbeOutcome::TimedOut);
}

#[test]
fn a_probe_rejected_on_input_is_refused_each_time() {
    let world = world();
    nft(
        &world.host,
        "input",
        "meta l4proto tcp reject with tcp reset; meta l4proto udp reject; \
         icmp type echo-request reject; icmpv6 type echo-request reject",
    );
    // More probes than the kernel answers in a burst by default, for one destination or for all.
    let probes = with_long_timeout(vec![probes(&world.internet, HOST, 4433); 50].concat());
    assert_all(&probes, |outcome| *outcome == ProbeOutcome::Refused(Refusal::Closed));
}

#[test]
fn a_refusal_names_its_kind() {
    let world = world();
    nft(
        &world.host,
        "input",
        "udp dport 1 reject with icmpx host-unreachable; \
         udp dport 2 reject with icmpx admin-prohibited; \
         tcp dport 1 reject with icmpx host-unreachable; \
         tcp dport 2 reject with icmpx admin-prohibited",
    );
    for address in HOST {
        for port in [1, 2] {
            let to = SocketAddr::new(address, port);
            let refusal = match (address, port) {
                (IpAddr::V6(_), 2) => Refusal::Prohibited,
                _ => Refusal::Unreachable,
            };
            for probe in [Probe::tcp(&world.internet, to), Probe::udp(&world.internet, to)] {
                let outcome = probe.timeout(TIMEOUT).run();
                assert_eq!(outcome, ProbeOutcome::Refused(refusal), "{probe:?}");
            }
        }
    }
}

#[test]
fn a_probe_dropped_by_the_sender_is_not_permitted_or_times_out() {
    let world = world();
    let _servers = serve(&world.internet, elsewhere(), 53);
    let probes = probes(&world.host, elsewhere(), 53);
    assert_all(&with_long_timeout(probes.clone()), ProbeOutcome::passed);
    nft(
        &world.host,
        "output",
        "meta l4proto { tcp, udp } drop; icmp type echo-request drop; icmpv6 type echo-request drop",
    );
    // A TCP socket gets no error, and repeats its packet.
    let expected = [
        ProbeOutcome::TimedOut,
        ProbeOutcome::Refused(Refusal::NotPermitted),
        ProbeOutcome::Refused(Refusal::NotPermitted),
    ];
    for (number, (probe, outcome)) in probes.iter().zip(run_all(&probes)).enumerate() {
        assert_eq!(outcome, expected[number % 3], "{probe:?}");
    }
}

#[test]
fn a_source_port_can_be_reused() {
    let world = world();
    let _servers = serve(&world.host, HOST, 4433);
    nft(&world.host, "input", "meta l4proto { tcp, udp } th sport != 1024 drop");
    for address in HOST {
        let to = SocketAddr::new(address, 4433);
        for probe in [Probe::tcp(&world.internet, to), Probe::udp(&world.internet, to)] {
            for _ in 0..3 {
                let outcome = probe.source_port(1024).timeout(TIMEOUT).run();
                assert_eq!(outcome, ProbeOutcome::Passed, "{probe:?}");
            }
        }
    }
}

#[test]
fn an_open_connection_works_until_its_server_ends() {
    let world = world();
    let at = SocketAddr::new(World::HOST_V6, 22);
    let server = world.host.serve_tcp(at).expect("a server");
    let mut stream =
        Probe::tcp(&world.internet, at).timeout(TIMEOUT).connect().expect("a connection");
    let peer = stream.local_addr().expect("an address");
    let mut lines = BufReader::new(stream.try_clone().expect("a clone")).lines();
    let mut line = || lines.next().map(|line| line.expect("a line"));
    assert_eq!(line(), Some(peer.to_string()));
    stream.write_all(b"still here\n").expect("sent");
    assert_eq!(line(), Some("still here".to_owned()));
    drop(server);
    assert_eq!(line(), None);
}

#[test]
fn a_probe_that_cannot_be_sent_has_failed() {
    let world = world();
    let nobodys: IpAddr = [192, 0, 2, 200].into();
    let outcome =
        Probe::udp(&world.host, SocketAddr::new(World::INTERNET_V4, 53)).from(nobodys).run();
    assert!(matches!(outcome, ProbeOutcome::Failed(_)), "{outcome}");
    let wildcard: SocketAddr = "0.0.0.0:53".parse().expect("an address");
    assert!(world.internet.serve_udp(wildcard).is_err());
}

#[test]
fn a_container_is_reached_only_through_the_host() {
    let world = World::with_container().unwrap_or_else(|error| common::needs_namespaces(&error));
    let container = world.container.as_ref().expect("a container");
    let inside = [World::CONTAINER_V4, World::CONTAINER_V6];
    let _servers = serve(container, inside, 80);
    let _more = serve(&world.internet, elsewhere(), 80);
    let inward = probes(&world.internet, inside, 80);
    let outward = probes(container, elsewhere(), 80);
    let near = with_long_timeout(probes(&world.host, inside, 80));
    assert_all(&with_long_timeout(inward.clone()), ProbeOutcome::passed);
    assert_all(&with_long_timeout(outward.clone()), ProbeOutcome::passed);
    nft(&world.host, "forward", "policy drop");
    assert_all(&inward, |outcome| *outcome == ProbeOutcome::TimedOut);
    assert_all(&outward, |outcome| *outcome == ProbeOutcome::TimedOut);
    assert_all(&near, ProbeOutcome::passed);
}

#[test]
fn probes_run_in_parallel() {
    let world = world();
    nft(&world.host, "input", "meta l4proto udp drop");
    let to = SocketAddr::new(World::HOST_V4, 9);
    let alone = Duration::from_secs(2);
    let started = Instant::now();
    let outcomes = run_all(&[Probe::udp(&world.internet, to).timeout(alone); 60]);
    assert_eq!(outcomes, vec![ProbeOutcome::TimedOut; 60]);
    // Half of the sequential time. This is no claim about speed.
    assert!(started.elapsed() < alone * 30);
}
