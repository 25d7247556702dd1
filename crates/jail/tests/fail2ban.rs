//! Filters in the format of Fail2Ban, written for these tests.

use nfguard_jail::fail2ban::{Clock, Failure, Filter, Mistake, Stamp, State};
use nfguard_jail::time::{Time, Zone};
use std::collections::BTreeMap;

/// 2026-11-30 10:00:00 UTC.
const NOW_SECONDS: i64 = 1_796_032_800;

fn clock() -> Clock<'static> {
    Clock {
        now: Time::from_seconds(NOW_SECONDS).expect("a time"),
        zone: &Zone::UTC,
        is_near: false,
    }
}

/// Reads `t.conf` of these files.
fn read(files: &[(&str, &str)], options: &[(&str, &str)]) -> Result<Filter, Vec<Mistake>> {
    let options: BTreeMap<String, String> =
        options.iter().map(|(key, value)| ((*key).to_owned(), (*value).to_owned())).collect();
    Filter::read("filter.d/t.conf", &options, &mut |name| {
        let found = files.iter().find(|(file, _)| name == format!("filter.d/{file}"));
        found.map(|(_, text)| (*text).to_owned())
    })
}

fn filter(text: &str) -> Filter {
    read(&[("t.conf", text)], &[]).unwrap_or_else(|mistakes| panic!("{mistakes:?}"))
}

fn run(filter: &Filter, state: &mut State, lines: &[&str]) -> Vec<(usize, String)> {
    let failures = lines.iter().enumerate().flat_map(|(number, line)| {
        let failures = filter.line(state, line.as_bytes(), &clock());
        failures.into_iter().map(move |failure| (number, failure.client))
    });
    failures.collect()
}

fn clients(filter: &Filter, lines: &[&str]) -> Vec<(usize, String)> {
    run(filter, &mut State::default(), lines)
}

fn found(expected: &[(usize, &str)]) -> Vec<(usize, String)> {
    expected.iter().map(|(line, client)| (*line, (*client).to_owned())).collect()
}

/// The only failure of a line.
fn only(filter: &Filter, line: &str) -> Option<Failure> {
    let mut failures = filter.line(&mut State::default(), line.as_bytes(), &clock());
    assert!(failures.len() <= 1);
    failures.pop()
}

#[test]
fn options_come_from_includes_local_files_and_the_jail() {
    let files = [
        (
            "t.conf",
            "[INCLUDES]\nbefore = common.conf\nafter = late.conf\n[Definition]\nword = own\n\
             failregex = ^ %(prefix)s<kind-<mode>> <F-USER>\\S+</F-USER> <HOST>$\n\
             kind-a = A%(word)s\nkind-b = B<table/cell>\nmode = a ; the usual\n\
             [table]\ncell = C%(inner)s\ninner = x\n",
        ),
        ("common.conf", "[DEFAULT]\nprefix = p:\n[Definition]\nword = common\n"),
        ("common.local", "[DEFAULT]\nprefix = q:\n"),
        ("late.conf", "[Definition]\nword = late-%(known/word)s\n"),
    ];
    let matches = |options: &[(&str, &str)], files: &[(&str, &str)], line: &str| {
        let line = format!("2026-11-30 09:00:00 {line} root 192.0.2.1");
        only(&read(files, options).unwrap(), &line).is_some()
    };
    assert!(matches(&[], &files, "q:Alate-own"));
    assert!(matches(&[("mode", "b")], &files, "q:BCx"));
    assert!(matches(&[("prefix", "r:"), ("mode", "b")], &files, "r:BCx"));
    assert!(!matches(&[("mode", "c")], &files, "q:BCx"));
    let with_local = [files.as_slice(), &[("t.local", "[Init]\nmode = b\n")]].concat();
    assert!(matches(&[], &with_local, "q:BCx"));
}

