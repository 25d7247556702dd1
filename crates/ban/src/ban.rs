//! A ban: to be made, in force, and what became of it. Pure.

use std::time::Duration;

use crate::never_ban::Admitted;
use crate::target::{Port, Target};

/// A ban to be made.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Ban<'a> {
    /// The target.
    pub target: Admitted,
    /// The port that the target is banned from; `None`: all ports. A container's published port
    /// has the number that it is published at. Bans of one target from several ports are
    /// independent of each other.
    pub port: Option<Port>,
    /// How long the ban lasts; `None`: until it is ended. The kernel counts at least one
    /// millisecond and at most 584 years, and other durations become the nearer of the two.
    pub duration: Option<Duration>,
    /// Who bans: the name of a tool or of one of its jails. A ban belongs to its source: bans of one
    /// target by several sources are independent of each other. A name of more than 64 bytes, or
    /// with characters that a comment cannot hold, is listed with a digest of the whole name.
    pub source: &'a str,
    /// Why. Kept with the ban as far as it fits: source and reason have 113 bytes together.
    pub reason: &'a str,
    /// When the ban was first made, in seconds since 1970; `None`: now.
    pub created_at: Option<u64>,
}

/// A ban in force. A target that several sources have banned is shut out until the last of their
/// bans ends.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ActiveBan {
    /// The target.
    pub target: Target,
    /// The port that the target is banned from; `None`: all ports.
    pub port: Option<Port>,
    /// How long the ban still lasts; `None`: until it is ended.
    pub expires_in: Option<Duration>,
    /// Who banned; empty if that is not known.
    pub source: String,
    /// Why; empty if that is not known.
    pub reason: String,
    /// When the ban was made, in seconds since 1970; `None` if that is not known.
    pub created_at: Option<u64>,
}

/// What became of a ban, among the bans of the same source.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum BanOutcome {
    /// It is in force.
    Added,
    /// It was in force and now lasts longer.
    Extended,
    /// It was in force for at least as long, and is as it was.
    Kept,
}

/// What became of many bans.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct BanCounts {
    /// Bans that are in force.
    pub added: u64,
    /// Bans that were in force and now last longer.
    pub extended: u64,
    /// Bans that were in force for at least as long, or were in the list twice.
    pub kept: u64,
}

/// What [`Bans::replace`](crate::Bans::replace) did.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct ReplacedBans {
    /// What became of the bans of the list. Those with another end than before, also an earlier
    /// one, count as extended.
    pub counts: BanCounts,
    /// Bans of the source that were not in the list, and were ended.
    pub ended: u64,
}

impl BanCounts {
    /// Returns the number of all bans.
    #[must_use]
    pub fn all(&self) -> u64 {
        self.added + self.extended + self.kept
    }

    pub(crate) fn add(&mut self, other: BanCounts) {
        self.added += other.added;
        self.extended += other.extended;
        self.kept += other.kept;
    }

    pub(crate) fn count(&mut self, outcome: BanOutcome) {
        match outcome {
            BanOutcome::Added => self.added += 1,
            BanOutcome::Extended => self.extended += 1,
            BanOutcome::Kept => self.kept += 1,
        }
    }
}

/// Tells whether the first time goes on for longer than the second; `None` never ends.
pub(crate) fn outlasts(first: Option<Duration>, second: Option<Duration>) -> bool {
    match (first, second) {
        (_, None) => false,
        (None, Some(_)) => true,
        (Some(first), Some(second)) => first > second,
    }
}
