//! Rollback: which rules come back, and which do not.

use std::time::Duration;

use nfguard_lab::{Netns, Probe, Server, World, packet};
use nfguard_tests::nft::nft;
use nfguard_tests::program::{TempFile, nfguard, time_box};
use serde_json::Value;

use super::{
    LONG_CONFIRM_TIME, POLICY_A, POLICY_B, POLICY_C, listed, load_each, netns, path, policy_file,
    run_nft_script, succeed, wait_for_watchdog_end, wait_until,
};
use super::{has_watchdog, load_unconfirmed, world};

struct Ports<'w>(&'w World, Vec<Server>);

impl Ports<'_> {
    fn new(world: &World) -> Ports<'_> {
        let serve = |port| world.host.serve_tcp((World::HOST_V4, port)).expect("serves");
        Ports(world, [80, 8080].map(serve).into())
    }

    fn open(&self) -> Vec<u16> {
        let ports = self.1.iter().map(|server| server.address().port());
        let passes =
            |port: &u16| Probe::tcp(&self.0.internet, (World::HOST_V4, *port)).run().passed();
        ports.filter(passes).collect()
    }
}

#[test]
fn an_unconfirmed_load_is_rolled_back_and_packets_obey_the_old_rules() {
    let world = world();
    let (a, b) = (policy_file(POLICY_A), policy_file(POLICY_B));
    let [list_a, list_b] = load_each([&a, &b]);
    let ports = Ports::new(&world);
    succeed(&world.host, &["load", path(&a)]);
    assert_eq!(ports.open(), [80]);

    let loaded = succeed(&world.host, &["load", path(&b), "--confirm", "20s"]);
    assert!(loaded.stdout.contains("`nfguard confirm` within 20s"), "{loaded:?}");
    assert_eq!(listed(&world.host), list_b);
    assert_eq!(ports.open(), [8080]);

    wait_for_watchdog_end(&world.host);
    assert_eq!(listed(&world.host), list_a);
    wait_until("packets obey them", || ports.open() == [80]);
    assert_eq!(nfguard(&world.host, &["status"]).status, Some(0), "intact");
}

#[test]
fn a_load_confirmed_in_time_stays() {
    let netns = netns();
    let (a, b) = (policy_file(POLICY_A), policy_file(POLICY_B));
    let [_, list_b] = load_each([&a, &b]);
    succeed(&netns, &["load", path(&a)]);
    succeed(&netns, &["load", path(&b), "--confirm", LONG_CONFIRM_TIME]);
    let status = succeed(&netns, &["status", "--json"]);
    let status: Value = serde_json::from_str(&status.stdout).expect("JSON");
    let left = status["confirm_within_seconds"].as_f64().expect("a time");
    assert!(left > 0.0 && left <= 600.0, "{left}");
    let confirmed = succeed(&netns, &["confirm"]);
    assert!(confirmed.stdout.starts_with("confirmed from "), "{confirmed:?}");
    wait_for_watchdog_end(&netns);
    assert_eq!(listed(&netns), list_b);
}

#[test]
fn a_late_confirmation_says_so_and_changes_nothing() {
    let netns = netns();
    let folder = tempfile::tempdir().expect("a folder");
    let folder = folder.path().to_str().expect("plain letters");
    let (a, b) = (policy_file(POLICY_A), policy_file(POLICY_B));
    let [list_a] = load_each([&a]);
    let never = nfguard(&netns, &["confirm"]);
    assert_eq!(never.status, Some(1), "{never:?}");
    assert!(never.stderr.contains("no load waits to be confirmed"), "{never:?}");
    succeed(&netns, &["load", path(&a), "--state-dir", folder]);
    load_unconfirmed(&netns, &b, &["--state-dir", folder]);
    wait_for_watchdog_end(&netns);
    let late = || nfguard(&netns, &["confirm", "--state-dir", folder]);
    wait_until("the history knows", || late().stderr.contains("too late"));
    let json = nfguard(&netns, &["confirm", "--json"]);
    assert_eq!((late().status, json.status), (Some(1), Some(1)));
    let json: Value = serde_json::from_str(&json.stdout).expect("JSON");
    assert_eq!((&json["confirmed"], &json["proves_access"]), (&false.into(), &false.into()));
    assert_eq!(listed(&netns), list_a);
}

