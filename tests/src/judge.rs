//! Where packets came to, by their source addresses: behind every firewall of the same hook.

use std::collections::BTreeSet;
use std::fmt::Write;
use std::net::IpAddr;

use nfguard_lab::Netns;

use crate::nft::nft;

/// A place on the way of a packet.
#[derive(Clone, Copy, Debug)]
pub enum Place {
    /// Before any rule for packets that come in, and before connection tracking.
    Arrived,
    /// As `Arrived`, and noted by the destination: who was answered.
    Answered,
    /// After all rules for packets to this host.
    LetIn,
    /// After all rules for packets from this host.
    LetOut,
    /// After all rules for packets that this host passes on.
    LetThrough,
}

const PLACES: [(Place, &str, i32, &str); 5] = [
    (Place::Arrived, "prerouting", -500, "saddr"),
    (Place::Answered, "prerouting", -500, "daddr"),
    (Place::LetIn, "input", 500, "saddr"),
    (Place::LetOut, "output", 500, "saddr"),
    (Place::LetThrough, "forward", 500, "saddr"),
];

/// Installs a table that accepts everything and remembers what came where.
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
                meta nfproto ipv4 update @{v4} {{ ip {address} }}
                meta nfproto ipv6 update @{v6} {{ ip6 {address} }}
            }}\n"
        )
        .expect("a string takes everything");
    }
    nft(netns, &(table + "}\n"));
}

/// The addresses of all packets that have come to a place so far.
///
/// # Panics
/// As [`nft()`].
pub fn seen(netns: &Netns, place: Place) -> BTreeSet<IpAddr> {
    let listing = nft(netns, "list table inet judge\n");
    let name = format!("{place:?}");
    let sets = listing.split("\tset ").filter(|text| text.starts_with(&name));
    let words = sets.flat_map(|text| text.split(|char: char| char.is_whitespace() || char == ','));
    words.filter_map(|word| word.parse().ok()).collect()
}

fn set(place: Place, family: u8) -> String {
    format!("{place:?}{family}")
}
