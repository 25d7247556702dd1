//! Bans for scans by the kernel, checked with real packets.

mod bans;
mod closed_ports;
mod exemptions;
mod flags;
mod floods;

use std::net::IpAddr;
use std::thread;
use std::time::{Duration, Instant};

use nfguard_ban::{TABLE as BANS, scan};
use nfguard_lab::{RawSender, Server, World, packet};
use nfguard_netlink::{IpVersion, LiveElement, Nft, protocol};
use nfguard_tests::nft::nft;
use nfguard_tests::processor;
use nfguard_tests::program::{Answer, nfguard};
use nfguard_tests::wait::TIMEOUT;
use tempfile::TempDir;

/// Sources on the internet.
const SOURCE: &str = "192.0.2.7";
const OTHER_SOURCE: &str = "203.0.113.9";
const SOURCE_V6: &str = "2001:db8:7::1";

/// Counts the packets of the test before all rules.
const WATCH: &str = "table inet watch {
    counter came {};
    chain a { type filter hook prerouting priority -400;
        ip ttl 77 counter name came; ip6 hoplimit 77 counter name came; }
}
";

/// The `scan` settings of most tests. Their times do not end during a test, also on a slow machine.
const USUAL: &str = r#"{ "seconds": 3600, "ban_seconds": 7200 }"#;

/// A host that bans scanners, with open ports 80 and 443, and an internet that can send any packet
/// from any of its addresses.
struct Ground {
    world: World,
    kernel: Nft,
    sender: RawSender,
    sent: u64,
    folder: TempDir,
}

impl Ground {
    fn new(scan: &str) -> Ground {
        Ground::with(scan, "")
    }

    /// Makes a host with these `scan` settings. `more` are further keys of the policy.
    fn with(scan: &str, more: &str) -> Ground {
        let world = World::with_container()
            .unwrap_or_else(|error| panic!("{error}\nrun me with `cargo xtask netns-test`"));
        processor::stay_on_one(0);
        for interface in ["all", "eth0", "docker0"] {
            let setting = format!("ipv4/conf/{interface}/rp_filter");
            world.host.sysctl(&setting, "0").expect("can be set");
        }
        nft(&world.host, WATCH);
        let kernel = world.host.run(|| Nft::open().expect("netlink is there"));
        let sender = world.internet.raw_sender().expect("raw sockets");
        let folder = tempfile::tempdir().expect("a folder");
        let ground = Ground { world, kernel, sender, sent: 0, folder };
        ground.load(scan, more);
        ground
    }

    fn load(&self, scan: &str, more: &str) -> Answer {
        let file = self.folder.path().join("policy.json");
        std::fs::write(&file, policy(scan, more)).expect("can be written");
        self.nfguard(&["load", file.to_str().expect("UTF-8")])
    }

    #[track_caller]
    fn nfguard(&self, arguments: &[&str]) -> Answer {
        let answer = nfguard(&self.world.host, arguments);
        assert_eq!(answer.status, Some(0), "{arguments:?}: {answer:?}");
        answer
    }

    /// Sends a packet to the host.
    fn send(&mut self, from: &str, protocol: u8, payload: impl Fn(IpAddr, IpAddr) -> Vec<u8>) {
        let from = address(from);
        self.send_to(from, host(from), protocol, payload);
    }

    fn send_to(
        &mut self,
        from: IpAddr,
        to: IpAddr,
        protocol: u8,
        payload: impl Fn(IpAddr, IpAddr) -> Vec<u8>,
    ) {
        let bytes = packet::ip(from, to, protocol, 77, &payload(from, to));
        self.sender.send(&bytes).expect("it is sent");
        self.sent += 1;
    }

    /// Sends the first packet of a connection to this port.
    fn syn(&mut self, from: &str, port: u16) {
        self.tcp(from, port, packet::SYN);
    }

    fn tcp(&mut self, from: &str, port: u16, flags: u8) {
        self.send(from, protocol::TCP, |from, to| packet::tcp(from, to, 40_000, port, flags));
    }

    fn udp(&mut self, from: &str, from_port: u16, port: u16) {
        self.send(from, protocol::UDP, |from, to| packet::udp(from, to, from_port, port, b"x"));
    }

    /// Sends the first packet of a connection to each of `count` ports, from `first` on.
    fn syns(&mut self, from: &str, first: u16, count: u16) {
        (first..first + count).for_each(|port| self.syn(from, port));
    }

