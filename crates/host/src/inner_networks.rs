//! Networks behind this host: of containers, guests and peers of tunnels.

use std::collections::{BTreeMap, BTreeSet};
use std::net::IpAddr;

use nfguard_netlink::{Error, IpVersion, Link, NextHop, Route, Rtnetlink, fib_type};

/// Kinds of links that lead to what runs on this host, unless it reaches the internet by them.
const GUESTS: [&str; 6] = ["bridge", "macvlan", "macvtap", "ipvlan", "ipvtap", "veth"];
/// Kinds of links that lead into tunnels.
const TUNNELS: [&str; 14] = [
    "wireguard",
    "tun",
    "ppp",
    "gre",
    "gretap",
    "ip6gre",
    "ipip",
    "sit",
    "ip6tnl",
    "vti",
    "vti6",
    "xfrm",
    "vxlan",
    "geneve",
];

/// Kinds of links that lead out of this host by a cable or by radio; empty for hardware.
const WIRES: [&str; 5] = ["", "vlan", "bond", "team", "dsa"];

/// Most networks. A router that has the routes of the internet in a tunnel has no peers there.
const MAX_NETWORKS: usize = 1000;

/// A network behind this host.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct NetworkBehind {
    /// The first address.
    pub address: IpAddr,
    /// The length of the prefix.
    pub prefix_len: u8,
    /// The interface that leads there.
    pub interface: String,
}

/// Asks the kernel by which links and routes it reaches networks behind this host. A link that a
/// default route leads over is a way to the internet: of its networks only private ones in a tunnel
/// count.
///
/// A bridge with a cable for a port is a LAN, whose hosts may be guests, or not.
///
/// Of a `veth` only single addresses and private networks count: it may be this host that is the
/// container.
pub(crate) fn networks_behind(rtnetlink: &mut Rtnetlink) -> Result<Vec<NetworkBehind>, Error> {
    let links = rtnetlink.links()?;
    let is_candidate = |link: &Link| is_guests(link) || is_tunnel(link);
    if !links.values().any(is_candidate) {
        return Ok(Vec::new());
    }
    let mut uplinks = BTreeSet::new();
    let routes = rtnetlink.routes(|route| {
        if u32::from(route.kind) != fib_type::UNICAST {
            return false;
        }
        if is_default(route) {
            uplinks.extend(route.next_hops.iter().filter_map(|hop| hop.interface));
            return false;
        }
        let leads_to = |hop: &NextHop| hop.interface.and_then(|index| links.get(&index));
        route.next_hops.iter().filter_map(leads_to).any(is_candidate)
    })?;
    Ok(find(&links, &uplinks, routes))
}

fn find(
    links: &BTreeMap<u32, Link>,
    uplinks: &BTreeSet<u32>,
    routes: Vec<Route>,
) -> Vec<NetworkBehind> {
    let is_wire = |link: &&Link| WIRES.contains(&link.kind.as_str());
    let lans: BTreeSet<u32> = links.values().filter(is_wire).filter_map(|it| it.master).collect();
    let mut found = Vec::new();
    for Route { destination, prefix_len, next_hops, .. } in routes {
        let Some(address) = destination.filter(|address| !is_of_link(*address)) else { continue };
        for hop in next_hops {
            let Some(link) = hop.interface.and_then(|index| links.get(&index)) else { continue };
            let is_uplink = uplinks.contains(&link.index);
            let is_single = prefix_len == if address.is_ipv4() { 32 } else { 128 };
            let counts = if is_tunnel(link) {
                !is_uplink || is_private(address)
            } else {
                let may_be_elsewhere = link.kind == "veth" && !is_single && !is_private(address);
                let may_be_elsewhere = may_be_elsewhere || lans.contains(&link.index);
                is_guests(link) && hop.gateway.is_none() && !is_uplink && !may_be_elsewhere
            };
            if counts {
                let interface = link.name.clone();
                found.push(NetworkBehind { address, prefix_len, interface });
            }
        }
    }
    found.sort();
    found.dedup_by(|a, b| (a.address, a.prefix_len) == (b.address, b.prefix_len));
    if found.len() > MAX_NETWORKS {
        found.clear();
    }
    found
}

fn is_guests(link: &Link) -> bool {
    GUESTS.contains(&link.kind.as_str())
}

fn is_tunnel(link: &Link) -> bool {
    TUNNELS.contains(&link.kind.as_str())
}

/// Tells whether a route leads to so much of the address space that it is a way to the internet. Some
/// VPNs write a default route as two halves.
fn is_default(route: &Route) -> bool {
    let shortest = match route.version {
        IpVersion::V4 => 8,
        IpVersion::V6 => 7,
    };
    route.prefix_len < shortest
}

