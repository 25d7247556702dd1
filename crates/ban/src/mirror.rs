//! A copy of the ban table in memory, kept in step with the kernel, so that it can be restored.

mod bans;
mod reading;
mod record;

use std::collections::BTreeMap;
use std::time::{Duration, Instant};

use nfguard_netlink::{
    Counter, Counts, Element, Error, Key, LiveElement, Nft, Op, RulesetEvent, Table, Transaction,
    diff,
};

use crate::ban::ActiveBan;
use crate::comment::{self, BanComment};
use crate::element;
use crate::layout::{BanSet, ENDED, Place, SetKey, TABLE, ended_set, is_intact};
use crate::target::{Port, Target};
use bans::MirroredBans;
use reading::Reading;
pub use record::{RecordWrite, SLOT_BYTES, recorded_targets};

/// Most bans of one transaction: what a socket without privilege can send.
const MAX_BANS_PER_TRANSACTION: usize = 4_000;
/// Difference between two ends that are the same: the kernel counts in steps of some milliseconds.
const END_TOLERANCE: Duration = Duration::from_secs(1);
/// Most bans of one page.
const PAGE_BANS: usize = 1_000;

/// A copy of the ban table in memory.
///
/// A program that receives the kernel's events gives each to [`BanMirror::apply`], and calls
/// [`BanMirror::reconcile`] after it has given all that came. A table that another program removes
/// or breaks is then restored, with all bans and their remaining time.
///
/// ```text
///  kernel ── RulesetEvent ──► apply() ──► BanChange, for subscribers
///     ▲                         │
///     │                     the copy ──► page(), by_source(), count()
///     └──── restored bans ◄── reconcile()
/// ```
pub struct BanMirror {
    nft: Nft,
    /// Everything but the bans; `None` if there is no table.
    table_without_bans: Option<Table>,
    bans: MirroredBans,
    /// The notes of [`ENDED`], by key.
    notes: BTreeMap<Vec<u8>, MirroredBan>,
    /// The number of the table in the kernel. One that another program has made again has another.
    handle: Option<u64>,
    /// Something other than bans was changed.
    is_stale: bool,
    /// The table was removed.
    is_removed: bool,
    /// Events were lost, or the mirror is new, so all bans have to be read.
    is_behind: bool,
    /// How far all bans are read; `None` if the mirror has them.
    reading: Option<Reading>,
    /// The next part is not read before this time.
    rests_until: Instant,
    /// Bans of the last part that the kernel did not have.
    absent: Vec<Place>,
}

/// A ban as the mirror holds it.
struct MirroredBan {
    /// When the ban ends; `None`: it has no end.
    expires_at: Option<Instant>,
    comment: Option<Box<str>>,
    /// Its place in the record.
    slot: u32,
}

/// A change of bans that the kernel told.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum BanChange {
    /// A ban was made or extended.
    Banned(ActiveBan),
    /// A ban was ended before its time.
    Unbanned(ActiveBan),
    /// Changes were lost.
    Lost,
}

/// What [`BanMirror::reconcile`] has restored.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct RestoredBans {
    /// How many bans are in force again.
    pub bans: usize,
    /// Bans whose set was made so shortly before the removal that the mirror does not know it. The
    /// caller bans them again.
    pub unplaced: Vec<ActiveBan>,
}

impl BanMirror {
    /// Reads the ban table but for its bans, which [`BanMirror::read_part`] reads. A host without one
    /// has an empty mirror.
    ///
    /// # Errors
    /// The kernel's refusal.
    pub fn open(nft: Nft) -> Result<BanMirror, Error> {
        let mut mirror = BanMirror::new(nft);
        if let Some(loaded) = mirror.nft.table_without_timed_elements(TABLE)?.loaded {
            mirror.table_without_bans = Some(loaded.table);
            mirror.handle = mirror.nft.table_handle(TABLE)?;
            mirror.is_behind = true;
        }
        Ok(mirror)
    }

    fn new(nft: Nft) -> BanMirror {
        BanMirror {
            nft,
            table_without_bans: None,
            bans: MirroredBans::default(),
            notes: BTreeMap::new(),
            handle: None,
            is_stale: false,
            is_removed: false,
            is_behind: false,
            reading: None,
            rests_until: Instant::now(),
            absent: Vec::new(),
        }
    }

