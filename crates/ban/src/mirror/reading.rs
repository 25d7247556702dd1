//! All bans, read part by part while the mirror serves.
//!
//! The kernel lists a large set in quadratic time, and finds a key in no time. So what the mirror knows
//! is looked up, and nothing is listed if the kernel then has no more elements than were found.

#[cfg(feature = "socket")]
use std::time::Duration;
use std::time::Instant;

use nfguard_netlink::Error;

use super::{BanMirror, MirroredBan};
use crate::layout::{ENDED, Place, TABLE};
use crate::plan::count;

/// Most bans that the kernel lists in no time.
const SOON_LISTED: u64 = 20_000;
/// Keys that are looked up in one part.
const KEYS_PER_PART: usize = 1_000;
/// After a part of a list that took longer than this the mirror rests this many times as long.
#[cfg(feature = "socket")]
const SHORT_PART: Duration = Duration::from_millis(3);
#[cfg(feature = "socket")]
const REST_PER_PART: u32 = 4;
/// Most times that all sets are listed: while a set grows or shrinks, a list leaves elements out.
#[cfg(feature = "socket")]
const MAX_LISTS: u32 = 3;

/// How far all bans are read.
pub(super) enum Reading {
    /// The bans that the mirror knows are looked up, from this place on.
    Known(Option<Place>),
    /// All that the mirror knows was looked up.
    Compared,
    /// The keys of the first set are listed, and then those of the others.
    Listed { sets: Vec<String>, keys: Keys, is_any_new: bool, lists: u32 },
}

#[cfg(feature = "socket")]
type Keys = Option<nfguard_netlink::KeyDump>;
#[cfg(not(feature = "socket"))]
type Keys = ();

impl BanMirror {
    /// Whether the mirror has all bans.
    #[must_use]
    pub fn is_complete(&self) -> bool {
        !self.is_behind && self.reading.is_none()
    }

    /// Returns when the next part is to be read; `None` if the mirror has all bans.
    #[must_use]
    pub fn next_part_at(&self) -> Option<Instant> {
        (!self.is_complete()).then_some(self.rests_until)
    }

    /// Reads a part of the bans, in a millisecond or two: if the set is very large, and another program
    /// has added bans that no event told, in some ten. All events that came before are applied first.
    ///
    /// # Errors
    /// The kernel's refusal. All is read again then.
    pub fn read_part(&mut self) -> Result<(), Error> {
        if self.is_removed {
            return Ok(());
        }
        match self.judge_absent().and_then(|()| self.read_next()) {
            Ok(reading) => self.reading = reading,
            Err(error) => {
                (self.reading, self.is_behind) = (None, true);
                return Err(error);
            }
        }
        Ok(())
    }

    fn read_next(&mut self) -> Result<Option<Reading>, Error> {
        match self.reading.take() {
            None if !self.is_behind => Ok(None),
            None => {
                self.is_behind = false;
                let now = Instant::now();
                self.notes.clear();
                for live in self.nft.live_elements(TABLE, ENDED)? {
                    self.insert_note(&live, now);
                }
                Ok(Some(Reading::Known(None)))
            }
            Some(Reading::Known(start)) => self.look_up_known(start),
            Some(Reading::Compared) if self.has_all()? => Ok(None),
            Some(Reading::Compared) => self.listing(1),
            Some(Reading::Listed { sets, keys, is_any_new, lists, .. }) => {
                self.list(sets, keys, is_any_new, lists)
            }
        }
    }

    fn look_up_known(&mut self, start: Option<Place>) -> Result<Option<Reading>, Error> {
        let mut places: Vec<Place> = self
            .bans
            .from(None, start)
            .map(|(place, _)| place.clone())
            .take(KEYS_PER_PART + 1)
            .collect();
        let next = if places.len() > KEYS_PER_PART { places.pop() } else { None };
        self.absent = self.look_up(places)?;
        Ok(Some(next.map_or(Reading::Compared, |next| Reading::Known(Some(next)))))
    }

    /// Forgets what is absent still. If it was absent because the table was removed, the mirror has heard
    /// of that meanwhile, and has restored it.
    fn judge_absent(&mut self) -> Result<(), Error> {
        let absent = std::mem::take(&mut self.absent);
        for place in self.look_up(absent)? {
            self.bans.remove(&place);
        }
        Ok(())
    }

