//! Accept-all tables that record the source addresses of packets, behind every firewall of a hook.

use std::collections::{BTreeMap, BTreeSet};
use std::fmt::Write;
use std::net::IpAddr;

use nfguard_lab::Netns;

use crate::nft::nft;

/// A place on the path of a packet.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Place {
    /// Before all rules for incoming packets, and before connection tracking.
    Arrived,
    /// As `Arrived`, but with the destination address: the packet is an answer to this address.
    Answered,
    /// After all rules for packets to this host.
    LetIn,
    /// After all rules for packets that leave this host, those that it passes on included.
    LetOut,
    /// After all rules for packets that this host passes on.
    LetThrough,
}

const PLACES: [(Place, &str, i32, &str); 5] = [
    (Place::Arrived, "prerouting", -500, "saddr"),
    (Place::Answered, "prerouting", -500, "daddr"),
    (Place::LetIn, "input", 500, "saddr"),
    (Place::LetOut, "postrouting", 500, "saddr"),
    (Place::LetThrough, "forward", 500, "saddr"),
];

/// Installs a table that accepts all packets and records their addresses at each place.
///
/// # Panics
/// As [`nft()`].
pub fn install(netns: &Netns) {
    let mut table = "table inet judge {\n".to_owned();
    for (place, hook, priority, address) in PLACES {
        let (v4, v6) = (set(place, 4), set(place, 6));
        write!(
            table,
            "set {v4} {{ type ipv4_addr; size 65535; flags dynamic; }}
            set {v6} {{ type ipv6_addr; size 65535; flags dynamic; }}
            chain {place:?} {{
                type filter hook {hook} priority {priority};
                meta nfproto ipv4 update @{v4} {{ ip {address} counter }}
                meta nfproto ipv6 update @{v6} {{ ip6 {address} counter }}
            }}\n"
        )
        .expect("a string takes everything");
    }
    nft(netns, &(table + "}\n"));
}

/// Returns the addresses of all packets that have reached a place.
///
/// # Panics
/// As [`nft()`].
pub fn seen(netns: &Netns, place: Place) -> BTreeSet<IpAddr> {
    let counted = counted(netns).into_keys();
    counted.filter(|(at, _)| *at == place).map(|(_, address)| address).collect()
}

/// Returns the number of packets of each address that have reached each place.
///
/// # Panics
/// As [`nft()`].
pub fn counted(netns: &Netns) -> BTreeMap<(Place, IpAddr), u64> {
    let listing = nft(netns, "list table inet judge\n");
    let mut counted = BTreeMap::new();
    for text in listing.split("\tset ") {
        let of = PLACES.iter().find(|(place, ..)| text.starts_with(&format!("{place:?}")));
        let Some((place, ..)) = of else { continue };
        let is_between = |char: char| char.is_whitespace() || char == ',';
        let words: Vec<&str> = text.split(is_between).filter(|word| !word.is_empty()).collect();
        // ADDRESS counter packets 1 bytes 60
        for element in words.windows(4) {
            if let (Ok(address), Ok(packets)) = (element[0].parse(), element[3].parse()) {
                counted.insert((*place, address), packets);
            }
        }
    }
    counted
}

fn set(place: Place, family: u8) -> String {
    format!("{place:?}{family}")
}
