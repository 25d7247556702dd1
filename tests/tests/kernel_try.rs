//! The rehearsal, and what a load does to whoever is connected.

use std::io::{BufRead as _, BufReader, Write as _};
use std::net::SocketAddr;
use std::process::{Command, Output, Stdio};
use std::time::Duration;

use nfguard_lab::{Netns, Probe, World};
use nfguard_tests::nft::nft;

const TRAEFIK: &str = include_str!("../../policies/traefik.json");
/// A probe that passes does not wait so long.
const PATIENCE: Duration = Duration::from_secs(30);

/// Runs `nfguard` in a namespace, with a policy on its standard input.
fn nfguard(netns: &Netns, args: &[&str], policy: &str) -> Output {
    let program = std::env::var_os("NFGUARD_BIN").expect("run me with `cargo xtask netns-test`");
    netns.run(|| {
        let mut child = Command::new(program)
            .args(args)
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .stderr(Stdio::piped())
            .spawn()
            .expect("nfguard starts");
        let mut input = child.stdin.take().expect("a pipe");
        input.write_all(policy.as_bytes()).expect("nfguard reads");
        drop(input);
        child.wait_with_output().expect("nfguard ends")
    })
}

fn stdout(output: &Output) -> String {
    assert!(output.status.success(), "{output:?}");
    String::from_utf8(output.stdout.clone()).expect("text")
}

#[test]
fn a_rehearsal_sees_what_explain_foretells_and_leaves_the_namespace_alone() {
    let netns = Netns::new().expect("run me with `cargo xtask netns-test`");
    let report = stdout(&nfguard(&netns, &["try", "-"], TRAEFIK));
    let row = |words: &[&str]| {
        report.lines().any(|line| line.starts_with('✓') && words.iter().all(|w| line.contains(w)))
    };
    for words in [
        ["in ", "443/tcp", "203.0.113.7", "passed"],
        ["in ", "443/tcp", "2001:db8:7::7", "passed"],
        ["in ", "9/udp", "203.0.113.7", "timed out"],
        ["in ", "ping", "2001:db8:7::7", "passed"],
        ["out ", "53/udp", "2001:db8:1::2", "passed"],
        ["out ", "25/tcp", "198.51.100.2", "timed out"],
        ["in ", "22/tcp 1 to 5", "203.0.113.7", "passed"],
        ["in ", "22/tcp no. 6", "2001:db8:7::7", "refused"],
        ["container out ", "25/tcp", "172.17.0.2", "timed out"],
    ] {
        assert!(row(&words), "no row with {words:?} in\n{report}");
    }
    assert!(!report.contains('✗'), "{report}");
    assert_eq!(nft(&netns, "list ruleset\n"), "", "the namespace around it is as it was");
}

#[test]
fn a_rehearsal_in_json_tells_each_probe() {
    let netns = Netns::new().expect("run me with `cargo xtask netns-test`");
    let report = stdout(&nfguard(&netns, &["try", "-", "--json"], TRAEFIK));
    let report: serde_json::Value = serde_json::from_str(&report).expect("JSON");
    assert_eq!(report["schema"], 1);
    assert_eq!(report["agrees"], true);
    assert!(report["probes"].as_array().expect("a list").len() > 20);
}

#[test]
fn a_policy_with_a_mistake_is_not_rehearsed() {
    let netns = Netns::new().expect("run me with `cargo xtask netns-test`");
    let output = nfguard(&netns, &["try", "-"], &TRAEFIK.replace("\"ssh\"\n", "\"shs\"\n"));
    assert_eq!(output.status.code(), Some(2), "{output:?}");
    let message = String::from_utf8_lossy(&output.stderr);
    assert!(message.contains("did you mean \"ssh\"?"), "{message}");
}

/// Before the first load nothing in the namespace asked for connection tracking, so the operator's
/// own connection is unknown to it when the policy comes.
#[test]
fn an_ssh_session_from_before_the_first_load_goes_on() {
    let world = World::new().expect("run me with `cargo xtask netns-test`");
    for host in [World::HOST_V4, World::HOST_V6] {
        let address = SocketAddr::new(host, 22);
        let _server = world.host.serve_tcp(address).expect("a server");
        let probe = Probe::tcp(&world.internet, address).timeout(PATIENCE);
        let mut session = probe.connect().expect("a session");
        session.set_read_timeout(Some(PATIENCE)).expect("a timeout");
        let mut answers = BufReader::new(session.try_clone().expect("a second handle"));
        let mut line = String::new();
        answers.read_line(&mut line).expect("a greeting");

        for verb in [&["load", "-"][..], &["unload"], &["load", "-"], &["load", "-"]] {
            stdout(&nfguard(&world.host, verb, TRAEFIK));
            session.write_all(b"still here\n").expect("the session is open");
            line.clear();
            answers.read_line(&mut line).expect("an answer");
            assert_eq!(line, "still here\n", "after {verb:?}");
        }
        stdout(&nfguard(&world.host, &["unload"], ""));
    }
}
