//! `nfguard jail`: the samples through the program, and what it answers to bad input.

use std::collections::BTreeMap;
use std::fs;
use std::io::Write as _;
use std::path::PathBuf;
use std::process::Stdio;

use nfguard_tests::document::repository;
use nfguard_tests::program::{Answer, command};
use serde_json::{Value, json};

fn logs() -> PathBuf {
    repository().join("crates/jail/tests/logs")
}

/// Runs the program with this input.
fn run(arguments: &[&str], input: &[u8]) -> Answer {
    let mut child = command(arguments)
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn()
        .expect("the program starts");
    let mut stdin = child.stdin.take().expect("is piped");
    let input = input.to_vec();
    let writer = std::thread::spawn(move || {
        // A program that refuses its arguments does not read.
        let _ = stdin.write_all(&input);
    });
    let output = child.wait_with_output().expect("the program ends");
    writer.join().expect("the writer ends");
    output.into()
}

/// Returns the objects on standard output, one a line.
fn objects(answer: &Answer) -> Vec<Value> {
    let lines = answer.stdout.lines();
    lines.map(|line| serde_json::from_str(line).unwrap_or_else(|_| panic!("{line}"))).collect()
}

fn read(path: PathBuf) -> String {
    fs::read_to_string(&path).unwrap_or_else(|error| panic!("{}: {error}", path.display()))
}

#[test]
fn each_sample_log_gives_the_bans_beside_it() {
    let mut count = 0;
    for entry in fs::read_dir(logs()).expect("a folder").flatten() {
        let folder = entry.path();
        if !folder.is_dir() {
            continue;
        }
        let expected_file = folder.join("expected.json");
        let expected: Value = serde_json::from_str(&read(expected_file.clone())).expect("JSON");
        let log = folder.join(expected["log"].as_str().expect("a name"));
        let [jails, log, file] =
            [folder.join("jails.json"), log, expected_file].map(|it| it.display().to_string());
        let answer = run(&["jail", "test", "--file", &jails, "--json", &log], b"");
        assert_eq!(answer.status, Some(0), "{}", answer.stderr);
        let told = objects(&answer);
        let bans: Vec<&Value> = told.iter().filter(|it| it["event"] == "ban").collect();
        let expected = expected["bans"].as_array().expect("a list");
        assert_eq!(bans.len(), expected.len(), "{log}: {}", answer.stdout);
        for (ban, expected) in bans.iter().zip(expected) {
            for (key, value) in expected.as_object().expect("an object") {
                assert_eq!(ban[key], *value, "{log}: {key} of {ban}");
            }
            assert_eq!(ban["schema"], 1);
        }
        let last = told.last().expect("a summary");
        assert_eq!((&last["event"], &last["bans"]), (&json!("summary"), &json!(bans.len())));
        assert!(told.iter().all(|it| it["event"] != "evidence"), "only with --lines");

        // The same as a test of the file of jails itself.
        let test = ["jail", "test", "--file", &jails, "--expect", &file, &log];
        assert_eq!(run(&test, b"").status, Some(0), "{log}");
        let other = ["jail", "test", "--jail", "sshd", "--expect", &file];
        let answer = run(&other, b"");
        assert_eq!(answer.status, Some(1));
        assert!(answer.stderr.contains("ban 1 is missing"), "{}", answer.stderr);
        count += 1;
    }
    assert!(count >= 6, "only {count} samples");
}

#[test]
fn each_lie_is_seen_through() {
    let cases: Vec<Value> =
        serde_json::from_str(&read(logs().join("adversarial.json"))).expect("JSON");
    let folder = tempfile::tempdir().expect("a folder");
    let jails = folder.path().join("jails.json");
    for case in &cases {
        fs::write(&jails, case["jails"].to_string()).expect("is writable");
        let lines = case["lines"].as_array().expect("a list");
        let log: String =
            lines.iter().map(|line| format!("{}\n", line.as_str().expect("a line"))).collect();
        let path = jails.display().to_string();
        let answer = run(&["jail", "test", "--file", &path, "--json", "--lines"], log.as_bytes());
        assert_eq!(answer.status, Some(0), "{}", answer.stderr);
        let mut found = BTreeMap::<String, u32>::new();
        for event in objects(&answer).iter().filter(|it| it["event"] == "evidence") {
            *found.entry(event["client"].as_str().expect("an address").to_owned()).or_default() +=
                1;
        }
        assert_eq!(json!(found), case["evidence"], "{}", case["name"]);
    }
    assert!(cases.len() > 15);
}