/// Tells whether an address counts on one link alone.
fn is_of_link(address: IpAddr) -> bool {
    match address {
        IpAddr::V4(v4) => v4.is_link_local() || v4.is_multicast(),
        IpAddr::V6(v6) => v6.is_unicast_link_local() || v6.is_multicast(),
    }
}

/// Tells whether an address is of a private network, or of those between a provider and its customers,
/// which mesh VPNs use.
fn is_private(address: IpAddr) -> bool {
    match address {
        IpAddr::V4(v4) => v4.is_private() || matches!(v4.octets(), [100, 64..=127, ..]),
        IpAddr::V6(v6) => v6.is_unique_local(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Kinds of links by index.
    const LINKS: [(u32, &str); 6] =
        [(1, "bridge"), (2, "veth"), (3, "wireguard"), (4, "macvlan"), (5, ""), (6, "tun")];

    fn found(uplinks: &[u32], routes: &[(&str, u32)]) -> Vec<String> {
        found_with(&[], uplinks, routes)
    }

    /// As [`found`], with these links as ports of the bridge.
    fn found_with(ports: &[u32], uplinks: &[u32], routes: &[(&str, u32)]) -> Vec<String> {
        let link = |(index, kind): (u32, &str)| {
            let master = ports.contains(&index).then_some(1);
            let (kind, name) = (kind.to_owned(), index.to_string());
            (index, Link { index, kind, name, master, ..Link::default() })
        };
        let route = |(text, index): &(&str, u32)| {
            let (network, gateway) = text.split_once(" via ").unwrap_or((text, ""));
            let (address, bits) = network.split_once('/').expect("a prefix");
            let address: IpAddr = address.parse().expect("an address");
            Route {
                version: IpVersion::of(address),
                destination: Some(address),
                prefix_len: bits.parse().expect("a length"),
                table: 254,
                kind: 1,
                next_hops: vec![NextHop { gateway: gateway.parse().ok(), interface: Some(*index) }],
            }
        };
        let routes = routes.iter().map(route).collect();
        let found = find(&LINKS.map(link).into(), &uplinks.iter().copied().collect(), routes);
        let shown =
            |it: NetworkBehind| format!("{}/{} {}", it.address, it.prefix_len, it.interface);
        found.into_iter().map(shown).collect()
    }

    #[test]
    fn what_is_on_a_link_of_guests_or_in_a_tunnel_is_behind_this_host() {
        let routes = [
            ("172.17.0.0/16", 1),
            ("2001:db8:d::/64", 1),
            ("fe80::/64", 1),
            ("10.1.2.3/32", 2),
            ("10.8.0.0/24", 3),
            ("192.168.5.0/24 via 10.8.0.2", 3),
            ("192.168.1.192/27", 4),
            ("100.64.0.7/32", 6),
            // The LAN, what is behind its router, and what is behind a guest.
            ("192.168.1.0/24", 5),
            ("192.168.9.0/24 via 192.168.1.7", 5),
            ("192.168.10.0/24 via 172.17.0.9", 1),
        ];
        assert_eq!(
            found(&[5], &routes),
            [
                "10.1.2.3/32 2",
                "10.8.0.0/24 3",
                "100.64.0.7/32 6",
                "172.17.0.0/16 1",
                "192.168.1.192/27 4",
                "192.168.5.0/24 3",
                "2001:db8:d::/64 1"
            ]
        );
    }

    #[test]
    fn what_is_on_the_way_to_the_internet_is_not_behind_this_host() {
        // A server with its address on a bridge, a container, and a client of a VPN.
        let routes = [
            ("203.0.113.0/24", 1),
            ("10.0.3.0/24", 2),
            ("10.64.0.0/10", 3),
            ("198.51.100.0/24", 3),
        ];
        assert_eq!(found(&[1, 2, 3], &routes), ["10.64.0.0/10 3"]);
        // A container without a default route, on a network that may be the internet.
        assert_eq!(found(&[], &[("198.51.100.0/24", 2)]), [""; 0]);
    }

    #[test]
    fn a_bridge_with_a_cable_for_a_port_is_a_lan() {
        let routes = [("192.168.1.0/24", 1)];
        assert_eq!(found_with(&[2, 5], &[], &routes), [""; 0]);
        assert_eq!(found_with(&[2, 6], &[], &routes), ["192.168.1.0/24 1"]);
    }

    #[test]
    fn a_router_with_the_routes_of_the_internet_in_a_tunnel_has_no_peers_there() {
        let route = |number: u32| format!("{}/24", std::net::Ipv4Addr::from_bits(number << 8));
        let texts: Vec<String> = (0x01_0000..0x01_0000 + 1001).map(route).collect();
        let routes: Vec<_> = texts.iter().map(|text| (text.as_str(), 3)).collect();
        assert_eq!(found(&[5], &routes), [""; 0]);
        assert_eq!(found(&[5], &routes[1..]).len(), 1000);
    }
}
