//! What operators put in is in force at the next boot.

use std::fs;

use nfguard_lab::Netns;
use nfguard_tests::guard::Guard;
use nfguard_tests::nft::nft;
use nfguard_tests::place::netns;
use nfguard_tests::policies::GOOD;
use serde_json::Value;

use super::{ATTACKER, CLIENT, Disk, bans, ruleset};

/// What an operator puts in on the disk of the next tests. Nothing is saved.
const FEED: &str = "1.2.3.0/24\n2a00:1::/32\n";

impl Disk {
    fn put_in(&self, netns: &Netns) {
        self.ban_and_save(CLIENT);
        self.succeed(netns, &["restore", &self.path("state/bans")]);
        self.succeed(netns, &["ban", ATTACKER, "--for", "1h", "--reason", "by hand"]);
        self.succeed(netns, &["ban", "203.0.113.5", "--for", "1ms"]);
        self.succeed(netns, &["ban", "203.0.113.6", "203.0.113.7", "--source", "fail2ban/sshd"]);
        self.succeed(netns, &["ban", "203.0.113.6"]);
        // Of two owners one lets go; what was saved is ended.
        self.succeed(netns, &["unban", "203.0.113.6", "--source", "fail2ban/sshd"]);
        self.succeed(netns, &["unban", "203.0.113.7"]);
        self.succeed(netns, &["unban", CLIENT]);
        self.succeed(netns, &["never", "add", "198.51.100.0/24", "--reason", "the office"]);
        self.succeed(netns, &["never", "add", "198.51.100.77", "2001:db8:7::/48"]);
        self.succeed(netns, &["never", "remove", "198.51.100.77/32"]);
        fs::write(self.path("list"), FEED).expect("written");
        for name in ["drop", "edrop", "gone"] {
            self.succeed(netns, &["feed", "add", name, &self.path("list")]);
        }
        self.succeed(netns, &["feed", "remove", "gone"]);
    }

    /// Asserts that what was put in is in force, but for these parts of it.
    #[track_caller]
    fn assert_is_in_force(&self, netns: &Netns, but: &[&str]) {
        let expect = |part: &str, is: bool| assert_eq!(is, !but.contains(&part), "{part}");
        let listed = self.run(netns, &["bans", "--json"]).stdout;
        let listed: Value = serde_json::from_str(&listed).expect("JSON");
        let bans = listed["bans"].as_array().expect("a list");
        let ban = |target: &str| {
            let of_target: Vec<_> = bans.iter().filter(|ban| ban["target"] == target).collect();
            (of_target.len() <= 1).then(|| of_target.first().copied()).flatten()
        };
        let by_hand = ban(ATTACKER);
        expect("bans", by_hand.is_some() && ban("203.0.113.6").is_some());
        if let Some(ban) = by_hand {
            let left = ban["expires_in_seconds"].as_f64().expect("a time");
            assert!((3000.0..3600.0).contains(&left), "{left} s");
            assert_eq!((&ban["source"], &ban["reason"]), (&"cli".into(), &"by hand".into()));
        }
        for ended in [CLIENT, "203.0.113.7", "203.0.113.5"] {
            assert_eq!(ban(ended), None, "{ended}");
        }
        let refusal = |target| self.run(netns, &["ban", target]).stderr;
        let never = refusal("198.51.100.9").contains("the office");
        expect("never", never && refusal("2001:db8:7::1").contains("operator"));
        let feeds = self.run(netns, &["feed", "list", "--json"]).stdout;
        let feeds: Value = serde_json::from_str(&feeds).expect("JSON");
        let names: Vec<_> = feeds["feeds"].as_array().expect("a list").iter().collect();
        let names: Vec<_> = names.iter().map(|feed| feed["feed"].as_str().expect("one")).collect();
        let expected = ["drop", "edrop"].into_iter().filter(|name| !but.contains(name));
        assert_eq!(names, expected.collect::<Vec<_>>());
    }

    fn damage(&self, name: &str) {
        let path = self.path(name);
        let mut bytes = fs::read(&path).expect("written");
        // In the middle of the first line.
        bytes[20] ^= 1;
        fs::write(&path, bytes).expect("written");
    }
}

