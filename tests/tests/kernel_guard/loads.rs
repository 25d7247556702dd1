//! Loads under a guard, and guards that end.

use std::sync::atomic::{AtomicBool, Ordering};
use std::thread;
use std::time::Instant;

use nfguard_tests::guard::Guard;
use nfguard_tests::nft::{nft, try_nft};
use nfguard_tests::program::nfguard;

use super::{
    POLICY_A, POLICY_B, banned, can_be_owned, json, netns, policy, policy_file, succeed, wait_until,
};

#[test]
fn load_unload_and_rollback_work_under_a_guard_and_the_loaded_policy_is_guarded() {
    let netns = netns();
    let (a, b) = (policy_file(POLICY_A), policy_file(POLICY_B));
    let [path_a, path_b] = [&a, &b].map(|file| file.path().to_str().expect("plain letters"));
    let folder = tempfile::tempdir().expect("a folder");
    let kept = folder.path().to_str().expect("plain letters");
    let run = |arguments: &[&str]| succeed(&netns, &[&["--state-dir", kept], arguments].concat());
    let guard = Guard::start(&netns, Some(a.path()), &["--state-dir", kept]);
    let table_a = policy(&netns);
    let is_guarded = |meant: &str| {
        if try_nft(&netns, "flush chain inet nfguard ingress\n").status.success() {
            wait_until("the tables are repaired", &guard, || policy(&netns) == meant);
        }
        assert_eq!(policy(&netns), meant);
    };
    run(&["load", path_a]);
    run(&["load", path_b]);
    let table_b = policy(&netns);
    assert_ne!(table_a, table_b);
    is_guarded(&table_b);
    run(&["rollback"]);
    assert_eq!(policy(&netns), table_a);
    is_guarded(&table_a);
    // The command of `systemctl restart nfguard`.
    run(&["boot", path_b]);
    is_guarded(&table_b);
    run(&["boot", path_a]);
    is_guarded(&table_a);
    // No confirmation comes: the watchdog rolls back, and the guard keeps the old rules.
    let answer = nfguard(&netns, &["--state-dir", kept, "load", path_b, "--confirm", "1s"]);
    let late = answer.stderr.contains("longer than the time to confirm it");
    assert_eq!(answer.status, Some(if late { 3 } else { 0 }), "{answer:?}");
    wait_until("the rollback is done", &guard, || policy(&netns) == table_a);
    is_guarded(&table_a);
    run(&["unload"]);
    assert_eq!(policy(&netns), "");
    let status = json(&guard.status());
    assert_eq!(status["status"]["policy"], "absent");
    nft(&netns, "flush ruleset\n");
    run(&["load", path_b]);
    is_guarded(&table_b);
    succeed(&netns, &["ban", "203.0.113.7", "--for", "1h"]);
    run(&["unload", "--all"]);
    for _ in 0..3 {
        assert_eq!(json(&guard.status())["status"]["bans"], 0);
    }
    assert_eq!(banned(&netns), [""; 0], "removed on purpose");
    assert_eq!(nft(&netns, "list tables\n"), "", "removed on purpose");
}

#[test]
fn a_killed_guard_leaves_the_rules_and_the_next_guard_adopts_them() {
    let netns = netns();
    let a = policy_file(POLICY_A);
    let guard = Guard::start(&netns, Some(a.path()), &[]);
    succeed(&netns, &["ban", "203.0.113.7", "--for", "1h"]);
    let meant = policy(&netns);
    guard.kill();
    assert_eq!(policy(&netns), meant, "the rules outlive it");
    assert_eq!(banned(&netns).len(), 1);
    // A load works without a guard.
    let b = policy_file(POLICY_B);
    succeed(&netns, &["load", b.path().to_str().expect("plain letters")]);
    succeed(&netns, &["load", a.path().to_str().expect("plain letters")]);
    assert_eq!(policy(&netns), meant);
    let next = Guard::start(&netns, None, &[]);
    assert_eq!(policy(&netns), meant);
    let kept = if can_be_owned() { "owned" } else { "watched" };
    assert_eq!(json(&next.status())["status"]["policy"], kept);
    assert_eq!(json(&next.status())["status"]["bans"], 1);
    nft(&netns, "flush ruleset\n");
    wait_until("all is as it was", &next, || policy(&netns) == meant && banned(&netns).len() == 1);
    let second = nfguard(&netns, &["guard", "--socket", "/nowhere/at-all"]);
    assert_eq!(second.status, Some(3), "{second:?}");
    assert!(second.stderr.contains("another guard runs"), "{second:?}");
}

