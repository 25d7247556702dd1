//! What DNAT leads elsewhere is judged by who sends it.

use super::*;

const SECOND_CONTAINER: [IpAddr; 2] = [v4([172, 18, 0, 2]), v6(0xd0d, 2)];

/// A host with containers on two bridges, and addresses that lead to the second of them: that of a
/// service, and ports of the host.
fn world() -> (World, Netns) {
    let world = world_with_container();
    let (host, second) = (&world.host, netns());
    host.bridge("br-two").expect("a bridge");
    host.address("br-two", v4([172, 18, 0, 1]), 16).expect("an address");
    host.address("br-two", v6(0xd0d, 1), 64).expect("an address");
    veth(host, "veth1", &second, "eth0").expect("a link");
    host.enslave("veth1", "br-two").expect("a port");
    let [four, six] = SECOND_CONTAINER;
    second.address("eth0", four, 16).expect("an address");
    second.address("eth0", six, 64).expect("an address");
    second.route(v4([0; 4]), 0, v4([172, 18, 0, 1])).expect("a route");
    second.route(IpAddr::V6(Ipv6Addr::UNSPECIFIED), 0, v6(0xd0d, 1)).expect("a route");
    ip_each(
        &world.internet,
        ["route add 10.43.0.0/16 via 198.51.100.2", "route add 2001:db8:43::/64 via 2001:db8:1::2"],
    );
    nft(
        host,
        "table inet services {
            chain service {
                type nat hook prerouting priority dstnat
                ip daddr 10.43.0.1 meta l4proto { tcp, udp } th dport 80 dnat ip to 172.18.0.2:8080
                ip6 daddr 2001:db8:43::1 meta l4proto { tcp, udp } th dport 80 dnat ip6 to [2001:db8:d0d::2]:8080
                ip daddr 198.51.100.2 meta l4proto { tcp, udp } th dport 30080 dnat ip to 172.18.0.2:8080
                ip6 daddr 2001:db8:1::2 meta l4proto { tcp, udp } th dport 30080 dnat ip6 to [2001:db8:d0d::2]:8080
                ip daddr 10.43.0.9 meta l4proto { tcp, udp } th dport 443 dnat ip to 198.51.100.2:6443
                ip6 daddr 2001:db8:43::9 meta l4proto { tcp, udp } th dport 443 dnat ip6 to [2001:db8:1::2]:6443
                ip daddr 10.43.0.5 meta l4proto { tcp, udp } th dport 80 dnat ip to 203.0.113.9:8080
                ip6 daddr 2001:db8:43::5 meta l4proto { tcp, udp } th dport 80 dnat ip6 to [2001:db8:9::9]:8080
            }
        }\n",
    );
    (world, second)
}

fn serve(netns: &Netns, addresses: [IpAddr; 2], port: u16) -> Vec<Server> {
    let serve = |address| {
        let address = SocketAddr::new(address, port);
        [netns.serve_udp(address).expect("a server"), netns.serve_tcp(address).expect("a server")]
    };
    addresses.into_iter().flat_map(serve).collect()
}

const SERVICE: [IpAddr; 2] = [v4([10, 43, 0, 1]), v6(0x43, 1)];
const OWN: [IpAddr; 2] = [World::HOST_V4, World::HOST_V6];

