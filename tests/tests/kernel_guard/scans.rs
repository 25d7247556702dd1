//! Bans by the kernel in a policy table that the guard owns.

use std::time::{Duration, Instant};

use nfguard_ban::scan;
use nfguard_lab::{World, packet};
use nfguard_netlink::{IpVersion, Key, Nft, protocol};
use nfguard_tests::guard::Guard;
use nfguard_tests::nft::listed;

use super::{banned, json, policy_file, succeed, wait_until, world};

const POLICY: &str = r#"{ "version": 1, "scan": {}, "rules": [
    { "name": "web", "action": "allow", "port": 443 } ] }"#;

/// Sends a packet with illegal flags.
fn scan_from(world: &World, from: &str) {
    let (from, to) = (from.parse().expect("an address"), World::HOST_V4);
    let null = packet::tcp(from, to, 40_000, 9, 0);
    let bytes = packet::ip(from, to, protocol::TCP, 64, &null);
    world.internet.send_raw(None, &bytes).expect("it is sent");
}

/// Reports whether the address is in this set, or in a range of it.
fn is_among(address: [u8; 4], world: &World, table: &str, set: &str) -> bool {
    let mut kernel = world.host.run(|| Nft::open().expect("netlink is there"));
    let table = kernel.table(table).expect("reads").loaded.expect("is there").table;
    table.set(set).expect("is there").elements.iter().any(|element| match &element.key {
        Key::Range(first, last) => (first.as_slice()..=last).contains(&address.as_slice()),
        Key::Value(value) => *value == address,
    })
}

