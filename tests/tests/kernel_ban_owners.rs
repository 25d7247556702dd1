//! Bans of one target by several sources: each source has its own, and the target is shut out until
//! the last of them ends.

use std::collections::BTreeSet;
use std::fs;
use std::net::{IpAddr, SocketAddr};
use std::thread;
use std::time::{Duration, Instant};

use nfguard_ban::{Ban, BanOutcome, Bans, NeverBan, Port, TABLE, Target};
use nfguard_lab::{DEFAULT_TIMEOUT, Netns, Probe, World};
use nfguard_tests::nft::nft;
use nfguard_tests::place::netns;
use nfguard_tests::program::{nfguard, nfguard_fed, policy_file, succeed};
use nfguard_tests::wait::TIMEOUT;
use serde_json::Value;

const HOUR: Duration = Duration::from_secs(3600);
const WEEK: Duration = Duration::from_secs(7 * 24 * 3600);

/// One of each kind of target: its notation, its port, and the options of the program for it.
const TARGETS: [(&str, Option<&str>); 5] = [
    ("203.0.113.66", None),
    ("203.0.113.0/25", None),
    ("203.0.113.66", Some("443/tcp")),
    ("2001:db8:66::1/128", None),
    ("2001:db8:66::/64", Some("443/udp")),
];

fn open(netns: &Netns) -> Bans {
    netns.run(|| Bans::open(NeverBan::default()).expect("the table"))
}

fn target(text: &str) -> Target {
    text.parse().expect("a target")
}

fn port(text: Option<&str>) -> Option<Port> {
    text.map(|text| text.parse().expect("a port"))
}

fn ban<'a>(
    bans: &Bans,
    text: &str,
    from: Option<&str>,
    source: &'a str,
    lasts: Duration,
) -> Ban<'a> {
    let target = bans.admit(target(text)).expect("not on the never-ban list");
    let (port, duration) = (port(from), Some(lasts));
    Ban { target, port, duration, source, reason: "why", created_at: None }
}

/// Returns target, source and remaining seconds of each ban.
fn listed(netns: &Netns) -> Vec<(String, String, f64)> {
    let answer = succeed(netns, &["bans", "--json"]);
    let answer: Value = serde_json::from_str(&answer.stdout).expect("JSON");
    let bans = answer["bans"].as_array().expect("a list").iter();
    let text = |value: &Value| value.as_str().expect("text").to_owned();
    bans.map(|ban| {
        let left = ban["expires_in_seconds"].as_f64().unwrap_or(f64::INFINITY);
        (text(&ban["target"]), text(&ban["source"]), left)
    })
    .collect()
}

fn sources(netns: &Netns) -> Vec<String> {
    listed(netns).into_iter().map(|(_, source, _)| source).collect()
}

/// Returns the table's chains with their rules, as nft lists them.
fn chains(netns: &Netns) -> String {
    let table = nft(netns, &format!("list table inet {TABLE}\n"));
    let start = table.find("\tchain ").expect("a chain");
    table[start..].to_owned()
}

#[test]
fn a_target_is_shut_out_until_its_last_owner_lets_go_in_either_order() {
    let netns = netns();
    let mut bans = open(&netns);
    for (text, from) in TARGETS {
        let (target, port) = (target(text), port(from));
        for (first, last) in [("sshd", "recidive"), ("recidive", "sshd")] {
            bans.ban(&ban(&bans, text, from, "sshd", HOUR)).expect("banned");
            let outcome = bans.ban(&ban(&bans, text, from, "recidive", WEEK)).expect("banned");
            assert_eq!(outcome, BanOutcome::Added, "{text}");
            assert!(!bans.unban_of("psad", target, port).expect("an answer"));
            assert_eq!(bans.list().expect("a list").len(), 2, "{text}");
            assert!(bans.unban_of(first, target, port).expect("an answer"), "{text}");
            assert!(!bans.unban_of(first, target, port).expect("an answer"), "only once");
            // What is left has the end that its owner gave it.
            let lasts = if last == "sshd" { HOUR } else { WEEK };
            let held = bans.look_up(target, port).expect("an answer").expect("banned");
            let left = held.expires_in.expect("an end");
            assert_eq!((held.source.as_str(), held.reason.as_str()), (last, "why"));
            assert!(left <= lasts && left > lasts - Duration::from_secs(100), "{text}: {left:?}");
            assert!(bans.unban_of(last, target, port).expect("an answer"));
            assert_eq!(bans.look_up(target, port).expect("an answer"), None);
            assert_eq!(bans.count().expect("a number"), 0);
        }
    }
}

