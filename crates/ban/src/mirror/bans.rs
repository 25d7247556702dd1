//! The bans of a mirror, by place, by source and by end.

use std::cmp::Reverse;
use std::collections::{BTreeMap, BTreeSet, BinaryHeap, VecDeque};
use std::time::{Duration, Instant};

use super::MirroredBan;
use super::record::Record;
use crate::comment::{BanComment, Sharing};
use crate::layout::{Place, SetKey};
use crate::plan::count;

/// Most bans that are forgotten at once because their time is over.
const MAX_EXPIRED_AT_ONCE: usize = 2_000;
/// The kernel may count a ban for this time after its end.
const COUNTED_AFTER_END: Duration = Duration::from_secs(5);
/// Ends that no ban has any more are kept up to this number beside one for each ban.
const MAX_OLD_ENDS: usize = 10_000;

/// All bans, also those that do not count: in a set of owners there may be what is left of a ban that
/// was removed by hand.
#[derive(Default)]
pub(super) struct MirroredBans {
    all: BTreeMap<Place, MirroredBan>,
    by_source: BTreeMap<String, BTreeSet<Place>>,
    /// When bans end, the first end on top. Ends of bans that were removed or extended are among them.
    ends: BinaryHeap<Reverse<(Instant, Place)>>,
    /// The bans in sets of owners that do not count.
    left_over: BTreeSet<Place>,
    pub(super) record: Record,
    /// When bans were forgotten because their time was over, and how many, as far as the kernel may
    /// still count them.
    just_over: VecDeque<(Instant, u64)>,
}

impl MirroredBans {
    pub(super) fn insert(&mut self, place: Place, mut ban: MirroredBan) {
        match self.all.get(&place) {
            Some(old) => {
                ban.slot = old.slot;
                if !old.is_alike(&ban) {
                    self.record.change(old.slot, Some(&place));
                }
            }
            None => ban.slot = self.record.add(&place),
        }
        self.put(place, ban);
    }

    /// Inserts a ban that the record has in its slot.
    pub(super) fn put(&mut self, place: Place, ban: MirroredBan) {
        self.remove_index(&place);
        let of_source = self.by_source.entry(ban.source().to_owned()).or_default();
        of_source.insert(place.clone());
        if let Some(end) = ban.expires_at {
            self.ends.push(Reverse((end, place.clone())));
        }
        let key = place.key.clone();
        self.all.insert(place, ban);
        self.judge_owners(&key);
        if self.ends.len() > 2 * self.all.len() + MAX_OLD_ENDS {
            let ends = self
                .all
                .iter()
                .filter_map(|(place, ban)| ban.expires_at.map(|end| Reverse((end, place.clone()))));
            self.ends = ends.collect();
        }
    }

    pub(super) fn remove(&mut self, place: &Place) {
        self.remove_index(place);
        self.left_over.remove(place);
        if let Some(ban) = self.all.remove(place) {
            self.record.remove(ban.slot);
            self.judge_owners(&place.key);
        }
    }

    pub(super) fn clear(&mut self) {
        let places: Vec<Place> = self.all.keys().cloned().collect();
        places.iter().for_each(|place| self.remove(place));
    }

    pub(super) fn get(&self, place: &Place) -> Option<&MirroredBan> {
        self.all.get(place)
    }

    /// Returns the number of all bans, those that do not count too.
    pub(super) fn len(&self) -> usize {
        self.all.len()
    }

    /// Returns how many bans the kernel may still count although their time is over.
    pub(super) fn just_over(&self) -> u64 {
        self.just_over.iter().map(|(_, count)| count).sum()
    }

    fn remove_index(&mut self, place: &Place) {
        let Some(source) = self.all.get(place).map(MirroredBan::source) else { return };
        if let Some(places) = self.by_source.get_mut(source) {
            places.remove(place);
            if places.is_empty() {
                let source = source.to_owned();
                self.by_source.remove(&source);
            }
        }
    }

    /// Finds out which of the owners of a target count.
    fn judge_owners(&mut self, key: &SetKey) {
        // Most hosts have none: then to ask costs nothing.
        if self.all.last_key_value().is_none_or(|(place, _)| place.rank == 0) {
            return;
        }
        let is_shared = self.is_shared(key);
        for rank in 1..=u16::MAX {
            let place = Place { rank, key: key.clone() };
            if !self.all.contains_key(&place) {
                return;
            }
            if is_shared {
                self.left_over.remove(&place);
            } else {
                self.left_over.insert(place);
            }
        }
    }

    fn is_shared(&self, key: &SetKey) -> bool {
        let drops = self.all.get(&Place { rank: 0, key: key.clone() });
        drops.and_then(|drops| drops.comment.as_deref()).map(BanComment::sharing)
            == Some(Sharing::Shared)
    }

    /// Tells whether a ban counts.
    pub(super) fn is_in_force(&self, place: &Place) -> bool {
        place.rank == 0 || self.is_shared(&place.key)
    }

    /// Returns the bans that count, the sets that drop first.
    pub(super) fn in_force(&self) -> impl Iterator<Item = (&Place, &MirroredBan)> {
        self.all.iter().filter(|(place, _)| self.is_in_force(place))
    }

    /// Returns all bans from a place on, of one source or of all.
    pub(super) fn from(
        &self,
        source: Option<&str>,
        start: Option<Place>,
    ) -> Box<dyn Iterator<Item = (&Place, &MirroredBan)> + '_> {
        let start = start.as_ref();
        let Some(source) = source else {
            return match start {
                Some(start) => Box::new(self.all.range(start..)),
                None => Box::new(self.all.iter()),
            };
        };
        let Some(places) = self.by_source.get(source) else { return Box::new([].into_iter()) };
        let ban = |place| Some((place, self.all.get(place)?));
        match start {
            Some(start) => Box::new(places.range(start..).filter_map(ban)),
            None => Box::new(places.iter().filter_map(ban)),
        }
    }

    /// Forgets bans whose time is over. Returns whether there are more.
    pub(super) fn drop_expired(&mut self, now: Instant) -> bool {
        while self.just_over.front().is_some_and(|(at, _)| now > *at + COUNTED_AFTER_END) {
            self.just_over.pop_front();
        }
        let before = self.all.len();
        let mut is_more = true;
        for _ in 0..MAX_EXPIRED_AT_ONCE {
            is_more = self.ends.peek().is_some_and(|Reverse((end, _))| *end <= now);
            if !is_more {
                break;
            }
            let Some(Reverse((end, place))) = self.ends.pop() else { break };
            if self.all.get(&place).is_some_and(|ban| ban.expires_at == Some(end)) {
                self.remove(&place);
            }
        }
        if self.all.len() < before {
            self.just_over.push_back((now, count(before - self.all.len())));
        }
        is_more
    }

    /// Returns the number of bans that count.
    pub(super) fn count(&self) -> u64 {
        count(self.all.len() - self.left_over.len())
    }

    /// Returns the number of bans of each source that count.
    pub(super) fn by_source(&self) -> BTreeMap<String, u64> {
        let counts = self.by_source.iter();
        let mut counts: BTreeMap<String, u64> =
            counts.map(|(source, places)| (source.clone(), count(places.len()))).collect();
        for ban in self.left_over.iter().filter_map(|place| self.all.get(place)) {
            if let Some(count) = counts.get_mut(ban.source()) {
                *count -= 1;
            }
        }
        counts.retain(|_, count| *count > 0);
        counts
    }
}
