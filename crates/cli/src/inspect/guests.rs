//! What the loaded policy does to guests of this host, and which guests it does not reach: containers
//! and virtual machines, whatever program runs them. Pure.

use std::collections::{BTreeMap, BTreeSet};
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

use nfguard_netlink::eval::{Fate, Memory};
use nfguard_netlink::{CmpOp, Expr, Hook, IpVersion, Link, MetaKey, Table, protocol};
use nfguard_policy::{DHCPV6_SERVERS, Flow, FlowPath, Payload, explain};

use crate::inspect::example::{self, SOURCE_PORT};
use crate::inspect::finding::Finding;
use crate::inspect::network::Network;
use crate::inspect::port_ranges;
use crate::inspect::ports::{self, PROTOCOLS};
use crate::inspect::system::Host;

/// The ports of DHCP servers and clients, by IP version.
const DHCPV4: (u16, u16) = (67, 68);
const DHCPV6: (u16, u16) = (547, 546);

/// Returns the problems of guests, the worst first.
pub(crate) fn findings(host: &Host, table: Option<&Table>) -> Vec<Finding> {
    let network = &host.network;
    let mut found = beside_the_hooks(network);
    let Some(table) = table else { return found };
    let mut reported = BTreeSet::new();
    for link in network.guest_links() {
        if let Some(finding) = refused_guests(network, table, link) {
            reported.insert(link.index);
            found.push(finding);
        }
    }
    let services = network.guest_links();
    found.extend(services.filter_map(|link| refused_services(host, table, link)));
    let bridges = network.links.values().filter(|link| !reported.contains(&link.index));
    found.extend(bridges.filter_map(|link| refused_on_bridge(network, table, link)));
    found
}

/// What the policy does with a connection.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Opinion {
    Allows,
    /// A rule refuses it.
    Refuses,
    /// No rule is about it, and the default refuses it.
    Ignores,
}

fn opinion(table: &Table, flow: &Flow) -> Opinion {
    let explanation = explain(table, flow, &mut Memory::default());
    if explanation.fate == Fate::Accept {
        return Opinion::Allows;
    }
    let rule = explanation.deciding().and_then(|(_, decision)| decision.rule);
    match rule.and_then(|(_, rule)| rule.comment.as_deref()) {
        None | Some("default") => Opinion::Ignores,
        // The default for what is sent to all.
        Some(comment) if comment.starts_with("builtin: quiet-broadcast") => Opinion::Ignores,
        Some(_) => Opinion::Refuses,
    }
}

/// Tells whether no rule is about any connection between these two.
fn is_ignored(
    table: &Table,
    (source, in_interface): (IpAddr, &str),
    (destination, out_interface): (IpAddr, &str),
) -> bool {
    let mut ranges = port_ranges::intervals(table).into_iter();
    ranges.all(|(port, _)| {
        PROTOCOLS.into_iter().all(|protocol| {
            let flow = Flow {
                path: FlowPath::Forward,
                source,
                destination,
                payload: Payload::Ports { protocol, source: SOURCE_PORT, destination: port },
                in_interface: in_interface.to_owned(),
                out_interface: out_interface.to_owned(),
            };
            opinion(table, &flow) == Opinion::Ignores
        })
    })
}

/// Tells whether a rule about what passes through names the interface that it comes in by.
fn is_named(table: &Table, name: &str) -> bool {
    // Behind a whole name comes a zero, behind the beginning of one nothing.
    let name = [name.as_bytes(), &[0; 16]].concat();
    let chains = table.chains.iter();
    let forward = chains.filter(|chain| chain.base.is_some_and(|base| base.hook == Hook::Forward));
    forward.flat_map(|chain| &chain.rules).any(|rule| {
        rule.exprs.windows(2).any(|pair| match pair {
            [Expr::Meta { key: MetaKey::Iifname, .. }, Expr::Cmp { op: CmpOp::Eq, data, .. }] => {
                name.starts_with(data)
            }
            _ => false,
        })
    })
}

