//! The numbers of one process of Traefik.

use serde::{Deserialize, Serialize};

/// How far a number is ahead at most of the next one, until a log shows larger steps.
const REACH: u64 = 128;

/// The largest step that a log may show: its filters leave most requests out.
const MAX_REACH: u64 = 1 << 16;

/// Most numbers of requests that have not ended which are remembered.
const MISSING: u64 = 256;

/// How near a number is that goes on from the last.
const NEAR: u64 = 16;

/// Which numbers have come. Traefik numbers its requests from 1 as they begin, and logs them as they end.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub(super) struct Counter {
    next: u64,
    reach: u64,
    /// Numbers below `next` that have not come, ascending.
    missing: Vec<u64>,
}

impl Counter {
    /// Begins with a number. Of those below, only near ones may still come.
    pub(super) fn begin(number: u64) -> Self {
        let missing = number.saturating_sub(REACH).max(1)..number;
        Self { next: number.saturating_add(1), reach: REACH, missing: missing.collect() }
    }

    /// Returns whether a number is one that may come.
    pub(super) fn fits(&self, number: u64) -> bool {
        match number.checked_sub(self.next) {
            Some(step) => step <= self.reach,
            None => self.missing.binary_search(&number).is_ok(),
        }
    }

    /// Returns whether a number is one that has to come about now. Nearly all before it have come.
    pub(super) fn is_near(&self, number: u64) -> bool {
        match number.checked_sub(self.next) {
            Some(step) => step < NEAR,
            None => {
                self.missing.len() as u64 <= NEAR && self.missing.binary_search(&number).is_ok()
            }
        }
    }

    /// Notes a number that fits.
    pub(super) fn add(&mut self, number: u64) {
        if number == self.next {
            self.next = number.saturating_add(1);
        } else if number > self.next {
            self.missing.extend(self.next.max(number.saturating_sub(MISSING))..number);
            let surplus = self.missing.len().saturating_sub(MISSING as usize);
            self.missing.drain(..surplus);
            self.next = number.saturating_add(1);
        } else if let Ok(at) = self.missing.binary_search(&number) {
            self.missing.remove(at);
        }
    }

    /// Goes on with the numbers of another counter, which no client can have written. The step between
    /// them is one that this log makes.
    pub(super) fn follow(&mut self, other: Self) {
        let step = other.next.checked_sub(self.next).filter(|step| *step <= MAX_REACH / 2);
        let reach = self.reach.max(step.map_or(0, |step| 2 * step)).max(other.reach);
        *self = Self { reach, ..other };
    }
}
