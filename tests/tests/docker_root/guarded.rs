//! A guarded host whose Docker is restarted while packets arrive.

use std::net::{IpAddr, SocketAddr, UdpSocket};
use std::panic::{AssertUnwindSafe, catch_unwind, resume_unwind};
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread;
use std::time::Duration;

use nfguard_lab::{Probe, World};
use nfguard_tests::guard::Guard;
use nfguard_tests::program::TempFile;

use crate::bans;
use crate::cells::{ATTACKER, CLIENT, HOST};
use crate::docker::{Docker as _, poll};
use crate::engine::{Engine, Settings};
use crate::story;

/// A published port that the policy opens, and one that it does not open.
const OPEN: u16 = 443;
const CLOSED: u16 = 9000;

/// Sends requests until `stop` is set, and returns the numbers of requests and answers.
fn send_requests(world: &World, from: IpAddr, port: u16, stop: &AtomicBool) -> (u64, u64) {
    let socket = world.internet.run(|| UdpSocket::bind((from, 0)));
    let socket = socket.expect("binds");
    socket.set_read_timeout(Some(Duration::from_millis(2))).expect("a timeout");
    let (mut asked, mut answered) = (0, 0);
    while !stop.load(Ordering::Relaxed) {
        asked += u64::from(socket.send_to(b"x", (HOST[0], port)).is_ok());
        answered += u64::from(socket.recv(&mut [0; 64]).is_ok());
    }
    (asked, answered)
}

/// Waits for an answer, however long the server takes to start.
fn wait_until_answered(world: &World, from: IpAddr, port: u16) {
    let probe = Probe::udp(&world.internet, SocketAddr::new(HOST[0], port)).from(from);
    poll(&format!("an answer from {port} to {from}"), || probe.run().passed());
}

#[test]
fn no_packet_that_is_denied_or_banned_gets_in_while_docker_restarts_on_a_guarded_host() {
    let world = story::world();
    let engine = Engine::start(&world.host, Settings { iptables: "nft", userland_proxy: true });
    engine.set_up();
    let (attacker, client) = (ATTACKER[0], CLIENT[0]);
    // The control: without a policy, the port answers.
    for (from, port) in [(attacker, OPEN), (client, OPEN), (client, CLOSED)] {
        wait_until_answered(&world, from, port);
    }
    let policy = TempFile::new("docker.json", &story::policy("", ""));
    let guard = Guard::start(&world.host, Some(policy.path()), &[]);
    bans::ban(&world, &ATTACKER);
    let stop = AtomicBool::new(false);
    let (banned, denied) = thread::scope(|scope| {
        let banned = scope.spawn(|| send_requests(&world, attacker, OPEN, &stop));
        let denied = scope.spawn(|| send_requests(&world, client, CLOSED, &stop));
        let restarted = catch_unwind(AssertUnwindSafe(|| {
            engine.restart();
            engine.move_web();
            engine.restart();
            wait_until_answered(&world, client, OPEN);
        }));
        stop.store(true, Ordering::Relaxed);
        let all = (banned.join().expect("no panic"), denied.join().expect("no panic"));
        restarted.unwrap_or_else(|panic| resume_unwind(panic));
        all
    });
    for (asked, answered) in [banned, denied] {
        assert!(asked > 500 && answered == 0, "{answered} of {asked}\n{}", guard.log());
    }
    drop(guard);
    bans::unban(&world, &ATTACKER);
    wait_until_answered(&world, attacker, OPEN);
}