    /// Applies an event, and returns the changes of bans that it tells.
    pub fn apply(&mut self, event: &RulesetEvent, now: Instant) -> Vec<BanChange> {
        let mut changes = Vec::new();
        match event {
            RulesetEvent::Added { table, set, elements } if table == TABLE && set == ENDED => {
                elements.iter().for_each(|live| self.insert_note(live, now));
            }
            RulesetEvent::Removed { table, set, elements } if table == TABLE && set == ENDED => {
                let is_gone = |key: &Vec<u8>| {
                    elements.iter().any(|live| live.element.key == Key::Value(key.clone()))
                };
                self.notes.retain(|key, _| !is_gone(key));
            }
            RulesetEvent::Added { table, set, elements } if table == TABLE => {
                for live in elements {
                    match read_ban(set, live) {
                        Some((place, ban)) => {
                            self.insert(place, live, now);
                            changes.push(BanChange::Banned(ban));
                        }
                        None => self.is_stale = true,
                    }
                }
            }
            RulesetEvent::Removed { table, set, elements } if table == TABLE => {
                for live in elements {
                    match read_ban(set, live) {
                        Some((place, ban)) => {
                            self.bans.remove(&place);
                            changes.push(BanChange::Unbanned(ban));
                        }
                        None => self.is_stale = true,
                    }
                }
            }
            RulesetEvent::TableRemoved(table) if table == TABLE => self.is_removed = true,
            RulesetEvent::Changed(table) if table == TABLE => self.is_stale = true,
            RulesetEvent::Lost => {
                (self.is_behind, self.is_stale) = (true, true);
                changes.push(BanChange::Lost);
            }
            _ => {}
        }
        changes
    }

    /// Restores the table if another program has removed or broken it, and reads what has to be
    /// read again. Returns what was restored; `None` if nothing had to be.
    ///
    /// # Errors
    /// The kernel's refusal.
    pub fn reconcile(&mut self, now: Instant) -> Result<Option<RestoredBans>, Error> {
        // The event of a removal may come after the table was seen to be absent, and was restored.
        let handle = self.nft.table_handle(TABLE)?;
        let mut is_lost = self.table_without_bans.is_some() && handle != self.handle;
        if self.is_stale && !is_lost {
            let found =
                self.nft.table_without_timed_elements(TABLE)?.loaded.map(|loaded| loaded.table);
            match (found, &self.table_without_bans) {
                (Some(found), Some(known)) if is_intact(known) && !is_intact(&found) => {
                    is_lost = true;
                }
                (Some(found), _) => {
                    (self.table_without_bans, self.handle) = (Some(found), handle);
                }
                // Removed a moment ago: an event will tell.
                (None, _) => {}
            }
        }
        // What could not be restored is to be tried again.
        let restored = if is_lost { Some(self.restore(now)?) } else { None };
        (self.is_removed, self.is_stale) = (false, false);
        Ok(restored)
    }

    /// Forgets the table: it was removed on purpose, and is not to be restored.
    pub fn forget(&mut self) {
        (self.table_without_bans, self.is_removed, self.is_stale) = (None, false, true);
        self.bans.clear();
        self.notes.clear();
    }

    fn insert(&mut self, place: Place, live: &LiveElement, now: Instant) {
        self.bans.insert(place, MirroredBan::new(live, now));
    }

    fn insert_note(&mut self, live: &LiveElement, now: Instant) {
        if let Key::Value(key) = &live.element.key {
            self.notes.insert(key.clone(), MirroredBan::new(live, now));
        }
    }

    /// Restores the table and all bans, the first bans in the same transaction as the table.
    fn restore(&mut self, now: Instant) -> Result<RestoredBans, Error> {
        self.drop_expired(now);
        let exists = self.nft.table_handle(TABLE)?.is_some();
        let mut restored = RestoredBans::default();
        let Some(table) = &self.table_without_bans else { return Ok(restored) };
        let mut transaction = Transaction::new(TABLE);
        if exists {
            transaction.ops.push(Op::DeleteTable);
        }
        transaction.ops.extend(diff(None, table).ops);
        let mut room = MAX_BANS_PER_TRANSACTION;
        // Bans of one set stand behind each other: its name is made once. The sets that drop come
        // first, and then the other owners.
        let mut set: Option<(u16, BanSet, String, bool)> = None;
        for (place, ban) in self.bans.in_force() {
            let of_set = (place.rank.min(1), place.key.set);
            let same = set.take().filter(|(rank, other, ..)| (*rank, *other) == of_set);
            let (_, _, name, is_placed) = match same {
                Some(same) => set.insert(same),
                None => {
                    let name = place.set_name();
                    let is_placed = table.set(&name).is_some();
                    set.insert((of_set.0, of_set.1, name, is_placed))
                }
            };
            if !*is_placed {
                restored.unplaced.extend(ban.active(place, now));
                continue;
            }
            let element = ban.element(place.element_key(), now);
            match transaction.ops.last_mut() {
                Some(Op::AddElements { set, elements }) if set == name => elements.push(element),
                _ => transaction
                    .ops
                    .push(Op::AddElements { set: name.clone(), elements: vec![element] }),
            }
            (room, restored.bans) = (room - 1, restored.bans + 1);
            if room == 0 {
                self.nft.commit(&transaction, None)?;
                (transaction.ops, room) = (Vec::new(), MAX_BANS_PER_TRANSACTION);
            }
        }
        if !self.notes.is_empty() {
            let note = |(key, note): (&Vec<u8>, &MirroredBan)| note.element(key.clone(), now);
            let elements = self.notes.iter().map(note).collect();
            transaction.ops.push(Op::AddSet(ended_set()));
            transaction.ops.push(Op::AddElements { set: ENDED.to_owned(), elements });
        }
        self.nft.commit(&transaction, None)?;
        self.handle = self.nft.table_handle(TABLE)?;
        Ok(restored)
    }

