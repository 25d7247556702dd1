//! Text that others wrote does nothing to the terminal of who reads it.

use std::io::{Read as _, Write as _};
use std::net::IpAddr;
use std::os::unix::net::UnixListener;
use std::process::{Command, Stdio};
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread;

use nfguard_lab::{Netns, packet};
use nfguard_netlink::protocol;
use nfguard_tests::nft::nft;
use nfguard_tests::place::netns;
use nfguard_tests::program::{TempFile, command, on_terminal, succeed};
use serde_json::Value;

/// Colours, a title, the end of a string, a C1 sequence, the other direction of writing, an invisible
/// letter, and lines that pretend to be the program's.
const EVIL: &str =
    "\u{1b}[31mEVIL\u{1b}]0;TITLE\u{7}\u{1b}\\\u{9b}2J\u{202e}\u{e0041}\u{8}\r\nFORGED";
/// As much of it as the name of an interface can hold.
const EVIL_LINK: &str = "a\u{1b}[31mEVIL\u{9b}b";

/// The program's own colours.
const OWN: [&str; 4] = ["\u{1b}[31m", "\u{1b}[32m", "\u{1b}[33m", "\u{1b}[0m"];

struct Host {
    netns: Netns,
    folder: tempfile::TempDir,
}

impl Host {
    fn command(&self, arguments: &[&str]) -> Command {
        let mut command = command(arguments);
        command.env("NFGUARD_STATE_DIR", self.folder.path().join("state")).env("SUDO_USER", EVIL);
        command
    }

    /// Runs the program on a terminal, as text and as JSON, and checks that it shows the text of others and
    /// that a terminal has nothing to obey.
    #[track_caller]
    fn shows(&self, arguments: &[&str], input: Option<&str>) {
        let json = [arguments, &["--json"]].concat();
        for arguments in [arguments, &json] {
            let mut command = self.command(arguments);
            let file = input.map(|input| TempFile::new("input", input));
            if let Some(file) = &file {
                command.stdin(std::fs::File::open(file.path()).expect("it is there"));
            }
            let (_, written) = on_terminal(&self.netns, command, true);
            assert_harmless(&written, arguments);
            assert!(written.contains("EVIL"), "{arguments:?} shows it: {written:?}");
        }
        // A program reads it too.
        let mut command = self.command(&json);
        if let Some(input) = input {
            command.stdin(
                std::fs::File::open(TempFile::new("input", input).path()).expect("is there"),
            );
        }
        let output = self.netns.run(|| command.stderr(Stdio::null()).output().expect("starts"));
        let text = String::from_utf8(output.stdout).expect("UTF-8");
        let value: Value =
            serde_json::from_str(&text).unwrap_or_else(|error| panic!("{error}: {text}"));
        assert!(value.to_string().contains("EVIL"), "{arguments:?}: {text}");
    }
}

#[track_caller]
fn assert_harmless(written: &str, arguments: &[&str]) {
    assert!(!written.contains("\u{1b}[31mEVIL"), "a colour of others, {arguments:?}: {written:?}");
    // A terminal gets both at the end of a line.
    let mut rest = written.replace("\r\n", "\n");
    for own in OWN {
        rest = rest.replace(own, "");
    }
    let obeyed = |char: char| {
        char.is_control() && !matches!(char, '\n' | '\t')
            || matches!(char, '\u{200b}' | '\u{200e}'..='\u{202e}' | '\u{e0000}'..='\u{e007f}')
    };
    assert_eq!(rest.find(obeyed), None, "{arguments:?}: {rest:?}");
    let forged = rest.lines().any(|line| line.starts_with("FORGED"));
    assert!(!forged, "a line of others, {arguments:?}: {written:?}");
}

