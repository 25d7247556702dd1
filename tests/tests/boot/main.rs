//! `boot`: policy and bans are in force before the first packet, even with damaged files.

mod operator_files;

use std::fs;
use std::net::{IpAddr, Ipv4Addr, SocketAddr, UdpSocket};
use std::path::PathBuf;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread;
use std::time::{Duration, Instant};

use nfguard_lab::{Netns, Probe, World, packet, veth};
use nfguard_netlink::protocol;
use nfguard_tests::nft::nft;
use nfguard_tests::place::netns;
use nfguard_tests::policies::{BROKEN, GOOD, OTHER};
use nfguard_tests::program::{Answer, nfguard};
use nfguard_tests::wait::TIMEOUT;
use serde_json::Value;

const ATTACKER: &str = "203.0.113.66";
const CLIENT: &str = "203.0.113.67";

/// The files of a machine, which outlast its network namespaces.
struct Disk(tempfile::TempDir);

impl Disk {
    fn new() -> Disk {
        let disk = Disk(tempfile::tempdir().expect("a folder"));
        fs::create_dir(disk.0.path().join("state")).expect("a folder");
        disk
    }

    fn path(&self, name: &str) -> String {
        self.0.path().join(name).to_str().expect("plain letters").to_owned()
    }

    fn policy(&self, text: &str) {
        fs::write(self.path("policy.json"), text).expect("written");
    }

    fn run(&self, netns: &Netns, arguments: &[&str]) -> Answer {
        let state = self.path("state");
        nfguard(netns, &[&["--state-dir", &state], arguments].concat())
    }

    #[track_caller]
    fn succeed(&self, netns: &Netns, arguments: &[&str]) {
        let answer = self.run(netns, arguments);
        assert_eq!(answer.status, Some(0), "{arguments:?}: {answer:?}");
    }

    fn load(&self, netns: &Netns, more: &[&str]) {
        let policy = self.path("policy.json");
        self.succeed(netns, &[&["load", &policy], more].concat());
    }

    fn boot(&self, netns: &Netns) -> Answer {
        self.run(netns, &["boot", &self.path("policy.json")])
    }

    /// Bans an address, saves the bans, and shuts the machine down.
    fn ban_and_save(&self, who: &str) {
        let before = netns();
        self.succeed(&before, &["ban", who, "--for", "1h"]);
        self.succeed(&before, &["save", &self.path("state/bans")]);
    }
}

fn ruleset(netns: &Netns) -> String {
    nft(netns, "list ruleset\n")
}

fn bans(netns: &Netns) -> Vec<String> {
    let answer = nfguard(netns, &["bans", "--json"]);
    let list: Value = serde_json::from_str(&answer.stdout).expect("JSON");
    let bans = list["bans"].as_array().expect("a list");
    bans.iter().map(|ban| ban["target"].as_str().expect("a target").to_owned()).collect()
}

fn any(port: u16) -> SocketAddr {
    SocketAddr::new(Ipv4Addr::UNSPECIFIED.into(), port)
}

/// A listening socket, which records the senders of its packets.
struct Listener(UdpSocket);

impl Listener {
    fn new(netns: &Netns, port: u16) -> Listener {
        let socket = netns.run(|| UdpSocket::bind(any(port))).expect("a port");
        socket.set_nonblocking(true).expect("a socket");
        Listener(socket)
    }

    /// Returns the senders of the packets since the last call.
    fn senders(&self) -> Vec<IpAddr> {
        let mut buffer = [0; 16];
        std::iter::from_fn(|| self.0.recv_from(&mut buffer).ok())
            .map(|(_, sender)| sender.ip())
            .collect()
    }

    /// Waits for packets of the client, and asserts that no other sender passes.
    #[track_caller]
    fn assert_hears_only_the_client(&self) {
        let client: IpAddr = CLIENT.parse().expect("an address");
        let (deadline, mut heard) = (Instant::now() + TIMEOUT, 0);
        while heard < 20 {
            assert!(Instant::now() < deadline, "nothing comes from {client}");
            let senders = self.senders();
            assert!(senders.iter().all(|sender| *sender == client), "{senders:?}");
            heard += senders.len();
            thread::sleep(Duration::from_millis(20));
        }
    }

