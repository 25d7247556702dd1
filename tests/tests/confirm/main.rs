//! `load --confirm`: the old rules come back unless the load is confirmed in time.

mod history;
mod killed;
mod lockout;
mod rollback;
mod stopped;

use nfguard_lab::Netns;
use nfguard_tests::nft::nft;
use nfguard_tests::place::{netns, world};
use nfguard_tests::program::{Answer, TempFile, command, nfguard, policy_file, succeed};
use nfguard_tests::wait::wait_until;

/// Opens 22 and 80.
const POLICY_A: &str = r#"{ "version": 1, "never_ban": ["192.0.2.7"], "rules": [
    { "name": "ssh", "action": "limit", "port": 22 },
    { "name": "old", "action": "allow", "port": 80 },
    { "action": "allow", "direction": "out", "port": 53 } ] }"#;
/// Opens 22 and 8080.
const POLICY_B: &str = r#"{ "version": 1, "never_ban": ["192.0.2.8"], "rules": [
    { "name": "ssh", "action": "limit", "port": 22 },
    { "name": "new", "action": "allow", "port": 8080 },
    { "action": "allow", "direction": "out", "port": 53 } ] }"#;
/// Opens 22 and 9090.
const POLICY_C: &str = r#"{ "version": 1, "rules": [
    { "name": "ssh", "action": "limit", "port": 22 },
    { "name": "third", "action": "allow", "port": 9090 },
    { "action": "allow", "direction": "out", "port": 53 } ] }"#;

/// A time to confirm that is longer than any test. No test waits for its end.
const LONG_CONFIRM_TIME: &str = "10m";

/// Returns the nft listing of our table without counters, or an empty string if the table is
/// absent.
fn listed(netns: &Netns) -> String {
    let all = netns.run(|| {
        let output = std::process::Command::new("nft").args(["-s", "list", "ruleset"]).output();
        String::from_utf8_lossy(&output.expect("nft is installed").stdout).into_owned()
    });
    let start = all.find("table inet nfguard {");
    let table = start.and_then(|start| all.get(start..)).unwrap_or_default();
    let end = table.find("\n}\n").map_or(table.len(), |end| end + 3);
    let table = table.get(..end).unwrap_or_default();
    // Blocks are listed in the order of their creation. The elements of a limit are state.
    let mut blocks: Vec<&str> = table.split("\n\n").collect();
    blocks.sort_unstable();
    blocks.join("\n\n")
}

/// The shortest time to confirm. A load on a slow machine may take longer, and is then rolled back.
const SHORT_CONFIRM_TIME: &str = "1s";

/// Loads a policy that stays unconfirmed.
#[track_caller]
fn load_unconfirmed(netns: &Netns, file: &TempFile, more: &[&str]) {
    let arguments = ["load", path(file), "--confirm", SHORT_CONFIRM_TIME];
    assert_loaded_or_rolled_back(&nfguard(netns, &[&arguments, more].concat()));
}

/// Asserts that a load has succeeded, or that it was rolled back on a slow machine.
#[track_caller]
fn assert_loaded_or_rolled_back(answer: &Answer) {
    let late = answer.stderr.contains("longer than there was time to confirm");
    assert_eq!(answer.status, Some(if late { 3 } else { 0 }), "{answer:?}");
}

fn path(file: &TempFile) -> &str {
    file.path().to_str().expect("plain letters")
}

/// Runs nfguard as in a shell of this SSH connection.
fn over_ssh(netns: &Netns, connection: &str, arguments: &[&str]) -> Answer {
    netns.run(|| {
        let mut command = command(arguments);
        command.env("SSH_CONNECTION", connection);
        command.output().expect("nfguard starts").into()
    })
}

/// Reports whether a watchdog runs.
fn has_watchdog(netns: &Netns) -> bool {
    let sockets = netns.run(|| std::fs::read_to_string("/proc/thread-self/net/unix"));
    sockets.expect("/proc is mounted").contains("/private/watchdog-")
}

/// Waits until the watchdog has rolled back or has been released.
#[track_caller]
fn wait_for_watchdog_end(netns: &Netns) {
    wait_until("the watchdog has ended", || !has_watchdog(netns));
}

/// Returns the nft listing of each policy, loaded into a namespace of its own.
fn load_each<const N: usize>(files: [&TempFile; N]) -> [String; N] {
    files.map(|file| {
        let netns = netns();
        succeed(&netns, &["load", path(file)]);
        listed(&netns)
    })
}

/// Runs an nft script.
fn run_nft_script(netns: &Netns, script: &str) {
    nft(netns, &format!("{script}\n"));
}