#[test]
fn every_mistake_is_told_with_its_file_and_line() {
    let text = "stray\n[Definition]\nfailregex = ^(a <HOST>\n  ^%(no)s <HOST>\n  ^no client\n  \
                ^<HOST> <HOST>\n  ^\\q <HOST>\nfailregex = x\nbroken\nmaxlines = many\n\
                datepattern = %%Q\n[Definition]\n";
    let mistakes = read(&[("t.conf", text)], &[]).unwrap_err();
    let places: Vec<usize> = mistakes.iter().map(|mistake| mistake.line).collect();
    for line in [1, 8, 9, 10, 11, 12] {
        assert!(places.contains(&line), "line {line}: {mistakes:#?}");
    }
    assert!(mistakes.iter().all(|mistake| mistake.file == "filter.d/t.conf"));

    let text = "[Definition]\nfailregex = ^(a <HOST>\n  ^%(no)s <HOST>\n  ^<HOST> <HOST>\n  ^\\q <HOST>\n\
                ignoreregex = [\n";
    let mistakes = read(&[("t.conf", text)], &[]).unwrap_err();
    let mut lines: Vec<usize> = mistakes.iter().map(|mistake| mistake.line).collect();
    lines.sort_unstable();
    assert_eq!(lines, [2, 3, 4, 5, 6], "{mistakes:#?}");
    assert_eq!(
        mistakes[0].to_string(),
        "filter.d/t.conf:3: failregex: `%(no)s` names no option of the filter"
    );

    let one = |text: &str| read(&[("t.conf", text)], &[]).unwrap_err()[0].to_string();
    assert_eq!(one("[Definition]\n"), "filter.d/t.conf:1: the filter has no `failregex`");
    assert!(one("[Definition]\nfailregex = ^a\n").contains("t.conf:2: failregex: no <HOST>"));
    assert!(
        one("[Definition]\na = <b>\nb = <a>x\nfailregex = <a> <HOST>\n")
            .contains("name each other")
    );
    assert!(one("[Definition]\na = %(b)s\nb = %(a)s\nfailregex = %(a)s <HOST>\n").contains("deep"));
    assert!(read(&[], &[]).unwrap_err()[0].message.contains("no such file"));
}

#[test]
fn doubling_tags_end() {
    let mut text = "[Definition]\nfailregex = <t0> <HOST>\n".to_owned();
    for number in 0..40 {
        text += &format!("t{number} = <t{0}><t{0}>\n", number + 1);
    }
    assert!(read(&[("t.conf", &text)], &[]).unwrap_err()[0].message.contains("too long"));
}

#[test]
fn many_references_without_text_end() {
    let mut text = "[Definition]\nfailregex = ^ %(r0)s<HOST>\nr9 =\n".to_owned();
    for number in 0..9 {
        let next = format!("%(r{})s", number + 1);
        text += &format!("r{number} = {}\n", next.repeat(200));
    }
    let mistakes = read(&[("t.conf", &text)], &[]).unwrap_err();
    assert!(mistakes[0].message.contains("make up the value"), "{mistakes:?}");
}

#[test]
fn a_tag_without_an_end_is_text() {
    let filter = filter("[Definition]\nfailregex = ^ <HOST> bad (?<!x)é\n  ^ <HOST> é<é\n");
    assert!(only(&filter, "2026-11-30 09:00:00 192.0.2.1 bad é").is_some());
    assert!(only(&filter, "2026-11-30 09:00:00 192.0.2.1 é<é").is_some());
}

