//! Filters in the format of Fail2Ban, in jails.

mod common;

use nfguard_jail::time::Time;
use nfguard_jail::{Config, Event, Jails, Mode};
use proptest::prelude::*;

/// 2026-11-30 10:00:00 UTC.
const NOW_SECONDS: i64 = 1_796_032_800;

#[test]
fn a_log_without_years_goes_on_for_weeks_and_over_new_year() {
    let filter = "[Definition]\nfailregex = fail <HOST>\n";
    let file = r#"{"version": 1, "jails": [{
        "use": {"fail2ban": "t.conf"}, "after": 1, "ban": "1s", "log": "/log"
    }]}"#;
    let (config, _) = Config::parse_with(file, &mut |_| Some(filter.to_owned())).expect("a config");
    let start = Time::from_seconds(NOW_SECONDS).unwrap();
    let (jails, log) = common::jails(config);
    let mut jails = jails.with_time(start);
    let mut times = Vec::new();
    let text: String = ["Nov 30 10:00:00", "Dec  3 10:00:00", "Dec 29 10:00:00", "Jan  2 10:00:00"]
        .iter()
        .map(|date| format!("{date} fail 192.0.2.1\n"))
        .collect();
    jails.read(log, 0, text.as_bytes(), &mut |event| {
        if let Event::Ban(ban) = event {
            times.push(ban.since.to_string());
        }
    });
    let expected = ["2026-11-30", "2026-12-03", "2026-12-29", "2027-01-02"];
    assert_eq!(times, expected.map(|date| format!("{date}T10:00:00Z")));
}

