//! `nfguard log`: its line for each packet, and its report of lost packets.

use std::fs;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};
use std::thread::sleep;
use std::time::{Duration, Instant};

use nfguard_lab::{Netns, World, packet};
use nfguard_tests::program::{TempFile, nfguard};
use nfguard_tests::reader::Reader;
use nfguard_tests::wait::TIMEOUT;
use nix::sys::signal::Signal;
use serde_json::Value;

const POLICY: &str = r#"{
  "version": 1,
  "log": { "to": { "group": 5 }, "rate": "unlimited", "unmatched": ["in", "out"] },
  "rules": [
    { "name": "web", "action": "allow", "port": 443, "log": { "prefix": "a prefix", "to": { "group": 6 } } },
    { "name": "telnet", "action": "deny", "port": 23, "log": true },
    { "name": "auth", "action": "reject", "port": 113, "log": true },
    { "name": "ping", "action": "deny", "proto": ["icmp", "icmpv6"], "icmp_type": "echo-request", "log": true }
  ]
}"#;

/// A peer of each IP version, and the address of the host.
const PEERS: [(IpAddr, IpAddr); 2] = [
    (IpAddr::V4(Ipv4Addr::new(203, 0, 113, 66)), World::HOST_V4),
    (IpAddr::V6(Ipv6Addr::new(0x2001, 0xdb8, 66, 0, 0, 0, 0, 1)), World::HOST_V6),
];

fn world(policy: &str) -> World {
    let world = World::new()
        .unwrap_or_else(|error| panic!("{error}\nrun me with `cargo xtask netns-test`"));
    let policy = TempFile::new("policy.json", policy);
    let loaded = nfguard(&world.host, &["load".as_ref(), policy.as_ref()]);
    assert_eq!(loaded.status, Some(0), "{loaded:?}");
    world
}

fn json(reader: &mut Reader) -> Value {
    serde_json::from_str(&reader.line()).expect("JSON")
}

/// Returns packets, and the expected line of each.
fn packets(from: IpAddr, to: IpAddr) -> Vec<(Vec<u8>, String)> {
    let tcp = |port, flags| packet::ip(from, to, 6, 64, &packet::tcp(from, to, 40000, port, flags));
    let udp = |port| packet::ip(from, to, 17, 64, &packet::udp(from, to, 40000, port, b"probe"));
    let (header, icmp, ping) = match from {
        IpAddr::V4(_) => (20, "icmp", packet::ip(from, to, 1, 64, &packet::icmp(8, 0, &[0; 4]))),
        IpAddr::V6(_) => {
            let ping = packet::icmpv6(from, to, 128, 0, &[0; 4]);
            (40, "icmpv6", packet::ip(from, to, 58, 64, &ping))
        }
    };
    let gre = packet::ip(from, to, 47, 64, &[0, 0, 8, 0]);
    let end = |ip: IpAddr, port: u16| SocketAddr::new(ip, port);
    let between = |port| format!("{} > {}", end(from, 40000), end(to, port));
    let way = "input iif eth0";
    let (tcp_len, udp_len) = (header + 20, header + 13);
    vec![
        (
            tcp(23, packet::SYN),
            format!("drop in/telnet {way} {} tcp syn length {tcp_len}", between(23)),
        ),
        (
            tcp(24, packet::SYN | 64 | 128),
            format!("drop default/in {way} {} tcp syn,ecn,cwr length {tcp_len}", between(24)),
        ),
        (udp(23), format!("drop in/telnet {way} {} udp length {udp_len}", between(23))),
        (udp(113), format!("reject in/auth {way} {} udp length {udp_len}", between(113))),
        (
            ping,
            format!("drop in/ping {way} {from} > {to} {icmp} echo-request length {}", header + 8),
        ),
        (gre, format!("drop default/in {way} {from} > {to} gre length {}", header + 4)),
    ]
}

