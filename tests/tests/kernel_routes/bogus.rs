//! Sources and destinations that cannot be true.

use super::*;

/// Docker publishes a port at 127.0.0.1 by a rule that looks at the address alone, and has the host
/// itself reach it.
const PUBLISHES_AT_LOOPBACK: &str = "table ip docker {
    chain pre {
        type nat hook prerouting priority dstnat
        ip daddr 127.0.0.1 meta l4proto { tcp, udp } th dport 8080 dnat to 172.17.0.2:8080
    }
    chain out {
        type nat hook output priority -100
        ip daddr 127.0.0.1 meta l4proto { tcp, udp } th dport 8080 dnat to 172.17.0.2:8080
    }
    chain post {
        type nat hook postrouting priority srcnat
        ip saddr 127.0.0.0/8 oifname docker0 masquerade
    }
}
";

/// Has a neighbour send loopback addresses by wire.
fn forget_loopback(netns: &Netns) {
    ip(netns, "route del local 127.0.0.1 dev lo table local");
    ip(netns, "route del local 127.0.0.0/8 dev lo table local");
    ip(netns, "route add 127.0.0.0/8 via 198.51.100.2");
}

#[test]
fn a_port_published_at_loopback_is_for_this_host_alone() {
    let world = world_with_container();
    let (host, container) = (&world.host, world.container.as_ref().expect("a container"));
    nft(host, PUBLISHES_AT_LOOPBACK);
    for interface in ["all", "docker0", "eth0"] {
        host.sysctl(&format!("ipv4/conf/{interface}/route_localnet"), "1").expect("is set");
    }
    forget_loopback(&world.internet);
    let came = Watch::new(container, "prerouting", "ip saddr 192.0.2.7");
    let at = SocketAddr::new(World::CONTAINER_V4, 8080);
    let _servers =
        [container.serve_tcp(at).expect("a server"), container.serve_udp(at).expect("a server")];
    let (stranger, loopback) = (v4([192, 0, 2, 7]), v4([127, 0, 0, 1]));
    send(&world.internet, None, stranger, loopback, 8080);
    came.must_see(8080);
    nft(container, "flush set inet watch_prerouting ports\n");

    load(host, r#""rules": [{ "action": "allow", "port": [8080, 8081] }]"#);
    send(&world.internet, None, stranger, loopback, 8080);
    must_pass(host, loopback, 8080);
    assert_eq!(came.ports(), BTreeSet::new(), "from the wire");
    assert!(nft(host, "list counters table inet nfguard\n").contains("builtin/martians"));
}

#[test]
fn a_loopback_address_by_wire_passes_no_rule() {
    let uplinks = Uplinks::new();
    let (host, internet) = (&uplinks.world.host, &uplinks.world.internet);
    for interface in ["all", "eth0"] {
        host.sysctl(&format!("ipv4/conf/{interface}/route_localnet"), "1").expect("is set");
        host.sysctl(&format!("ipv4/conf/{interface}/accept_local"), "1").expect("is set");
    }
    forget_loopback(internet);
    let delivered = Watch::new(host, "input", "iifname eth0");
    let (stranger, loopback) = (v4([192, 0, 2, 7]), v4([127, 0, 0, 9]));
    send(internet, None, stranger, loopback, 7200);
    delivered.must_see(7200);
    load(
        host,
        r#""default": { "in": "accept", "out": "accept", "forward": "accept" }, "rules": []"#,
    );
    let six = IpAddr::V6(Ipv6Addr::LOCALHOST);
    send(internet, None, stranger, loopback, 7201);
    send(internet, Some("eth0"), loopback, World::HOST_V4, 7202);
    send(internet, Some("eth0"), six, World::HOST_V6, 7203);
    send(internet, None, stranger, World::HOST_V4, 7204);
    send(internet, None, v6(7, 1), World::HOST_V6, 7205);
    delivered.must_see(7204);
    delivered.must_see(7205);
    let ports = delivered.ports();
    assert!([7201, 7202, 7203].iter().all(|port| !ports.contains(port)), "{ports:?}");
    // Within the host they are at home.
    for address in [v4([127, 0, 0, 1]), six] {
        let _servers = [
            host.serve_udp(SocketAddr::new(address, 7300)).expect("a server"),
            host.serve_tcp(SocketAddr::new(address, 7300)).expect("a server"),
        ];
        must_pass(host, address, 7300);
    }
}

#[test]
fn a_source_that_another_interface_leads_to_is_dropped_if_the_policy_says_so() {
    let uplinks = Uplinks::new();
    let (world, host) = (&uplinks.world, &uplinks.world.host);
    let delivered = Watch::new(host, "input", "");
    let allow = r#""rules": [{ "action": "allow", "port": "7000-7999" }]"#;
    let (strangers, own) = ([v4([203, 0, 113, 7]), v6(9, 7)], [World::HOST_V4, World::HOST_V6]);
    load(host, allow);
    for (at, (from, to)) in strangers.into_iter().zip(own).enumerate() {
        let port = 7400 + u16::try_from(at).expect("small");
        send(&uplinks.second, None, from, to, port);
        delivered.must_see(port);
    }
    load(host, &format!(r#""builtin": {{ "return-path": true }}, {allow}"#));
    for (from, to) in strangers.into_iter().zip(own) {
        send(&uplinks.second, None, from, to, 7500);
        // An address of the host itself.
        send(&world.internet, Some("eth0"), to, to, 7501);
    }
    for (at, (from, to)) in strangers.into_iter().zip(own).enumerate() {
        let port = 7600 + u16::try_from(at).expect("small");
        send(&world.internet, None, from, to, port);
        delivered.must_see(port);
        let neighbour = [v4([10, 7, 0, 1]), v6(0x77, 1)][at];
        send(&uplinks.second, None, neighbour, to, port + 2);
        delivered.must_see(port + 2);
    }
    let ports = delivered.ports();
    assert!([7500, 7501].iter().all(|port| !ports.contains(port)), "{ports:?}");
}
