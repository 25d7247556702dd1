//! Sets of what rules list: addresses, ports and ICMP types.

use nfguard_netlink::{Element, IpVersion, Key, KeyType, Set};

use super::expr;
use crate::policy::{Addresses, Ports, Prefixes, Rule, Traffic};

/// Returns the sets of a group or of a rule's addresses: one for each IP version with an address.
pub(super) fn prefix_sets(name: &str, prefixes: &Prefixes) -> Vec<Set> {
    let networks = |version| {
        let keys: Vec<Key> = networks(prefixes, version)
            .into_iter()
            .map(|(first, len)| {
                let last = last_of(&first, len);
                Key::Range(first, last)
            })
            .collect();
        (!keys.is_empty()).then(|| Set {
            name: format!("{name}/{}", version.suffix()),
            key: vec![expr::address_key(version)],
            interval: true,
            elements: keys.into_iter().map(Element::from).collect(),
            ..Set::default()
        })
    };
    IpVersion::ALL.into_iter().filter_map(networks).collect()
}

pub(super) fn group_set(group: &str) -> String {
    format!("group/{group}")
}

pub(super) fn value_set(name: &str, key: KeyType, values: impl Iterator<Item = Vec<u8>>) -> Set {
    let elements = values.map(|value| Element::from(Key::Value(value))).collect();
    Set { name: name.to_owned(), key: vec![key], elements, ..Set::default() }
}

/// Returns the sets of the addresses, ports and ICMP types that a rule lists.
pub(super) fn sets(rule: &Rule, object: &str) -> Vec<Set> {
    let mut sets = Vec::new();
    for (end, addresses) in [("from", &rule.from), ("to", &rule.to)] {
        if let Addresses::Prefixes(prefixes) = addresses {
            let all = prefix_sets(&format!("{object}/{end}"), prefixes);
            sets.extend(all.into_iter().filter(|set| set.elements.len() > 1));
        }
    }
    match &rule.traffic {
        Traffic::Ports { tcp, udp, source } => {
            let named = [("tcp", tcp.as_ref()), ("udp", udp.as_ref()), ("source", Some(source))];
            for (name, ports) in named {
                if let Some(ports) = ports.filter(|ports| ports.0.len() > 1) {
                    sets.push(port_set(&format!("{object}/{name}"), ports));
                }
            }
        }
        Traffic::Icmp { v4, v6 } => {
            let lists = [("icmp", KeyType::IcmpType, v4), ("icmpv6", KeyType::Icmpv6Type, v6)];
            for (name, key, types) in lists {
                if let Some(types) = types.as_ref().filter(|types| types.len() > 1) {
                    let values = types.iter().map(|kind| vec![*kind]);
                    sets.push(value_set(&format!("{object}/{name}"), key, values));
                }
            }
        }
        Traffic::Any | Traffic::Protocols(_) => {}
    }
    sets
}

fn port_set(name: &str, ports: &Ports) -> Set {
    let bytes = |port: u16| port.to_be_bytes().to_vec();
    let interval = ports.0.iter().any(|(first, last)| first != last);
    let key = |(first, last): &(u16, u16)| {
        if interval { Key::Range(bytes(*first), bytes(*last)) } else { Key::Value(bytes(*first)) }
    };
    Set {
        name: name.to_owned(),
        key: vec![KeyType::InetService],
        interval,
        elements: ports.0.iter().map(|range| Element::from(key(range))).collect(),
        ..Set::default()
    }
}

/// Returns the prefixes of an IP version as the bytes of their network and their length.
pub(super) fn networks(prefixes: &Prefixes, version: IpVersion) -> Vec<(Vec<u8>, u8)> {
    match version {
        IpVersion::V4 => {
            prefixes.v4.iter().map(|net| (net.network().octets().to_vec(), net.prefix())).collect()
        }
        IpVersion::V6 => {
            prefixes.v6.iter().map(|net| (net.network().octets().to_vec(), net.prefix())).collect()
        }
    }
}

/// Returns the last address of a prefix.
fn last_of(network: &[u8], len: u8) -> Vec<u8> {
    let host_bits = |at: usize| {
        let ones = usize::from(len).saturating_sub(at * 8).min(8);
        u8::try_from(0xff_usize >> ones).unwrap_or(0)
    };
    network.iter().enumerate().map(|(at, byte)| byte | host_bits(at)).collect()
}
