//! What the policy allows and another program's rules drop. Pure.

use std::net::IpAddr;

use nfguard_netlink::eval::{Fate, Memory, Packet};
use nfguard_netlink::{
    ChainPolicy, ForeignChain, ForeignTable, ForeignVerdict, Hook, IpVersion, Table, fib_type, text,
};
use nfguard_policy::{Flow, FlowPath, Payload, explain};

use crate::inspect::example::{self, SOURCE_PORT};
use crate::inspect::finding::{Facts, Finding};
use crate::inspect::network::Network;
use crate::inspect::port_ranges;
use crate::inspect::ports::{self, Port, Responder};

/// The most ports that one finding names.
const MAX_NAMED_PORTS: usize = 8;

/// A connection that the policy allows.
struct Allowed {
    name: Name,
    /// The first packet at each hook on its path.
    packets: Vec<(Hook, Packet)>,
}

/// The name of a connection: `in 80/tcp`, `out 443/tcp from lxdbr0`.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
struct Name {
    direction: Direction,
    protocol: u8,
    ports: (u16, u16),
}

#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
enum Direction {
    In,
    Out,
    /// From guests behind the link of this name.
    OutFrom(String),
    /// From port to port of the bridge of this name.
    Over(String),
}

pub(crate) fn findings(facts: &Facts<'_>) -> Vec<Finding> {
    let cuts = facts.host.tables().flat_map(ports_in);
    let mut cuts: Vec<u16> = cuts.collect();
    cuts.sort_unstable();
    cuts.dedup();
    let ports = facts.ports.iter().flat_map(|port| port.cut(&cuts));
    let allowed: Vec<Allowed> = ports
        .flat_map(|port| ways_in(&facts.host.network, &port))
        .chain(ways_out(facts, &cuts))
        .collect();
    let mut found = Vec::new();
    for table in facts.host.tables() {
        for chain in &table.chains {
            let Some((base, filter)) = chain.base.zip(table.filter_of(chain)) else { continue };
            let (mut names, mut certain) = (Vec::new(), true);
            for connection in &allowed {
                let at_hook = connection.packets.iter().filter(|(hook, _)| *hook == base.hook);
                for (_, packet) in at_hook {
                    if let Some(ForeignVerdict::Drops { certain: is }) = filter.verdict(packet) {
                        certain &= is;
                        names.push(connection.name.clone());
                    }
                }
            }
            if !names.is_empty() {
                let names = summed_up(names);
                found.push(finding(table, chain, base.policy, base.hook, &names, certain));
            }
        }
    }
    found
}

/// Returns the texts of the names, with ranges in place of adjacent ports.
fn summed_up(mut names: Vec<Name>) -> Vec<String> {
    names.sort();
    let mut sums: Vec<Name> = Vec::new();
    for name in names {
        match sums.last_mut() {
            Some(last)
                if last.ports.1.saturating_add(1) >= name.ports.0
                    && Name { ports: name.ports, ..last.clone() } == name =>
            {
                last.ports.1 = last.ports.1.max(name.ports.1);
            }
            _ => sums.push(name),
        }
    }
    let text = |name: &Name| {
        let ports = ports::name(name.ports, name.protocol);
        match &name.direction {
            Direction::In => format!("in {ports}"),
            Direction::Out => format!("out {ports}"),
            Direction::OutFrom(link) => format!("out {ports} from {link}"),
            Direction::Over(bridge) => format!("{ports} over {bridge}"),
        }
    };
    sums.iter().map(text).collect()
}

fn finding(
    table: &ForeignTable,
    chain: &ForeignChain,
    policy: ChainPolicy,
    hook: Hook,
    names: &[String],
    certain: bool,
) -> Finding {
    let policy = if policy == ChainPolicy::Drop { "drop" } else { "accept" };
    let (verb, but) = match certain {
        true => ("drops", ""),
        false => ("may drop", ", unless one of its rules that nfguard cannot read lets it pass"),
    };
    let more = match names.len().saturating_sub(MAX_NAMED_PORTS) {
        0 => String::new(),
        more => format!(" and {more} more"),
    };
    let some = names.iter().take(MAX_NAMED_PORTS).map(String::as_str).collect::<Vec<_>>();
    let some = some.join(", ");
    Finding {
        code: "foreign-drop",
        what: format!(
            "table {} {}, chain {} (hook {}, policy {policy}) {verb} what the policy allows: \
             {some}{more}{but}",
            table.family.word(),
            table.name,
            chain.name,
            text::hook_word(hook),
        ),
        why: "a packet has to pass every table: an accept in nfguard's table ends only that table"
            .to_owned(),
        fix: "let that firewall accept the same traffic, or remove its rules and leave the filtering to \
              nfguard"
            .to_owned(),
    }
}

/// Returns the ports at which a verdict of the table may change.
fn ports_in(table: &ForeignTable) -> Vec<u16> {
    let exprs = table.chains.iter().flat_map(|chain| &chain.rules).flat_map(|rule| &rule.exprs);
    port_ranges::starts(exprs, &table.sets)
}