#[test]
fn a_confirmation_at_the_last_moment_reports_whether_it_was_in_time() {
    let (a, b) = (policy_file(POLICY_A), policy_file(POLICY_B));
    let [list_a, list_b] = load_each([&a, &b]);
    let start = std::time::Instant::now();
    let (mut won, mut lost) = (0, 0);
    for round in 0..6_u32 {
        if round >= 2 && start.elapsed() > time_box() {
            break;
        }
        let outcomes = parallel(4, |thread| {
            let netns = netns();
            succeed(&netns, &["load", path(&a)]);
            load_unconfirmed(&netns, &b, &[]);
            let left = nfguard(&netns, &["status", "--json"]);
            let left: Value = serde_json::from_str(&left.stdout).unwrap_or_default();
            let left = left["confirm_within_seconds"].as_f64().unwrap_or(0.0);
            let early = f64::from(round * 4 + thread) / 24.0 * 0.03;
            std::thread::sleep(Duration::try_from_secs_f64(left - early).unwrap_or_default());
            let answer = nfguard(&netns, &["confirm"]);
            wait_for_watchdog_end(&netns);
            let (expected, won) = match answer.status {
                Some(0) => (&list_b, true),
                Some(1) => (&list_a, false),
                _ => panic!("{answer:?}"),
            };
            assert_eq!(&listed(&netns), expected, "{answer:?}");
            won
        });
        won += outcomes.iter().filter(|won| **won).count();
        lost += outcomes.iter().filter(|won| !**won).count();
    }
    eprintln!("{won} confirmed, {lost} too late");
}

/// The same several times at once.
fn parallel<T: Send>(count: u32, work: impl Fn(u32) -> T + Sync) -> Vec<T> {
    std::thread::scope(|scope| {
        let work = &work;
        let threads: Vec<_> = (0..count).map(|at| scope.spawn(move || work(at))).collect();
        threads.into_iter().map(|thread| thread.join().expect("does its work")).collect()
    })
}

#[test]
fn a_rollback_of_the_first_load_removes_the_policy() {
    let netns = netns();
    let a = policy_file(POLICY_A);
    load_unconfirmed(&netns, &a, &[]);
    wait_for_watchdog_end(&netns);
    assert_eq!(listed(&netns), "");
}

/// Asserts that every table that nfguard can restore comes back, whatever changed after the load.
#[test]
fn a_rollback_restores_the_table_as_it_was_before_the_load() {
    let netns = netns();
    let (a, b) = (policy_file(POLICY_A), policy_file(POLICY_B));
    for before in [
        "add rule inet nfguard ingress udp dport 5353 counter accept",
        "add chain inet nfguard more { type filter hook input priority 5; policy drop; }",
        "add set inet nfguard mine { type ipv4_addr; flags interval; elements = { 10.0.0.0/8 }; }",
        "flush chain inet nfguard egress",
    ] {
        for meanwhile in [
            "add rule inet nfguard ingress drop",
            "add map inet nfguard m { type ipv4_addr : verdict; }",
            "delete table inet nfguard",
            "delete table inet nfguard; add table inet nfguard; add chain inet nfguard mine",
        ] {
            succeed(&netns, &["load", path(&a)]);
            run_nft_script(&netns, before);
            let there = listed(&netns);
            succeed(&netns, &["load", path(&b), "--confirm", LONG_CONFIRM_TIME]);
            assert_ne!(listed(&netns), there);
            run_nft_script(&netns, meanwhile);
            succeed(&netns, &["rollback"]);
            assert_eq!(listed(&netns), there, "{before}; {meanwhile}");
            wait_for_watchdog_end(&netns);
        }
    }
}

#[test]
fn a_table_that_a_rollback_could_not_restore_is_not_replaced() {
    let netns = netns();
    let (a, b) = (policy_file(POLICY_A), policy_file(POLICY_B));
    for (script, word) in [
        ("add rule inet nfguard ingress tcp dport { 1, 2 } accept", "an anonymous set"),
        ("add map inet nfguard m { type ipv4_addr : verdict; }", "flags"),
        ("add table inet nfguard { flags dormant; }", "dormant"),
    ] {
        succeed(&netns, &["load", path(&a)]);
        nft(&netns, &format!("{script}\n"));
        let there = listed(&netns);
        let refused = nfguard(&netns, &["load", path(&b), "--confirm", LONG_CONFIRM_TIME]);
        assert_eq!(refused.status, Some(3), "{script}: {refused:?}");
        assert!(refused.stderr.contains("nothing was loaded"), "{refused:?}");
        assert!(refused.stderr.contains(word), "{refused:?}");
        assert_eq!(listed(&netns), there);
        wait_for_watchdog_end(&netns);
    }
    succeed(&netns, &["load", path(&b)]);
}

#[test]
fn a_load_that_fails_or_changes_nothing_leaves_nothing_to_confirm() {
    let netns = netns();
    let a = policy_file(POLICY_A);
    succeed(&netns, &["load", path(&a)]);
    let again = succeed(&netns, &["load", path(&a), "--confirm", LONG_CONFIRM_TIME]);
    assert!(again.stdout.ends_with("nothing changed\n"), "{again:?}");
    wait_for_watchdog_end(&netns);
    nft(&netns, "delete table inet nfguard; add table inet nfguard;\n");
    let foreign = nfguard(&netns, &["load", path(&a), "--confirm", LONG_CONFIRM_TIME]);
    assert_eq!(foreign.status, Some(3), "{foreign:?}");
    wait_for_watchdog_end(&netns);
}

