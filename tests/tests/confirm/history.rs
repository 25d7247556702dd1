//! `history` and `rollback`.

use std::fs;
use std::os::unix::fs::PermissionsExt as _;
use std::path::Path;

use nfguard_lab::Netns;
use nfguard_tests::program::{Answer, command};
use serde_json::Value;

use super::assert_loaded_or_rolled_back;
use super::{
    LONG_CONFIRM_TIME, POLICY_A, POLICY_B, POLICY_C, SHORT_CONFIRM_TIME, listed, load_each, netns,
    path, policy_file, wait_for_watchdog_end, wait_until,
};

/// A host with a history of loads.
struct Host {
    netns: Netns,
    folder: tempfile::TempDir,
}

impl Host {
    fn new() -> Host {
        Host { netns: netns(), folder: tempfile::tempdir().expect("a folder") }
    }

    fn run(&self, arguments: &[&str]) -> Answer {
        self.netns.run(|| {
            let mut command = command(arguments);
            command.env("NFGUARD_STATE_DIR", self.folder.path().join("state"));
            command.env("SUDO_USER", "alice");
            command.output().expect("nfguard starts").into()
        })
    }

    #[track_caller]
    fn succeed(&self, arguments: &[&str]) -> Answer {
        let answer = self.run(arguments);
        assert_eq!(answer.status, Some(0), "{answer:?}");
        answer
    }

    /// Returns the number and outcome of each load.
    fn loads(&self) -> Vec<(u64, String)> {
        let answer = self.succeed(&["history", "--json"]);
        let answer: Value = serde_json::from_str(&answer.stdout).expect("JSON");
        let loads = answer["loads"].as_array().expect("a list");
        let load = |load: &Value| {
            let outcome = load["outcome"].as_str().expect("a word").to_owned();
            (load["number"].as_u64().expect("a number"), outcome)
        };
        loads.iter().map(load).collect()
    }

    fn history(&self) -> std::path::PathBuf {
        self.folder.path().join("state/history")
    }
}

fn outcomes(words: &[&str]) -> Vec<(u64, String)> {
    (1..).zip(words.iter().map(|word| (*word).to_owned())).collect()
}

#[test]
fn the_history_records_user_policy_and_outcome_of_each_load() {
    let host = Host::new();
    let (a, b, c) = (policy_file(POLICY_A), policy_file(POLICY_B), policy_file(POLICY_C));
    host.succeed(&["load", path(&a)]);
    host.succeed(&["load", path(&a)]);
    assert_eq!(host.loads(), outcomes(&["loaded"]), "the second one changed nothing");
    host.succeed(&["load", path(&b), "--confirm", LONG_CONFIRM_TIME]);
    assert_eq!(host.loads(), outcomes(&["loaded", "pending"]));
    host.succeed(&["confirm"]);
    assert_eq!(host.loads(), outcomes(&["loaded", "confirmed"]));
    wait_for_watchdog_end(&host.netns);
    assert_loaded_or_rolled_back(&host.run(&["load", path(&c), "--confirm", SHORT_CONFIRM_TIME]));
    wait_for_watchdog_end(&host.netns);
    let all = outcomes(&["loaded", "confirmed", "rolled_back"]);
    wait_until("the history has the load", || host.loads() == all);

    let list = host.succeed(&["history"]).stdout;
    let lines: Vec<&str> = list.lines().collect();
    assert!(lines[0].contains(" alice: ") && lines[0].ends_with(path(&a)), "{list}");
    assert!(lines[1].contains(", confirmed from "), "{list}");
    assert!(lines[2].ends_with(", rolled back"), "{list}");
    assert_eq!(host.succeed(&["history", "show", "2"]).stdout.trim(), POLICY_B.trim());
    let differs = host.run(&["history", "diff", "1", "2"]);
    assert_eq!(differs.status, Some(1));
    assert!(differs.stdout.contains("in/old") && differs.stdout.contains("8080"), "{differs:?}");
    assert_eq!(host.run(&["history", "diff", "1"]).status, Some(1));
    assert_eq!(host.run(&["history", "diff", "2"]).status, Some(0), "that is what is loaded");
    assert_eq!(host.run(&["history", "show", "9"]).status, Some(2));
}