#[test]
fn built_in_jails_read_their_usual_logs_and_spare_who_must_be_spared() {
    let log = read(logs().join("sshd-journal/journal.json"));
    let answer = run(&["jail", "test", "--jail", "sshd", "--json"], log.as_bytes());
    let bans = objects(&answer).iter().filter(|it| it["event"] == "ban").count();
    assert_eq!((answer.status, bans), (Some(0), 3), "{}", answer.stdout);
    let never = ["jail", "test", "--jail", "sshd", "--json", "--never", "203.0.113.0/24"];
    let told = objects(&run(&never, log.as_bytes()));
    let of = |kind: &str| told.iter().filter(|it| it["event"] == kind).count();
    assert_eq!((of("ban"), of("spared")), (1, 2));
    // In words, line by line.
    let words = run(&["jail", "test", "--jail", "sshd", "--lines"], log.as_bytes()).stdout;
    assert!(
        words.contains("line 1: sshd: 203.0.113.5 at 2026-11-18T21:01:00Z, score 1"),
        "{words}"
    );
    assert!(words.contains("line 5: sshd bans 203.0.113.5 for 1h, from "), "{words}");
}

#[test]
fn a_bad_file_is_told_with_each_place_and_exit_status_2() {
    let folder = tempfile::tempdir().expect("a folder");
    let jails = folder.path().join("jails.json");
    let text = "{\n \"version\": 1,\n \"jails\": [\n  { \"use\": \"ssh\", \"afer\": 0 },\n  \
                { \"use\": \"sshd\", \"after\": 0, \"within\": \"10\" },\n  { \"use\": \"sshd\" }\n ]\n}\n";
    fs::write(&jails, text).expect("is writable");
    let path = jails.display().to_string();
    for verb in [&["jail", "check", &path][..], &["jail", "test", "--file", &path]] {
        let answer = run(verb, b"");
        assert_eq!(answer.status, Some(2));
        for part in [
            ":4:12: error: /jails/0/use: found \"ssh\"",
            "did you mean \"sshd\"?",
            ":4:19: error: /jails/0/afer: unknown key",
            ":5:29: error: /jails/1/after: found 0; expected a number from 1",
            ":5:42: error: /jails/1/within",
            ":6:3: error: /jails/2: the name \"sshd\"",
        ] {
            assert!(answer.stderr.contains(part), "{part} is not in\n{}", answer.stderr);
        }
    }
    for (arguments, why) in [
        (&["jail", "test", "--jail", "sshdd"][..], "did you mean \"sshd\"?"),
        (&["jail", "test"], "--jail"),
        (&["jail", "test", "--jail", "sshd", "/does/not/exist"], "/does/not/exist"),
        (&["jail", "show", "traefik"], "traefik"),
    ] {
        let answer = run(arguments, b"");
        assert_eq!(answer.status, Some(2), "{arguments:?}");
        assert!(answer.stderr.contains(why), "{}", answer.stderr);
    }
}

#[test]
fn a_filter_of_fail2ban_is_a_jail() {
    let folder = tempfile::tempdir().expect("a folder");
    let filter = folder.path().join("shop.conf");
    fs::write(&filter, "[Definition]\nfailregex = ^\\s*login of \\S+ from <HOST> failed$\n")
        .expect("ok");
    let path = filter.display().to_string();
    let log: String = ["192.0.2.7", "shop.example.org", "192.0.2.7"]
        .iter()
        .map(|host| format!("Nov 18 21:00:00 login of root from {host} failed\n"))
        .collect();
    let arguments = ["jail", "test", "--fail2ban", &path, "--json", "--lines"];
    let zone =
        [&arguments[..], &["--now", "2026-11-18T22:00:00Z", "--timezone", "+01:00"]].concat();
    let told = objects(&run(&zone, log.as_bytes()));
    let clients: Vec<&Value> = told.iter().take(3).map(|it| &it["client"]).collect();
    assert_eq!(clients, ["192.0.2.7", "shop.example.org", "192.0.2.7"]);
    assert_eq!((&told[1]["source"], &told[2]["line"]), (&Value::Null, &json!(3)));
    assert_eq!(told[0]["time"], "2026-11-18T20:00:00Z");

    // As the journal has them: without times.
    let bare = "login of root from 192.0.2.7 failed\n";
    let clock = [&arguments[..], &["--no-stamp", "--now", "2026-11-18T22:00:00Z"]].concat();
    assert_eq!(objects(&run(&clock, bare.as_bytes()))[0]["time"], "2026-11-18T22:00:00Z");
    let words = ["jail", "test", "--fail2ban", &path, "--no-stamp"];
    assert!(run(&words, bare.as_bytes()).stderr.contains("are in 2000"));

    let jails = folder.path().join("jails.json");
    let text = json!({ "version": 1, "jails": [{
        "use": { "fail2ban": path, "mode": "normal" }, "after": 2,
        "log": { "format": "text", "timezone": "+01:00" },
    }] });
    fs::write(&jails, text.to_string()).expect("is writable");
    let file = jails.display().to_string();
    let now = ["jail", "test", "--file", &file, "--json", "--now", "2026-11-18T22:00:00Z"];
    let told = objects(&run(&now, log.as_bytes()));
    assert_eq!((&told[0]["jail"], &told[0]["evidence"]), (&json!("shop"), &json!([1, 3])));
    // What does not run in linear time, and what no option gives, is named with its place.
    let odd = [
        ("(?<!x)from <HOST>", "failregex 1 needs look-around"),
        ("(?P<a>x) from <HOST> (?P=a)", "failregex 1 needs look-around, a back-reference"),
        (
            "from <HOST> <suffix-<mode>>",
            "failregex: no option gives <suffix-normal>, so it is text",
        ),
    ];
    for (expression, why) in odd {
        fs::write(&filter, format!("[Definition]\nfailregex = {expression}$\n")).expect("ok");
        let answer = run(&["jail", "check", &file], b"");
        assert_eq!(answer.status, Some(0));
        assert!(answer.stderr.contains(&format!("shop.conf:2: {why}")), "{}", answer.stderr);
    }
    fs::write(&filter, "[Definition]\nfailregex = ^(from <HOST>$\n").expect("is writable");
    for verb in [&["jail", "check", &file][..], &["jail", "test", "--fail2ban", &path]] {
        let answer = run(verb, b"");
        assert_eq!(answer.status, Some(2));
        assert!(answer.stderr.contains("shop.conf:2"), "{}", answer.stderr);
    }
}