    #[track_caller]
    fn wait_for_the_attacker(&self) {
        let deadline = Instant::now() + TIMEOUT;
        while !self.senders().iter().any(|sender| sender.to_string() == ATTACKER) {
            assert!(Instant::now() < deadline, "nothing comes from {ATTACKER}");
            thread::sleep(Duration::from_millis(20));
        }
    }
}

/// Sends from attacker and client to these ports of the host, until `stop` is set.
fn send_constantly(internet: &Netns, stop: &AtomicBool, ports: &[u16]) {
    let bind = |from: &str| {
        let from = SocketAddr::new(from.parse().expect("an address"), 0);
        internet.run(|| UdpSocket::bind(from)).expect("an address of the internet's")
    };
    let senders = [ATTACKER, CLIENT].map(bind);
    while !stop.load(Ordering::Relaxed) {
        for (sender, port) in senders.iter().flat_map(|from| ports.iter().map(move |to| (from, to)))
        {
            // The host may have no route yet.
            let _ = sender.send_to(b"hello", (World::HOST_V4, *port));
        }
        thread::sleep(Duration::from_millis(1));
    }
}

/// Stops the senders, also when the test panics.
struct Stop<'a>(&'a AtomicBool);

impl Drop for Stop<'_> {
    fn drop(&mut self) {
        self.0.store(true, Ordering::Relaxed);
    }
}

#[test]
fn policy_and_bans_hold_from_the_first_packet_of_a_boot() {
    let disk = Disk::new();
    disk.policy(GOOD);
    disk.ban_and_save(ATTACKER);
    let (host, internet) = (netns(), netns());
    for network in [[192, 0, 2, 0], [203, 0, 113, 0]] {
        internet.own_prefix(network.into(), 24).expect("an address");
    }
    let [denied, allowed, inner] = [9, 443, 8080].map(|port| Listener::new(&host, port));
    let stop = AtomicBool::new(false);
    thread::scope(|scope| {
        let _stop = Stop(&stop);
        scope.spawn(|| send_constantly(&internet, &stop, &[9, 443, 8080]));

        // The host has no interface but loopback, and no route.
        let answer = disk.boot(&host);
        assert_eq!((answer.status, answer.stderr.as_str()), (Some(0), ""), "{answer:?}");
        assert_eq!(bans(&host), [ATTACKER]);

        veth(&host, "eth0", &internet, "eth0").expect("a link");
        internet.address("eth0", World::INTERNET_V4, 24).expect("an address");
        host.address("eth0", World::HOST_V4, 24).expect("an address");
        host.route(Ipv4Addr::UNSPECIFIED.into(), 0, World::INTERNET_V4).expect("a route");
        allowed.assert_hears_only_the_client();

        // Docker starts: a bridge, a container, and a published port.
        let container = netns();
        host.bridge("docker0").expect("a bridge");
        host.address("docker0", [172, 17, 0, 1].into(), 16).expect("an address");
        veth(&host, "veth0", &container, "eth0").expect("a link");
        host.enslave("veth0", "docker0").expect("a port of the bridge");
        host.sysctl("ipv4/ip_forward", "1").expect("a router");
        container.address("eth0", World::CONTAINER_V4, 16).expect("an address");
        container.route(Ipv4Addr::UNSPECIFIED.into(), 0, [172, 17, 0, 1].into()).expect("a route");
        let published = Listener::new(&container, 80);
        nft(
            &host,
            "table ip docker { chain published { type nat hook prerouting priority -100;
                fib daddr type local udp dport 8080 dnat to 172.17.0.2:80; }; }\n",
        );
        allowed.assert_hears_only_the_client();
        for (name, listener) in [("denied", &denied), ("published", &published), ("inner", &inner)]
        {
            assert_eq!(listener.senders(), [] as [IpAddr; 0], "{name} hears a packet");
        }

        // The control: without rules, all packets pass.
        disk.succeed(&host, &["unload", "--all"]);
        for listener in [&denied, &allowed] {
            listener.wait_for_the_attacker();
        }
        // A known flow keeps its destination.
        let fresh = || {
            let from = SocketAddr::new(ATTACKER.parse().expect("an address"), 0);
            let socket = internet.run(|| UdpSocket::bind(from)).expect("an address");
            let _ = socket.send_to(b"hello", (World::HOST_V4, 8080));
            thread::sleep(Duration::from_millis(50));
            !published.senders().is_empty()
        };
        let deadline = Instant::now() + TIMEOUT;
        while !fresh() {
            assert!(Instant::now() < deadline, "the container's port is not published");
        }
    });
}

