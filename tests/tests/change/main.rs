//! The one protocol by which the policy changes, killed between any two of its steps.
//!
//! strace ends the program as it enters a system call: before each message to another process,
//! before each file that gets its name, and before and after each commit to the kernel. No hook in
//! the program is needed for it.

mod killed;
mod owners;
mod steps;

use std::fs;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

use nfguard_lab::Netns;
use nfguard_netlink::{Nft, Table};
use nfguard_tests::nft::nft;
use nfguard_tests::place::netns;
use nfguard_tests::program::{Answer, command};
use tempfile::TempDir;

/// A policy that bans scans.
const POLICY_A: &str = r#"{ "version": 1, "scan": {}, "never_ban": ["192.0.2.7"], "rules": [
    { "name": "ssh", "action": "allow", "port": 22 } ] }"#;
/// A policy that does not ban scans.
const POLICY_B: &str = r#"{ "version": 1, "rules": [
    { "name": "ssh", "action": "allow", "port": 22 },
    { "name": "web", "action": "allow", "port": 80 } ] }"#;

/// An address that the kernel bans by itself, and one that the operator bans.
const SCANNER: &str = "203.0.113.9";
const BANNED: &str = "198.51.100.77";

/// A network namespace, and a folder with two policies and the history.
struct Place {
    netns: Netns,
    folder: TempDir,
}

impl Place {
    fn new() -> Place {
        let place = Place { netns: netns(), folder: tempfile::tempdir().expect("a folder") };
        for (name, text) in [("a.json", POLICY_A), ("b.json", POLICY_B)] {
            fs::write(place.path(name), text).expect("can be written");
        }
        place
    }

    fn path(&self, name: &str) -> PathBuf {
        self.folder.path().join(name)
    }

    fn expand_folder(&self, arguments: &[&str]) -> Vec<String> {
        let place = self.folder.path().to_str().expect("UTF-8");
        arguments.iter().map(|argument| argument.replace("{}", place)).collect()
    }

    fn command(&self, arguments: &[&str]) -> Command {
        let mut command = command(&self.expand_folder(arguments));
        command.env("NFGUARD_STATE_DIR", self.path("state"));
        command
    }

    fn nfguard(&self, arguments: &[&str]) -> Answer {
        self.netns.run(|| self.command(arguments).output().expect("nfguard starts").into())
    }

    #[track_caller]
    fn succeed(&self, arguments: &[&str]) -> Answer {
        let answer = self.nfguard(arguments);
        assert_eq!(answer.status, Some(0), "{arguments:?}: {answer:?}");
        answer
    }

    /// Loads a policy and bans an address. With policy A, the kernel bans a second address.
    fn prepare(&self, policy: &str) {
        self.succeed(&["load", policy]);
        self.succeed(&["ban", "--for", "1h", BANNED]);
        if policy.contains("a.json") {
            let add = "add element inet nfguard scan/banned/v4";
            nft(&self.netns, &format!("{add} {{ {SCANNER} timeout 1h }}\n"));
        }
    }

    /// Returns the policy table of the kernel, without the elements that rules have added.
    fn table(&self) -> Option<Table> {
        let read = || Nft::open().and_then(|mut nft| nft.table(nfguard_policy::TABLE));
        let loaded = self.netns.run(read).expect("the kernel tells").loaded;
        loaded.map(|loaded| loaded.table.normalized())
    }

    #[track_caller]
    fn assert_banned(&self, addresses: &[&str], at: &str) {
        let bans = self.succeed(&["bans", "--json"]).stdout;
        for address in addresses {
            assert!(bans.contains(address), "{at}: {address} is banned no longer: {bans}");
        }
    }
}

/// Returns the table that the kernel holds after a load of this policy.
fn loaded_table(policy: &str) -> Option<Table> {
    let place = Place::new();
    place.succeed(&["load", policy]);
    place.table()
}

/// Returns the command of `strace` with these options for `nfguard` with these arguments. strace
/// follows no child process.
fn strace(place: &Place, options: &[String], arguments: &[&str]) -> Command {
    let nfguard = command(&place.expand_folder(arguments));
    let mut strace = Command::new("strace");
    strace.args(["-qq", "-s", "64"]).args(options).arg("--");
    strace.arg(nfguard.get_program()).args(nfguard.get_args());
    strace.env("NFGUARD_STATE_DIR", place.path("state")).stdin(Stdio::null());
    strace.stdout(Stdio::null()).stderr(Stdio::piped());
    strace
}

/// Returns the system calls of a trace: the name and the rest of the line.
fn read_calls(trace: &Path) -> Vec<(String, String)> {
    let text = fs::read_to_string(trace).expect("strace has written it");
    let call = |line: &str| {
        let (name, rest) = line.split_once('(')?;
        Some((name.to_owned(), rest.to_owned()))
    };
    text.lines().filter_map(call).collect()
}
