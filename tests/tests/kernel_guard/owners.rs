//! Bans of one target by several sources, over the socket and after a flush.

use std::collections::BTreeMap;
use std::time::{Instant, SystemTime, UNIX_EPOCH};

use nfguard_lab::Netns;
use nfguard_tests::guard::{Guard, GuardClient};
use nfguard_tests::nft::nft;
use nfguard_tests::place::netns;
use nfguard_tests::program::{nfguard, succeed};
use nfguard_tests::wait::TIMEOUT;
use serde_json::{Value, json};

use super::{banned, json, wait_until};

fn send_request(client: &mut GuardClient, request: Value) -> Value {
    json(&client.request(&request.to_string()))
}

/// Returns the remaining seconds of each ban, by target, port and source.
fn remaining_times(netns: &Netns) -> BTreeMap<String, f64> {
    let answer = succeed(netns, &["bans", "--json"]);
    let value = json(&answer.stdout);
    let bans = value["bans"].as_array().expect("a list").iter();
    bans.map(|ban| {
        let name = format!("{} {} {}", ban["target"], ban["port"], ban["source"]).replace('"', "");
        (name, ban["expires_in_seconds"].as_f64().unwrap_or(f64::INFINITY))
    })
    .collect()
}

#[test]
fn a_source_on_the_socket_ends_its_own_bans_and_the_operator_all() {
    let netns = netns();
    let guard = Guard::start(&netns, None, &[]);
    let mut tool = guard.connect();
    let targets = ["203.0.113.7", "203.0.113.0/25", "2001:db8:7::1"];
    let end = SystemTime::now().duration_since(UNIX_EPOCH).expect("after 1970").as_secs() + 3600;
    for source in ["crowd", "mine", "feed"] {
        let bans: Vec<Value> = targets.iter().map(|target| json!({ "target": target })).collect();
        let list = json!({ "op": "ban_all", "source": source, "until": end, "bans": bans });
        assert_eq!(send_request(&mut tool, list)["counts"]["added"], 3, "{source}");
    }
    let status = || json(&guard.status())["status"].clone();
    wait_until("all are counted", &guard, || status()["bans"] == 9);
    let unban =
        |target: &str, source: &str| json!({ "op": "unban", "target": target, "source": source });
    assert_eq!(send_request(&mut tool, unban("203.0.113.7", "mine"))["did"], "ended");
    assert_eq!(send_request(&mut tool, unban("203.0.113.7", "mine"))["did"], "absent");
    assert_eq!(send_request(&mut tool, unban("203.0.113.7", "unknown"))["did"], "absent");
    // One list with its source, and one entry with another.
    let unbans = json!([
        { "target": "203.0.113.7" },
        { "target": "203.0.113.0/25" },
        { "target": "2001:db8:7::1", "source": "feed" },
    ]);
    let list = json!({ "op": "unban_all", "source": "mine", "unbans": unbans });
    let answer = send_request(&mut tool, list);
    assert_eq!((&answer["counts"]["ended"], &answer["counts"]["absent"]), (&2.into(), &1.into()));
    let mut left = banned(&netns);
    left.sort();
    let expected = [
        "2001:db8:7::/64 crowd",
        "2001:db8:7::/64 mine",
        "203.0.113.0/25 crowd",
        "203.0.113.0/25 feed",
        "203.0.113.7 crowd",
        "203.0.113.7 feed",
    ];
    assert_eq!(left, expected);
    let deadline = Instant::now() + TIMEOUT;
    loop {
        // The counts may be some seconds old.
        let counts = status()["bans_by_source"].clone();
        if counts == json!({ "crowd": 3, "feed": 2, "mine": 1 }) {
            break;
        }
        assert!(Instant::now() < deadline, "{counts}");
        std::thread::sleep(std::time::Duration::from_millis(200));
    }

    let replace =
        |bans: Value| json!({ "op": "replace", "source": "feed", "until": end, "bans": bans });
    let answer = send_request(&mut tool, replace(json!([{ "target": "203.0.113.7" }])));
    let counts = &answer["counts"];
    assert_eq!((&counts["kept"], &counts["ended"]), (&1.into(), &1.into()), "{answer}");
    assert_eq!((&counts["added"], &counts["extended"]), (&0.into(), &0.into()), "{answer}");
    assert_eq!(send_request(&mut tool, replace(json!([])))["counts"]["ended"], 1);
    assert_eq!(banned(&netns).len(), 4, "the others' bans are as they were");
    let operator = json!({ "op": "unban_all", "unbans": [{ "target": "2001:db8:7::1" }] });
    assert_eq!(send_request(&mut tool, operator)["counts"]["ended"], 1);
    assert_eq!(banned(&netns), ["203.0.113.0/25 crowd", "203.0.113.7 crowd"].map(str::to_owned));
}

