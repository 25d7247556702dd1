//! Real scans by nmap against a policy that bans who scans.

use std::net::IpAddr;
use std::process::Command;
use std::time::Duration;

use nfguard_ban::scan;
use nfguard_lab::{Netns, Probe, Server, World, veth};
use nfguard_netlink::Kernel;
use nfguard_tests::program::{TempFile, nfguard};

const PATIENCE: Duration = Duration::from_secs(60);

/// Ports 80 and 443 are open.
const POLICY: &str = r#"{ "version": 1, SCAN "rules": [
    { "name": "web", "action": "allow", "proto": "tcp", "port": [80, 443] } ] }"#;

/// A host, and behind the internet a scanner with a network of its own: the host's gateway would
/// be spared.
struct Ground {
    world: World,
    scanner: Netns,
    _servers: Vec<Server>,
}

impl Ground {
    fn new(scan: &str) -> Ground {
        let world = World::new()
            .unwrap_or_else(|error| panic!("{error}\nrun me with `cargo xtask netns-test`"));
        let scanner = Netns::new().expect("another namespace");
        veth(&world.internet, "eth1", &scanner, "eth0").expect("a cable");
        for (gateway, own, bits, any) in
            [("198.18.0.1", "198.18.0.66", 24, "0.0.0.0"), ("fd66::1", "fd66::66", 64, "::")]
        {
            world.internet.address("eth1", address(gateway), bits).expect("an address");
            scanner.address("eth0", address(own), bits).expect("an address");
            scanner.route(address(any), 0, address(gateway)).expect("a route");
        }
        for setting in ["ipv4/ip_forward", "ipv6/conf/all/forwarding"] {
            world.internet.sysctl(setting, "1").expect("can be set");
        }
        let servers = [World::HOST_V4, World::HOST_V6]
            .map(|to| world.host.serve_tcp((to, 80)).expect("serves"));
        let file = TempFile::new("policy.json", &POLICY.replace("SCAN", scan));
        let answer = nfguard(&world.host, &["load".as_ref(), file.path()]);
        assert_eq!(answer.status, Some(0), "{answer:?}");
        Ground { world, scanner, _servers: servers.into() }
    }

    /// What nmap says of the host's first hundred ports, one after the other.
    fn nmap(&self, arguments: &[&str]) -> String {
        let is_v6 = arguments.contains(&"-6");
        let host = if is_v6 { World::HOST_V6 } else { World::HOST_V4 }.to_string();
        let usual = ["-n", "-Pn", "-r", "-T4", "-p", "1-100", "--max-retries", "1", "-oG", "-"];
        let output = self.scanner.run(|| {
            let mut nmap = Command::new("nmap");
            nmap.args(arguments).args(usual).arg(&host);
            nmap.output().expect("nmap is installed; `cargo xtask setup` does it")
        });
        let said = String::from_utf8_lossy(&output.stdout).into_owned();
        assert!(output.status.success() && said.contains(&host), "{output:?}");
        said
    }

    fn counters(&self) -> impl Fn(&str) -> u64 {
        let mut kernel = self.world.host.run(|| Kernel::open().expect("netlink is there"));
        let counters = kernel.counters(scan::TABLE).expect("reads");
        move |name| {
            let found = counters.iter().find(|(counter, _)| counter.name == name);
            found.map_or(0, |(_, counts)| counts.packets)
        }
    }

    fn bans(&self) -> String {
        nfguard(&self.world.host, &["bans"]).stdout
    }
}

fn address(text: &str) -> IpAddr {
    text.parse().expect("an address")
}

#[test]
fn nmap_is_stopped_at_the_sixth_closed_port_and_learns_nothing() {
    for scan in
        [&["-sS"][..], &["-sT"], &["-sU"], &["-6", "-sS"], &["-sS", "-g", "53"], &["-sS", "-f"]]
    {
        let ground = Ground::new(r#""scan": {},"#);
        let said = ground.nmap(scan);
        let count = ground.counters();
        assert!(!said.contains("/open/"), "{scan:?}: {said}");
        assert_eq!((count("scan/closed"), count("scan/bans")), (6, 1), "{scan:?}");
        assert!(count("scan/dropped") > 90, "{scan:?}");
        assert!(ground.bans().contains("6 closed ports in 60 s"), "{scan:?}: {}", ground.bans());
    }
}

#[test]
fn nmap_is_stopped_at_the_first_packet_with_illegal_flags() {
    for scan in ["-sX", "-sN", "-sF"] {
        let ground = Ground::new(r#""scan": {},"#);
        let said = ground.nmap(&[scan]);
        let count = ground.counters();
        assert!(!said.contains("/open/"), "{scan}: {said}");
        assert_eq!((count("builtin/invalid"), count("scan/bans")), (1, 1), "{scan}");
        assert!(count("scan/dropped") > 90, "{scan}");
    }
}

#[test]
fn an_honest_client_beside_a_scan_is_served_and_without_the_policy_nmap_finds_the_port() {
    let ground = Ground::new(r#""scan": {},"#);
    let client = |from: &str| {
        let probe = Probe::tcp(&ground.world.internet, (World::HOST_V4, 80)).from(address(from));
        probe.timeout(PATIENCE).run().passed()
    };
    assert!(client("192.0.2.7"));
    ground.nmap(&["-sS"]);
    for _ in 0..500 {
        assert!(client("192.0.2.7"));
    }
    assert_eq!(ground.counters()("scan/bans"), 1);

    let control = Ground::new("");
    let said = control.nmap(&["-sS"]);
    assert!(said.contains("80/open/tcp"), "{said}");
}