#[test]
fn all_that_an_operator_put_in_is_in_force_after_a_boot_that_nothing_was_saved_for() {
    let disk = Disk::new();
    disk.policy(GOOD);
    disk.put_in(&netns());
    let host = netns();
    let answer = disk.boot(&host);
    assert_eq!((answer.status, answer.stderr.as_str()), (Some(0), ""), "{answer:?}");
    let rules = ruleset(&host);
    assert!(rules.contains("1.2.3.0/24") && rules.contains("2a00:1::/32"), "{rules}");
    disk.assert_is_in_force(&host, &[]);

    // A save takes over what the log has. The next boot finds the same.
    disk.succeed(&host, &["save", &disk.path("state/bans")]);
    assert_eq!(fs::read(disk.path("state/bans.log")).expect("there"), b"");
    let host = netns();
    assert_eq!(disk.boot(&host).status, Some(0));
    disk.assert_is_in_force(&host, &[]);

    // Another program flushes the ruleset. A save has nothing to say then, and the first command
    // that needs the table brings all of it back, as does a machine that boots without `boot`.
    nft(&host, "flush ruleset\n");
    let answer = disk.run(&host, &["save", &disk.path("state/bans")]);
    assert!(answer.stdout.contains("left as it is"), "{answer:?}");
    let answer = disk.run(&host, &["bans", "--prepare", "--source", "fail2ban/sshd"]);
    assert!(
        answer.stderr.contains("2 bans, 2 feeds and 2 never-ban entries are restored"),
        "{answer:?}"
    );
    disk.assert_is_in_force(&host, &[]);

    disk.succeed(&host, &["unload"]);
    disk.assert_is_in_force(&host, &[]);
    let answer = disk.run(&host, &["unload", "--all"]);
    assert!(answer.stdout.contains("that the next boot would restore"), "{answer:?}");
    let host = netns();
    assert_eq!(disk.boot(&host).status, Some(0));
    disk.assert_is_in_force(&host, &["bans", "never", "drop", "edrop"]);
}

#[test]
fn a_damaged_file_is_named_at_boot_and_loses_nothing_of_the_others() {
    for (file, lost) in [
        ("state/feeds/drop.list", "drop"),
        ("state/never", ""),
        ("state/bans.log", ""),
        ("state/bans", ""),
    ] {
        let disk = Disk::new();
        disk.policy(GOOD);
        disk.put_in(&netns());
        disk.damage(file);
        let host = netns();
        let answer = disk.boot(&host);
        assert_eq!(answer.status, Some(1), "{answer:?}");
        assert!(answer.stderr.contains(&disk.path(file)), "{file}: {answer:?}");
        assert!(ruleset(&host).contains("\"web\""));
        match file {
            // Of the entries, the first is lost, and the others hold.
            "state/never" => {
                let list = disk.run(&host, &["never"]).stdout;
                assert!(!list.contains("the office") && list.contains("2001:db8:7::/48"), "{list}");
            }
            "state/bans.log" => {
                assert_eq!(bans(&host), ["203.0.113.6"], "the first is lost");
                assert!(answer.stdout.contains("1 banned, "), "{answer:?}");
            }
            _ => disk.assert_is_in_force(&host, &[lost]),
        }
    }
}

#[test]
fn a_save_does_not_write_over_bans_that_a_boot_did_not_come_to_restore() {
    let disk = Disk::new();
    disk.ban_and_save(ATTACKER);
    let before = netns();
    disk.succeed(&before, &["ban", ATTACKER, "203.0.113.8"]);
    let saved = disk.path("state/bans");
    // As a boot leaves it that is killed, or that the kernel refuses: a table, and nothing in it.
    let host = netns();
    Disk::new().succeed(&host, &["ban", "203.0.113.9"]);
    fs::write(disk.path("state/bans.unrestored"), "").expect("written");
    disk.succeed(&host, &["save", &saved]);
    assert_eq!(bans(&host), ["203.0.113.8", "203.0.113.9", ATTACKER].map(str::to_owned));
    assert!(!fs::exists(disk.path("state/bans.unrestored")).expect("a folder"));

    // While there is no table for the bans, the file stays.
    let text = fs::read(&saved).expect("saved");
    fs::write(disk.path("state/bans.unrestored"), "").expect("written");
    nft(&host, "delete table inet nfguard_bans\n");
    let answer = disk.run(&host, &["save", &saved]);
    assert!(answer.stdout.contains("left as it is"), "{answer:?}");
    assert_eq!(fs::read(&saved).expect("there"), text);
    let host = netns();
    disk.policy(GOOD);
    assert_eq!(disk.boot(&host).status, Some(0));
    assert_eq!(bans(&host).len(), 3);
    assert!(!fs::exists(disk.path("state/bans.unrestored")).expect("a folder"));
}

