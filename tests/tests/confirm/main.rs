//! `load --confirm`: the rules from before come back unless the load is confirmed in time.

mod back;
mod killed;
mod past;
mod reach;

use nfguard_lab::Netns;
use nfguard_tests::nft::nft;
use nfguard_tests::place::{netns, world};
use nfguard_tests::program::{Answer, TempFile, command, nfguard, policy_file, succeed};
use nfguard_tests::wait::until;

/// Opens 22 and 80.
const A: &str = r#"{ "version": 1, "never_ban": ["192.0.2.7"], "rules": [
    { "name": "ssh", "action": "limit", "port": 22 },
    { "name": "old", "action": "allow", "port": 80 },
    { "action": "allow", "direction": "out", "port": 53 } ] }"#;
/// Opens 22 and 8080.
const B: &str = r#"{ "version": 1, "never_ban": ["192.0.2.8"], "rules": [
    { "name": "ssh", "action": "limit", "port": 22 },
    { "name": "new", "action": "allow", "port": 8080 },
    { "action": "allow", "direction": "out", "port": 53 } ] }"#;
/// Opens 22 and 9090.
const C: &str = r#"{ "version": 1, "rules": [
    { "name": "ssh", "action": "limit", "port": 22 },
    { "name": "third", "action": "allow", "port": 9090 },
    { "action": "allow", "direction": "out", "port": 53 } ] }"#;

/// Longer than any test. No test waits for it.
const LONG: &str = "10m";

/// Our table as nft lists it, without what was counted; nothing if it is not there.
fn listed(netns: &Netns) -> String {
    let all = netns.run(|| {
        let output = std::process::Command::new("nft").args(["-s", "list", "ruleset"]).output();
        String::from_utf8_lossy(&output.expect("nft is installed").stdout).into_owned()
    });
    let start = all.find("table inet nfguard {");
    let table = start.and_then(|start| all.get(start..)).unwrap_or_default();
    let end = table.find("\n}\n").map_or(table.len(), |end| end + 3);
    let table = table.get(..end).unwrap_or_default();
    // The order of what has no order is that in which it was made; what a limit remembers is state.
    let mut blocks: Vec<&str> = table.split("\n\n").collect();
    blocks.sort_unstable();
    blocks.join("\n\n")
}

/// The shortest time to confirm. A load on a slow machine may take as long, and has gone back then.
const SHORT: &str = "1s";

/// Loads a policy that stays unconfirmed.
#[track_caller]
fn briefly(netns: &Netns, file: &TempFile, more: &[&str]) {
    let arguments = ["load", path(file), "--confirm", SHORT];
    went_well_or_back(&nfguard(netns, &[&arguments, more].concat()));
}

#[track_caller]
fn went_well_or_back(answer: &Answer) {
    let late = answer.stderr.contains("longer than there was time to confirm");
    assert_eq!(answer.status, Some(if late { 3 } else { 0 }), "{answer:?}");
}

fn path(file: &TempFile) -> &str {
    file.path().to_str().expect("plain letters")
}

/// As in a shell on this host that has come by this SSH connection.
fn over_ssh(netns: &Netns, connection: &str, arguments: &[&str]) -> Answer {
    netns.run(|| {
        let mut command = command(arguments);
        command.env("SSH_CONNECTION", connection);
        command.output().expect("nfguard starts").into()
    })
}

/// Whether a way back is ready.
fn waits(netns: &Netns) -> bool {
    let sockets = netns.run(|| std::fs::read_to_string("/proc/thread-self/net/unix"));
    sockets.expect("/proc is mounted").contains("@nfguard/watchdog")
}

/// Until the way back was taken, or is needed no more.
#[track_caller]
fn over(netns: &Netns) {
    until("the way back is taken", || !waits(netns));
}

/// What nft lists of each of these policies, loaded plainly.
fn plainly<const N: usize>(files: [&TempFile; N]) -> [String; N] {
    files.map(|file| {
        let netns = netns();
        succeed(&netns, &["load", path(file)]);
        listed(&netns)
    })
}

/// Puts a rule in by hand.
fn by_hand(netns: &Netns, script: &str) {
    nft(netns, &format!("{script}\n"));
}
