//! Clocks that are set, and clocks of other time namespaces.

use std::process::Command;

use nfguard_lab::Netns;
use nfguard_tests::place::netns;
use nfguard_tests::program::{self, Answer};

/// Runs `nfguard` in a session of this peer.
fn in_session(host: &Netns, peer: &str, arguments: &[&str]) -> Answer {
    let mut command = program::command(arguments);
    command.env("SSH_CONNECTION", format!("{peer} 50000 198.51.100.2 22"));
    host.run(|| command.output().expect("nfguard starts").into())
}

/// A clock that was set later, or by a program with a time namespace of its own, is one that says another
/// day than the element.
#[test]
fn no_clock_that_is_set_forgets_the_peer_of_an_ssh_session_or_keeps_it_for_ever() {
    let (host, place) = (netns(), tempfile::tempdir().expect("a folder"));
    let saved = place.path().join("saved");
    let saved = saved.to_str().expect("plain letters");
    let elements = |set: &str| {
        let listing =
            nfguard_tests::nft::nft(&host, &format!("list set inet nfguard_bans {set}\n"));
        listing.split_once("elements").map(|(_, elements)| elements.to_owned()).unwrap_or_default()
    };
    let noted = in_session(&host, "203.0.113.9", &["ban", "192.0.2.1"]);
    assert_eq!(noted.status, Some(0), "{noted:?}");
    // By another boot clock: a container's, or of a machine that was moved.
    let shifted: Answer = host.run(|| {
        let mut command = Command::new("unshare");
        command.args(["--time", "--fork", "--boottime", "864000", "--monotonic", "864000", "--"]);
        let run = program::command(&["ban", "192.0.2.2"]);
        command.arg(run.get_program()).args(run.get_args()).env("NFGUARD_STATE_DIR", "");
        command.env("SSH_CONNECTION", "203.0.113.10 50000 198.51.100.2 22");
        command.output().expect("unshare starts").into()
    });
    assert_eq!(shifted.status, Some(0), "{shifted:?}");
    let set = "never/v4";
    let all = elements(set);
    let day_since_boot = |peer: &str| -> u64 {
        let (_, comment) = all.split_once(&format!("{peer} comment \"ssh-peer: ")).expect("noted");
        let days = comment.split('"').next().expect("an end");
        days.split_once(' ').and_then(|(_, day)| day.parse().ok()).expect("a day")
    };
    let day = day_since_boot("203.0.113.9");
    assert_eq!(day_since_boot("203.0.113.10"), day + 10, "{all}");
    // The clock was set back by a day or a year, or set forward by fifty.
    let entries = [
        ("203.0.113.20", format!("2999-01-01 {day}"), true),
        ("203.0.113.21", format!("1976-01-01 {day}"), true),
        // And one of an older version, and one that is over by both clocks.
        ("203.0.113.22", "1976-01-01".to_owned(), false),
        ("203.0.113.23", format!("1976-01-01 {}", day + 1), false),
    ];
    for (peer, days, _) in &entries {
        let element = format!("{{ {peer} comment \"ssh-peer: {days}\" }}");
        nfguard_tests::nft::nft(&host, &format!("add element inet nfguard_bans {set} {element}\n"));
    }
    program::succeed(&host, &["save", saved]);
    let after = elements(set);
    for peer in ["203.0.113.9", "203.0.113.10"] {
        assert!(after.contains(&format!("{peer} ")), "{peer}: {after}");
    }
    for (peer, days, stays) in entries {
        assert_eq!(after.contains(&format!("{peer} ")), stays, "{peer}, {days}: {after}");
        let ban = program::nfguard(&host, &["ban", peer]);
        assert_eq!(ban.status, Some(if stays { 2 } else { 0 }), "{ban:?}");
    }
}
