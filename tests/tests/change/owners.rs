//! Bans by several sources: no moment at which a kill leaves half of a change, and few messages.

use std::process::Command;

use nfguard_lab::Netns;
use nfguard_tests::place::netns;
use nfguard_tests::program::{command, nfguard, nfguard_fed, succeed};
use serde_json::Value;

/// Returns the command that runs `nfguard` under `strace` with these options.
fn traced(options: &[&str], arguments: &[&str]) -> Command {
    let nfguard = command(arguments);
    let mut strace = Command::new("strace");
    strace.args(["-qq", "-e", "trace=sendto,sendmsg"]).args(options).arg("--");
    strace.arg(nfguard.get_program()).args(nfguard.get_args()).env("NFGUARD_STATE_DIR", "");
    strace
}

/// Kills `nfguard` at the message to the kernel of this number. Returns whether it ended before.
fn ended_before(netns: &Netns, message: u32, arguments: &[&str]) -> bool {
    let inject = format!("inject=sendto,sendmsg:signal=SIGKILL:when={message}");
    let mut strace = traced(&["-o", "/dev/null", "-e", &inject], arguments);
    let output = netns.run(|| strace.output().expect("strace is installed"));
    output.status.success()
}

#[test]
fn a_ban_or_an_end_that_is_killed_at_any_message_leaves_the_owners_from_before_or_after() {
    let netns = netns();
    let target = "203.0.113.7";
    succeed(&netns, &["ban", target, "--for", "1h", "--source", "short"]);
    succeed(&netns, &["ban", target, "--for", "7d", "--source", "long"]);
    let owners = || {
        let bans = succeed(&netns, &["bans", "--json"]).stdout;
        let bans: Value = serde_json::from_str(&bans).expect("JSON");
        let bans = bans["bans"].as_array().expect("a list").iter();
        let mut owners: Vec<_> =
            bans.map(|ban| ban["source"].as_str().expect("text").to_owned()).collect();
        owners.sort();
        owners.join(" ")
    };
    for (arguments, before, after) in [
        (&["ban", target, "--for", "30d", "--source", "new"][..], "long short", "long new short"),
        (&["unban", target, "--source", "new"], "long new short", "long short"),
        (&["unban", target, "--source", "long"], "long short", "short"),
        (&["ban", target, "--for", "7d", "--source", "long"], "short", "long short"),
        (&["unban", target], "long short", ""),
    ] {
        assert_eq!(owners(), before);
        let (mut is_done, mut kills) = (false, 0);
        for message in 1..200 {
            is_done = ended_before(&netns, message, arguments);
            let found = owners();
            assert!(found == before || found == after, "{arguments:?}, message {message}: {found}");
            if is_done || found == after {
                break;
            }
            kills += 1;
        }
        assert!(kills > 3, "{arguments:?}: killed {kills} times");
        if !is_done {
            // The next one does the rest.
            nfguard(&netns, arguments);
        }
        assert_eq!(owners(), after, "{arguments:?}");
    }
}

#[test]
fn the_number_of_messages_of_one_ban_does_not_grow_with_its_owners_and_its_bans() {
    let netns = netns();
    let messages = |arguments: &[&str]| {
        let mut strace = traced(&[], arguments);
        let output = netns.run(|| strace.output().expect("strace is installed"));
        assert!(output.status.success(), "{output:?}");
        String::from_utf8_lossy(&output.stderr).lines().count()
    };
    succeed(&netns, &["ban", "203.0.113.1"]);
    let few = messages(&["ban", "203.0.113.2", "--for", "1h"]);
    let list: String = (0..2000).map(|at| format!("198.18.{}.{}\n", at / 256, at % 256)).collect();
    assert_eq!(nfguard_fed(&netns, &["ban", "-"], &list).status, Some(0));
    succeed(&netns, &["ban", "203.0.113.1", "--source", "other"]);
    let many = messages(&["ban", "203.0.113.3", "--for", "1h"]);
    // The new set of owners is not read.
    assert_eq!(few, many);
}
