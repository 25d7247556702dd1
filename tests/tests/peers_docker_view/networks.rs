//! Networks with bridges of their own: what leads to a container is asked of the kernel, not guessed.

use std::net::{IpAddr, SocketAddr};

use nfguard_lab::{DEFAULT_TIMEOUT, Netns, Server, World, veth};
use nfguard_tests::nft::nft;
use nfguard_tests::place::{ip, netns, world};
use nfguard_tests::program::TempFile;
use nfguard_tests::wait::TIMEOUT;
use serde_json::json;

use super::examination::{codes, doctor, finding_text};
use super::{NOWHERE, iptables, json as answer, load, reaches};

const BRIDGE: &str = "traefik_net";
const CONTAINER: [u8; 4] = [172, 18, 0, 2];
const WEB: &str = r#"{ "name": "web", "action": "allow", "proto": "tcp", "port": [80, 443] }"#;
/// Docker with `"userland-proxy": false`: its rules of address translation leave no bridge out.
const NAT: &str = "*nat\n:PREROUTING ACCEPT [0:0]\n:DOCKER - [0:0]\n\
    -A PREROUTING -m addrtype --dst-type LOCAL -j DOCKER\n\
    -A DOCKER -p tcp -m tcp --dport 80 -j DNAT --to-destination 172.18.0.2:8080\nCOMMIT\n";
const FORWARD: &str = "*filter\n:FORWARD DROP [0:0]\n:DOCKER - [0:0]\n\
    -A FORWARD -o traefik_net -m conntrack --ctstate RELATED,ESTABLISHED -j ACCEPT\n\
    -A FORWARD -o traefik_net -j DOCKER\n\
    -A FORWARD -i traefik_net ! -o traefik_net -j ACCEPT\n\
    -A DOCKER -d 172.18.0.2/32 ! -i traefik_net -o traefik_net -p tcp -m tcp --dport 8080 -j ACCEPT\n\
    COMMIT\n";

struct Network {
    world: World,
    container: Netns,
    _servers: [Server; 2],
}

/// Makes a host with a container in a network of its own.
fn network() -> Network {
    let (world, container) = (world(), netns());
    let host = &world.host;
    host.sysctl("ipv4/ip_forward", "1").expect("a setting");
    host.bridge(BRIDGE).expect("a bridge");
    host.address(BRIDGE, [172, 18, 0, 1].into(), 16).expect("an address");
    veth(host, "veth7", &container, "eth0").expect("a link");
    host.enslave("veth7", BRIDGE).expect("a port");
    container.address("eth0", CONTAINER.into(), 16).expect("an address");
    container.route([0, 0, 0, 0].into(), 0, [172, 18, 0, 1].into()).expect("a route");
    let server = |netns: &Netns, address: IpAddr| {
        netns.serve_tcp(SocketAddr::new(address, 8080)).expect("a server")
    };
    let servers = [server(&container, CONTAINER.into()), server(host, World::HOST_V4)];
    Network { world, container, _servers: servers }
}

fn serves(network: &Network, expected: bool) {
    let timeout = if expected { TIMEOUT } else { DEFAULT_TIMEOUT };
    assert_eq!(reaches(&network.world, 80, false, timeout), expected);
}

/// Publishes the web, and knows the networks.
fn policy() -> String {
    format!(
        r#"{WEB}, {{ "action": "allow", "direction": "forward",
            "in_interface": ["{BRIDGE}", "other_net"] }}"#
    )
}

#[test]
fn a_published_port_of_a_network_of_its_own_is_judged_by_the_way_to_its_container() {
    let network = network();
    let host = &network.world.host;
    iptables(host, "iptables-nft-restore", NAT);
    iptables(host, "iptables-nft-restore", FORWARD);
    load(host, &policy());
    serves(&network, true);
    let found = doctor(host);
    assert_eq!(codes(&found), [""; 0], "{found:#}");
    let status = answer(host, &["status", "--docker-socket", NOWHERE], 0);
    let text =
        nfguard_tests::program::nfguard(host, &["status", "--docker-socket", NOWHERE]).stdout;
    assert!(text.contains("container at 172.18.0.2:8080, by DNAT"), "{text}");
    assert_eq!(status["findings"], json!([]));

    // The chain of another bridge lets nothing of it through.
    let other = FORWARD.replace("-o traefik_net -j DOCKER", "-o docker0 -j DOCKER");
    nft(host, "flush chain ip filter FORWARD\nflush chain ip filter DOCKER\n");
    iptables(host, "iptables-nft-restore", &other);
    serves(&network, false);
    let found = doctor(host);
    let words = finding_text(&found, "foreign-drop");
    assert!(words.contains("chain FORWARD") && words.contains("in 80/tcp"), "{words}");
}

