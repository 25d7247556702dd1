//! `nfguard guard`: the loaded policy stays, whatever other programs do.

mod api;
mod bulk;
mod keep;
mod loads;
mod scans;

use nfguard_lab::Netns;
use nfguard_tests::guard::Guard;
use nfguard_tests::nft::{listed, try_nft};
use nfguard_tests::place::{netns, world};
use nfguard_tests::program::{policy_file, succeed};
use nfguard_tests::wait::wait_until_with;
use serde_json::Value;

/// Opens 443, and nothing else; and sends to 443 and 53.
const A: &str = r#"{ "version": 1, "groups": { "friends": ["192.0.2.0/24"] }, "rules": [
    { "name": "web", "action": "allow", "port": 443 },
    { "name": "friends", "action": "allow", "port": 22, "from": "friends" },
    { "name": "web-out", "action": "allow", "direction": "out", "port": 443 },
    { "name": "dns", "action": "allow", "direction": "out", "port": 53 } ] }"#;
/// Opens 443 and 8080.
const B: &str = r#"{ "version": 1, "rules": [
    { "name": "web", "action": "allow", "port": 443 },
    { "name": "new", "action": "allow", "port": 8080 },
    { "name": "web-out", "action": "allow", "direction": "out", "port": 443 } ] }"#;

/// Whether this kernel keeps an owned table when its owner has gone (Linux 6.9).
fn can_be_owned() -> bool {
    let version = std::fs::read_to_string("/proc/sys/kernel/osrelease").expect("a version");
    let mut numbers = version.split(['.', '-']).map(|part| part.parse::<u32>().unwrap_or(0));
    let (major, minor) = (numbers.next().unwrap_or(0), numbers.next().unwrap_or(0));
    (major, minor) >= (6, 9)
}

/// Polls until it is so.
#[track_caller]
fn wait_until(what: &str, guard: &Guard, is_so: impl Fn() -> bool) {
    wait_until_with(what, || guard.log(), is_so);
}

/// The policy's table as nft lists it, but for what it has counted and the order of what has none.
/// Nothing if it is not there.
fn policy(netns: &Netns) -> String {
    let table = listed_or_nothing(netns, "nfguard");
    // Who owns it and what was counted is state; and not each version of nft has words for it.
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

fn listed_or_nothing(netns: &Netns, table: &str) -> String {
    let there = try_nft(netns, &format!("list table inet {table}\n"));
    if there.status.success() { listed(netns, table) } else { String::new() }
}

/// Who is banned, as `nfguard bans` has it: target and source.
fn banned(netns: &Netns) -> Vec<String> {
    let answer = succeed(netns, &["bans", "--json"]);
    let value: Value = serde_json::from_str(&answer.stdout).expect("JSON");
    let bans = value["bans"].as_array().expect("a list").iter();
    bans.map(|ban| format!("{} {}", ban["target"], ban["source"]).replace('"', "")).collect()
}

fn json(text: &str) -> Value {
    serde_json::from_str(text).unwrap_or_else(|error| panic!("{error}: {text}"))
}