#[test]
fn a_ban_for_a_scan_is_listed_and_removed_under_a_guard() {
    let world = world();
    let policy = policy_file(POLICY);
    let guard = Guard::start(&world.host, Some(policy.path()), &[]);
    let mut client = guard.connect();
    for (source, unban) in [("203.0.113.7", true), ("203.0.113.8", false)] {
        scan_from(&world, source);
        let line = format!("{source} scan");
        wait_until("is banned", &guard, || banned(&world.host) == [line.clone()]);
        // The guard looks at these sets every few seconds.
        wait_until("is listed", &guard, || {
            let answer = json(&guard.connect().request(r#"{"op":"bans","source":"scan"}"#));
            answer["bans"][0]["target"] == source
        });
        if unban {
            let answer = json(&client.request(&format!(r#"{{"op":"unban","target":"{source}"}}"#)));
            assert_eq!(answer["did"], "ended", "{answer}");
        } else {
            succeed(&world.host, &["unban", source]);
        }
        assert!(banned(&world.host).is_empty());
    }
    succeed(&world.host, &["status"]);
}

#[test]
fn the_guard_copies_never_ban_entries_into_the_rules() {
    let world = world();
    let policy = policy_file(POLICY);
    let guard = Guard::start(&world.host, Some(policy.path()), &[]);
    let is_exempt = |last: u8| {
        is_among([203, 0, 113, last], &world, scan::TABLE, &scan::set("never", IpVersion::V4))
    };
    assert!(!is_exempt(7));
    succeed(&world.host, &["never", "add", "203.0.113.0/28"]);
    wait_until("the entry is in the rules", &guard, || is_exempt(7));
    scan_from(&world, "203.0.113.7");
    scan_from(&world, "203.0.113.77");
    wait_until("an address is banned", &guard, || !banned(&world.host).is_empty());
    assert_eq!(banned(&world.host), ["203.0.113.77 scan"]);
    succeed(&world.host, &["never", "remove", "203.0.113.0/28"]);
    wait_until("the entry is removed", &guard, || !is_exempt(7));
    succeed(&world.host, &["status"]);
}

#[test]
fn a_new_address_of_the_host_is_exempt_in_both_tables_within_a_minute() {
    let world = world();
    let policy = policy_file(POLICY);
    let guard = Guard::start(&world.host, Some(policy.path()), &[]);
    succeed(&world.host, &["ban", "203.0.113.7", "--for", "1h"]);
    let is_exempt = || {
        let in_set = |table, set: &str| is_among([198, 51, 100, 60], &world, table, set);
        // A rule may name a short list itself, without the set.
        let rules = listed(&world.host, nfguard_ban::TABLE);
        let exempts = |rule: &str| rule.contains("@never/v4") || rule.contains("!= 198.51.100.60");
        [
            in_set(scan::TABLE, &scan::set("never", IpVersion::V4)),
            in_set(nfguard_ban::TABLE, "never/v4"),
            rules.lines().any(|rule| rule.contains("ip saddr @v4/32") && exempts(rule)),
        ]
    };
    wait_until("a host is looked at", &guard, || {
        is_among([198, 51, 100, 2], &world, nfguard_ban::TABLE, "never/v4")
    });
    assert_eq!(is_exempt(), [false; 3]);
    let address = "198.51.100.60".parse().expect("an address");
    world.host.address("eth0", address, 24).expect("can be added");
    wait_until("the entry is in the rules", &guard, || is_exempt() == [true; 3]);
}

#[test]
fn a_ban_from_before_the_guard_stays() {
    let world = world();
    let policy = policy_file(POLICY);
    succeed(&world.host, &["load", policy.path().to_str().expect("plain letters")]);
    scan_from(&world, "203.0.113.7");
    let guard = Guard::start(&world.host, None, &[]);
    wait_until("is banned", &guard, || banned(&world.host) == ["203.0.113.7 scan"]);
}

#[test]
fn a_subscriber_gets_an_event_of_a_scan_ban_within_five_seconds_and_of_its_end() {
    let world = world();
    let policy = policy_file(POLICY);
    let guard = Guard::start(&world.host, Some(policy.path()), &[]);
    scan_from(&world, "203.0.113.70");
    wait_until("is banned", &guard, || banned(&world.host) == ["203.0.113.70 scan"]);
    let mut subscriber = guard.connect();
    assert_eq!(json(&subscriber.request(r#"{"op":"subscribe"}"#))["ok"], true);
    let mut next = || {
        let event = json(&subscriber.read_line().expect("an event"));
        let ban = &event["ban"];
        (format!("{} {} {}", event["event"], ban["target"], ban["source"]).replace('"', ""), event)
    };
    // On a busy machine, at least one of a few events is fast enough.
    let mut latencies = Vec::new();
    for last in 71..76 {
        let source = format!("203.0.113.{last}");
        let start = Instant::now();
        scan_from(&world, &source);
        let (told, event) = next();
        latencies.push(start.elapsed());
        assert_eq!(told, format!("banned {source} scan"), "{}", guard.log());
        assert!(event["ban"]["reason"].as_str().expect("text").contains("flags"), "{event}");
        assert!(event["ban"]["expires_in_seconds"].as_f64().expect("a number") > 0.0, "{event}");
        let unban =
            json(&guard.connect().request(&format!(r#"{{"op":"unban","target":"{source}"}}"#)));
        assert_eq!(unban["did"], "ended");
        assert_eq!(next().0, format!("unbanned {source} scan"));
        // A new ban of the same address causes a new event.
        if last == 71 {
            scan_from(&world, &source);
            assert_eq!(next().0, format!("banned {source} scan"));
            succeed(&world.host, &["unban", &source]);
            assert_eq!(next().0, format!("unbanned {source} scan"));
        }
    }
    eprintln!("told after {latencies:?}");
    assert!(latencies.iter().min() < Some(&Duration::from_secs(5)), "{latencies:?}");
    // Earlier bans cause no events, neither now nor after a reload.
    succeed(&world.host, &["load", policy.path().to_str().expect("plain letters")]);
    scan_from(&world, "203.0.113.77");
    assert_eq!(next().0, "banned 203.0.113.77 scan");
}
