//! Kinds of links that not every kernel has: VLAN, bond, VRF and WireGuard, with real packets.
//!
//! Debian's kernels have them, so this runs in the virtual machines of `cargo xtask kernels`.

use std::io::Write as _;
use std::net::{IpAddr, Ipv6Addr, SocketAddr};
use std::process::{Command, Stdio};

use nfguard_lab::{Netns, Probe, Server, packet, veth};
use nfguard_netlink::protocol;
use nfguard_tests::nft::nft;
use nfguard_tests::place::{ip, netns};
use nfguard_tests::program::{Answer, TempFile, nfguard};
use nfguard_tests::wait::{TIMEOUT, wait_until_with};

/// The network of the link itself, and that of the link above it.
const BELOW: u8 = 10;
const ABOVE: u8 = 20;

/// The port of WireGuard.
const TUNNEL: u16 = 51820;

/// The addresses of one end in a network.
fn addresses(network: u8, end: u8) -> [IpAddr; 2] {
    let six = [0x2001, 0xdb8, network.into(), 0, 0, 0, 0, end.into()];
    [[10, network, 0, end].into(), Ipv6Addr::from(six).into()]
}

/// A host and its neighbour.
struct Neighbours {
    host: Netns,
    peer: Netns,
    _servers: Vec<Server>,
}

impl Neighbours {
    /// Makes them, with a link between. The host serves 7001 and 7002, the neighbour 7003 and 7004.
    fn new() -> Neighbours {
        let (host, peer) = (netns(), netns());
        veth(&host, "eth0", &peer, "eth0").expect("a link");
        let mut servers = Vec::new();
        for (netns, ports) in [(&host, [7001, 7002]), (&peer, [7003, 7004])] {
            // A socket in no VRF serves all of them.
            netns.sysctl("ipv4/tcp_l3mdev_accept", "1").expect("a setting");
            for port in ports {
                let any = SocketAddr::new(Ipv6Addr::UNSPECIFIED.into(), port);
                servers.push(netns.serve_tcp(any).expect("a server"));
            }
        }
        Neighbours { host, peer, _servers: servers }
    }

    /// Runs `ip` at both ends.
    fn both(&self, commands: &[&str]) {
        for netns in [&self.host, &self.peer] {
            commands.iter().for_each(|command| ip(netns, command));
        }
    }

    /// Gives a link at both ends its addresses.
    fn address(&self, link: &str, network: u8) {
        for (netns, end) in [(&self.host, 1), (&self.peer, 2)] {
            let [four, six] = addresses(network, end);
            ip(netns, &format!("address add {four}/24 dev {link}"));
            ip(netns, &format!("-6 address add {six}/64 dev {link} nodad"));
        }
    }

    /// Checks that the rules that name one interface decide about a network, in both directions.
    #[track_caller]
    fn assert_judged_by(&self, is_upper: bool, network: u8) {
        let [passes, stays] = if is_upper { [7001, 7002] } else { [7002, 7001] };
        for version in 0..2 {
            let to = |end: u8, port: u16| SocketAddr::new(addresses(network, end)[version], port);
            for (from, to) in [(&self.peer, to(1, stays)), (&self.host, to(2, stays + 2))] {
                assert!(!Probe::tcp(from, to).run().passed(), "{to}");
            }
            for (from, to) in [(&self.peer, to(1, passes)), (&self.host, to(2, passes + 2))] {
                let outcome = Probe::tcp(from, to).timeout(TIMEOUT).run();
                assert!(outcome.passed(), "{to}: {outcome}");
            }
        }
    }

    #[track_caller]
    fn load(&self, upper: &str, more: &str) {
        let policy = TempFile::new(
            "links.json",
            &format!(
                r#"{{ "version": 1, "rules": [ {more}
                {{ "action": "allow", "port": 7001, "in_interface": "{upper}" }},
                {{ "action": "allow", "port": 7002, "in_interface": "eth0" }},
                {{ "action": "allow", "port": 7003, "direction": "out", "out_interface": "{upper}" }},
                {{ "action": "allow", "port": 7004, "direction": "out", "out_interface": "eth0" }}
                ] }}"#
            ),
        );
        let answer = nfguard(&self.host, &["load".as_ref(), policy.as_ref()]);
        assert_eq!(answer.status, Some(0), "{answer:?}");
    }

    fn ban(&self, network: u8) -> Answer {
        nfguard(&self.host, &["ban", &addresses(network, 2)[0].to_string(), "--for", "1h"])
    }
}

#[test]
fn a_vlan_is_an_interface_of_its_own() {
    let neighbours = Neighbours::new();
    neighbours.address("eth0", BELOW);
    neighbours.both(&["link add link eth0 name eth0.7 type vlan id 7", "link set eth0.7 up"]);
    neighbours.address("eth0.7", ABOVE);
    neighbours.load("eth0.7", "");
    neighbours.assert_judged_by(true, ABOVE);
    neighbours.assert_judged_by(false, BELOW);
    // A neighbour in a VLAN is no guest of this host.
    let banned = neighbours.ban(ABOVE);
    assert_eq!(banned.status, Some(0), "{banned:?}");
    let to = SocketAddr::new(addresses(ABOVE, 1)[0], 7001);
    assert!(!Probe::tcp(&neighbours.peer, to).run().passed());
}