#[test]
fn what_cannot_be_written_down_is_in_force_and_the_answer_says_that_it_ends_with_the_next_boot() {
    let disk = Disk::new();
    let host = netns();
    let mount = |what: &str, options: &str| {
        let mut command = std::process::Command::new(what);
        command.args(options.split_whitespace()).arg(disk.path("state"));
        assert!(command.status().expect("it starts").success(), "{what}");
    };
    mount("mount", "-t tmpfs -o size=64k small");
    fs::write(disk.path("state/full"), vec![0; 1 << 20]).expect_err("the disk is full");
    fs::write(disk.path("list"), FEED).expect("written");
    let list = disk.path("list");
    for arguments in [
        &["ban", "203.0.113.8"][..],
        &["never", "add", "198.51.100.0/24"],
        &["feed", "add", "drop", &list],
    ] {
        let answer = disk.run(&host, arguments);
        assert_eq!(answer.status, Some(0), "{answer:?}");
        let said =
            answer.stderr.contains("is in force, but could not be written down and ends with the");
        assert!(said && answer.stderr.contains("No space left"), "{answer:?}");
    }
    assert!(bans(&host).contains(&"203.0.113.8".to_owned()));
    fs::remove_file(disk.path("state/full")).expect("it was there");
    disk.succeed(&host, &["ban", ATTACKER]);
    disk.succeed(&host, &["ban", "203.0.113.9"]);

    let host = netns();
    let state = disk.path("state");
    let answer = disk.run(&host, &["ban", "203.0.113.10", "--state-dir", &state]);
    assert!(answer.stderr.contains("2 bans, 0 feeds and 0 never-ban entries"), "{answer:?}");
    assert_eq!(bans(&host), ["203.0.113.9", "203.0.113.10", ATTACKER].map(str::to_owned));
    mount("umount", "");
}

#[test]
fn a_ban_that_a_client_of_the_guard_ended_does_not_come_back_at_a_boot_that_nothing_was_saved_for()
{
    let disk = Disk::new();
    disk.policy(GOOD);
    let (host, state) = (netns(), disk.path("state"));
    let targets = ["203.0.113.1", "203.0.113.2", "203.0.113.3", "203.0.113.4"];
    disk.succeed(&host, &[&["ban", "--source", "web"], &targets[..]].concat());
    disk.succeed(&host, &["ban", "203.0.113.1", ATTACKER]);
    disk.succeed(&host, &["save", &disk.path("state/bans")]);
    disk.succeed(&host, &["ban", "203.0.113.9"]);
    let guard = Guard::start(&host, None, &["--state-dir", &state]);
    let mut client = guard.connect();
    for request in [
        r#"{"op":"unban","target":"203.0.113.1","source":"web"}"#,
        r#"{"op":"unban","target":"203.0.113.9"}"#,
        r#"{"op":"unban_all","unbans":[{"target":"203.0.113.2"}]}"#,
        r#"{"op":"replace","source":"web","bans":[{"target":"203.0.113.3"}]}"#,
    ] {
        let answer = client.request(request);
        assert!(answer.contains(r#""ok":true"#), "{answer}");
    }
    // What a command bans after that stands behind it.
    disk.succeed(&host, &["ban", "203.0.113.2"]);
    guard.kill();
    let host = netns();
    assert_eq!(disk.boot(&host).status, Some(0));
    assert_eq!(bans(&host), ["203.0.113.1", "203.0.113.2", "203.0.113.3", ATTACKER]);
    let listed = disk.run(&host, &["bans", "--source", "web"]).stdout;
    assert!(listed.contains("203.0.113.3") && !listed.contains("203.0.113.1"), "{listed}");

    // While a guard has the log open, saves and commands take its lines away.
    let guard = Guard::start(&host, None, &["--state-dir", &state]);
    disk.succeed(&host, &["save", &disk.path("state/bans")]);
    disk.succeed(&host, &["unload", "--all"]);
    disk.succeed(&host, &["ban", "203.0.113.5", "203.0.113.6"]);
    disk.succeed(&host, &["save", &disk.path("state/bans")]);
    let answer = guard.connect().request(r#"{"op":"unban","target":"203.0.113.5"}"#);
    assert!(answer.contains("ended"), "{answer}");
    guard.kill();
    let host = netns();
    assert_eq!(disk.boot(&host).status, Some(0));
    assert_eq!(bans(&host), ["203.0.113.6"]);
}
