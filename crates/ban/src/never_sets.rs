//! How never-ban entries lie in the kernel. Pure.

use std::net::{IpAddr, Ipv4Addr};

use ipnetwork::IpNetwork;
use nfguard_netlink::{Element, IpVersion, Key, KeyType, PerIpVersion, Set};

use crate::address::{address_from, push_address};
use crate::never_ban::{NeverBan, NeverBanEntry, NeverBanKind};
use crate::target::Target;

/// Most single addresses of one IP version. A stated size has the kernel take its quickest kind of
/// set, with a table of 175 kB that never grows (`nft_hash_fast`, since Linux 4.13).
const MAX_ADDRESSES: u32 = 16_384;

/// Most addresses that a rule compares one by one. A look-up takes a packet as long as about eleven
/// comparisons (Linux 6.18).
const MAX_COMPARED: usize = 8;

/// How the rules of one IP version find never-ban entries.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(crate) struct NeverBanChecks {
    /// The single addresses, to be compared one by one; `None`: too many, they are looked up.
    pub(crate) compared: Option<Vec<Vec<u8>>>,
    /// Whether there are entries of more than one address, which are looked up.
    pub(crate) prefixes: bool,
}

/// Returns the never-ban sets without elements.
pub(crate) fn empty_sets() -> impl Iterator<Item = Set> {
    IpVersion::ALL.into_iter().flat_map(|version| {
        [addresses_set(version), prefixes_set(version), nested_set(version), except_set(version)]
    })
}

/// Returns the never-ban sets with the elements that a list asks for: single addresses, which cost
/// a dropped packet least; prefixes; and prefixes within these, which no rule looks at, but which
/// still hold when the wider one is removed. What may be banned lies beside them, for all programs.
///
/// Of loopback it is the one address that is used: only the host itself can send from there.
pub(crate) fn filled_sets(never_ban: &NeverBan) -> Vec<Set> {
    let of_version = |version: IpVersion| {
        let mut addresses = addresses_set(version);
        let mut prefixes = prefixes_set(version);
        let mut nested = nested_set(version);
        let entries = never_ban.entries().iter();
        for entry in entries.filter(|entry| IpVersion::of(entry.network.ip()) == version) {
            let (first, last) = (entry.network.network(), entry.network.broadcast());
            let comment = Some(entry.kind.comment());
            if first == last || first.is_loopback() {
                let key = Key::Value(bytes(used_address(first)));
                addresses.elements.push(Element { key, timeout: None, comment });
            } else if is_outermost(entry, never_ban.entries()) {
                let key = Key::Range(bytes(first), bytes(last));
                prefixes.elements.push(Element { key, timeout: None, comment });
            } else {
                nested.elements.push(Element { key: ends(entry.network), timeout: None, comment });
            }
        }
        let mut except = except_set(version);
        let may_ban = never_ban.may_ban().iter();
        let may_ban = may_ban.filter(|network| IpVersion::of(network.ip()) == version);
        except.elements.extend(may_ban.map(|network| Element::from(ends(*network))));
        [addresses, prefixes, nested, except].map(|mut set| {
            set.elements.sort_by(|a, b| a.key.cmp(&b.key));
            set.elements.dedup_by(|a, b| a.key == b.key);
            set
        })
    };
    IpVersion::ALL.into_iter().flat_map(of_version).collect()
}

fn used_address(address: IpAddr) -> IpAddr {
    match address {
        IpAddr::V4(address) if address.is_loopback() => Ipv4Addr::LOCALHOST.into(),
        address => address,
    }
}

/// Returns how rules find the entries of these sets. A change of the sets needs the rules rewritten.
pub(crate) fn checks(sets: &[Set]) -> PerIpVersion<NeverBanChecks> {
    PerIpVersion::from_fn(|version| {
        let elements = |empty: Set| {
            let set = sets.iter().find(|set| set.name == empty.name);
            set.map(|set| set.elements.as_slice()).unwrap_or_default()
        };
        let addresses = elements(addresses_set(version));
        let compared =
            (addresses.len() <= MAX_COMPARED).then(|| addresses.iter().filter_map(value).collect());
        NeverBanChecks { compared, prefixes: !elements(prefixes_set(version)).is_empty() }
    })
}

fn value(element: &Element) -> Option<Vec<u8>> {
    match &element.key {
        Key::Value(key) => Some(key.clone()),
        Key::Range(..) => None,
    }
}

/// Returns the key that has both ends of a prefix.
fn ends(network: IpNetwork) -> Key {
    Key::Value([bytes(network.network()), bytes(network.broadcast())].concat())
}

fn bytes(address: IpAddr) -> Vec<u8> {
    let mut bytes = Vec::new();
    push_address(&mut bytes, address);
    bytes
}

