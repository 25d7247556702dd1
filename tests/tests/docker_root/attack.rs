//! A password attack on a reverse proxy in a container. The real Fail2Ban reads the access log from
//! a folder that the container shares with the host.

use std::net::{IpAddr, SocketAddr};
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread;

use nfguard_lab::{DEFAULT_TIMEOUT, World};
use nfguard_tests::fail2ban::Fail2Ban;
use nfguard_tests::nft::nft;
use nfguard_tests::program::nfguard;
use nfguard_tests::wait::TIMEOUT;
use serde_json::Value;

use crate::cells::{self, ATTACKER, CLIENT, HOST};
use crate::docker::poll;
use crate::engine::{Engine, Settings};
use crate::story;

/// Counts the packets of a sender: all that arrived, and all that passed every rule, also those of
/// Docker.
const WATCH: &str = "table inet watch {
    counter came-attacker {}
    counter reached-docker-attacker {}
    counter came-client {}
    counter passed-client {}
    chain came {
        type filter hook prerouting priority -500
        ip saddr 203.0.113.66 counter name came-attacker
        ip6 saddr 2001:db8:66::1 counter name came-attacker
        ip saddr 203.0.113.7 counter name came-client
        ip6 saddr 2001:db8:67::1 counter name came-client
    }
    chain reached-docker {
        type filter hook prerouting priority -299
        ip saddr 203.0.113.66 counter name reached-docker-attacker
        ip6 saddr 2001:db8:66::1 counter name reached-docker-attacker
    }
    chain passed {
        type filter hook forward priority 10
        ip saddr 203.0.113.7 counter name passed-client
        ip6 saddr 2001:db8:67::1 counter name passed-client
    }
}\n";

fn packets(world: &World, counter: &str) -> u64 {
    let listing = nft(&world.host, &format!("list counter inet watch {counter}\n"));
    let packets = listing.split_whitespace().skip_while(|word| *word != "packets").nth(1);
    packets.and_then(|number| number.parse().ok()).expect("a number")
}

fn bans(world: &World) -> Vec<Value> {
    let answer = nfguard(&world.host, &["bans", "--json"]);
    assert_eq!(answer.status, Some(0), "{answer:?}");
    let answer: Value = serde_json::from_str(&answer.stdout).expect("JSON");
    answer["bans"].as_array().expect("a list").clone()
}

#[test]
fn a_password_attacker_at_a_proxy_in_a_container_is_stopped_before_docker_and_others_pass() {
    let world = story::world();
    story::load(&world, "", "");
    let settings = Settings { iptables: "nft", userland_proxy: true };
    let engine = Engine::start(&world.host, settings);
    let shared = tempfile::tempdir().expect("a folder");
    let volume = format!("{}:/log", shared.path().display());
    let options = ["--volume", &volume, "--publish", "80:8080", "--publish", "443:8443"];
    engine.run("traefik", &options, &["--log", "/log/access.log", "8080", "8443"]);
    let log = shared.path().join("access.log");
    poll("an access log", || log.exists());
    let files = tempfile::tempdir().expect("a folder");
    let mut fail2ban = Fail2Ban::new(files.path(), &log);
    fail2ban.start(&world.host);
    nft(&world.host, WATCH);
    for (family, host) in HOST.into_iter().enumerate() {
        let attacker = ATTACKER[family];
        let over = AtomicBool::new(false);
        thread::scope(|scope| {
            let client = scope.spawn(|| browse(&world, CLIENT[family], host, &over));
            // Stops the client also when the attack fails.
            let attack = scope.spawn(|| attack(&world, attacker, host)).join();
            over.store(true, Ordering::SeqCst);
            assert!(client.join().expect("it browses") > 0);
            attack.expect("the attack is stopped");
        });
    }
    let ban = &bans(&world)[0];
    assert_eq!(ban["source"], "fail2ban/traefik-auth", "{ban}");
    // Packets in flight still arrive.
    poll("all of the client's packets to pass", || {
        packets(&world, "came-client") == packets(&world, "passed-client")
    });
}

/// Sends requests over one connection until `over` is set, and returns their number. Each gets an
/// answer.
fn browse(world: &World, from: IpAddr, host: IpAddr, over: &AtomicBool) -> u32 {
    let to = SocketAddr::new(host, 443);
    let mut stream = cells::open(&world.internet, Some(from), to, TIMEOUT).expect("it opens");
    let mut pages = 0;
    while !over.load(Ordering::SeqCst) {
        assert!(cells::ask(&mut stream, "/", TIMEOUT).is_some(), "page {pages}");
        pages += 1;
        thread::sleep(std::time::Duration::from_millis(5));
    }
    pages
}

fn attack(world: &World, from: IpAddr, host: IpAddr) {
    let to = SocketAddr::new(host, 80);
    let before = bans(world).len();
    let mut open = cells::open(&world.internet, Some(from), to, TIMEOUT).expect("it opens");
    for _ in 0..5 {
        let answer = cells::ask(&mut open, "/admin", TIMEOUT).expect("not banned yet");
        assert!(answer.contains("401"), "{answer}");
    }
    poll("a ban", || bans(world).len() > before);
    let (came, reached) =
        (packets(world, "came-attacker"), packets(world, "reached-docker-attacker"));
    assert_eq!(cells::ask(&mut open, "/admin", DEFAULT_TIMEOUT), None, "the open connection");
    for port in [80, 443] {
        let to = SocketAddr::new(host, port);
        assert!(cells::open(&world.internet, Some(from), to, DEFAULT_TIMEOUT).is_none(), "{port}");
    }
    assert!(packets(world, "came-attacker") >= came + 3);
    assert_eq!(packets(world, "reached-docker-attacker"), reached);
}