#[test]
fn jails_without_a_log_say_so_and_each_format_of_an_input_has_its_jail() {
    let log = read(logs().join("nginx/access.log"));
    let answer = run(&["jail", "test", "--jail", "recidive"], log.as_bytes());
    assert!(
        answer.stdout.starts_with(&format!("{} lines, 0 records", log.lines().count())),
        "{}",
        answer.stdout
    );
    assert!(answer.stderr.contains("no jail reads a log"), "{}", answer.stderr);
    let both = ["jail", "test", "--jail", "http-auth", "--jail", "sshd", "--json"];
    let syslog: String = (0..5)
        .map(|at| {
            format!(
                "2026-11-18T21:00:0{at}Z h sshd[{at}]: Invalid user x from 203.0.113.9 port 4{at}\n"
            )
        })
        .collect();
    let told = objects(&run(&both, (log + &syslog).as_bytes()));
    let mut jails: Vec<&str> = told
        .iter()
        .filter(|it| it["event"] == "ban")
        .filter_map(|it| it["jail"].as_str())
        .collect();
    jails.sort_unstable();
    jails.dedup();
    assert_eq!(jails, ["http-auth", "sshd"]);
}

#[test]
fn who_is_spared_is_told_with_the_reason() {
    let line = "127.0.0.1 - a [18/Nov/2026:21:00:00 +0000] \"GET / HTTP/1.1\" 401 1 \"-\" \"c\"\n"
        .repeat(5);
    let own = run(&["jail", "test", "--jail", "http-auth"], line.as_bytes()).stdout;
    assert!(own.contains("spares 127.0.0.1: it is this machine"), "{own}");
    let never = ["jail", "test", "--jail", "http-auth", "--never", "127.0.0.0/8", "--json"];
    assert_eq!(objects(&run(&never, line.as_bytes()))[0]["why"], "never");
}

#[test]
fn what_show_prints_is_a_file_that_check_accepts() {
    let names = run(&["jail", "show"], b"").stdout;
    assert!(names.lines().count() >= 8, "{names}");
    for name in names.lines().filter_map(|line| line.split_whitespace().next()) {
        for arguments in [&["jail", "show", name][..], &["jail", "show", name, "--json"]] {
            let shown = run(arguments, b"");
            let checked = run(&["jail", "check", "-"], shown.stdout.as_bytes());
            assert_eq!(checked.status, Some(0), "{name}: {}", checked.stderr);
        }
    }
}

#[test]
fn three_hundred_thousand_sources_take_less_than_128_megabytes() {
    let mut log = String::new();
    for at in 0..300_000_u32 {
        let address = std::net::Ipv4Addr::from_bits(0x0b00_0000 + at);
        log += &format!(
            "{address} - a [18/Nov/2026:21:00:{:02} +0000] \"GET / HTTP/1.1\" 401 17 \"-\" \"c\" \
             {at} \"r\" \"-\" 1ms\n",
            at / 6000
        );
    }
    let mut child = command(&["jail", "test", "--jail", "traefik-auth", "--json"])
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .spawn()
        .expect("the program starts");
    let mut stdin = child.stdin.take().expect("is piped");
    stdin.write_all(log.as_bytes()).expect("is read");
    // All is read when the pipe takes no more than it holds; the peak is that of the process so far.
    let status = read(PathBuf::from(format!("/proc/{}/status", child.id())));
    drop(stdin);
    let output = child.wait_with_output().expect("the program ends");
    let peak = status.lines().find_map(|line| line.strip_prefix("VmHWM:")).expect("a peak");
    let kib: u64 = peak.trim().trim_end_matches(" kB").parse().expect("a number");
    assert!(kib < 128 * 1024, "{kib} KiB");
    let told = objects(&output.into());
    assert_eq!((told.len(), &told[0]["evidence"]), (1, &json!(300_000)));
}
