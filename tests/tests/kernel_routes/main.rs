//! Ways of packets that routing rules, marks, bridges and NAT choose, with real packets.

mod bogus;
mod bridged;
mod forged;
mod outgoing;
mod rewritten;
mod translated;

use std::collections::BTreeSet;
use std::net::{IpAddr, Ipv6Addr, SocketAddr};

use nfguard_lab::{Netns, Probe, ProbeOutcome, Server, World, packet, veth};
use nfguard_netlink::protocol;
use nfguard_tests::nft::nft;
use nfguard_tests::place::{ip, netns, send_syn_once, world_with_container};
use nfguard_tests::program::{TempFile, nfguard};
use nfguard_tests::wait::{TIMEOUT, wait_until, wait_until_with};

/// Addresses that the internet answers for, by whichever uplink.
const FAR: [IpAddr; 2] = [v4([203, 0, 113, 9]), v6(9, 9)];

const fn v4([a, b, c, d]: [u8; 4]) -> IpAddr {
    IpAddr::V4(std::net::Ipv4Addr::new(a, b, c, d))
}

const fn v6(network: u16, host: u16) -> IpAddr {
    IpAddr::V6(Ipv6Addr::new(0x2001, 0xdb8, network, 0, 0, 0, 0, host))
}

/// Loads a policy: `settings` are its keys besides the version.
#[track_caller]
fn load(host: &Netns, settings: &str) {
    let policy = TempFile::new("routes.json", &format!(r#"{{ "version": 1, {settings} }}"#));
    let answer = nfguard(host, &["load".as_ref(), policy.as_ref()]);
    assert_eq!(answer.status, Some(0), "{answer:?}");
}

/// Runs `ip` once for each IP version, with the words for it.
#[track_caller]
fn ip_each(netns: &Netns, arguments: [&str; 2]) {
    let [four, six] = arguments;
    ip(netns, four);
    ip(netns, &format!("-6 {six}"));
}

/// Sends a datagram from any address.
fn send(netns: &Netns, interface: Option<&str>, from: IpAddr, to: IpAddr, port: u16) {
    let datagram = packet::udp(from, to, 40_000, port, b"hello");
    let bytes = packet::ip(from, to, protocol::UDP, 64, &datagram);
    // The rules of the sender's own host may drop it.
    let _ = netns.send_raw(interface, &bytes);
}

/// A table that accepts everything and remembers the ports that packets were sent to.
struct Watch<'n> {
    netns: &'n Netns,
    name: String,
}

impl<'n> Watch<'n> {
    /// Watches a hook after all other rules there. `matches` is in nft's words.
    fn new(netns: &'n Netns, hook: &str, matches: &str) -> Watch<'n> {
        let name = format!("watch_{hook}");
        nft(
            netns,
            &format!(
                "table inet {name} {{
                    set ports {{ type inet_service; size 65535; flags dynamic; }}
                    chain watch {{
                        type filter hook {hook} priority 400
                        {matches} meta l4proto {{ tcp, udp }} update @ports {{ th dport }}
                    }}
                }}\n"
            ),
        );
        Watch { netns, name }
    }

    fn ports(&self) -> BTreeSet<u16> {
        let listing = nft(self.netns, &format!("list set inet {} ports\n", self.name));
        let (_, elements) = listing.split_once("elements = {").unwrap_or_default();
        let words = elements.split(|char: char| !char.is_ascii_digit());
        words.filter_map(|word| word.parse().ok()).collect()
    }

    #[track_caller]
    fn must_see(&self, port: u16) {
        let what = format!("a packet to port {port} at {}", self.name);
        wait_until_with(&what, || format!("{:?}", self.ports()), || self.ports().contains(&port));
    }
}

/// A host with two uplinks to the same internet.
struct Uplinks {
    world: World,
    second: Netns,
}

impl Uplinks {
    fn new() -> Uplinks {
        let world = world_with_container();
        let second = netns();
        veth(&world.host, "eth1", &second, "eth0").expect("a link");
        for (netns, link, address, address_6) in [
            (&world.host, "eth1", v4([10, 7, 0, 2]), v6(0x77, 2)),
            (&second, "eth0", v4([10, 7, 0, 1]), v6(0x77, 1)),
        ] {
            netns.address(link, address, 24).expect("an address");
            netns.address(link, address_6, 64).expect("an address");
        }
        second.own_prefix(v4([203, 0, 113, 0]), 24).expect("owns it");
        second.own_prefix(v6(9, 0), 48).expect("owns it");
        ip_each(
            &second,
            [
                "route add 198.51.100.0/24 via 10.7.0.2",
                "route add 2001:db8:1::/64 via 2001:db8:77::2",
            ],
        );
        for setting in ["all", "eth0", "eth1"] {
            world.host.sysctl(&format!("ipv4/conf/{setting}/rp_filter"), "0").expect("is set");
        }
        ip_each(
            &world.host,
            [
                "route add default via 10.7.0.1 table 100",
                "route add default via 2001:db8:77::1 table 100",
            ],
        );
        Uplinks { world, second }
    }

    /// Leads packets with the mark 5 to the second uplink.
    fn route_by_mark(&self) {
        let rule = "rule add fwmark 5 lookup 100";
        ip_each(&self.world.host, [rule, rule]);
    }

    /// Serves these ports, over UDP and TCP, behind both uplinks.
    fn serve(&self, ports: &[u16]) -> Vec<Server> {
        let mut servers = Vec::new();
        for netns in [&self.world.internet, &self.second] {
            for address in FAR {
                for port in ports {
                    let address = SocketAddr::new(address, *port);
                    servers.push(netns.serve_udp(address).expect("a server"));
                    servers.push(netns.serve_tcp(address).expect("a server"));
                }
            }
        }
        servers
    }
}

/// Returns a probe over UDP and one over TCP.
fn probes(netns: &Netns, to: IpAddr, port: u16) -> [Probe<'_>; 2] {
    let to = SocketAddr::new(to, port);
    [Probe::udp(netns, to), Probe::tcp(netns, to)]
}

#[track_caller]
fn must_pass(netns: &Netns, to: IpAddr, port: u16) {
    for probe in probes(netns, to, port) {
        let outcome = probe.timeout(TIMEOUT).run();
        assert!(outcome.passed(), "{probe:?}: {outcome}");
    }
}

#[track_caller]
fn must_not_pass(netns: &Netns, to: IpAddr, port: u16) {
    for probe in probes(netns, to, port) {
        let outcome = probe.run();
        assert!(
            matches!(outcome, ProbeOutcome::TimedOut | ProbeOutcome::Refused(_)),
            "{probe:?}: {outcome}"
        );
    }
}
