//! A ban as an element of a set: written and read. Pure.

use std::time::Duration;

use nfguard_netlink::{Element, Key, LiveElement};

use crate::ban::{ActiveBan, Ban};
use crate::comment::{BanComment, Sharing};
use crate::layout::{Place, SetKey};

/// The kernel takes no time at all for a ban without end.
pub(crate) const MIN_TIMEOUT: Duration = Duration::from_millis(1);
/// The kernel counts nanoseconds in 64 bits for a moment, and refuses what does not fit.
const MAX_TIMEOUT: Duration = Duration::from_millis(u64::MAX / 1_000_000 - 1);

/// Returns the element of a ban at a place.
pub(crate) fn of_active_ban(place: &Place, ban: &ActiveBan, sharing: Sharing, now: u64) -> Element {
    let created_at = ban.created_at.unwrap_or(now);
    let comment = BanComment { source: &ban.source, reason: &ban.reason, created_at, sharing };
    Element {
        key: Key::Value(place.element_key()),
        timeout: Some(timeout(ban.expires_in)),
        comment: Some(comment.text()),
    }
}

/// Returns the timeout of a ban. Zero is a ban without end in a set with timeouts.
pub(crate) fn timeout(duration: Option<Duration>) -> Duration {
    duration.map_or(Duration::ZERO, |duration| duration.clamp(MIN_TIMEOUT, MAX_TIMEOUT))
}

/// Returns the comment of a ban.
pub(crate) fn comment(ban: &Ban<'_>, now: u64) -> String {
    let Ban { source, reason, created_at, .. } = *ban;
    BanComment { source, reason, created_at: created_at.unwrap_or(now), sharing: Sharing::Alone }
        .text()
}

/// Returns a ban as it is once it is in force.
pub(crate) fn active(ban: &Ban<'_>, now: u64) -> ActiveBan {
    let (source, reason, created_at) = BanComment::parse(&comment(ban, now));
    let target = ban.target.target();
    ActiveBan { target, port: ban.port, expires_in: ban.duration, source, reason, created_at }
}

/// Reads the ban that an element at a place is; `None` if it is none.
pub(crate) fn read(place: &Place, live: LiveElement) -> Option<ActiveBan> {
    let (target, port) = SetKey::parse(place.key.set, &place.key.key)?;
    let comment = live.element.comment.unwrap_or_default();
    let (source, reason, created_at) = BanComment::parse(&comment);
    Some(ActiveBan { target, port, expires_in: live.expires_in, source, reason, created_at })
}

/// Reads whether other owners count beside the ban that an element is.
pub(crate) fn sharing(live: &LiveElement) -> Sharing {
    live.element.comment.as_deref().map_or(Sharing::Alone, BanComment::sharing)
}

/// Reads the place of an element of a set; `None` if no ban lies there.
pub(crate) fn place(set: &str, live: &LiveElement) -> Option<Place> {
    match &live.element.key {
        Key::Value(key) => Place::parse(set, key),
        Key::Range(..) => None,
    }
}
