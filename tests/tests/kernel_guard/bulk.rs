//! Many bans in one line, the bans of one source, ends at a given time, and error codes.

use std::fmt::Write as _;
use std::time::{Instant, SystemTime, UNIX_EPOCH};

use nfguard_lab::Netns;
use nfguard_tests::guard::{Guard, GuardClient};
use nfguard_tests::place::netns;
use nfguard_tests::program::{many, nfguard, succeed};
use serde_json::{Value, json};

use super::{banned, json, wait_until};

/// Returns the seconds since 1970.
fn now() -> u64 {
    SystemTime::now().duration_since(UNIX_EPOCH).expect("after 1970").as_secs()
}

fn send_request(client: &mut GuardClient, request: &Value) -> Value {
    json(&client.request(&request.to_string()))
}

/// Returns target and remaining seconds of each ban of a source.
fn remaining_times(netns: &Netns, source: &str) -> Vec<(String, f64)> {
    let answer = succeed(netns, &["bans", "--json", "--source", source]);
    let bans = json(&answer.stdout)["bans"].as_array().expect("a list").clone();
    let left = |ban: &Value| ban["expires_in_seconds"].as_f64().unwrap_or(f64::INFINITY);
    bans.iter().map(|ban| (ban["target"].as_str().expect("text").to_owned(), left(ban))).collect()
}

#[test]
fn ten_thousand_bans_in_one_line_have_one_answer_and_so_have_their_unbans() {
    let netns = netns();
    let guard = Guard::start(&netns, None, &[]);
    let mut tool = guard.connect();
    let count = many(10_000);
    let targets: Vec<String> =
        (0..count).map(|at| format!("10.{}.{}.1", at / 250, at % 250)).collect();
    let end = now() + 3600;
    let mut bans: Vec<Value> = targets
        .iter()
        .map(|target| json!({ "target": target, "until": end, "reason": "one of a long list" }))
        .collect();
    // A mistake in one entry does not prevent other bans.
    bans.insert(5, json!({ "target": "127.0.0.1" }));
    bans.push(json!({ "target": "198.51.100.300" }));
    let request = json!({ "op": "ban_all", "source": "list", "bans": bans });
    let start = Instant::now();
    let answer = send_request(&mut tool, &request);
    eprintln!("{count} bans in {} bytes: {:?}", request.to_string().len(), start.elapsed());
    assert_eq!((&answer["ok"], &answer["counts"]["added"]), (&true.into(), &count.into()));
    let refused: Vec<(u64, &str)> = answer["refused"]
        .as_array()
        .expect("a list")
        .iter()
        .map(|it| (it["index"].as_u64().expect("a number"), it["code"].as_str().expect("text")))
        .collect();
    assert_eq!(refused, [(5, "never_ban"), (u64::from(count) + 1, "bad_input")], "{answer}");
    wait_until("all are in force", &guard, || json(&guard.status())["status"]["bans"] == count);
    assert_eq!(remaining_times(&netns, "list").len(), usize::try_from(count).expect("small"));
    // A repeated request changes nothing.
    let again = send_request(&mut tool, &request);
    assert_eq!(
        (&again["counts"]["added"], &again["counts"]["extended"], &again["counts"]["kept"]),
        (&0.into(), &0.into(), &count.into())
    );
    let mut unbans: Vec<Value> = targets.iter().map(|target| json!({ "target": target })).collect();
    unbans.push(json!({ "target": "192.0.2.1" }));
    let start = Instant::now();
    let answer = send_request(&mut tool, &json!({ "op": "unban_all", "unbans": unbans }));
    eprintln!("{count} unbans: {:?}", start.elapsed());
    assert_eq!(
        (&answer["counts"]["ended"], &answer["counts"]["absent"]),
        (&count.into(), &1.into())
    );
    assert_eq!(banned(&netns), [""; 0]);
    assert_eq!(
        send_request(&mut tool, &json!({ "op": "status" }))["ok"],
        true,
        "one answer to each line"
    );
}