#[test]
fn rules_name_the_bond_and_not_its_ports() {
    let neighbours = Neighbours::new();
    veth(&neighbours.host, "eth1", &neighbours.peer, "eth1").expect("a link");
    neighbours.both(&["link add bond0 type bond mode active-backup miimon 100"]);
    for port in ["eth0", "eth1"] {
        neighbours.both(&[
            &format!("link set {port} down"),
            &format!("link set {port} master bond0"),
            &format!("link set {port} up"),
        ]);
    }
    neighbours.both(&["link set bond0 up"]);
    neighbours.address("bond0", ABOVE);
    neighbours.load("bond0", "");
    neighbours.assert_judged_by(true, ABOVE);
    // The other port takes over.
    ip(&neighbours.host, "link set eth0 down");
    neighbours.assert_judged_by(true, ABOVE);
}

#[test]
fn a_rule_for_in_names_the_vrf_and_a_rule_for_out_its_interface() {
    let neighbours = Neighbours::new();
    let host = &neighbours.host;
    ip(host, "link add blue type vrf table 10");
    ip(host, "link set blue up");
    ip(host, "link set eth0 master blue");
    neighbours.address("eth0", ABOVE);
    nft(
        &neighbours.peer,
        "table inet watch {
            set ports { type inet_service; size 65535; flags dynamic; }
            chain watch { type filter hook prerouting priority 0; update @ports { udp dport }; }
        }\n",
    );
    neighbours.load("blue", "");
    for version in 0..2 {
        let to = |port: u16| SocketAddr::new(addresses(ABOVE, 1)[version], port);
        assert!(!Probe::tcp(&neighbours.peer, to(7002)).run().passed());
        let outcome = Probe::tcp(&neighbours.peer, to(7001)).timeout(TIMEOUT).run();
        assert!(outcome.passed(), "{outcome}");
    }
    // What leaves is judged by the interface that it really leaves by.
    let seen = || nft(&neighbours.peer, "list set inet watch ports\n");
    for version in 0..2 {
        let [from, to] = [1, 2].map(|end| addresses(ABOVE, end)[version]);
        for port in [7003, 7005, 7004] {
            let datagram = packet::udp(from, to, 40_000, port, b"hello");
            let bytes = packet::ip(from, to, protocol::UDP, 64, &datagram);
            // The rules of the host may drop it.
            let _ = host.send_raw(Some("blue"), &bytes);
        }
        wait_until_with("a packet of the VRF", seen, || seen().contains("7004"));
        assert!(!seen().contains("7003") && !seen().contains("7005"), "{}", seen());
        nft(&neighbours.peer, "flush set inet watch ports\n");
    }
}

#[test]
fn a_wireguard_tunnel_is_judged_inside_and_outside() {
    let neighbours = Neighbours::new();
    neighbours.address("eth0", BELOW);
    neighbours.both(&["link add wg0 type wireguard"]);
    let keys = [private_key(), private_key()];
    for (netns, own, other) in [(&neighbours.host, 0, 1_u8), (&neighbours.peer, 1, 0)] {
        let file = TempFile::new("key", &keys[own]);
        let file = file.path().to_str().expect("UTF-8").to_owned();
        let endpoint = SocketAddr::new(addresses(BELOW, other + 1)[0], TUNNEL).to_string();
        let public = wg(&["pubkey"], &keys[usize::from(other)]);
        let port = TUNNEL.to_string();
        let arguments = [
            "set",
            "wg0",
            "listen-port",
            &port,
            "private-key",
            &file,
            "peer",
            public.trim(),
            "allowed-ips",
            "0.0.0.0/0,::/0",
            "endpoint",
            &endpoint,
        ];
        netns.run(|| wg(&arguments, ""));
    }
    neighbours.both(&["link set wg0 up"]);
    neighbours.address("wg0", ABOVE);
    let outside = r#"{ "action": "allow", "port": 51820, "proto": "udp", "in_interface": "eth0" },
        { "action": "allow", "port": 51820, "proto": "udp", "direction": "out", "out_interface": "eth0" },"#;
    // A kernel's own packets need a rule like any program's.
    neighbours.load("wg0", "");
    let to = SocketAddr::new(addresses(ABOVE, 2)[0], 7003);
    assert!(!Probe::tcp(&neighbours.host, to).run().passed());
    neighbours.load("wg0", outside);
    neighbours.assert_judged_by(true, ABOVE);
    neighbours.assert_judged_by(false, BELOW);
    // What is behind the tunnel is behind this host.
    let refused = neighbours.ban(ABOVE);
    assert_ne!(refused.status, Some(0));
    assert!(refused.stderr.contains("wg0"), "{refused:?}");
}

fn private_key() -> String {
    wg(&["genkey"], "")
}

/// Runs `wg` and returns its output.
#[track_caller]
fn wg(arguments: &[&str], input: &str) -> String {
    let mut command = Command::new("wg");
    command.args(arguments).stdin(Stdio::piped()).stdout(Stdio::piped());
    let mut child = command.spawn().expect("wg is installed");
    let mut stdin = child.stdin.take().expect("a pipe");
    stdin.write_all(input.as_bytes()).expect("wg reads");
    drop(stdin);
    let output = child.wait_with_output().expect("wg ends");
    assert!(output.status.success(), "wg {arguments:?}: {output:?}");
    String::from_utf8(output.stdout).expect("UTF-8")
}