/// Finds guests that may send nothing because the policy does not know their link.
fn refused_guests(network: &Network, table: &Table, link: &Link) -> Option<Finding> {
    if is_named(table, &link.name) {
        return None;
    }
    let is_refused = |version: &IpVersion| {
        let Some((guest, _)) = network.guest_of(link, *version) else { return false };
        network.forwards[*version]
            && network.uplinks_of(*version).into_iter().all(|uplink| {
                is_ignored(table, (guest, &link.name), (example::remote(*version), uplink))
            })
    };
    let versions: Vec<&str> =
        IpVersion::ALL.iter().filter(|version| is_refused(version)).map(word).collect();
    if versions.is_empty() {
        return None;
    }
    Some(Finding {
        code: "guests-refused",
        what: format!(
            "the policy lets nothing of the guests behind {} out, over {}",
            describe(network, link),
            versions.join(" and ")
        ),
        why: format!(
            "no rule is about what comes in by {}, and it is not among `containers`: the default for \
             `forward` refuses it",
            link.name
        ),
        fix: format!(
            "add \"{0}\" to `interfaces` of `containers`, with those that stand there (without the \
             key: \"docker0\", \"docker_gwbridge\" and \"br-*\"); then its guests may send what the \
             rules for `out` allow. Or allow it with a rule for `forward` with \"in_interface\": \
             \"{0}\"",
            link.name
        ),
    })
}

fn word(version: &IpVersion) -> &'static str {
    match version {
        IpVersion::V4 => "IPv4",
        IpVersion::V6 => "IPv6",
    }
}

/// `the bridge lxdbr0 (port veth1)`, `the interface cali0`
fn describe(network: &Network, link: &Link) -> String {
    let ports = network.ports_of(link);
    match &*link.kind {
        "bridge" => {
            let word = if ports.len() == 1 { "port" } else { "ports" };
            format!("the bridge {} ({word} {})", link.name, some_of(&ports))
        }
        _ => format!("the interface {}", link.name),
    }
}

/// The most names in one list.
const MAX_NAMES: usize = 4;

fn some_of<T: AsRef<str>>(names: &[T]) -> String {
    let some: Vec<&str> = names.iter().take(MAX_NAMES).map(AsRef::as_ref).collect();
    match names.len().saturating_sub(MAX_NAMES) {
        0 => some.join(", "),
        more => format!("{} and {more} more", some.join(", ")),
    }
}

/// Finds services of this host that are for these guests alone, and that the policy refuses to them:
/// their DHCP server and their resolver.
fn refused_services(host: &Host, table: &Table, link: &Link) -> Option<Finding> {
    let network = &host.network;
    let mut refused = BTreeMap::new();
    for socket in &host.listening {
        let version = IpVersion::of(socket.address);
        let Some((guest, Some(own))) = network.guest_of(link, version) else { continue };
        let is_address = |own: &nfguard_netlink::InterfaceAddress| {
            own.index == link.index && own.address == socket.address
        };
        if socket.interface != Some(link.index) && !network.addresses.iter().any(is_address) {
            continue;
        }
        let (source, destination, port) = match (version, socket.protocol, socket.port) {
            (IpVersion::V4, protocol::UDP, port) if port == DHCPV4.0 => {
                (Ipv4Addr::UNSPECIFIED.into(), Ipv4Addr::BROADCAST.into(), DHCPV4.1)
            }
            (IpVersion::V6, protocol::UDP, port) if port == DHCPV6.0 => {
                let guest = Ipv6Addr::new(0xfe80, 0, 0, 0, 0, 0, 0, 2);
                (guest.into(), DHCPV6_SERVERS.into(), DHCPV6.1)
            }
            _ if socket.address.is_unspecified() => (guest, own, SOURCE_PORT),
            _ => (guest, socket.address, SOURCE_PORT),
        };
        let flow = Flow {
            path: FlowPath::In,
            source,
            destination,
            payload: Payload::Ports {
                protocol: socket.protocol,
                source: port,
                destination: socket.port,
            },
            in_interface: link.name.clone(),
            out_interface: String::new(),
        };
        if opinion(table, &flow) == Opinion::Ignores {
            let owner = host.owners.get(&socket.inode).map(|owner| owner.name.clone());
            refused.insert((socket.port, socket.protocol), owner);
        }
    }
    let text = |((port, protocol), owner): (&(u16, u8), &Option<String>)| {
        let name = ports::name((*port, *port), *protocol);
        owner.as_ref().map_or(name.clone(), |owner| format!("{name} ({owner})"))
    };
    let names: Vec<String> = refused.iter().map(text).collect();
    if names.is_empty() {
        return None;
    }
    Some(Finding {
        code: "guest-service-refused",
        what: format!(
            "this host serves the guests behind {} at {}, and the policy refuses them",
            describe(network, link),
            some_of(&names)
        ),
        why: "no rule for `in` is about it: guests get no address at 67/udp and 547/udp, and resolve no \
              name at 53"
            .to_owned(),
        fix: format!(
            "add a rule for each, such as {{ \"action\": \"allow\", \"proto\": \"{}\", \"port\": {}, \
             \"in_interface\": \"{}\" }}",
            refused.keys().next().map_or("udp", |(_, protocol)| ports::protocol_name(*protocol)),
            refused.keys().next().map_or(DHCPV4.0, |(port, _)| *port),
            link.name
        ),
    })
}