/// Returns the list that these sets hold.
pub(crate) fn read(sets: &[Set]) -> NeverBan {
    let entries = |set: &Set| set.elements.iter().filter_map(entry).collect::<Vec<_>>();
    let (except, never): (Vec<_>, Vec<_>) = sets.iter().partition(|set| is_except(&set.name));
    let may_ban = except.into_iter().flat_map(entries).map(|entry| entry.network);
    NeverBan::default()
        .with_may_ban(&may_ban.collect::<Vec<_>>())
        .with_all(never.into_iter().flat_map(entries))
}

fn entry(element: &Element) -> Option<NeverBanEntry> {
    let (first, last) = match &element.key {
        Key::Range(first, last) => (first.as_slice(), last.as_slice()),
        // The key of a set that no rule looks up has both ends of a prefix.
        Key::Value(key) if [8, 32].contains(&key.len()) => key.split_at(key.len() / 2),
        Key::Value(key) => (key.as_slice(), key.as_slice()),
    };
    let mut bits = 0;
    for (first, last) in first.iter().zip(last) {
        let equal = (first ^ last).leading_zeros();
        bits += equal;
        if equal < 8 {
            break;
        }
    }
    let network = IpNetwork::new(address_from(first)?, u8::try_from(bits).ok()?).ok()?;
    if network.ip().is_loopback() {
        return None;
    }
    let comment = element.comment.as_deref().unwrap_or_default();
    Some(NeverBanEntry { network, kind: NeverBanKind::from_comment(comment) })
}

/// Tells whether no other entry contains this one: the kernel refuses ranges that overlap.
fn is_outermost(inner: &NeverBanEntry, entries: &[NeverBanEntry]) -> bool {
    !entries.iter().any(|outer| {
        outer.network.prefix() < inner.network.prefix()
            && Target::from(outer.network).overlaps(inner.network.into())
    })
}

/// Returns the set of single addresses.
pub(crate) fn addresses_set(version: IpVersion) -> Set {
    let key = match version {
        IpVersion::V4 => KeyType::Ipv4Addr,
        IpVersion::V6 => KeyType::Ipv6Addr,
    };
    Set {
        name: format!("never/{}", version.suffix()),
        key: vec![key],
        size: Some(MAX_ADDRESSES),
        comment: Some("never banned".to_owned()),
        ..Set::default()
    }
}

/// Returns the set of prefixes that rules look at.
pub(crate) fn prefixes_set(version: IpVersion) -> Set {
    let addresses = addresses_set(version);
    let name = format!("{}/prefixes", addresses.name);
    Set { name, interval: true, size: None, ..addresses }
}

/// Returns the set of prefixes within other prefixes, each by its first and its last address. A
/// table gets it when it is first needed.
fn nested_set(version: IpVersion) -> Set {
    let addresses = addresses_set(version);
    let key = addresses.key.repeat(2);
    Set { name: format!("{}/within", addresses.name), key, ..addresses }
}

/// Returns the set of what may be banned although it is behind this host. A table gets it when it is
/// first needed.
fn except_set(version: IpVersion) -> Set {
    let nested = nested_set(version);
    let name = format!("{}{EXCEPT}", addresses_set(version).name);
    Set { name, comment: Some("may be banned although behind this host".to_owned()), ..nested }
}

/// What ends the name of a set of what may be banned.
const EXCEPT: &str = "/except";

fn is_except(name: &str) -> bool {
    name.ends_with(EXCEPT)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn entries_are_read_from_the_sets_that_they_were_written_to() {
        let mut never_ban = NeverBan::default();
        for (text, kind) in [
            ("192.0.2.10", NeverBanKind::Gateway),
            ("192.0.2.0/24", NeverBanKind::by_hand("the office")),
            ("192.0.2.16/28", NeverBanKind::by_hand("")),
            ("2001:db8::5", NeverBanKind::OwnAddress { interface: "eth0".to_owned() }),
            ("2001:db8::/32", NeverBanKind::Policy),
            ("2001:db8:1::/48", NeverBanKind::Policy),
        ] {
            never_ban = never_ban.with(text.parse::<IpNetwork>().expect("a network"), kind);
        }
        let may_ban = ["10.8.0.0/24", "10.9.0.7/32", "fd00:8::/64"];
        let may_ban: Vec<IpNetwork> = may_ban.map(|text| text.parse().expect("a network")).into();
        let never_ban = never_ban.with_may_ban(&may_ban);
        let read = read(&filled_sets(&never_ban));
        let sorted = |list: &NeverBan| {
            let mut entries = list.entries().to_vec();
            entries.sort();
            entries
        };
        assert_eq!(sorted(&read), sorted(&never_ban));
        assert_eq!(read.may_ban(), may_ban);
    }
}