    /// Waits until all packets have arrived. All runs on one processor, so the packets have then
    /// passed all rules, too.
    fn wait_for_packets(&mut self) {
        let deadline = Instant::now() + TIMEOUT;
        loop {
            let counters = self.kernel.counters("watch").expect("reads");
            let came = counters.iter().find(|(counter, _)| counter.name == "came");
            let came = came.map_or(0, |(_, counts)| counts.packets);
            if came == self.sent {
                return;
            }
            assert!(Instant::now() < deadline, "{came} of {} packets have come", self.sent);
            thread::sleep(Duration::from_millis(1));
        }
    }

    /// Returns the element of a source in a set of the policy.
    fn find(&mut self, what: &str, source: &str) -> Option<LiveElement> {
        self.wait_for_packets();
        let source = address(source);
        let key = match source {
            IpAddr::V4(source) => source.octets().to_vec(),
            IpAddr::V6(source) => [&source.octets()[..8], &[0; 8]].concat(),
        };
        let set = scan::set(what, IpVersion::of(source));
        self.kernel.element(scan::TABLE, &set, &key).expect("can be asked")
    }

    fn is_banned(&mut self, source: &str) -> bool {
        self.find("banned", source).is_some()
    }

    /// Reports whether the lookup of TCP ports over IPv4 is paused.
    fn pauses(&mut self) -> bool {
        self.wait_for_packets();
        let set = scan::set("paused", IpVersion::V4);
        let found = self.kernel.element(scan::TABLE, &set, &[protocol::TCP]);
        found.expect("an answer").is_some()
    }

    fn count(&mut self, counter: &str) -> u64 {
        self.wait_for_packets();
        let counters = self.kernel.counters(scan::TABLE).expect("reads");
        let found = counters.iter().find(|(found, _)| found.name == counter);
        found.unwrap_or_else(|| panic!("no counter {counter}")).1.packets
    }

    /// Starts web servers at the open ports.
    fn serve(&self) -> Vec<Server> {
        let all = [World::HOST_V4, World::HOST_V6].into_iter().flat_map(|to| [(to, 80), (to, 443)]);
        all.map(|to| self.world.host.serve_tcp(to).expect("serves")).collect()
    }

    /// Returns target, source and reason of each ban, as the program lists them.
    fn listed(&self) -> Vec<(String, String, String)> {
        let answer = self.nfguard(&["bans", "--json"]);
        let value: serde_json::Value = serde_json::from_str(&answer.stdout).expect("JSON");
        let word = |value: &serde_json::Value| value.as_str().expect("a string").to_owned();
        let bans = value["bans"].as_array().expect("a list").iter();
        bans.map(|ban| (word(&ban["target"]), word(&ban["source"]), word(&ban["reason"]))).collect()
    }

    /// Waits until `is_so` returns true.
    #[track_caller]
    fn wait_until(&mut self, what: &str, is_so: impl Fn(&mut Ground) -> bool) {
        let deadline = Instant::now() + TIMEOUT;
        while !is_so(self) {
            assert!(Instant::now() < deadline, "not so in a minute: {what}");
            thread::sleep(Duration::from_millis(50));
        }
    }
}

fn policy(scan: &str, more: &str) -> String {
    let scan = if scan.is_empty() { String::new() } else { format!(r#""scan": {scan},"#) };
    format!(
        r#"{{ "version": 1, {scan} {more} "rules": [
            {{ "name": "web", "action": "allow", "proto": "tcp", "port": [80, 443] }},
            {{ "name": "no-telnet", "action": "deny", "proto": "tcp", "port": "23-30" }} ] }}"#
    )
}

fn address(text: &str) -> IpAddr {
    text.parse().expect("an address")
}

fn host(from: IpAddr) -> IpAddr {
    if from.is_ipv4() { World::HOST_V4 } else { World::HOST_V6 }
}

/// The crates of policy and bans do not know each other, but use the same sets.
#[test]
fn the_names_of_the_sets_are_the_same_in_the_policy_and_in_the_bans() {
    let (policy, _) = nfguard_policy::Policy::parse(&policy("{}", "")).expect("a policy");
    let table = policy.compile();
    assert_eq!(scan::TABLE, nfguard_policy::TABLE);
    assert_ne!(scan::TABLE, BANS);
    let slots = ["1", "2", "3", "4", "5"];
    let kinds = ["paused", "seen", "banned", "again", "flags", "known", "never"];
    let names = kinds.into_iter().chain(slots);
    for name in names.flat_map(|what| IpVersion::ALL.map(|version| scan::set(what, version))) {
        assert!(table.set(&name).is_some(), "{name}");
    }
    let of_scans = table.sets.iter().filter(|set| set.name.starts_with("scan/"));
    assert_eq!(of_scans.count(), 24, "and no others");
}
