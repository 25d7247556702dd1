//! The links and routes of this host, as the kernel tells them. They are only read.

use std::collections::{BTreeMap, BTreeSet, HashMap};
use std::fs;
use std::net::IpAddr;
use std::path::Path;

use ipnetwork::IpNetwork;
use nfguard_netlink::{
    Error, InterfaceAddress, IpVersion, Link, PerIpVersion, RouteQuestion, Rtnetlink, fib_type,
};

use crate::inspect::example;

/// The facts.
#[derive(Debug, Default)]
pub(crate) struct Network {
    /// The interfaces, by index.
    pub(crate) links: BTreeMap<u32, Link>,
    pub(crate) addresses: Vec<InterfaceAddress>,
    /// The hosts that a route leads straight to by an interface without an address of its own, as
    /// for the guests of Calico, with the index of that interface.
    pub(crate) neighbours: Vec<(u32, IpAddr)>,
    /// The interfaces that packets from outside come in by, the one to the internet first.
    uplinks: PerIpVersion<Vec<String>>,
    /// The address from which this host sends to the internet.
    own: PerIpVersion<Option<IpAddr>>,
    /// The way to each host that was asked for.
    ways: HashMap<IpAddr, Way>,
    /// The interfaces of default routes by which the kernel takes no packet from the internet, because it
    /// would answer by another one (`rp_filter`).
    pub(crate) deaf_uplinks: Vec<String>,
    /// Whether what arrives by the first uplink is forwarded.
    pub(crate) forwards: PerIpVersion<bool>,
    /// Whether the hooks see what passes over any bridge.
    bridges_call_hooks: PerIpVersion<bool>,
    /// Hardware addresses for which an interface takes frames, with its index.
    further_addresses: Vec<(u32, Vec<u8>)>,
    /// The interfaces of other namespaces that share one of this namespace, with who holds theirs.
    sharing: Vec<(Link, String)>,
}

/// The way to a host.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(crate) struct Way {
    /// The type of the route.
    kind: u8,
    /// The interface that packets leave by.
    pub(crate) interface: String,
    /// The address from which this host sends there.
    pub(crate) source: Option<IpAddr>,
}

/// The number of the routing table `main`.
const MAIN_TABLE: u32 = 254;
/// In place of an uplink where there is none.
const NO_UPLINK: &str = "eth0";

impl Network {
    pub(crate) fn read(rtnetlink: &mut Rtnetlink) -> Result<Network, Error> {
        let mut network = Network {
            links: rtnetlink.links()?,
            addresses: rtnetlink.addresses()?,
            further_addresses: rtnetlink.further_addresses()?,
            bridges_call_hooks: PerIpVersion {
                v4: is_on("bridge/bridge-nf-call-iptables"),
                v6: is_on("bridge/bridge-nf-call-ip6tables"),
            },
            ..Network::default()
        };
        let bare: BTreeSet<u32> = network.links.keys().copied().collect();
        let with_address = network.addresses.iter().filter(|own| is_global(own.address));
        let with_address: BTreeSet<u32> = with_address.map(|own| own.index).collect();
        let bare: BTreeSet<u32> = bare.difference(&with_address).copied().collect();
        let mut defaults = PerIpVersion::<Vec<u32>>::default();
        rtnetlink.routes(|route| {
            let hops = route.next_hops.iter();
            let hops = hops.filter_map(|hop| Some((hop.interface?, hop.gateway)));
            if u32::from(route.kind) != fib_type::UNICAST {
            } else if route.prefix_len == 0 && route.table == MAIN_TABLE {
                defaults[route.version].extend(hops.map(|(interface, _)| interface));
            } else if let Some(to) = route.destination
                && route.prefix_len == route.version.address_bits()
            {
                let straight = hops
                    .filter(|(interface, gateway)| gateway.is_none() && bare.contains(interface));
                network.neighbours.extend(straight.map(|(interface, _)| (interface, to)));
            }
            false
        })?;
        network.find_uplinks(rtnetlink, &defaults)?;
        network.find_deaf_uplinks(rtnetlink, &defaults.v4)?;
        network.forwards = PerIpVersion {
            v4: is_on(&format!("ipv4/conf/{}/forwarding", network.uplink(IpVersion::V4))),
            v6: is_on("ipv6/conf/all/forwarding"),
        };
        Ok(network)
    }