#[test]
fn other_clients_are_answered_while_a_long_list_is_banned() {
    let netns = netns();
    let guard = Guard::start(&netns, None, &[]);
    let bans: Vec<Value> = (0..many(40_000))
        .map(|at| json!({ "target": format!("10.{}.{}.1", at / 250, at % 250) }))
        .collect();
    let (mut tool, mut other) = (guard.connect(), guard.connect());
    let line = json!({ "op": "ban_all", "bans": bans }).to_string() + "\n";
    tool.send(line.as_bytes()).expect("it reads");
    // During this request, some bans of the list are in force, and not all.
    let mut seen = Vec::new();
    while seen.last().is_none_or(|last| *last < u64::from(many(40_000))) {
        let status = send_request(&mut other, &json!({ "op": "status" }));
        seen.push(status["status"]["bans"].as_u64().expect("a number"));
        assert!(seen.len() < 100_000, "{seen:?}");
    }
    assert_eq!(json(&tool.read_line().expect("an answer"))["counts"]["added"], many(40_000));
    let between = seen.iter().filter(|bans| **bans > 0 && **bans < u64::from(many(40_000)));
    assert!(between.count() > 0, "{seen:?}");
}

#[test]
fn a_long_list_is_carried_out_after_its_client_has_gone() {
    let netns = netns();
    let guard = Guard::start(&netns, None, &[]);
    let count = many(5_000);
    let bans: Vec<Value> = (0..count)
        .map(|at| json!({ "target": format!("10.{}.{}.1", at / 250, at % 250) }))
        .collect();
    let line = format!("{}\n", json!({ "op": "ban_all", "source": "list", "bans": bans }));
    let mut tool = guard.connect();
    tool.send(line.as_bytes()).expect("sent");
    drop(tool);
    wait_until("all are in force", &guard, || json(&guard.status())["status"]["bans"] == count);
}

#[test]
fn the_bans_of_one_source_are_replaced_in_one_request() {
    let netns = netns();
    let guard = Guard::start(&netns, None, &[]);
    let mut tool = guard.connect();
    let mut replace = |bans: Value| {
        send_request(
            &mut tool,
            &json!({ "op": "replace", "source": "feed", "for": "1h", "bans": bans }),
        )
    };
    succeed(&netns, &["ban", "192.0.2.100", "--source", "operator"]);
    let first =
        json!([{ "target": "192.0.2.1" }, { "target": "192.0.2.2" }, { "target": "192.0.2.3" }]);
    assert_eq!(replace(first)["counts"]["added"], 3);
    // One ban stays, one ends earlier, one is removed, one is new, and one target is a never-ban
    // entry.
    let second = json!([
        { "target": "192.0.2.2" },
        { "target": "192.0.2.3", "for": 60 },
        { "target": "192.0.2.4" },
        { "target": "127.0.0.1" },
    ]);
    let answer = replace(second.clone());
    assert_eq!((&answer["ok"], &answer["counts"]["ended"]), (&true.into(), &1.into()), "{answer}");
    assert_eq!(answer["refused"][0]["code"], "never_ban", "{answer}");
    let left = remaining_times(&netns, "feed");
    let targets: Vec<&str> = left.iter().map(|(target, _)| target.as_str()).collect();
    assert_eq!(targets, ["192.0.2.2", "192.0.2.3", "192.0.2.4"]);
    assert!(left[0].1 > 3000.0 && left[1].1 <= 60.0 && left[2].1 > 3000.0, "{left:?}");
    // A list with a mistake changes nothing.
    let wrong = replace(json!([{ "target": "192.0.2.5" }, { "target": "nonsense" }]));
    assert_eq!((&wrong["ok"], &wrong["code"]), (&false.into(), &"bad_input".into()), "{wrong}");
    assert_eq!(remaining_times(&netns, "feed").len(), 3);
    let other = replace(json!([{ "target": "192.0.2.5", "source": "other" }]));
    assert_eq!(other["code"], "bad_input", "{other}");
    assert_eq!(replace(json!([]))["counts"]["ended"], 3);
    assert_eq!(banned(&netns), ["192.0.2.100 operator"], "another source keeps its own");
}

#[test]
fn a_repeated_end_is_kept_in_every_notation() {
    let netns = netns();
    let guard = Guard::start(&netns, None, &[]);
    let mut tool = guard.connect();
    let mut ban_until = |end: Value| {
        send_request(&mut tool, &json!({ "op": "ban", "target": "203.0.113.7", "until": end }))
    };
    let end = now() + 1000;
    assert_eq!(ban_until(end.into())["did"], "added");
    for _ in 0..20 {
        assert_eq!(ban_until(end.into())["did"], "kept");
    }
    assert_eq!(ban_until((end - 100).into())["did"], "kept");
    assert_eq!(ban_until((end + 100).into())["did"], "extended");
    let left = remaining_times(&netns, "api");
    assert!((1000.0..=1100.0).contains(&left[0].1), "{left:?}");
    // 2100-01-01 in three notations.
    assert_eq!(ban_until("2100-01-01T00:00:00Z".into())["did"], "extended");
    assert_eq!(ban_until("2100-01-01T01:30:00+01:30".into())["did"], "kept");
    assert_eq!(ban_until(4_102_444_800_u64.into())["did"], "kept");
    for wrong in [json!(now() - 5), json!("yesterday"), json!("2020-01-01T00:00:00Z"), json!(-1)] {
        assert_eq!(ban_until(wrong.clone())["code"], "bad_input", "{wrong}");
    }
    let both = json!({ "op": "ban", "target": "203.0.113.8", "for": 60, "until": end });
    assert_eq!(send_request(&mut tool, &both)["code"], "bad_input");
    assert_eq!(banned(&netns), ["203.0.113.7 api"]);
}

