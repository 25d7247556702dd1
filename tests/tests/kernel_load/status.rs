//! `status`, `diff`, `check` and `show`: their findings and their words.

use nfguard_lab::Netns;
use nfguard_tests::nft::nft;
use nfguard_tests::program::{Answer, command, nfguard};
use serde_json::Value;

use super::{POLICY_A, POLICY_B, load, netns, policy_file, ruleset};

/// A policy with two mistakes, one of them a misspelled word.
const BROKEN: &str = r#"{ "version": 1, "rules": [
    { "action": "alow", "port": 22 }, { "action": "allow", "port": 70000 } ] }"#;

#[track_caller]
fn json(netns: &Netns, arguments: &[&str], status: i32) -> Value {
    let answer = nfguard(netns, &[arguments, &["--json"]].concat());
    assert_eq!(answer.status, Some(status), "{arguments:?}: {answer:?}");
    let value: Value = serde_json::from_str(&answer.stdout).expect("JSON");
    assert_eq!(value["schema"], 1, "{arguments:?}");
    value
}

#[test]
fn status_and_diff_show_manual_changes_and_load_undoes_them() {
    let netns = netns();
    let a = policy_file(POLICY_A);
    let path = a.path().to_str().expect("plain letters");
    assert_eq!(json(&netns, &["status"], 1)["loaded"], false);
    assert_eq!(json(&netns, &["diff", path], 1)["differs"], true);
    let by_hand = [
        "add rule inet nfguard egress accept",
        "insert rule inet nfguard ingress tcp dport 22 accept",
        "flush chain inet nfguard egress",
        "add table inet nfguard { flags dormant; }",
        "add element inet nfguard group/friends/v4 { 198.51.100.0/24 }",
        "delete element inet nfguard group/friends/v4 { 192.0.2.0/24 }",
        "add chain inet nfguard more { type filter hook input priority 0; policy drop; }",
        "add chain inet nfguard output { policy accept; }",
        "add map inet nfguard m { type ipv4_addr : verdict; }",
    ];
    load(&netns, &a);
    for change in by_hand {
        let status = json(&netns, &["status"], 0);
        assert_eq!((&status["loaded"], &status["intact"]), (&true.into(), &true.into()));
        assert_eq!(json(&netns, &["diff", path], 0)["differs"], false, "before {change}");
        nft(&netns, &format!("{change}\n"));
        let status = json(&netns, &["status"], 1);
        assert_eq!(status["loaded"], true, "{change}");
        assert_eq!(status["intact"], false, "{change}");
        let diff = json(&netns, &["diff", path], 1);
        assert_eq!(diff["differs"], true, "{change}");
        assert_ne!(diff["changes"].as_array().map(Vec::len), Some(0), "{change}");
        let before = ruleset(&netns);
        let rehearsed = json(&netns, &["load", "--dry-run", path], 0);
        assert_eq!(rehearsed["differs"], true, "{change}");
        assert_eq!(ruleset(&netns), before, "a dry run changes nothing");
        load(&netns, &a);
    }
}

