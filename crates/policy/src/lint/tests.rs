//! A rule that the lint calls dead never matches, says a matcher that knows nothing of boxes.

use core::net::IpAddr;
use std::collections::BTreeSet;

use nfguard_netlink::eval::{Memory, Packet as KernelPacket, evaluate};
use nfguard_netlink::{Hook, fib_type};

use proptest::collection::vec;
use proptest::prelude::*;

use serde_json::json;

use crate::policy::{Addresses, Interface, Policy, Ports, Rule, Traffic};

#[derive(Clone, Debug)]
struct Packet {
    protocol: u8,
    /// Port or ICMP type.
    to_port: u16,
    from_port: u16,
    from: IpAddr,
    to: IpAddr,
    in_interface: &'static str,
}

/// Rules about so few packets that a test can try all of them.
fn policies() -> impl Strategy<Value = String> {
    let port =
        || (20_u16..26, 0_u16..4).prop_map(|(low, more)| json!(format!("{low}-{}", low + more)));
    let ports =
        move || prop_oneof![1 => Just(json!(null)), 3 => vec(port(), 1..3).prop_map(Into::into)];
    let nets = [
        "192.0.2.0/24",
        "192.0.2.0/25",
        "192.0.2.128/25",
        "192.0.2.7",
        "0.0.0.0/0",
        "::/0",
        "2001:db8::7",
    ];
    let peers = move || {
        prop_oneof![
            2 => Just(json!("any")),
            3 => vec(prop::sample::select(nets.to_vec()), 1..3).prop_map(|nets| json!(nets)),
        ]
    };
    let interfaces = ["eth*", "eth0", "eth1", "wg0"];
    let interface = prop_oneof![
        2 => Just(json!(null)),
        2 => vec(prop::sample::select(interfaces.to_vec()), 1..3).prop_map(|it| json!(it)),
    ];
    let protocol = prop_oneof![
        4 => Just(json!(["tcp"])), 2 => Just(json!(["tcp", "udp"])), 1 => Just(json!("gre")),
        1 => Just(json!("any")), 1 => Just(json!("icmp")),
    ];
    let rule = (protocol, ports(), ports(), peers(), peers(), interface).prop_map(
        |(proto, port, from_port, from, to, in_interface)| {
            let mut rule = json!({ "action": "allow", "proto": proto, "from": from, "to": to });
            let optional =
                [("port", port), ("from_port", from_port), ("in_interface", in_interface)];
            for (key, value) in optional {
                let fits = key == "in_interface" || proto.is_array();
                if fits && !value.is_null() {
                    rule[key] = value;
                }
            }
            rule
        },
    );
    vec(rule, 2..7).prop_map(|rules| json!({ "version": 1, "rules": rules }).to_string())
}

fn packets() -> Vec<Packet> {
    let addresses = ["192.0.2.7", "192.0.2.200", "10.1.2.3", "2001:db8::7", "fd00::1"];
    let addresses = addresses.map(|it| it.parse::<IpAddr>().unwrap());
    let mut packets = Vec::new();
    for (from, to) in addresses.iter().flat_map(|from| addresses.iter().map(move |to| (*from, *to)))
    {
        for in_interface in ["eth0", "eth1", "eth2", "wg0"] {
            for (protocol, ports) in [(6, 19..30), (17, 19..30), (47, 0..1), (1, 0..1), (99, 0..1)]
            {
                for to_port in ports.clone() {
                    for from_port in ports.clone().step_by(2) {
                        packets.push(Packet {
                            protocol,
                            to_port,
                            from_port,
                            from,
                            to,
                            in_interface,
                        });
                    }
                }
            }
        }
    }
    packets.retain(|it| {
        it.from.is_ipv4() == it.to.is_ipv4() && (it.protocol != 1 || it.from.is_ipv4())
    });
    packets
}