#[test]
fn flushed_bans_come_back_with_every_owner_and_its_time() {
    let netns = netns();
    let guard = Guard::start(&netns, None, &[]);
    for (source, time) in [("short", "10m"), ("long", "7d"), ("ever", "-1")] {
        let options = ["--for", time, "--source", source];
        succeed(&netns, &[&["ban", "203.0.113.7", "2001:db8:7::/48"], &options[..]].concat());
    }
    succeed(&netns, &["ban", "203.0.113.7", "--port", "443/tcp", "--source", "short"]);
    succeed(&netns, &["unban", "2001:db8:7::/48", "--source", "ever"]);
    let status = || json(&guard.status())["status"].clone();
    wait_until("the guard has the bans", &guard, || status()["bans"] == 6);
    let before = remaining_times(&netns);
    assert_eq!(before.len(), 6, "{before:?}");
    // The operator ends a ban of a source: the source is to learn of it after the flush, too.
    succeed(&netns, &["ban", "203.0.113.8", "--source", "jail"]);
    succeed(&netns, &["unban", "203.0.113.8"]);
    let is_ready = || nfguard(&netns, &["bans", "--ready", "--source", "jail"]).status == Some(0);
    assert!(!is_ready());
    wait_until("the guard has no more", &guard, || status()["bans"] == 6);
    let restores = status()["restores"].as_u64().expect("a number");
    nft(&netns, "flush ruleset\n");
    wait_until("they are back", &guard, || status()["restores"].as_u64() > Some(restores));
    assert!(!is_ready());
    let after = remaining_times(&netns);
    assert_eq!(before.keys().collect::<Vec<_>>(), after.keys().collect::<Vec<_>>());
    for (name, left) in &after {
        let was = before[name];
        assert!(was == *left || (*left <= was && was - *left < 100.0), "{name}: {was} {left}");
    }
    // Each owner still can let go of its own.
    for (source, left) in [("ever", 2), ("short", 1)] {
        succeed(&netns, &["unban", "203.0.113.7", "--source", source]);
        let of_all_ports = |ban: &&String| ban.starts_with("203.0.113.7 ");
        let owners = banned(&netns);
        assert_eq!(owners.iter().filter(of_all_ports).count(), left + 1, "{source}: {owners:?}");
    }
}

#[test]
fn subscribers_hear_of_each_owner_and_of_no_end_that_is_none() {
    let netns = netns();
    let guard = Guard::start(&netns, None, &[]);
    let mut subscriber = guard.connect();
    assert_eq!(json(&subscriber.request(r#"{"op":"subscribe"}"#))["ok"], true);
    // The second owner's ban takes the place of the first in the set that drops, and back.
    succeed(&netns, &["ban", "203.0.113.7", "--for", "1h", "--source", "first"]);
    succeed(&netns, &["ban", "203.0.113.7", "--for", "7d", "--source", "second"]);
    succeed(&netns, &["ban", "203.0.113.7", "--for", "9d", "--source", "second"]);
    succeed(&netns, &["unban", "203.0.113.7", "--source", "second"]);
    succeed(&netns, &["unban", "203.0.113.7", "--source", "first"]);
    let mut told = Vec::new();
    while told.last().is_none_or(|last| last != "unbanned first") {
        let event = json(&subscriber.read_line().expect("an event"));
        let words = format!("{} {}", event["event"], event["ban"]["source"]).replace('"', "");
        told.push(words);
        assert!(told.len() < 20, "{told:?}");
    }
    let ends: Vec<_> = told.iter().filter(|words| words.starts_with("unbanned")).collect();
    assert_eq!(ends, ["unbanned second", "unbanned first"], "{told:?}");
    let bans =
        |source: &str| told.iter().filter(|words| **words == format!("banned {source}")).count();
    assert!(bans("first") >= 1 && bans("second") >= 2, "{told:?}");
}
