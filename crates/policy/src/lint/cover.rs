//! Finds the earlier rules that leave no packet for a later rule.
//!
//! The packets of a rule are boxes: one for each IP version and protocol. A box is the product of
//! ports, addresses and interfaces. Earlier boxes cover a box if each of them contains it in all
//! dimensions but one, and together they contain it in that one. Every cover that this finds is
//! true. It can miss a cover whose boxes differ in two dimensions.

use std::rc::Rc;

use nfguard_netlink::{IpVersion, PerIpVersion, protocol};

use crate::policy::{Addresses, Group, Interface, Policy, Ports, Prefixes, Rule, Traffic};

/// Inclusive ranges of ports or addresses: sorted, disjoint and not adjacent. They are shared, because
/// many rules may use one long group.
pub(crate) type Ranges = Rc<[(u128, u128)]>;

/// The protocol of a box. Boxes of different protocols cannot be compared.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub(crate) enum ProtocolMatch {
    /// Every protocol.
    Any,
    /// The protocol of this number.
    Only(u8),
}

pub(crate) const TCP: ProtocolMatch = ProtocolMatch::Only(6);
pub(crate) const UDP: ProtocolMatch = ProtocolMatch::Only(17);

/// The packets of a rule in one IP version and one protocol.
#[derive(Clone, Debug)]
pub(crate) struct PacketBox<'p> {
    pub(crate) version: IpVersion,
    pub(crate) protocol: ProtocolMatch,
    /// Destination ports or ICMP types, source ports, source addresses, destination addresses.
    pub(crate) ranges: [Ranges; 4],
    /// Input and output interfaces. Empty: any.
    interfaces: [&'p [Interface]; 2],
}

/// Index of destination ports in [`PacketBox::ranges`].
pub(crate) const DESTINATION_PORT: usize = 0;
/// Index of source addresses in [`PacketBox::ranges`].
pub(crate) const SOURCE_ADDRESS: usize = 2;
/// Index of destination addresses in [`PacketBox::ranges`].
pub(crate) const DESTINATION_ADDRESS: usize = 3;

/// Number of ranges and interfaces of a box.
const DIMENSION_COUNT: usize = 6;

impl<'p> PacketBox<'p> {
    /// Returns all boxes of a rule.
    pub(crate) fn of(rule: &'p Rule, groups: &GroupRanges) -> Vec<Self> {
        let interfaces = [rule.in_interface.as_slice(), rule.out_interface.as_slice()];
        Self::of_parts(&rule.traffic, [&rule.from, &rule.to], interfaces, groups)
    }

