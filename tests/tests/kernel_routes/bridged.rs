//! What only crosses this host, by a bridge or by policy routing, is judged as forwarded.

use super::*;

/// A host whose bridge joins two guests. The host has an address on the bridge, too.
struct Bridged {
    host: Netns,
    guests: [Netns; 2],
}

const HOST: [IpAddr; 2] = [v4([10, 5, 0, 1]), v6(5, 1)];
const FIRST: [IpAddr; 2] = [v4([10, 5, 0, 2]), v6(5, 2)];
const SECOND: [IpAddr; 2] = [v4([10, 5, 0, 3]), v6(5, 3)];
/// To all hosts of the link: broadcast of both kinds, and multicast.
const GROUPS: [IpAddr; 4] = [
    v4([255, 255, 255, 255]),
    v4([10, 5, 0, 255]),
    v4([224, 0, 0, 251]),
    IpAddr::V6(Ipv6Addr::new(0xff02, 0, 0, 0, 0, 0, 0, 0xfb)),
];

impl Bridged {
    /// Makes them. With `filters` the packets of the bridge pass the hooks of IP (br_netfilter).
    fn new(filters: bool) -> Bridged {
        let (host, guests) = (netns(), [netns(), netns()]);
        host.bridge("br0").expect("a bridge");
        for (guest, (port, addresses)) in guests.iter().zip([("port1", FIRST), ("port2", SECOND)]) {
            veth(&host, port, guest, "eth0").expect("a link");
            host.enslave(port, "br0").expect("a port");
            own(guest, "eth0", addresses);
        }
        own(&host, "br0", HOST);
        // Every port gets every group.
        ip(&host, "link set br0 type bridge mcast_snooping 0");
        for setting in ["bridge-nf-call-iptables", "bridge-nf-call-ip6tables"] {
            let value = if filters { "1" } else { "0" };
            host.sysctl(&format!("bridge/{setting}"), value).expect("br_netfilter is there");
        }
        Bridged { host, guests }
    }

    fn send(&self, to: IpAddr, port: u16) {
        let from = FIRST[usize::from(to.is_ipv6())];
        send(&self.guests[0], Some("eth0"), from, to, port);
    }
}

fn own(netns: &Netns, link: &str, [four, six]: [IpAddr; 2]) {
    ip(netns, &format!("address add {four}/24 broadcast + dev {link}"));
    netns.address(link, six, 64).expect("an address");
}

/// The policy counts the first closed port as a scan, and the ban would cut everything else.
const STRICT: &str = r#""scan": { "ports": 2 }, "builtin": { "quiet-broadcast": false }"#;
const ACROSS: &str = r#"{ "action": "allow", "direction": "forward",
    "in_interface": "br0", "out_interface": "br0" }"#;