/// The last policy that was confirmed, or loaded without `--confirm`.
#[test]
fn a_second_unconfirmed_load_is_rolled_back_to_the_rules_before_both() {
    let (a, b, c) = (policy_file(POLICY_A), policy_file(POLICY_B), policy_file(POLICY_C));
    let [list_a, list_b, list_c] = load_each([&a, &b, &c]);
    let two = |then: &dyn Fn(&Netns)| {
        let netns = netns();
        succeed(&netns, &["load", path(&a)]);
        succeed(&netns, &["load", path(&b), "--confirm", LONG_CONFIRM_TIME]);
        then(&netns);
        wait_for_watchdog_end(&netns);
        listed(&netns)
    };
    let after = two(&|netns| {
        load_unconfirmed(netns, &c, &[]);
    });
    assert_eq!(after, list_a);
    let after = two(&|netns| {
        succeed(netns, &["load", path(&c), "--confirm", LONG_CONFIRM_TIME]);
        succeed(netns, &["confirm"]);
    });
    assert_eq!(after, list_c);
    // The first one waits on if nothing came of the second.
    let after = two(&|netns| {
        load_unconfirmed(netns, &b, &[]);
        assert!(has_watchdog(netns));
        assert_eq!(listed(netns), list_b);
        succeed(netns, &["rollback"]);
    });
    assert_eq!(after, list_a);
    let after = two(&|netns| {
        let plain = succeed(netns, &["load", path(&c)]);
        assert!(plain.stderr.contains("an earlier load still waits"), "{plain:?}");
        succeed(netns, &["rollback"]);
    });
    assert_eq!(after, list_a);
}

#[test]
fn a_rollback_restores_the_never_ban_entries_of_the_policy() {
    let netns = netns();
    let (a, b) = (policy_file(POLICY_A), policy_file(POLICY_B));
    let is_exempt = |address: &str| {
        let never = succeed(&netns, &["never"]);
        never.stdout.lines().any(|line| line.starts_with(address) && line.contains("policy"))
    };
    succeed(&netns, &["load", path(&a)]);
    assert!(is_exempt("192.0.2.7") && !is_exempt("192.0.2.8"));
    succeed(&netns, &["load", path(&b), "--confirm", LONG_CONFIRM_TIME]);
    assert!(!is_exempt("192.0.2.7") && is_exempt("192.0.2.8"));
    succeed(&netns, &["rollback"]);
    wait_for_watchdog_end(&netns);
    wait_until("the never-ban entries are back", || {
        is_exempt("192.0.2.7") && !is_exempt("192.0.2.8")
    });
}

#[test]
fn a_ban_for_a_scan_survives_a_rollback() {
    let world = world();
    let (a, scans) = (
        policy_file(POLICY_A),
        policy_file(&POLICY_B.replace("\"rules\"", "\"scan\": {}, \"rules\"")),
    );
    succeed(&world.host, &["load", path(&a)]);
    succeed(&world.host, &["load", path(&scans), "--confirm", LONG_CONFIRM_TIME]);
    let (from, to) = ("203.0.113.7".parse().expect("an address"), World::HOST_V4);
    let null = packet::ip(from, to, 6, 64, &packet::tcp(from, to, 40_000, 9, 0));
    world.internet.send_raw(None, &null).expect("it is sent");
    let is_banned = || succeed(&world.host, &["bans"]).stdout.contains("203.0.113.7");
    wait_until("banned", is_banned);
    succeed(&world.host, &["rollback"]);
    wait_for_watchdog_end(&world.host);
    wait_until("banned by a rule that stays", is_banned);
    assert!(!listed(&world.host).contains("scan"), "the old rules are back");
}

#[test]
fn constant_writes_by_others_do_not_prevent_a_rollback() {
    let netns = netns();
    let (a, b) = (policy_file(POLICY_A), policy_file(POLICY_B));
    let [list_a] = load_each([&a]);
    succeed(&netns, &["load", path(&a)]);
    nft(&netns, "add table inet other; add set inet other s { type ipv4_addr; };\n");
    load_unconfirmed(&netns, &b, &[]);
    let many: String = (0..400_u32)
        .map(|at| format!("add element inet other s {{ 10.1.{}.{} }}\n", at / 256, at % 256))
        .collect();
    let many = TempFile::new("many.nft", &many);
    while has_watchdog(&netns) {
        netns.run(|| {
            let mut nft = std::process::Command::new("nft");
            assert!(nft.arg("-f").arg(many.path()).status().expect("nft is installed").success());
        });
    }
    assert_eq!(listed(&netns), list_a);
}
