//! Counting: how much evidence of one source there is within a time.

use std::cmp::Reverse;
use std::collections::HashMap;

use serde::{Deserialize, Serialize};

use crate::address::Source;
use crate::evidence::Mark;
use crate::time::{Span, Time};

/// Most sources, and most pieces of evidence, that all jails together remember. Beyond half as many more, a
/// jail forgets the sources whose evidence is oldest.
const MAX_PIECES: usize = 131_072;

/// Most sources that one jail remembers, and fewest.
const MAX_SOURCES: usize = 65_536;
const MIN_SOURCES: usize = 4096;

/// Most bans of one source that are remembered.
const MAX_OFFENCES: usize = 1000;

/// How much evidence makes a ban, and for how long.
#[derive(Clone, Copy, Debug, PartialEq)]
pub(crate) struct Limits {
    pub(crate) after: u32,
    pub(crate) within: Span,
    pub(crate) ban: Span,
    pub(crate) again: Again,
    /// Most bans a minute. Those beyond it are told and not made.
    pub(crate) bans_a_minute: u32,
}

/// How bans of a source that was banned before grow.
#[derive(Clone, Copy, Debug, PartialEq)]
pub(crate) struct Again {
    pub(crate) times: f64,
    pub(crate) up_to: Span,
    pub(crate) forget: Span,
}

impl Limits {
    /// Returns the length of a ban that this number of bans went before.
    pub(crate) fn length(&self, bans: usize) -> Span {
        let times = i32::try_from(bans).unwrap_or(i32::MAX);
        let grown = self.ban.times(self.again.times.powi(times));
        grown.min(self.again.up_to)
    }
}

/// A piece of evidence.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct Evidence {
    pub(crate) time: Time,
    pub(crate) line: u64,
    pub(crate) counts: u32,
    pub(crate) mark: Option<Mark>,
}

/// What a piece of evidence did.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum Effect {
    /// It is from before the end of a ban, or older than the window.
    Nothing,
    /// It is a part of what was counted already.
    Same,
    /// The score of the source is this, and below the limit.
    Score(u64),
    /// The limit is reached, by evidence that is as new as this.
    Reached { newest: Time, score: u64, lines: Vec<u64> },
}

/// How much jails remember.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Room {
    sources: usize,
    pieces: usize,
}

impl Room {
    /// Returns the room that each of this number of jails has.
    pub(crate) fn of_each(jails: usize) -> Self {
        let each = MAX_PIECES / jails.max(1);
        let sources = each.clamp(MIN_SOURCES, MAX_SOURCES);
        Self { sources, pieces: each.max(sources) }
    }
}

/// The windows of a jail.
#[derive(Clone, Debug, Default, PartialEq)]
pub(crate) struct Windows {
    sources: HashMap<Source, Window>,
    /// The number of pieces of evidence of all sources.
    pieces: usize,
}

/// What is remembered of a source.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
struct Window {
    evidence: Vec<Evidence>,
    /// The end of the last ban.
    banned_until: Option<Time>,
}

impl Windows {
    /// Counts a piece of evidence.
    pub(crate) fn add(
        &mut self,
        source: Source,
        evidence: Evidence,
        limits: &Limits,
        room: Room,
    ) -> Effect {
        let window = self.sources.entry(source).or_default();
        if window.banned_until.is_some_and(|end| evidence.time < end) {
            return Effect::Nothing;
        }
        let before = window.evidence.len();
        let effect = window.add(evidence, limits);
        self.pieces = self.pieces - before + window.evidence.len();
        if is_over(self.sources.len(), room.sources) || is_over(self.pieces, room.pieces) {
            self.forget_oldest(room);
        }
        effect
    }

    /// Notes the end of a ban.
    pub(crate) fn ban(&mut self, source: Source, until: Time) {
        self.sources.entry(source).or_default().banned_until = Some(until);
    }

    /// Forgets a source.
    pub(crate) fn forget(&mut self, source: Source) {
        let window = self.sources.remove(&source);
        self.pieces -= window.map_or(0, |window| window.evidence.len());
    }

    /// Forgets the sources with the oldest evidence.
    fn forget_oldest(&mut self, room: Room) {
        let of = |window: &Window| (window.last(), window.evidence.len());
        keep_newest(&mut self.sources, room.sources, room.pieces, of);
        self.pieces = self.sources.values().map(|window| window.evidence.len()).sum();
    }
}