fn matches(rule: &Rule, packet: &Packet, policy: &Policy) -> bool {
    let within = |ports: &Ports, port: u16| {
        ports.0.is_empty() || ports.0.iter().any(|(low, high)| (*low..=*high).contains(&port))
    };
    let is_type = |types: &Option<Vec<u8>>| {
        types.as_ref().is_some_and(|types| {
            types.is_empty() || types.iter().any(|it| u16::from(*it) == packet.to_port)
        })
    };
    let traffic = match (&rule.traffic, packet.protocol) {
        (Traffic::Any, _) => true,
        (Traffic::Ports { tcp: Some(ports), source, .. }, 6)
        | (Traffic::Ports { udp: Some(ports), source, .. }, 17) => {
            within(ports, packet.to_port) && within(source, packet.from_port)
        }
        (Traffic::Icmp { v4, .. }, 1) => is_type(v4),
        (Traffic::Icmp { v6, .. }, 58) => is_type(v6),
        (Traffic::Protocols(numbers), protocol) => numbers.contains(&protocol),
        _ => false,
    };
    let side = |addresses: &Addresses, address: IpAddr| {
        let prefixes = match addresses {
            Addresses::Any => return true,
            Addresses::Group(index) => &policy.groups[*index].prefixes,
            Addresses::Prefixes(prefixes) => prefixes,
        };
        prefixes.nets().any(|net| net.contains(address))
    };
    let over = |interfaces: &[Interface], name: &str| {
        let is =
            |it: &Interface| if it.wildcard { name.starts_with(&it.name) } else { name == it.name };
        interfaces.is_empty() || interfaces.iter().any(is)
    };
    traffic
        && side(&rule.from, packet.from)
        && side(&rule.to, packet.to)
        && over(&rule.in_interface, packet.in_interface)
}

proptest! {
    #![proptest_config(ProptestConfig { failure_persistence: None, ..ProptestConfig::default() })]

    #[test]
    fn a_rule_that_can_never_match_never_does(text in policies()) {
        let Ok((policy, warnings)) = Policy::parse(&text) else { return Ok(()) };
        for warning in warnings.iter().filter(|it| it.message.contains("never")) {
            let index: usize = warning.pointer.split('/').nth(2).unwrap().parse().unwrap();
            if warning.pointer.matches('/').count() > 2 {
                // A rule, or a part of it, that matches nothing whatever stands before it.
                for (word, is_v4) in [("IPv4", true), ("IPv6", false)] {
                    let is_about = warning.message.contains(&format!("its {word} addresses"));
                    let mut of_version = packets();
                    of_version.retain(|packet| is_about && packet.from.is_ipv4() == is_v4);
                    let taken = of_version.iter().find(|it| matches(&policy.rules[index], it, &policy));
                    prop_assert!(taken.is_none(), "{warning}: {taken:?}");
                }
                continue;
            }
            let (dead, earlier) = (&policy.rules[index], &policy.rules[..index]);
            for packet in packets().iter().filter(|packet| matches(dead, packet, &policy)) {
                let is_taken = earlier.iter().any(|rule| matches(rule, packet, &policy));
                prop_assert!(is_taken, "{warning}: {packet:?}");
            }
        }
    }
}

/// What built-ins accept, and what is nearly that: rules about it, and packets of it.
fn policies_beside_built_ins() -> impl Strategy<Value = String> {
    let udp = |ports: &[(u16, u16)]| {
        let of = |(source, port): &(u16, u16)| {
            let mut rule = json!({ "proto": "udp", "port": port });
            if *source != 0 {
                rule["from_port"] = json!(source);
            }
            rule
        };
        ports.iter().map(of).collect::<Vec<_>>()
    };
    let icmp = |kinds: &[&[u8]], protocol: &str| {
        let of = |types: &&[u8]| json!({ "proto": protocol, "icmp_type": types });
        kinds.iter().map(of).collect::<Vec<_>>()
    };
    let v4: [&[u8]; 6] = [&[3], &[8, 3], &[5], &[13, 0], &[3, 11, 12], &[42]];
    let v6: [&[u8]; 7] = [&[1, 2], &[134], &[133, 136], &[137], &[130, 143], &[141], &[128, 2]];
    let mut traffic = [icmp(&v4, "icmp"), icmp(&v6, "icmpv6")].concat();
    traffic.extend([(); 3].iter().flat_map(|()| {
        udp(&[(67, 68), (68, 67), (0, 68), (547, 546), (0, 546), (0, 547), (7, 7)])
    }));
    traffic.extend(["igmp", "vrrp", "any"].map(|proto| json!({ "proto": proto })));
    let ends =
        ["any", "fe80::/10", "fe80::1", "224.0.0.0/4", "224.0.0.22", "192.0.2.7", "ff02::1:2"];
    let end = || prop::sample::select([&["any"; 6][..], &ends].concat());
    let links: [&[&str]; 6] = [&[], &[], &[], &["lo"], &["lo", "eth0"], &["lo*"]];
    let rule = (
        prop::sample::select(traffic),
        prop::sample::select(vec!["in", "out", "forward"]),
        prop::sample::select(vec!["allow", "deny"]),
        (end(), end()),
        prop::sample::select(links.to_vec()),
    );
    let rule = rule.prop_map(|(mut rule, direction, action, (from, to), links)| {
        for (key, value) in
            [("direction", direction), ("action", action), ("from", from), ("to", to)]
        {
            rule[key] = json!(value);
        }
        if !links.is_empty() && direction != "forward" {
            rule[&format!("{direction}_interface")] = json!(links);
        }
        rule
    });
    let switched_off = prop::sample::subsequence(
        vec!["icmp-errors", "igmp", "dhcpv4-client", "invalid", "loopback", "neighbour-discovery"],
        0..2,
    );
    (vec(rule, 1..6), switched_off).prop_map(|(rules, off)| {
        let off: serde_json::Map<_, _> =
            off.into_iter().map(|name| (name.to_owned(), json!(false))).collect();
        json!({ "version": 1, "builtin": off, "rules": rules }).to_string()
    })
}