    /// Looks up what lies at these places, and returns those where nothing does.
    fn look_up(&mut self, places: Vec<Place>) -> Result<Vec<Place>, Error> {
        let mut absent = Vec::new();
        let mut rest = places.into_iter().peekable();
        while let Some(first) = rest.next() {
            let is_same_set = |place: &Place| {
                place.key.set == first.key.set && (place.rank == 0) == (first.rank == 0)
            };
            let set = first.set_name();
            let mut places = vec![first.clone()];
            while let Some(place) = rest.next_if(is_same_set) {
                places.push(place);
            }
            let keys: Vec<Vec<u8>> = places.iter().map(Place::element_key).collect();
            let now = Instant::now();
            for (place, found) in
                places.into_iter().zip(self.nft.find_elements(TABLE, &set, &keys)?)
            {
                match found {
                    Some(live) => self.bans.insert(place, MirroredBan::new(&live, now)),
                    None => absent.push(place),
                }
            }
        }
        Ok(absent)
    }

    /// Whether the kernel has no more bans than the mirror; `false` if it does not say.
    fn has_all(&mut self) -> Result<bool, Error> {
        let now = Instant::now();
        while self.bans.drop_expired(now) {}
        let mut all = 0;
        for set in self.timed_sets()? {
            match self.nft.reported_count(TABLE, &set)? {
                Some(count) => all += count,
                None => return Ok(false),
            }
        }
        let known = count(self.bans.len());
        // Where a list costs little, no other ban passes for one whose time is just over.
        let just_over = if known > SOON_LISTED { self.bans.just_over() } else { 0 };
        Ok(all <= known + just_over)
    }

    fn timed_sets(&mut self) -> Result<Vec<String>, Error> {
        let sets = self.nft.readable_sets(TABLE)?;
        let timed = sets.into_iter().filter(|set| set.timeout.is_some() && set.name != ENDED);
        Ok(timed.map(|set| set.name).collect())
    }

    fn listing(&mut self, lists: u32) -> Result<Option<Reading>, Error> {
        let sets = self.timed_sets()?;
        Ok(Some(Reading::Listed { sets, keys: Keys::default(), is_any_new: false, lists }))
    }

    #[cfg(feature = "socket")]
    fn list(
        &mut self,
        mut sets: Vec<String>,
        keys: Keys,
        mut is_any_new: bool,
        lists: u32,
    ) -> Result<Option<Reading>, Error> {
        let start = Instant::now();
        let Some(set) = sets.last().cloned() else {
            return match is_any_new && lists < MAX_LISTS && !self.has_all()? {
                true => self.listing(lists + 1),
                false => Ok(None),
            };
        };
        let mut keys = match keys {
            Some(keys) => keys,
            None => nfguard_netlink::KeyDump::open(TABLE, &set)?,
        };
        let keys = match keys.next_part()? {
            None => {
                sets.pop();
                None
            }
            Some(part) => {
                // The kernel wrote the part some time ago.
                let places = part.iter().filter_map(|key| Place::parse(&set, key));
                let new = places.filter(|place| self.bans.get(place).is_none());
                let mut new: Vec<Place> = new.collect();
                new.sort();
                is_any_new |= !new.is_empty();
                self.look_up(new)?;
                Some(keys)
            }
        };
        let took = start.elapsed();
        if took > SHORT_PART {
            self.rests_until = Instant::now() + took * REST_PER_PART;
        }
        Ok(Some(Reading::Listed { sets, keys, is_any_new, lists }))
    }

    #[cfg(not(feature = "socket"))]
    fn list(
        &mut self,
        sets: Vec<String>,
        (): Keys,
        _is_any_new: bool,
        _lists: u32,
    ) -> Result<Option<Reading>, Error> {
        let now = Instant::now();
        for set in sets {
            for live in self.nft.live_elements(TABLE, &set)? {
                if let Some((place, _)) = super::read_ban(&set, &live) {
                    self.insert(place, &live, now);
                }
            }
        }
        Ok(None)
    }
}
