//! Finds the rule that decides about a connection, without a kernel.

use std::net::IpAddr;

use nfguard_netlink::eval::{Decision, Fate, Memory, Packet, evaluate};
use nfguard_netlink::{Expr, Hook, Table, ct_state, fib_type};

use crate::compile::DEFERRAL_COMMENTS;
use crate::compile::scan::{CLOSED_PORT_COUNTER, COMMENT_PREFIX};

/// The first packet of a connection, and its path.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Flow {
    /// Path of the packet through the host.
    pub path: FlowPath,
    /// Address of the sender.
    pub source: IpAddr,
    /// Address of the receiver, of the same IP version.
    pub destination: IpAddr,
    /// What the packet carries.
    pub payload: Payload,
    /// The interface that the packet comes in by. [`FlowPath::Out`] ignores it.
    pub in_interface: String,
    /// The interface that the packet leaves by. [`FlowPath::In`] ignores it.
    pub out_interface: String,
}

/// The path of a packet through the host.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum FlowPath {
    /// To a program on this host.
    In,
    /// To a port that this host publishes for a container. The value is the container's own port.
    Published(u16),
    /// From a program on this host.
    Out,
    /// Through this host, from one interface to another, or from a container.
    Forward,
}

/// What a packet carries.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Payload {
    /// TCP, UDP or another protocol with ports.
    Ports {
        /// Number of the protocol.
        protocol: u8,
        /// Source port.
        source: u16,
        /// Destination port.
        destination: u16,
    },
    /// ICMP, or ICMPv6 between IPv6 addresses.
    Icmp {
        /// The ICMP type.
        kind: u8,
    },
    /// Another protocol, given by its number.
    Protocol(u8),
}

/// The decision of each hook that a packet passes.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Explanation<'t> {
    /// What happens to the packet.
    pub fate: Fate,
    /// The hooks in the order in which the packet passes them. At least one.
    pub hooks: Vec<(Hook, Decision<'t>)>,
}

impl<'t> Explanation<'t> {
    /// Returns the last decision that does not leave the packet to another hook.
    #[must_use]
    pub fn deciding(&self) -> Option<&(Hook, Decision<'t>)> {
        let defers = |decision: &Decision<'_>| {
            let comment = decision.rule.and_then(|(_, rule)| rule.comment.as_deref());
            comment.is_some_and(|comment| DEFERRAL_COMMENTS.contains(&comment))
        };
        self.hooks.iter().rfind(|(_, decision)| !defers(decision))
    }

    /// Returns what the scan detection says about the packet: whether the packet counts as part of a
    /// scan, and the comment of the last rule that decided this. Returns `None` if no such rule matched.
    #[must_use]
    pub fn scan(&self) -> Option<(bool, &'t str)> {
        let matched = self.hooks.iter().flat_map(|(_, decision)| &decision.matched);
        let counted = Expr::Counter(CLOSED_PORT_COUNTER.to_owned());
        let counts = matched.clone().any(|(.., rule)| rule.exprs.contains(&counted));
        let mut words =
            matched.filter_map(|(.., rule)| rule.comment.as_deref()?.strip_prefix(COMMENT_PREFIX));
        words.next_back().map(|why| (counts, why))
    }
}

/// What routing rules and the rules of other programs do with a packet. By default nothing.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Treatment {
    /// The packet's mark.
    pub mark: u32,
    /// Whether connection tracking leaves the packet out (`notrack`).
    pub is_untracked: bool,
    /// Where DNAT leads the packet, and the port there: a packet of this host ([`FlowPath::Out`]), or
    /// one that NAT delivers to this host ([`FlowPath::In`]).
    pub translated_to: Option<(IpAddr, u16)>,
    /// The interface that a packet of this host would have left by without its mark, or without DNAT.
    pub first_out_interface: Option<String>,
    /// The type of the destination in the routing tables before DNAT, one of [`fib_type`], where it is
    /// not the one that goes with the path.
    pub destination_type: Option<u32>,
    /// Whether a packet of this host has a source address that is not this host's, as those of a
    /// transparent proxy.
    pub has_foreign_source: bool,
    /// Whether the routing tables lead to the source by another interface than the one that the packet
    /// comes in by, as where the source is forged.
    pub has_no_return_path: bool,
    /// The packet's hop limit, where it is not the one that goes with what it carries.
    pub hop_limit: Option<u8>,
}