#[test]
fn a_way_by_a_rule_of_routing_is_asked_of_the_kernel() {
    let network = network();
    let (host, container) = (&network.world.host, &network.container);
    // Of what comes from outside, another table knows another bridge.
    host.bridge("other_net").expect("a bridge");
    veth(host, "veth8", container, "eth1").expect("a link");
    host.enslave("veth8", "other_net").expect("a port");
    container.address("eth1", [172, 18, 0, 3].into(), 32).expect("an address");
    for arguments in [
        "rule add iif eth0 lookup 100 priority 100",
        "route add 172.18.0.2/32 dev other_net table 100",
    ] {
        ip(host, arguments);
    }
    for setting in ["ipv4/conf/all/rp_filter", "ipv4/conf/eth1/rp_filter"] {
        container.sysctl(setting, "0").expect("a setting");
    }
    iptables(host, "iptables-nft-restore", NAT);
    load(host, &policy());
    serves(&network, true);
    for (bridge, is_served) in [("traefik_net", false), ("other_net", true)] {
        let rules = format!(
            "*filter\n:FORWARD DROP [0:0]\n-A FORWARD -o {bridge} -p tcp --dport 8080 -j ACCEPT\n\
             -A FORWARD -o eth0 -j ACCEPT\nCOMMIT\n"
        );
        drop(nfguard_tests::nft::try_nft(host, "flush chain ip filter FORWARD\n"));
        iptables(host, "iptables-nft-restore", &rules);
        serves(&network, is_served);
        let found = doctor(host);
        let expected = if is_served { vec![] } else { vec!["foreign-drop"] };
        assert_eq!(codes(&found), expected, "{bridge}: {found:#}");
    }
}

#[test]
fn a_port_that_is_led_to_the_host_itself_passes_the_hook_for_input() {
    let network = network();
    let host = &network.world.host;
    let nat = NAT.replace("172.18.0.2:8080", "198.51.100.2:8080");
    iptables(host, "iptables-nft-restore", &nat);
    load(host, &policy());
    host.sysctl("ipv4/ip_forward", "0").expect("a setting");
    serves(&network, true);
    let found = doctor(host);
    assert_eq!(codes(&found), [""; 0], "nothing is forwarded to it: {found:#}");
    let rules = "*filter\n:INPUT ACCEPT [0:0]\n-A INPUT -p tcp --dport 8080 -j DROP\nCOMMIT\n";
    iptables(host, "iptables-nft-restore", rules);
    serves(&network, false);
    let found = doctor(host);
    let words = finding_text(&found, "foreign-drop");
    assert!(words.contains("chain INPUT") && words.contains("in 80/tcp"), "{words}");
}

#[test]
fn what_is_published_as_a_range_is_judged_port_by_port() {
    let network = network();
    let host = &network.world.host;
    let nat = NAT.replace("--dport 80 ", "--dport 79:81 ").replace("2:8080", "2");
    iptables(host, "iptables-nft-restore", &nat);
    load(host, &policy());
    let status = answer(host, &["status", "--docker-socket", NOWHERE], 0);
    let states: Vec<(u64, u64, &str)> = status["ports"]
        .as_array()
        .expect("a list")
        .iter()
        .filter(|port| port["answer"]["kind"] == "dnat")
        .map(|port| {
            let number = |key: &str| port[key].as_u64().expect("a number");
            (number("port"), number("last_port"), port["state"].as_str().expect("a word"))
        })
        .collect();
    let refused = "published-not-allowed";
    assert_eq!(states, [(79, 79, refused), (80, 80, "reachable"), (81, 81, refused)]);
    // A drop in the middle of what the policy allows.
    load(
        host,
        r#"{ "action": "allow", "proto": "tcp", "port": "79-81" },
        { "action": "allow", "direction": "forward", "in_interface": "traefik_net" }"#,
    );
    nft(
        host,
        "table ip mine { chain in { type filter hook prerouting priority -200;
        tcp dport 80 drop; }; }\n",
    );
    let found = doctor(host);
    let words = finding_text(&found, "foreign-drop");
    assert!(words.ends_with("what the policy allows: in 80/tcp"), "{words}");
}