#[test]
fn the_operator_s_word_ends_the_bans_of_all_owners_and_its_owners_can_see_it() {
    let netns = netns();
    for source in ["one", "two", "three", "four"] {
        succeed(&netns, &["ban", "203.0.113.66", "203.0.113.67", "--source", source]);
    }
    succeed(&netns, &["unban", "203.0.113.66", "--source", "two"]);
    assert_eq!(sources(&netns).len(), 7);
    let is_ready = |source: &str| {
        let answer = nfguard(&netns, &["bans", "--ready", "--source", source]);
        answer.status.expect("it ended") == 0
    };
    assert!(is_ready("one") && is_ready("two"), "an owner's own word is no news to it");
    succeed(&netns, &["unban", "203.0.113.66"]);
    let left: BTreeSet<_> = listed(&netns).into_iter().map(|(target, ..)| target).collect();
    assert_eq!(left, BTreeSet::from(["203.0.113.67".to_owned()]));
    assert_eq!(nfguard(&netns, &["unban", "203.0.113.66"]).status, Some(1), "not banned any more");
    assert!(!is_ready("one") && is_ready("two") && !is_ready("three") && !is_ready("four"));
    assert_eq!(nfguard(&netns, &["bans", "--ready"]).status, Some(0));
    // Each owner takes note for itself.
    succeed(&netns, &["bans", "--prepare", "--source", "one"]);
    assert!(is_ready("one") && !is_ready("three"));
    // To end all bans of one source is that source's word.
    assert!(succeed(&netns, &["unban", "--source", "one"]).stdout.contains("1 unbanned"));
    assert!(is_ready("one"));
    let left = BTreeSet::from_iter(sources(&netns));
    assert_eq!(left, BTreeSet::from(["two", "three", "four"].map(str::to_owned)));
}

#[test]
fn the_kernel_ends_each_owner_s_ban_at_its_time_and_drops_until_the_last() {
    let world = World::new().expect("run me with `cargo xtask netns-test`");
    let mut bans = open(&world.host);
    let attacker = "203.0.113.66".parse::<IpAddr>().expect("an address");
    let _listener = world.host.run(|| {
        std::net::TcpListener::bind(SocketAddr::new(World::HOST_V4, 443)).expect("a listener")
    });
    let reaches = |patience| {
        let to = SocketAddr::new(World::HOST_V4, 443);
        Probe::tcp(&world.internet, to).from(attacker).timeout(patience).connect().is_ok()
    };
    let short = Duration::from_secs(2);
    for (text, from) in [("203.0.113.66", None), ("203.0.113.0/25", Some("443/tcp"))] {
        let (target, port) = (target(text), port(from));
        // The first owner's time is over before the second's, and the other way round.
        for (first, second) in [(short, HOUR), (HOUR, short)] {
            assert!(reaches(TIMEOUT), "{text}");
            bans.ban(&ban(&bans, text, from, "first", first)).expect("banned");
            bans.ban(&ban(&bans, text, from, "second", second)).expect("banned");
            let brief = if first == short { "first" } else { "second" };
            let deadline = Instant::now() + TIMEOUT;
            while bans.look_up_of(brief, target, port).expect("an answer").is_some() {
                assert!(Instant::now() < deadline, "{text}: {brief} does not end");
                thread::sleep(Duration::from_millis(20));
            }
            assert_eq!(bans.list().expect("a list").len(), 1);
            assert!(!reaches(DEFAULT_TIMEOUT), "{text}: the other owner has not let go");
            let other = if first == short { "second" } else { "first" };
            assert!(bans.unban_of(other, target, port).expect("an answer"));
        }
        // The owner of the later end lets go: what drops ends with the other one.
        bans.ban(&ban(&bans, text, from, "long", WEEK)).expect("banned");
        bans.ban(&ban(&bans, text, from, "brief", short)).expect("banned");
        assert!(bans.unban_of("long", target, port).expect("an answer"));
        let deadline = Instant::now() + TIMEOUT;
        while bans.look_up(target, port).expect("an answer").is_some() {
            assert!(Instant::now() < deadline, "{text}: no end");
            thread::sleep(Duration::from_millis(20));
        }
        assert!(reaches(TIMEOUT));
    }
}