#[test]
fn status_names_each_rule_set_and_chain_that_was_changed_added_or_removed() {
    let netns = netns();
    let a = policy_file(POLICY_A);
    let path = a.path().to_str().expect("plain letters");
    let folder = tempfile::tempdir().expect("a folder");
    let kept = folder.path().to_str().expect("plain letters");
    let drift = |status: &Value| -> Vec<String> {
        let lines = status["drift"].as_array().expect("a list").iter();
        lines.map(|line| line.as_str().expect("text").to_owned()).collect()
    };
    let by_hand = [
        ("add rule inet nfguard egress accept", vec![" chain egress", "+    accept"]),
        ("flush chain inet nfguard loaded", vec![]),
        (
            "insert rule inet nfguard ingress tcp dport 23 accept comment \"x\"",
            vec![" chain ingress", "+    tcp dport 23 accept comment \"x\""],
        ),
        (
            "delete element inet nfguard group/friends/v4 { 192.0.2.0/24 }",
            vec![" set group/friends/v4", "-    elements = { 192.0.2.0/24 }"],
        ),
        (
            "add chain inet nfguard more { type filter hook input priority 0; policy drop; }",
            vec!["+chain more"],
        ),
        ("delete chain inet nfguard loaded", vec!["-the digest of the loaded policy"]),
        ("add table inet nfguard { flags dormant; }", vec![" table", "+    flags dormant"]),
    ];
    let load = || {
        let loaded = nfguard(&netns, &["--state-dir", kept, "load", path]);
        assert_eq!(loaded.status, Some(0), "{loaded:?}");
    };
    load();
    for (change, expected) in by_hand {
        nft(&netns, &format!("{change}\n"));
        let is_drift = !expected.is_empty();
        let known = json(&netns, &["--state-dir", kept, "status"], i32::from(is_drift));
        let given = json(&netns, &["status", "--policy", path], i32::from(is_drift));
        assert_eq!(drift(&known), drift(&given), "{change}");
        assert_eq!(known["intact"], !is_drift, "{change}");
        for line in expected {
            assert!(drift(&known).iter().any(|it| it == line), "{change}: {:?}", drift(&known));
        }
        assert_eq!(drift(&json(&netns, &["status"], i32::from(is_drift))), [""; 0], "not known");
        load();
    }
    nft(&netns, "flush ruleset\n");
    let gone = json(&netns, &["--state-dir", kept, "status"], 1);
    assert_eq!(gone["last_load"]["file"], path);
    let unloaded = nfguard(&netns, &["--state-dir", kept, "unload"]);
    assert_eq!(unloaded.status, Some(0), "{unloaded:?}");
}

#[test]
fn a_load_says_whether_it_changed_anything() {
    let netns = netns();
    let (a, b) = (policy_file(POLICY_A), policy_file(POLICY_B));
    let [a, b] = [&a, &b].map(|file| file.path().to_str().expect("plain letters"));
    for (file, changed) in [(a, true), (a, false), (b, true), (b, false)] {
        let loaded = json(&netns, &["load", file], 0);
        assert_eq!((&loaded["changed"], &loaded["verified"]), (&changed.into(), &true.into()));
        assert_eq!(loaded["changes"].as_array().map(Vec::is_empty), Some(!changed));
    }
    let before = ruleset(&netns);
    let again = nfguard(&netns, &["load", b]);
    assert!(again.stdout.ends_with(": already loaded, nothing changed\n"), "{again:?}");
    assert_eq!(again.stderr, "");
    assert_eq!(ruleset(&netns), before);
    let diff = nfguard(&netns, &["diff", a]);
    assert_eq!(diff.status, Some(1));
    assert!(diff.stdout.lines().any(|line| line.starts_with('-') && line.contains("8080")));
    assert!(diff.stdout.lines().any(|line| line.starts_with('+') && line.contains("in/old")));
}

#[test]
fn check_finds_all_mistakes_and_needs_no_kernel() {
    let netns = netns();
    let (good, broken) = (policy_file(POLICY_A), policy_file(BROKEN));
    let [good, broken] = [&good, &broken].map(|file| file.path().to_str().expect("plain letters"));
    let answer = nfguard(&netns, &["check", good]);
    assert_eq!(answer.status, Some(0), "{answer:?}");
    assert!(answer.stdout.ends_with(": valid, 5 rules\n"), "{answer:?}");
    json(&netns, &["check", good], 0);
    for verb in ["check", "load", "diff", "show"] {
        let answer = nfguard(&netns, &[verb, broken]);
        assert_eq!(answer.status, Some(2), "{verb}: {answer:?}");
        assert_eq!(answer.stdout, "", "{verb}");
        assert!(answer.stderr.contains(&format!("{broken}:2:")), "{verb}: {answer:?}");
        assert!(answer.stderr.contains("allow") && answer.stderr.contains("70000"), "{answer:?}");
        let problems = json(&netns, &[verb, broken], 2);
        assert_eq!(problems["problems"].as_array().map(Vec::len), Some(2), "{problems}");
        assert!(problems["error"].is_string(), "{problems}");
        let absent = nfguard(&netns, &[verb, "/nowhere/policy.json"]);
        assert_eq!((absent.status, absent.stdout.as_str()), (Some(2), ""), "{absent:?}");
        assert!(absent.stderr.contains("/nowhere/policy.json"), "{absent:?}");
    }
    assert_eq!(nfguard(&netns, &["load"]).status, Some(2), "no file");
    assert_eq!(ruleset(&netns), "");
}