#[test]
fn what_crosses_a_bridge_is_judged_by_the_rules_for_forward() {
    let bridged = Bridged::new(true);
    let came = Watch::new(&bridged.guests[1], "prerouting", "");
    load(&bridged.host, &format!(r#"{STRICT}, "rules": [{ACROSS}]"#));
    let mut port = 4000;
    for to in GROUPS.into_iter().chain(SECOND) {
        for _ in 0..3 {
            port += 1;
            bridged.send(to, port);
            came.must_see(port);
        }
    }
    load(&bridged.host, &format!(r#"{STRICT}, "rules": []"#));
    for to in GROUPS.into_iter().chain(SECOND) {
        port += 1;
        bridged.send(to, port);
    }
    let denied: BTreeSet<u16> = (port - 5..=port).collect();
    load(&bridged.host, &format!(r#"{STRICT}, "rules": [{ACROSS}]"#));
    bridged.send(SECOND[0], 5001);
    bridged.send(SECOND[1], 5002);
    came.must_see(5001);
    came.must_see(5002);
    let passed: Vec<_> = denied.intersection(&came.ports()).copied().collect();
    assert_eq!(passed, [0_u16; 0], "no rule for forward allows it");
}

/// The bridge joins networks of which this host knows nothing.
#[test]
fn a_bridge_without_an_address_is_no_way_back_to_its_guests() {
    let bridged = Bridged::new(true);
    let (host, [_, second]) = (&bridged.host, &bridged.guests);
    ip(host, "address flush dev br0");
    let came = Watch::new(second, "prerouting", "");
    let by_policy = r#""builtin": { "return-path": true }"#;
    let of_containers = r#""containers": { "interfaces": ["br*"] }"#;
    for (first, keys) in [(4001, by_policy), (4011, of_containers)] {
        load(host, &format!(r#"{keys}, "rules": [{ACROSS}]"#));
        for (to, port) in SECOND.into_iter().zip(first..) {
            bridged.send(to, port);
            came.must_see(port);
        }
    }
}

/// Two hosts share an address, as with VRRP or anycast. The frame goes to the other one.
#[test]
fn a_frame_for_another_machine_with_an_address_of_this_host_only_crosses() {
    let bridged = Bridged::new(true);
    let (host, [first, second]) = (&bridged.host, &bridged.guests);
    let shared = [v4([10, 5, 0, 99]), v6(5, 0x99)];
    for address in shared {
        let len = if address.is_ipv6() { 128 } else { 32 };
        second.address("eth0", address, len).expect("an address");
        ip(host, &format!("address add {address}/{len} dev lo"));
    }
    let hardware = "02:00:00:00:00:99";
    ip(second, &format!("link set eth0 address {hardware}"));
    for address in shared {
        ip(first, &format!("neigh replace {address} lladdr {hardware} dev eth0"));
    }
    let came = Watch::new(second, "prerouting", "");
    load(host, &format!(r#"{STRICT}, "rules": [{ACROSS}]"#));
    let mut port = 4000;
    for to in shared {
        for _ in 0..3 {
            port += 1;
            bridged.send(to, port);
            came.must_see(port);
        }
    }
    // And the other way.
    let answers = Watch::new(first, "prerouting", "");
    for (from, to) in shared.into_iter().zip(FIRST) {
        port += 1;
        send(second, Some("eth0"), from, to, port);
        answers.must_see(port);
    }
}

#[test]
fn without_br_netfilter_a_bridge_is_no_matter_of_the_policy() {
    let bridged = Bridged::new(false);
    let came = Watch::new(&bridged.guests[1], "prerouting", "");
    load(&bridged.host, &format!(r#"{STRICT}, "rules": []"#));
    let mut port = 4000;
    for to in GROUPS.into_iter().chain(SECOND) {
        for _ in 0..3 {
            port += 1;
            bridged.send(to, port);
            came.must_see(port);
        }
    }
}

/// The same frame goes to the guests and to the host itself. The host judges what is delivered to it.
#[test]
fn broadcast_to_the_host_itself_is_judged_where_it_is_delivered() {
    for filters in [true, false] {
        let bridged = Bridged::new(filters);
        let host = &bridged.host;
        let delivered = Watch::new(host, "input", "");
        let v4_groups = &GROUPS[..2];
        let allow = r#"{ "action": "allow", "proto": "udp", "port": 6001 }"#;
        load(host, &format!(r#"{STRICT}, "rules": [{allow}, {ACROSS}]"#));
        for to in v4_groups {
            bridged.send(*to, 6002);
            bridged.send(*to, 6001);
            delivered.must_see(6001);
            assert!(!delivered.ports().contains(&6002), "{to}");
            nft(host, "flush set inet watch_input ports\n");
        }
        // Nor was any of it counted as a scan.
        bridged.send(HOST[0], 6001);
        delivered.must_see(6001);
    }
}

/// For IPv6, nft's look-up of an address does not know the interface that the packet came by.
#[test]
fn what_a_routing_rule_by_interface_forwards_is_no_packet_for_this_host() {
    for kind in ["unreachable", "blackhole", "prohibit"] {
        let uplinks = Uplinks::new();
        let world = &uplinks.world;
        let host = &world.host;
        let rule = "rule add iif eth0 lookup 100";
        ip_each(host, [rule, rule]);
        ip_each(
            host,
            [
                &format!("route add {kind} 198.18.0.0/15"),
                &format!("route add {kind} 2001:db9::/32"),
            ],
        );
        ip_each(
            &world.internet,
            [
                "route add 198.18.0.0/15 via 198.51.100.2",
                "route add 2001:db9::/32 via 2001:db8:1::2",
            ],
        );
        let came = Watch::new(&uplinks.second, "prerouting", "");
        let from = [v4([192, 0, 2, 1]), v6(8, 1)];
        let beyond = ["198.18.0.9", "2001:db9::9"].map(|it| it.parse::<IpAddr>().expect("one"));
        load(
            host,
            &format!(
                r#"{STRICT}, "rules": [{{ "action": "allow", "direction": "forward",
                    "in_interface": "eth0", "out_interface": "eth1", "proto": "udp",
                    "port": "7000-7999" }}]"#
            ),
        );
        for (at, (from, to)) in from.into_iter().zip(beyond).enumerate() {
            let first = 7000 + 10 * u16::try_from(at).expect("small");
            send(&world.internet, None, from, to, 8000 + first % 100);
            for port in first..first + 4 {
                send(&world.internet, None, from, to, port);
                came.must_see(port);
            }
        }
        let seen = came.ports();
        assert!(seen.iter().all(|port| *port < 8000), "{kind}: {seen:?}");
    }
}
