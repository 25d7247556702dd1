//! Finds the earlier rules that may cover a later one without asking each: ten thousand rules are
//! ten thousand look-ups, not fifty million comparisons.
//!
//! A box is filed under its few source prefixes, else under its few destination prefixes, else
//! under its single ports; what has none of these is offered to everybody.

use std::collections::{HashMap, HashSet};

use crate::lint::cover::{FROM, IpVersion, PORT, PacketBox, ProtocolMatch, TO};

/// More prefixes than this are not worth filing.
const FEW: usize = 16;

/// More boxes than this are not compared with one, so that no file takes long. What is beyond goes
/// unsaid.
const MOST: usize = 500;

#[derive(Clone, Copy, PartialEq, Eq, Hash)]
enum Key {
    /// The dimension, and the prefix by its first address and the number of bits after it.
    Prefix(IpVersion, usize, u128, u32),
    Port(IpVersion, ProtocolMatch, u128),
}

/// Boxes of earlier rules, each with a number that says whose it is.
#[derive(Default)]
pub(crate) struct CoverIndex<'p> {
    boxes: Vec<(usize, PacketBox<'p>)>,
    filed: HashMap<Key, Vec<usize>>,
    /// Bits after the prefix, for each version and dimension in which something is filed.
    widths: HashSet<(IpVersion, usize, u32)>,
    others: Vec<usize>,
}

impl<'p> CoverIndex<'p> {
    /// Adds a box of the rule of this number.
    pub(crate) fn add(&mut self, rule: usize, packets: PacketBox<'p>) {
        let at = self.boxes.len();
        let by_prefix = [FROM, TO].into_iter().find_map(|d| self.prefix_keys(&packets, d));
        match by_prefix.or_else(|| port_keys(&packets)) {
            Some(keys) => {
                for key in keys {
                    self.filed.entry(key).or_default().push(at);
                }
            }
            None => self.others.push(at),
        }
        self.boxes.push((rule, packets));
    }

    fn prefix_keys(&mut self, packets: &PacketBox<'_>, dimension: usize) -> Option<Vec<Key>> {
        let (version, ranges) = (packets.version, &packets.ranges[dimension]);
        if ranges.len() > FEW {
            return None;
        }
        let widths: Vec<u32> = ranges.iter().map(|range| width(*range)).collect::<Option<_>>()?;
        self.widths.extend(widths.iter().map(|width| (version, dimension, *width)));
        let keys = ranges.iter().zip(widths);
        Some(keys.map(|((low, _), width)| Key::Prefix(version, dimension, *low, width)).collect())
    }

    /// Boxes that may cover this one, in their order, each with the number of its rule.
    pub(crate) fn of(&self, packets: &PacketBox<'_>) -> Vec<(usize, &PacketBox<'p>)> {
        let version = packets.version;
        let single = packets.ranges[PORT].iter().filter(|(low, high)| low == high);
        let by_port = single.map(|(port, _)| Key::Port(version, packets.class, *port));
        let by_prefix = self
            .widths
            .iter()
            .filter(|(of, dimension, _)| *of == version && packets.ranges[*dimension].len() <= FEW)
            .flat_map(|(_, dimension, width)| {
                let first = u128::MAX.checked_shl(*width).unwrap_or(0);
                let ranges = &packets.ranges[*dimension];
                ranges
                    .iter()
                    .map(move |(low, _)| Key::Prefix(version, *dimension, low & first, *width))
            });
        let filed = by_port.chain(by_prefix).filter_map(|key| self.filed.get(&key)).flatten();
        let mut found: Vec<usize> =
            self.others.iter().take(MOST).chain(filed.take(MOST)).copied().collect();
        found.sort_unstable();
        found.dedup();
        found.iter().filter_map(|at| self.boxes.get(*at)).map(|(rule, it)| (*rule, it)).collect()
    }
}

/// The bits after the prefix that a range is; `None` if it is none, or everything.
fn width((low, high): (u128, u128)) -> Option<u32> {
    let rest = low ^ high;
    let is_prefix = rest.checked_add(1)?.is_power_of_two() && low & rest == 0;
    is_prefix.then(|| rest.count_ones())
}

fn port_keys(packets: &PacketBox<'_>) -> Option<Vec<Key>> {
    let ranges = packets.ranges[PORT].iter();
    ranges
        .map(|(low, high)| (low == high).then_some(Key::Port(packets.version, packets.class, *low)))
        .collect()
}