#[test]
fn each_refusal_has_a_code_of_its_own() {
    let netns = netns();
    let guard = Guard::start(&netns, None, &[]);
    let mut tool = guard.connect();
    for (line, code) in [
        ("nonsense", "bad_input"),
        (r#"{"op":"eclipse"}"#, "bad_input"),
        (r#"{"op":"ban","target":"203.0.113.300"}"#, "bad_input"),
        (r#"{"op":"ban","target":"203.0.113.7","for":0}"#, "bad_input"),
        (r#"{"op":"ban","target":"203.0.113.7","for":"0s"}"#, "bad_input"),
        (r#"{"op":"ban","target":"203.0.113.7","port":"0/tcp"}"#, "bad_input"),
        (r#"{"op":"ban","target":"127.0.0.1"}"#, "never_ban"),
        (r#"{"op":"release"}"#, "no_lease"),
    ] {
        let answer = json(&tool.request(line));
        assert_eq!((&answer["ok"], &answer["code"]), (&false.into(), &code.into()), "{line}");
        assert_ne!(answer["error"].as_str().unwrap_or_default(), "", "{line}: {answer}");
    }
    // Fail2Ban writes a permanent ban as -1.
    assert_eq!(
        json(&tool.request(r#"{"op":"ban","target":"203.0.113.7","for":-1}"#))["did"],
        "added"
    );
    assert_eq!(remaining_times(&netns, "api"), [("203.0.113.7".to_owned(), f64::INFINITY)]);
    assert_eq!(json(&tool.request(r#"{"op":"acquire"}"#))["ok"], true);
    assert_eq!(json(&guard.connect().request(r#"{"op":"acquire"}"#))["code"], "busy");
    assert_eq!(json(&tool.request(r#"{"op":"release"}"#))["ok"], true);
    let mut list = r#"{"op":"unban_all","unbans":["#.to_owned();
    for at in 0..50_001 {
        let _ = write!(list, r#"{}{{"target":"{at}"}}"#, if at > 0 { "," } else { "" });
    }
    let answer = json(&tool.request(&format!("{list}]}}")));
    assert_eq!(answer["code"], "too_long", "{answer}");
    assert_eq!(json(&tool.request(r#"{"op":"status"}"#))["ok"], true, "it still listens");
    // A foreign ban table causes a kernel error.
    succeed(&netns, &["unload", "--all"]);
    nfguard_tests::nft::nft(&netns, "add table inet nfguard_bans { comment \"another's\"; }\n");
    let answer = json(&tool.request(r#"{"op":"ban","target":"203.0.113.9"}"#));
    assert_eq!((&answer["ok"], &answer["code"]), (&false.into(), &"kernel".into()), "{answer}");
    assert_eq!(nfguard(&netns, &["ban", "203.0.113.9"]).status, Some(3));
}

#[test]
fn a_line_that_is_too_long_is_answered_and_ends_the_connection() {
    let netns = netns();
    let guard = Guard::start(&netns, None, &[]);
    let mut tool = guard.connect();
    let piece = vec![b'x'; 64 * 1024];
    // The guard may close the connection before it has read everything.
    while tool.send(&piece).is_ok() {}
    let answer = tool.read_line().map(|line| json(&line)["code"].clone());
    assert!(answer.is_none_or(|code| code == "too_long"));
    assert_eq!(tool.read_line(), None);
    wait_until("the guard closes the connection", &guard, || {
        json(&guard.status())["status"]["clients"] == 1
    });
}

#[test]
fn the_status_names_the_version_of_the_protocol_beside_that_of_nfguard() {
    let netns = netns();
    let guard = Guard::start(&netns, None, &[]);
    let status = json(&guard.status())["status"].clone();
    assert_eq!(status["version"], 1);
    let version = succeed(&netns, &["--version"]).stdout;
    let number = version.trim().strip_prefix("nfguard ").and_then(|it| it.split(' ').next());
    assert_eq!(status["nfguard_version"].as_str(), number);
}