impl Window {
    fn add(&mut self, evidence: Evidence, limits: &Limits) -> Effect {
        match evidence.mark {
            Some(Mark::Last(_)) => self.evidence.retain(|old| old.mark != evidence.mark),
            Some(Mark::Session(session, pattern)) => {
                let is_same = |old: &Evidence| {
                    let Some(Mark::Session(known, by)) = old.mark else { return false };
                    known == session && by != pattern
                };
                if self.evidence.iter().any(is_same) {
                    return Effect::Same;
                }
            }
            None => {}
        }
        if self.evidence.is_empty() {
            // Most sources are seen once.
            self.evidence.reserve_exact(1);
        }
        self.evidence.push(evidence);
        let newest = self.evidence.iter().map(|it| it.time).max().unwrap_or(evidence.time);
        let begin = newest.before(limits.within);
        self.evidence.retain(|it| it.time > begin);
        let score: u64 = self.evidence.iter().map(|it| u64::from(it.counts)).sum();
        if score < u64::from(limits.after) {
            return if evidence.time > begin { Effect::Score(score) } else { Effect::Nothing };
        }
        let lines = std::mem::take(&mut self.evidence).iter().map(|it| it.line).collect();
        Effect::Reached { newest, score, lines }
    }

    fn last(&self) -> Option<Time> {
        self.evidence.iter().map(|it| it.time).max().max(self.banned_until)
    }
}

/// Keeps the sources with the newest times: at most `most`, with `most_pieces` in all.
fn keep_newest<W>(
    sources: &mut HashMap<Source, W>,
    most: usize,
    most_pieces: usize,
    of: impl Fn(&W) -> (Option<Time>, usize),
) {
    // A map that sources are removed from one by one takes more memory with time.
    let mut all: Vec<_> = sources.drain().collect();
    all.sort_by_cached_key(|(source, it)| Reverse((of(it), *source)));
    let mut pieces = 0;
    let kept = all.into_iter().take(most).take_while(|(_, it)| {
        pieces += of(it).1;
        pieces <= most_pieces
    });
    sources.extend(kept);
}

/// Returns whether the oldest are to be forgotten. That takes long, so it is not done for each that comes.
fn is_over(count: usize, most: usize) -> bool {
    count > most + most / 2
}

/// Bans of each source, by whatever jail.
#[derive(Clone, Debug, Default, PartialEq)]
pub(crate) struct Offences {
    sources: HashMap<Source, Vec<Time>>,
    /// The number of bans of all sources.
    pieces: usize,
}

impl Offences {
    /// Returns how many bans of a source there were within a time before `now`.
    pub(crate) fn count(&self, source: Source, now: Time, within: Span) -> usize {
        let begin = now.before(within);
        let times = self.sources.get(&source).map(Vec::as_slice).unwrap_or_default();
        times.iter().filter(|time| **time > begin).count()
    }

    /// Notes a ban.
    pub(crate) fn add(&mut self, source: Source, time: Time) {
        let times = self.sources.entry(source).or_default();
        if times.len() == MAX_OFFENCES {
            times.remove(0);
            self.pieces -= 1;
        }
        times.push(time);
        self.pieces += 1;
        if is_over(self.sources.len(), MAX_SOURCES) || is_over(self.pieces, MAX_PIECES) {
            let of = |times: &Vec<Time>| (times.last().copied(), times.len());
            keep_newest(&mut self.sources, MAX_SOURCES, MAX_PIECES, of);
            self.pieces = self.sources.values().map(Vec::len).sum();
        }
    }

    /// Forgets a source.
    pub(crate) fn forget(&mut self, source: Source) {
        self.pieces -= self.sources.remove(&source).map_or(0, |times| times.len());
    }
}

/// Implements serde for what is remembered by sources as a sorted list, so that equal states are equal
/// texts.
macro_rules! sorted {
    ($map:ident, $value:ty, $count:expr) => {
        impl Serialize for $map {
            fn serialize<S: serde::Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
                let mut pairs: Vec<_> = self.sources.iter().collect();
                pairs.sort_by_key(|(source, _)| **source);
                serializer.collect_seq(pairs)
            }
        }

        impl<'de> Deserialize<'de> for $map {
            fn deserialize<D: serde::Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
                let pairs = Vec::<(Source, $value)>::deserialize(deserializer)?;
                let sources: HashMap<Source, $value> = pairs.into_iter().collect();
                let count: fn(&$value) -> usize = $count;
                let pieces = sources.values().map(count).sum();
                Ok(Self { sources, pieces })
            }
        }
    };
}
sorted!(Windows, Window, |window| window.evidence.len());
sorted!(Offences, Vec<Time>, Vec::len);
