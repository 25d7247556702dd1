//! Two lists of rules, one for each family, as one list.

use std::collections::HashMap;
use std::collections::hash_map::Entry;

use super::tuple::Tuple;

/// A rule with the families that it is for.
#[derive(Debug, PartialEq, Eq)]
pub(super) struct Merged {
    pub(super) tuple: Tuple,
    pub(super) families: Families,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Families {
    V4,
    V6,
    Both,
}

/// Keeps the order of both lists. What stands in both becomes one rule, unless the order of one
/// list forbids it.
pub(super) fn merge(v4: Vec<Tuple>, v6: Vec<Tuple>) -> Vec<Merged> {
    let mut places = HashMap::new();
    for (place, tuple) in v4.iter().enumerate() {
        // A rule that stands there twice decides the first time.
        if let Entry::Vacant(entry) = places.entry(&tuple.what) {
            entry.insert(place);
        }
    }
    let pairs: Vec<(usize, usize)> = v6
        .iter()
        .enumerate()
        .filter_map(|(place, tuple)| Some((places.remove(&tuple.what)?, place)))
        .collect();
    let mut pairs = longest_rising(&pairs).into_iter().peekable();
    let mut merged = Vec::new();
    let mut v6 = v6.into_iter().enumerate();
    let mut push = |tuple, families| merged.push(Merged { tuple, families });
    for (place, tuple) in v4.into_iter().enumerate() {
        let Some((_, partner)) = pairs.next_if(|(of_v4, _)| *of_v4 == place) else {
            push(tuple, Families::V4);
            continue;
        };
        for (place, only) in v6.by_ref() {
            if place == partner {
                break;
            }
            push(only, Families::V6);
        }
        push(tuple, Families::Both);
    }
    for (_, only) in v6 {
        push(only, Families::V6);
    }
    merged
}

/// As many pairs as can be taken so that both numbers rise. The second ones rise already.
fn longest_rising(pairs: &[(usize, usize)]) -> Vec<(usize, usize)> {
    // The pair that ends the best row of each length, and what came before each pair.
    let mut ends: Vec<usize> = Vec::new();
    let mut before: Vec<Option<usize>> = Vec::new();
    let first = |index: &usize| pairs.get(*index).map(|pair| pair.0);
    for (index, pair) in pairs.iter().enumerate() {
        let length = ends.partition_point(|end| first(end) < Some(pair.0));
        before.push(length.checked_sub(1).and_then(|last| ends.get(last).copied()));
        match ends.get_mut(length) {
            Some(end) => *end = index,
            None => ends.push(index),
        }
    }
    let mut row = Vec::new();
    let mut next = ends.last().copied();
    while let Some(index) = next {
        row.extend(pairs.get(index));
        next = before.get(index).copied().flatten();
    }
    row.reverse();
    row
}