/// Publishes ports of as many containers, each with an address of its own or all of one.
fn publish(netns: &Netns, ports: u16, is_one: bool) {
    let head = "*nat\n:PREROUTING ACCEPT [0:0]\n:DOCKER - [0:0]\n\
                -A PREROUTING -m addrtype --dst-type LOCAL -j DOCKER\nCOMMIT\n";
    iptables(netns, "iptables-nft-restore", head);
    let rule = |number: u16| {
        let [third, fourth] = if is_one { [0, 2] } else { (number + 2).to_be_bytes() };
        let port = 8000 + number;
        format!(
            "-A DOCKER -p tcp -m tcp --dport {port} -j DNAT --to-destination \
             172.18.{third}.{fourth}:{port}\n"
        )
    };
    // In a user namespace a transaction has little room.
    let all: Vec<u16> = (0..ports).collect();
    for some in all.chunks(200) {
        let rules: String = some.iter().map(|number| rule(*number)).collect();
        iptables(netns, "iptables-nft-restore", &format!("*nat\n{rules}COMMIT\n"));
    }
}

/// Counts the system calls of `doctor` by name.
fn calls(netns: &Netns) -> std::collections::BTreeMap<String, usize> {
    let trace = TempFile::new("calls", "");
    let arguments = ["doctor", "--docker-socket", NOWHERE, "--nftables-conf", NOWHERE, "--json"];
    let output = netns.run(|| {
        // Without the right to enter other namespaces, of which there are more or fewer.
        let mut strace = std::process::Command::new("setpriv");
        strace.args(["--bounding-set", "-all,+net_admin", "--inh-caps", "-all,+net_admin"]);
        strace.args(["strace", "-f", "-o"]).arg(trace.path()).arg(nfguard_tests::program::path());
        strace.args(arguments).env("NFGUARD_STATE_DIR", "").output()
    });
    let output = output.expect("strace is installed");
    let found: serde_json::Value = serde_json::from_slice(&output.stdout).expect("JSON");
    assert_eq!(found["findings"], json!([]), "{found:#}");
    let text = std::fs::read_to_string(trace.path()).expect("strace has written it");
    let mut calls = std::collections::BTreeMap::new();
    for line in text.lines() {
        let call = line.split_once('(').map_or("", |(before, _)| before);
        let name = call.split_whitespace().next_back().unwrap_or_default().to_owned();
        *calls.entry(name).or_default() += 1;
    }
    calls
}

#[test]
fn doctor_asks_the_kernel_no_more_often_for_a_thousand_ports_of_one_container() {
    let count = |ports, is_one| {
        let network = network();
        publish(&network.world.host, ports, is_one);
        load(&network.world.host, &policy());
        let calls = calls(&network.world.host);
        let of = |name: &str| calls.get(name).copied().unwrap_or_default();
        (of("socket"), of("sendto") + of("sendmsg"), of("connect"))
    };
    let few = count(10, true);
    assert_eq!(count(1000, true), few, "sockets, requests, connections");
    // Two routes for each container, 50 in a request.
    let (sockets, requests, connections) = count(1000, false);
    assert_eq!((sockets, requests - few.1, connections), (few.0, 1000 * 2 / 50 - 1, few.2));
}

