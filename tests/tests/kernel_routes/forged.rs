//! Sources that cannot come in where they do: they use up no limit of others, and containers send none.

use std::process::Command;

use super::*;

const OPERATOR: [IpAddr; 2] = [v4([192, 0, 2, 7]), v6(7, 7)];
const HOST: [IpAddr; 2] = [World::HOST_V4, World::HOST_V6];

/// Sends the first packets of connections to SSH, and a datagram from `own` behind them which shows that they
/// came.
fn forge_logins(sender: (&Netns, IpAddr), from: IpAddr, to: IpAddr, came: &Watch<'_>, mark: u16) {
    let (sender, own) = sender;
    // No two senders have a connection in common.
    let first = 30_000 + 20 * (mark - 7000);
    for port in first..first + 10 {
        let syn = packet::tcp(from, to, port, 22, packet::SYN);
        sender.send_raw(None, &packet::ip(from, to, protocol::TCP, 64, &syn)).expect("is sent");
    }
    send(sender, None, own, to, mark);
    came.must_see(mark);
}

#[test]
fn a_forger_elsewhere_uses_up_no_ones_limit() {
    let uplinks = Uplinks::new();
    let (world, host) = (&uplinks.world, &uplinks.world.host);
    host.sysctl("ipv4/conf/docker0/rp_filter", "0").expect("is set");
    let container = world.container.as_ref().expect("a container");
    let _servers = HOST.map(|host| world.host.serve_tcp((host, 22)).expect("a server"));
    send_syn_once(&world.internet);
    let came = Watch::new(host, "prerouting", "");
    let login = |netns, from: IpAddr, to| {
        let to = SocketAddr::new(to, 22);
        Probe::tcp(netns, to).from(from).timeout(TIMEOUT).run()
    };
    let inside = [World::CONTAINER_V4, World::CONTAINER_V6];
    let beside = [v4([10, 7, 0, 1]), v6(0x77, 1)];
    // Each way of keeping a container from it holds by itself, and so do both.
    for (round, builtin) in ["true", "false"].into_iter().enumerate() {
        let first = 7000 + 10 * u16::try_from(round).expect("small");
        nfguard(host, &["unload"]);
        load(
            host,
            &format!(
                r#""builtin": {{ "container-source": {builtin} }}, "rules": [
                    {{ "action": "allow", "proto": "udp", "port": "7000-7999" }},
                    {{ "name": "ssh", "action": "limit", "port": 22,
                       "limit": {{ "connections": 4, "seconds": 3600 }} }} ]"#
            ),
        );
        for (at, (from, to)) in OPERATOR.into_iter().zip(HOST).enumerate() {
            let mark = first + 2 * u16::try_from(at).expect("small");
            forge_logins((container, inside[at]), from, to, &came, mark);
            forge_logins((&uplinks.second, beside[at]), from, to, &came, mark + 1);
            for number in 0..3 {
                let outcome = login(&world.internet, from, to);
                assert!(outcome.passed(), "{builtin}, {from}, login {number}: {outcome}");
            }
            let outcome = login(&world.internet, from, to);
            assert!(matches!(outcome, ProbeOutcome::Refused(_)), "the control: {outcome}");
        }
    }
    // A host with two uplinks limits each, also where the answers take the other one.
    for (at, (from, to)) in FAR.into_iter().zip(HOST).enumerate() {
        let mark = 7100 + u16::try_from(at).expect("small");
        forge_logins((&uplinks.second, beside[at]), from, to, &came, mark);
    }
    let limits = nft(host, "list counters table inet nfguard\n");
    let (_, over) = limits.split_once("counter in/ssh/over {").expect("a counter");
    let refused: u64 = over.split_whitespace().nth(1).and_then(|it| it.parse().ok()).expect("one");
    // 7 of 10 for the operator of each IP version by each of two ways, one login, and 7 of 10 at last.
    assert_eq!(refused, 2 * (7 + 7 + 1) + 2 * 7, "{limits}");
}

