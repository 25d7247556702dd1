//! The examples of the ban library, run as they stand and checked with packets.

use std::io::{BufRead as _, BufReader, Write as _};
use std::net::{IpAddr, SocketAddr};
use std::process::Stdio;

use nfguard_lab::{Probe, Server, World};
use nfguard_tests::program::{example, feed};
use nfguard_tests::wait::TIMEOUT;

/// A host with a web server, and the internet.
struct Stage {
    world: World,
    _servers: [Server; 2],
}

impl Stage {
    fn new() -> Stage {
        let world = World::new().expect("run me with `cargo xtask netns-test`");
        let serve = |host| world.host.serve_tcp(SocketAddr::new(host, 443)).expect("a server");
        let _servers = [World::HOST_V4, World::HOST_V6].map(serve);
        Stage { world, _servers }
    }

    fn probe(&self, from: &str) -> Probe<'_> {
        let from: IpAddr = from.parse().expect("an address");
        let host = if from.is_ipv4() { World::HOST_V4 } else { World::HOST_V6 };
        Probe::tcp(&self.world.internet, SocketAddr::new(host, 443)).from(from)
    }

    fn passes(&self, from: &str) {
        let outcome = self.probe(from).timeout(TIMEOUT).run();
        assert!(outcome.passed(), "{from}: {outcome}");
    }

    fn is_banned(&self, from: &str) {
        assert!(!self.probe(from).run().passed(), "{from} gets in");
    }
}

#[test]
fn ban_one_bans_until_enter_is_pressed() {
    let stage = Stage::new();
    for (target, attacker, neighbour) in [
        ("203.0.113.66", "203.0.113.66", "203.0.113.67"),
        ("2001:db8:66::/48", "2001:db8:66:7::1", "2001:db8:67::1"),
    ] {
        stage.passes(attacker);
        let mut program = example("ban_one");
        program.arg(target).stdin(Stdio::piped()).stdout(Stdio::piped());
        let mut program = stage.world.host.run(|| program.spawn().expect("it starts"));
        let mut said = BufReader::new(program.stdout.take().expect("a pipe")).lines();
        let mut line = || said.next().expect("it goes on").expect("a line");
        assert_eq!(line(), format!("{target} is banned by ban_one: to see how it is done"));
        assert_eq!(line(), format!("Press Enter to end the ban of {target}."));
        stage.is_banned(attacker);
        stage.passes(neighbour);

        program.stdin.take().expect("a pipe").write_all(b"\n").expect("it reads");
        assert!(program.wait().expect("it ends").success());
        stage.passes(attacker);
    }
}

#[test]
fn ban_one_says_why_it_does_not_ban_the_gateway() {
    let stage = Stage::new();
    let mut program = example("ban_one");
    program.arg("198.51.100.1");
    let refused = feed(&stage.world.host, program, b"");
    assert_eq!(refused.status, Some(1), "{refused:?}");
    assert!(refused.stderr.contains("this host's gateway"), "{refused:?}");
}

/// Returns a line of the access log of Traefik.
fn request(client: &str, user: &str, status: u16) -> String {
    format!(
        "{client} - {user} [24/Nov/2026:13:55:36 +0000] \"GET /private HTTP/1.1\" {status} 17 \
         \"-\" \"curl/7.88.1\" 1 \"site@file\" \"-\" 0ms\n"
    )
}

#[test]
fn access_log_bans_only_addresses_that_fail_five_times() {
    let stage = Stage::new();
    let mut log = b"not of a log\n\xff\xfe - - [] \"GET /\xff HTTP/1.1\" 401 0\n\n".to_vec();
    for number in 0..5 {
        log.extend(request("203.0.113.66", "-", 401).bytes());
        // A client tries to hide the status behind a user name.
        log.extend(request("203.0.113.69", "x\" 200 1 \"", 401).bytes());
        // Each request comes from another address of one network.
        log.extend(request(&format!("2001:db8:66:0:{number}::1"), "-", 401).bytes());
        log.extend(request("203.0.113.67", "anna", 200).bytes());
        log.extend(request("198.51.100.1", "-", 401).bytes());
        if number < 4 {
            log.extend(request("203.0.113.68", "-", 401).bytes());
            log.extend(request("2001:db8:68::1", "-", 401).bytes());
        }
    }
    // A line without its end, as in a cut file.
    log.extend(b"203.0.113.68 - - [24/Nov/2026:13:55:36 +0000] \"GE");
    let run = feed(&stage.world.host, example("access_log"), &log);
    assert_eq!(run.status, Some(0), "{run:?}");
    let mut banned: Vec<_> = run.stdout.lines().collect();
    banned.sort_unstable();
    let expected = ["banned 2001:db8:66::/64", "banned 203.0.113.66", "banned 203.0.113.69"];
    assert_eq!(banned, expected);
    for attacker in ["203.0.113.66", "203.0.113.69", "2001:db8:66:0:99::1"] {
        stage.is_banned(attacker);
    }
    for client in ["203.0.113.67", "203.0.113.68", "2001:db8:68::1", "2001:db8:66:1::1"] {
        stage.passes(client);
    }
    // The address of the gateway.
    stage.passes("198.51.100.1");
}