    fn find_uplinks(
        &mut self,
        rtnetlink: &mut Rtnetlink,
        defaults: &PerIpVersion<Vec<u32>>,
    ) -> Result<(), Error> {
        let world = IpVersion::ALL.map(|version| RouteQuestion::to(example::remote(version)));
        let answers = rtnetlink.look_up(&world)?;
        for (version, answer) in IpVersion::ALL.into_iter().zip(answers) {
            let answer = answer.filter(|answer| u32::from(answer.kind) == fib_type::UNICAST);
            self.own[version] = answer.and_then(|answer| answer.source);
            let first = answer.and_then(|answer| answer.interface);
            let mut all: Vec<u32> = Vec::new();
            for index in first.into_iter().chain(defaults[version].iter().copied()) {
                if !all.contains(&index) {
                    all.push(index);
                }
            }
            let names = all.iter().filter_map(|index| self.links.get(index));
            let names: Vec<String> = names.map(|link| link.name.clone()).collect();
            self.uplinks[version] = names;
        }
        Ok(())
    }

    fn find_deaf_uplinks(
        &mut self,
        rtnetlink: &mut Rtnetlink,
        uplinks: &[u32],
    ) -> Result<(), Error> {
        let strict = |name: &str| {
            let value = |of| setting(&format!("ipv4/conf/{of}/rp_filter"));
            [value("all"), value(name)].into_iter().flatten().max().is_some_and(|it| it == "1")
        };
        let uplinks = uplinks.iter().filter_map(|index| self.links.get(index));
        let uplinks = uplinks.filter(|link| strict(&link.name));
        let asked = uplinks.filter_map(|link| {
            let is_its = |own: &&InterfaceAddress| own.index == link.index && own.address.is_ipv4();
            let own = self.addresses.iter().find(is_its)?;
            let question = RouteQuestion {
                source: Some(example::remote(IpVersion::V4)),
                in_interface: Some(link.index),
                ..RouteQuestion::to(own.address)
            };
            Some((link.name.clone(), question))
        });
        let (names, questions): (Vec<String>, Vec<RouteQuestion>) = asked.unzip();
        let answers = rtnetlink.look_up(&questions)?;
        let deaf = names.into_iter().zip(answers).filter(|(_, answer)| answer.is_none());
        self.deaf_uplinks = deaf.map(|(name, _)| name).collect();
        Ok(())
    }

    /// Asks for the ways to these hosts: of packets from the internet, and of packets of this host.
    pub(crate) fn ask_ways(
        &mut self,
        rtnetlink: &mut Rtnetlink,
        hosts: impl IntoIterator<Item = IpAddr>,
    ) -> Result<(), Error> {
        let hosts: BTreeSet<IpAddr> = hosts.into_iter().collect();
        let mut questions = Vec::new();
        for host in &hosts {
            let version = IpVersion::of(*host);
            let own = RouteQuestion::to(*host);
            let arriving = RouteQuestion {
                source: Some(example::remote(version)),
                in_interface: self.link(self.uplink(version)).map(|link| link.index),
                ..own
            };
            questions.extend([if arriving.in_interface.is_some() { arriving } else { own }, own]);
        }
        let answers = rtnetlink.look_up(&questions)?;
        for (host, answers) in hosts.into_iter().zip(answers.as_chunks::<2>().0) {
            let [arriving, own] = answers;
            // Forwarding may be off, which is a finding of its own.
            let Some(route) = arriving.or(*own) else { continue };
            let link = route.interface.and_then(|index| self.links.get(&index));
            let way = Way {
                kind: route.kind,
                interface: link.map(|link| link.name.clone()).unwrap_or_default(),
                source: own.and_then(|own| own.source),
            };
            self.ways.insert(host, way);
        }
        Ok(())
    }

