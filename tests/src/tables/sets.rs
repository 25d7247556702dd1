//! Random sets: their key types and elements.

use std::time::Duration;

use nfguard_netlink::{Element, Key, KeyType, Set};
use proptest::collection::{btree_set, vec};
use proptest::option;
use proptest::prelude::*;
use proptest::sample::select;

use KeyType::{IcmpType, Icmpv6Type, Ifname, InetProto, InetService, Ipv4Addr, Ipv6Addr};

use super::{named, text};

pub(super) fn sets() -> impl Strategy<Value = Vec<Set>> {
    let key = prop_oneof![
        4 => select(vec![Ipv4Addr, Ipv6Addr, InetService, InetProto, IcmpType, Icmpv6Type])
            .prop_map(|key| vec![key]),
        1 => select(vec![
            vec![Ipv4Addr, InetService],
            vec![Ipv6Addr, InetService],
            vec![Ipv4Addr, InetProto, InetService],
            vec![Ipv6Addr, InetProto, InetService],
            vec![Ipv4Addr, Ifname],
            vec![Ipv6Addr, Ifname],
        ]),
    ];
    let set = (key, any::<u8>()).prop_flat_map(|(key, kind)| match (kind % 4, key.as_slice()) {
        (0, [Ipv4Addr | Ipv6Addr | InetService]) => interval_set(key).boxed(),
        // Rules add the names of interfaces.
        (_, [_, Ifname]) => dynamic_set(key).boxed(),
        (1 | 2, [Ipv4Addr | Ipv6Addr] | [_, _, ..]) => dynamic_set(key).boxed(),
        _ => hash_set(key).boxed(),
    });
    vec(set, 0..6)
        .prop_map(|sets| named("s", sets).map(|(name, set)| Set { name, ..set }).collect())
}

fn hash_set(key: Vec<KeyType>) -> impl Strategy<Value = Set> {
    let timeout = option::of(prop_oneof![Just(Duration::ZERO), seconds()]);
    (btree_set(key_bytes(&key), 0..20), timeout, size(), text()).prop_flat_map(
        move |(keys, timeout, size, comment)| {
            let may_expire = timeout.is_some();
            let own_timeout = option::of(seconds()).prop_map(move |own| own.filter(|_| may_expire));
            let extras = (own_timeout, text());
            let set = Set { key: key.clone(), timeout, size, comment, ..Set::default() };
            vec(extras, keys.len()).prop_map(move |extras| {
                let elements = keys.iter().zip(extras).map(|(key, (timeout, comment))| Element {
                    key: Key::Value(key.clone()),
                    timeout,
                    comment,
                });
                Set { elements: elements.collect(), ..set.clone() }
            })
        },
    )
}

/// Ranges that do not overlap, some of them one key long or side by side with the next.
fn interval_set(key: Vec<KeyType>) -> impl Strategy<Value = Set> {
    (btree_set(key_bytes(&key), 0..16), text(), vec(text(), 16)).prop_map(
        move |(bounds, comment, comments)| {
            let bounds: Vec<_> = bounds.into_iter().collect();
            let elements = bounds.chunks_exact(2).zip(comments).map(|(pair, comment)| Element {
                key: Key::Range(pair[0].clone(), pair[1].clone()),
                timeout: None,
                comment,
            });
            let elements = elements.collect();
            Set { key: key.clone(), interval: true, comment, elements, ..Set::default() }
        },
    )
}

fn dynamic_set(key: Vec<KeyType>) -> impl Strategy<Value = Set> {
    (seconds(), 1..200_000u32, text()).prop_map(move |(timeout, size, comment)| Set {
        key: key.clone(),
        dynamic: true,
        timeout: Some(timeout),
        size: Some(size),
        comment,
        ..Set::default()
    })
}

fn size() -> impl Strategy<Value = Option<u32>> {
    option::of(prop_oneof![Just(65_535), Just(65_536), Just(131_071)])
}

/// The bytes of a key, its parts padded to registers where there are several.
pub(super) fn key_bytes(key: &[KeyType]) -> impl Strategy<Value = Vec<u8>> + use<> {
    let several = key.len() > 1;
    let parts: Vec<_> = key
        .iter()
        .map(|part| {
            let len = width(*part);
            let padding = if several { len.next_multiple_of(4) - len } else { 0 };
            vec(edge_byte(), len).prop_map(move |mut bytes| {
                bytes.resize(bytes.len() + padding, 0);
                bytes
            })
        })
        .collect();
    parts.prop_map(|parts| parts.concat())
}

fn edge_byte() -> impl Strategy<Value = u8> {
    prop_oneof![Just(0), Just(1), Just(0xff), any::<u8>()]
}

pub(super) fn width(key: KeyType) -> usize {
    match key {
        Ipv4Addr => 4,
        Ipv6Addr | Ifname => 16,
        InetService => 2,
        InetProto | IcmpType | Icmpv6Type => 1,
    }
}

fn seconds() -> impl Strategy<Value = Duration> {
    // Long enough not to end during a test.
    (3600..4_000_000u64).prop_map(Duration::from_secs)
}
