//! A ban as an element of a set: written and read. Pure.

use std::time::Duration;

use nfguard_netlink::{Element, Key, LiveElement};

use crate::ban::{ActiveBan, Ban};
use crate::comment::BanComment;
use crate::layout::{BanSet, SetKey};

/// The kernel takes no time at all for a ban without end.
pub(crate) const MIN_TIMEOUT: Duration = Duration::from_millis(1);
/// The kernel counts nanoseconds in 64 bits for a moment, and refuses what does not fit.
const MAX_TIMEOUT: Duration = Duration::from_millis(u64::MAX / 1_000_000 - 1);

/// Returns the element of a ban.
pub(crate) fn of_ban(key: &SetKey, ban: &Ban<'_>, now: u64) -> Element {
    element(key, ban.duration, comment(ban, now))
}

/// Returns the element of a ban in force that from now on lasts for `expires_in`.
pub(crate) fn of_active_ban(key: &SetKey, ban: &ActiveBan, now: u64) -> Element {
    let created_at = ban.created_at.unwrap_or(now);
    let comment = BanComment { source: &ban.source, reason: &ban.reason, created_at };
    element(key, ban.expires_in, comment.text())
}

fn element(key: &SetKey, duration: Option<Duration>, comment: String) -> Element {
    let timeout = Some(timeout(duration));
    Element { key: Key::Value(key.key.clone()), timeout, comment: Some(comment) }
}

/// Returns the timeout of a ban. Zero is a ban without end in a set with timeouts.
pub(crate) fn timeout(duration: Option<Duration>) -> Duration {
    duration.map_or(Duration::ZERO, |duration| duration.clamp(MIN_TIMEOUT, MAX_TIMEOUT))
}

/// Returns the comment of a ban.
pub(crate) fn comment(ban: &Ban<'_>, now: u64) -> String {
    let Ban { source, reason, created_at, .. } = *ban;
    BanComment { source, reason, created_at: created_at.unwrap_or(now) }.text()
}

/// Reads the ban that an element of a set is; `None` if it is none.
pub(crate) fn read(set: BanSet, live: LiveElement) -> Option<ActiveBan> {
    let Key::Value(key) = &live.element.key else { return None };
    let (target, port) = SetKey::parse(set, key)?;
    let comment = live.element.comment.unwrap_or_default();
    let (source, reason, created_at) = BanComment::parse(&comment);
    Some(ActiveBan { target, port, expires_in: live.expires_in, source, reason, created_at })
}