    /// Returns the way to a host, if it was asked for and there is one.
    pub(crate) fn way(&self, to: IpAddr) -> Option<&Way> {
        self.ways
            .get(&to)
            .filter(|way| matches!(u32::from(way.kind), fib_type::UNICAST | fib_type::LOCAL))
    }

    /// Returns the interface on which packets from the internet arrive. Without a route there, it is
    /// that of the other IP version, or the first one with an address that packets come in by.
    pub(crate) fn uplink(&self, version: IpVersion) -> &str {
        let other = IpVersion::ALL.into_iter().filter(|other| *other != version);
        let mut uplinks = [version].into_iter().chain(other).flat_map(|one| &self.uplinks[one]);
        let with_address = || {
            let own = self.addresses.iter().filter(|own| is_global(own.address));
            let mut links = own.filter_map(|own| self.links.get(&own.index));
            // An address of a service may be at these two.
            let link = links.find(|link| !link.is_loopback && link.kind != "dummy")?;
            Some(link.name.as_str())
        };
        uplinks.next().map(String::as_str).or_else(with_address).unwrap_or(NO_UPLINK)
    }

    /// Returns all interfaces of default routes, and of the way to the internet.
    pub(crate) fn uplinks(&self) -> BTreeSet<&str> {
        self.uplinks.iter().flat_map(|(_, names)| names).map(String::as_str).collect()
    }

    /// Returns the interfaces of default routes of this IP version.
    pub(crate) fn uplinks_of(&self, version: IpVersion) -> Vec<&str> {
        let names: Vec<&str> = self.uplinks[version].iter().map(String::as_str).collect();
        if names.is_empty() { vec![self.uplink(version)] } else { names }
    }

    /// Returns the address of this host in the internet, or a stand-in if it has none.
    pub(crate) fn own(&self, version: IpVersion) -> IpAddr {
        self.own[version].unwrap_or_else(|| example::host(version))
    }

    /// Returns the link of this name.
    fn link(&self, name: &str) -> Option<&Link> {
        self.links.values().find(|link| link.name == name)
    }

    /// Returns the names of the ports of a bridge.
    pub(crate) fn ports_of(&self, bridge: &Link) -> Vec<&str> {
        let ports = self.links.values().filter(|link| link.master == Some(bridge.index));
        ports.map(|link| link.name.as_str()).collect()
    }

    /// Keeps those of these interfaces of other namespaces that share one of this namespace.
    pub(crate) fn keep_sharing(&mut self, links: Vec<(Link, String)>) {
        let links = links.into_iter().filter(|(link, _)| {
            let parent = link.parent.and_then(|parent| self.links.get(&parent));
            // An ipvlan has the address of the interface that it shares.
            parent.is_some_and(|parent| {
                link.address == parent.address || self.takes(parent.index, &link.address)
            })
        });
        let links: Vec<_> = links.collect();
        self.sharing = links;
    }

    /// Tells whether the interface takes frames for this hardware address besides its own.
    fn takes(&self, index: u32, address: &[u8]) -> bool {
        let mut all = self.further_addresses.iter();
        all.any(|(of, further)| *of == index && further == address)
    }

    /// Returns what shares each interface without a hook of this host: interfaces of other namespaces
    /// and of virtual machines.
    pub(crate) fn beside_the_hooks(&self) -> BTreeMap<&str, Vec<String>> {
        let mut own: BTreeSet<&[u8]> = self.links.values().map(|link| &*link.address).collect();
        let mut found: BTreeMap<&str, Vec<String>> = BTreeMap::new();
        for (link, holder) in &self.sharing {
            let Some(parent) = link.parent.and_then(|parent| self.links.get(&parent)) else {
                continue;
            };
            let words = format!("{} {} of {holder}", link.kind, link.name);
            found.entry(&parent.name).or_default().push(words);
            own.insert(&link.address);
        }
        for link in self.links.values() {
            if let Some(parent) = link.parent.and_then(|parent| self.links.get(&parent))
                && matches!(&*link.kind, "macvtap" | "ipvtap")
            {
                let words = format!("{} {} of a virtual machine", link.kind, link.name);
                found.entry(&parent.name).or_default().push(words);
            }
        }
        for (index, address) in &self.further_addresses {
            let Some(link) = self.links.get(index) else { continue };
            // What is built on a link hands its addresses down to the link.
            let mut above = self.links.values().filter(|upper| {
                !upper.is_linked_elsewhere && upper.parent == Some(*index) && upper.index != *index
            });
            if own.contains(&**address)
                // A bridge gives ports the addresses of other ports, and a bond its own.
                || self.is_port(link)
                || above.any(|upper| self.takes(upper.index, address))
            {
                continue;
            }
            let bytes = address.iter().map(|byte| format!("{byte:02x}")).collect::<Vec<_>>();
            let words = format!("macvlan with the address {}", bytes.join(":"));
            found.entry(&link.name).or_default().push(words);
        }
        found
    }