    /// Returns all boxes of a rule with these parts.
    pub(crate) fn of_parts(
        traffic: &Traffic,
        ends: [&Addresses; 2],
        interfaces: [&'p [Interface]; 2],
        groups: &GroupRanges,
    ) -> Vec<Self> {
        let mut all = Vec::new();
        for version in IpVersion::ALL {
            let [from, to] = ends.map(|side| groups.addresses(side, version));
            if from.is_empty() || to.is_empty() {
                continue;
            }
            for (protocol, ports, source) in protocols(traffic, version) {
                let ranges = [ports, source, from.clone(), to.clone()];
                all.push(Self { version, protocol, ranges, interfaces });
            }
        }
        all
    }

    /// Returns the part of the box that goes to one TCP or UDP port, if there is one.
    pub(crate) fn to_port(&self, protocol: ProtocolMatch, port: u16) -> Option<Self> {
        let point = (u128::from(port), u128::from(port));
        let has_protocol = self.protocol == protocol || self.protocol == ProtocolMatch::Any;
        (has_protocol && contains(&self.ranges[DESTINATION_PORT], &[point])).then(|| {
            let [_, source, from, to] = self.ranges.clone();
            Self { protocol, ranges: [Rc::from([point]), source, from, to], ..*self }
        })
    }

    /// Returns whether the box is about certain ports, ICMP types or a protocol of its own.
    pub(crate) fn is_about_a_service(&self) -> bool {
        const WITH_PORTS_OR_TYPES: [u8; 4] = [1, 6, 17, 58];
        let is_narrow = !contains(&self.ranges[DESTINATION_PORT], &all());
        match self.protocol {
            ProtocolMatch::Any => false,
            ProtocolMatch::Only(number) => is_narrow || !WITH_PORTS_OR_TYPES.contains(&number),
        }
    }

    /// Returns whether a packet is in both boxes.
    pub(crate) fn overlaps(&self, other: &Self) -> bool {
        let ranges = self.ranges.iter().zip(&other.ranges).all(|(one, other)| overlaps(one, other));
        let interfaces = self.interfaces.iter().zip(other.interfaces).all(|(one, other)| {
            let is_one =
                |it: &Interface| other.iter().any(|other| it.contains(other) || other.contains(it));
            one.is_empty() || other.is_empty() || one.iter().any(is_one)
        });
        let is_comparable = self.version == other.version && self.protocol == other.protocol;
        is_comparable && ranges && interfaces
    }

    /// Returns for each dimension whether `self` lacks a part of `other`. Returns `None` if the two
    /// cannot be compared.
    fn misses(&self, other: &Self) -> Option<[bool; DIMENSION_COUNT]> {
        let is_comparable = self.version == other.version
            && (self.protocol == other.protocol || self.protocol == ProtocolMatch::Any);
        is_comparable.then(|| {
            let ranges = [0, 1, 2, 3].map(|d: usize| !contains(&self.ranges[d], &other.ranges[d]));
            let interfaces =
                [0, 1].map(|d: usize| !contains_all(self.interfaces[d], other.interfaces[d]));
            let ([a, b, c, d], [e, f]) = (ranges, interfaces);
            [a, b, c, d, e, f]
        })
    }

    /// Returns the places of the earlier boxes that cover this box together. Returns `None` if a part
    /// is left.
    pub(crate) fn covered_by<'e>(
        &self,
        earlier: impl Iterator<Item = (usize, &'e PacketBox<'e>)>,
    ) -> Option<Vec<usize>>
    where
        'p: 'e,
    {
        let mut partial: [Vec<(usize, &PacketBox<'_>)>; DIMENSION_COUNT] = Default::default();
        for (place, packets) in earlier {
            let Some(misses) = packets.misses(self) else { continue };
            let mut missed = (0..DIMENSION_COUNT).filter(|dimension| misses[*dimension]);
            match (missed.next(), missed.next()) {
                (None, _) => return Some(vec![place]),
                (Some(only), None) => partial[only].push((place, packets)),
                _ => {}
            }
        }
        (0..DIMENSION_COUNT).find_map(|dimension| self.covered_in(dimension, &partial[dimension]))
    }

    /// Returns the places of the boxes that cover this box together in one dimension. Each of `parts`
    /// contains this box in all other dimensions.
    fn covered_in(
        &self,
        dimension: usize,
        parts: &[(usize, &PacketBox<'_>)],
    ) -> Option<Vec<usize>> {
        if parts.len() < 2 {
            return None;
        }
        let is_part: Vec<bool> = if let Some(own) = self.ranges.get(dimension) {
            let union =
                merge(parts.iter().flat_map(|(_, part)| part.ranges[dimension].iter()).copied());
            if !contains(&union, own) {
                return None;
            }
            parts.iter().map(|(_, part)| overlaps(&part.ranges[dimension], own)).collect()
        } else {
            let side = dimension - self.ranges.len();
            let own = self.interfaces[side];
            let holds = |part: &PacketBox<'_>, one: &Interface| {
                part.interfaces[side].iter().any(|other| other.contains(one))
            };
            let is_held = |one| parts.iter().any(|(_, part)| holds(part, one));
            if own.is_empty() || !own.iter().all(is_held) {
                return None;
            }
            parts.iter().map(|(_, part)| own.iter().any(|one| holds(part, one))).collect()
        };
        let parts = parts.iter().zip(is_part).filter(|(_, is_part)| *is_part);
        let mut places: Vec<usize> = parts.map(|((place, _), _)| *place).collect();
        places.dedup();
        Some(places)
    }
}

/// The addresses of each group.
pub(crate) struct GroupRanges(Vec<PerIpVersion<Ranges>>);

impl GroupRanges {
    pub(crate) fn of(policy: &Policy) -> Self {
        let ranges = |group: &Group| {
            PerIpVersion::from_fn(|version| prefix_ranges(&group.prefixes, version))
        };
        Self(policy.groups.iter().map(ranges).collect())
    }

    fn addresses(&self, side: &Addresses, version: IpVersion) -> Ranges {
        match side {
            Addresses::Any => all(),
            Addresses::Prefixes(prefixes) => prefix_ranges(prefixes, version),
            Addresses::Group(index) => self.0[*index][version].clone(),
        }
    }
}

fn all() -> Ranges {
    Rc::from([(0, u128::MAX)])
}

fn prefix_ranges(prefixes: &Prefixes, version: IpVersion) -> Ranges {
    let range = |bits: u128, length: u8, width: u32| {
        let rest = 128 - width + (width - u32::from(length));
        (bits, bits | 1_u128.checked_shl(rest).map_or(u128::MAX, |bit| bit - 1))
    };
    match version {
        // IPv4 bits stand at the top of the number, so that 0.0.0.0/0 covers everything too.
        IpVersion::V4 => merge(
            prefixes
                .v4
                .iter()
                .map(|net| range(u128::from(net.ip().to_bits()) << 96, net.prefix(), 32)),
        ),
        IpVersion::V6 => {
            merge(prefixes.v6.iter().map(|net| range(net.ip().to_bits(), net.prefix(), 128)))
        }
    }
}

/// Returns each protocol of a rule in one IP version, with its destination ports or ICMP types, and
/// its source ports.
fn protocols(traffic: &Traffic, version: IpVersion) -> Vec<(ProtocolMatch, Ranges, Ranges)> {
    match traffic {
        Traffic::Any => vec![(ProtocolMatch::Any, all(), all())],
        Traffic::Ports { tcp, udp, source } => [(TCP, tcp), (UDP, udp)]
            .into_iter()
            .filter_map(|(protocol, ports)| {
                Some((protocol, port_ranges(ports.as_ref()?), port_ranges(source)))
            })
            .collect(),
        Traffic::Icmp { v4, v6 } => {
            let (protocol, types) = match version {
                IpVersion::V4 => (1, v4),
                IpVersion::V6 => (58, v6),
            };
            let Some(types) = types else { return Vec::new() };
            let ranges = types.iter().map(|kind| (u128::from(*kind), u128::from(*kind)));
            let ranges = if types.is_empty() { all() } else { merge(ranges) };
            vec![(ProtocolMatch::Only(protocol), ranges, all())]
        }
        Traffic::Protocols(numbers) => {
            let numbers = numbers.iter().filter(|it| version == IpVersion::V4 || in_v6(**it));
            numbers.map(|number| (ProtocolMatch::Only(*number), all(), all())).collect()
        }
    }
}

/// Protocols that are no payload in IPv6: extension headers.
pub(crate) const EXTENSION_HEADERS: [u8; 3] = [43, 44, 60];
const AH: u8 = 51;

/// Returns whether IPv6 packets can have this protocol behind their extension headers, to which AH
/// belongs. MLD does the work of IGMP.
pub(crate) fn in_v6(number: u8) -> bool {
    !EXTENSION_HEADERS.contains(&number) && ![AH, protocol::IGMP].contains(&number)
}

fn port_ranges(ports: &Ports) -> Ranges {
    match ports.0.as_slice() {
        [] => all(),
        ranges => ranges.iter().map(|(low, high)| (u128::from(*low), u128::from(*high))).collect(),
    }
}

fn merge(ranges: impl IntoIterator<Item = (u128, u128)>) -> Ranges {
    let mut sorted: Vec<(u128, u128)> = ranges.into_iter().collect();
    sorted.sort_unstable();
    sorted.dedup_by(|next, last| {
        let meets = next.0 <= last.1.saturating_add(1);
        if meets {
            last.1 = last.1.max(next.1);
        }
        meets
    });
    sorted.into()
}

/// Returns whether merged ranges contain each of the others.
fn contains(ranges: &[(u128, u128)], others: &[(u128, u128)]) -> bool {
    std::ptr::eq(ranges, others)
        || others.iter().all(|other| {
            let after = ranges.partition_point(|range| range.0 <= other.0);
            after
                .checked_sub(1)
                .and_then(|at| ranges.get(at))
                .is_some_and(|range| range.1 >= other.1)
        })
}

fn overlaps(ranges: &[(u128, u128)], others: &[(u128, u128)]) -> bool {
    ranges.iter().any(|range| others.iter().any(|other| range.0 <= other.1 && other.0 <= range.1))
}

fn contains_all(interfaces: &[Interface], others: &[Interface]) -> bool {
    let holds = |other: &Interface| interfaces.iter().any(|one| one.contains(other));
    interfaces.is_empty() || (!others.is_empty() && others.iter().all(holds))
}