/// Returns what a table does with the first packet of a connection. `memory` has the elements that
/// rules have added to sets.
///
/// Multicast addresses and 255.255.255.255 are recognized. Every other destination counts as this
/// host's own address or as a unicast address, according to the path, because only the host knows its
/// addresses and the broadcast addresses of its networks.
#[must_use]
pub fn explain<'t>(table: &'t Table, flow: &Flow, memory: &mut Memory) -> Explanation<'t> {
    explain_treated(table, flow, &Treatment::default(), memory)
}

/// As [`explain`], for a packet that routing rules or other programs treat.
#[must_use]
pub fn explain_treated<'t>(
    table: &'t Table,
    flow: &Flow,
    treatment: &Treatment,
    memory: &mut Memory,
) -> Explanation<'t> {
    let mut hooks = Vec::new();
    for (hook, packet) in packets(flow, treatment) {
        let Some(decision) = evaluate(table, hook, &packet, memory) else { continue };
        let fate = decision.fate;
        hooks.push((hook, decision));
        if fate != Fate::Accept {
            return Explanation { fate, hooks };
        }
    }
    Explanation { fate: Fate::Accept, hooks }
}

/// Returns the packet as each hook sees it.
fn packets(flow: &Flow, treatment: &Treatment) -> Vec<(Hook, Packet)> {
    let packet = first_packet(flow, treatment);
    let input = flow.in_interface.clone();
    let prerouting = Packet { in_interface: input.clone(), ..packet.clone() };
    let output = flow.out_interface.clone();
    match flow.path {
        FlowPath::In => {
            let delivered = translated(prerouting.clone(), treatment.translated_to);
            vec![(Hook::Prerouting, prerouting), (Hook::Input, delivered)]
        }
        FlowPath::Out => {
            let fib_saddr_type = match treatment.has_foreign_source {
                true => fib_type::UNICAST,
                false => fib_type::LOCAL,
            };
            let sent = Packet { fib_saddr_type, ..translated(packet, treatment.translated_to) };
            let first = treatment.first_out_interface.clone().unwrap_or_else(|| output.clone());
            let leaving = Packet { out_interface: output, ..sent.clone() };
            let sent = Packet { out_interface: first, ..sent };
            vec![(Hook::Output, sent), (Hook::Postrouting, leaving)]
        }
        FlowPath::Forward | FlowPath::Published(_) => {
            let inner = match flow.path {
                FlowPath::Published(inner) => Some((flow.destination, inner)),
                _ => None,
            };
            let forwarded = Packet { out_interface: output, ..prerouting.clone() };
            let forwarded = match inner {
                Some(_) => {
                    Packet { fib_daddr_type: fib_type::UNICAST, ..translated(forwarded, inner) }
                }
                None => forwarded,
            };
            vec![
                (Hook::Prerouting, prerouting),
                (Hook::Forward, forwarded.clone()),
                (Hook::Postrouting, forwarded),
            ]
        }
    }
}

/// Returns the packet before it is routed.
fn first_packet(flow: &Flow, treatment: &Treatment) -> Packet {
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
        (FlowPath::Forward | FlowPath::Out, _) => fib_type::UNICAST,
        (FlowPath::In | FlowPath::Published(_), _) => fib_type::LOCAL,
    };
    let ct_state = if treatment.is_untracked { ct_state::UNTRACKED } else { packet.ct_state };
    Packet {
        fib_daddr_type: treatment.destination_type.unwrap_or(fib_daddr_type),
        has_return_path: !treatment.has_no_return_path,
        mark: treatment.mark,
        hop_limit: treatment.hop_limit.unwrap_or(packet.hop_limit),
        ct_state,
        ..packet
    }
}

/// Returns the packet after DNAT.
fn translated(packet: Packet, to: Option<(IpAddr, u16)>) -> Packet {
    let Some((destination, inner)) = to else { return packet };
    let mut transport = packet.transport.clone();
    let port = transport.get(2..4).and_then(|port| port.try_into().ok());
    transport.splice(2.min(transport.len())..4.min(transport.len()), inner.to_be_bytes());
    let dnat_from = Some((packet.destination, port.map_or(0, u16::from_be_bytes)));
    Packet { destination, dnat_from, transport, ..packet }
}