#[test]
fn a_dead_lease_holder_leaves_the_guarded_rules() {
    let netns = netns();
    let a = policy_file(POLICY_A);
    let guard = Guard::start(&netns, Some(a.path()), &[]);
    let meant = policy(&netns);
    let mut holder = guard.connect();
    assert_eq!(json(&holder.request(r#"{"op":"acquire"}"#))["ok"], true);
    assert_eq!(json(&guard.status())["status"]["policy"], "leased");
    assert_eq!(json(&guard.connect().request(r#"{"op":"acquire"}"#))["ok"], false, "one at a time");
    nft(&netns, "flush chain inet nfguard ingress\n");
    assert_ne!(policy(&netns), meant);
    drop(holder);
    wait_until("the tables are repaired", &guard, || policy(&netns) == meant);
}

#[test]
fn a_table_that_another_program_changed_is_not_taken_for_the_one_that_was_put_in() {
    let netns = netns();
    let a = policy_file(POLICY_A);
    let guard = Guard::start(&netns, Some(a.path()), &[]);
    let meant = policy(&netns);
    let mut holder = guard.connect();
    assert_eq!(json(&holder.request(r#"{"op":"acquire"}"#))["ok"], true);
    nft(&netns, "flush chain inet nfguard ingress\n");
    let digest = "0".repeat(64);
    let release = format!(r#"{{"op":"release","tables":{{"put_in":"{digest}"}}}}"#);
    let answer = json(&holder.request(&release));
    assert_eq!(answer["code"], "table_changed", "{answer}");
    assert_eq!(json(&guard.status())["status"]["policy"], "leased", "the client can try again");
    nft(&netns, "flush chain inet nfguard egress\n");
    let answer = json(&holder.request(r#"{"op":"release","tables":"loaded"}"#));
    assert_eq!(answer["ok"], true, "{answer}");
    assert_eq!(policy(&netns), meant);
}

#[test]
fn a_load_that_is_done_is_in_force_though_another_program_flushed_its_rules() {
    let netns = netns();
    let files = [policy_file(POLICY_A), policy_file(POLICY_B)];
    let paths = files.each_ref().map(|file| file.path().to_str().expect("plain letters"));
    let guard = Guard::start(&netns, Some(files[0].path()), &[]);
    let start = Instant::now();
    let meant = paths.map(|path| {
        succeed(&netns, &["load", path]);
        policy(&netns)
    });
    // Between two flushes, a load can be done, also on a slow machine.
    let pause = start.elapsed() / 2;
    let stop = AtomicBool::new(false);
    let done = thread::scope(|scope| {
        scope.spawn(|| {
            while !stop.load(Ordering::Relaxed) {
                try_nft(&netns, "flush chain inet nfguard ingress\n");
                thread::sleep(pause);
            }
        });
        let done = (1..=20).filter(|turn| {
            let wanted = turn % 2;
            let answer = nfguard(&netns, &["load", paths[wanted]]);
            let is_done = answer.status == Some(0);
            let refusals = ["all the time", "changed the ruleset in between"];
            let is_refused = refusals.iter().any(|why| answer.stderr.contains(why));
            assert!(is_done || is_refused, "{answer:?}");
            if is_done {
                wait_until("the new rules", &guard, || policy(&netns) == meant[wanted]);
            }
            is_done
        });
        let done = done.count();
        stop.store(true, Ordering::Relaxed);
        done
    });
    assert!(done > 0, "no load was done");
}
