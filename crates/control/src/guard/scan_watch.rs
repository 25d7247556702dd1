//! The bans that the kernel makes by itself, for a scan. The kernel sends no event for them, so the
//! guard looks when it is asked, and every other second for subscribers: at one counter, and at the bans
//! only if the counter moved.

use std::collections::BTreeMap;
use std::net::IpAddr;
use std::time::{Duration, Instant};

use nfguard_ban::{ActiveBan, Bans, Error, Target, scan};
use nfguard_netlink::{IpVersion, Key, LiveElement};

/// The counter of bans for scans, which the rules of the policy move.
pub(super) const COUNTER: &str = "scan/bans";
/// Time between two looks at the counter.
const LOOK_INTERVAL: Duration = Duration::from_secs(2);
/// Longest time between two looks, after one that took long.
const MAX_LOOK_INTERVAL: Duration = Duration::from_secs(3);
/// Looking takes at most one part in this many of the time, as far as [`MAX_LOOK_INTERVAL`] allows,
/// however many clients ask.
const REST: u32 = 20;
/// A ban that ends this much later than the known ban of its target is another one.
const CLOCK_TOLERANCE: Duration = Duration::from_secs(1);

pub(super) struct ScanWatch {
    /// The bans at the last look; `None` before the first.
    known: Option<BTreeMap<Target, Known>>,
    /// What the counter showed at the last look; `None` if there was no counter.
    counter: Option<u64>,
    /// Whether the counter may have begun again since then.
    is_counter_new: bool,
    /// When to look for subscribers, and when one that asks may have the guard look.
    next_look: Instant,
    rested_at: Instant,
}

struct Known {
    ban: ActiveBan,
    ends_at: Option<Instant>,
}

impl ScanWatch {
    pub(super) fn new() -> ScanWatch {
        let now = Instant::now();
        ScanWatch {
            known: None,
            counter: None,
            is_counter_new: false,
            next_look: now,
            rested_at: now,
        }
    }

    /// Has the next look read the bans, because the counter may have begun again.
    pub(super) fn forget_counter(&mut self) {
        self.is_counter_new = true;
    }

    /// Whether it is time to look for subscribers.
    pub(super) fn is_due(&self, now: Instant) -> bool {
        self.known.is_none() || now >= self.next_look
    }

    /// Returns the bans that are new since the last look, unless that was a moment ago.
    pub(super) fn look(
        &mut self,
        read_counter: impl FnOnce() -> Option<u64>,
        bans: &mut Bans,
        now: Instant,
    ) -> Result<Vec<ActiveBan>, Error> {
        if self.known.is_some() && now < self.rested_at {
            return Ok(Vec::new());
        }
        let looked = self.look_now(read_counter, bans);
        let rest = now.elapsed() * REST;
        self.rested_at = Instant::now() + rest.min(MAX_LOOK_INTERVAL);
        self.next_look = Instant::now() + rest.clamp(LOOK_INTERVAL, MAX_LOOK_INTERVAL);
        looked
    }

    fn look_now(
        &mut self,
        read_counter: impl FnOnce() -> Option<u64>,
        bans: &mut Bans,
    ) -> Result<Vec<ActiveBan>, Error> {
        let counter = read_counter();
        if self.known.is_some() && !self.is_counter_new && counter == self.counter {
            return Ok(Vec::new());
        }
        let found = bans.list_scans()?;
        let read_at = Instant::now();
        let is_first = self.known.is_none();
        let before = self.known.take().unwrap_or_default();
        let (mut known, mut new) = (BTreeMap::new(), Vec::new());
        for ban in found {
            let ends_at = ban.expires_in.and_then(|left| read_at.checked_add(left));
            let is_known = before.get(&ban.target).is_some_and(|it| !is_later(ends_at, it.ends_at));
            if !is_known && !is_first {
                new.push(ban.clone());
            }
            known.insert(ban.target, Known { ban, ends_at });
        }
        (self.known, self.counter, self.is_counter_new) = (Some(known), counter, false);
        Ok(new)
    }

    /// Returns the bans of the last look that are in force.
    pub(super) fn bans(&self, now: Instant) -> impl Iterator<Item = ActiveBan> {
        let known = self.known.iter().flat_map(BTreeMap::values);
        let is_in_force = move |known: &&Known| known.ends_at.is_none_or(|end| end > now);
        known.filter(is_in_force).map(move |Known { ban, ends_at }| ActiveBan {
            expires_in: ends_at.map(|end| end.saturating_duration_since(now)),
            ..ban.clone()
        })
    }

    /// Returns the bans that were ended, by the elements that were removed from a set.
    pub(super) fn removed(&mut self, set: &str, elements: &[LiveElement]) -> Vec<ActiveBan> {
        let Some(known) = &mut self.known else { return Vec::new() };
        if !IpVersion::ALL.into_iter().any(|version| set == scan::set("banned", version)) {
            return Vec::new();
        }
        let targets = elements.iter().filter_map(|live| match &live.element.key {
            Key::Value(key) => target(key),
            Key::Range(..) => None,
        });
        let ended = |target| match known.remove(&target) {
            Some(Known { mut ban, ends_at }) => {
                ban.expires_in = ends_at.map(|at| at.saturating_duration_since(Instant::now()));
                ban
            }
            // It was made after the last look.
            None => ActiveBan {
                target,
                port: None,
                expires_in: None,
                source: scan::SOURCE.to_owned(),
                reason: String::new(),
                created_at: None,
            },
        };
        targets.map(ended).collect()
    }
}

fn is_later(end: Option<Instant>, known: Option<Instant>) -> bool {
    match (end, known) {
        (Some(end), Some(known)) => end > known + CLOCK_TOLERANCE,
        (None, Some(_)) => true,
        (_, None) => false,
    }
}

fn target(key: &[u8]) -> Option<Target> {
    let address = match <[u8; 4]>::try_from(key) {
        Ok(v4) => IpAddr::from(v4),
        Err(_) => IpAddr::from(<[u8; 16]>::try_from(key).ok()?),
    };
    Some(Target::source(address, Target::V6_SOURCE))
}