    fn drop_expired(&mut self, now: Instant) {
        while self.bans.drop_expired(now) {}
        self.notes.retain(|_, note| note.expires_at.is_none_or(|end| end > now));
    }

    /// Forgets some thousand bans whose time is over. Returns whether there are more.
    pub fn expire(&mut self, now: Instant) -> bool {
        self.bans.drop_expired(now)
    }

    /// Returns the number of bans. Those whose time is just over may be among them.
    #[must_use]
    pub fn count(&self) -> u64 {
        self.bans.count()
    }

    /// Returns the number of bans of each source.
    #[must_use]
    pub fn by_source(&self) -> BTreeMap<String, u64> {
        self.bans.by_source()
    }

    /// Returns a page of bans, of one source or of all, and where the next page begins; `None` if
    /// there is no more. `after` is what the page before returned.
    #[must_use]
    pub fn page(
        &self,
        source: Option<&str>,
        after: Option<&str>,
        now: Instant,
    ) -> (Vec<ActiveBan>, Option<String>) {
        let source = source.map(comment::source_name);
        let mut page = Vec::new();
        // Those that do not count are looked at too, and must not keep other clients waiting.
        let all = self.bans.from(source.as_deref(), after.and_then(parse_cursor));
        for (seen, (place, ban)) in all.enumerate() {
            if seen == PAGE_BANS {
                return (page, Some(cursor(place)));
            }
            let is_over = ban.expires_at.is_some_and(|end| end <= now);
            if !is_over && self.bans.is_in_force(place) {
                page.extend(ban.active(place, now));
            }
        }
        (page, None)
    }

    /// Returns the target and the port of each ban of one source.
    #[must_use]
    pub fn targets_of(&self, source: &str) -> Vec<(Target, Option<Port>)> {
        let places = self.bans.from(Some(&comment::source_name(source)), None);
        places.filter_map(|(place, _)| SetKey::parse(place.key.set, &place.key.key)).collect()
    }

    /// Returns each named counter of a table with what it has counted.
    ///
    /// # Errors
    /// The kernel's refusal.
    pub fn counters(&mut self, table: &str) -> Result<Vec<(Counter, Counts)>, Error> {
        self.nft.counters(table)
    }
}

impl MirroredBan {
    fn new(live: &LiveElement, now: Instant) -> MirroredBan {
        let left = live.expires_in.or(live.element.timeout.filter(|timeout| !timeout.is_zero()));
        // An end too far away to be counted is none.
        let expires_at = left.and_then(|left| now.checked_add(left));
        let comment = live.element.comment.as_deref().map(Box::from);
        MirroredBan { expires_at, comment, slot: 0 }
    }

    /// Whether another one differs in nothing that the record has to tell.
    fn is_alike(&self, other: &MirroredBan) -> bool {
        let is_same_end = match (self.expires_at, other.expires_at) {
            (None, None) => true,
            (Some(one), Some(other)) => one.max(other) - one.min(other) < END_TOLERANCE,
            _ => false,
        };
        is_same_end && self.comment == other.comment
    }

    fn source(&self) -> &str {
        self.comment.as_deref().map_or("", BanComment::source_of)
    }

    fn element(&self, key: Vec<u8>, now: Instant) -> Element {
        Element {
            key: Key::Value(key),
            timeout: self.expires_in(now).map(|left| left.max(element::MIN_TIMEOUT)),
            comment: self.comment.as_deref().map(str::to_owned),
        }
    }

    fn expires_in(&self, now: Instant) -> Option<Duration> {
        self.expires_at.map(|end| end.saturating_duration_since(now))
    }

