//! The `limit` action, checked with real connections.

use std::net::IpAddr;
use std::time::Duration;

use nfguard_lab::{Probe, ProbeOutcome, Server, World};
use nfguard_tests::place::{keep_neighbours, send_syn_once};
use nfguard_tests::wait::TIMEOUT;

use super::{load, policy_file, world};

struct Ssh {
    world: World,
    _servers: [Server; 2],
}

/// Makes a host with this limit on SSH.
fn limited(limit: &str) -> Ssh {
    let world = world();
    keep_neighbours(&world);
    send_syn_once(&world.internet);
    let text = format!(
        r#"{{ "version": 1, "rules": [
            {{ "name": "ssh", "action": "limit", "port": "ssh", "limit": {limit} }} ] }}"#
    );
    load(&world.host, &policy_file(&text));
    let servers = [World::HOST_V4, World::HOST_V6]
        .map(|address| world.host.serve_tcp((address, 22)).expect("serves"));
    Ssh { world, _servers: servers }
}

impl Ssh {
    fn connect(&self, from: &str) -> ProbeOutcome {
        self.connect_within(from, TIMEOUT)
    }

    fn connect_within(&self, from: &str, timeout: Duration) -> ProbeOutcome {
        let from: IpAddr = from.parse().expect("an address");
        let to = if from.is_ipv4() { World::HOST_V4 } else { World::HOST_V6 };
        Probe::tcp(&self.world.internet, (to, 22)).from(from).timeout(timeout).run()
    }

    #[track_caller]
    fn passes(&self, from: &str) {
        assert_eq!(self.connect(from), ProbeOutcome::Passed, "{from}");
    }

    #[track_caller]
    fn is_refused(&self, from: &str) {
        let outcome = self.connect(from);
        assert!(matches!(outcome, ProbeOutcome::Refused(_)), "{from}: {outcome}");
    }
}

/// The default limit with a longer period, which also a slow machine does not reach.
const USUAL: &str = r#"{ "seconds": 3600 }"#;

#[test]
fn the_sixth_connection_of_a_source_is_refused_and_others_are_not() {
    let ssh = limited(USUAL);
    for _ in 0..5 {
        ssh.passes("192.0.2.7");
    }
    ssh.is_refused("192.0.2.7");
    ssh.is_refused("192.0.2.7");
    ssh.passes("192.0.2.8");
    ssh.passes("2001:db8:7::1");
}

#[test]
fn a_v6_source_is_its_64_network() {
    let ssh = limited(USUAL);
    for host in 1..=5 {
        ssh.passes(&format!("2001:db8:7::{host}"));
    }
    ssh.is_refused("2001:db8:7::6");
    ssh.is_refused("2001:db8:7:0:ffff::1");
    ssh.passes("2001:db8:7:1::1");
    ssh.passes("192.0.2.7");
}

#[test]
fn a_v6_source_is_one_address_where_the_policy_says_so() {
    let ssh = limited(r#"{ "seconds": 3600, "v6_prefix": 128, "connections": 3 }"#);
    for _ in 0..2 {
        ssh.passes("2001:db8:7::1");
    }
    ssh.is_refused("2001:db8:7::1");
    ssh.passes("2001:db8:7::2");
}

#[test]
fn connections_over_the_limit_are_dropped_where_the_policy_says_so() {
    let ssh = limited(r#"{ "seconds": 3600, "over": "drop", "connections": 3 }"#);
    for _ in 0..2 {
        ssh.passes("192.0.2.7");
    }
    let outcome = ssh.connect_within("192.0.2.7", Duration::from_secs(3));
    assert_eq!(outcome, ProbeOutcome::TimedOut);
    ssh.passes("192.0.2.8");
}

#[test]
fn a_source_beyond_the_capacity_passes() {
    let ssh = limited(r#"{ "seconds": 3600, "sources": 2, "connections": 3 }"#);
    for source in ["192.0.2.1", "192.0.2.2"] {
        ssh.passes(source);
        ssh.passes(source);
    }
    for _ in 0..5 {
        ssh.passes("192.0.2.3");
    }
    ssh.is_refused("192.0.2.1");
    ssh.is_refused("192.0.2.2");
}

#[test]
fn a_flood_that_fills_the_first_slot_does_not_switch_the_limit_off() {
    let ssh = limited(r#"{ "seconds": 3600, "sources": 2, "connections": 3 }"#);
    for source in ["192.0.2.1", "192.0.2.2"] {
        ssh.passes(source);
    }
    // The source finds room only in the second slot.
    ssh.passes("192.0.2.3");
    ssh.is_refused("192.0.2.3");
    ssh.is_refused("192.0.2.3");
}

#[test]
fn a_silent_source_is_accepted_again() {
    let ssh = limited(r#"{ "seconds": 4, "connections": 2 }"#);
    ssh.passes("192.0.2.7");
    // The source is refused at least once, unless two attempts were four seconds apart.
    let deadline = std::time::Instant::now() + TIMEOUT;
    while ssh.connect("192.0.2.7").passed() {
        assert!(std::time::Instant::now() < deadline, "never refused");
    }
    let mut pause = Duration::from_secs(4);
    loop {
        std::thread::sleep(pause);
        if ssh.connect("192.0.2.7").passed() {
            break;
        }
        assert!(std::time::Instant::now() < deadline, "never heard again");
        pause += Duration::from_secs(1);
    }
}
