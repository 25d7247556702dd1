//! How evidence is counted, and what follows.

mod common;

use common::{bans, events, evidence, read};
use nfguard_jail::{Config, Event, Jails};

/// Returns the config of a file with these jails.
fn file(jails: &str) -> Config {
    common::config(format!("{{\"version\":1,\"jails\":[{jails}]}}"))
}

/// Reads a log of seconds and addresses, one a line, and returns bans and who was spared.
fn told(jail: &str, lines: &[(i64, &str)]) -> Vec<String> {
    told_with(jail, &[], lines)
}

fn told_with(jails: &str, never: &[&str], lines: &[(i64, &str)]) -> Vec<String> {
    let (mut jails, id) = common::jails(file(jails));
    jails.set_never(never.iter().map(|prefix| prefix.parse().expect("a prefix")).collect());
    let log: String = lines
        .iter()
        .map(|(second, text)| format!("{} from {text}\n", 1_795_035_600 + second))
        .collect();
    let mut told = Vec::new();
    jails.read(id, 0, log.as_bytes(), &mut |event| match event {
        Event::Ban(ban) => told.push(format!(
            "{}: {} {} +{} for {} again {} by {:?}{}",
            ban.jail,
            ban.mode.word(),
            ban.source,
            ban.since.micros() / 1_000_000 - 1_795_035_600,
            ban.seconds,
            ban.again,
            ban.evidence,
            if ban.is_over_cap { " over the cap" } else { "" },
        )),
        Event::Spared(spared) => told.push(format!("{}: spared {}", spared.jail, spared.source)),
        _ => {}
    });
    told
}

fn jail(more: &str) -> String {
    format!(
        r#"{{"name":"a","log":{{"format":"text"}},"match":"from <client>","after":3,"within":"10s",
            "ban":"100s"{more}}}"#
    )
}

const A: &str = "203.0.113.5";

#[test]
fn evidence_counts_that_is_later_than_newest_less_within() {
    let lines = [(0, A), (9, A), (10, A)];
    assert_eq!(told(&jail(""), &lines), [""; 0], "the first is exactly as old as the window");
    let lines = [(0, A), (9, A), (10, A), (11, A)];
    assert_eq!(
        told(&jail(""), &lines),
        ["a: enforce 203.0.113.5 +11 for 100 again 0 by [2, 3, 4]"]
    );
}

#[test]
fn a_late_line_counts_and_the_newest_time_is_the_beginning() {
    let lines = [(5, A), (8, A), (4, A)];
    assert_eq!(told(&jail(""), &lines), ["a: enforce 203.0.113.5 +8 for 100 again 0 by [1, 2, 3]"]);
}

#[test]
fn nothing_counts_before_the_end_of_a_ban() {
    let mut lines = vec![(0, A), (1, A), (2, A)];
    lines.extend((90..102).map(|second| (second, A)));
    assert_eq!(told(&jail(""), &lines).len(), 1);
    lines.extend([(102, A), (103, A)]);
    assert_eq!(told(&jail(""), &lines).len(), 1, "two are not enough");
    lines.push((104, A));
    assert_eq!(
        told(&jail(""), &lines)[1],
        "a: enforce 203.0.113.5 +104 for 100 again 1 by [16, 17, 18]"
    );
}

#[test]
fn bans_grow_up_to_a_limit_and_are_forgotten() {
    let again = r#","again":{"times":2,"up_to":"5m","forget":"1h"}"#;
    let mut lines = Vec::new();
    for begin in [0, 1000, 2000, 3000, 9000] {
        lines.extend([(begin, A), (begin + 1, A), (begin + 2, A)]);
    }
    let lengths: Vec<String> = told(&jail(again), &lines)
        .iter()
        .map(|line| line.split(" for ").nth(1).unwrap().split(" by").next().unwrap().to_owned())
        .collect();
    assert_eq!(
        lengths,
        ["100 again 0", "200 again 1", "300 again 2", "300 again 3", "100 again 0"]
    );
}

