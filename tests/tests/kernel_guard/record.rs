//! What a guard records of the bans, and what comes of it: at the next start, and in `save`.

use std::collections::BTreeSet;
use std::fs;
use std::os::unix::net::UnixStream;
use std::path::Path;
use std::process::{Child, Stdio};

use nfguard_lab::Netns;
use nfguard_tests::guard::GuardClient;
use nfguard_tests::nft::{nft, try_nft};
use nfguard_tests::place::netns;
use nfguard_tests::program::{Answer, command, many, nfguard_fed};
use nfguard_tests::wait::wait_until_with;
use rustix::process::{Pid, Signal, kill_process};
use serde_json::{Value, json};
use tempfile::TempDir;

use super::json as parse;

/// A guard that keeps its state in a folder, as its unit does.
struct KeptGuard<'f> {
    child: Child,
    folder: &'f Path,
}

impl KeptGuard<'_> {
    /// Starts a guard, and waits until it answers.
    fn start<'f>(netns: &Netns, folder: &'f TempDir) -> KeptGuard<'f> {
        let folder = folder.path();
        let log = fs::OpenOptions::new().create(true).append(true).open(folder.join("guard.log"));
        let log = log.expect("ours");
        let socket = folder.join("guard.sock");
        let child = netns.run(|| {
            let mut command = command(&["guard", "--socket", socket.to_str().expect("plain")]);
            command.env("NFGUARD_STATE_DIR", folder.join("state"));
            command.stdout(Stdio::null()).stderr(log).spawn().expect("nfguard starts")
        });
        let guard = KeptGuard { child, folder };
        wait_until_with("it answers", || guard.log(), || guard.try_status().is_some());
        guard
    }

    fn log(&self) -> String {
        fs::read_to_string(self.folder.join("guard.log")).expect("ours")
    }

    fn connect(&self) -> Option<GuardClient> {
        UnixStream::connect(self.folder.join("guard.sock")).ok().map(GuardClient::new)
    }

    fn request(&self, request: &Value) -> Value {
        parse(&self.connect().expect("it listens").request(&request.to_string()))
    }

    fn try_status(&self) -> Option<Value> {
        let line = self.connect()?.try_request(r#"{"op":"status"}"#)?;
        Some(parse(&line)["status"].clone())
    }

    fn wait_until_complete(&self) {
        let is_complete = || self.try_status().is_some_and(|status| status["complete"] == true);
        wait_until_with("all bans are read", || self.log(), is_complete);
    }

    /// Returns target, source and whether there is an end of each ban that the guard knows.
    fn bans(&self) -> BTreeSet<String> {
        let (mut all, mut after) = (BTreeSet::new(), Value::Null);
        loop {
            let page = match &after {
                Value::Null => self.request(&json!({ "op": "bans" })),
                after => self.request(&json!({ "op": "bans", "after": after })),
            };
            all.extend(page["bans"].as_array().expect("a list").iter().map(described));
            after = page["next"].clone();
            if after.is_null() {
                return all;
            }
        }
    }

    fn kill(mut self) {
        self.child.kill().expect("it is ours");
        self.child.wait().expect("it ends");
    }
}

impl Drop for KeptGuard<'_> {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

fn described(ban: &Value) -> String {
    let has_end = !ban["expires_in_seconds"].is_null();
    format!("{} {} {} {has_end}", ban["target"], ban["source"], ban["reason"])
}

fn run(netns: &Netns, folder: &TempDir, arguments: &[&str]) -> Answer {
    let state = folder.path().join("state");
    let answer: Answer = netns.run(|| {
        let mut command = command(arguments);
        command.env("NFGUARD_STATE_DIR", state).output().expect("nfguard starts").into()
    });
    assert_eq!(answer.status, Some(0), "{arguments:?}: {answer:?}");
    answer
}

/// Returns what the kernel holds, as the guard's list describes it.
fn held(netns: &Netns, folder: &TempDir) -> BTreeSet<String> {
    let list = parse(&run(netns, folder, &["bans", "--json"]).stdout);
    list["bans"].as_array().expect("a list").iter().map(described).collect()
}

/// Bans an address for each number, over the socket.
fn ban(guard: &KeptGuard, source: &str, numbers: std::ops::Range<u32>, until: &str) {
    let bans = numbers.map(|at| json!({ "target": format!("10.{}.{}.1", at / 250, at % 250) }));
    let bans: Vec<Value> = bans.collect();
    let answer = guard.request(
        &json!({ "op": "ban_all", "source": source, "for": until, "reason": "why", "bans": bans }),
    );
    assert_eq!(answer["ok"], true, "{answer}");
}

