//! Guests of other programs than Docker: containers and virtual machines behind a bridge of their own,
//! behind an interface of their own, on a bridge of the network, and past the host.

mod beside;
mod findings;
mod leases;

use std::net::{IpAddr, SocketAddr};
use std::process::Command;
use std::time::Duration;

use nfguard_lab::{Netns, Probe, Server, World, veth};
use nfguard_tests::place::{netns, world};
use nfguard_tests::program::{TempFile, nfguard};
use nfguard_tests::wait::TIMEOUT;
use serde_json::Value;

const NOWHERE: &str = "/nowhere";
const HTTPS: u16 = 443;
const ANY_V4: IpAddr = IpAddr::V4(std::net::Ipv4Addr::UNSPECIFIED);

/// The bridge's address, and that of the guest.
const BRIDGE: [u8; 4] = [10, 77, 0, 1];
const GUEST: [u8; 4] = [10, 77, 0, 2];

/// Allows HTTPS out. `more` has further keys of the policy.
fn policy(more: &str, rules: &str) -> String {
    format!(
        r#"{{ "version": 1, {more} "rules": [{rules}
            {{ "action": "allow", "direction": "out", "proto": "tcp", "port": 443 }}] }}"#
    )
}

#[track_caller]
fn load(netns: &Netns, policy: &str) {
    let file = TempFile::new("guests.json", policy);
    let answer = nfguard(netns, &["load".as_ref(), file.as_ref()]);
    assert_eq!(answer.status, Some(0), "{answer:?}\n{policy}");
}

/// Runs a program, which must succeed.
#[track_caller]
fn run(netns: &Netns, program: &str, arguments: &str) {
    let output = netns.run(|| Command::new(program).args(arguments.split(' ')).output());
    let output = output.unwrap_or_else(|error| panic!("{program}: {error}"));
    assert!(output.status.success(), "{program} {arguments}: {output:?}");
}

/// Returns the findings of `doctor`. `status` must say the same of those about guests.
#[track_caller]
fn findings(netns: &Netns) -> Vec<Value> {
    let arguments = ["doctor", "--docker-socket", NOWHERE, "--nftables-conf", NOWHERE, "--json"];
    let list = |arguments: &[&str]| {
        let answer = nfguard(netns, arguments);
        let value: Value = serde_json::from_str(&answer.stdout).expect("JSON");
        value["findings"].as_array().unwrap_or_else(|| panic!("{answer:?}")).clone()
    };
    let found = list(&arguments);
    let about_guests = found.iter().filter(|finding| {
        let code = finding["code"].as_str().expect("a word");
        !["foreign-drop", "ip-forward-off", "client-hidden", "uplink-deaf"].contains(&code)
    });
    let status = list(&["status", "--docker-socket", NOWHERE, "--json"]);
    assert_eq!(about_guests.cloned().collect::<Vec<_>>(), status);
    found
}

#[track_caller]
fn codes(netns: &Netns) -> Vec<String> {
    let code = |finding: &Value| finding["code"].as_str().expect("a word").to_owned();
    findings(netns).iter().map(code).collect()
}

/// Returns the text of the only finding, which has this code.
#[track_caller]
fn only(netns: &Netns, code: &str) -> String {
    let found = findings(netns);
    let [finding] = &found[..] else { panic!("{code}: {found:#?}") };
    assert_eq!(finding["code"], code, "{finding:#}");
    finding["what"].as_str().expect("words").to_owned()
}

/// A host whose guest is behind a link of its own, and the internet, which has a server for HTTPS and
/// knows the way back to the guest.
struct Hosted {
    world: World,
    guest: Netns,
    _server: Server,
}

impl Hosted {
    /// Makes a host without a guest yet.
    fn bare() -> Hosted {
        let world = world();
        for setting in ["ipv4/ip_forward", "ipv6/conf/all/forwarding"] {
            world.host.sysctl(setting, "1").expect("a setting");
        }
        let server = world.internet.serve_tcp(SocketAddr::new(World::INTERNET_V4, HTTPS));
        Hosted { world, guest: netns(), _server: server.expect("a server") }
    }

    /// Puts the guest behind a bridge of this name.
    fn behind(bridge: &str) -> Hosted {
        let hosted = Hosted::bare();
        let host = &hosted.world.host;
        host.bridge(bridge).expect("a bridge");
        host.address(bridge, BRIDGE.into(), 24).expect("an address");
        veth(host, "veth1", &hosted.guest, "eth0").expect("a link");
        host.enslave("veth1", bridge).expect("a port");
        hosted.connect();
        hosted
    }

    /// Gives the guest its address and its way to the internet and back.
    fn connect(&self) {
        self.guest.address("eth0", GUEST.into(), 24).expect("an address");
        self.guest.route(ANY_V4, 0, BRIDGE.into()).expect("a route");
        let internet = &self.world.internet;
        internet.route([10, 77, 0, 0].into(), 24, World::HOST_V4).expect("a route");
    }

    fn host(&self) -> &Netns {
        &self.world.host
    }

    /// Asserts that the guest reaches the internet, or that it does not.
    #[track_caller]
    fn reaches(&self, expected: bool) {
        reaches(&self.guest, SocketAddr::new(World::INTERNET_V4, HTTPS), expected);
    }
}

/// Asserts that a TCP connection comes about, or that it does not.
#[track_caller]
fn reaches(netns: &Netns, to: SocketAddr, expected: bool) {
    let timeout = if expected { TIMEOUT } else { Duration::from_millis(500) };
    let outcome = Probe::tcp(netns, to).timeout(timeout).run();
    assert_eq!(outcome.passed(), expected, "{to}: {outcome}");
}
