//! Lists of bans that say when each ends.

use std::time::{Duration, Instant};

use nfguard_ban::{Ban, BanCounts, Bans, Port, Target};

/// Within this time of the end that a list says, a ban in force is as it was: the kernel counts the time
/// that is left, and some is lost on the way.
const CLOCK_TOLERANCE: Duration = Duration::from_secs(1);

/// Bans that are looked up before a part of a list is banned.
const BANS_LOOKED_UP_AT_ONCE: usize = 4096;

/// Makes the bans of a list that says when each ends. One that is in force until then is kept, so a
/// list that is put in twice changes nothing. `asked_at` is when its durations were found out.
///
/// # Errors
/// As [`Bans::ban_all`].
pub fn ban_until<'a>(
    bans: &mut Bans,
    list: impl IntoIterator<Item = Ban<'a>>,
    asked_at: Instant,
) -> Result<BanCounts, nfguard_ban::Error> {
    if bans.count()? == 0 {
        return bans.ban_all(list);
    }
    let mut done = BanCounts::default();
    let mut list = list.into_iter().peekable();
    while list.peek().is_some() {
        let next: Vec<Ban<'_>> = list.by_ref().take(BANS_LOOKED_UP_AT_ONCE).collect();
        let held = bans.look_up_all_of(next.iter().map(key))?;
        let mut part = Vec::new();
        for (ban, held) in next.into_iter().zip(held) {
            let is_in_force = held.is_some_and(|held| match (held.expires_in, ban.duration) {
                (None, _) => true,
                (Some(_), None) => false,
                (Some(left), Some(duration)) => {
                    left + asked_at.elapsed() + CLOCK_TOLERANCE >= duration
                }
            });
            if is_in_force { done.kept += 1 } else { part.push(ban) }
        }
        match bans.ban_all(part) {
            Ok(counts) => done = sum(done, counts),
            Err(nfguard_ban::Error::Partly { done: some, error }) => {
                return Err(nfguard_ban::Error::Partly { done: sum(done, some), error });
            }
            Err(error) if done.all() == 0 => return Err(error),
            Err(error) => return Err(nfguard_ban::Error::Partly { done, error: Box::new(error) }),
        }
    }
    Ok(done)
}

/// Returns what a ban is looked up by.
pub(crate) fn key<'a>(ban: &Ban<'a>) -> (&'a str, Target, Option<Port>) {
    (ban.source, ban.target.target(), ban.port)
}

fn sum(one: BanCounts, other: BanCounts) -> BanCounts {
    BanCounts {
        added: one.added + other.added,
        extended: one.extended + other.extended,
        kept: one.kept + other.kept,
    }
}