#[test]
fn more_owners_add_no_rule_and_the_set_that_drops_has_each_target_once() {
    let netns = netns();
    let mut bans = open(&netns);
    for (text, from) in TARGETS {
        bans.ban(&ban(&bans, text, from, "one", HOUR)).expect("banned");
    }
    let before = chains(&netns);
    let table = nft(&netns, &format!("list table inet {TABLE}\n"));
    assert!(!table.contains("set owners"), "a ban with one owner needs no other set: {table}");
    for source in ["two", "three"] {
        for (text, from) in TARGETS {
            bans.ban(&ban(&bans, text, from, source, WEEK)).expect("banned");
        }
    }
    assert_eq!(chains(&netns), before);
    assert!(!before.contains("owners"), "{before}");
    assert_eq!(
        nft(&netns, &format!("list set inet {TABLE} v4/32\n")).matches("timeout 7d").count(),
        1
    );
    assert_eq!(bans.count().expect("a number"), 15);
    // nft loads its own listing, and nothing is lost.
    let listing = nft(&netns, &format!("list table inet {TABLE}\n"));
    nft(&netns, &format!("flush ruleset\n{listing}"));
    let key = |(target, source, _): (String, String, f64)| (target, source);
    let after: Vec<_> = listed(&netns).into_iter().map(key).collect();
    assert_eq!(after.len(), 15, "{after:?}");
    let mut bans = open(&netns);
    for (text, from) in TARGETS {
        for source in ["three", "one", "two"] {
            assert!(bans.unban_of(source, target(text), port(from)).expect("an answer"), "{text}");
        }
    }
    assert_eq!(bans.count().expect("a number"), 0);
}

#[test]
fn an_element_that_is_removed_by_hand_was_the_ban_of_all_owners() {
    let netns = netns();
    let mut bans = open(&netns);
    for (text, from) in TARGETS {
        for source in ["one", "two", "three"] {
            bans.ban(&ban(&bans, text, from, source, HOUR)).expect("banned");
        }
    }
    let elements = [
        ("v4/32", "203.0.113.66"),
        ("v4/25", "203.0.113.0"),
        ("v4/32/ports", "203.0.113.66 . tcp . 443"),
        ("v6/128", "2001:db8:66::1"),
        ("v6/64/ports", "2001:db8:66:: . udp . 443"),
    ];
    for (set, element) in elements {
        nft(&netns, &format!("delete element inet {TABLE} {set} {{ {element} }}\n"));
    }
    let is_absent = |bans: &mut Bans| {
        assert_eq!(bans.list().expect("a list"), []);
        assert_eq!(bans.count().expect("a number"), 0);
        for (text, from) in TARGETS {
            assert!(!bans.unban_of("two", target(text), port(from)).expect("an answer"), "{text}");
        }
    };
    is_absent(&mut bans);
    // Not even a ban of a new owner, or of two, brings them back.
    for (text, from) in TARGETS {
        bans.ban(&ban(&bans, text, from, "four", HOUR)).expect("banned");
        assert_eq!(bans.look_up_of("two", target(text), port(from)).expect("an answer"), None);
    }
    assert_eq!(bans.count().expect("a number"), 5);
    for (text, from) in TARGETS {
        bans.ban(&ban(&bans, text, from, "five", HOUR)).expect("banned");
    }
    let owners: BTreeSet<_> = sources(&netns).into_iter().collect();
    assert_eq!(owners, BTreeSet::from(["four".to_owned(), "five".to_owned()]));
    assert_eq!(bans.count().expect("a number"), 10);
    for (text, from) in TARGETS {
        for source in ["five", "four"] {
            assert!(bans.unban_of(source, target(text), port(from)).expect("an answer"), "{text}");
        }
    }
    is_absent(&mut bans);
}