#[test]
fn a_failure_of_several_lines_waits_for_its_address() {
    let filter = filter(
        "[Definition]\nprefregex = ^ <F-MLFID>d\\[\\d+\\]</F-MLFID>: <F-CONTENT>.+</F-CONTENT>$\n\
         failregex = ^<F-NOFAIL>open</F-NOFAIL> <HOST>$\n ^bad$\n ^try <F-USER>\\S+</F-USER>$\n \
         ^<F-NOFAIL><F-MLFFORGET>end</F-MLFFORGET></F-NOFAIL> <HOST>$\n \
         ^<F-MLFGAINED>in</F-MLFGAINED>$\n",
    );
    let lines = |texts: &[&str]| -> Vec<String> {
        texts.iter().map(|text| format!("2026-11-30 09:00:00 d[1]: {text}")).collect()
    };
    let run = |texts: &[&str]| {
        let lines = lines(texts);
        clients(&filter, &lines.iter().map(String::as_str).collect::<Vec<_>>())
    };
    let address = "192.0.2.1";
    assert_eq!(run(&["open 192.0.2.1", "bad", "bad"]), found(&[(1, address), (2, address)]));
    assert_eq!(run(&["bad", "bad", "open 192.0.2.1"]), found(&[(2, address)]));
    assert_eq!(run(&["bad", "end 192.0.2.1", "bad", "bad"]), found(&[(1, address)]));
    assert_eq!(run(&["open 192.0.2.1", "end 192.0.2.1", "bad"]), []);
    // Who got in has not failed, unless it was with the second name.
    assert_eq!(run(&["try a", "in", "open 192.0.2.1"]), []);
    assert_eq!(run(&["open 192.0.2.1", "try a", "try b", "in"]).len(), 3);
}

#[test]
fn lines_between_those_that_match_stay() {
    let filter = filter(
        "[Definition]\nmaxlines = 4\n\
         failregex = ^ (?P<n>\\d) from <HOST>$<SKIPLINES>^ (?P=n) failed$\n",
    );
    let line = |text: &str| format!("2026-11-30 09:00:00 {text}");
    let texts = ["1 from 192.0.2.1", "2 from 192.0.2.2", "1 failed", "2 failed", "2 failed"];
    let lines = texts.map(line);
    let lines: Vec<&str> = lines.iter().map(String::as_str).collect();
    assert_eq!(clients(&filter, &lines), found(&[(2, "192.0.2.1"), (3, "192.0.2.2")]));
    let far = ["1 from 192.0.2.1", "x", "x", "x", "1 failed"].map(line);
    assert_eq!(clients(&filter, &far.iter().map(String::as_str).collect::<Vec<_>>()), []);
}

#[test]
fn a_state_that_is_saved_and_put_back_gives_the_same() {
    let filters = [
        "[Definition]\nmaxlines = 3\nfailregex = ^ a <HOST>$<SKIPLINES>^ b$\n",
        "[Definition]\nfailregex = ^ <F-MLFID>s</F-MLFID> <F-NOFAIL>open</F-NOFAIL> <HOST>$\n \
         ^ <F-MLFID>s</F-MLFID> bad$\n",
    ];
    let lines = [
        "2026-11-30 09:00:00 a 192.0.2.1",
        "2026-11-30 09:00:00 s bad",
        "2026-11-30 09:00:01 b",
        "2026-11-30 09:00:02 s open 192.0.2.2",
        "s bad",
        " s bad",
    ];
    for text in filters {
        let filter = filter(text);
        let whole = clients(&filter, &lines);
        assert!(!whole.is_empty());
        let mut state = State::default();
        let mut parts = Vec::new();
        for (number, line) in lines.iter().enumerate() {
            parts.extend(
                run(&filter, &mut state, &[line]).into_iter().map(|(_, client)| (number, client)),
            );
            state = serde_json::from_str(&serde_json::to_string(&state).unwrap()).unwrap();
        }
        assert_eq!(parts, whole);
    }
}

