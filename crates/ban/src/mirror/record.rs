//! The record of a mirror: what it holds, as bytes of a file, for the next mirror of the same table. Pure.
//!
//! Each ban has a slot of fixed size, which is written over when the ban changes, and given to another
//! one when it ends. A slot has a checksum: one that was cut is an empty one. The record may be old: what
//! it says is looked up in the kernel, which has the last word.

use std::time::{Duration, Instant};

use super::{BanMirror, MirroredBan};
use crate::comment::digest_of;
use crate::layout::{Place, SetKey};
use crate::target::{Port, Target};

/// Bytes of a slot: the end, the lengths of the three texts, the texts, and the checksum.
pub const SLOT_BYTES: usize = 208;
const HEAD_BYTES: usize = 8 + 3;
const SUM_BYTES: usize = 8;
/// The first slot is the head of the file.
const FIRST_SLOT: u32 = 1;
/// The end of a ban without one.
const NO_END: u64 = u64::MAX;

/// Which slots are in use, and which are to be written.
#[derive(Default)]
pub(super) struct Record {
    is_kept: bool,
    free: Vec<u32>,
    /// The slots behind the last one in use.
    end: u32,
    /// What changed since the last write.
    changed: Vec<(u32, Option<Place>)>,
}

impl Record {
    pub(super) fn add(&mut self, place: &Place) -> u32 {
        let slot = self.free.pop().unwrap_or_else(|| {
            self.end = self.end.max(FIRST_SLOT) + 1;
            self.end - 1
        });
        self.change(slot, Some(place));
        slot
    }

    pub(super) fn change(&mut self, slot: u32, place: Option<&Place>) {
        if self.is_kept {
            self.changed.push((slot, place.cloned()));
        }
    }

    pub(super) fn remove(&mut self, slot: u32) {
        self.change(slot, None);
        self.free.push(slot);
    }
}

/// Bytes to be written into the record.
#[derive(Debug, PartialEq, Eq)]
pub struct RecordWrite {
    /// Where in the file.
    pub offset: u64,
    /// What.
    pub bytes: Vec<u8>,
}

impl BanMirror {
    /// Takes what a mirror recorded before as its bans, until they are looked up. `bytes` are those of the
    /// file; `now` and `clock` are one moment, of which the second is the time of the kernel's monotonic
    /// clock.
    pub fn recall(&mut self, bytes: &[u8], now: Instant, clock: Duration) {
        self.bans.record.is_kept = true;
        for (slot, bytes) in (0..).zip(bytes.chunks_exact(SLOT_BYTES)).skip(1) {
            self.bans.record.end = slot + 1;
            match read_slot(bytes) {
                Some((place, end, comment))
                    if end.is_none_or(|end| end > clock) && self.bans.get(&place).is_none() =>
                {
                    let expires_at = end.and_then(|end| now.checked_add(end.saturating_sub(clock)));
                    self.bans.put(place, MirroredBan { expires_at, comment, slot });
                }
                _ => self.bans.record.free.push(slot),
            }
        }
    }

    /// Returns what is to be written into the record since the last call.
    pub fn record_writes(&mut self, now: Instant, clock: Duration) -> Vec<RecordWrite> {
        let mut changed = std::mem::take(&mut self.bans.record.changed);
        changed.sort_by_key(|(slot, _)| *slot);
        let mut writes: Vec<RecordWrite> = Vec::new();
        let mut changed = changed.into_iter().peekable();
        while let Some((slot, place)) = changed.next() {
            // Of one slot the last change counts.
            if changed.peek().is_some_and(|(next, _)| *next == slot) {
                continue;
            }
            let offset = u64::from(slot) * SLOT_BYTES as u64;
            let ban = place.as_ref().and_then(|place| Some((place, self.bans.get(place)?)));
            let bytes = match ban.filter(|(_, ban)| ban.slot == slot) {
                Some((place, ban)) => {
                    let end = ban.expires_at.map(|end| clock + end.saturating_duration_since(now));
                    slot_of(place, end, ban.comment.as_deref())
                }
                None => [0; SLOT_BYTES],
            };
            match writes.last_mut() {
                Some(last) if last.offset + last.bytes.len() as u64 == offset => {
                    last.bytes.extend(bytes);
                }
                _ => writes.push(RecordWrite { offset, bytes: bytes.to_vec() }),
            }
        }
        writes
    }
}

/// Returns what a record says is banned, and when each ban ends by the kernel's monotonic clock.
pub fn recorded_targets(
    bytes: &[u8],
) -> impl Iterator<Item = (Target, Option<Port>, Option<Duration>)> {
    bytes.chunks_exact(SLOT_BYTES).skip(1).filter_map(|slot| {
        let (place, end, _) = read_slot(slot)?;
        let (target, port) = SetKey::parse(place.key.set, &place.key.key)?;
        (place.rank == 0).then_some((target, port, end))
    })
}

fn slot_of(place: &Place, end: Option<Duration>, comment: Option<&str>) -> [u8; SLOT_BYTES] {
    let end = end.map_or(NO_END, |end| u64::try_from(end.as_millis()).unwrap_or(NO_END));
    let (set, key) = (place.set_name(), place.element_key());
    // A comment of another program may be longer. It is looked up later.
    let room = SLOT_BYTES - HEAD_BYTES - SUM_BYTES - set.len() - key.len();
    let comment = comment.filter(|comment| comment.len() <= room).unwrap_or_default();
    let mut bytes = [0; SLOT_BYTES];
    let lengths = [set.len(), key.len(), comment.len()].map(|len| u8::try_from(len).unwrap_or(0));
    let parts =
        [&end.to_le_bytes()[..], &lengths, set.as_bytes(), &key, comment.as_bytes()].concat();
    let (text, sum) = bytes.split_at_mut(SLOT_BYTES - SUM_BYTES);
    for (to, from) in text.iter_mut().zip(parts) {
        *to = from;
    }
    sum.copy_from_slice(&digest_of(text).to_le_bytes());
    bytes
}

fn read_slot(bytes: &[u8]) -> Option<(Place, Option<Duration>, Option<Box<str>>)> {
    let (text, sum) = bytes.split_at_checked(SLOT_BYTES - SUM_BYTES)?;
    let (end, rest) = text.split_first_chunk::<8>()?;
    let (lengths, rest) = rest.split_first_chunk::<3>()?;
    if lengths[0] == 0 || *sum != digest_of(text).to_le_bytes() {
        return None;
    }
    let [set, key, comment] = lengths.map(usize::from);
    let (set, rest) = rest.split_at_checked(set)?;
    let (key, rest) = rest.split_at_checked(key)?;
    let comment = str::from_utf8(rest.get(..comment)?).ok()?;
    let place = Place::parse(str::from_utf8(set).ok()?, key)?;
    let end = u64::from_le_bytes(*end);
    let end = (end != NO_END).then(|| Duration::from_millis(end));
    Some((place, end, (!comment.is_empty()).then(|| comment.into())))
}
