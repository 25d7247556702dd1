//! What leaves is judged by the interface that it really leaves by.

use std::net::SocketAddr;

use nfguard_lab::{DEFAULT_TIMEOUT, ProbeOutcome, Refusal, World};

use super::*;

/// Marks what this host sends to these ports.
const MARKS: &str = "table inet marks {
    chain marks {
        type route hook output priority -150
        meta l4proto { tcp, udp } th dport 7001 meta mark set 5
    }
}
";

#[test]
fn a_marked_packet_is_judged_by_the_interface_that_it_leaves_by() {
    let uplinks = Uplinks::new();
    let host = &uplinks.world.host;
    uplinks.route_by_mark();
    nft(host, MARKS);
    let _servers = uplinks.serve(&[7000, 7001]);
    let leaked = Watch::new(&uplinks.second, "prerouting", "");
    for address in FAR {
        must_pass(host, address, 7000);
        must_pass(host, address, 7001);
    }
    leaked.must_see(7001);
    nft(&uplinks.second, "flush set inet watch_prerouting ports\n");
    load(host, r#""rules": [{ "action": "allow", "direction": "out", "out_interface": "eth0" }]"#);
    for address in FAR {
        must_pass(host, address, 7000);
        must_not_pass(host, address, 7001);
    }
    assert_eq!(leaked.ports(), BTreeSet::new(), "left by another interface");

    load(host, r#""rules": [{ "action": "allow", "direction": "out", "out_interface": "eth1" }]"#);
    for address in FAR {
        must_not_pass(host, address, 7000);
        must_pass(host, address, 7001);
    }
}

/// A tunnel stands for the VPN. Its own packets have the tunnel as their incoming interface in
/// postrouting, as those of WireGuard have.
#[test]
fn a_kill_switch_lets_out_by_the_tunnel_alone() {
    let uplinks = Uplinks::new();
    let (host, internet) = (&uplinks.world.host, &uplinks.world.internet);
    let far = v4([203, 0, 113, 99]);
    for (netns, own, other) in [(host, 2, 1), (internet, 1, 2)] {
        let tunnel = format!(
            "link add vpn0 address 02:00:00:00:00:0{own} type vxlan id 5 \
             local 198.51.100.{own} remote 198.51.100.{other} dstport 4789 dev eth0"
        );
        ip(netns, &tunnel);
        ip(netns, &format!("address add 10.9.0.{own}/24 dev vpn0"));
        ip(netns, "link set vpn0 up");
        ip(netns, &format!("neigh add 10.9.0.{other} lladdr 02:00:00:00:00:0{other} dev vpn0"));
    }
    ip(host, "route add 203.0.113.99/32 via 10.9.0.1");
    let _servers = [
        internet.serve_udp(SocketAddr::new(far, 7000)).expect("a server"),
        internet.serve_tcp(SocketAddr::new(far, 7000)).expect("a server"),
    ];
    let inner = r#"{ "action": "allow", "direction": "out", "out_interface": "vpn0" }"#;
    let outer = r#"{ "action": "allow", "direction": "out", "out_interface": "eth0",
                     "proto": "udp", "port": 4789, "to": "198.51.100.1" },
                   { "action": "allow", "proto": "udp", "port": 4789, "from": "198.51.100.1" }"#;
    load(host, &format!(r#""rules": [{inner}]"#));
    must_not_pass(host, far, 7000);
    load(host, &format!(r#""rules": [{inner}, {outer}]"#));
    must_pass(host, far, 7000);
    // The tunnel is gone, and the default route leads to the same host in the clear.
    let clear = Watch::new(internet, "prerouting", "iifname eth0");
    ip(host, "route del 203.0.113.99/32");
    must_not_pass(host, far, 7000);
    assert!(!clear.ports().contains(&7000), "in the clear: {:?}", clear.ports());
}

#[test]
fn what_nat_leads_back_to_this_host_never_left_it() {
    let uplinks = Uplinks::new();
    let host = &uplinks.world.host;
    nft(
        host,
        "table inet proxy {
            chain redirects {
                type nat hook output priority -100
                meta l4proto { tcp, udp } th dport 53 redirect to :5353
            }
        }\n",
    );
    let mut servers = Vec::new();
    for address in ["127.0.0.1:5353", "[::1]:5353"] {
        let address: SocketAddr = address.parse().expect("an address");
        servers.push(host.serve_udp(address).expect("a server"));
        servers.push(host.serve_tcp(address).expect("a server"));
    }
    load(host, r#""rules": []"#);
    for address in FAR {
        must_pass(host, address, 53);
        must_not_pass(host, address, 54);
    }
}

#[test]
fn what_nat_leads_elsewhere_is_judged_by_where_it_goes() {
    let uplinks = Uplinks::new();
    let (world, host) = (&uplinks.world, &uplinks.world.host);
    nft(
        host,
        "table inet services {
            chain service {
                type nat hook output priority -100
                ip daddr 10.43.0.1 meta l4proto { tcp, udp } th dport 80 dnat ip to 203.0.113.9:8080
                ip6 daddr 2001:db8:43::1 meta l4proto { tcp, udp } th dport 80 \
                    dnat ip6 to [2001:db8:9::9]:8080
                ip daddr 10.43.0.2 meta l4proto { tcp, udp } th dport 80 dnat ip to 10.7.0.1:8081
                ip daddr 10.43.0.3 meta l4proto { tcp, udp } th dport 80 dnat ip to 172.17.0.2:8082
            }
        }\n",
    );
    let _servers = uplinks.serve(&[8080]);
    let container = world.container.as_ref().expect("a container");
    let mut others = Vec::new();
    for (netns, address) in [(&uplinks.second, v4([10, 7, 0, 1])), (container, World::CONTAINER_V4)]
    {
        let port = if address == World::CONTAINER_V4 { 8082 } else { 8081 };
        others.push(netns.serve_udp(SocketAddr::new(address, port)).expect("a server"));
        others.push(netns.serve_tcp(SocketAddr::new(address, port)).expect("a server"));
    }
    let service = [v4([10, 43, 0, 1]), v6(0x43, 1)];
    load(host, r#""rules": [{ "action": "allow", "direction": "out", "port": 80 }]"#);
    for address in service {
        must_not_pass(host, address, 80);
    }
    // The rules' silence holds nothing back from a container, also behind NAT.
    must_pass(host, v4([10, 43, 0, 3]), 80);
    load(host, r#""rules": [{ "action": "allow", "direction": "out", "port": 8080 }]"#);
    for address in service {
        must_pass(host, address, 80);
    }
    // Before NAT the way would have been eth0.
    let by = |interface: &str| {
        format!(
            r#""rules": [{{ "action": "allow", "direction": "out", "port": 8081,
                "out_interface": "{interface}" }}]"#
        )
    };
    load(host, &by("eth0"));
    must_not_pass(host, v4([10, 43, 0, 2]), 80);
    load(host, &by("eth1"));
    must_pass(host, v4([10, 43, 0, 2]), 80);
}

#[test]
fn a_rejection_answers_where_the_way_is_certain_and_drops_elsewhere() {
    let uplinks = Uplinks::new();
    let host = &uplinks.world.host;
    uplinks.route_by_mark();
    nft(host, MARKS);
    let _servers = uplinks.serve(&[7000, 7001, 7004]);
    load(
        host,
        r#""default": { "out": "reject" },
           "rules": [{ "action": "allow", "direction": "out", "out_interface": "eth1" },
                     { "name": "no", "action": "reject", "direction": "out", "port": 7004 }]"#,
    );
    let refused = ProbeOutcome::Refused(Refusal::Closed);
    for address in FAR {
        for port in [7000, 7004] {
            // A datagram that is rejected on its way out fails at once.
            let [_, tcp] = probes(host, address, port);
            assert_eq!(tcp.timeout(TIMEOUT).run(), refused, "{tcp:?}");
            must_not_pass(host, address, port);
        }
        // By its first way the packet would have been refused.
        must_pass(host, address, 7001);
    }
    load(
        host,
        r#""default": { "out": "reject" },
           "rules": [{ "action": "allow", "direction": "out", "out_interface": "eth0" }]"#,
    );
    for address in FAR {
        must_pass(host, address, 7000);
        for probe in probes(host, address, 7001) {
            let outcome = probe.run();
            let dropped = [ProbeOutcome::TimedOut, ProbeOutcome::Refused(Refusal::NotPermitted)];
            assert!(dropped.contains(&outcome), "{probe:?}: {outcome}");
        }
    }
}

/// A connection is counted once, whichever hook refuses it.
#[test]
fn a_limit_counts_each_connection_once() {
    let uplinks = Uplinks::new();
    let host = &uplinks.world.host;
    uplinks.route_by_mark();
    nft(host, MARKS);
    send_syn_once(host);
    let _servers = uplinks.serve(&[7000, 7001]);
    for over in ["reject", "drop"] {
        for port in [7000, 7001] {
            load(host, r#""rules": []"#);
            load(
                host,
                &format!(
                    r#""rules": [{{ "name": "some", "action": "limit", "direction": "out",
                        "port": {port}, "limit": {{ "connections": 4, "seconds": 3600,
                        "over": "{over}" }} }}]"#
                ),
            );
            for address in FAR {
                let probe = Probe::tcp(host, SocketAddr::new(address, port));
                for _ in 0..3 {
                    assert!(probe.timeout(TIMEOUT).run().passed(), "{over} {probe:?}");
                }
                let is_answered = over == "reject" && port == 7000;
                let patience = if is_answered { TIMEOUT } else { DEFAULT_TIMEOUT };
                let outcome = probe.timeout(patience).run();
                assert_eq!(
                    outcome == ProbeOutcome::Refused(Refusal::Closed),
                    is_answered,
                    "{over} {probe:?}: {outcome}"
                );
                assert!(!outcome.passed());
            }
            let listing = nft(host, "list counters table inet nfguard\n");
            let over = listing.split("counter out/some/over").nth(1).expect("a counter");
            let counted = over.split_whitespace().nth(2).expect("packets");
            assert_eq!(counted, "2", "{listing}");
        }
    }
}

/// A transparent proxy sends from its clients' addresses.
#[test]
fn what_has_a_foreign_source_is_judged_too() {
    let uplinks = Uplinks::new();
    let host = &uplinks.world.host;
    let came = Watch::new(&uplinks.world.internet, "prerouting", "");
    let from = [v4([192, 0, 2, 200]), v6(0x200, 1)];
    for (from, to) in from.into_iter().zip(FAR) {
        send(host, None, from, to, 7100);
    }
    came.must_see(7100);
    load(host, r#""rules": [{ "action": "allow", "direction": "out", "port": 7101 }]"#);
    for (from, to) in from.into_iter().zip(FAR) {
        send(host, None, from, to, 7102);
        send(host, None, from, to, 7101);
    }
    came.must_see(7101);
    assert!(!came.ports().contains(&7102), "{:?}", came.ports());
}

/// What has a foreign source, because a program chose it or another table wrote it, is judged by the way
/// that it really takes.
#[test]
fn a_foreign_source_is_judged_by_the_interface_that_it_leaves_by() {
    let uplinks = Uplinks::new();
    let host = &uplinks.world.host;
    uplinks.route_by_mark();
    let tos = "rule add tos 0x10 lookup 100";
    ip_each(host, [tos, tos]);
    nft(
        host,
        "table inet treat {
            chain route {
                type route hook output priority -150
                udp dport 7301 meta mark set 5
                udp dport 7302 ip dscp set 4
                udp dport 7302 ip6 dscp set 4
                udp dport 7303 ip saddr set 192.0.2.99
                udp dport 7303 ip6 saddr set 2001:db8:200::99
            }
            chain translate {
                type nat hook output priority -100
                udp dport 7304 dnat ip to 10.7.0.1:7304
                udp dport 7304 dnat ip6 to [2001:db8:77::1]:7304
            }
            chain late {
                type filter hook postrouting priority -150
                udp dport 7305 ip saddr set 192.0.2.98
                udp dport 7305 ip6 saddr set 2001:db8:200::98
            }
        }\n",
    );
    let here = Watch::new(&uplinks.world.internet, "prerouting", "");
    let there = Watch::new(&uplinks.second, "prerouting", "");
    let send_all = |version: usize| {
        let foreign = [v4([192, 0, 2, 200]), v6(0x200, 1)];
        let own = [World::HOST_V4, World::HOST_V6];
        for port in [7300, 7301, 7302, 7304] {
            send(host, None, foreign[version], FAR[version], port);
        }
        for port in [7303, 7305, 7306] {
            send(host, None, own[version], FAR[version], port);
        }
    };
    let seen = |watch: &Watch<'_>| {
        watch
            .ports()
            .into_iter()
            .filter(|port| (7300..7400).contains(port))
            .collect::<BTreeSet<_>>()
    };
    let forget = || {
        for netns in [&uplinks.world.internet, &uplinks.second] {
            nft(netns, "flush set inet watch_prerouting ports\n");
        }
    };
    // Without a policy. Linux 6.1 does not route IPv6 again by a traffic class that a rule has written.
    let ways = [0, 1].map(|version| {
        send_all(version);
        wait_until("all have left", || seen(&here).len() + seen(&there).len() == 7);
        let ways = [seen(&here), seen(&there)];
        forget();
        assert!(ways[0].contains(&7300) && ways[1].is_superset(&[7301, 7304].into()), "{ways:?}");
        ways
    });
    for (only, interface) in ["eth0", "eth1"].into_iter().enumerate() {
        load(
            host,
            &format!(
                r#""rules": [{{ "action": "allow", "direction": "out",
                    "out_interface": "{interface}" }}]"#
            ),
        );
        for (version, ways) in ways.iter().enumerate() {
            send_all(version);
            let (passes, stays) = if only == 0 { (&here, &there) } else { (&there, &here) };
            ways[only].iter().for_each(|port| passes.must_see(*port));
            assert_eq!(seen(stays), [].into(), "allowed by {interface} alone");
            forget();
        }
    }
}

