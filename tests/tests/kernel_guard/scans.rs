//! What the kernel bans by itself lies in the table that the guard owns.

use nfguard_ban::scan;
use nfguard_lab::{World, packet};
use nfguard_netlink::{Kernel, protocol};
use nfguard_tests::guard::Guard;

use super::{banned, done, file, json, until, world};

const POLICY: &str = r#"{ "version": 1, "scan": {}, "rules": [
    { "name": "web", "action": "allow", "port": 443 } ] }"#;

/// Somebody sends what nobody sends in earnest.
fn scan_from(world: &World, from: &str) {
    let (from, to) = (from.parse().expect("an address"), World::HOST_V4);
    let null = packet::tcp(from, to, 40_000, 9, 0);
    let bytes = packet::ip(from, to, protocol::TCP, 64, &null);
    world.internet.send_raw(None, &bytes).expect("it is sent");
}

#[test]
fn who_is_banned_for_a_scan_is_listed_and_unbanned_under_a_guard() {
    let world = world();
    let policy = file(POLICY);
    let guard = Guard::start(&world.host, Some(policy.path()), &[]);
    let mut talk = guard.talk();
    for (source, unban) in [("203.0.113.7", true), ("203.0.113.8", false)] {
        scan_from(&world, source);
        let line = format!("{source} scan");
        until("is banned", &guard, || banned(&world.host) == [line.clone()]);
        let answer = json(&talk.say(r#"{"op":"bans","source":"scan"}"#));
        assert_eq!(answer["bans"][0]["target"], source, "{answer}");
        if unban {
            let answer = json(&talk.say(&format!(r#"{{"op":"unban","target":"{source}"}}"#)));
            assert_eq!(answer["did"], "ended", "{answer}");
        } else {
            done(&world.host, &["unban", source]);
        }
        assert!(banned(&world.host).is_empty());
    }
    done(&world.host, &["status"]);
}

#[test]
fn the_guard_has_the_rules_spare_who_is_never_banned() {
    let world = world();
    let policy = file(POLICY);
    let guard = Guard::start(&world.host, Some(policy.path()), &[]);
    let is_spared = |last: u8| {
        let mut kernel = world.host.run(|| Kernel::open().expect("netlink is there"));
        let set = scan::set("never", false);
        let table = kernel.table(scan::TABLE).expect("reads").loaded.expect("is there").table;
        let elements = &table.set(&set).expect("is there").elements;
        let key = vec![203, 0, 113, last];
        elements.iter().any(|element| match &element.key {
            nfguard_netlink::Key::Range(first, end) => (first..=end).contains(&&key),
            nfguard_netlink::Key::Value(value) => *value == key,
        })
    };
    assert!(!is_spared(7));
    done(&world.host, &["never", "add", "203.0.113.0/28"]);
    until("is spared", &guard, || is_spared(7));
    scan_from(&world, "203.0.113.7");
    scan_from(&world, "203.0.113.77");
    until("somebody is banned", &guard, || !banned(&world.host).is_empty());
    assert_eq!(banned(&world.host), ["203.0.113.77 scan"]);
    done(&world.host, &["never", "remove", "203.0.113.0/28"]);
    until("is spared no longer", &guard, || !is_spared(7));
    done(&world.host, &["status"]);
}

#[test]
fn who_was_banned_before_the_guard_came_still_is() {
    let world = world();
    let policy = file(POLICY);
    done(&world.host, &["load", policy.path().to_str().expect("plain letters")]);
    scan_from(&world, "203.0.113.7");
    let guard = Guard::start(&world.host, None, &[]);
    until("is banned", &guard, || banned(&world.host) == ["203.0.113.7 scan"]);
}
