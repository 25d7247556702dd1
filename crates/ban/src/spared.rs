//! How those who are never banned lie in the kernel. Pure.

use std::net::{IpAddr, Ipv4Addr};

use ipnetwork::IpNetwork;
use nfguard_netlink::{Element, Key, KeyType, Set};

use crate::layout::{FAMILIES, Spared, address, push_address};
use crate::never::{NeverBan, NeverBanEntry};
use crate::note;
use crate::target::Target;

/// How many single addresses can be spared, each family. To say so has the kernel take its quickest
/// kind of set, with a table of 175 kB that never grows (`nft_hash_fast`, since Linux 4.13).
const ALLIES: u32 = 16_384;

/// So many are compared one by one. A look-up takes a packet as long as about eleven comparisons (Linux
/// 6.18).
const FEW: usize = 8;

/// The sets of those who are spared, and what is to be in them: single addresses, which cost a
/// dropped packet least; prefixes; and prefixes within these, which no rule looks at, but which are
/// still spared when the wider one no longer is.
///
/// Of loopback it is the one address that is used: nothing but the host itself can send from there.
pub(crate) fn spared(never: &NeverBan) -> Vec<Set> {
    let of = |is_v6: bool| {
        let mut addresses = never_set(is_v6);
        let mut prefixes = never_prefixes(is_v6);
        let mut within = never_within(is_v6);
        let allies = never.entries().iter().filter(|ally| ally.network.is_ipv6() == is_v6);
        for ally in allies {
            let (first, last) = (ally.network.network(), ally.network.broadcast());
            let comment = Some(note::clean(&ally.reason));
            if first == last || first.is_loopback() {
                let first = if first.is_loopback() { LOOPBACK } else { first };
                let key = Key::Value(bytes(if is_v6 { ally.network.network() } else { first }));
                addresses.elements.push(Element { key, timeout: None, comment });
            } else if is_outermost(ally, never.entries()) {
                let key = Key::Range(bytes(first), bytes(last));
                prefixes.elements.push(Element { key, timeout: None, comment });
            } else {
                let key = Key::Value([bytes(first), bytes(last)].concat());
                within.elements.push(Element { key, timeout: None, comment });
            }
        }
        [addresses, prefixes, within].map(|mut set| {
            set.elements.sort_by(|a, b| a.key.cmp(&b.key));
            set.elements.dedup_by(|a, b| a.key == b.key);
            set
        })
    };
    FAMILIES.into_iter().flat_map(of).collect()
}

/// How the rules of each family find those that are in these sets. Whoever changes the sets writes
/// the rules anew.
pub(crate) fn in_rules(sets: &[Set]) -> [Spared; 2] {
    FAMILIES.map(|is_v6| {
        let of = |name: String| {
            let set = sets.iter().find(|set| set.name == name);
            set.map(|set| set.elements.as_slice()).unwrap_or_default()
        };
        let addresses = of(never_set(is_v6).name);
        let few = (addresses.len() <= FEW).then(|| addresses.iter().filter_map(value).collect());
        Spared { few, prefixes: !of(never_prefixes(is_v6).name).is_empty() }
    })
}

fn value(element: &Element) -> Option<Vec<u8>> {
    match &element.key {
        Key::Value(key) => Some(key.clone()),
        Key::Range(..) => None,
    }
}

const LOOPBACK: IpAddr = IpAddr::V4(Ipv4Addr::LOCALHOST);

fn bytes(address: IpAddr) -> Vec<u8> {
    let mut bytes = Vec::new();
    push_address(&mut bytes, address);
    bytes
}

/// Who is spared, by an element of one set of [`spared`]; but for loopback, which always is.
pub(crate) fn ally(set: &Set, element: Element) -> Option<(IpNetwork, String)> {
    let (first, last) = match element.key {
        Key::Value(key) if set.key.len() == 2 => {
            let (first, last) = key.split_at(key.len() / 2);
            (first.to_vec(), last.to_vec())
        }
        Key::Value(key) => (key.clone(), key),
        Key::Range(first, last) => (first, last),
    };
    let mut bits = 0;
    for (first, last) in first.iter().zip(&last) {
        let equal = (first ^ last).leading_zeros();
        bits += equal;
        if equal < 8 {
            break;
        }
    }
    let network = IpNetwork::new(address(&first)?, u8::try_from(bits).ok()?).ok()?;
    if network.ip().is_loopback() {
        return None;
    }
    Some((network, element.comment.unwrap_or_default()))
}

/// Whether its network lies in no other one: the kernel refuses ranges that overlap.
fn is_outermost(inner: &NeverBanEntry, allies: &[NeverBanEntry]) -> bool {
    !allies.iter().any(|outer| {
        outer.network.prefix() < inner.network.prefix()
            && Target::from(outer.network).overlaps(inner.network.into())
    })
}

pub(crate) fn never_set(is_v6: bool) -> Set {
    let (name, key) =
        if is_v6 { ("never/v6", KeyType::Ipv6Addr) } else { ("never/v4", KeyType::Ipv4Addr) };
    Set {
        name: name.to_owned(),
        key: vec![key],
        size: Some(ALLIES),
        comment: Some("never banned".to_owned()),
        ..Set::default()
    }
}

pub(crate) fn never_prefixes(is_v6: bool) -> Set {
    let addresses = never_set(is_v6);
    let name = format!("{}/prefixes", addresses.name);
    Set { name, interval: true, size: None, ..addresses }
}

/// Each by its first and its last address. A table has it when it is needed first.
fn never_within(is_v6: bool) -> Set {
    let addresses = never_set(is_v6);
    let key = addresses.key.repeat(2);
    Set { name: format!("{}/within", addresses.name), key, ..addresses }
}
