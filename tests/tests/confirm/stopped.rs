//! Parts that are stopped, or say nothing: no other part waits for them for long, and it says which.

use std::fs;
use std::os::unix::net::UnixStream;
use std::path::Path;
use std::process::{Child, Command, Stdio};

use nfguard_lab::Netns;
use nfguard_tests::guard::{Guard, GuardClient, rendezvous};
use nfguard_tests::program::{Answer, command, nfguard};
use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;

use super::{
    LONG_CONFIRM_TIME, POLICY_A, POLICY_B, has_watchdog, listed, load_each, netns, path,
    policy_file, succeed, wait_for_watchdog_end, wait_until,
};

/// Stops this process, and waits until it is.
fn stop(process: u32) -> Pid {
    let process = Pid::from_raw(process.try_into().expect("a process"));
    kill(process, Signal::SIGSTOP).expect("there");
    wait_until("the process is stopped", || {
        let stat = fs::read_to_string(format!("/proc/{process}/stat")).expect("there");
        stat.contains(") T ")
    });
    process
}

/// Asserts that this failed because of this process.
#[track_caller]
fn assert_names(answer: &Answer, process: Pid) {
    assert_eq!(answer.status, Some(3), "{answer:?}");
    let named = format!("process {process} is stopped by a signal");
    assert!(answer.stderr.contains(&named), "{answer:?}");
}

#[test]
fn a_stopped_guard_is_named_at_once_and_a_rollback_continues_it() {
    let (a, b) = (policy_file(POLICY_A), policy_file(POLICY_B));
    let netns = netns();
    let guard = Guard::start(&netns, Some(a.path()), &[]);
    succeed(&netns, &["load", path(&b), "--confirm", LONG_CONFIRM_TIME]);
    let stopped = stop(guard.process());
    for change in [&["unload"][..], &["load", path(&a)]] {
        assert_names(&nfguard(&netns, change), stopped);
    }
    assert!(listed(&netns).contains("\"new\""), "nothing was changed");
    succeed(&netns, &["status"]);
    succeed(&netns, &["rollback"]);
    wait_for_watchdog_end(&netns);
    assert!(listed(&netns).contains("\"old\""), "{}", listed(&netns));
    assert!(guard.status().contains(r#""ok":true"#));
    succeed(&netns, &["unload"]);
}

#[test]
fn a_stopped_watchdog_is_named_at_once_and_stops_no_load() {
    let (a, b) = (policy_file(POLICY_A), policy_file(POLICY_B));
    let netns = netns();
    let mut watchdog = start_watchdog(&netns);
    succeed(&netns, &["load", path(&a), "--confirm", LONG_CONFIRM_TIME]);
    let stopped = stop(watchdog.id());
    for verb in [&["confirm"][..], &["rollback"], &["load", path(&b), "--confirm", "1m"]] {
        assert_names(&nfguard(&netns, verb), stopped);
    }
    for verb in [&["status"][..], &["load", path(&b)]] {
        let answer = succeed(&netns, verb);
        assert!(answer.stderr.contains(&format!("process {stopped} is stopped")), "{answer:?}");
    }
    kill(stopped, Signal::SIGCONT).expect("there");
    succeed(&netns, &["confirm"]);
    watchdog.wait().expect("it ends");
}

/// Starts a watchdog, and waits until it listens.
fn start_watchdog(netns: &Netns) -> Child {
    let watchdog = netns.run(|| command(&["watchdog"]).spawn().expect("starts"));
    wait_until("the watchdog listens", || has_watchdog(netns));
    watchdog
}

/// The test is the loader. It says nothing after it has armed the watchdog, or half a line.
#[test]
fn a_loader_that_falls_silent_keeps_no_rules_in_force_and_no_other_waiting() {
    let (a, b) = (policy_file(POLICY_A), policy_file(POLICY_B));
    let [list_a] = load_each([&a]);
    for last_words in ["", "{\"op\":\"loa"] {
        let netns = netns();
        succeed(&netns, &["load", path(&a)]);
        let mut watchdog = start_watchdog(&netns);
        let stream = UnixStream::connect(rendezvous(&netns, "watchdog")).expect("it listens");
        let mut loader = GuardClient::new(stream);
        let armed = loader.request(r#"{"op":"arm","milliseconds":1500}"#);
        assert!(armed.contains(r#""ok":true"#), "{armed}");
        loader.send(last_words.as_bytes()).expect("it listens");
        succeed(&netns, &["load", path(&b)]);
        wait_until("the rules from before are back", || listed(&netns) == list_a);
        let late = nfguard(&netns, &["confirm"]);
        assert_eq!(late.status, Some(1), "{late:?}");
        drop(loader);
        watchdog.wait().expect("it ends");
        assert_eq!(listed(&netns), list_a);
    }
}

#[test]
fn a_stopped_command_that_holds_a_lock_is_named_by_the_next_one() {
    let netns = netns();
    let state = tempfile::tempdir().expect("a folder");
    let mut holder = hold_lock(&state.path().join("lock"));
    let stopped = stop(holder.id());
    let ban = || -> Answer {
        let mut ban = command(&["ban", "192.0.2.1", "--for", "1h"]);
        ban.env("NFGUARD_STATE_DIR", state.path());
        netns.run(|| ban.output().expect("nfguard starts").into())
    };
    let answer = ban();
    let named = format!("process {stopped} holds the lock and is stopped");
    assert!(answer.stderr.contains(&named), "{answer:?}");
    let bans = succeed(&netns, &["bans"]);
    assert!(bans.stdout.contains("192.0.2.1"), "it is in force: {bans:?}");
    kill(stopped, Signal::SIGCONT).expect("there");
    drop(holder.stdin.take());
    holder.wait().expect("it ends");
    assert!(!ban().stderr.contains("lock"), "the lock is free");
}

/// Starts a process that holds the lock of a file.
fn hold_lock(file: &Path) -> Child {
    let mut holder = Command::new("flock");
    holder.arg(file).args(["sh", "-c", "echo locked; read -r _"]);
    holder.stdin(Stdio::piped()).stdout(Stdio::piped());
    let mut holder = holder.spawn().expect("flock is installed");
    let mut line = [0; 7];
    let out = holder.stdout.as_mut().expect("a pipe");
    std::io::Read::read_exact(out, &mut line).expect("it locks");
    holder
}