#[test]
fn a_thousand_adjacent_ports_are_one_line_of_status_and_of_a_finding() {
    let network = network();
    let host = &network.world.host;
    publish(host, 1000, true);
    load(
        host,
        r#"{ "name": "all", "action": "allow", "proto": "tcp", "port": "8000-8999" },
        { "action": "allow", "direction": "forward", "in_interface": "traefik_net" }"#,
    );
    let status = answer(host, &["status", "--docker-socket", NOWHERE], 0);
    let ports: Vec<_> = status["ports"].as_array().expect("a list").iter().collect();
    let published: Vec<_> = ports.iter().filter(|port| port["answer"]["kind"] == "dnat").collect();
    let [port] = published[..] else { panic!("{status:#}") };
    assert_eq!((&port["port"], &port["last_port"]), (&json!(8000), &json!(8999)));
    assert_eq!(
        (&port["answer"]["port"], &port["answer"]["last_port"], &port["state"]),
        (&json!(8000), &json!(8999), &json!("reachable"))
    );
    let text =
        nfguard_tests::program::nfguard(host, &["status", "--docker-socket", NOWHERE]).stdout;
    let lines: Vec<&str> = text.lines().filter(|line| line.contains("172.18.0.2")).collect();
    let [line] = lines[..] else { panic!("{text}") };
    assert!(line.starts_with("8000-8999/tcp ") && line.contains("172.18.0.2:8000-8999"), "{line}");
    nft(
        host,
        "table ip mine { chain in { type filter hook prerouting priority -200;
        tcp dport 8100-8999 drop; }; }\n",
    );
    let found = doctor(host);
    let words = finding_text(&found, "foreign-drop");
    assert!(words.ends_with("what the policy allows: in 8100-8999/tcp"), "{words}");
}

#[test]
fn each_uplink_and_each_ip_version_is_judged_by_its_own_way() {
    let (world, other) = (world(), netns());
    let host = &world.host;
    // IPv6 has an uplink of its own, and IPv4 a second one.
    veth(host, "eth1", &other, "eth0").expect("a link");
    let v6 = |text: &str| text.parse::<IpAddr>().expect("an address");
    host.address("eth1", v6("2001:db8:2::2"), 64).expect("an address");
    host.address("eth1", [192, 168, 7, 2].into(), 24).expect("an address");
    other.address("eth0", v6("2001:db8:2::1"), 64).expect("an address");
    other.address("eth0", [192, 168, 7, 1].into(), 24).expect("an address");
    for arguments in [
        "-6 route replace default via 2001:db8:2::1",
        "route replace default nexthop via 198.51.100.1 nexthop via 192.168.7.1",
    ] {
        ip(host, arguments);
    }
    load(host, WEB);
    let any: IpAddr = std::net::Ipv6Addr::UNSPECIFIED.into();
    let _server = host.serve_tcp(SocketAddr::new(any, 80)).expect("a server");
    let reaches = |to: IpAddr, is_meant: bool| {
        let probe = nfguard_lab::Probe::tcp(&other, SocketAddr::new(to, 80));
        probe.timeout(if is_meant { TIMEOUT } else { DEFAULT_TIMEOUT }).run().passed()
    };
    let own = [v6("2001:db8:2::2"), [192, 168, 7, 2].into()];
    let met = |rule: &str, reached: [bool; 2], found: bool| {
        drop(nfguard_tests::nft::try_nft(host, "delete table inet mine\n"));
        nft(
            host,
            &format!(
                "table inet mine {{ chain in {{ type filter hook input priority 0; {rule}; }}; }}\n"
            ),
        );
        let found_to_reach = [0, 1].map(|at| reaches(own[at], reached[at]));
        assert_eq!(found_to_reach, reached, "{rule}");
        let expected = if found { vec!["foreign-drop"] } else { vec![] };
        assert_eq!(codes(&doctor(host)), expected, "{rule}");
    };
    met("iifname eth1 meta nfproto ipv6 tcp dport 80 drop", [false, true], true);
    met("iifname eth1 meta nfproto ipv4 tcp dport 80 drop", [true, false], true);
    // No client of IPv6 comes by the uplink of IPv4.
    met("iifname eth0 meta nfproto ipv6 tcp dport 80 drop", [true, true], false);
    met("iifname eth2 tcp dport 80 drop", [true, true], false);
}