#[test]
fn a_container_reaches_a_service_as_it_reaches_the_container_behind() {
    let (world, second) = world();
    let container = world.container.as_ref().expect("a container");
    let _servers = serve(&second, SECOND_CONTAINER, 8080);
    load(&world.host, r#""rules": []"#);
    for version in 0..2 {
        must_pass(container, SECOND_CONTAINER[version], 8080);
        must_pass(container, SERVICE[version], 80);
        // The world does not. An address of the host itself is for what the rules for `in` allow.
        must_not_pass(container, OWN[version], 30080);
        must_not_pass(&world.internet, SERVICE[version], 80);
        must_not_pass(&world.internet, OWN[version], 30080);
        must_not_pass(&world.internet, SECOND_CONTAINER[version], 8080);
    }
    load(&world.host, r#""rules": [{ "action": "allow", "port": [80, 30080] }]"#);
    for version in 0..2 {
        must_pass(&world.internet, SERVICE[version], 80);
        must_pass(&world.internet, OWN[version], 30080);
        must_pass(container, OWN[version], 30080);
    }
}

/// A machine behind an inner interface, which the host forwards for.
#[test]
fn a_routed_neighbour_reaches_a_service_if_a_rule_for_forward_allows_it() {
    let (world, second) = world();
    let (host, inner) = (&world.host, netns());
    veth(host, "lan0", &inner, "eth0").expect("a link");
    let neighbour = [v4([10, 8, 0, 2]), v6(0x88, 2)];
    for (netns, link, [four, six]) in
        [(host, "lan0", [v4([10, 8, 0, 1]), v6(0x88, 1)]), (&inner, "eth0", neighbour)]
    {
        netns.address(link, four, 24).expect("an address");
        netns.address(link, six, 64).expect("an address");
    }
    ip_each(&inner, ["route add default via 10.8.0.1", "route add default via 2001:db8:88::1"]);
    let _servers = serve(&second, SECOND_CONTAINER, 8080);
    let to = |rest: &str| {
        format!(
            r#""rules": [{{ "action": "allow", "direction": "forward", "in_interface": "lan0",
                {rest} }}]"#
        )
    };
    // By the address that it asks for, and by the one that answers.
    for rest in [
        r#""to": ["10.43.0.0/16", "2001:db8:43::/64"], "port": 80"#,
        r#""out_interface": "br-two", "port": 8080"#,
    ] {
        load(host, &to(rest));
        for address in SERVICE {
            must_pass(&inner, address, 80);
            must_not_pass(&world.internet, address, 80);
        }
    }
    for (rules, why) in [
        (to(r#""port": 81"#), "another port"),
        (to(r#""to": ["10.43.0.2", "2001:db8:43::2"]"#), "another address"),
        (
            r#""rules": [{ "action": "deny", "port": 80 }, { "action": "allow",
                "direction": "forward", "in_interface": "lan0" }]"#
                .to_owned(),
            "a rule for the published port comes first",
        ),
        (
            r#""rules": [{ "action": "deny", "direction": "forward",
                "from": ["10.8.0.2", "2001:db8:88::2"] }, { "action": "allow",
                "direction": "forward", "in_interface": "lan0" }]"#
                .to_owned(),
            "a rule refuses its source before",
        ),
    ] {
        load(host, &rules);
        for address in SERVICE {
            assert!(!Probe::tcp(&inner, SocketAddr::new(address, 80)).run().passed(), "{why}");
        }
    }
    // What is refused after the rule is not refused before it.
    load(
        host,
        r#""rules": [{ "action": "allow", "direction": "forward", "in_interface": "lan0" },
            { "action": "deny", "direction": "forward" }]"#,
    );
    for address in SERVICE {
        must_pass(&inner, address, 80);
    }
}

#[test]
fn a_container_reaches_a_service_of_the_host_as_the_rules_for_in_say() {
    let (world, _second) = world();
    let container = world.container.as_ref().expect("a container");
    let _servers = serve(&world.host, OWN, 6443);
    let service = [v4([10, 43, 0, 9]), v6(0x43, 9)];
    load(&world.host, r#""rules": [{ "action": "allow", "port": 80 }]"#);
    for version in 0..2 {
        must_not_pass(container, service[version], 443);
        must_not_pass(container, OWN[version], 6443);
    }
    load(
        &world.host,
        r#""rules": [{ "action": "allow", "port": 6443,
            "from": ["172.16.0.0/12", "2001:db8:d0c::/48"] }]"#,
    );
    for version in 0..2 {
        must_pass(container, service[version], 443);
        must_pass(container, OWN[version], 6443);
        must_not_pass(&world.internet, service[version], 443);
    }
    // A rule for the port that the container asks for comes first.
    load(
        &world.host,
        r#""rules": [{ "action": "deny", "port": 443 }, { "action": "allow", "port": 6443 }]"#,
    );
    for address in service {
        must_not_pass(container, address, 443);
    }
}

#[test]
fn what_a_container_sends_out_by_a_service_address_is_judged_by_the_rules_for_out() {
    let (world, _second) = world();
    let container = world.container.as_ref().expect("a container");
    let _servers = serve(&world.internet, FAR, 8080);
    let service = [v4([10, 43, 0, 5]), v6(0x43, 5)];
    load(&world.host, r#""rules": [{ "action": "allow", "port": 80 }]"#);
    for address in service {
        must_not_pass(container, address, 80);
    }
    load(&world.host, r#""rules": [{ "action": "allow", "direction": "out", "port": 8080 }]"#);
    for address in service {
        must_pass(container, address, 80);
    }
}