#[test]
fn a_broken_file_leaves_the_last_good_policy_in_force_and_the_boot_reports_it() {
    let disk = Disk::new();
    disk.policy(GOOD);
    disk.load(&netns(), &[]);
    disk.policy(BROKEN);
    disk.ban_and_save(ATTACKER);
    let missing = || fs::remove_file(disk.path("policy.json")).expect("it was there");
    let breaks: [(&str, &dyn Fn()); 2] = [("alow", &|| ()), ("No such file", &missing)];
    for (complaint, make) in breaks {
        make();
        let host = netns();
        let answer = disk.boot(&host);
        assert_eq!(answer.status, Some(1), "{answer:?}");
        assert!(answer.stderr.contains(complaint), "{answer:?}");
        assert!(answer.stderr.contains("load 1 of the history is in force"), "{answer:?}");
        assert!(ruleset(&host).contains("\"web\""), "{}", ruleset(&host));
        assert_eq!(bans(&host), [ATTACKER]);
    }
    disk.policy(OTHER);
    let host = netns();
    let answer = disk.boot(&host);
    assert_eq!((answer.status, answer.stderr.as_str()), (Some(0), ""), "{answer:?}");
    assert!(ruleset(&host).contains("\"other\""));
}

#[test]
fn a_policy_that_only_a_boot_has_loaded_is_a_fallback() {
    let disk = Disk::new();
    disk.policy(GOOD);
    for _ in 0..3 {
        assert_eq!(disk.boot(&netns()).status, Some(0));
    }
    let history = disk.run(&netns(), &["history"]);
    assert_eq!(history.stdout.lines().count(), 1, "{history:?}");
    disk.policy(BROKEN);
    let host = netns();
    assert_eq!(disk.boot(&host).status, Some(1));
    assert!(ruleset(&host).contains("\"web\""));
}

#[test]
fn an_unconfirmed_policy_does_not_come_back_at_the_next_boot() {
    let disk = Disk::new();
    disk.policy(GOOD);
    let before = netns();
    disk.load(&before, &[]);
    disk.policy(OTHER);
    disk.load(&before, &["--confirm", "10m"]);
    assert!(ruleset(&before).contains("\"other\""));

    // The machine was switched off while the load waited.
    let host = netns();
    let answer = disk.boot(&host);
    assert_eq!(answer.status, Some(1), "{answer:?}");
    assert!(answer.stderr.contains("never confirmed"), "{answer:?}");
    assert!(ruleset(&host).contains("\"web\"") && !ruleset(&host).contains("\"other\""));

    // The operator accepts the risk.
    disk.load(&host, &[]);
    let next = netns();
    assert_eq!(disk.boot(&next).status, Some(0));
    assert!(ruleset(&next).contains("\"other\""));
    // After a switch-off, no load waits.
    assert_eq!(disk.run(&before, &["confirm"]).status, Some(0));
}

#[test]
fn a_boot_does_not_touch_a_load_that_waits_for_confirmation() {
    let disk = Disk::new();
    disk.policy(GOOD);
    let host = netns();
    disk.load(&host, &["--confirm", "10m"]);
    disk.policy(OTHER);
    let answer = disk.boot(&host);
    assert_eq!(answer.status, Some(3), "{answer:?}");
    assert!(ruleset(&host).contains("\"web\""));
    disk.succeed(&host, &["confirm"]);
    assert_eq!(disk.boot(&host).status, Some(0));
    assert!(ruleset(&host).contains("\"other\""));
}