fn ways_in(network: &Network, port: &Port) -> Vec<Allowed> {
    if !port.admission.as_ref().is_some_and(|admission| admission.allowed) {
        return Vec::new();
    }
    let mut allowed = Vec::new();
    for version in &port.ip_versions {
        for uplink in network.uplinks_of(*version) {
            let (from, own) = (example::remote(*version), port.on.unwrap_or(network.own(*version)));
            let first = Packet {
                in_interface: uplink.to_owned(),
                ..Packet::new(from, own, port.protocol, (SOURCE_PORT, port.ports.0))
            };
            let rest = match &port.responder {
                Responder::Translated { to, .. } => {
                    forwarded(network, &first, port, to.address, to.ports.0)
                }
                _ => vec![(Hook::Input, first.clone())],
            };
            let (direction, protocol) = (Direction::In, port.protocol);
            let name = Name { direction, protocol, ports: port.ports };
            let packets = [(Hook::Prerouting, first)].into_iter().chain(rest).collect();
            allowed.push(Allowed { name, packets });
        }
    }
    allowed
}

/// Returns the packet at the hooks behind address translation; at none if no route leads on, because
/// then no rule decides.
fn forwarded(
    network: &Network,
    packet: &Packet,
    port: &Port,
    to: IpAddr,
    to_port: u16,
) -> Vec<(Hook, Packet)> {
    let Some(way) = network.way(to) else { return Vec::new() };
    let packet = Packet {
        in_interface: packet.in_interface.clone(),
        dnat_from: Some((packet.destination, port.ports.0)),
        ..Packet::new(packet.source, to, port.protocol, (SOURCE_PORT, to_port))
    };
    if way.is_local() {
        return vec![(Hook::Input, packet)];
    }
    let packet = Packet {
        out_interface: way.interface.clone(),
        fib_daddr_type: fib_type::UNICAST,
        ..packet
    };
    vec![(Hook::Forward, packet.clone()), (Hook::Postrouting, leaving(packet))]
}

/// Returns the packet behind the routing decision, where the input interface is unknown.
fn leaving(packet: Packet) -> Packet {
    Packet { in_interface: String::new(), ..packet }
}

/// Returns what this host and its guests may send to the internet.
fn ways_out(facts: &Facts<'_>, cuts: &[u16]) -> Vec<Allowed> {
    let Some(table) = facts.table else { return Vec::new() };
    let network = &facts.host.network;
    let mut allowed = Vec::new();
    for version in IpVersion::ALL {
        for uplink in network.uplinks_of(version) {
            let own = network.own(version);
            allowed.extend(ways_from(table, &Direction::Out, own, uplink, cuts));
            // There may be many guests. Each range of the policy stands for all of its ports.
            let mut from = |direction, source| {
                allowed.extend(ways_from(table, &direction, source, uplink, &[]));
            };
            // Of a guest on a bridge of the network, only what the hooks see may be dropped.
            if network.hooks_see(uplink, version) {
                from(Direction::Over(uplink.to_owned()), example::host(version));
            }
            let guests = network.guest_links().filter(|_| network.forwards[version]);
            for link in guests {
                if let Some((guest, _)) = network.guest_of(link, version) {
                    from(Direction::OutFrom(link.name.clone()), guest);
                }
            }
        }
    }
    allowed
}

/// Returns what the policy allows from one sender to the internet.
fn ways_from(
    table: &Table,
    direction: &Direction,
    source: IpAddr,
    uplink: &str,
    cuts: &[u16],
) -> Vec<Allowed> {
    let destination = example::remote(IpVersion::of(source));
    let (path, in_interface) = match direction {
        Direction::OutFrom(link) | Direction::Over(link) => (FlowPath::Forward, link.as_str()),
        Direction::In | Direction::Out => (FlowPath::Out, ""),
    };
    let mut allowed = Vec::new();
    for range in port_ranges::intervals(table) {
        for protocol in ports::PROTOCOLS {
            let flow = Flow {
                path,
                source,
                destination,
                payload: Payload::Ports { protocol, source: SOURCE_PORT, destination: range.0 },
                in_interface: in_interface.to_owned(),
                out_interface: uplink.to_owned(),
            };
            if explain(table, &flow, &mut Memory::default()).fate != Fate::Accept {
                continue;
            }
            for ports in port_ranges::cut(range, cuts) {
                let arriving = Packet {
                    in_interface: in_interface.to_owned(),
                    fib_daddr_type: fib_type::UNICAST,
                    ..Packet::new(source, destination, protocol, (SOURCE_PORT, ports.0))
                };
                let sent = Packet { out_interface: uplink.to_owned(), ..arriving.clone() };
                let mut packets = match path {
                    FlowPath::Forward => {
                        vec![(Hook::Prerouting, arriving), (Hook::Forward, sent.clone())]
                    }
                    _ => vec![(Hook::Output, sent.clone())],
                };
                packets.push((Hook::Postrouting, leaving(sent)));
                let name = Name { direction: direction.clone(), protocol, ports };
                allowed.push(Allowed { name, packets });
            }
        }
    }
    allowed
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn adjacent_ports_are_named_as_one_range() {
        let name = |direction, ports| Name { direction, protocol: 6, ports };
        let from = Direction::OutFrom("lxdbr0".to_owned());
        let names = [
            name(Direction::In, (81, 81)),
            name(Direction::In, (80, 80)),
            name(from, (82, 82)),
            name(Direction::In, (83, 90)),
            name(Direction::In, (80, 80)),
        ];
        let expected = ["in 80-81/tcp", "in 83-90/tcp", "out 82/tcp from lxdbr0"];
        assert_eq!(summed_up(names.to_vec()), expected);
    }
}