/// Postrouting tells by the mark what output has judged, and others may clear it in between.
#[test]
fn multicast_with_a_mark_that_others_clear_is_judged_too() {
    let uplinks = Uplinks::new();
    let host = &uplinks.world.host;
    let came = Watch::new(&uplinks.world.internet, "prerouting", "");
    nft(
        host,
        "table inet marks {
            chain out {
                type filter hook output priority mangle
                meta mark set 5
            }
            chain late {
                type filter hook postrouting priority mangle
                meta mark set 0
            }
        }\n",
    );
    let (from, group) = (World::HOST_V4, v4([239, 1, 1, 1]));
    send(host, Some("eth0"), from, group, 7200);
    came.must_see(7200);
    load(host, r#""rules": [{ "action": "allow", "direction": "out", "port": 7201 }]"#);
    send(host, Some("eth0"), from, group, 7202);
    send(host, Some("eth0"), from, group, 7201);
    came.must_see(7201);
    assert!(!came.ports().contains(&7202), "{:?}", came.ports());
}

/// A route hook leads multicast to the other uplink, by a mark that is gone afterwards and without one;
/// and NAT behind the output chain makes multicast of what was none.
#[test]
fn multicast_leaves_by_no_interface_that_the_rules_do_not_allow() {
    let uplinks = Uplinks::new();
    let host = &uplinks.world.host;
    uplinks.route_by_mark();
    ip(host, "rule add tos 0x10 lookup 100");
    ip(host, "route add 239.0.0.0/8 dev eth0");
    nft(
        host,
        "table inet treat {
            chain route {
                type route hook output priority -150
                udp dport 7401 meta mark set 5
                udp dport 7402 ip dscp set 4
            }
            chain led {
                type nat hook output priority 0
                udp dport 7403 dnat ip to 239.1.1.2
            }
            chain late {
                type filter hook postrouting priority -150
                meta mark set 0
            }
        }\n",
    );
    let group = v4([239, 1, 1, 1]);
    let (source, other) = (v4([10, 7, 0, 2]), v4([10, 7, 0, 1]));
    let there = Watch::new(&uplinks.second, "prerouting", "");
    let send_all = || {
        for port in [7401, 7402] {
            // A route hook leads it to the interface of its source.
            send(host, None, source, group, port);
        }
        send(host, None, source, other, 7403);
        send(host, None, source, other, 7404);
    };
    send_all();
    [7401, 7402, 7404].iter().for_each(|port| there.must_see(*port));
    nft(&uplinks.second, "flush set inet watch_prerouting ports\n");
    let here = Watch::new(&uplinks.world.internet, "prerouting", "");
    load(
        host,
        r#""rules": [{ "action": "allow", "direction": "out", "out_interface": "eth0",
                       "port": [7401, 7402] },
                     { "action": "allow", "direction": "out", "port": 7404 }]"#,
    );
    send_all();
    there.must_see(7404);
    assert_eq!(there.ports(), BTreeSet::from([7404]));
    send(host, None, World::HOST_V4, FAR[0], 7404);
    here.must_see(7404);
    assert!(!here.ports().contains(&7403), "{:?}", here.ports());
}