#[test]
fn a_boot_without_any_policy_allows_only_ssh() {
    let disk = Disk::new();
    let world = World::new().expect("run me with `cargo xtask netns-test`");
    let answer = disk.boot(&world.host);
    assert_eq!(answer.status, Some(1), "{answer:?}");
    assert!(answer.stderr.contains("rescue policy is in force"), "{answer:?}");
    for host in [World::HOST_V4, World::HOST_V6] {
        let serve = |port| world.host.serve_tcp(SocketAddr::new(host, port)).expect("a server");
        let _servers = [22, 443].map(serve);
        let probe = |port| Probe::tcp(&world.internet, SocketAddr::new(host, port));
        let ssh = probe(22).timeout(TIMEOUT).run();
        assert!(ssh.passed(), "{ssh}");
        assert!(!probe(443).run().passed(), "443 at {host} is open");
        disk.succeed(&world.host, &["unload"]);
        assert!(probe(443).timeout(TIMEOUT).run().passed());
        assert_eq!(disk.boot(&world.host).status, Some(1));
    }
}

#[test]
fn the_loaded_policy_stays_when_a_boot_finds_no_valid_one() {
    let disk = Disk::new();
    disk.policy(GOOD);
    let host = netns();
    disk.load(&host, &[]);
    fs::remove_dir_all(disk.path("state")).expect("it was there");
    disk.policy(BROKEN);
    let answer = disk.boot(&host);
    assert_eq!(answer.status, Some(1), "{answer:?}");
    assert!(answer.stderr.contains("stays in force"), "{answer:?}");
    assert!(ruleset(&host).contains("\"web\""));
}

#[test]
fn unreadable_saved_bans_are_set_aside_and_the_policy_holds() {
    let disk = Disk::new();
    disk.policy(GOOD);
    disk.ban_and_save(ATTACKER);
    let saved = disk.path("state/bans");
    let whole = fs::read_to_string(&saved).expect("saved");
    let newer = whole.replacen("\"nfguard_bans\":1", "\"nfguard_bans\":2", 1);
    for (number, text) in [&whole[..whole.len() / 2], &newer].into_iter().enumerate() {
        fs::write(&saved, text).expect("written");
        let host = netns();
        let answer = disk.boot(&host);
        assert_eq!(answer.status, Some(1), "{answer:?}");
        assert!(ruleset(&host).contains("\"web\""));
        disk.succeed(&host, &["save", &saved]);
        let aside = PathBuf::from(format!("{saved}.damaged-{}", number + 1));
        assert_eq!(fs::read_to_string(&aside).expect("kept"), *text);
    }
}

/// Does what `systemctl restart` does after the policy gets larger sets.
#[test]
fn a_ban_for_a_scan_survives_the_boot_of_another_policy() {
    let world = World::new().expect("run me with `cargo xtask netns-test`");
    let disk = Disk::new();
    let policy = |sources: u32| {
        let scan = format!(r#"{{ "version": 1, "scan": {{ "sources": {sources} }},"#);
        disk.policy(&GOOD.replacen(r#"{ "version": 1,"#, &scan, 1));
    };
    policy(1000);
    disk.load(&world.host, &[]);
    let (from, to) = (ATTACKER.parse().expect("an address"), World::HOST_V4);
    let null = packet::tcp(from, to, 40_000, 9, 0);
    let bytes = packet::ip(from, to, protocol::TCP, 64, &null);
    world.internet.send_raw(None, &bytes).expect("it is sent");
    let is_banned = || disk.run(&world.host, &["bans"]).stdout.contains(ATTACKER);
    let deadline = Instant::now() + TIMEOUT;
    while !is_banned() {
        assert!(Instant::now() < deadline, "no address is banned");
    }
    policy(2000);
    assert_eq!(disk.boot(&world.host).status, Some(0));
    assert!(is_banned());
}
