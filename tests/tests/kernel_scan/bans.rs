//! Bans for scans: their targets, their listings, and their life over a load.

use std::io::Write as _;

use nfguard_lab::{Probe, ProbeOutcome, Refusal, World};
use nfguard_tests::program::{nfguard, nfguard_fed};
use nfguard_tests::wait::TIMEOUT;

use crate::{Ground, OTHER_SOURCE, SOURCE, SOURCE_V6, USUAL, address, policy};

#[test]
fn banned_addresses_are_dropped_first_and_their_connections_cut() {
    let mut ground = Ground::new(USUAL);
    let _servers = ground.serve();
    let probe = Probe::tcp(&ground.world.internet, (World::HOST_V4, 80)).from(address(SOURCE));
    let mut connection = probe.timeout(TIMEOUT).connect().expect("is let in");
    ground.tcp(SOURCE, 9, 0);
    assert!(ground.is_banned(SOURCE));
    let (invalid, in_all) = (ground.count("builtin/invalid"), ground.count("default/in"));
    connection.write_all(b"x").expect("goes into the buffer");
    ground.syns(SOURCE, 1000, 10);
    ground.tcp(SOURCE, 9, 0);
    ground.wait_until("it is dropped", |ground| ground.count("scan/dropped") >= 12);
    assert_eq!((ground.count("builtin/invalid"), ground.count("default/in")), (invalid, in_all));
}