/// Finds a bridge whose ports cannot reach each other, because the hooks see what passes over it and
/// the policy does not know it.
fn refused_on_bridge(network: &Network, table: &Table, link: &Link) -> Option<Finding> {
    let is_refused = |version: &&IpVersion| {
        let stand_ins = (example::host(**version), Some(example::remote(**version)));
        let (one, other) = network.guest_of(link, **version).unwrap_or(stand_ins);
        let other = other.unwrap_or(example::remote(**version));
        network.hooks_see(&link.name, **version)
            && is_ignored(table, (one, &link.name), (other, &link.name))
    };
    let versions: Vec<&IpVersion> = IpVersion::ALL.iter().filter(is_refused).collect();
    let first = **versions.first()?;
    let setting = |version: &IpVersion| match version {
        IpVersion::V4 => "iptables",
        IpVersion::V6 => "ip6tables",
    };
    let by_bridge = network.only_one_calls_hooks(first);
    let off: Vec<String> = versions
        .iter()
        .map(|version| match by_bridge {
            false => format!("`sysctl -w net.bridge.bridge-nf-call-{}=0`", setting(version)),
            true => {
                format!("`ip link set {} type bridge nf_call_{} 0`", link.name, setting(version))
            }
        })
        .collect();
    let words: Vec<&str> = versions.iter().map(|version| word(version)).collect();
    Some(Finding {
        code: "bridged-refused",
        what: format!(
            "the policy lets nothing pass over {}, over {}",
            describe(network, link),
            words.join(" and ")
        ),
        why: format!(
            "br_netfilter leads what passes from port to port of a bridge through the hooks \
             (bridge-nf-call-{}), and no rule for `forward` is about {}: guests on it are cut off from \
             its network",
            setting(&first),
            link.name
        ),
        fix: format!(
            "{}, unless another program (Docker, Kubernetes) needs the setting; or a rule {{ \
             \"action\": \"allow\", \"direction\": \"forward\", \"in_interface\": \"{1}\", \
             \"out_interface\": \"{1}\" }}",
            off.join(" and "),
            link.name
        ),
    })
}

/// Finds guests whose packets pass no hook of this host.
fn beside_the_hooks(network: &Network) -> Vec<Finding> {
    let guests = network.beside_the_hooks().into_iter();
    let finding = |(link, guests): (&str, Vec<String>)| Finding {
        code: "beside-the-hooks",
        what: format!("{link} is shared past every hook of this host: {}", some_of(&guests)),
        why: "its packets go between the guest and the network by the hardware's interface alone: \
              neither the policy nor a ban holds for it"
            .to_owned(),
        fix: "use a bridge and published ports; or filter inside of the guest, or in the network \
              before this host"
            .to_owned(),
    };
    guests.map(finding).collect()
}