#[test]
fn two_sources_that_ban_and_let_go_at_once_never_touch_each_other() {
    let netns = netns();
    const ROUNDS: u64 = 60;
    thread::scope(|scope| {
        for (number, source) in ["one", "two", "three"].into_iter().enumerate() {
            let netns = &netns;
            scope.spawn(move || {
                let mut bans = open(netns);
                let target = target("192.0.2.1");
                for round in 0..ROUNDS {
                    let lasts =
                        Duration::from_secs(1000 + (round * 7 + number as u64 * 5) % 13 * 1000);
                    bans.ban(&ban(&bans, "192.0.2.1", None, source, lasts)).expect("banned");
                    let own = bans.look_up_of(source, target, None).expect("an answer");
                    let left = own.expect("it is still banned").expires_in.expect("an end");
                    assert!(left <= lasts && left > lasts - Duration::from_secs(100), "{left:?}");
                    let drops =
                        bans.look_up(target, None).expect("an answer").expect("it is dropped");
                    assert!(drops.expires_in >= Some(left - Duration::from_secs(100)), "{drops:?}");
                    assert!(bans.unban_of(source, target, None).expect("an answer"), "{source}");
                }
            });
        }
    });
    assert_eq!(open(&netns).count().expect("a number"), 0);
}

#[test]
fn sources_with_long_or_odd_names_are_told_apart() {
    let netns = netns();
    let long = |end: &str| format!("fail2ban/traefik-{}.example.org/{end}", "sub.".repeat(30));
    let names = [
        "fail2ban/traefik-shop.example-company.com".to_owned(),
        "fail2ban/traefik-shop.example-company.org".to_owned(),
        long("a"),
        long("b"),
        "my tool".to_owned(),
        "my_tool".to_owned(),
        "my@tool".to_owned(),
        "my @tool".to_owned(),
        "my \"tool\"".to_owned(),
        "my 'tool'".to_owned(),
    ];
    for name in &names {
        succeed(&netns, &["ban", "192.0.2.1", "--for", "1h", "--source", name]);
    }
    assert_eq!(listed(&netns).len(), names.len());
    assert!(sources(&netns).contains(&names[0]), "a name of 40 bytes is listed as it is");
    for (at, name) in names.iter().enumerate() {
        let answer = succeed(&netns, &["bans", "--json", "--source", name]);
        let answer: Value = serde_json::from_str(&answer.stdout).expect("JSON");
        let found = answer["bans"].as_array().expect("a list");
        assert_eq!(found.len(), 1, "{name}");
        // What the list says is a name of the source, too.
        let as_listed = found[0]["source"].as_str().expect("text");
        let by = if at % 2 == 0 { as_listed } else { name };
        succeed(&netns, &["unban", "192.0.2.1", "--source", by]);
        assert_eq!(listed(&netns).len(), names.len() - at - 1, "{name}");
    }
}

