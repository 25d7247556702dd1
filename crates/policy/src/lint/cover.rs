//! Which rules leave nothing for a later one.
//!
//! The packets of a rule are boxes: one for each address version and protocol, each a product of
//! ports, addresses and interfaces. A box is covered when the earlier boxes that hold it in all
//! dimensions but one hold it in that one together. This says "covered" only when it is true; it
//! may miss a cover that is patched together in two dimensions.

use std::rc::Rc;

use crate::policy::{Addresses, Interface, Policy, Ports, Prefixes, Rule, Traffic};

/// Sorted, disjoint, not adjacent, inclusive; ports and addresses alike. Shared, since a group may
/// be long and stand in many rules.
pub(crate) type Ranges = Rc<[(u128, u128)]>;

#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub(crate) enum IpVersion {
    V4,
    V6,
}

/// What tells boxes apart whose other dimensions cannot be compared.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub(crate) enum ProtocolMatch {
    /// Every protocol.
    Any,
    /// One protocol.
    Protocol(u8),
}

pub(crate) const TCP: ProtocolMatch = ProtocolMatch::Protocol(6);
pub(crate) const UDP: ProtocolMatch = ProtocolMatch::Protocol(17);

/// The packets of a rule in one version and one protocol.
#[derive(Clone, Debug)]
pub(crate) struct PacketBox<'p> {
    pub(crate) version: IpVersion,
    pub(crate) class: ProtocolMatch,
    /// Destination ports or ICMP types, source ports, source and destination addresses.
    pub(crate) ranges: [Ranges; 4],
    /// In and out; empty: any.
    interfaces: [&'p [Interface]; 2],
}

/// Indexes of [`PacketBox::ranges`].
pub(crate) const PORT: usize = 0;
pub(crate) const FROM: usize = 2;
pub(crate) const TO: usize = 3;

/// Ranges and interfaces together.
const DIMENSIONS: usize = 6;

impl<'p> PacketBox<'p> {
    /// All boxes of a rule.
    pub(crate) fn of(rule: &'p Rule, groups: &GroupRanges) -> Vec<Self> {
        let interfaces = [rule.in_interface.as_slice(), rule.out_interface.as_slice()];
        let mut all = Vec::new();
        for version in [IpVersion::V4, IpVersion::V6] {
            let [from, to] = [&rule.from, &rule.to].map(|side| groups.addresses(side, version));
            if from.is_empty() || to.is_empty() {
                continue;
            }
            for (class, ports, source) in classes(&rule.traffic, version) {
                let ranges = [ports, source, from.clone(), to.clone()];
                all.push(Self { version, class, ranges, interfaces });
            }
        }
        all
    }

    /// The part that goes to one TCP or UDP port, if there is any.
    pub(crate) fn to_port(&self, class: ProtocolMatch, port: u16) -> Option<Self> {
        let point = (u128::from(port), u128::from(port));
        let may = self.class == class || self.class == ProtocolMatch::Any;
        (may && contains(&self.ranges[PORT], &[point])).then(|| {
            let [_, source, from, to] = self.ranges.clone();
            Self { class, ranges: [Rc::from([point]), source, from, to], ..*self }
        })
    }

    /// The dimensions in which `self` does not hold all of `other`; `None` for another kind.
    fn misses(&self, other: &Self) -> Option<[bool; DIMENSIONS]> {
        let is_comparable = self.version == other.version
            && (self.class == other.class || self.class == ProtocolMatch::Any);
        is_comparable.then(|| {
            let ranges = [0, 1, 2, 3].map(|d: usize| !contains(&self.ranges[d], &other.ranges[d]));
            let interfaces =
                [0, 1].map(|d: usize| !contains_all(self.interfaces[d], other.interfaces[d]));
            let ([a, b, c, d], [e, f]) = (ranges, interfaces);
            [a, b, c, d, e, f]
        })
    }

    /// Which of the earlier boxes leave nothing of this one: their places, or `None` if
    /// something is left.
    pub(crate) fn covered_by<'e>(
        &self,
        earlier: impl Iterator<Item = (usize, &'e PacketBox<'e>)>,
    ) -> Option<Vec<usize>>
    where
        'p: 'e,
    {
        let mut partial: [Vec<(usize, &PacketBox<'_>)>; DIMENSIONS] = Default::default();
        for (place, packets) in earlier {
            let Some(misses) = packets.misses(self) else { continue };
            let mut missed = (0..DIMENSIONS).filter(|dimension| misses[*dimension]);
            match (missed.next(), missed.next()) {
                (None, _) => return Some(vec![place]),
                (Some(only), None) => partial[only].push((place, packets)),
                _ => {}
            }
        }
        (0..DIMENSIONS).find_map(|dimension| self.covered_in(dimension, &partial[dimension]))
    }

    /// Whether boxes that hold this one in all other dimensions hold it in this one together.
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

/// The addresses of each group, IPv4 and IPv6.
pub(crate) struct GroupRanges(Vec<[Ranges; 2]>);

impl GroupRanges {
    pub(crate) fn of(policy: &Policy) -> Self {
        let both = |prefixes| [IpVersion::V4, IpVersion::V6].map(|it| prefix_ranges(prefixes, it));
        Self(policy.groups.iter().map(|group| both(&group.prefixes)).collect())
    }

    fn addresses(&self, side: &Addresses, version: IpVersion) -> Ranges {
        match (side, version) {
            (Addresses::Any, _) => all(),
            (Addresses::Prefixes(prefixes), _) => prefix_ranges(prefixes, version),
            (Addresses::Group(index), IpVersion::V4) => self.0[*index][0].clone(),
            (Addresses::Group(index), IpVersion::V6) => self.0[*index][1].clone(),
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
        // At the top of the number, so that 0.0.0.0/0 is everything here too.
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

/// The classes of a rule in one version, with their destination ports (or types) and source ports.
fn classes(traffic: &Traffic, version: IpVersion) -> Vec<(ProtocolMatch, Ranges, Ranges)> {
    match traffic {
        Traffic::Any => vec![(ProtocolMatch::Any, all(), all())],
        Traffic::Ports { tcp, udp, source } => [(TCP, tcp), (UDP, udp)]
            .into_iter()
            .filter_map(|(class, ports)| {
                Some((class, port_ranges(ports.as_ref()?), port_ranges(source)))
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
            vec![(ProtocolMatch::Protocol(protocol), ranges, all())]
        }
        Traffic::Protocols(numbers) => {
            numbers.iter().map(|number| (ProtocolMatch::Protocol(*number), all(), all())).collect()
        }
    }
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

/// Whether merged ranges hold each of the others.
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
