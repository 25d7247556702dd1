//! Which rule decides about a connection, without a kernel.

use std::net::IpAddr;

use nfguard_netlink::eval::{Decision, Fate, Memory, Packet, evaluate};
use nfguard_netlink::{Expr, Hook, Table, fib_type};

use crate::compile::DEFERRALS;
use crate::compile::scan::{CLOSED, SCAN};

/// The first packet of a connection, and the way it takes.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Flow {
    /// Which way.
    pub path: Path,
    /// Who sends it.
    pub source: IpAddr,
    /// Who is meant to get it; of the same family.
    pub destination: IpAddr,
    /// What it carries.
    pub payload: Payload,
    /// The interface that it comes in by; not looked at for [`Path::Out`].
    pub in_interface: String,
    /// The interface that it leaves by; not looked at for [`Path::In`].
    pub out_interface: String,
}

/// The way of a packet through the host.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Path {
    /// To a program on this host.
    In,
    /// To a port that this host publishes for a container, which listens at this port inside.
    Published(u16),
    /// From a program on this host.
    Out,
    /// Through this host, from one interface to another; a container's own traffic, too.
    Forward,
}

/// What a packet carries.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Payload {
    /// TCP or UDP (or another protocol with ports) from port to port.
    Ports {
        /// The protocol's number.
        protocol: u8,
        /// From.
        source: u16,
        /// To.
        destination: u16,
    },
    /// ICMP, or ICMPv6 between IPv6 addresses.
    Icmp {
        /// Its type.
        kind: u8,
    },
    /// Another protocol, of which rules know nothing but its number.
    Protocol(u8),
}

/// What each hook that the packet passes decides; the last one ends its way.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Explanation<'t> {
    /// What becomes of it.
    pub fate: Fate,
    /// At least one, in the order of the way.
    pub hooks: Vec<(Hook, Decision<'t>)>,
}

impl<'t> Explanation<'t> {
    /// The decision that counts: the last one that does not leave it to another hook.
    #[must_use]
    pub fn deciding(&self) -> Option<&(Hook, Decision<'t>)> {
        let defers = |decision: &Decision<'_>| {
            let comment = decision.rule.and_then(|(_, rule)| rule.comment.as_deref());
            comment.is_some_and(|comment| DEFERRALS.contains(&comment))
        };
        self.hooks.iter().rfind(|(_, decision)| !defers(decision))
    }

    /// Whether it counts as evidence of a scan, and what the last rule that looked at that says;
    /// `None` if none did.
    #[must_use]
    pub fn scan(&self) -> Option<(bool, &'t str)> {
        let matched = self.hooks.iter().flat_map(|(_, decision)| &decision.matched);
        let counted = Expr::Counter(CLOSED.to_owned());
        let counts = matched.clone().any(|(.., rule)| rule.exprs.contains(&counted));
        let mut words =
            matched.filter_map(|(.., rule)| rule.comment.as_deref()?.strip_prefix(SCAN));
        words.next_back().map(|why| (counts, why))
    }
}

/// What the table does with the first packet of this connection, given what rules have remembered.
///
/// Addresses of multicast groups and the broadcast address of all networks are known as such; that
/// an address is this host's own, or a network's broadcast address, only the host knows.
#[must_use]
pub fn explain<'t>(table: &'t Table, flow: &Flow, memory: &mut Memory) -> Explanation<'t> {
    let mut hooks = Vec::new();
    for (hook, packet) in packets(flow) {
        let Some(decision) = evaluate(table, hook, &packet, memory) else { continue };
        let fate = decision.fate;
        hooks.push((hook, decision));
        if fate != Fate::Accept {
            return Explanation { fate, hooks };
        }
    }
    Explanation { fate: Fate::Accept, hooks }
}

/// The packet as it is at each hook that it passes.
fn packets(flow: &Flow) -> Vec<(Hook, Packet)> {
    let (from, to) = (flow.source, flow.destination);
    let packet = match flow.payload {
        Payload::Ports { protocol, source, destination } => {
            Packet::new(from, to, protocol, (source, destination))
        }
        Payload::Icmp { kind } => Packet::icmp(from, to, kind),
        Payload::Protocol(protocol) => {
            Packet { transport: Vec::new(), ..Packet::new(from, to, protocol, (0, 0)) }
        }
    };
    let fib_daddr_type = match (flow.path, to) {
        (_, IpAddr::V4(to)) if to.is_broadcast() => fib_type::BROADCAST,
        (_, to) if to.is_multicast() => fib_type::MULTICAST,
        (Path::Forward | Path::Out, _) => fib_type::UNICAST,
        (Path::In | Path::Published(_), _) => fib_type::LOCAL,
    };
    let packet = Packet { fib_daddr_type, ..packet };
    let input = flow.in_interface.clone();
    let prerouting = Packet { in_interface: input.clone(), ..packet.clone() };
    let output = flow.out_interface.clone();
    match flow.path {
        Path::In => vec![(Hook::Prerouting, prerouting.clone()), (Hook::Input, prerouting)],
        Path::Out => vec![(Hook::Output, Packet { out_interface: output, ..packet })],
        Path::Forward => vec![
            (Hook::Prerouting, prerouting),
            (Hook::Forward, Packet { in_interface: input, out_interface: output, ..packet }),
        ],
        Path::Published(inner) => {
            let mut transport = packet.transport.clone();
            let port = transport.get(2..4).and_then(|port| port.try_into().ok());
            transport.splice(2.min(transport.len())..4.min(transport.len()), inner.to_be_bytes());
            let forwarded = Packet {
                in_interface: input,
                out_interface: output,
                dnat_from: port.map(u16::from_be_bytes),
                transport,
                ..packet
            };
            vec![(Hook::Prerouting, prerouting), (Hook::Forward, forwarded)]
        }
    }
}
