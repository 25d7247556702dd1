//! A guarded host while UFW, iptables, the rules of Docker and `nft` change its ruleset, and
//! packets arrive.

use std::io::Write as _;
use std::net::{SocketAddr, UdpSocket};
use std::process::{Command, Stdio};
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread;
use std::time::{Duration, Instant};

use nfguard_lab::{Netns, Probe, World};
use nfguard_tests::guard::Guard;
use nfguard_tests::nft::nft;
use nfguard_tests::program::{TempFile, nfguard};
use nfguard_tests::ufw::{ufw, ufw_disabled_again};
use nfguard_tests::wait::TIMEOUT;

/// A policy that opens 443.
const POLICY: &str = r#"{ "version": 1, "rules": [
    { "name": "web", "action": "allow", "port": 443 },
    { "name": "web-out", "action": "allow", "direction": "out", "port": 443 } ] }"#;

/// The rules of dockerd, loaded at each of its starts.
const DOCKER: &str = "*nat
:DOCKER - [0:0]
-A PREROUTING -m addrtype --dst-type LOCAL -j DOCKER
-A DOCKER ! -i docker0 -p tcp -m tcp --dport 9998 -j DNAT --to-destination 172.17.0.2:80
COMMIT
*filter
:DOCKER - [0:0]
:DOCKER-USER - [0:0]
-A FORWARD -j DOCKER-USER
-A FORWARD -o docker0 -j DOCKER
-A DOCKER-USER -j RETURN
COMMIT
";

fn run(netns: &Netns, program: &str, arguments: &[&str], input: &str) {
    let output = netns.run(|| {
        let mut command = Command::new(program);
        command.args(arguments).stdin(Stdio::piped()).stdout(Stdio::null()).stderr(Stdio::piped());
        let mut child = command.spawn().unwrap_or_else(|error| panic!("{program}: {error}"));
        child.stdin.take().expect("a pipe").write_all(input.as_bytes()).expect("it reads");
        child.wait_with_output().expect("it ends")
    });
    let words = String::from_utf8_lossy(&output.stderr);
    assert!(output.status.success(), "{program} {arguments:?}: {words}");
}

/// Counts the datagrams that reach a socket, until `stop` is set.
fn receive(socket: &UdpSocket, from: [u8; 4], stop: &AtomicBool) -> (u64, u64) {
    let (mut banned, mut others) = (0, 0);
    socket.set_read_timeout(Some(Duration::from_millis(50))).expect("a timeout");
    while !stop.load(Ordering::Relaxed) {
        let mut buffer = [0; 16];
        if let Ok((_, sender)) = socket.recv_from(&mut buffer) {
            if sender.ip() == std::net::IpAddr::from(from) { banned += 1 } else { others += 1 }
        }
    }
    (banned, others)
}

#[test]
fn no_denied_packet_passes_whatever_others_do_to_the_rules() {
    let world = World::new().expect("run me with `cargo xtask netns-test`");
    let policy = TempFile::new("policy.json", POLICY);
    let guard = Guard::start(&world.host, Some(policy.path()), &[]);
    let ban = nfguard(&world.host, &["ban", "203.0.113.66", "--for", "1h"]);
    assert_eq!(ban.status, Some(0), "{ban:?}");
    let web = world.host.serve_tcp((World::HOST_V4, 443)).expect("serves");
    let closed =
        world.host.run(|| UdpSocket::bind(SocketAddr::new(World::HOST_V4, 9999)).expect("binds"));
    let open =
        world.host.run(|| UdpSocket::bind(SocketAddr::new(World::HOST_V4, 443)).expect("binds"));
    let stop = AtomicBool::new(false);
    let send = |from: [u8; 4], port: u16| {
        let socket = world.internet.run(|| UdpSocket::bind((std::net::IpAddr::from(from), 0)));
        let socket = socket.expect("binds");
        let mut sent = 0_u64;
        while !stop.load(Ordering::Relaxed) {
            for _ in 0..20 {
                sent += u64::from(socket.send_to(b"x", (World::HOST_V4, port)).is_ok());
            }
            thread::sleep(Duration::from_millis(2));
        }
        sent
    };
    let flush_all = || {
        nft(&world.host, "flush ruleset\n");
        let deadline = Instant::now() + TIMEOUT;
        while !nfguard(&world.host, &["bans"]).stdout.contains("203.0.113.66") {
            assert!(Instant::now() < deadline, "{}", guard.log());
        }
    };
    let throw = || {
        ufw(&world.host, &["default deny incoming", "allow 443/tcp", "allow 443/udp"]);
        for program in ["iptables-nft", "ip6tables-nft"] {
            run(&world.host, program, &["-P", "INPUT", "ACCEPT"], "");
            run(&world.host, program, &["-F"], "");
            run(&world.host, program, &["-X"], "");
        }
        run(&world.host, "iptables-nft-restore", &["--noflush"], DOCKER);
        run(&world.host, "iptables-nft", &["-t", "nat", "-F"], "");
        run(&world.host, "iptables-nft-restore", &[], DOCKER);
        // The ban is gone for a moment, and the test measures it. Only the guard still has the ban.
        for _ in 0..5 {
            flush_all();
        }
        ufw_disabled_again(&world.host, &["default allow incoming"]);
    };
    let (banned_got, others_got, sent) = thread::scope(|scope| {
        let senders = [([203, 0, 113, 66], 443), ([203, 0, 113, 7], 9999)]
            .map(|(from, port)| scope.spawn(move || send(from, port)));
        let to_closed = scope.spawn(|| receive(&closed, [203, 0, 113, 66], &stop));
        let to_open = scope.spawn(|| receive(&open, [203, 0, 113, 66], &stop));
        let thrown = std::panic::catch_unwind(std::panic::AssertUnwindSafe(throw));
        // The control: allowed packets still pass.
        let visit = Probe::tcp(&world.internet, web.address()).timeout(TIMEOUT);
        let visited = visit.run();
        stop.store(true, Ordering::Relaxed);
        let sent = senders.map(|sender| sender.join().expect("no panic"));
        let (_, others) = to_closed.join().expect("no panic");
        let (banned, _) = to_open.join().expect("no panic");
        if let Err(panic) = thrown {
            std::panic::resume_unwind(panic);
        }
        assert!(visited.passed(), "{visited}");
        (banned, others, sent)
    });
    let [banned_sent, others_sent] = sent;
    assert!(banned_sent > 500 && others_sent > 500, "{sent:?}");
    assert_eq!(others_got, 0, "of {others_sent} packets to a closed port\n{}", guard.log());
    let log = guard.log();
    let gaps: Vec<&str> =
        log.lines().filter_map(|line| line.split("microseconds=").nth(1)).collect();
    eprintln!(
        "{others_got} of {others_sent} got in at a closed port, {banned_got} of {banned_sent} of a \
         banned source; put right after (µs) {gaps:?}"
    );
    // Banned packets pass only between a flush and its repair. The time depends on the machine.
    assert!(banned_got < banned_sent, "{banned_got} of {banned_sent}\n{log}");
}
