//! An index of the earlier rules that may cover a later rule. With it, ten thousand rules need ten
//! thousand look-ups, not fifty million comparisons.
//!
//! The keys of a box are its source prefixes, if they are few; else its destination prefixes, if
//! they are few; else its single ports. A box without such a key is compared with every other box.

use std::collections::{HashMap, HashSet};

use nfguard_netlink::IpVersion;

use crate::lint::cover::{
    DESTINATION_ADDRESS, DESTINATION_PORT, PacketBox, ProtocolMatch, SOURCE_ADDRESS,
};

/// The most prefixes of one box that become keys.
const MAX_PREFIX_KEYS: usize = 16;

/// The most boxes that one box is compared with, so that no file takes long. A cover by a box beyond
/// this limit is not reported.
const MAX_COMPARED_BOXES: usize = 500;

#[derive(Clone, Copy, PartialEq, Eq, Hash)]
enum Key {
    /// The dimension, the first address of the prefix, and the number of bits after the prefix.
    Prefix(IpVersion, usize, u128, u32),
    Port(IpVersion, ProtocolMatch, u128),
}

/// The boxes of earlier rules, each with the index of its rule.
#[derive(Default)]
pub(crate) struct CoverIndex<'p> {
    boxes: Vec<(usize, PacketBox<'p>)>,
    by_key: HashMap<Key, Vec<usize>>,
    /// The number of bits after the prefix of each prefix key, with its IP version and dimension.
    widths: HashSet<(IpVersion, usize, u32)>,
    /// Boxes without a key.
    without_key: Vec<usize>,
}

impl<'p> CoverIndex<'p> {
    /// Adds a box of the rule with this index.
    pub(crate) fn add(&mut self, rule: usize, packets: PacketBox<'p>) {
        let at = self.boxes.len();
        let by_prefix = [SOURCE_ADDRESS, DESTINATION_ADDRESS]
            .into_iter()
            .find_map(|dimension| self.prefix_keys(&packets, dimension));
        match by_prefix.or_else(|| port_keys(&packets)) {
            Some(keys) => {
                for key in keys {
                    self.by_key.entry(key).or_default().push(at);
                }
            }
            None => self.without_key.push(at),
        }
        self.boxes.push((rule, packets));
    }

    fn prefix_keys(&mut self, packets: &PacketBox<'_>, dimension: usize) -> Option<Vec<Key>> {
        let (version, ranges) = (packets.version, &packets.ranges[dimension]);
        if ranges.len() > MAX_PREFIX_KEYS {
            return None;
        }
        let widths: Vec<u32> = ranges.iter().map(|range| width(*range)).collect::<Option<_>>()?;
        self.widths.extend(widths.iter().map(|width| (version, dimension, *width)));
        let keys = ranges.iter().zip(widths);
        Some(keys.map(|((low, _), width)| Key::Prefix(version, dimension, *low, width)).collect())
    }

    /// Returns the boxes that may cover this box, in order, each with the index of its rule.
    pub(crate) fn of(&self, packets: &PacketBox<'_>) -> Vec<(usize, &PacketBox<'p>)> {
        let version = packets.version;
        let single = packets.ranges[DESTINATION_PORT].iter().filter(|(low, high)| low == high);
        let by_port = single.map(|(port, _)| Key::Port(version, packets.protocol, *port));
        let by_prefix = self
            .widths
            .iter()
            .filter(|(of, dimension, _)| {
                *of == version && packets.ranges[*dimension].len() <= MAX_PREFIX_KEYS
            })
            .flat_map(|(_, dimension, width)| {
                let first = u128::MAX.checked_shl(*width).unwrap_or(0);
                let ranges = &packets.ranges[*dimension];
                ranges
                    .iter()
                    .map(move |(low, _)| Key::Prefix(version, *dimension, low & first, *width))
            });
        let keyed = by_port.chain(by_prefix).filter_map(|key| self.by_key.get(&key)).flatten();
        let mut found: Vec<usize> = self
            .without_key
            .iter()
            .take(MAX_COMPARED_BOXES)
            .chain(keyed.take(MAX_COMPARED_BOXES))
            .copied()
            .collect();
        found.sort_unstable();
        found.dedup();
        found.iter().filter_map(|at| self.boxes.get(*at)).map(|(rule, it)| (*rule, it)).collect()
    }
}

/// Returns the number of bits after the prefix. Returns `None` if the range is not a prefix, or is
/// everything.
fn width((low, high): (u128, u128)) -> Option<u32> {
    let rest = low ^ high;
    let is_prefix = rest.checked_add(1)?.is_power_of_two() && low & rest == 0;
    is_prefix.then(|| rest.count_ones())
}

fn port_keys(packets: &PacketBox<'_>) -> Option<Vec<Key>> {
    let ranges = packets.ranges[DESTINATION_PORT].iter();
    ranges
        .map(|(low, high)| {
            (low == high).then_some(Key::Port(packets.version, packets.protocol, *low))
        })
        .collect()
}