#[test]
fn outgoing_packets_to_banned_addresses_are_dropped_where_the_policy_says_so() {
    let mut ground = Ground::with(USUAL, r#""default": { "out": "accept" },"#);
    let more = r#""default": { "out": "accept" }, "ban_outgoing": true,"#;
    let pairs = [(SOURCE, "192.0.2.8"), (SOURCE_V6, "2001:db8:8::1")];
    let servers = pairs.map(|(banned, other)| {
        let serve = |at| ground.world.internet.serve_udp((address(at), 53)).expect("serves");
        [serve(banned), serve(other)]
    });
    let asks = |ground: &Ground, at: &str, seconds| {
        let probe = Probe::udp(&ground.world.host, (address(at), 53));
        probe.timeout(std::time::Duration::from_secs(seconds)).run()
    };
    for (banned, other) in pairs {
        ground.tcp(banned, 9, 0);
        assert!(ground.is_banned(banned));
        assert!(asks(&ground, other, TIMEOUT.as_secs()).passed());
    }
    ground.load(USUAL, more);
    for (banned, other) in pairs {
        let refused = ProbeOutcome::Refused(Refusal::NotPermitted);
        assert_eq!(asks(&ground, banned, 1), refused, "{banned}");
        assert!(asks(&ground, other, TIMEOUT.as_secs()).passed());
    }
    assert!(ground.count("scan/unsent") >= 2);
    drop(servers);
}

#[test]
fn bans_for_scans_are_listed_with_their_ports_or_flags() {
    let mut ground = Ground::new(USUAL);
    ground.syns(SOURCE, 1000, 5);
    ground.udp(SOURCE, 40_000, 53);
    ground.tcp(OTHER_SOURCE, 9, 0);
    ground.syns(SOURCE_V6, 1000, 6);
    ground.wait_for_packets();
    ground.nfguard(&["ban", "198.51.100.77", "--source", "by-hand"]);
    let mut listed = ground.listed();
    listed.sort();
    let line = |target: &str, source: &str, reason: &str| {
        (target.to_owned(), source.to_owned(), reason.to_owned())
    };
    let ports = "6 closed ports in 3600 s: 1000/tcp 1001/tcp 1002/tcp 1003/tcp 1004/tcp";
    assert_eq!(
        listed,
        [
            line(SOURCE, "scan", &format!("{ports} 53/udp")),
            line("198.51.100.77", "by-hand", ""),
            line("2001:db8:7::/64", "scan", &format!("{ports} 1005/tcp")),
            line(OTHER_SOURCE, "scan", "illegal TCP flags"),
        ]
    );
    let text = ground.nfguard(&["bans", "--source", "scan"]).stdout;
    assert_eq!(text.lines().count(), 3, "{text}");
    assert_eq!(ground.nfguard(&["bans", "--count"]).stdout.trim(), "4");
    let status = ground.nfguard(&["status"]).stdout;
    assert!(status.contains("intact") && status.contains("scan/bans"), "{status}");
}

#[test]
fn unban_ends_a_ban_for_a_scan_and_forgets_its_ports() {
    let mut ground = Ground::new(USUAL);
    for source in [SOURCE, SOURCE_V6] {
        ground.syns(source, 1000, 6);
        assert!(ground.is_banned(source));
        ground.nfguard(&["unban", source]);
        for what in ["banned", "again", "1", "5"] {
            assert!(ground.find(what, source).is_none(), "{what} {source}");
        }
        ground.syns(source, 2000, 5);
        assert!(!ground.is_banned(source), "it begins again");
        ground.syn(source, 3000);
        assert!(ground.is_banned(source));
    }
    let answer = nfguard(&ground.world.host, &["unban", OTHER_SOURCE]);
    assert_eq!(answer.status, Some(1), "{answer:?}");
    let answer = ground.nfguard(&["unban", "--source", "scan"]);
    assert!(answer.stdout.contains("2 unbanned"), "{answer:?}");
    assert!(!ground.is_banned(SOURCE) && !ground.is_banned(SOURCE_V6));
}

#[test]
fn ban_reads_the_listing_of_bans_for_scans() {
    let mut ground = Ground::new(USUAL);
    ground.syns(SOURCE, 1000, 6);
    ground.tcp(SOURCE_V6, 9, 0);
    ground.wait_for_packets();
    let listing = ground.nfguard(&["bans", "--json"]).stdout;
    let before = ground.listed();
    for unbanned in [false, true] {
        if unbanned {
            ground.nfguard(&["unban", "--source", "scan"]);
            assert!(ground.listed().is_empty());
        }
        let answer = nfguard_fed(&ground.world.host, &["ban", "-"], &listing);
        assert_eq!(answer.status, Some(0), "{answer:?}");
        let mut listed = ground.listed();
        listed.sort();
        let mut before = before.clone();
        before.sort();
        assert_eq!(listed, before);
    }
    ground.nfguard(&["unban", SOURCE, SOURCE_V6]);
    assert!(ground.listed().is_empty());
}

#[test]
fn a_load_keeps_the_bans_for_scans() {
    let mut ground = Ground::new(USUAL);
    ground.syns(SOURCE, 1000, 5);
    ground.tcp(OTHER_SOURCE, 9, 0);
    assert!(ground.is_banned(OTHER_SOURCE));
    // Changes of bans and of the never-ban list do not count as changes of the policy.
    let again = ground.load(USUAL, "");
    assert!(again.stdout.contains("nothing changed"), "{again:?}");
    // Another policy with the same `scan` keeps the recorded ports, too.
    ground.load(USUAL, r#""ban_outgoing": true, "default": { "out": "accept" },"#);
    assert!(ground.is_banned(OTHER_SOURCE));
    ground.syn(SOURCE, 2000);
    assert!(ground.is_banned(SOURCE));
    // A policy without `scan` converts the bans into ordinary ones.
    let before = ground.listed();
    ground.load("", "");
    let mut after = ground.listed();
    after.sort();
    let mut before = before;
    before.sort();
    assert_eq!(after, before);
    ground.load(USUAL, "");
    ground.tcp(SOURCE_V6, 9, 0);
    assert!(ground.is_banned(SOURCE_V6));
    ground.nfguard(&["unload"]);
    assert_eq!(ground.listed().len(), 3, "without any policy, too");
    let probe =
        Probe::tcp(&ground.world.internet, (World::HOST_V4, 80)).from(address(OTHER_SOURCE));
    let _servers = ground.serve();
    assert!(!probe.timeout(std::time::Duration::from_secs(1)).run().passed());
    let probe =
        Probe::tcp(&ground.world.internet, (World::HOST_V4, 80)).from(address("192.0.2.99"));
    assert!(probe.timeout(TIMEOUT).run().passed(), "the control");
}

#[test]
fn a_load_that_fails_late_keeps_the_bans_for_scans() {
    let mut ground = Ground::new(USUAL);
    ground.tcp(OTHER_SOURCE, 9, 0);
    assert!(ground.is_banned(OTHER_SOURCE));
    // The policy itself does not use these entries. The ban table has no room for all of them.
    let entries: Vec<String> = (0..16_500)
        .map(|at| format!("\"10.{}.{}.{}\"", at >> 15, at >> 7 & 255, at << 1 & 255))
        .collect();
    let more = format!("\"never_ban\": [{}],", entries.join(","));
    let file = ground.folder.path().join("policy.json");
    std::fs::write(&file, policy("", &more)).expect("can be written");
    let answer = nfguard(&ground.world.host, &["load", file.to_str().expect("UTF-8")]);
    assert_eq!(answer.status, Some(2), "{answer:?}");
    let status = ground.nfguard(&["status"]).stdout;
    assert!(!status.contains("scan/bans"), "the policy is there: {status}");
    let listed: Vec<_> =
        ground.listed().into_iter().map(|(target, source, _)| (target, source)).collect();
    assert_eq!(listed, [(OTHER_SOURCE.to_owned(), "scan".to_owned())]);
}
