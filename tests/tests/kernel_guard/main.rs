//! `nfguard guard`: the loaded policy stays, whatever other programs do.

mod api;
mod bulk;
mod loads;
mod owners;
mod record;
mod repair;
mod scans;
mod values;

use nfguard_lab::Netns;
use nfguard_tests::guard::Guard;
use nfguard_tests::nft::{listed, try_nft};
use nfguard_tests::place::{netns, world};
use nfguard_tests::program::{policy_file, succeed};
use nfguard_tests::wait::wait_until_with;
use serde_json::Value;

/// A policy that opens 443, and sends to 443 and 53.
const POLICY_A: &str = r#"{ "version": 1, "groups": { "friends": ["192.0.2.0/24"] }, "rules": [
    { "name": "web", "action": "allow", "port": 443 },
    { "name": "friends", "action": "allow", "port": 22, "from": "friends" },
    { "name": "web-out", "action": "allow", "direction": "out", "port": 443 },
    { "name": "dns", "action": "allow", "direction": "out", "port": 53 } ] }"#;
/// A policy that opens 443 and 8080.
const POLICY_B: &str = r#"{ "version": 1, "rules": [
    { "name": "web", "action": "allow", "port": 443 },
    { "name": "new", "action": "allow", "port": 8080 },
    { "name": "web-out", "action": "allow", "direction": "out", "port": 443 } ] }"#;

/// Reports whether this kernel keeps an owned table after the end of its owner (Linux 6.9).
fn can_be_owned() -> bool {
    let version = std::fs::read_to_string("/proc/sys/kernel/osrelease").expect("a version");
    let mut numbers = version.split(['.', '-']).map(|part| part.parse::<u32>().unwrap_or(0));
    let (major, minor) = (numbers.next().unwrap_or(0), numbers.next().unwrap_or(0));
    (major, minor) >= (6, 9)
}

/// Waits until `is_so` returns true. Prints the log of the guard on failure.
#[track_caller]
fn wait_until(what: &str, guard: &Guard, is_so: impl Fn() -> bool) {
    wait_until_with(what, || guard.log(), is_so);
}

/// Returns the nft listing of the policy table, sorted and without counters, or an empty string if
/// the table is absent.
fn policy(netns: &Netns) -> String {
    let table = listed_or_empty(netns, "nfguard");
    // Owner and counters are state. Some versions of nft do not list them.
    let kept = table.lines().filter_map(|line| {
        let line = line.split(" # ").next()?;
        let is_flags = line.trim() == "flags" || line.trim_start().starts_with("flags owner");
        let is_state = is_flags || line.contains("packets ");
        (!is_state).then_some(line)
    });
    let text = kept.collect::<Vec<_>>().join("\n");
    let mut blocks: Vec<&str> = text.split("\n\n").collect();
    blocks.sort_unstable();
    blocks.join("\n\n")
}

fn listed_or_empty(netns: &Netns, table: &str) -> String {
    let there = try_nft(netns, &format!("list table inet {table}\n"));
    if there.status.success() { listed(netns, table) } else { String::new() }
}

/// Returns target and source of each ban, as `nfguard bans` prints them.
fn banned(netns: &Netns) -> Vec<String> {
    let answer = succeed(netns, &["bans", "--json"]);
    let value: Value = serde_json::from_str(&answer.stdout).expect("JSON");
    let bans = value["bans"].as_array().expect("a list").iter();
    bans.map(|ban| format!("{} {}", ban["target"], ban["source"]).replace('"', "")).collect()
}

fn json(text: &str) -> Value {
    serde_json::from_str(text).unwrap_or_else(|error| panic!("{error}: {text}"))
}
