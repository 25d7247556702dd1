//! Where a ban lies: set, key and rank. Pure.

use std::ops::Deref;

use ipnetwork::IpNetwork;
use nfguard_netlink::protocol;

use super::{BanSet, owners_name, push_key};
use crate::address::address_from;
use crate::target::{Port, Protocol, Target};

/// Where a ban lies: its set, and its key there.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) struct SetKey {
    pub(crate) set: BanSet,
    pub(crate) key: KeyBytes,
}

/// The most bytes of a key: an IPv6 address, a protocol and a port.
const MAX_KEY_BYTES: usize = 24;

/// The bytes of a key. There may be millions of them in memory, so they lie in place.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) struct KeyBytes {
    bytes: [u8; MAX_KEY_BYTES],
    len: u8,
}

impl KeyBytes {
    /// Returns `None` if the key is longer than one of ours.
    pub(crate) fn new(key: &[u8]) -> Option<KeyBytes> {
        let mut bytes = [0; MAX_KEY_BYTES];
        bytes.get_mut(..key.len())?.copy_from_slice(key);
        Some(KeyBytes { bytes, len: u8::try_from(key.len()).ok()? })
    }
}

impl Deref for KeyBytes {
    type Target = [u8];

    fn deref(&self) -> &[u8] {
        self.bytes.get(..self.len.into()).unwrap_or_default()
    }
}

impl SetKey {
    pub(crate) fn of(target: Target, port: Option<Port>) -> SetKey {
        let mut key = Vec::with_capacity(MAX_KEY_BYTES);
        push_key(&mut key, target, port);
        let empty = KeyBytes { bytes: [0; MAX_KEY_BYTES], len: 0 };
        SetKey { set: BanSet::of(target, port), key: KeyBytes::new(&key).unwrap_or(empty) }
    }

    /// Reads target and port from a key of a set.
    pub(crate) fn parse(set: BanSet, key: &[u8]) -> Option<(Target, Option<Port>)> {
        let (address, rest) = key.split_at_checked(set.version.address_bytes())?;
        let target = IpNetwork::new(address_from(address)?, set.prefix).ok()?.into();
        let port = match (set.by_port, rest) {
            (false, []) => None,
            (true, [protocol, 0, 0, 0, high, low, 0, 0]) => Some(Port {
                protocol: match *protocol {
                    protocol::TCP => Protocol::Tcp,
                    protocol::UDP => Protocol::Udp,
                    _ => return None,
                },
                number: u16::from_be_bytes([*high, *low]),
            }),
            _ => return None,
        };
        Some((target, port))
    }
}

/// Where one owner's ban of a target lies. The set that drops has the ban that ends last, at rank 0.
/// The bans of the other owners lie in a set of owners that no rule looks up, later ends first: the
/// kernel ends them from the last rank on, so the ranks in use have no gap, and the owners of a
/// target are found without reading the set.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) struct Place {
    pub(crate) rank: u16,
    pub(crate) key: SetKey,
}

impl Place {
    pub(crate) fn set_name(&self) -> String {
        match self.rank {
            0 => self.key.set.name(),
            _ => owners_name(self.key.set),
        }
    }

    pub(crate) fn element_key(&self) -> Vec<u8> {
        let mut key = self.key.key.to_vec();
        if self.rank > 0 {
            let [high, low] = self.rank.to_be_bytes();
            key.extend([high, low, 0, 0]);
        }
        key
    }

    /// Reads a place from the name of a set and a key in it; `None` if no ban lies there.
    pub(crate) fn parse(set: &str, key: &[u8]) -> Option<Place> {
        let (set, key, rank) = match BanSet::from_owners_name(set) {
            None => (BanSet::from_name(set)?, key, 0),
            Some(set) => {
                let (key, rank) = key.split_at_checked(key.len().checked_sub(4)?)?;
                let [high, low, ..] = rank else { return None };
                (set, key, u16::from_be_bytes([*high, *low]))
            }
        };
        Some(Place { rank, key: SetKey { set, key: KeyBytes::new(key)? } })
    }
}
