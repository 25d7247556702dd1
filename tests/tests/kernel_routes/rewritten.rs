//! What another table rewrites on the way is judged as it arrives.

use super::*;

/// An address that is routed to the host and is not its own.
const ROUTED: [IpAddr; 2] = [v4([198, 51, 100, 60]), v6(0x60, 1)];
const OWN: [IpAddr; 2] = [World::HOST_V4, World::HOST_V6];
const STRANGER: [IpAddr; 2] = [v4([192, 0, 2, 7]), v6(8, 1)];

/// Leads the routed address to the host by rewriting, without connection tracking's NAT, at a priority.
fn rewrite_at(netns: &Netns, priority: i32) {
    nft(
        netns,
        &format!(
            "table inet rewrite {{
                chain pre {{
                    type filter hook prerouting priority {priority}
                    ip daddr 198.51.100.60 ip daddr set 198.51.100.2
                    ip6 daddr 2001:db8:60::1 ip6 daddr set 2001:db8:1::2
                    meta l4proto udp th dport 443 th sport 40000 th dport set 6667
                }}
            }}\n"
        ),
    );
}

#[test]
fn what_is_rewritten_without_nat_is_judged_by_where_and_as_what_it_arrives() {
    let world = world_with_container();
    let host = &world.host;
    ip_each(
        &world.internet,
        [
            "route add 198.51.100.60/32 via 198.51.100.2",
            "route add 2001:db8:60::/64 via 2001:db8:1::2",
        ],
    );
    for setting in ["all", "eth0"] {
        host.sysctl(&format!("ipv4/conf/{setting}/rp_filter"), "0").expect("is set");
    }
    let delivered = Watch::new(host, "input", "");
    for priority in [-310, -180, -120, -90, 50] {
        rewrite_at(host, priority);
        load(host, r#""rules": [{ "action": "allow", "port": [443, 7700] }]"#);
        for version in 0..2 {
            let (from, to) = (STRANGER[version], ROUTED[version]);
            send(&world.internet, None, from, to, 7701);
            send(&world.internet, None, from, OWN[version], 443);
            // Of another address, so it is no answer and belongs to no connection.
            send(&world.internet, None, from, to, 7700);
            delivered.must_see(7700);
            let ports = delivered.ports();
            assert!(!ports.contains(&7701) && !ports.contains(&6667), "{priority}: {ports:?}");
            nft(host, "flush set inet watch_input ports\n");
        }
        nft(host, "delete table inet rewrite\n");
    }
}

/// Returns how many packets a counter of a table has counted.
fn counted(host: &Netns, table: &str, name: &str) -> u64 {
    let listing = nft(host, &format!("list counters table inet {table}\n"));
    let after = listing.split(&format!("counter {name} {{")).nth(1).expect("a counter");
    after.split_whitespace().nth(1).expect("packets").parse().expect("a number")
}

#[test]
fn a_published_port_is_judged_once_with_its_destination_limit_and_count() {
    let world = world_with_container();
    let (host, container) = (&world.host, world.container.as_ref().expect("a container"));
    let second = v4([198, 51, 100, 3]);
    host.address("eth0", second, 24).expect("an address");
    let second_6 = v6(1, 3);
    host.address("eth0", second_6, 64).expect("an address");
    nft(
        host,
        "table inet publish {
            counter one { }
            counter some { }
            chain arrived {
                type filter hook prerouting priority mangle
                ip daddr 198.51.100.3 return
                ip6 daddr 2001:db8:1::3 return
                ct state new tcp dport 8444 counter name one
                ct state new tcp dport 8443 counter name some
            }
            chain pre {
                type nat hook prerouting priority dstnat
                fib daddr type local tcp dport { 8443, 8444 } dnat ip to 172.17.0.2:443
                fib daddr type local tcp dport { 8443, 8444 } dnat ip6 to [2001:db8:d0c::2]:443
            }
        }\n",
    );
    let _servers = [World::CONTAINER_V4, World::CONTAINER_V6]
        .map(|address| container.serve_tcp(SocketAddr::new(address, 443)).expect("a server"));
    send_syn_once(&world.internet);
    let passes = |to: IpAddr, port, patience| {
        let probe = Probe::tcp(&world.internet, SocketAddr::new(to, port));
        probe.timeout(patience).run().passed()
    };
    load(
        host,
        r#""rules": [
            { "name": "not-there", "action": "deny", "proto": "tcp", "port": 8443,
              "to": ["198.51.100.3", "2001:db8:1::3", "192.0.2.0/24"] },
            { "name": "some", "action": "limit", "proto": "tcp", "port": 8443,
              "limit": { "connections": 3, "seconds": 3600 } },
            { "name": "one", "action": "allow", "proto": "tcp", "port": 8444,
              "to": ["198.51.100.2/32", "2001:db8:1::2"] }]"#,
    );
    for (own, other) in [(OWN[0], second), (OWN[1], second_6)] {
        assert!(!passes(other, 8443, nfguard_lab::DEFAULT_TIMEOUT), "denied there");
        assert!(!passes(other, 8444, nfguard_lab::DEFAULT_TIMEOUT), "not allowed there");
        assert!(passes(own, 8444, TIMEOUT));
        assert!(passes(own, 8443, TIMEOUT));
        assert!(passes(own, 8443, TIMEOUT));
        assert!(!passes(own, 8443, nfguard_lab::DEFAULT_TIMEOUT), "over the limit");
    }
    let judged = |name| counted(host, "nfguard", name);
    assert_eq!(judged("in/one"), counted(host, "publish", "one"));
    assert_eq!(judged("in/some"), counted(host, "publish", "some"));
    let over = judged("in/some/over");
    assert!(over >= 2 && judged("in/some") - over == 4, "{over} over the limit");
    assert!(judged("in/not-there") >= 2 && judged("default/in") >= 2);
}