    fn is_port(&self, link: &Link) -> bool {
        let master = link.master.and_then(|master| self.links.get(&master));
        master.is_some_and(|master| master.kind != "vrf")
    }

    /// Returns the links that guests hang on: bridges that lead to no uplink, and interfaces whose other
    /// end is in another network namespace or in a program.
    pub(crate) fn guest_links(&self) -> impl Iterator<Item = &Link> {
        let uplinks = self.uplinks();
        self.links.values().filter(move |link| {
            let is_for_guests = match &*link.kind {
                "bridge" => !self.ports_of(link).is_empty(),
                "veth" => link.is_linked_elsewhere,
                "tun" => link.is_tap,
                _ => false,
            };
            let is_uplink = uplinks.contains(link.name.as_str());
            link.is_up && is_for_guests && !self.is_port(link) && !is_uplink
        })
    }

    /// Tells whether guests hang on the link of this name.
    pub(crate) fn is_for_guests(&self, name: &str) -> bool {
        self.guest_links().any(|link| link.name == name)
    }

    /// Tells whether the hooks see what passes from port to port of the bridge of this name.
    pub(crate) fn hooks_see(&self, bridge: &str, version: IpVersion) -> bool {
        self.link(bridge).is_some_and(|link| {
            let calls = self.bridges_call_hooks[version] || link.calls_hooks[version];
            calls && link.kind == "bridge" && link.is_up && self.ports_of(link).len() > 1
        })
    }

    /// Tells whether that holds for one bridge alone and not for all.
    pub(crate) fn only_one_calls_hooks(&self, version: IpVersion) -> bool {
        !self.bridges_call_hooks[version]
    }

    /// Returns an address that a guest behind this link could have, with the address of this host
    /// that the guest sees; the latter is `None` if the link has no address.
    pub(crate) fn guest_of(
        &self,
        link: &Link,
        version: IpVersion,
    ) -> Option<(IpAddr, Option<IpAddr>)> {
        let of_link = |own: &&InterfaceAddress| {
            own.index == link.index
                && IpVersion::of(own.address) == version
                && is_global(own.address)
                && own.prefix_len < version.address_bits()
        };
        if let Some(own) = self.addresses.iter().find(of_link) {
            return Some((neighbour(own.address, own.prefix_len)?, Some(own.address)));
        }
        let mut neighbours = self.neighbours.iter();
        let is_behind =
            |(index, to): &&(u32, IpAddr)| *index == link.index && IpVersion::of(*to) == version;
        neighbours.find(is_behind).map(|(_, to)| (*to, None))
    }
}

impl Way {
    /// Tells whether the way ends at this host.
    pub(crate) fn is_local(&self) -> bool {
        u32::from(self.kind) == fib_type::LOCAL
    }
}

/// Returns another address of the network.
fn neighbour(own: IpAddr, prefix_len: u8) -> Option<IpAddr> {
    let network = IpNetwork::new(own, prefix_len).ok()?;
    network.iter().skip(1).find(|address| *address != own)
}

/// Tells whether hosts behind a router may use the address.
pub(crate) fn is_global(address: IpAddr) -> bool {
    let is_link_local = match address {
        IpAddr::V4(address) => address.is_link_local(),
        IpAddr::V6(address) => address.is_unicast_link_local(),
    };
    !is_link_local && !address.is_loopback()
}

fn is_on(name: &str) -> bool {
    setting(name).is_some_and(|value| value != "0")
}