#[test]
fn a_listing_cut_by_a_full_disk_is_an_error() {
    let (netns, file) = (netns(), policy_file(POLICY_A));
    let full = std::fs::File::create("/dev/full").expect("the device is there");
    let answer: Answer = netns.run(|| {
        let mut show = command(&["show".as_ref(), file.path()]);
        show.stdout(full).output().expect("nfguard starts").into()
    });
    assert_eq!(answer.status, Some(2), "{answer:?}");
    assert!(answer.stderr.contains("No space left"), "{answer:?}");
}

#[test]
fn show_prints_the_loaded_policy_as_it_prints_its_file() {
    let netns = netns();
    for text in [POLICY_A, POLICY_B] {
        let file = policy_file(text);
        load(&netns, &file);
        let loaded = nfguard(&netns, &["show"]);
        let from_file = nfguard(&netns, &["show".as_ref(), file.path()]);
        assert_eq!((loaded.status, from_file.status), (Some(0), Some(0)));
        assert_eq!(blocks(&loaded.stdout), blocks(&from_file.stdout));
        let shown = json(&netns, &["show"], 0);
        assert_eq!(shown["table"]["name"], "nfguard");
        assert_eq!(nfguard(&netns, &["unload"]).status, Some(0));
        assert_eq!(json(&netns, &["show"], 1)["table"], Value::Null);
    }
}

/// Returns the blocks of a table without the digest chain, which no file has.
fn blocks(text: &str) -> Vec<&str> {
    let body = text.trim_end().strip_suffix('}').expect("a table");
    let mut blocks: Vec<&str> = body.split("\n\n").map(str::trim).collect();
    blocks.retain(|block| !block.starts_with("chain loaded {"));
    blocks
}

#[test]
fn colour_follows_the_terminal_and_the_environment() {
    let netns = netns();
    let (a, b, broken) = (policy_file(POLICY_A), policy_file(POLICY_B), policy_file(BROKEN));
    let [a, b, broken] = [&a, &b, &broken].map(|file| file.path().to_str().expect("plain letters"));
    let run = |arguments: &[&str], variables: &[(&str, &str)]| -> Answer {
        netns.run(|| {
            let mut command = command(arguments);
            command.envs(variables.iter().copied()).output().expect("nfguard starts").into()
        })
    };
    let coloured = |answer: &Answer| [&answer.stdout, &answer.stderr].map(|it| it.contains('\x1b'));
    nfguard(&netns, &["load", a]);
    let force = ("CLICOLOR_FORCE", "1");
    for (arguments, wanted) in [
        (&["diff", b][..], [true, false]),
        (&["status"], [true, false]),
        (&["check", broken], [false, true]),
        (&["explain", a, "--in", "--to", "443/tcp"], [true, false]),
    ] {
        assert_eq!(coloured(&run(arguments, &[force])), wanted, "{arguments:?}, forced");
        assert_eq!(coloured(&run(arguments, &[])), [false; 2], "{arguments:?}, into pipes");
        let never = run(arguments, &[force, ("NO_COLOR", "1")]);
        assert_eq!(coloured(&never), [false; 2], "{arguments:?}, NO_COLOR");
    }
}
