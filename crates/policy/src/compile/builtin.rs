//! The allowances that every policy has unless it switches them off.
//!
//! The reference is UFW's `before.rules` and `before6.rules`, with these differences. DHCP, multicast
//! DNS and UPnP discovery are allowed in both directions: a host that denies outgoing connections
//! could not get an address, and would stay hidden from its link. Answers of DHCP are told by their
//! destination, which no router passes on: DHCPv6 servers answer from global addresses and other ports. IGMP is allowed
//! as its twin of IPv6 is. What keeps a link together passes a bridge, too. SEND and mobile IPv6 have
//! no built-in, because they are obsolete.

use std::net::{Ipv4Addr, Ipv6Addr};

use nfguard_netlink::{Expr, IpVersion, KeyType, Set, protocol};

use super::expr::{self, End};
use super::sets::value_set;
use crate::policy::Builtin;

/// Built-ins before the rules, in the order in which the kernel tries them. A host needs them to work.
pub(crate) const INBOUND: &[Builtin] = &[
    Builtin::IcmpErrors,
    Builtin::NeighbourDiscovery,
    Builtin::MulticastListener,
    Builtin::Igmp,
    Builtin::Dhcpv4Client,
    Builtin::Dhcpv6Client,
];
/// Built-ins after the rules, so that a rule can deny them to a source.
pub(super) const INBOUND_LAST: &[Builtin] = &[Builtin::PingIn, Builtin::Mdns, Builtin::Upnp];
/// Routers pass none of the last three on, but a bridge does, whose packets come here while
/// `bridge-nf-call-iptables` is on.
pub(crate) const FORWARD: &[Builtin] =
    &[Builtin::IcmpErrors, Builtin::NeighbourDiscovery, Builtin::MulticastListener, Builtin::Igmp];
pub(crate) const OUTPUT: &[Builtin] = &[
    Builtin::IcmpErrors,
    Builtin::NeighbourDiscovery,
    Builtin::MulticastListener,
    Builtin::Igmp,
    Builtin::Dhcpv4Client,
    Builtin::Dhcpv6Client,
];
pub(super) const EGRESS_LAST: &[Builtin] = &[Builtin::PingOut, Builtin::Mdns, Builtin::Upnp];

pub(crate) const ICMP_ERRORS: [u8; 3] = [3, 11, 12];
pub(crate) const ICMPV6_ERRORS: [u8; 4] = [1, 2, 3, 4];
/// Router and neighbour solicitation and advertisement, and their inverse (RFC 3122).
pub(crate) const NEIGHBOUR_DISCOVERY: [u8; 6] = [133, 134, 135, 136, 141, 142];
/// Query, report, done, version 2 report.
pub(crate) const MULTICAST_LISTENER: [u8; 4] = [130, 131, 132, 143];
const ECHO_REQUEST: (u8, u8) = (8, 128);
/// Multicast of IPv4.
pub(crate) const MULTICAST: (Ipv4Addr, u8) = (Ipv4Addr::new(224, 0, 0, 0), 4);
/// Link-local addresses of IPv6.
pub(crate) const LINK_LOCAL: (Ipv6Addr, u8) = (Ipv6Addr::new(0xfe80, 0, 0, 0, 0, 0, 0, 0), 10);
/// Ports of DHCP: the server's and the client's.
pub(crate) const DHCP_PORTS: (u16, u16) = (67, 68);
pub(crate) const DHCPV6_PORTS: (u16, u16) = (547, 546);
/// All DHCP servers and relays (RFC 8415).
pub const DHCPV6_SERVERS: Ipv6Addr = Ipv6Addr::new(0xff02, 0, 0, 0, 0, 0, 1, 2);
const MDNS: (Ipv4Addr, Ipv6Addr, u16) =
    (Ipv4Addr::new(224, 0, 0, 251), Ipv6Addr::new(0xff02, 0, 0, 0, 0, 0, 0, 0xfb), 5353);
const UPNP: (Ipv4Addr, Ipv6Addr, u16) =
    (Ipv4Addr::new(239, 255, 255, 250), Ipv6Addr::new(0xff02, 0, 0, 0, 0, 0, 0, 0xf), 1900);