#[test]
fn a_macvlan_is_an_interface_of_its_own() {
    let uplinks = Uplinks::new();
    let (host, internet) = (&uplinks.world.host, &uplinks.world.internet);
    ip(host, "link add mv0 link eth0 type macvlan mode bridge");
    ip(host, "link set mv0 up");
    host.address("mv0", v4([198, 51, 100, 3]), 24).expect("an address");
    host.address("mv0", v6(1, 3), 64).expect("an address");
    ip_each(
        host,
        [
            "route add 203.0.113.77/32 via 198.51.100.1 dev mv0",
            "route add 2001:db8:9::77/128 via 2001:db8:1::1 dev mv0",
        ],
    );
    let by_macvlan = [v4([203, 0, 113, 77]), v6(9, 0x77)];
    let mut servers = uplinks.serve(&[7000]);
    for address in by_macvlan {
        let address = SocketAddr::new(address, 7000);
        servers.push(internet.serve_udp(address).expect("a server"));
        servers.push(internet.serve_tcp(address).expect("a server"));
    }
    for (interface, pass, stop) in [("mv0", by_macvlan, FAR), ("eth0", FAR, by_macvlan)] {
        let rule = format!(
            r#""rules": [{{ "action": "allow", "direction": "out",
                "out_interface": "{interface}" }}]"#
        );
        load(host, &rule);
        for address in pass {
            must_pass(host, address, 7000);
        }
        for address in stop {
            must_not_pass(host, address, 7000);
        }
    }
}