#[test]
fn each_dropped_packet_is_a_line_that_names_rule_and_packet() {
    let world = world(POLICY);
    let mut reader = Reader::start(&world.host, &["--group", "5"]);
    for (from, to) in PEERS {
        for (bytes, expected) in packets(from, to) {
            world.internet.send_raw(None, &bytes).expect("sent");
            let line = reader.line();
            let (time, words) = line.split_once(' ').expect("words");
            assert_eq!(words, expected);
            assert!(time.len() == 24 && time.ends_with('Z'), "{line}");
        }
    }
    // A packet that the host may not send.
    let (to, from) = PEERS[0];
    let out = packet::ip(from, to, 17, 64, &packet::udp(from, to, 53, 9, b""));
    let _ = world.host.send_raw(None, &out);
    let expected =
        format!("drop default/out postrouting oif eth0 {from}:53 > {to}:9 udp length 28");
    assert_eq!(reader.line().split_once(' ').expect("words").1, expected);
    reader.signal(Signal::SIGTERM);
    let (rest, notes) = reader.end();
    assert_eq!(rest, "");
    assert!(notes.contains("13 packets, 0 lost\n"), "{notes}");
}

#[test]
fn json_has_the_same_facts_for_all_log_groups_of_the_policy() {
    let world = world(POLICY);
    let mut reader = Reader::start(&world.host, &["--json", "--count", "3"]);
    let (from, to) = PEERS[1];
    for (port, group, prefix, verdict, rule) in [
        (23, 5, "[NFGUARD] drop in/telnet", "drop", "in/telnet"),
        (443, 6, "a prefix accept in/web", "accept", "in/web"),
    ] {
        let syn = packet::tcp(from, to, 40000, port, packet::SYN);
        world.internet.send_raw(None, &packet::ip(from, to, 6, 64, &syn)).expect("sent");
        let mut record = json(&mut reader);
        assert!(record["time"].as_f64().is_some_and(|time| time > 1.7e9), "{record}");
        record["time"] = Value::Null;
        let expected = serde_json::json!({
            "schema": 1, "event": "packet", "time": null, "verdict": verdict, "rule": rule,
            "prefix": prefix, "group": group, "hook": "input", "in_interface": "eth0",
            "out_interface": null, "source": from, "destination": to, "protocol": "tcp",
            "source_port": 40000, "destination_port": port, "tcp_flags": ["syn"], "length": 60,
        });
        assert_eq!(record, expected);
    }
    let ping = packet::icmpv6(from, to, 128, 0, &[0; 4]);
    world.internet.send_raw(None, &packet::ip(from, to, 58, 64, &ping)).expect("sent");
    let record = json(&mut reader);
    assert_eq!((&record["icmp_type"], &record["icmp_code"]), (&"echo-request".into(), &0.into()));
    let end = serde_json::json!({
        "schema": 1, "event": "end", "packets": 3, "lost": 0, "more_lost": false,
    });
    assert_eq!(json(&mut reader), end);
    assert_eq!(reader.end().0, "");
}

#[test]
fn fragments_and_hidden_headers_are_described_as_far_as_possible() {
    let world = world(POLICY);
    // Nothing reassembles fragments before this chain.
    nfguard_tests::nft::nft(
        &world.host,
        "table inet other {
            chain early {
                type filter hook prerouting priority -500
                ip saddr 203.0.113.66 log prefix \"seen early\" group 9
            }
        }\n",
    );
    let mut reader = Reader::start(&world.host, &["--group", "9"]);
    let (from, to) = PEERS[0];
    let mut later = packet::ip(from, to, 17, 64, &[0; 16]);
    later[6..8].copy_from_slice(&2u16.to_be_bytes());
    let short = packet::ip(from, to, 6, 64, &[0x9c, 0x40, 0, 22, 0]);
    // Connection tracking calls this packet invalid, and a builtin drops it without a log.
    let null = packet::ip(from, to, 6, 64, &packet::tcp(from, to, 40000, 22, 0));
    for (bytes, expected) in [
        (null, format!("{from}:40000 > {to}:22 tcp no flags length 40")),
        (later, format!("{from} > {to} udp fragment at 16 length 36")),
        (short, format!("{from}:40000 > {to}:22 tcp length 25")),
    ] {
        world.internet.send_raw(None, &bytes).expect("sent");
        let line = reader.line();
        assert!(
            line.ends_with(&expected) && line.contains(" \"seen early\" prerouting "),
            "{line}"
        );
    }
}

