//! `try`, and open connections over a load.

use std::ffi::OsStr;
use std::io::{BufRead as _, BufReader, Write as _};
use std::net::SocketAddr;

use nfguard_lab::{Netns, Probe, World};
use nfguard_tests::nft::nft;
use nfguard_tests::program::{TempFile, nfguard};
use nfguard_tests::wait::TIMEOUT;

const TRAEFIK: &str = include_str!("../../policies/traefik.json");

/// Runs a verb on a policy, which must succeed, and returns its output.
fn stdout(netns: &Netns, verb: &str, more: &[&str]) -> String {
    let file = TempFile::new("traefik.json", TRAEFIK);
    let arguments: Vec<&OsStr> =
        [verb.as_ref(), file.as_ref()].into_iter().chain(more.iter().map(AsRef::as_ref)).collect();
    let answer = nfguard(netns, &arguments);
    assert_eq!(answer.status, Some(0), "{answer:?}");
    answer.stdout
}

fn unload(netns: &Netns) {
    let answer = nfguard(netns, &["unload"]);
    assert_eq!(answer.status, Some(0), "{answer:?}");
}

#[test]
fn a_rehearsal_agrees_with_explain_and_leaves_the_namespace_alone() {
    let netns = Netns::new().expect("run me with `cargo xtask netns-test`");
    let report = stdout(&netns, "try", &[]);
    let row = |words: &[&str]| {
        report.lines().any(|line| line.starts_with('✓') && words.iter().all(|w| line.contains(w)))
    };
    for words in [
        ["in ", "443/tcp", "passed", "https: Traefik"],
        ["in ", "443/tcp", "2001:db8:7::7", "passed"],
        ["in ", "9/udp", "203.0.113.7", "timed out"],
        ["in ", "ping", "2001:db8:7::7", "passed"],
        ["out ", "53/udp", "2001:db8:1::2", "passed"],
        ["out ", "25/tcp", "198.51.100.2", "timed out"],
        ["in ", "22/tcp 1 to 5", "203.0.113.7", "ssh: 5 of 5 in 30 s"],
        ["in ", "22/tcp no. 6", "2001:db8:7::7", "refused"],
        ["container out ", "25/tcp", "172.17.0.2", "timed out"],
    ] {
        assert!(row(&words), "no row with {words:?} in\n{report}");
    }
    assert!(!report.contains('✗'), "{report}");
    assert_eq!(nft(&netns, "list ruleset\n"), "", "the namespace around it is as it was");
}

#[test]
fn a_rehearsal_in_json_lists_each_probe() {
    let netns = Netns::new().expect("run me with `cargo xtask netns-test`");
    let report = stdout(&netns, "try", &["--json"]);
    let report: serde_json::Value = serde_json::from_str(&report).expect("JSON");
    assert_eq!(report["schema"], 1);
    assert_eq!(report["agrees"], true);
    assert!(report["probes"].as_array().expect("a list").len() > 20);
}

#[test]
fn explain_names_only_the_rule_that_decides() {
    let netns = Netns::new().expect("run me with `cargo xtask netns-test`");
    for (way, to, rule) in [
        ("--in", "443/tcp", "https: Traefik"),
        ("--out", "123/udp", "ntp-out: Time"),
        ("--published=8443", "443/tcp", "https: Traefik"),
    ] {
        let text = stdout(&netns, "explain", &[way, "--to", to]);
        let decided = text.lines().filter(|line| line.contains("decided at")).collect::<Vec<_>>();
        assert_eq!(decided.len(), 1, "{text}");
        assert!(decided[0].contains(&format!("comment \"{rule}\"")), "{text}");
        let json = stdout(&netns, "explain", &[way, "--to", to, "--json"]);
        let json: serde_json::Value = serde_json::from_str(&json).expect("JSON");
        assert_eq!(json["decided_by"]["rule"]["comment"], rule);
    }
}

#[test]
fn a_policy_with_a_mistake_is_not_rehearsed() {
    let netns = Netns::new().expect("run me with `cargo xtask netns-test`");
    let file = TempFile::new("mistake.json", &TRAEFIK.replace("\"ssh\"\n", "\"shs\"\n"));
    let answer = nfguard(&netns, &["try".as_ref(), file.as_ref()]);
    assert_eq!(answer.status, Some(2), "{answer:?}");
    assert!(answer.stderr.contains("did you mean \"ssh\"?"), "{answer:?}");
}

/// Before the first load, no rule in the namespace needs connection tracking. So the kernel does
/// not know the connection of the operator at the load.
#[test]
fn an_ssh_session_from_before_the_first_load_continues() {
    let world = World::new().expect("run me with `cargo xtask netns-test`");
    for host in [World::HOST_V4, World::HOST_V6] {
        let address = SocketAddr::new(host, 22);
        let _server = world.host.serve_tcp(address).expect("a server");
        let probe = Probe::tcp(&world.internet, address).timeout(TIMEOUT);
        let mut session = probe.connect().expect("a session");
        session.set_read_timeout(Some(TIMEOUT)).expect("a timeout");
        let mut answers = BufReader::new(session.try_clone().expect("a second handle"));
        let mut line = String::new();
        answers.read_line(&mut line).expect("a greeting");

        for verb in ["load", "unload", "load", "load"] {
            match verb {
                "unload" => unload(&world.host),
                verb => drop(stdout(&world.host, verb, &[])),
            }
            session.write_all(b"still here\n").expect("the session is open");
            line.clear();
            answers.read_line(&mut line).expect("an answer");
            assert_eq!(line, "still here\n", "after {verb}");
        }
        unload(&world.host);
    }
}