#[test]
fn an_observing_jail_does_all_but_ban_and_lengthens_no_ban() {
    let observe = jail(r#","mode":"observe""#);
    let enforce = jail(r#","again":{"times":2}"#).replace("\"a\"", "\"b\"");
    let lines = [(0, A), (1, A), (2, A), (200, A), (201, A), (202, A)];
    let told = told(&format!("{observe},{enforce}"), &lines);
    assert!(told[0].starts_with("a: observe") && told[1].contains("again 0"), "{told:?}");
    assert!(told[2].contains("again 1") && told[3].contains("for 200 again 1"), "{told:?}");
}

#[test]
fn an_ipv6_source_is_its_64() {
    let lines = [(0, "2001:db8:1::1"), (1, "2001:db8:1::2"), (2, "2001:db8:1::3")];
    assert!(told(&jail(""), &lines)[0].contains("2001:db8:1::/64"));
    let lines = [(0, "::ffff:203.0.113.5"), (1, A), (2, A)];
    assert!(told(&jail(""), &lines)[0].contains(" 203.0.113.5 "));
}

#[test]
fn what_must_not_be_banned_is_spared_and_told() {
    let lines = [(0, A), (1, A), (2, A)];
    for never in [A, "203.0.113.0/24", "0.0.0.0/0"] {
        assert_eq!(told_with(&jail(""), &[never], &lines), ["a: spared 203.0.113.5"], "{never}");
    }
    let lines = [(0, "2001:db8::1"), (1, "2001:db8::1"), (2, "2001:db8::1")];
    let neighbour = told_with(&jail(""), &["2001:db8::99"], &lines);
    assert_eq!(neighbour, ["a: spared 2001:db8::/64"], "the /64 has an address that is spared");
    let own = [(0, "127.0.0.1"), (1, "127.0.0.1"), (2, "127.0.0.1")];
    assert_eq!(told(&jail(""), &own), ["a: spared 127.0.0.1"]);
}

#[test]
fn a_jail_bans_only_so_much_a_minute() {
    let one = r#","after":1,"bans_a_minute":2"#;
    let jail = jail(one).replace("\"after\":3,", "");
    let lines = [(0, "192.0.2.1"), (1, "192.0.2.2"), (2, "192.0.2.3"), (70, "192.0.2.4")];
    let told = told(&jail, &lines);
    let over: Vec<bool> = told.iter().map(|line| line.ends_with("over the cap")).collect();
    assert_eq!(over, [false, false, true, false]);
    assert!(told[2].contains("observe"));
}

#[test]
fn recidive_counts_the_bans_of_all_jails() {
    let lines: Vec<_> = [0, 200, 400]
        .into_iter()
        .flat_map(|begin| [(begin, A), (begin + 1, A), (begin + 2, A)])
        .collect();
    let told = told(&format!("{},{{\"use\":\"recidive\"}}", jail("")), &lines);
    assert_eq!(told.len(), 4);
    assert_eq!(told[3], "recidive: enforce 203.0.113.5 +402 for 604800 again 3 by [3, 6, 9]");
}

#[test]
fn of_the_same_path_only_the_last_counts() {
    let jail = r#"{"use":"http-probe","after":3}"#;
    let paths = ["/a", "/a?x=1", "/%61", "/b", "/a", "/c"];
    let log: String = paths
        .iter()
        .map(|path| format!("{A} - - [18/Nov/2026:21:00:00 +0000] \"GET {path} HTTP/1.1\" 404 1\n"))
        .collect();
    let lines: Vec<_> = bans(events(file(jail), log)).map(|ban| ban.evidence).collect();
    assert_eq!(lines, [[4, 5, 6]]);
}

#[test]
fn three_hundred_thousand_sources_are_not_too_much() {
    let (mut jails, id) = common::jails(file(&jail("")));
    let (mut position, mut bans) = (0, 0);
    let mut read = |jails: &mut Jails, text: String| {
        jails.read(id, position, text.as_bytes(), &mut |event| {
            bans += usize::from(matches!(event, Event::Ban(_)));
        });
        position += text.len() as u64;
    };
    for at in 0..300_000_u32 {
        let address = std::net::Ipv4Addr::from_bits(0x0b00_0000 + at);
        read(&mut jails, format!("{} from {address}\n", 1_795_035_600 + i64::from(at / 100_000)));
    }
    // Those seen last are remembered, and no more than twice as many as have to be.
    for _ in 0..2 {
        read(&mut jails, format!("1795035603 from {}\n", "11.4.147.223"));
    }
    assert_eq!(bans, 1);
    let state = serde_json::to_string(&jails.state()).unwrap();
    assert!(state.matches("\"line\"").count() <= 2 * 65_536, "{}", state.len());
}

#[test]
fn no_ban_is_longer_than_the_longest_and_a_jail_named_twice_is_one() {
    let ban = |limits: &str| {
        let text = format!(
            r#"{{"version":1,"jails":[{{"use":"traefik-auth","log":"/l","after":1,{limits}}}]}}"#
        );
        let line = "203.0.113.5 - a [18/Nov/2026:21:00:00 +0000] \"GET / HTTP/1.1\" 401 17 \"-\" \
                    \"c\" 7 \"r\" \"-\" 1ms\n";
        bans(events(common::config(&text), line)).map(|ban| ban.seconds).sum::<i64>()
    };
    assert_eq!(ban(r#""ban":"1h","again":{"up_to":"30m"}"#), 1800);
    assert_eq!(ban(r#""ban":"30d""#), 30 * 86_400);
    let config = Config::builtin(&["sshd", "sshd"]).unwrap();
    assert_eq!(config.jails().len(), 1);
}

#[test]
fn the_minutes_of_records_out_of_order_do_not_begin_again() {
    let jail = jail(r#","after":1,"bans_a_minute":1"#).replace("\"after\":3,", "");
    let lines = [(59, "192.0.2.1"), (60, "192.0.2.2"), (59, "192.0.2.3"), (60, "192.0.2.4")];
    let told = told(&jail, &lines);
    let over: Vec<bool> = told.iter().map(|line| line.ends_with("over the cap")).collect();
    assert_eq!(over, [false, false, true, true]);
}

#[test]
fn a_broken_login_service_does_not_ban_all_of_its_users() {
    let jail = jail("").replace("\"after\":3", "\"after\":1");
    let users: Vec<String> = (0..3000_u32)
        .map(|at| std::net::Ipv4Addr::from_bits(0x0b00_0000 + at).to_string())
        .collect();
    let lines: Vec<_> = users.iter().map(|user| (0, user.as_str())).collect();
    let made = told(&jail, &lines).iter().filter(|line| line.contains("enforce")).count();
    assert_eq!(made, 100);
}

#[test]
fn memory_is_bounded_by_pieces_of_evidence() {
    let jail = jail("").replace("\"after\":3", "\"after\":1000");
    let (mut jails, id) = common::jails(file(&jail));
    for at in 0..3000_u32 {
        let line = format!(
            "{} from {}\n",
            1_795_035_600 + at / 600,
            std::net::Ipv4Addr::from_bits(0x0b00_0000 + at)
        );
        jails.read(id, jails.position(id), line.repeat(100).as_bytes(), &mut |_| {});
    }
    let state = serde_json::to_string(&jails.state()).unwrap();
    let pieces = state.matches("\"line\"").count();
    assert!((100_000..=2 * 131_072).contains(&pieces), "{pieces}");
}

/// Reads lines into jails with this state, and returns the lines of evidence.
fn lines_with(jail: &str, state: Option<&str>, text: &str) -> (Vec<u64>, String) {
    let (mut jails, id) = common::jails(file(jail));
    if let Some(state) = state {
        jails = jails.with_state(serde_json::from_str(state).expect("a state"));
    }
    let found = evidence(read(&mut jails, id, text));
    let lines = found.map(|taken| taken.line).collect();
    (lines, serde_json::to_string(&jails.state()).expect("JSON"))
}

#[test]
fn a_state_belongs_to_its_log_and_outlives_the_settings_of_it() {
    let of = |log: &str| jail("").replace(r#"{"format":"text"}"#, log);
    let text = format!("1795035600 from {A}\n");
    let (lines, state) = lines_with(&of(r#"{"file":"/a","format":"text"}"#), None, &text);
    assert_eq!(lines, [1]);
    // Line 1 of another log is another line.
    let other = of(r#"{"file":"/b","format":"text"}"#);
    assert_eq!(lines_with(&other, Some(&state), &text).0, [1]);
    // In another zone it is the same log, and its lines go on.
    let zone = of(r#"{"file":"/a","format":"text","timezone":"+02:00"}"#);
    assert_eq!(lines_with(&zone, Some(&state), &text).0, [2]);
}

#[test]
fn a_year_is_that_of_the_time_that_is_known_last() {
    let text = |log: &str| {
        let jail = jail("").replace(r#""match":"from <client>""#, r#""match":".*from <client>""#);
        let (config, _) = Config::parse(&format!("{{\"version\":1,\"jails\":[{jail}]}}")).unwrap();
        let at = |text: &str| {
            nfguard_jail::time::rfc3339(text.as_bytes(), &nfguard_jail::time::Zone::UTC).unwrap()
        };
        let mut jails =
            Jails::new(config.clone(), Vec::new()).with_time(at("2026-01-06T00:00:00Z"));
        let (id, _) = jails.logs().next().unwrap();
        jails.read(id, 0, format!("Jan  5 21:00:00 h x: from {A}\n").as_bytes(), &mut |_| {});
        let state = jails.state();
        let mut jails =
            Jails::new(config, Vec::new()).with_state(state).with_time(at("2026-11-18T00:00:00Z"));
        evidence(read(&mut jails, id, log)).map(|taken| taken.time.to_string()).collect::<Vec<_>>()
    };
    // The log was silent for more than half a year.
    let line = format!("Nov 18 21:00:00 h x: from {A}\n");
    assert_eq!(text(&line), ["2026-11-18T21:00:00Z"]);
    // A line that quotes a year moves no other.
    assert_eq!(text(&format!("2031-01-01T00:00:00Z quoted\n{line}")), ["2026-11-18T21:00:00Z"]);
}

/// A record of Traefik's JSON with these keys besides the usual ones.
fn record(second: u32, more: &str) -> String {
    format!(
        r#"{{"ClientHost":"{A}","DownstreamStatus":401,"time":"2026-11-18T21:00:{second:02}.25Z"{more}}}"#
    ) + "\n"
}

#[test]
fn each_key_of_evidence_means_what_it_says() {
    let full = r#","RequestMethod":"POST","RequestPath":"/a%62?x","RequestHost":"Shop.example:8443","ClientUsername":"anna","OriginStatus":401"#;
    for (rule, is_full, is_bare) in [
        (r#"{"status":"4xx"}"#, true, true),
        (r#"{"status":[403,429]}"#, false, false),
        (r#"{"method":"post"}"#, true, false),
        (r#"{"method":["GET","HEAD"]}"#, false, false),
        (r#"{"path":"/ab"}"#, true, false),
        (r#"{"path":["/x","/a*"]}"#, true, false),
        (r#"{"host":"shop.example"}"#, true, false),
        (r#"{"host":"*.example.org"}"#, false, false),
        (r#"{"user":"present"}"#, true, false),
        (r#"{"user":"absent"}"#, false, true),
        (r#"{"user":"anna"}"#, true, false),
        (r#"{"user":"bob"}"#, false, false),
        (r#"{"origin":"application"}"#, true, false),
        (r#"{"origin":"proxy"}"#, false, true),
        (r#"{"user":"anna","method":"GET"}"#, false, false),
    ] {
        let jail = format!(r#"{{"name":"a","log":{{"format":"traefik"}},"evidence":[{rule}]}}"#);
        let lines = lines_with(&jail, None, &(record(1, full) + &record(2, ""))).0;
        let expected: Vec<u64> =
            [is_full.then_some(1), is_bare.then_some(2)].into_iter().flatten().collect();
        assert_eq!(lines, expected, "{rule}");
    }
}

#[test]
fn evidence_that_counts_more_and_a_mode_of_the_whole_file() {
    let text = r#"{"version":1,"mode":"observe","jails":[
        {"name":"a","log":{"container":"proxy","inside":"traefik"},"evidence":[{"user":"anna","counts":3},{"status":401}],"after":4},
        {"name":"b","log":{"container":"proxy","inside":"traefik-json"},"evidence":[{"status":401}],"after":2,"mode":"enforce"}]}"#;
    let (config, _) = Config::parse(text).unwrap();
    let mut jails = Jails::new(config, Vec::new());
    let mut told = Vec::new();
    for id in jails.logs().map(|(id, _)| id).collect::<Vec<_>>() {
        for (second, more) in [(1, r#","ClientUsername":"anna""#), (2, "")] {
            let log = serde_json::Value::from(record(second, more));
            let line =
                format!(r#"{{"log":{log},"stream":"stdout","time":"2026-11-18T21:00:09Z"}}"#)
                    + "\n";
            let bans = bans(read(&mut jails, id, line));
            told.extend(bans.map(|ban| format!("{} {} {}", ban.jail, ban.mode.word(), ban.since)));
        }
    }
    assert_eq!(told, ["a observe 2026-11-18T21:00:02.25Z", "b enforce 2026-11-18T21:00:02.25Z"]);
}

#[test]
fn a_log_without_years_goes_over_new_year_and_has_29_february() {
    let time = |text: &str| {
        nfguard_jail::time::rfc3339(text.as_bytes(), &nfguard_jail::time::Zone::UTC).unwrap()
    };
    let days =
        ["Dec 31", "Jan  1", "Feb 27", "Feb 28", "Feb 29", "Mar  1", "Aug 15", "Dec 31", "Jan  1"];
    let days = days.map(|day| format!("{day} 23:59:59 h x: from {A}\n"));
    let jail = jail("").replace("from <client>", ".*from <client>");
    for begin in ["2027-12-31T00:00:00Z", "2028-01-01T00:00:00Z"] {
        let (jails, id) = common::jails(file(&jail));
        let mut jails = jails.with_time(time(begin));
        let mut found = Vec::new();
        for day in &days {
            found.extend(read(&mut jails, id, day));
            let state = jails.state();
            jails = common::jails(file(&jail)).0.with_time(time(begin)).with_state(state);
        }
        let dates: Vec<_> =
            evidence(found).map(|taken| taken.time.to_string()[..10].to_owned()).collect();
        assert_eq!(
            dates,
            [
                "2027-12-31",
                "2028-01-01",
                "2028-02-27",
                "2028-02-28",
                "2028-02-29",
                "2028-03-01",
                "2028-08-15",
                "2028-12-31",
                "2029-01-01"
            ],
            "{begin}"
        );
    }
}
