//! The rules of `user.rules` and `user6.rules` as one list.

use std::collections::HashMap;
use std::collections::hash_map::Entry;

use nfguard_netlink::IpVersion;

use crate::tuple::Tuple;

/// A rule and the IP versions that have it.
#[derive(Debug, PartialEq, Eq)]
pub(crate) struct MergedRule {
    pub(crate) tuple: Tuple,
    pub(crate) versions: RuleVersions,
}

/// The IP versions that a rule is for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum RuleVersions {
    Only(IpVersion),
    Both,
}

impl RuleVersions {
    pub(crate) fn include(self, version: IpVersion) -> bool {
        match self {
            RuleVersions::Only(only) => only == version,
            RuleVersions::Both => true,
        }
    }
}

impl MergedRule {
    /// Returns the IP version of the file that the tuple is from.
    pub(crate) fn file_version(&self) -> IpVersion {
        match self.versions {
            RuleVersions::Only(version) => version,
            RuleVersions::Both => IpVersion::V4,
        }
    }
}

/// Merges both lists and keeps the order of each. A rule of both lists becomes one rule, unless the
/// order of one list forbids that.
pub(crate) fn merge(v4: Vec<Tuple>, v6: Vec<Tuple>) -> Vec<MergedRule> {
    let mut v4_positions = HashMap::new();
    for (position, tuple) in v4.iter().enumerate() {
        // Of two equal rules in one list, the first decides.
        if let Entry::Vacant(entry) = v4_positions.entry(&tuple.spec) {
            entry.insert(position);
        }
    }
    let pairs: Vec<Pair> = v6
        .iter()
        .enumerate()
        .filter_map(|(position, tuple)| {
            Some(Pair { v4: v4_positions.remove(&tuple.spec)?, v6: position })
        })
        .collect();
    let mut pairs = longest_rising(&pairs).into_iter().peekable();
    let mut merged = Vec::new();
    let mut v6 = v6.into_iter().enumerate();
    let mut push = |tuple, versions| merged.push(MergedRule { tuple, versions });
    for (position, tuple) in v4.into_iter().enumerate() {
        let Some(pair) = pairs.next_if(|pair| pair.v4 == position) else {
            push(tuple, RuleVersions::Only(IpVersion::V4));
            continue;
        };
        for (position, v6_tuple) in v6.by_ref() {
            if position == pair.v6 {
                break;
            }
            push(v6_tuple, RuleVersions::Only(IpVersion::V6));
        }
        push(tuple, RuleVersions::Both);
    }
    for (_, v6_tuple) in v6 {
        push(v6_tuple, RuleVersions::Only(IpVersion::V6));
    }
    merged
}

/// Positions of one rule in both lists.
#[derive(Clone, Copy)]
struct Pair {
    v4: usize,
    v6: usize,
}

/// Returns the longest selection of pairs in which both positions rise. The IPv6 positions of
/// `pairs` rise already.
fn longest_rising(pairs: &[Pair]) -> Vec<Pair> {
    // For each length: the pair that ends the best row of that length. For each pair: the pair
    // before it in its row.
    let mut ends: Vec<usize> = Vec::new();
    let mut previous: Vec<Option<usize>> = Vec::new();
    let v4_position = |index: &usize| pairs.get(*index).map(|pair| pair.v4);
    for (index, pair) in pairs.iter().enumerate() {
        let length = ends.partition_point(|end| v4_position(end) < Some(pair.v4));
        previous.push(length.checked_sub(1).and_then(|last| ends.get(last).copied()));
        match ends.get_mut(length) {
            Some(end) => *end = index,
            None => ends.push(index),
        }
    }
    let mut row = Vec::new();
    let mut next = ends.last().copied();
    while let Some(index) = next {
        row.extend(pairs.get(index));
        next = previous.get(index).copied().flatten();
    }
    row.reverse();
    row
}