#[test]
fn dates_are_read_as_logs_write_them() {
    let usual = "[Definition]\nfailregex = fail <HOST>\n";
    let time = |text: &str, date: &str| {
        let failure = only(&filter(text), &format!("{date} fail 192.0.2.1"));
        failure.unwrap_or_else(|| panic!("{date}")).time.to_string()
    };
    for (date, expected) in [
        ("2026-11-29 10:00:00", "2026-11-29T10:00:00Z"),
        ("2026-11-29T10:00:00.250+02:00", "2026-11-29T08:00:00.25Z"),
        ("[2026/11/29 10:00:00]", "2026-11-29T10:00:00Z"),
        ("Nov  9 10:00:00", "2026-11-09T10:00:00Z"),
        ("Dec  9 10:00:00", "2025-12-09T10:00:00Z"),
        ("Dec  1 09:59:00", "2026-12-01T09:59:00Z"),
        ("Sun Nov 29 10:00:00 2026", "2026-11-29T10:00:00Z"),
        ("29/Nov/2026:10:00:00 -0100", "2026-11-29T11:00:00Z"),
        ("Mon Nov  9 10:00:00 CEST 2026", "2026-11-09T08:00:00Z"),
        ("[Sun Nov 29 10:00:00.250000 2026]", "2026-11-29T10:00:00.25Z"),
        ("1796000000.500", "2026-11-30T00:53:20.5Z"),
        ("11:00:00", "2026-11-29T11:00:00Z"),
        ("09:00:00", "2026-11-30T09:00:00Z"),
        ("261129 10:00:00", "2026-11-29T10:00:00Z"),
        ("20261129T100000Z", "2026-11-29T10:00:00Z"),
        ("Nov 29, 2026 1:00:00 PM", "2026-11-29T13:00:00Z"),
        // There is no such day, and no date: the clock's time.
        ("2026-02-30 10:00:00", "2026-11-30T10:00:00Z"),
        ("no date", "2026-11-30T10:00:00Z"),
    ] {
        assert_eq!(time(usual, date), expected, "{date}");
    }
    for (pattern, date, expected) in [
        ("{^LN-BEG}%%d.%%m.%%y %%H:%%M", "29.11.26 10:30", "2026-11-29T10:30:00Z"),
        ("ts=(%%Y%%j) ", "x ts=2026333 ", "2026-11-29T00:00:00Z"),
        ("^\\[{EPOCH}\\]", "[1796000000]", "2026-11-30T00:53:20Z"),
        ("LEPOCH", "1796000000123", "2026-11-30T00:53:20.123Z"),
        ("TAI64N", "@400000006b0cc90000000000", "2026-11-30T00:53:20Z"),
        ("{NONE}", "2026-11-29 10:00:00", "2026-11-30T10:00:00Z"),
        ("^<\\d+>{DATE}", "<13>Nov 29 10:00:00", "2026-11-29T10:00:00Z"),
        ("^<\\d+>{date}", "<13>Nov 29 10:00:00", "2026-11-29T10:00:00Z"),
        ("{^ln-beg}epoch", "1796000000", "2026-11-30T00:53:20Z"),
    ] {
        let text = format!("{usual}datepattern = {pattern}\n");
        assert_eq!(time(&text, date), expected, "{pattern} {date}");
    }
    // A line without a date has the time of the line before.
    let (filter, mut state) = (filter(usual), State::default());
    filter.line(&mut state, b"2026-11-29 10:00:00 nothing", &clock());
    let failures = filter.line(&mut state, b"fail 192.0.2.1", &clock());
    assert_eq!(failures[0].time.to_string(), "2026-11-29T10:00:00Z");
    // The journal has the time beside the line.
    let failures = filter.stamped_line(&mut state, b"fail 192.0.2.1", Stamp::Clock, &clock());
    assert_eq!(failures[0].time, clock().now);
}

#[test]
fn expressions_mean_what_they_mean_in_python() {
    let matches = |expression: &str, text: &str| {
        let text_of =
            format!("[Definition]\ndatepattern = {{NONE}}\nfailregex = {expression} <HOST>$\n");
        only(&filter(&text_of), &format!("{text} 192.0.2.1")).is_some()
    };
    for (expression, yes, no) in [
        (r"^[]a-]+", "]-a", "b"),
        (r"^[^]]", "x", "]"),
        (r"^[[&&a]+", "[&", "b"),
        (r"^\<a\>", "<a>", "a"),
        (r"^a{,2}b", "aab", "aaab"),
        (r"^x{y}", "x{y}", "xy"),
        (r"^((?i)ab|c)", "AB", "d"),
        (r"^(?i:ab)c", "ABc", "ABC"),
        (r"^(?P<q>['\x22])a(?P=q)", "'a'", "'a\""),
        (r"^(a)?(?(1)b|c)", "ab", "ac"),
        (r"^(?!a)\w", "b", "a"),
        (r"^\d+(?<!3)", "12", "13"),
        (r"^(?>a+)b", "aab", "aa"),
        (r"^a\Zb|^c", "c", "ab"),
        (r"^\#\-\/\~", "#-/~", "#"),
        (r"^a(?#note)b", "ab", "a(b"),
        (r"^\S\s\S\w\W\D", "a bé!x", "ab"),
    ] {
        assert!(matches(expression, yes), "{expression} on {yes}");
        assert!(!matches(expression, no), "{expression} on {no}");
    }
}