    fn active(&self, place: &Place, now: Instant) -> Option<ActiveBan> {
        let comment = self.comment.as_deref().map(str::to_owned);
        let element = Element { key: Key::Value(Vec::new()), timeout: None, comment };
        element::read(place, LiveElement { element, expires_in: self.expires_in(now) })
    }
}

/// Reads the ban that an element of a set is, and where it lies; `None` if it is none.
fn read_ban(set: &str, live: &LiveElement) -> Option<(Place, ActiveBan)> {
    let place = element::place(set, live)?;
    let ban = element::read(&place, live.clone())?;
    Some((place, ban))
}

/// Writes where a page begins: the set's name and the key in hexadecimal.
fn cursor(place: &Place) -> String {
    let hex: String = place.element_key().iter().map(|byte| format!("{byte:02x}")).collect();
    format!("{} {hex}", place.set_name())
}

fn parse_cursor(text: &str) -> Option<Place> {
    let (set, key) = text.split_once(' ')?;
    let bytes = key.as_bytes().chunks(2).map(|pair| {
        let pair = str::from_utf8(pair).ok()?;
        u8::from_str_radix(pair, 16).ok()
    });
    Place::parse(set, &bytes.collect::<Option<Vec<_>>>()?)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::layout::KeyBytes;

    fn live(address: [u8; 4], expires_in: Option<Duration>) -> LiveElement {
        let comment = Some("jail @1700000000 why".to_owned());
        let element = Element { key: Key::Value(address.to_vec()), timeout: None, comment };
        LiveElement { element, expires_in }
    }

    fn added(set: &str, element: LiveElement) -> RulesetEvent {
        RulesetEvent::Added {
            table: TABLE.to_owned(),
            set: set.to_owned(),
            elements: vec![element],
        }
    }

    /// A mirror of a host without bans: the kernel refuses nothing and knows no table.
    fn mirror() -> BanMirror {
        BanMirror::new(Nft::from_exchange(|_| Ok(Vec::new())))
    }

    #[test]
    fn pages_hold_each_ban_once_and_those_of_one_source_alone() {
        let (mut mirror, now) = (mirror(), Instant::now());
        for number in 0..2500_u32 {
            let element = live((0x0a00_0000 + number).to_be_bytes(), None);
            assert_eq!(mirror.apply(&added("v4/32", element), now).len(), 1);
        }
        let (mut after, mut seen) = (None, Vec::new());
        loop {
            let (bans, next) = mirror.page(Some("jail"), after.as_deref(), now);
            seen.extend(bans.into_iter().map(|ban| ban.target.to_string()));
            after = next;
            if after.is_none() {
                break;
            }
        }
        let expected: Vec<String> = (0..2500_u32)
            .map(|number| std::net::Ipv4Addr::from_bits(0x0a00_0000 + number).to_string())
            .collect();
        assert_eq!(seen, expected);
        assert_eq!(mirror.page(Some("other"), None, now), (Vec::new(), None));
        assert_eq!(mirror.by_source().get("jail"), Some(&2500));
    }

    #[test]
    fn a_ban_is_gone_when_it_is_removed_and_when_its_time_is_over() {
        let (mut mirror, now) = (mirror(), Instant::now());
        let second = Duration::from_secs(1);
        mirror.apply(&added("v4/32", live([192, 0, 2, 1], Some(second))), now);
        mirror.apply(&added("v4/32", live([192, 0, 2, 2], None)), now);
        let targets = |mirror: &BanMirror, now| {
            let (bans, _) = mirror.page(None, None, now);
            bans.into_iter().map(|ban| ban.target.to_string()).collect::<Vec<_>>()
        };
        assert_eq!(targets(&mirror, now), ["192.0.2.1", "192.0.2.2"]);
        assert_eq!(targets(&mirror, now + second), ["192.0.2.2"]);
        let removed = RulesetEvent::Removed {
            table: TABLE.to_owned(),
            set: "v4/32".to_owned(),
            elements: vec![live([192, 0, 2, 2], None)],
        };
        assert!(matches!(mirror.apply(&removed, now).as_slice(), [BanChange::Unbanned(_)]));
        assert!(targets(&mirror, now + second).is_empty());
    }

    #[test]
    fn a_cursor_is_read_as_it_is_written() {
        for (set, key, rank) in [("v4/32", vec![192, 0, 2, 1], 0), ("v6/64", vec![0xfd; 16], 300)] {
            let key = KeyBytes::new(&key).expect("short");
            let key = SetKey { set: BanSet::from_name(set).expect("a set"), key };
            let place = Place { rank, key };
            assert_eq!(parse_cursor(&cursor(&place)), Some(place));
        }
        assert_eq!(parse_cursor("never/v4 00"), None);
    }
}
