//! The API socket, the privileges of the guard, and its metrics.

use std::collections::BTreeSet;
use std::fs;
use std::io::{Read as _, Write as _};
use std::net::TcpStream;
use std::os::unix::fs::PermissionsExt as _;
use std::os::unix::net::UnixStream;
use std::time::Instant;

use nfguard_tests::guard::Guard;
use nfguard_tests::program::TempFile;
use nfguard_tests::wait::TIMEOUT;
use serde_json::Value;

use super::{POLICY_A, banned, json, netns, policy_file, succeed, wait_until};

#[test]
fn one_line_bans_and_one_unbans_and_all_subscribers_get_events() {
    let netns = netns();
    let a = policy_file(POLICY_A);
    let guard = Guard::start(&netns, Some(a.path()), &[]);
    let mode = fs::metadata(guard.socket()).expect("there").permissions().mode();
    assert_eq!(mode & 0o777, 0o660);
    let mut subscriber = guard.connect();
    assert_eq!(json(&subscriber.request(r#"{"op":"subscribe"}"#))["ok"], true);
    let mut tool = guard.connect();
    let line = r#"{"op":"ban","target":"203.0.113.7","for":"1h","source":"tool","reason":"why"}"#;
    assert_eq!(json(&tool.request(line))["did"], "added");
    let event = json(&subscriber.read_line().expect("an event"));
    assert_eq!(
        (&event["event"], &event["ban"]["target"]),
        (&"banned".into(), &"203.0.113.7".into())
    );
    let shorter = r#"{"op":"ban","target":"203.0.113.7","for":60,"source":"tool"}"#;
    assert_eq!(json(&tool.request(shorter))["did"], "kept");
    let longer = r#"{"op":"ban","target":"203.0.113.7","for":7200,"source":"tool"}"#;
    assert_eq!(json(&tool.request(longer))["did"], "extended");
    assert_eq!(banned(&netns), ["203.0.113.7 tool"]);
    // Bans by other programs cause events, too.
    succeed(&netns, &["ban", "203.0.113.8", "--source", "other"]);
    let status = || json(&guard.status())["status"].clone();
    wait_until("the guard has the event", &guard, || status()["bans_by_source"]["other"] == 1);
    assert_eq!(status()["bans"], 2);
    let listed = json(&tool.request(r#"{"op":"bans","source":"other"}"#));
    assert_eq!(listed["bans"][0]["target"], "203.0.113.8");
    assert_eq!(json(&tool.request(r#"{"op":"unban","target":"203.0.113.7"}"#))["did"], "ended");
    assert_eq!(json(&tool.request(r#"{"op":"unban","target":"203.0.113.7"}"#))["did"], "absent");
    let refused = json(&tool.request(r#"{"op":"ban","target":"127.0.0.1"}"#));
    assert_eq!(refused["ok"], false);
    assert!(refused["error"].as_str().expect("words").contains("never-ban"), "{refused}");
    let mut told = Vec::new();
    while told.last().is_none_or(|last| last != "unbanned 203.0.113.7") || told.len() < 3 {
        let event = json(&subscriber.read_line().expect("an event"));
        let target = event["ban"]["target"].as_str().unwrap_or_default();
        told.push(format!("{} {target}", event["event"].as_str().unwrap_or_default()));
        assert!(told.len() < 20, "{told:?}");
    }
    assert!(told.contains(&"banned 203.0.113.8".to_owned()), "{told:?}");
}

#[test]
fn a_long_list_comes_page_by_page_and_whole() {
    let netns = netns();
    let guard = Guard::start(&netns, None, &[]);
    let list: String =
        (0..2500).map(|at| format!("10.0.{}.{}\n", at / 250, at % 250 + 1)).collect();
    let ban = nfguard_tests::program::nfguard_fed(&netns, &["ban", "-", "--for", "1h"], &list);
    assert_eq!(ban.status, Some(0), "{ban:?}");
    wait_until("the guard has the bans", &guard, || {
        json(&guard.status())["status"]["bans"] == 2500
    });
    let (mut all, mut after, mut pages) = (Vec::new(), String::new(), 0);
    loop {
        let page = json(&guard.connect().request(&format!(r#"{{"op":"bans"{after}}}"#)));
        pages += 1;
        for ban in page["bans"].as_array().expect("a list") {
            all.push(ban["target"].as_str().expect("text").to_owned());
        }
        let Some(next) = page["next"].as_str() else { break };
        after = format!(r#","after":"{next}""#);
    }
    assert_eq!((all.len(), pages), (2500, 3));
    all.sort();
    all.dedup();
    assert_eq!(all.len(), 2500);
}

#[test]
fn invalid_lines_are_answered_and_endless_lines_are_not_buffered() {
    let netns = netns();
    let guard = Guard::start(&netns, None, &[]);
    let mut tool = guard.connect();
    for nonsense in [
        "",
        "ban 203.0.113.7",
        "{}",
        r#"{"op":"ban"}"#,
        r#"{"op":"ban","target":"203.0.113.7","fro":"1h"}"#,
        r#"{"op":"ban","target":"203.0.113.300"}"#,
        r#"{"op":"ban","target":"203.0.113.7","for":1e300}"#,
        r#"{"op":"ban","target":"203.0.113.7","for":"soon"}"#,
        r#"{"op":"release","tables":{"removed":["nfguard"]}}"#,
        "\u{0}\u{1b}[31m",
    ] {
        let answer = json(&tool.request(nonsense));
        assert_eq!(answer["ok"], false, "{nonsense:?}");
        assert_ne!(answer["error"].as_str().unwrap_or_default(), "", "{nonsense:?}");
    }
    assert_eq!(json(&tool.request(r#"{"op":"status"}"#))["ok"], true, "it still listens");
    assert_eq!(banned(&netns), [""; 0]);
    let mut huge = guard.connect();
    // The guard may close the connection before it has read everything.
    for _ in 0..100 {
        if huge.send(&[b'x'; 64 * 1024]).is_err() {
            break;
        }
    }
    wait_until("the huge line's client is gone", &guard, || {
        json(&guard.status())["status"]["clients"].as_u64().expect("a number") <= 2
    });
}

#[test]
fn a_thousand_clients_at_once_do_no_harm() {
    let netns = netns();
    let a = policy_file(POLICY_A);
    let guard = Guard::start(&netns, Some(a.path()), &[]);
    let files = rustix::process::Rlimit { current: Some(4096), maximum: Some(4096) };
    // Without the privilege, the present limit stays.
    let _ = rustix::process::setrlimit(rustix::process::Resource::Nofile, files);
    let before = resident(guard.process());
    // Some clients send half a line and no more. Others request long answers and never read.
    let mut idle = Vec::new();
    for at in 0..900 {
        let mut client = UnixStream::connect(guard.socket()).expect("it listens");
        let line: &[u8] = match at % 3 {
            0 => b"",
            1 => b"{\"op\":\"ban\",\"target",
            _ => b"{\"op\":\"bans\"}\n{\"op\":\"subscribe\"}\n",
        };
        client.write_all(line).expect("it takes it");
        idle.push(client);
    }
    let mut latencies = Vec::new();
    let start = Instant::now();
    std::thread::scope(|scope| {
        let clients = (0..100).map(|client| {
            let guard = &guard;
            scope.spawn(move || {
                let mut connection = guard.connect();
                let mut took = Vec::new();
                for ban in 0..20 {
                    let since = Instant::now();
                    let answer = connection.request(&format!(
                        r#"{{"op":"ban","target":"10.1.{client}.{ban}","for":"1h"}}"#
                    ));
                    assert_eq!(json(&answer)["did"], "added");
                    took.push(since.elapsed());
                }
                took
            })
        });
        for client in clients.collect::<Vec<_>>() {
            latencies.extend(client.join().expect("no panic"));
        }
    });
    let all = start.elapsed();
    latencies.sort_unstable();
    let of = |part: usize| latencies[(latencies.len() - 1) * part / 100];
    eprintln!(
        "2000 bans of 100 clients beside 900 that are no use in {all:?}: {:?} in the middle, {:?} \
         for 99 of 100, {:?} at most; {before} KiB before, {} KiB after",
        of(50),
        of(99),
        of(100),
        resident(guard.process())
    );
    wait_until("all are banned", &guard, || json(&guard.status())["status"]["bans"] == 2000);
    drop(idle);
    wait_until("the bans are gone", &guard, || {
        json(&guard.status())["status"]["clients"].as_u64().expect("a number") <= 1
    });
}

/// Returns the resident memory of a process in KiB.
fn resident(process: u32) -> u64 {
    field(process, "VmRSS").split(' ').next().and_then(|it| it.parse().ok()).expect("a number")
}

fn field(process: u32, name: &str) -> String {
    let status = fs::read_to_string(format!("/proc/{process}/status")).expect("it runs");
    let line = status.lines().find_map(|line| line.strip_prefix(&format!("{name}:")));
    line.unwrap_or_else(|| panic!("{name}: {status}")).trim().to_owned()
}

#[test]
fn the_guard_has_one_capability_left_and_cannot_get_another() {
    let netns = netns();
    let a = policy_file(POLICY_A);
    let guard = Guard::start(&netns, Some(a.path()), &[]);
    let net_admin = "0000000000001000";
    for (name, value) in [
        ("CapEff", net_admin),
        ("CapPrm", net_admin),
        ("CapInh", "0000000000000000"),
        ("CapBnd", "0000000000000000"),
        ("CapAmb", "0000000000000000"),
        ("NoNewPrivs", "1"),
        ("Seccomp", "2"),
        ("Threads", "1"),
    ] {
        assert_eq!(field(guard.process(), name), value, "{name}");
    }
    // The guard still works.
    assert_eq!(
        json(&guard.connect().request(r#"{"op":"ban","target":"203.0.113.7"}"#))["did"],
        "added"
    );
}

#[test]
fn prometheus_reads_the_counters_of_rules_and_the_bans_of_each_source() {
    let netns = netns();
    let a = policy_file(POLICY_A);
    let guard = Guard::start(&netns, Some(a.path()), &["--metrics", "{}/metrics.sock"]);
    succeed(&netns, &["ban", "203.0.113.7", "203.0.113.8", "--source", "tool"]);
    let list = TempFile::new("list", "45.9.20.0/24\n45.9.30.0-45.9.30.5\n2a0e:b107::/32\n");
    let add = ["feed".as_ref(), "add".as_ref(), "drop".as_ref(), list.as_ref()];
    assert_eq!(nfguard_tests::program::nfguard::<&std::ffi::OsStr>(&netns, &add).status, Some(0));
    let scrape = || {
        let path = guard.folder().join("metrics.sock");
        let mut stream = UnixStream::connect(path).expect("it listens");
        stream.set_read_timeout(Some(TIMEOUT)).expect("a timeout");
        stream.write_all(b"GET /metrics HTTP/1.1\r\nHost: x\r\n\r\n").expect("it reads");
        let mut text = String::new();
        stream.read_to_string(&mut text).expect("it answers");
        text
    };
    wait_until("the guard has the bans", &guard, || {
        scrape().contains(r#"nfguard_bans{source="tool"} 2"#)
    });
    let text = scrape();
    assert!(text.starts_with("HTTP/1.0 200 OK\r\n"), "{text}");
    for line in [
        r#"nfguard_packets_total{table="nfguard",counter="in/web"} 0"#,
        r#"nfguard_feed_ranges{feed="drop"} 3"#,
        "nfguard_guarded 1",
        "nfguard_drift_repairs_total 0",
        "# EOF",
    ] {
        assert!(text.lines().any(|it| it == line), "no {line} in\n{text}");
    }
    let asked = metrics_of_the_dashboard();
    assert!(asked.len() > 5, "{asked:?}");
    for name in asked {
        let is_told = |line: &str| line.split(['{', ' ']).next() == Some(&name);
        assert!(text.lines().any(is_told), "the dashboard asks for {name}\n{text}");
    }
    guard.kill();
    // Over TCP, the metrics serve only this host.
    let wide = nfguard_tests::program::nfguard(&netns, &["guard", "--metrics", "0.0.0.0:9477"]);
    assert_eq!(wide.status, Some(2), "{wide:?}");
    let guard = Guard::start(&netns, None, &["--metrics", "127.0.0.1:9477"]);
    let text = netns.run(|| {
        let mut stream = TcpStream::connect(("127.0.0.1", 9477)).expect("it listens");
        stream.write_all(b"GET / HTTP/1.0\r\n\r\n").expect("it reads");
        let mut text = String::new();
        stream.read_to_string(&mut text).expect("it answers");
        text
    });
    assert!(text.contains(r#"nfguard_bans{source="tool"} 2"#), "{text}\n{}", guard.log());
}

/// Returns the names of all metrics in the queries of the dashboard.
fn metrics_of_the_dashboard() -> BTreeSet<String> {
    let text = include_str!("../../../packaging/grafana/nfguard.json");
    let dashboard: Value = serde_json::from_str(text).expect("JSON");
    let panels = dashboard["panels"].as_array().expect("panels");
    let queries = panels.iter().flat_map(|panel| panel["targets"].as_array().into_iter().flatten());
    let mut names = BTreeSet::new();
    for query in queries.map(|query| query["expr"].as_str().expect("a query")) {
        let words = query.split(|char: char| !char.is_ascii_alphanumeric() && char != '_');
        names.extend(words.filter(|word| word.starts_with("nfguard_")).map(str::to_owned));
    }
    names
}