/// A host whose container may reach everything, and what arrives from it.
#[test]
fn a_container_sends_in_its_own_name_alone() {
    let world = world_with_container();
    let (host, container) = (&world.host, world.container.as_ref().expect("a container"));
    for interface in ["all", "docker0", "eth0"] {
        host.sysctl(&format!("ipv4/conf/{interface}/rp_filter"), "0").expect("is set");
    }
    let delivered = Watch::new(host, "input", "iifname docker0");
    let left = Watch::new(&world.internet, "prerouting", "");
    let policy = |builtin: &str| {
        let keys = format!(
            r#""builtin": {{ {builtin} }}, "containers": {{ "egress": "open" }},
                "rules": [{{ "action": "allow", "proto": "udp", "port": ["67", "7000-7999"] }}]"#
        );
        load(host, &keys);
    };
    policy("");
    let own = [World::CONTAINER_V4, World::CONTAINER_V6];
    let mut port = 7000;
    for (at, far) in FAR.into_iter().enumerate() {
        // Of a stranger, of the host itself, and of the host's loopback.
        for from in [OPERATOR[at], HOST[at], v4([10, 99, 0, 1]), v6(0x99, 1)] {
            if from.is_ipv4() == far.is_ipv4() {
                send(container, None, from, far, port);
                send(container, None, from, HOST[at], port);
                port += 1;
            }
        }
        send(container, None, own[at], far, 7900);
        send(container, None, own[at], HOST[at], 7900);
        left.must_see(7900);
        delivered.must_see(7900);
        nft(&world.internet, "delete element inet watch_prerouting ports { 7900 }\n");
        nft(host, "delete element inet watch_input ports { 7900 }\n");
    }
    let forged = |ports: BTreeSet<u16>| -> Vec<u16> {
        ports.into_iter().filter(|port| (7000..7900).contains(port)).collect()
    };
    assert_eq!(forged(left.ports()), [0_u16; 0], "sent on");
    assert_eq!(forged(delivered.ports()), [0_u16; 0], "delivered");

    // It asks for an address, it finds out that an address is taken, and its peers send as themselves.
    let asks = packet::udp(v4([0, 0, 0, 0]), v4([255, 255, 255, 255]), 68, 67, b"discover");
    let asks = packet::ip(v4([0, 0, 0, 0]), v4([255, 255, 255, 255]), protocol::UDP, 64, &asks);
    // The kernel puts an address into a packet that has none, if it has one.
    ip(container, "-4 address flush dev eth0");
    container.send_raw(Some("eth0"), &asks).expect("is sent");
    delivered.must_see(67);
    ip(container, "address add 172.17.0.2/16 dev eth0");
    ip(container, "route add default via 172.17.0.1");
    for (setting, value) in [("conf/eth0/accept_dad", "1"), ("conf/eth0/dad_transmits", "3")] {
        container.sysctl(&format!("ipv6/{setting}"), value).expect("is set");
    }
    ip(container, "-6 address add 2001:db8:d0c::1/64 dev eth0");
    wait_until("the container knows that the host has the address", || {
        let shown = container.run(|| Command::new("ip").args(["-6", "address"]).output());
        String::from_utf8_lossy(&shown.expect("ip runs").stdout).contains("dadfailed")
    });
    let peers = [v4([10, 8, 0, 2]), v6(0x88, 2)];
    ip_each(
        host,
        ["route add 10.8.0.0/24 via 172.17.0.2", "route add 2001:db8:88::/64 via 2001:db8:d0c::2"],
    );
    for (at, peer) in peers.into_iter().enumerate() {
        send(container, None, peer, FAR[at], 7910 + u16::from(at > 0));
        left.must_see(7910 + u16::from(at > 0));
    }

    policy(r#""container-source": false"#);
    for (at, from) in OPERATOR.into_iter().enumerate() {
        let port = 7920 + u16::from(at > 0);
        send(container, None, from, FAR[at], port);
        send(container, None, from, HOST[at], port);
        left.must_see(port);
        delivered.must_see(port);
    }
    let counted = nft(host, "list counters table inet nfguard\n");
    assert!(!counted.contains("container-source"), "{counted}");
}
