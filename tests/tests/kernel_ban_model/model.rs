//! The model: what bans should do, in plain code.

use std::collections::BTreeMap;
use std::net::IpAddr;
use std::time::{Duration, Instant};

use nfguard_ban::{BanCounts, BanOutcome, Port, ReplacedBans};

/// Two ends that differ by less are the same for `replace`.
const SAME_END: Duration = Duration::from_secs(1);
/// The greatest difference between our clock and the clock of an emulated kernel.
const CLOCK_DIFFERENCE: Duration = Duration::from_millis(400);

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

/// Whose ban it is, and of which target.
pub(crate) type Owned = (Place, &'static str);

#[derive(Clone, Debug, Default)]
pub(crate) struct Model {
    pub(crate) bans: BTreeMap<Owned, Held>,
    pub(crate) never_ban: BTreeMap<Network, &'static str>,
    /// Whether two ends differed by about the tolerance of `replace`, so that its answer is unknown.
    pub(crate) is_unsure: bool,
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
        let owned = (place, new.source);
        match self.bans.get(&owned) {
            Some(old) if !outlasts(&new, old) => BanOutcome::Kept,
            old => {
                let made = if old.is_some() { BanOutcome::Extended } else { BanOutcome::Added };
                self.bans.insert(owned, new);
                made
            }
        }
    }

    pub(crate) fn ban_all(&mut self, list: Vec<(Place, Held)>) -> BanCounts {
        let mut tally = BanCounts { kept: count_repeated(&list), ..BanCounts::default() };
        for (place, new) in keep_longest(list) {
            count(&mut tally, self.ban(place, new));
        }
        tally
    }

    pub(crate) fn replace(
        &mut self,
        source: &'static str,
        list: Vec<(Place, Held)>,
    ) -> ReplacedBans {
        let own = |(place, new)| (place, Held { source, ..new });
        let list: Vec<(Place, Held)> = list.into_iter().map(own).collect();
        let mut counts = BanCounts { kept: count_repeated(&list), ..BanCounts::default() };
        let list = keep_longest(list);
        let places: Vec<Place> = list.iter().map(|(place, _)| *place).collect();
        for (place, new) in list {
            let Some(old) = self.bans.get_mut(&(place, source)) else {
                count(&mut counts, self.ban(place, new));
                continue;
            };
            match is_same_end(&new, old) {
                Some(true) => {
                    old.reason = new.reason;
                    counts.kept += 1;
                }
                Some(false) => {
                    *old = new;
                    counts.extended += 1;
                }
                None => self.is_unsure = true,
            }
        }
        let before = self.bans.len();
        self.bans.retain(|(place, owner), _| *owner != source || places.contains(place));
        ReplacedBans { counts, ended: (before - self.bans.len()) as u64 }
    }

    /// Extends a ban by a call of duration `took`, and returns the ban.
    pub(crate) fn extend(&mut self, owned: Owned, by: Duration, took: Duration) -> Option<&Held> {
        let held = self.bans.get_mut(&owned)?;
        if let Some(end) = &mut held.ends {
            *end = End { earliest: end.earliest + by, latest: end.latest + by + took };
        }
        Some(held)
    }

    pub(crate) fn unban(&mut self, place: Place) -> bool {
        let before = self.bans.len();
        self.bans.retain(|(other, _), _| *other != place);
        before > self.bans.len()
    }

    pub(crate) fn unban_of(&mut self, owned: Owned) -> bool {
        self.bans.remove(&owned).is_some()
    }

    pub(crate) fn flush(&mut self, source: &str) -> u64 {
        let before = self.bans.len();
        self.bans.retain(|(_, owner), _| *owner != source);
        (before - self.bans.len()) as u64
    }

    /// Returns the number of bans of targets that another source has banned, too.
    pub(crate) fn shared(&self) -> usize {
        let is_shared = |(place, source): &Owned| {
            self.bans.keys().any(|(other, owner)| other == place && owner != source)
        };
        self.bans.keys().filter(|owned| is_shared(owned)).count()
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
        let is_meant = |((network, from), _): &Owned| {
            network.covers(address) && from.is_none_or(|from| from == port)
        };
        self.never_ban.keys().any(|entry| entry.covers(address)) || !self.bans.keys().any(is_meant)
    }

    /// Returns the bans that may have ended at `at`.
    pub(crate) fn ending(&self, at: Instant) -> Vec<Owned> {
        let ends = |held: &Held| held.ends.is_some_and(|end| end.earliest < at);
        self.bans.iter().filter(|(_, held)| ends(held)).map(|(owned, _)| *owned).collect()
    }
}

fn outlasts(new: &Held, old: &Held) -> bool {
    match (new.ends, old.ends) {
        (_, None) => false,
        (None, Some(_)) => true,
        (Some(new), Some(old)) => new.earliest > old.earliest,
    }
}

/// Reports whether `replace` takes two ends for the same; `None` if that depends on the moment.
fn is_same_end(new: &Held, old: &Held) -> Option<bool> {
    let (new, old) = match (new.ends, old.ends) {
        (None, None) => return Some(true),
        (Some(new), Some(old)) => (new, old),
        _ => return Some(false),
    };
    let apart = |a: Instant, b: Instant| a.max(b) - a.min(b);
    let most = apart(new.earliest, old.latest).max(apart(new.latest, old.earliest));
    let least = most.saturating_sub((new.latest - new.earliest) + (old.latest - old.earliest));
    if most + CLOCK_DIFFERENCE < SAME_END {
        Some(true)
    } else if least > SAME_END + CLOCK_DIFFERENCE {
        Some(false)
    } else {
        None
    }
}

fn count(tally: &mut BanCounts, outcome: BanOutcome) {
    match outcome {
        BanOutcome::Added => tally.added += 1,
        BanOutcome::Extended => tally.extended += 1,
        BanOutcome::Kept => tally.kept += 1,
    }
}

/// Keeps the ban of each source that ends last for each place.
fn keep_longest(list: Vec<(Place, Held)>) -> Vec<(Place, Held)> {
    let mut longest = Model::default();
    for (place, new) in list {
        longest.ban(place, new);
    }
    longest.bans.into_iter().map(|((place, _), held)| (place, held)).collect()
}

/// Returns the number of repeated bans.
fn count_repeated(list: &[(Place, Held)]) -> u64 {
    let is_again = |(at, (place, held)): (usize, &(Place, Held))| {
        list[..at].iter().any(|(before, other)| before == place && other.source == held.source)
    };
    list.iter().enumerate().filter(|item| is_again(*item)).count() as u64
}
