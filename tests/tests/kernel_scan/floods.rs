//! Forged sources: how many are banned, and how much is remembered.

use nfguard_tests::reader::Reader;

use crate::{Ground, OTHER_SOURCE, SOURCE};

#[test]
fn bans_per_minute_are_capped() {
    let mut ground = Ground::new(r#"{ "bans_per_minute": 2 }"#);
    for last in 1..=40 {
        ground.tcp(&format!("192.0.2.{last}"), 9, 0);
    }
    let banned = (1..=40).filter(|last| ground.is_banned(&format!("192.0.2.{last}"))).count();
    // A slow machine may need more than one minute.
    assert!((2..40).contains(&banned), "{banned}");
    assert_eq!(ground.count("scan/bans"), banned as u64);
    assert_eq!(ground.count("scan/capped"), 40 - banned as u64);
    assert!(ground.count("builtin/invalid") == 40, "all are dropped");
}

#[test]
fn a_line_is_logged_for_each_ban_and_for_each_beyond_the_cap() {
    let mut ground =
        Ground::with(r#"{ "bans_per_minute": 1 }"#, r#""log": { "to": { "group": 7 } },"#);
    let reader = Reader::start(&ground.world.host, &["--count", "2"]);
    for source in [SOURCE, OTHER_SOURCE] {
        ground.tcp(source, 9, 0);
    }
    let (text, _) = reader.end();
    let lines: Vec<&str> = text.lines().collect();
    assert!(lines[0].contains("scan/bans") && lines[0].contains(SOURCE), "{text}");
    assert!(lines[1].contains("scan/capped") && lines[1].contains(OTHER_SOURCE), "{text}");
}

#[test]
fn a_full_port_set_counts_nothing_new_and_all_is_dropped() {
    let mut ground = Ground::new(r#"{ "ports": 3, "seconds": 3600, "sources": 2 }"#);
    ground.syns(SOURCE, 1000, 2);
    assert_eq!(ground.count("scan/full"), 0);
    ground.syns(SOURCE, 1002, 10);
    ground.syns(OTHER_SOURCE, 1000, 10);
    assert!(!ground.is_banned(SOURCE) && !ground.is_banned(OTHER_SOURCE));
    assert_eq!(ground.count("default/in"), 22);
    assert_eq!(ground.count("scan/full"), 20);
    // After the first of them, no port was looked up.
    ground.wait_until("the lookup is paused", |ground| {
        ground.syn(OTHER_SOURCE, 1000);
        ground.pauses()
    });
}

#[test]
fn ports_count_again_when_there_is_room_again() {
    let mut ground = Ground::new(r#"{ "ports": 2, "seconds": 2, "sources": 2 }"#);
    ground.wait_until("no port can be remembered", |ground| {
        ["192.0.2.1", "192.0.2.2", "192.0.2.3"].iter().for_each(|source| ground.syn(source, 1000));
        ground.count("scan/full") > 0
    });
    ground.wait_until("a scan is seen", |ground| {
        ground.syns(SOURCE, 1000, 2);
        ground.is_banned(SOURCE)
    });
}

#[test]
fn a_full_ban_set_is_counted_and_all_is_dropped() {
    let mut ground = Ground::new(r#"{ "sources": 2, "ban_seconds": 7200 }"#);
    for last in 1..=5 {
        ground.tcp(&format!("192.0.2.{last}"), 9, 0);
    }
    let banned: Vec<_> = (1..=5).map(|last| ground.is_banned(&format!("192.0.2.{last}"))).collect();
    assert_eq!(banned, [true, true, false, false, false]);
    assert_eq!(ground.count("scan/full"), 3);
    assert_eq!(ground.count("builtin/invalid"), 5);
}

#[test]
fn a_source_without_room_in_the_repeat_set_is_banned() {
    let mut ground = Ground::new(r#"{ "sources": 2, "ban_seconds": 2 }"#);
    for source in ["192.0.2.1", "192.0.2.2"] {
        ground.tcp(source, 9, 0);
    }
    ground.wait_until("the bans are over", |ground| !ground.is_banned("192.0.2.2"));
    // The kernel removes expired elements later. Until then they occupy the set.
    ground.wait_until("there is room", |ground| {
        ground.tcp("192.0.2.3", 9, 0);
        ground.is_banned("192.0.2.3")
    });
    assert!(ground.find("again", "192.0.2.3").is_none(), "no room");
}