/// Returns packets beside built-ins, each as the hooks of a direction see it.
fn packets_beside_built_ins(direction: &str) -> Vec<Vec<(Hook, KernelPacket)>> {
    let hooks: &[Hook] = match direction {
        "in" => &[Hook::Prerouting, Hook::Input],
        "out" => &[Hook::Output, Hook::Postrouting],
        _ => &[Hook::Prerouting, Hook::Forward],
    };
    let addresses =
        ["192.0.2.7", "224.0.0.22", "198.51.100.2", "fe80::1", "2001:db8::7", "ff02::1:2"];
    let addresses = addresses.map(|it| it.parse::<IpAddr>().unwrap());
    let mut all = Vec::new();
    for from in addresses.into_iter().filter(|from| !from.is_multicast()) {
        for to in addresses.into_iter().filter(|to| to.is_ipv4() == from.is_ipv4()) {
            let udp = [(67, 68), (68, 67), (7, 68), (547, 546), (7, 546), (546, 547), (7, 7)];
            let udp = udp.map(|ports| KernelPacket::new(from, to, 17, ports));
            let bare = |number| KernelPacket {
                transport: Vec::new(),
                ..KernelPacket::new(from, to, number, (0, 0))
            };
            let icmp = [0, 1, 2, 3, 5, 8, 11, 13, 42, 128, 130, 133, 134, 136, 137, 141, 143];
            let icmp = icmp.map(|kind| KernelPacket {
                hop_limit: if (133..=142).contains(&kind) { 255 } else { 64 },
                ..KernelPacket::icmp(from, to, kind)
            });
            for (packet, link) in
                udp.into_iter().chain(icmp).chain([2, 112].map(bare)).flat_map(|packet| {
                    ["lo", "eth0", "docker0"].map(|link| (packet.clone(), link.to_owned()))
                })
            {
                let fib_daddr_type = match direction {
                    _ if to.is_multicast() => fib_type::MULTICAST,
                    "in" => fib_type::LOCAL,
                    _ => fib_type::UNICAST,
                };
                let packet = KernelPacket {
                    fib_daddr_type,
                    fib_saddr_type: if direction == "out" {
                        fib_type::LOCAL
                    } else {
                        fib_type::UNICAST
                    },
                    ..packet
                };
                let at = |hook: &Hook| {
                    let (mut incoming, mut outgoing) = (String::new(), String::new());
                    match direction {
                        "in" => incoming.clone_from(&link),
                        "out" => outgoing.clone_from(&link),
                        _ => (incoming, outgoing) = (link.replace("lo", "eth0"), "eth1".to_owned()),
                    }
                    (
                        *hook,
                        KernelPacket {
                            in_interface: incoming,
                            out_interface: outgoing,
                            ..packet.clone()
                        },
                    )
                };
                all.push(hooks.iter().map(at).collect());
            }
        }
    }
    all
}

proptest! {
    #![proptest_config(ProptestConfig { failure_persistence: None, cases: 256, ..ProptestConfig::default() })]

    #[test]
    fn a_rule_behind_a_built_in_never_decides(text in policies_beside_built_ins()) {
        let Ok((policy, warnings)) = Policy::parse(&text) else { return Ok(()) };
        let table = policy.compile();
        let mut decided = BTreeSet::new();
        for direction in ["in", "out", "forward"] {
            for packet in packets_beside_built_ins(direction) {
                for (hook, packet) in packet {
                    let Some(decision) = evaluate(&table, hook, &packet, &mut Memory::default()) else { continue };
                    decided.extend(decision.matched.iter().filter_map(|(.., rule)| rule.comment.clone()));
                    if decision.fate != nfguard_netlink::eval::Fate::Accept {
                        break;
                    }
                }
            }
        }
        for (index, rule) in policy.rules.iter().enumerate() {
            let is_dead = warnings.iter().any(|warning| {
                warning.pointer == format!("/rules/{index}")
                    && warning.message.starts_with("the rule can never match")
            });
            prop_assert!(!is_dead || !decided.contains(&rule.name), "{}", rule.name);
        }
    }
}