#[test]
fn a_guard_knows_all_bans_again_whatever_became_of_them_while_none_ran() {
    let (netns, folder) = (netns(), tempfile::tempdir().expect("a folder"));
    let mut guard = KeptGuard::start(&netns, &folder);
    let count = many(3_000);
    ban(&guard, "one", 0..count, "1h");
    ban(&guard, "two", count / 2..count + 10, "2h");
    let mut seed = 7_u32;
    let mut random = |below: u32| {
        seed = seed.wrapping_mul(1_664_525).wrapping_add(1_013_904_223);
        (seed >> 8) % below
    };
    for round in 0..6_u32 {
        guard.wait_until_complete();
        let at = random(count);
        let target = format!("10.{}.{}.1", at / 250, at % 250);
        guard.request(&json!({ "op": "unban", "target": target, "source": "one" }));
        guard.request(&json!({ "op": "ban", "target": format!("192.0.2.{round}"), "for": "1s" }));
        guard.request(&json!({ "op": "ban", "target": format!("2001:db8:{round}::1") }));
        wait_until_with(
            "the guard has what the kernel has",
            || guard.log(),
            || guard.bans() == held(&netns, &folder),
        );
        // Killed, and others go on.
        guard.kill();
        let at = random(count);
        let target = format!("10.{}.{}.1", at / 250, at % 250);
        match round % 3 {
            0 => drop(run(&netns, &folder, &["unban", &target])),
            1 => drop(run(&netns, &folder, &["ban", "198.51.100.0/24", "--source", "three"])),
            _ => drop(nft(
                &netns,
                "add element inet nfguard_bans v4/32 { 198.51.100.7 timeout 1h }\n",
            )),
        }
        if round == 4 {
            // A record that was cut, and one with a slot that was not written to its end.
            let path = folder.path().join("state/bans.record");
            let bytes = fs::read(&path).expect("it is there");
            let mut cut = bytes[..bytes.len() / 2 + 33].to_vec();
            cut[1000] ^= 1;
            fs::write(&path, cut).expect("ours");
        }
        guard = KeptGuard::start(&netns, &folder);
        guard.wait_until_complete();
        wait_until_with(
            "the guard has what the kernel has",
            || guard.log(),
            || guard.bans() == held(&netns, &folder),
        );
        // What it knows it puts back, at once after its start too.
        if round % 2 == 0 {
            guard.kill();
            guard = KeptGuard::start(&netns, &folder);
            let before = held(&netns, &folder);
            nft(&netns, "delete table inet nfguard_bans\n");
            wait_until_with(
                "the bans are back",
                || guard.log(),
                || {
                    let exists = try_nft(&netns, "list table inet nfguard_bans\n").status.success();
                    // A short ban may have ended.
                    exists
                        && held(&netns, &folder)
                            .iter()
                            .filter(|it| !it.contains("192.0.2."))
                            .eq(before.iter().filter(|it| !it.contains("192.0.2.")))
                },
            );
        }
    }
    assert!(!guard.log().contains("cannot be"), "{}", guard.log());
}

/// More happens than fits the buffer of events: the guard reads again what it missed, and repairs.
#[test]
fn what_happens_while_the_guard_hears_nothing_is_known_and_repaired_after() {
    let (netns, folder) = (netns(), tempfile::tempdir().expect("a folder"));
    let guard = KeptGuard::start(&netns, &folder);
    ban(&guard, "one", 0..100, "1h");
    let process = Pid::from_raw(guard.child.id().cast_signed()).expect("it runs");
    kill_process(process, Signal::STOP).expect("it is ours");
    let list = |from: u32, to: u32| -> String {
        (from..to).map(|at| format!("11.{}.{}.1\n", at / 250, at % 250)).collect()
    };
    for part in 0..10 {
        let list = list(part * many(6_000), (part + 1) * many(6_000));
        let arguments = ["ban", "-", "--for", "1h", "--source", "two", "--force"];
        assert_eq!(nfguard_fed(&netns, &arguments, &list).status, Some(0));
    }
    run(&netns, &folder, &["unban", "10.0.7.1"]);
    kill_process(process, Signal::CONT).expect("it is ours");
    let is_known = || guard.try_status().is_some_and(|it| it["bans"] == 99 + 10 * many(6_000));
    wait_until_with("all are known", || guard.log(), is_known);
    guard.wait_until_complete();
    nft(&netns, "delete table inet nfguard_bans\n");
    wait_until_with(
        "all are back",
        || guard.log(),
        || {
            let count = run(&netns, &folder, &["bans", "--count"]).stdout;
            count.trim() == (99 + 10 * many(6_000)).to_string()
        },
    );
}

#[test]
fn very_many_bans_are_saved_and_listed_whole_with_and_without_a_guard() {
    let (netns, folder) = (netns(), tempfile::tempdir().expect("a folder"));
    let guard = KeptGuard::start(&netns, &folder);
    let count = many(25_000);
    ban(&guard, "one", 0..count, "1h");
    ban(&guard, "two", 0..10, "2h");
    let path = folder.path().join("saved");
    let path = path.to_str().expect("plain");
    let save = |wanted: u32| {
        run(&netns, &folder, &["save", path]);
        let saved = fs::read_to_string(path).expect("written");
        assert_eq!(saved.lines().count(), wanted as usize + 2, "head, bans, foot");
        assert_eq!(held(&netns, &folder).len(), wanted as usize);
    };
    save(count + 10);
    guard.request(&json!({ "op": "unban", "target": "10.0.20.1" }));
    guard.request(&json!({ "op": "ban", "target": "192.0.2.1" }));
    save(count + 10);
    guard.kill();
    // The record is old, and the log has the rest.
    run(&netns, &folder, &["ban", "192.0.2.2", "--source", "later"]);
    run(&netns, &folder, &["unban", "10.0.21.1"]);
    save(count + 10);
    // Neither has what another program added: the kernel counts one more, and is read.
    nft(&netns, "add element inet nfguard_bans v4/32 { 198.51.100.7 timeout 1h }\n");
    save(count + 11);
}
