//! `load`, `status`, `diff` and `show`, while packets flow, other programs write, and errors occur.

mod atomic;
mod errors;
mod limit;
mod other_tables;
mod status;

use nfguard_lab::Netns;
use nfguard_netlink::{Nft, Table};
use nfguard_policy::{Policy, TABLE};
use nfguard_tests::nft::nft;
use nfguard_tests::place::{netns, world};
use nfguard_tests::program::{Answer, TempFile, nfguard, policy_file};

/// A policy that opens 80 and 443.
const POLICY_A: &str = r#"{ "version": 1, "groups": { "friends": ["192.0.2.0/24", "2001:db8:7::/48"] }, "rules": [
    { "name": "both", "action": "allow", "port": 443 },
    { "name": "old", "action": "allow", "port": [80, 81], "from": "friends" },
    { "name": "both-out", "action": "allow", "direction": "out", "port": 443 },
    { "name": "dns-out", "action": "allow", "direction": "out", "port": 53 },
    { "name": "ssh", "action": "allow", "port": 22 } ] }"#;
/// A policy that opens 443 and 8080.
const POLICY_B: &str = r#"{ "version": 1, "rules": [
    { "name": "new", "action": "allow", "port": 8080 },
    { "name": "both", "action": "allow", "port": 443 },
    { "name": "new-out", "action": "allow", "direction": "out", "port": "8080-8090" },
    { "name": "both-out", "action": "allow", "direction": "out", "port": 443 },
    { "name": "dns-out", "action": "allow", "direction": "out", "port": 53 },
    { "name": "ssh", "action": "allow", "port": 22 } ] }"#;

fn kernel(netns: &Netns) -> Nft {
    netns.run(|| Nft::open().expect("netlink is there"))
}

fn compiled(text: &str) -> Table {
    let (policy, _) = Policy::parse(text).expect("a valid policy");
    policy.compile().normalized()
}

/// Returns the policy table of the kernel, without the chain that has the digest.
fn held(netns: &Netns) -> Option<Table> {
    let loaded = kernel(netns).table(TABLE).expect("the table can be read").loaded;
    loaded.map(|loaded| {
        let mut table = loaded.table.normalized();
        table.chains.retain(|chain| chain.name != "loaded");
        table
    })
}

fn ruleset(netns: &Netns) -> String {
    nft(netns, "list ruleset\n")
}

/// Loads a policy with the program, which must print no warning.
fn load(netns: &Netns, file: &TempFile) -> Answer {
    let answer = nfguard(netns, &["load".as_ref(), file.path()]);
    assert_eq!(answer.status, Some(0), "{answer:?}");
    answer
}

/// Reports whether real root runs the test, and not the root of a user namespace.
fn is_real_root() -> bool {
    let map = std::fs::read_to_string("/proc/self/uid_map").expect("/proc is mounted");
    map.split_whitespace().last() == Some("4294967295")
}