#[test]
fn lost_packets_are_counted_and_reported() {
    const ONE_PORT: &str = r#"{ "version": 1, "rules": [
        { "name": "flood", "action": "deny", "proto": "udp", "port": [9, 10],
          "log": { "to": { "group": 5 }, "rate": "unlimited" } } ] }"#;
    const BURST_PACKETS: u64 = 5000;
    let world = world(ONE_PORT);
    // A file is never full, so that only the reader can be slow.
    let output = TempFile::new("output", "");
    let file = fs::File::create(output.path()).expect("a file");
    let reader = Reader::printing_to(&world.host, &["--json"], file.into());
    let (from, to) = PEERS[0];
    let udp = |port| packet::ip(from, to, 17, 64, &packet::udp(from, to, 40000, port, b""));
    let sender = world.internet.raw_sender().expect("a raw socket");
    reader.signal(Signal::SIGSTOP);
    // Enough packets to fill the receive buffer, whose size depends on the user.
    let mut sent = 0;
    while drops(&world.host) == 0 {
        assert!(sent < 200 * BURST_PACKETS, "nothing is lost");
        for _ in 0..BURST_PACKETS {
            sender.send(&udp(9)).expect("sent");
        }
        sent += BURST_PACKETS;
    }
    reader.signal(Signal::SIGCONT);
    // Packets may still be lost until the reader has caught up.
    let since = Instant::now();
    let (read, lost) = loop {
        let records = records(&output);
        let of = |event| records.iter().filter(move |record| record["event"] == event);
        let read = of("packet").count() as u64;
        let lost: u64 = of("lost").filter_map(|record| record["packets"].as_u64()).sum();
        if read + lost == sent && lost > 0 {
            break (read, lost);
        }
        assert!(since.elapsed() < TIMEOUT, "{read} read and {lost} lost of {sent}");
        if of("packet").all(|record| record["destination_port"] != 10) {
            sender.send(&udp(10)).expect("sent");
            sent += 1;
        }
        sleep(Duration::from_millis(300));
    };
    assert!(read > 0);
    reader.signal(Signal::SIGINT);
    let (_, notes) = reader.end();
    let records = records(&output);
    let end = records.last().expect("an end");
    assert_eq!((&end["event"], &end["packets"]), (&"end".into(), &read.into()));
    assert_eq!((&end["lost"], &end["more_lost"]), (&lost.into(), &false.into()));
    assert!(notes.contains("packets are being lost"), "{notes}");
    assert!(notes.contains(&format!("{read} packets, {lost} lost\n")), "{notes}");
}

/// Returns the records so far, without a partial last line.
fn records(output: &TempFile) -> Vec<Value> {
    let text = fs::read_to_string(output.path()).expect("text");
    let whole = text.split_inclusive('\n').filter(|line| line.ends_with('\n'));
    whole.map(|line| serde_json::from_str(line).expect("JSON")).collect()
}

/// Returns the number of messages that the kernel has dropped.
fn drops(netns: &Netns) -> u64 {
    let table = netns.run(|| fs::read_to_string("/proc/thread-self/net/netlink"));
    let drops = |line: &str| line.split_whitespace().nth(8)?.parse::<u64>().ok();
    table.expect("a list of sockets").lines().skip(1).filter_map(drops).sum()
}

#[test]
fn the_reader_ends_when_its_output_is_closed() {
    let world = world(POLICY);
    let mut reader = Reader::start(&world.host, &[]);
    reader.close();
    assert!(reader.end().1.contains("0 packets, 0 lost\n"));
}

#[test]
fn a_second_reader_of_a_group_gets_an_error() {
    let world = world(POLICY);
    let first = Reader::start(&world.host, &["--group", "5"]);
    let second = nfguard(&world.host, &["log", "--group", "5"]);
    assert_eq!(second.status, Some(3), "{second:?}");
    assert!(second.stderr.contains("another program reads NFLOG group 5"), "{second:?}");
    first.signal(Signal::SIGTERM);
    first.end();
    let next = Reader::start(&world.host, &["--group", "5"]);
    next.signal(Signal::SIGTERM);
    next.end();
}

#[test]
fn a_policy_without_a_log_group_gets_a_hint() {
    let world = world(r#"{ "version": 1, "rules": [] }"#);
    let answer = nfguard(&world.host, &["log"]);
    assert_eq!((answer.status, answer.stdout.as_str()), (Some(2), ""));
    assert!(answer.stderr.contains("logs to no group"), "{answer:?}");
    // A rule of another program may log to the group.
    let reader = Reader::start(&world.host, &["--group", "5"]);
    reader.signal(Signal::SIGTERM);
    reader.end();
}