#[test]
fn options_that_a_jail_gives_take_the_place_of_the_filters() {
    let filter = "[Definition]\nwords = bad|worse\nfailregex = ^ (?:<words>) <HOST>$\n";
    let read = |set: &str| {
        let file = format!(
            r#"{{"version": 1, "jails": [{{
                "use": {{"fail2ban": "t.conf", "set": {set}}}, "after": 1, "log": "/log"
            }}]}}"#
        );
        Config::parse_with(&file, &mut |_| Some(filter.to_owned()))
    };
    let bans = |set: &str, word: &str| {
        let line = format!("2026-11-30 09:00:00 {word} 192.0.2.1\n");
        common::bans(common::events(read(set).expect("a config").0, line)).count()
    };
    assert_eq!((bans("{}", "bad"), bans("{}", "worst")), (1, 0));
    assert_eq!(
        (bans(r#"{"words": "worst"}"#, "bad"), bans(r#"{"words": "worst"}"#, "worst")),
        (0, 1)
    );
    let both = r#"{"Words": "worst|<known/words>"}"#;
    assert_eq!((bans(both, "bad"), bans(both, "worst")), (1, 1));
    let problems = read(r#"{"words": 1, "other": []}"#).unwrap_err();
    assert_eq!(problems.len(), 2, "{problems:?}");
}

#[test]
fn a_line_that_reaches_a_limit_is_told() {
    let filter = "[Definition]\ndatepattern = {NONE}\nfailregex = ^(?=(a+)+b)(a|aa)+\\1c <HOST>$\n";
    let file = r#"{"version": 1, "jails": [{"use": {"fail2ban": "t.conf"}, "log": "/log"}]}"#;
    let (config, warnings) =
        Config::parse_with(file, &mut |_| Some(filter.to_owned())).expect("a config");
    assert!(warnings.iter().any(|it| it.to_string().contains("look-around")), "{warnings:?}");
    let (mut jails, log) = common::jails(config);
    let mut told = Vec::new();
    let line = format!("x\n{}bc 192.0.2.1\n", "a".repeat(5000));
    jails.read(log, 0, line.as_bytes(), &mut |event| match event {
        Event::Limit(limit) => told.push((limit.line, limit.jail.to_string())),
        other => panic!("{other:?}"),
    });
    assert_eq!(told, [(2, "t".to_owned())]);
    assert_eq!(jails.limits_reached(), 1);
}

#[test]
fn a_jail_of_the_journal_observes_if_nothing_says_who_wrote() {
    let config = |matches: &str, more: &str| {
        let filter = format!("[Definition]\nfailregex = ^x <HOST>\n{matches}");
        let file =
            format!(r#"{{"version": 1, "jails": [{{"use": {{"fail2ban": "t.conf"}}{more}}}]}}"#);
        let (config, warnings) =
            Config::parse_with(&file, &mut |_| Some(filter.clone())).expect("a config");
        (config.jails()[0].mode(), config.jails()[0].log().cloned().expect("a log"), warnings.len())
    };
    for field in ["SYSLOG_IDENTIFIER=shop", "_COMM=shop", "_EXE=/usr/bin/shop"] {
        let (mode, _, warnings) = config(&format!("journalmatch = {field}\n"), "");
        assert_eq!((mode, warnings), (Mode::Observe, 1), "{field}");
    }
    let (mode, log, _) = config("journalmatch = _SYSTEMD_UNIT=a.service + _COMM=a\n", "");
    assert_eq!((mode, log.vouched.units), (Mode::Enforce, vec!["a.service".to_owned()]));
    let (mode, log, _) = config("journalmatch = _UID=0 _COMM=a\n", "");
    assert_eq!((mode, log.vouched.uid), (Mode::Enforce, Some(0)));
    let (mode, log, _) = config("journalmatch = _UID=0 + _COMM=a\n", "");
    assert_eq!((mode, log.vouched.uid), (Mode::Observe, None));
    let (mode, ..) = config("", r#", "log": {"journal": {"unit": "a.service"}}"#);
    assert_eq!(mode, Mode::Enforce);
}

/// Filters that remember something: sessions, several lines, the time of the line before.
const FILTERS: [&str; 3] = [
    "[Definition]\nfailregex = ^ <F-MLFID>s\\d</F-MLFID> <F-NOFAIL>open</F-NOFAIL> <HOST>$\n \
     ^ <F-MLFID>s\\d</F-MLFID> bad$\n",
    "[Definition]\nmaxlines = 3\nfailregex = ^ s1 open <HOST>$<SKIPLINES>^ s\\d bad$\n",
    "[Definition]\nfailregex = open <HOST>$\n",
];

/// Lines of a log, with dates that have a year, or none, or are not there.
fn any_line() -> impl Strategy<Value = String> {
    let date = prop_oneof![
        (0..60_u32).prop_map(|second| format!("2026-11-30 09:00:{second:02} ")),
        (28..31_u32).prop_map(|day| format!("Nov {day} 10:00:00 ")),
        Just(String::new()),
    ];
    let text = prop_oneof![
        (1..3_u8, 1..4_u8).prop_map(|(session, host)| format!("s{session} open 192.0.2.{host}")),
        (1..3_u8).prop_map(|session| format!("s{session} bad")),
        "[a-z \\xE9\r]{0,12}",
    ];
    (date, text).prop_map(|(date, text)| format!("{date}{text}\n"))
}

fn jails_of_filters() -> Jails {
    let jails: Vec<String> = (0..FILTERS.len())
        .map(|at| {
            format!(
                r#"{{"name": "f{at}", "use": {{"fail2ban": "{at}"}}, "log": "/log", "after": 2}}"#
            )
        })
        .collect();
    let file = format!(r#"{{"version": 1, "jails": [{}]}}"#, jails.join(","));
    let (config, _) = Config::parse_with(&file, &mut |name| {
        name.parse::<usize>().ok().map(|at| FILTERS[at].to_owned())
    })
    .expect("a config");
    Jails::new(config, Vec::new()).with_time(Time::from_seconds(NOW_SECONDS).expect("a time"))
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(96))]

    #[test]
    fn filters_give_the_same_for_any_split_save_and_repetition(
        lines in proptest::collection::vec(any_line(), 1..40),
        cuts in proptest::collection::vec(any::<prop::sample::Index>(), 0..6),
        again in any::<prop::sample::Index>(),
    ) {
        let log: String = lines.concat();
        let log = log.as_bytes();
        let read = |pieces: &[usize], with_saves: bool| {
            let mut jails = jails_of_filters();
            let (id, _) = jails.logs().next().expect("a log");
            let mut events = Vec::new();
            let mut from = 0;
            for end in pieces.iter().copied().chain([log.len()]) {
                jails.read(id, from as u64, &log[from..end], &mut |event| events.push(event));
                from = end;
                if with_saves {
                    let state = serde_json::to_string(&jails.state()).expect("JSON");
                    let state = serde_json::from_str(&state).expect("a state");
                    jails = jails_of_filters().with_state(state);
                }
            }
            (jails, id, events)
        };
        let (mut jails, id, whole) = read(&[], false);
        let mut cuts: Vec<usize> = cuts.iter().map(|cut| cut.index(log.len() + 1)).collect();
        cuts.sort_unstable();
        prop_assert_eq!(&read(&cuts, false).2, &whole);
        prop_assert_eq!(&read(&cuts, true).2, &whole);
        // What was read already gives nothing.
        let from = again.index(log.len() + 1);
        let mut events = Vec::new();
        jails.read(id, from as u64, &log[from..], &mut |event| events.push(event));
        prop_assert_eq!(events, Vec::new());
    }
}

#[test]
fn sessions_in_the_journal_are_told_apart_by_the_process() {
    let filter = "[Definition]\nprefix = <part_<logtype>/prefix>\n\
                  failregex = ^<F-MLFID><prefix></F-MLFID><F-NOFAIL>from</F-NOFAIL> <HOST>$\n  \
                  ^<F-MLFID><prefix></F-MLFID>refused$\n\
                  [part_journal]\nprefix = (?:d\\[\\d+\\]: )?\n";
    let file = r#"{"version": 1, "jails": [{
        "use": {"fail2ban": "t.conf"}, "after": 1,
        "log": {"file": "/log", "format": "journal"}
    }]}"#;
    let (config, _) = Config::parse_with(file, &mut |_| Some(filter.to_owned())).expect("a config");
    let clients = |entries: &[(&str, &str)]| {
        let (mut jails, log) = common::jails(config.clone());
        let lines = entries.iter().enumerate().map(|(at, (pid, message))| {
            let time = (1_796_000_000_000_000 + at * 1_000_000).to_string();
            let mut entry = serde_json::json!({
                "__REALTIME_TIMESTAMP": time, "_SYSTEMD_UNIT": "d.service", "_UID": "0",
                "SYSLOG_IDENTIFIER": "d", "MESSAGE": message,
            });
            if !pid.is_empty() {
                entry["_PID"] = serde_json::json!(pid);
            }
            format!("{entry}\n")
        });
        let text: String = lines.collect();
        common::bans(common::read(&mut jails, log, text))
            .map(|ban| ban.source.to_string())
            .collect::<Vec<_>>()
    };
    let entries = [("1", "from 192.0.2.1"), ("2", "from 192.0.2.2"), ("1", "refused")];
    assert_eq!(clients(&entries), ["192.0.2.1"]);
    // Without a process, nothing says who was refused.
    assert_eq!(clients(&[("", "from 192.0.2.1"), ("", "refused")]), [""; 0]);
}