#[test]
fn saved_and_listed_bans_come_back_with_every_owner() {
    let netns = netns();
    for (source, time) in [("sshd", "10m"), ("recidive", "1w"), ("operator", "-1")] {
        let options = ["--for", time, "--source", source];
        succeed(&netns, &[&["ban", "192.0.2.1", "2001:db8:1::/48"], &options[..]].concat());
    }
    succeed(&netns, &["ban", "192.0.2.2", "--for", "1h", "--source", "sshd"]);
    let before = listed(&netns);
    assert_eq!(before.len(), 7);
    let folder = tempfile::tempdir().expect("a folder");
    let path = folder.path().join("bans");
    let file = path.to_str().expect("a path");
    succeed(&netns, &["save", file]);
    assert_eq!(fs::read_to_string(&path).expect("a file").matches("sshd").count(), 3);
    let list = succeed(&netns, &["bans", "--json"]).stdout;
    let is_same = |a: &[(String, String, f64)], b: &[(String, String, f64)]| {
        a.len() == b.len()
            && a.iter().zip(b).all(|(a, b)| {
                let is_close = a.2 == b.2 || (a.2 - b.2).abs() < 100.0;
                (&a.0, &a.1) == (&b.0, &b.1) && is_close
            })
    };
    for way in ["restore", "ban"] {
        nft(&netns, "flush ruleset\n");
        match way {
            "restore" => drop(succeed(&netns, &["restore", file])),
            _ => assert_eq!(nfguard_fed(&netns, &["ban", "-"], &list).status, Some(0)),
        }
        let after = listed(&netns);
        assert!(is_same(&before, &after), "{way}: {before:?} {after:?}");
    }
    // What is in force already stays.
    let again = succeed(&netns, &["restore", file]).stdout;
    assert!(again.contains("nothing changed: 7 were banned already"), "{again}");
}

#[test]
fn a_new_never_ban_entry_names_the_bans_that_it_voids() {
    let netns = netns();
    succeed(&netns, &["ban", "203.0.113.7", "--source", "fail2ban/sshd"]);
    succeed(&netns, &["ban", "203.0.113.7", "203.0.112.0/22", "198.51.100.9"]);
    succeed(&netns, &["ban", "203.0.113.8", "--port", "443", "--source", "web"]);
    let add = |targets: &[&str]| {
        let answer = succeed(&netns, &[&["never", "add"], targets].concat());
        answer.stderr.trim_end().to_owned()
    };
    let pass = "let pass from now on what is never banned:";
    let said = add(&["203.0.113.7"]);
    for voided in ["203.0.113.7 (fail2ban/sshd)", "203.0.113.7 (cli)", "203.0.112.0/22 (cli)"] {
        assert!(
            said.contains(&format!("3 bans in force {pass}")) && said.contains(voided),
            "{said}"
        );
    }
    assert_eq!(add(&["203.0.113.7"]), "", "it is on the list already");
    assert_eq!(add(&["192.0.2.1", "2001:db8::/32"]), "", "no ban of it");
    let said = add(&["203.0.113.8/31"]);
    assert!(said.contains("203.0.113.8 port 443/tcp (web)"), "{said}");
    assert!(!said.contains("203.0.113.7 "), "{said}");

    for all in ["0.0.0.0/0", "::/0", "0.0.0.0-255.255.255.255"] {
        let refused = nfguard(&netns, &["never", "add", all]);
        assert!(refused.stderr.contains("would exempt every address"), "{refused:?}");
    }

    // The entries of a policy, in JSON, and of many bans the first few.
    let policy = policy_file(
        r#"{ "version": 1, "never_ban": ["198.51.100.0/24"],
             "rules": [{ "action": "allow", "port": "ssh" }] }"#,
    );
    let policy = policy.path().to_str().expect("plain letters");
    let answer = succeed(&netns, &["load", policy]);
    assert!(answer.stderr.contains("198.51.100.9 (cli)"), "{answer:?}");
    assert_eq!(succeed(&netns, &["load", policy]).stderr, "");
    succeed(&netns, &["ban", "192.0.2.128-192.0.2.159", "192.0.2.161", "192.0.2.162"]);
    let said = add(&["192.0.2.128/25"]);
    assert!(said.contains("3 bans in force"), "{said}");
    succeed(
        &netns,
        &["ban", "10.1.1.1", "10.1.1.2", "10.1.1.3", "10.1.1.4", "10.1.1.5", "10.1.1.6"],
    );
    let answer = succeed(&netns, &["never", "add", "10.1.0.0/16", "--json"]);
    assert!(
        answer.stderr.contains("6 bans in force") && answer.stderr.ends_with(", …\n"),
        "{answer:?}"
    );
    let listed: Value = serde_json::from_str(&answer.stdout).expect("JSON");
    assert_eq!(listed["voided"].as_array().map(Vec::len), Some(6), "{listed}");
}