#[test]
fn rollback_undoes_load_by_load_or_restores_a_named_load() {
    let host = Host::new();
    let (a, b, c) = (policy_file(POLICY_A), policy_file(POLICY_B), policy_file(POLICY_C));
    let lists = load_each([&a, &b, &c]);
    for file in [&a, &b, &c] {
        host.succeed(&["load", path(file)]);
    }
    host.succeed(&["rollback"]);
    assert_eq!(listed(&host.netns), lists[1]);
    host.succeed(&["rollback"]);
    assert_eq!(listed(&host.netns), lists[0]);
    let first = host.run(&["rollback"]);
    assert_eq!(first.status, Some(1), "{first:?}");
    assert!(first.stderr.contains("no load before"), "{first:?}");
    assert_eq!(listed(&host.netns), lists[0]);
    host.succeed(&["rollback", "3"]);
    assert_eq!(listed(&host.netns), lists[2]);
    host.succeed(&["unload"]);
    host.succeed(&["rollback"]);
    assert_eq!(listed(&host.netns), lists[2], "what was unloaded is back");
    // It is a load like any other.
    assert_loaded_or_rolled_back(&host.run(&["rollback", "1", "--confirm", SHORT_CONFIRM_TIME]));
    wait_for_watchdog_end(&host.netns);
    assert_eq!(listed(&host.netns), lists[2]);
}

#[test]
fn history_entries_are_private_and_a_damaged_one_harms_no_other() {
    let host = Host::new();
    let (a, b) = (policy_file(POLICY_A), policy_file(POLICY_B));
    let lists = load_each([&a, &b]);
    host.succeed(&["load", path(&a)]);
    host.succeed(&["load", path(&b)]);
    let mode = |path: &Path| fs::metadata(path).expect("there").permissions().mode() & 0o777;
    let mut files: Vec<_> = fs::read_dir(host.history()).expect("there").flatten().collect();
    files.sort_by_key(fs::DirEntry::file_name);
    assert_eq!(files.len(), 2);
    assert!(files.iter().all(|file| mode(&file.path()) == 0o600));
    assert_eq!(mode(&host.history()), 0o700);

    let text = fs::read_to_string(files[1].path()).expect("text").replace("8080", "8081");
    fs::write(files[1].path(), text).expect("writes");
    let list = host.run(&["history", "--json"]);
    assert!(list.stderr.contains("0000000002.json: damaged"), "{list:?}");
    assert_eq!(host.loads(), outcomes(&["loaded"]));
    assert_eq!(host.run(&["rollback", "2"]).status, Some(1));
    assert_eq!(listed(&host.netns), lists[1]);
    host.succeed(&["rollback", "1"]);
    assert_eq!(listed(&host.netns), lists[0]);
}

#[test]
fn a_policy_that_others_may_write_is_not_loaded() {
    let host = Host::new();
    let folder = tempfile::tempdir().expect("a folder");
    let policy = folder.path().join("policy.json");
    fs::write(&policy, POLICY_A).expect("writes");
    let name = policy.to_str().expect("plain letters");
    let set = |path: &Path, mode| {
        fs::set_permissions(path, fs::Permissions::from_mode(mode)).expect("ours");
    };
    for (file, around) in [(0o646, 0o755), (0o644, 0o757)] {
        set(&policy, file);
        set(folder.path(), around);
        for arguments in [&["load", name][..], &["load", name, "--dry-run"]] {
            let refused = host.run(arguments);
            assert_eq!(refused.status, Some(2), "{refused:?}");
            assert!(refused.stderr.contains("everybody may write this file"), "{refused:?}");
        }
        assert_eq!(listed(&host.netns), "");
        assert_eq!(host.run(&["check", name]).status, Some(0), "that does no harm");
    }
    set(&policy, 0o644);
    set(folder.path(), 0o1777);
    host.succeed(&["load", name]);
}