/// Returns the matches of a built-in in this chain, one for each rule. Adds the sets that they need.
pub(super) fn rules(which: Builtin, chain: &str, sets: &mut Vec<Set>) -> Vec<Vec<Expr>> {
    let mut types = |name: &str, version, types: &[u8]| icmp_types(sets, name, version, types);
    let (incoming, outgoing) = (matches!(chain, "inbound" | "asked"), chain == "sent/builtin");
    match which {
        Builtin::IcmpErrors => vec![
            types("icmp_errors", IpVersion::V4, &ICMP_ERRORS),
            types("icmpv6_errors", IpVersion::V6, &ICMPV6_ERRORS),
        ],
        Builtin::PingIn | Builtin::PingOut => {
            vec![icmp_type(IpVersion::V4, ECHO_REQUEST.0), icmp_type(IpVersion::V6, ECHO_REQUEST.1)]
        }
        // The hop limit shows that no router forwarded the packet.
        Builtin::NeighbourDiscovery => {
            let discovery = types("neighbour_discovery", IpVersion::V6, &NEIGHBOUR_DISCOVERY);
            vec![[discovery, expr::hop_limit_255()].concat()]
        }
        Builtin::MulticastListener => {
            let listener = types("multicast_listener", IpVersion::V6, &MULTICAST_LISTENER);
            let from = if outgoing { Vec::new() } else { link_local(End::Source) };
            vec![[listener, from].concat()]
        }
        Builtin::Igmp => {
            let (network, len) = MULTICAST;
            let to = expr::in_prefix(IpVersion::V4, End::Destination, &network.octets(), len);
            vec![[expr::ip_version(IpVersion::V4), to, expr::protocol(protocol::IGMP)].concat()]
        }
        // No router passes on what goes to 255.255.255.255. Answers to a renewal are established.
        Builtin::Dhcpv4Client if incoming => {
            let (server, client) = DHCP_PORTS;
            let to = Ipv4Addr::BROADCAST.octets();
            let to = expr::in_prefix(IpVersion::V4, End::Destination, &to, 32);
            vec![[expr::ip_version(IpVersion::V4), to, udp((server, client))].concat()]
        }
        Builtin::Dhcpv4Client => {
            let (server, client) = DHCP_PORTS;
            vec![[expr::ip_version(IpVersion::V4), udp((client, server))].concat()]
        }
        Builtin::Dhcpv6Client if incoming => {
            let to = link_local(End::Destination);
            vec![[expr::ip_version(IpVersion::V6), to, udp_to(DHCPV6_PORTS.1)].concat()]
        }
        Builtin::Dhcpv6Client => {
            let to =
                expr::in_prefix(IpVersion::V6, End::Destination, &DHCPV6_SERVERS.octets(), 128);
            vec![[expr::ip_version(IpVersion::V6), to, udp_to(DHCPV6_PORTS.0)].concat()]
        }
        Builtin::Mdns => multicast_service(MDNS),
        Builtin::Upnp => multicast_service(UPNP),
        Builtin::Loopback
        | Builtin::Established
        | Builtin::Invalid
        | Builtin::Rh0
        | Builtin::ReturnPath
        | Builtin::ContainerSource
        | Builtin::QuietBroadcast => Vec::new(),
    }
}

fn icmp_type(version: IpVersion, kind: u8) -> Vec<Expr> {
    [expr::icmp(version), expr::equals(expr::icmp_type(), vec![kind])].concat()
}

fn icmp_types(sets: &mut Vec<Set>, name: &str, version: IpVersion, types: &[u8]) -> Vec<Expr> {
    if !sets.iter().any(|set| set.name == name) {
        let key = if version == IpVersion::V4 { KeyType::IcmpType } else { KeyType::Icmpv6Type };
        sets.push(value_set(name, key, types.iter().map(|kind| vec![*kind])));
    }
    [expr::icmp(version), vec![expr::icmp_type(), expr::in_set(name)]].concat()
}

/// Matches a link-local address. The rule must have matched IPv6.
fn link_local(end: End) -> Vec<Expr> {
    let (network, len) = LINK_LOCAL;
    expr::in_prefix(IpVersion::V6, end, &network.octets(), len)
}

fn udp((source, destination): (u16, u16)) -> Vec<Expr> {
    [
        expr::protocol(protocol::UDP),
        expr::in_range(expr::port(End::Source), (source, source)),
        expr::in_range(expr::port(End::Destination), (destination, destination)),
    ]
    .concat()
}

fn udp_to(port: u16) -> Vec<Expr> {
    let destination = expr::in_range(expr::port(End::Destination), (port, port));
    [expr::protocol(protocol::UDP), destination].concat()
}

fn multicast_service((v4, v6, port): (Ipv4Addr, Ipv6Addr, u16)) -> Vec<Vec<Expr>> {
    let groups: [(IpVersion, &[u8]); 2] =
        [(IpVersion::V4, &v4.octets()), (IpVersion::V6, &v6.octets())];
    groups
        .into_iter()
        .map(|(version, group)| {
            let len = u8::try_from(group.len() * 8).unwrap_or(128);
            [
                expr::ip_version(version),
                expr::in_prefix(version, End::Destination, group, len),
                udp_to(port),
            ]
            .concat()
        })
        .collect()
}