/// The setting of a missing part of the kernel does not exist.
fn setting(name: &str) -> Option<String> {
    let value = fs::read_to_string(Path::new("/proc/sys/net").join(name)).ok()?;
    Some(value.trim().to_owned())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn link(index: u32, name: &str, kind: &str, address: u8, parent: Option<u32>) -> Link {
        Link {
            index,
            name: name.to_owned(),
            kind: kind.to_owned(),
            address: vec![2, 0, 0, 0, 0, address],
            parent,
            ..Link::default()
        }
    }

    fn network(links: &[Link], further: &[(u32, u8)]) -> Network {
        Network {
            links: links.iter().map(|link| (link.index, link.clone())).collect(),
            further_addresses: further
                .iter()
                .map(|(index, address)| (*index, vec![2, 0, 0, 0, 0, *address]))
                .collect(),
            ..Network::default()
        }
    }

    #[test]
    fn only_what_no_interface_of_this_host_has_is_beside_its_hooks() {
        let eth0 = link(2, "eth0", "", 1, None);
        let vlan = link(3, "eth0.7", "vlan", 7, Some(2));
        // The VLAN hands the address of a macvlan on it down to its own parent.
        let found = network(&[eth0.clone(), vlan.clone()], &[(2, 7), (2, 8), (3, 8)]);
        let words = "macvlan with the address 02:00:00:00:00:08".to_owned();
        assert_eq!(found.beside_the_hooks(), BTreeMap::from([("eth0.7", vec![words])]));
        // The host's own macvlan, and what a bond hands down to a port.
        let own = link(4, "shim0", "macvlan", 9, Some(2));
        let bond = link(5, "bond0", "bond", 1, None);
        let port = Link { master: Some(5), ..link(6, "eth1", "", 1, None) };
        let found = network(&[eth0, own, bond, port], &[(2, 9), (6, 3)]);
        assert_eq!(found.beside_the_hooks(), BTreeMap::new());
    }

    #[test]
    fn a_service_address_makes_no_uplink() {
        let address = |index, address: [u8; 4]| InterfaceAddress {
            interface: String::new(),
            index,
            address: address.into(),
            prefix_len: 32,
        };
        let lo = Link { is_loopback: true, ..link(1, "lo", "", 0, None) };
        let vip = link(2, "vip0", "dummy", 2, None);
        let mut here = network(&[lo, vip, link(3, "enp3s0", "", 3, None)], &[]);
        here.addresses = vec![address(1, [203, 0, 113, 7]), address(2, [203, 0, 113, 8])];
        assert_eq!(here.uplink(IpVersion::V4), NO_UPLINK);
        here.addresses.push(address(3, [192, 0, 2, 3]));
        assert_eq!(here.uplink(IpVersion::V4), "enp3s0");
    }

    #[test]
    fn an_ipvlan_of_another_namespace_is_known_by_the_address_that_it_shares() {
        let mut here = network(&[link(2, "eth0", "", 1, None)], &[]);
        let ipvlan = link(9, "ipvl0", "ipvlan", 1, Some(2));
        // One whose parent has the same index, in a third namespace.
        let other = link(9, "ipvl1", "ipvlan", 5, Some(2));
        let holder = || "process 7 (nginx)".to_owned();
        here.keep_sharing(vec![(ipvlan, holder()), (other, holder())]);
        let words = "ipvlan ipvl0 of process 7 (nginx)".to_owned();
        assert_eq!(here.beside_the_hooks(), BTreeMap::from([("eth0", vec![words])]));
    }

    #[test]
    fn a_guest_has_another_address_of_the_network() {
        for (own, prefix_len, expected) in [
            ("10.0.3.1", 24, "10.0.3.2"),
            ("10.0.3.2", 24, "10.0.3.1"),
            ("10.0.3.1", 30, "10.0.3.2"),
            ("10.0.3.0", 31, "10.0.3.1"),
            ("fd42::1", 64, "fd42::2"),
        ] {
            let own = own.parse().expect("an address");
            assert_eq!(neighbour(own, prefix_len), expected.parse().ok(), "{own}");
        }
    }
}