#[test]
fn what_others_wrote_is_shown_and_obeyed_by_no_terminal() {
    let host = Host { netns: netns(), folder: tempfile::tempdir().expect("a folder") };
    let netns = &host.netns;
    let inside = |name: &str| host.folder.path().join(name).to_str().expect("UTF-8").to_owned();

    // Names of files, users, and what a file has.
    let policy = inside(&format!("policy{EVIL}"));
    std::fs::write(&policy, r#"{ "version": 1, "rules": [{ "action": "allow", "port": 22 }] }"#)
        .expect("is written");
    let loaded = host.netns.run(|| host.command(&["load", &policy]).output().expect("starts"));
    assert!(loaded.status.success(), "{loaded:?}");
    for arguments in [&["history"][..], &["load", &policy, "--dry-run"]] {
        host.shows(arguments, None);
    }
    let absent = inside(&format!("absent{EVIL}"));
    for verb in ["check", "load", "show", "restore"] {
        host.shows(&[verb, &absent], None);
    }
    let wrong = inside("wrong");
    std::fs::write(&wrong, r#"{ "version": 1, "rules": [], "\u001b[31mEVIL\u009b\u202e": 1 }"#)
        .expect("is written");
    host.shows(&["check", &wrong], None);

    // Bans and never-ban entries of other programs, and the names of interfaces.
    succeed(netns, &["ban", "192.0.2.8", "--for", "1h"]);
    let listing = nft(netns, "list table inet nfguard_bans\n");
    let set = |start: &str| {
        let found = listing.lines().filter_map(|line| line.trim().strip_prefix("set "));
        let mut found = found.filter_map(|line| line.strip_suffix(" {"));
        found.find(|name| name.starts_with(start)).expect("a set").to_owned()
    };
    let holder =
        listing.split("\tset ").find(|part| part.contains("192.0.2.8")).expect("the ban's set");
    let holder = holder.split(' ').next().expect("a name");
    // A comment of nft holds 127 bytes and no newline of its own words.
    nft(
        netns,
        &format!(
            "add element inet nfguard_bans {holder} {{ 192.0.2.9 timeout 1h comment \"{EVIL}\" }}\n"
        ),
    );
    host.shows(&["bans"], None);
    nft(
        netns,
        &format!(
            "add element inet nfguard_bans {} {{ 192.0.2.77 comment \"{EVIL}\" }}\n",
            set("never")
        ),
    );
    host.shows(&["never"], None);
    host.shows(&["ban", "192.0.2.77"], None);
    let link = |arguments: &[&str]| {
        let output = netns.run(|| Command::new("ip").args(arguments).output().expect("ip runs"));
        assert!(output.status.success(), "{output:?}");
    };
    link(&["link", "add", EVIL_LINK, "type", "bridge"]);
    link(&["address", "add", "10.66.0.1/24", "dev", EVIL_LINK]);
    host.shows(&["ban", "10.66.0.1"], None);

    // Lists.
    host.shows(&["ban", "-"], Some(&format!("192.0.2.1\n{EVIL}\n")));
    host.shows(&["feed", "add", "hostile", "-"], Some(&format!("{EVIL}\n")));
    host.shows(&["ban", EVIL], None);

    // The table that another program has changed, and other tables.
    nft(netns, &format!("insert rule inet nfguard input tcp dport 23 accept comment \"{EVIL}\"\n"));
    for arguments in
        [&["status"][..], &["show"], &["load", &policy, "--dry-run"], &["diff", &policy]]
    {
        host.shows(arguments, None);
    }

    // The names that Docker's socket says.
    let socket = inside("docker.sock");
    let listener = UnixListener::bind(&socket).expect("a socket");
    thread::spawn(move || answer_as_docker(&listener));
    host.shows(&["status", "--docker-socket", &socket], None);

    a_log_is_harmless(&host);
    let (_, usage) = on_terminal(netns, host.command(&["explain", EVIL_LINK, EVIL_LINK]), true);
    assert_harmless(&usage, &["explain"]);
    assert!(usage.contains("EVIL"), "{usage:?}");
}

/// Answers each client as Docker does, with a container of an evil name.
fn answer_as_docker(listener: &UnixListener) {
    let name = serde_json::json!([{
        "Names": [format!("/{EVIL}")],
        "Ports": [{ "IP": "0.0.0.0", "PrivatePort": 80, "PublicPort": 8080, "Type": "tcp" }],
        "NetworkSettings": { "Networks": { "bridge": { "IPAddress": "172.17.0.2" } } },
    }]);
    for stream in listener.incoming() {
        let Ok(mut stream) = stream else { return };
        let mut request = [0; 512];
        let _ = stream.read(&mut request);
        let _ = write!(stream, "HTTP/1.0 200 OK\r\n\r\n{name}");
    }
}

/// The prefix of another program's rule, and the name of an interface.
fn a_log_is_harmless(host: &Host) {
    let netns = &host.netns;
    netns.up("lo").expect("is up");
    nft(
        netns,
        &format!(
            "table inet other {{ chain c {{ type filter hook output priority 0;
                udp dport 7777 log prefix \"EVIL{EVIL}\" group 9
            }}
            }}\n"
        ),
    );
    for format in [
        &["log", "--group", "9", "--count", "1"][..],
        &["log", "--group", "9", "--count", "1", "--json"],
    ] {
        let ended = AtomicBool::new(false);
        let written = thread::scope(|scope| {
            scope.spawn(|| {
                let (from, to) = (IpAddr::from([127, 0, 0, 1]), IpAddr::from([127, 0, 0, 1]));
                while !ended.load(Ordering::SeqCst) {
                    let datagram = packet::udp(from, to, 4000, 7777, b"x");
                    let _ =
                        netns.send_raw(None, &packet::ip(from, to, protocol::UDP, 64, &datagram));
                    thread::sleep(std::time::Duration::from_millis(50));
                }
            });
            let (_, written) = on_terminal(netns, host.command(format), true);
            ended.store(true, Ordering::SeqCst);
            written
        });
        assert_harmless(&written, format);
        assert!(written.contains("EVIL"), "{written:?}");
    }
}