#[test]
fn an_expression_that_goes_back_ends_at_its_limit() {
    let filter = filter("[Definition]\nfailregex = ^ (?=(a+)+b)(a|aa)+\\1c <HOST>$\n");
    assert_eq!(filter.backtracking().len(), 1);
    assert_eq!(filter.backtracking()[0].line, 2);
    let mut state = State::default();
    let line = format!("2026-11-30 09:00:00 {}bc 192.0.2.1", "a".repeat(5000));
    assert_eq!(filter.line(&mut state, line.as_bytes(), &clock()), []);
    assert!(state.limits_reached <= 1);
    // What cannot match is not even tried.
    let line = format!("2026-11-30 09:00:00 {}", "a".repeat(100_000));
    let reached = state.limits_reached;
    assert_eq!(filter.line(&mut state, line.as_bytes(), &clock()), []);
    assert_eq!(state.limits_reached, reached);
}

#[test]
fn noise_breaks_nothing() {
    let filter =
        filter("[Definition]\nmaxlines = 2\nfailregex = ^ a <HOST>$\n ^.*?(?!x)b <HOST>\n");
    let mut state = State::default();
    let long = vec![b'a'; 1 << 20];
    let noise: [&[u8]; 7] =
        [b"", b"\n", b"\xff\xfe\0", b"\xef\xbb\xbf", b"\r\n", &long, "é\u{2028}ß".as_bytes()];
    for line in noise {
        assert_eq!(filter.line(&mut state, line, &clock()), []);
    }
    assert_eq!(run(&filter, &mut state, &["2026-11-30 09:00:00 a 192.0.2.1\r\n"]).len(), 1);
}

#[test]
fn what_a_tag_cannot_do_is_told() {
    let notes = |text: &str| -> Vec<String> {
        filter(text).notes().iter().map(ToString::to_string).collect()
    };
    let tuple = "[Definition]\nfailregex = ^ <F-TUPLE_ID>x</F-TUPLE_ID> <F-ALT_HOST>y</F-ALT_HOST> <HOST>$\n";
    let told = notes(tuple);
    assert_eq!(told.len(), 2, "{told:?}");
    assert_eq!(told[0], "filter.d/t.conf:2: failregex: nothing is made of <F-TUPLE_ID>");
    let told = notes("[Definition]\nfailregex = ^ from <SUBNET>$\n");
    assert!(told[0].contains("a network that <SUBNET> finds is told, and banned by no jail"));
    assert_eq!(
        notes("[Definition]\nfailregex = ^ <F-ALT_USER1>x</F-ALT_USER1> <HOST>$\n"),
        [""; 0]
    );
}

#[test]
fn a_window_of_long_lines_stays_small() {
    let filter = filter("[Definition]\nmaxlines = 100\nfailregex = ^ a <HOST>$<SKIPLINES>^ b$\n");
    let mut state = State::default();
    for _ in 0..200 {
        let line = format!("2026-11-30 09:00:00 {}", "x".repeat(2500));
        filter.line(&mut state, line.as_bytes(), &clock());
        assert!(serde_json::to_string(&state).unwrap().len() < 40_000);
    }
    let lines = ["2026-11-30 09:00:00 a 192.0.2.1", "2026-11-30 09:00:00 b"];
    assert_eq!(run(&filter, &mut state, &lines), found(&[(1, "192.0.2.1")]));
}
