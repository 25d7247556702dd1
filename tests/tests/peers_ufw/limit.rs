//! `limit ssh`: the 6th connection of a source within 30 seconds.

use std::collections::BTreeMap;
use std::io::{BufRead, BufReader, Write};
use std::net::{IpAddr, Ipv6Addr, TcpStream};
use std::thread;
use std::time::{Duration, Instant};

use nfguard_lab::{Probe, ProbeOutcome, Refusal, World};
use nfguard_tests::ufw::{WRITE_UP, ufw};

use crate::{nfguard_load, traefik};

/// The verdict of each attempt of each source.
type Stories = BTreeMap<&'static str, Vec<bool>>;

const BURST: [bool; 6] = [true, true, true, true, true, false];

/// One second more than the period of the limit.
const SILENCE: Duration = Duration::from_secs(31);

#[test]
fn the_sixth_connection_of_a_source_in_30_seconds_is_refused() {
    let [judge, ours] = [crate::world(), crate::world()];
    ufw(&judge.host, &WRITE_UP);
    nfguard_load(&ours.host, traefik());
    // A machine that stops for seconds may spoil a run. The next run has other sources.
    let tries = (1..=3).find_map(|number| {
        thread::scope(|scope| {
            let by_ufw = scope.spawn(|| run_attempts(&judge, number));
            let by_us = run_attempts(&ours, number);
            by_ufw.join().unwrap().zip(by_us)
        })
    });
    let (by_ufw, by_us) = tries.expect("30 seconds were enough for a few connections");

    let mut expected = Stories::from([
        ("v4, silent after six", [&BURST[..], &[true]].concat()),
        ("v6, silent after six", [&BURST[..], &[true]].concat()),
        ("v4, five and a later one", BURST.to_vec()),
        ("v4, an open connection, five more, a word over the open one", {
            [&BURST[1..], &[true]].concat()
        }),
        ("v4, another source", vec![true]),
        ("v6, another source", vec![true]),
        // ufw counts the attempts of the last 30 seconds. Fewer than six are accepted.
        ("v4, six, one after 12 s and one after 31 s", [&BURST[..], &[false, true]].concat()),
        ("v6, six, the last from a neighbour", vec![true; 6]),
    ]);
    assert_eq!(by_ufw, expected, "ufw");
    // nfguard refuses a source until it has been silent for the whole period.
    expected.insert(
        "v4, six, one after 12 s and one after 31 s",
        [&BURST[..], &[false, false]].concat(),
    );
    // The holder of one IPv6 address has its whole /64.
    expected.insert("v6, six, the last from a neighbour", BURST.to_vec());
    assert_eq!(by_us, expected, "nfguard");
}

/// Runs the attempts. Returns `None` if they took so long that time may have changed a verdict.
fn run_attempts(world: &World, number: u8) -> Option<Stories> {
    let v4 = |last: u8| IpAddr::from([203, 0, 113, number * 16 + last]);
    let v6 = |network: u16, host: u16| {
        IpAddr::from(Ipv6Addr::new(0x2001, 0xdb8, network, u16::from(number), 0, 0, 0, host))
    };
    let _server = world.host.serve_tcp((Ipv6Addr::UNSPECIFIED, 22)).expect("the port is free");
    let attempts =
        |from, count| -> Vec<bool> { (0..count).map(|_| attempt(world, from)).collect() };
    let mut stories = Stories::new();
    let start = Instant::now();

    stories.insert("v4, five and a later one", attempts(v4(1), 5));
    stories.insert("v4, six, one after 12 s and one after 31 s", attempts(v4(2), 6));
    stories.insert("v4, silent after six", attempts(v4(3), 6));
    stories.insert("v6, silent after six", attempts(v6(3, 1), 6));
    stories.insert("v4, another source", attempts(v4(4), 1));
    stories.insert("v6, another source", attempts(v6(4, 1), 1));
    let neighbours = [attempts(v6(5, 1), 5), attempts(v6(5, 2), 1)].concat();
    stories.insert("v6, six, the last from a neighbour", neighbours);
    let open = Probe::tcp(&world.internet, (World::HOST_V4, 22)).from(v4(6)).timeout(SILENCE);
    let mut open = open.connect().expect("the first is let in");
    let mut story = attempts(v4(6), 5);
    story.push(is_answered(&mut open));
    stories.insert("v4, an open connection, five more, a word over the open one", story);
    let burst_end = Instant::now();

    thread::sleep(Duration::from_secs(12));
    let mut again = |name, from| stories.entry(name).or_default().push(attempt(world, from));
    again("v4, five and a later one", v4(1));
    let second = Instant::now();
    again("v4, six, one after 12 s and one after 31 s", v4(2));
    let early_enough = start.elapsed() < Duration::from_secs(28);

    thread::sleep(SILENCE.saturating_sub(burst_end.elapsed()));
    again("v4, six, one after 12 s and one after 31 s", v4(2));
    let early_enough = early_enough && second.elapsed() < Duration::from_secs(28);
    again("v4, silent after six", v4(3));
    again("v6, silent after six", v6(3, 1));
    early_enough.then_some(stories)
}

/// Reports whether a connection is accepted. A refused connection gets an answer, too, so the
/// result does not depend on a timeout.
fn attempt(world: &World, from: IpAddr) -> bool {
    let host = if from.is_ipv4() { World::HOST_V4 } else { World::HOST_V6 };
    match Probe::tcp(&world.internet, (host, 22)).from(from).timeout(SILENCE).run() {
        ProbeOutcome::Passed => true,
        ProbeOutcome::Refused(Refusal::Closed) => false,
        other => panic!("{from}: {other}"),
    }
}

fn is_answered(connection: &mut TcpStream) -> bool {
    let mut line = String::new();
    let mut reader = BufReader::new(connection);
    reader.read_line(&mut line).expect("the server speaks first");
    reader.get_mut().write_all(b"?\n").expect("the connection is open");
    reader.read_line(&mut line).expect("the server echoes");
    line.ends_with("\n?\n")
}
