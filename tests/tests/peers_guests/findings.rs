//! The guests that the policy does not know: `doctor` names them, and only them.

use std::net::{IpAddr, Ipv4Addr, SocketAddr};

use nfguard_lab::{Probe, World, packet, veth};
use nfguard_netlink::protocol;
use nfguard_tests::place::{netns, world};
use nfguard_tests::program::nfguard;
use nfguard_tests::wait::TIMEOUT;
use serde_json::Value;

use super::{BRIDGE, HTTPS, Hosted, NOWHERE, codes, findings, load, only, policy, reaches, run};

#[test]
fn guests_of_a_bridge_that_the_policy_does_not_name_are_found() {
    for bridge in ["traefik_net", "podman0", "cni0", "lxdbr0", "virbr0"] {
        let hosted = Hosted::behind(bridge);
        hosted.reaches(true);
        assert_eq!(codes(hosted.host()), [""; 0], "no policy refuses them");
        load(hosted.host(), &policy("", ""));
        hosted.reaches(false);
        let what = only(hosted.host(), "guests-refused");
        assert!(what.contains(bridge) && what.contains("veth1"), "{what}");
        // What the finding says helps.
        let containers = format!(r#""containers": {{ "interfaces": ["docker0", "{bridge}"] }},"#);
        load(hosted.host(), &policy(&containers, ""));
        assert_eq!(codes(hosted.host()), [""; 0]);
        hosted.reaches(true);
    }
}

#[test]
fn guests_that_the_policy_knows_are_no_finding() {
    let named = r#"{ "action": "allow", "direction": "forward", "in_interface": "lxd*",
        "to": "198.51.100.0/24", "proto": "tcp", "port": 443 },"#;
    let by_prefix = r#"{ "action": "allow", "direction": "forward", "from": "10.77.0.0/24" },"#;
    let refused = r#"{ "action": "deny", "direction": "forward", "from": "10.77.0.0/24" },"#;
    for (bridge, more, rules, reaches) in [
        ("br-7f2a", "", "", true),
        ("lxdbr0", r#""default": { "forward": "accept" },"#, "", true),
        ("lxdbr0", "", named, true),
        ("lxdbr0", "", by_prefix, true),
        ("lxdbr0", "", refused, false),
    ] {
        let hosted = Hosted::behind(bridge);
        load(hosted.host(), &policy(more, rules));
        assert_eq!(codes(hosted.host()), [""; 0], "{bridge} {more} {rules}");
        hosted.reaches(reaches);
    }
    let hosted = Hosted::behind("lxdbr0");
    load(hosted.host(), &policy("", ""));
    assert_eq!(codes(hosted.host()), ["guests-refused"]);
    // Where the kernel forwards nothing, the policy refuses nothing.
    for setting in ["ipv4/ip_forward", "ipv6/conf/all/forwarding"] {
        hosted.host().sysctl(setting, "0").expect("a setting");
    }
    assert_eq!(codes(hosted.host()), [""; 0]);
}

#[test]
fn guests_behind_an_interface_of_their_own_are_found() {
    // As Calico does: neither a bridge nor an address, only a route.
    let hosted = Hosted::bare();
    let host = hosted.host();
    veth(host, "cali7f2a", &hosted.guest, "eth0").expect("a link");
    run(host, "ip", "address add 10.77.0.1/32 dev lo");
    run(host, "ip", "route add 10.77.0.2/32 dev cali7f2a");
    hosted.connect();
    hosted.reaches(true);
    load(host, &policy("", ""));
    hosted.reaches(false);
    let what = only(host, "guests-refused");
    assert!(what.contains("cali7f2a") && what.contains("IPv4") && !what.contains("IPv6"), "{what}");
    load(host, &policy(r#""containers": { "interfaces": ["cali*"] },"#, ""));
    assert_eq!(codes(host), [""; 0]);
    hosted.reaches(true);

    // A virtual machine behind a tap; a tunnel of IP packets is no guest.
    for (mode, expected) in [("tap", vec!["guests-refused"]), ("tun", vec![])] {
        let hosted = Hosted::bare();
        run(hosted.host(), "ip", &format!("tuntap add vnet0 mode {mode}"));
        run(hosted.host(), "ip", "address add 10.77.0.1/24 dev vnet0");
        run(hosted.host(), "ip", "link set vnet0 up");
        load(hosted.host(), &policy("", ""));
        assert_eq!(codes(hosted.host()), expected, "{mode}");
    }
}

#[test]
fn rules_of_others_that_drop_what_guests_may_send_are_found() {
    let hosted = Hosted::behind("lxdbr0");
    let containers = r#""containers": { "interfaces": ["lxdbr0"] },"#;
    load(hosted.host(), &policy(containers, ""));
    assert_eq!(codes(hosted.host()), [""; 0]);
    hosted.reaches(true);
    // Docker's chain drops what passes through, and knows its own bridges alone.
    run(hosted.host(), "iptables-nft", "-P FORWARD DROP");
    let what = only(hosted.host(), "foreign-drop");
    assert!(what.contains("chain FORWARD") && what.contains("out 443/tcp from lxdbr0"), "{what}");
    hosted.reaches(false);
    run(hosted.host(), "iptables-nft", "-A FORWARD -i lxdbr0 -j ACCEPT");
    run(hosted.host(), "iptables-nft", "-A FORWARD -o lxdbr0 -j ACCEPT");
    assert_eq!(codes(hosted.host()), [""; 0]);
    hosted.reaches(true);
}

/// Puts the host's uplink and a guest on one bridge, as a hypervisor does for guests of the network.
fn on_the_network() -> Hosted {
    let hosted = Hosted::bare();
    let host = hosted.host();
    host.bridge("br0").expect("a bridge");
    run(host, "ip", "address flush dev eth0");
    host.enslave("eth0", "br0").expect("a port");
    veth(host, "vnet0", &hosted.guest, "eth0").expect("a link");
    host.enslave("vnet0", "br0").expect("a port");
    host.address("br0", World::HOST_V4, 24).expect("an address");
    host.address("br0", World::HOST_V6, 64).expect("an address");
    run(host, "ip", "route replace default via 198.51.100.1");
    run(host, "ip", "-6 route replace default via 2001:db8:1::1");
    let guest = &hosted.guest;
    guest.address("eth0", [198, 51, 100, 77].into(), 24).expect("an address");
    guest.address("eth0", "2001:db8:1::77".parse().expect("an address"), 64).expect("an address");
    hosted
}

#[test]
fn guests_on_a_bridge_of_the_network_are_found_where_the_hooks_see_them() {
    let hosted = on_the_network();
    let host = hosted.host();
    let v6 = SocketAddr::new(World::INTERNET_V6, HTTPS);
    let _server = hosted.world.internet.serve_tcp(v6).expect("a server");
    let set = |v4: &str, v6: &str| {
        host.sysctl("bridge/bridge-nf-call-iptables", v4).expect("br_netfilter is there");
        host.sysctl("bridge/bridge-nf-call-ip6tables", v6).expect("br_netfilter is there");
    };
    set("0", "0");
    load(host, &policy("", ""));
    assert_eq!(codes(host), [""; 0]);
    hosted.reaches(true);
    reaches(&hosted.guest, v6, true);

    set("1", "0");
    let what = only(host, "bridged-refused");
    for words in ["br0", "vnet0", "IPv4"] {
        assert!(what.contains(words) && !what.contains("IPv6"), "{what}");
    }
    let fix = findings(host)[0]["fix"].as_str().expect("words").to_owned();
    assert!(fix.contains("sysctl -w net.bridge.bridge-nf-call-iptables=0"), "{fix}");
    hosted.reaches(false);
    reaches(&hosted.guest, v6, true);
    set("0", "1");
    let what = only(host, "bridged-refused");
    assert!(what.contains("IPv6") && !what.contains("IPv4"), "{what}");
    hosted.reaches(true);
    reaches(&hosted.guest, v6, false);

    // The rule that the finding names.
    set("1", "1");
    let at = fix.find("{ \"action\"").expect("a rule");
    let rule = &fix[at..=fix.rfind('}').expect("its end")];
    load(host, &policy("", &format!("{rule},")));
    assert_eq!(codes(host), [""; 0]);
    hosted.reaches(true);
    reaches(&hosted.guest, v6, true);

    // Docker's chain drops what passes over the bridge too.
    run(host, "iptables-nft", "-P FORWARD DROP");
    let what = only(host, "foreign-drop");
    assert!(what.contains("chain FORWARD") && what.contains("over br0"), "{what}");
    hosted.reaches(false);
    run(host, "iptables-nft", "-A FORWARD -i br0 -o br0 -j ACCEPT");
    assert_eq!(codes(host), [""; 0]);
    hosted.reaches(true);

    // One bridge alone may have the setting too.
    set("0", "0");
    load(host, &policy("", ""));
    run(host, "ip", "link set br0 type bridge nf_call_iptables 1");
    let fix = findings(host)[0]["fix"].as_str().expect("words").to_owned();
    assert!(fix.contains("ip link set br0 type bridge nf_call_iptables 0"), "{fix}");
    hosted.reaches(false);
    run(host, "ip", "link set br0 type bridge nf_call_iptables 0");
    assert_eq!(codes(host), [""; 0]);
    hosted.reaches(true);
}

#[test]
fn a_service_for_guests_that_the_policy_refuses_is_found() {
    let hosted = Hosted::behind("lxdbr0");
    let host = hosted.host();
    let own = SocketAddr::new(BRIDGE.into(), 5432);
    let _service = host.serve_tcp(own).expect("a server");
    reaches(&hosted.guest, own, true);
    let containers = r#""containers": { "interfaces": ["lxdbr0"] },"#;
    load(host, &policy(containers, ""));
    let what = only(host, "guest-service-refused");
    assert!(what.contains("lxdbr0") && what.contains("5432/tcp"), "{what}");
    reaches(&hosted.guest, own, false);
    let fix = findings(host)[0]["fix"].as_str().expect("words").to_owned();
    let at = fix.find("{ \"action\"").expect("a rule");
    let rule = &fix[at..=fix.rfind('}').expect("its end")];
    load(host, &policy(containers, &format!("{rule},")));
    assert_eq!(codes(host), [""; 0]);
    reaches(&hosted.guest, own, true);
    // A rule that refuses it says that the operator knows.
    load(host, &policy(containers, r#"{ "action": "deny", "port": 5432 },"#));
    assert_eq!(codes(host), [""; 0]);
}

#[test]
fn two_networks_of_guests_are_told_apart() {
    let hosted = Hosted::behind("lxdbr0");
    let host = hosted.host();
    let other = netns();
    host.bridge("cni0").expect("a bridge");
    host.address("cni0", [10, 88, 0, 1].into(), 24).expect("an address");
    veth(host, "veth2", &other, "eth0").expect("a link");
    host.enslave("veth2", "cni0").expect("a port");
    load(host, &policy(r#""containers": { "interfaces": ["lxdbr0"] },"#, ""));
    let what = only(host, "guests-refused");
    assert!(what.contains("cni0") && !what.contains("lxdbr0"), "{what}");
}

#[test]
fn an_uplink_that_the_kernel_does_not_listen_to_is_found_with_what_helps() {
    let world = world();
    let host = &world.host;
    let second = netns();
    veth(host, "eth1", &second, "eth0").expect("a link");
    host.address("eth1", [10, 9, 0, 2].into(), 24).expect("an address");
    second.address("eth0", [10, 9, 0, 1].into(), 24).expect("an address");
    second.own_prefix([203, 0, 113, 0].into(), 24).expect("addresses");
    run(host, "ip", "route add default via 10.9.0.1 metric 500");
    load(host, r#"{ "version": 1, "rules": [ { "action": "allow", "port": 443 } ] }"#);
    let any = SocketAddr::from((Ipv4Addr::UNSPECIFIED, HTTPS));
    let _server = host.serve_tcp(any).expect("a server");
    // The packet of a client of the internet that came by the second uplink.
    let arrives = || {
        let counter = || {
            let answer = nfguard(host, &["status", "--docker-socket", NOWHERE, "--json"]);
            let status: Value = serde_json::from_str(&answer.stdout).expect("JSON");
            status["counters"]["in/allow-443"]["packets"].as_u64().expect("a count")
        };
        let before = counter();
        let (from, to) = (IpAddr::from([203, 0, 113, 9]), IpAddr::from([10, 9, 0, 2]));
        let syn = packet::tcp(from, to, 40_000, HTTPS, packet::SYN);
        let sender = second.raw_sender().expect("a raw socket");
        sender.send(&packet::ip(from, to, protocol::TCP, 64, &syn)).expect("sent");
        // One from the link itself comes after it, and always arrives.
        let near = Probe::tcp(&second, SocketAddr::new(to, HTTPS)).timeout(TIMEOUT);
        assert!(near.run().passed());
        counter() - before > 1
    };
    host.sysctl("ipv4/conf/all/rp_filter", "0").expect("a setting");
    host.sysctl("ipv4/conf/eth1/rp_filter", "1").expect("a setting");
    let what = only(host, "uplink-deaf");
    assert!(what.contains("eth1"), "{what}");
    assert!(!arrives());
    // Both remedies of the finding.
    run(host, "ip", "rule add from 10.9.0.2 table 77");
    run(host, "ip", "route add default via 10.9.0.1 table 77");
    assert_eq!(codes(host), [""; 0]);
    assert!(arrives());
    run(host, "ip", "rule del from 10.9.0.2 table 77");
    assert_eq!(only(host, "uplink-deaf"), what);
    host.sysctl("ipv4/conf/eth1/rp_filter", "2").expect("a setting");
    assert_eq!(codes(host), [""; 0]);
    assert!(arrives());
}
