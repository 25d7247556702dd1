//! The model: what bans should do, in plain code.

use std::collections::BTreeMap;
use std::net::IpAddr;
use std::time::{Duration, Instant};

use nfguard_ban::{BanCounts, BanOutcome, Port};

/// A network: its first address and the length of its prefix.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) struct Network {
    pub(crate) address: IpAddr,
    pub(crate) bits: u32,
}

/// The target of a ban: network and port.
pub(crate) type Place = (Network, Option<Port>);

/// A ban in force.
#[derive(Clone, Debug)]
pub(crate) struct Held {
    pub(crate) ends: Option<End>,
    pub(crate) source: &'static str,
    pub(crate) reason: String,
}

/// The earliest and the latest end of a ban. The kernel made it after the call began and before it
/// returned.
#[derive(Clone, Copy, Debug)]
pub(crate) struct End {
    pub(crate) earliest: Instant,
    pub(crate) latest: Instant,
}

#[derive(Clone, Debug, Default)]
pub(crate) struct Model {
    pub(crate) bans: BTreeMap<Place, Held>,
    pub(crate) never_ban: BTreeMap<Network, &'static str>,
}

impl Network {
    /// Parses a network such as `203.0.113.0/24`, without host bits.
    pub(crate) fn new(text: &str) -> Network {
        let (address, bits) = text.split_once('/').expect("a prefix");
        let address = address.parse().expect("an address");
        Network { address, bits: bits.parse().expect("a number") }
    }

    pub(crate) fn covers(self, address: IpAddr) -> bool {
        match (self.address, address) {
            (IpAddr::V4(a), IpAddr::V4(b)) => {
                let rest = 32 - self.bits;
                a.to_bits() >> rest == b.to_bits() >> rest
            }
            (IpAddr::V6(a), IpAddr::V6(b)) => {
                let rest = 128 - self.bits;
                a.to_bits() >> rest == b.to_bits() >> rest
            }
            _ => false,
        }
    }

    fn overlaps(self, other: Network) -> bool {
        self.covers(other.address) || other.covers(self.address)
    }
}

impl Model {
    pub(crate) fn ban(&mut self, place: Place, new: Held) -> BanOutcome {
        match self.bans.get(&place) {
            Some(old) if !outlasts(&new, old) => BanOutcome::Kept,
            old => {
                let made = if old.is_some() { BanOutcome::Extended } else { BanOutcome::Added };
                self.bans.insert(place, new);
                made
            }
        }
    }

    pub(crate) fn ban_all(&mut self, list: Vec<(Place, Held)>) -> BanCounts {
        let mut tally = BanCounts { kept: count_repeated(&list), ..BanCounts::default() };
        for (place, new) in keep_longest(list) {
            match self.ban(place, new) {
                BanOutcome::Added => tally.added += 1,
                BanOutcome::Extended => tally.extended += 1,
                BanOutcome::Kept => tally.kept += 1,
            }
        }
        tally
    }

    pub(crate) fn replace(&mut self, source: &'static str, list: Vec<(Place, Held)>) -> BanCounts {
        let mut tally = BanCounts { kept: count_repeated(&list), ..BanCounts::default() };
        let list = keep_longest(list);
        let places: Vec<Place> = list.iter().map(|(place, _)| *place).collect();
        for (place, new) in list {
            let new = Held { source, ..new };
            if self.bans.get(&place).is_some_and(|old| old.source == source) {
                self.bans.insert(place, new);
                tally.extended += 1;
                continue;
            }
            match self.ban(place, new) {
                BanOutcome::Added => tally.added += 1,
                BanOutcome::Extended => tally.extended += 1,
                BanOutcome::Kept => tally.kept += 1,
            }
        }
        self.bans.retain(|place, held| held.source != source || places.contains(place));
        tally
    }

    /// Extends a ban by a call of duration `took`, and returns the ban.
    pub(crate) fn extend(&mut self, place: Place, by: Duration, took: Duration) -> Option<&Held> {
        let held = self.bans.get_mut(&place)?;
        if let Some(end) = &mut held.ends {
            *end = End { earliest: end.earliest + by, latest: end.latest + by + took };
        }
        Some(held)
    }

    pub(crate) fn unban(&mut self, place: Place) -> bool {
        self.bans.remove(&place).is_some()
    }

    pub(crate) fn flush(&mut self, source: &str) -> u64 {
        let before = self.bans.len();
        self.bans.retain(|_, held| held.source != source);
        (before - self.bans.len()) as u64
    }

    pub(crate) fn replace_never_ban(&mut self, reason: &'static str, networks: &[Network]) {
        self.never_ban.retain(|_, other| *other != reason);
        self.never_ban.extend(networks.iter().map(|network| (*network, reason)));
    }

    pub(crate) fn remove_never_ban(&mut self, networks: &[Network]) {
        self.never_ban.retain(|network, _| !networks.contains(network));
    }

    pub(crate) fn admits(&self, network: Network) -> bool {
        !self.never_ban.keys().any(|entry| entry.overlaps(network))
    }

    /// Reports whether a packet from this address to this port passes.
    pub(crate) fn passes(&self, address: IpAddr, port: Port) -> bool {
        let is_meant = |(network, from): &Place| {
            network.covers(address) && from.is_none_or(|from| from == port)
        };
        self.never_ban.keys().any(|entry| entry.covers(address)) || !self.bans.keys().any(is_meant)
    }

    /// Returns the bans that may have ended at `at`.
    pub(crate) fn ending(&self, at: Instant) -> Vec<Place> {
        let ends = |held: &Held| held.ends.is_some_and(|end| end.earliest < at);
        self.bans.iter().filter(|(_, held)| ends(held)).map(|(place, _)| *place).collect()
    }
}

fn outlasts(new: &Held, old: &Held) -> bool {
    match (new.ends, old.ends) {
        (_, None) => false,
        (None, Some(_)) => true,
        (Some(new), Some(old)) => new.earliest > old.earliest,
    }
}

/// Keeps the ban that ends last for each place.
fn keep_longest(list: Vec<(Place, Held)>) -> Vec<(Place, Held)> {
    let mut longest = Model::default();
    for (place, new) in list {
        longest.ban(place, new);
    }
    longest.bans.into_iter().collect()
}

/// Returns the number of repeated bans.
fn count_repeated(list: &[(Place, Held)]) -> u64 {
    let is_again = |(at, (place, _)): (usize, &(Place, Held))| {
        list[..at].iter().any(|(before, _)| before == place)
    };
    list.iter().enumerate().filter(|item| is_again(*item)).count() as u64
}
