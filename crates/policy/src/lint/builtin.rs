//! What is decided before the rules of a direction are tried: packets of built-ins.

use std::net::Ipv4Addr;

use ipnetwork::{Ipv4Network, Ipv6Network};
use nfguard_netlink::protocol;

use crate::compile::builtin::{self as compiled, DHCP_PORTS, DHCPV6_PORTS};
use crate::lint::cover::{GroupRanges, PacketBox};
use crate::policy::{
    Addresses, Builtin, Direction, Interface, Policy, Ports, Prefixes, Rule, Traffic,
};

/// ICMP types that begin something: echo, timestamp, information and address mask request. Connection
/// tracking calls each other type related to a connection, or invalid.
const NEW_ICMP: [u8; 4] = [8, 13, 15, 17];
/// ICMPv6 types that begin something, or that connection tracking leaves out: echo request, multicast
/// listener and neighbour discovery, node information query.
const NEW_ICMPV6: [u8; 10] = [128, 130, 131, 132, 133, 134, 135, 136, 139, 143];

/// Packets that no rule of a direction sees.
pub(super) struct Taken<'p> {
    /// The built-ins that decide about them.
    pub(super) builtins: Vec<Builtin>,
    pub(super) packets: Vec<PacketBox<'p>>,
}

impl<'p> Taken<'p> {
    /// Returns what the built-ins of a policy take in a direction. `lo` is the interface of that name.
    pub(super) fn of(
        policy: &Policy,
        direction: Direction,
        groups: &GroupRanges,
        lo: &'p [Interface],
    ) -> Vec<Taken<'p>> {
        let is_on = |which: &Builtin| policy.builtin.contains(which);
        let mut all = Vec::new();
        let mut add = |builtins: &[Builtin], traffic: &Traffic, from, to, interfaces| {
            let packets = PacketBox::of_parts(traffic, [&from, &to], interfaces, groups);
            all.push(Taken { builtins: builtins.to_vec(), packets });
        };
        if is_on(&Builtin::Loopback) && direction != Direction::Forward {
            let by_lo = if direction == Direction::In { [lo, &[]] } else { [&[], lo] };
            add(&[Builtin::Loopback], &Traffic::Any, Addresses::Any, Addresses::Any, by_lo);
        }
        let of_tracking = [Builtin::Established, Builtin::Invalid];
        if of_tracking.iter().all(is_on) && direction != Direction::Out {
            let others = |new: &[u8]| Some((0..=u8::MAX).filter(|it| !new.contains(it)).collect());
            let traffic = Traffic::Icmp { v4: others(&NEW_ICMP), v6: others(&NEW_ICMPV6) };
            add(&of_tracking, &traffic, Addresses::Any, Addresses::Any, [&[], &[]]);
        }
        let builtins = match direction {
            Direction::In => compiled::INBOUND,
            Direction::Out => compiled::OUTPUT,
            Direction::Forward => compiled::FORWARD,
        };
        for which in builtins.iter().filter(|it| is_on(it)) {
            let Some((traffic, from, to)) = allowance(*which, direction) else { continue };
            add(&[*which], &traffic, from, to, [&[], &[]]);
        }
        all
    }

    /// Returns whether no rule of the direction sees such a packet. The rules for `out` also judge what
    /// containers send, about which these built-ins say less.
    pub(super) fn is_whole(&self, policy: &Policy, direction: Direction) -> bool {
        use Builtin::{Dhcpv4Client, Dhcpv6Client, MulticastListener};
        let containers = &policy.containers;
        let judges_containers = direction == Direction::Out
            && containers.follow_out
            && !containers.interfaces.is_empty();
        let of_host = [Dhcpv4Client, Dhcpv6Client, MulticastListener];
        !judges_containers || !self.builtins.iter().any(|it| of_host.contains(it))
    }

    /// Returns whether a rule is about some of these packets.
    pub(super) fn concerns(&self, rule: &Rule, packets: &[PacketBox<'_>]) -> bool {
        let is_of_host = rule.direction != Direction::Out || rule.in_interface.is_empty();
        is_of_host
            && packets.iter().any(|of_rule| {
                of_rule.is_about_a_service() && self.packets.iter().any(|it| it.overlaps(of_rule))
            })
    }
}

/// Returns what a built-in accepts before the rules: what it carries, from where, and to where.
fn allowance(which: Builtin, direction: Direction) -> Option<(Traffic, Addresses, Addresses)> {
    let icmpv6 = |types: &[u8]| Traffic::Icmp { v4: None, v6: Some(types.to_vec()) };
    let prefixes =
        |v4: Vec<Ipv4Network>, v6: Vec<Ipv6Network>| Addresses::Prefixes(Prefixes { v4, v6 });
    let v6 =
        |(network, len)| prefixes(vec![], Ipv6Network::new(network, len).into_iter().collect());
    let v4 =
        |(network, len)| prefixes(Ipv4Network::new(network, len).into_iter().collect(), vec![]);
    let udp = |source: &[u16], port: u16| Traffic::Ports {
        tcp: None,
        udp: Some(Ports(vec![(port, port)])),
        source: Ports(source.iter().map(|port| (*port, *port)).collect()),
    };
    let is_in = direction == Direction::In;
    let any = Addresses::Any;
    let parts = match which {
        Builtin::IcmpErrors => {
            let (v4, v6) = (compiled::ICMP_ERRORS.to_vec(), compiled::ICMPV6_ERRORS.to_vec());
            (Traffic::Icmp { v4: Some(v4), v6: Some(v6) }, any.clone(), any)
        }
        Builtin::NeighbourDiscovery => (icmpv6(&compiled::NEIGHBOUR_DISCOVERY), any.clone(), any),
        Builtin::MulticastListener => {
            let from = match direction {
                Direction::Out => any.clone(),
                Direction::In | Direction::Forward => v6(compiled::LINK_LOCAL),
            };
            (icmpv6(&compiled::MULTICAST_LISTENER), from, any)
        }
        Builtin::Igmp => (Traffic::Protocols(vec![protocol::IGMP]), any, v4(compiled::MULTICAST)),
        Builtin::Dhcpv4Client => {
            let (server, client) = DHCP_PORTS;
            let (source, port, to) = match is_in {
                true => (server, client, (Ipv4Addr::BROADCAST, 32)),
                false => (client, server, (Ipv4Addr::UNSPECIFIED, 0)),
            };
            (udp(&[source], port), any, v4(to))
        }
        Builtin::Dhcpv6Client if is_in => (udp(&[], DHCPV6_PORTS.1), any, v6(compiled::LINK_LOCAL)),
        Builtin::Dhcpv6Client => {
            (udp(&[], DHCPV6_PORTS.0), any, v6((compiled::DHCPV6_SERVERS, 128)))
        }
        _ => return None,
    };
    Some(parts)
}
