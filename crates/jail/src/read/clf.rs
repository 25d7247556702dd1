//! Traefik's access log in the common format.
//!
//! Traefik escapes Referer and User-Agent from 3.7.2 on, and never the user name and the query. So of its
//! lines this takes nothing on trust but the beginning, which is the client's address, and the end:
//!
//! - A user name, a query or an unescaped User-Agent can imitate the part with the status. Each way in
//!   which a line can be read is a reading; a jail takes the first that is evidence. No reading has
//!   another client, and the line of an honest client has one reading.
//! - A user name can have line breaks. [`writes`] tells which lines are one record.

mod counter;
mod readings;
mod tail;
mod writes;

use std::borrow::Cow;
use std::net::IpAddr;

use ipnetwork::IpNetwork;
use serde::{Deserialize, Serialize};

use crate::address;
use crate::read::clf::readings::Readings;
use crate::read::clf::tail::Tail;
use crate::read::clf::writes::{Line, Owner, Writes};
use crate::read::client::client;
use crate::record::{Client, Http};
use crate::status::StatusSet;
use crate::time::Time;

/// The most bytes of the part with the client: what proxies say of each other.
const MAX_HOSTS_BYTES: usize = 64 * 1024;

/// How far a time that a client may have forged is believed to be off, in microseconds.
const MAX_FORGED_MICROS: u64 = 3_600_000_000;

/// What is remembered from line to line.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
pub(crate) struct Memory {
    writes: Writes,
    /// The time of the last record that is in no doubt.
    last: Option<Time>,
    /// Times of the last record that may be forged, while no other time is known.
    guesses: Vec<Time>,
}

/// What the settings of a log say.
pub(crate) struct Settings<'s> {
    pub(crate) trusted: &'s [IpNetwork],
    pub(crate) watched: &'s StatusSet,
}

/// What a line is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Kind {
    /// A record, or the end of one.
    Record,
    /// A record that may name several clients, so it is evidence against none.
    Unclear,
    /// Something else.
    Other,
}

/// Takes readings of records, with the line where a record ends and the one where it begins.
pub(crate) type Each<'s> = dyn FnMut(Http<'_>, u64, u64) + 's;

/// Returns whether a line begins as a record of such a log does.
pub(crate) fn is_like(line: &[u8]) -> bool {
    beginning(line).is_some()
}

/// A line that ends as a record.
struct Whole<'a> {
    tail: Tail,
    readings: Readings<'a>,
}

impl<'a> Whole<'a> {
    fn of(line: &'a [u8], user_start: usize) -> Option<Self> {
        let tail = Tail::of(line)?;
        // What looks like an end has to have the rest of a record before it.
        let readings = Readings::of(line, user_start, &tail)?;
        Some(Self { tail, readings })
    }
}

impl Memory {
    /// Reads a line, and hands over the readings of each record that is judged with it.
    pub(crate) fn read(
        &mut self,
        line: &[u8],
        number: u64,
        settings: &Settings<'_>,
        each: &mut Each<'_>,
    ) -> Kind {
        let (begin, whole) = parts(line);
        let client = begin.map(|begin| speaker(line, &begin, whole.as_ref(), settings.trusted));
        let request = whole.as_ref().map(|whole| whole.tail.number);
        let owner = self.writes.take(Line { number, bytes: line.len(), client, request });
        self.release(each);
        let (Some(owner), Some(whole)) = (owner, whole) else { return Kind::Other };
        if owner.client.is_none() {
            return Kind::Unclear;
        }
        let is_watched = whole.readings.iter().any(|it| settings.watched.contains(it.status));
        if self.writes.is_certain(&owner) && (!self.writes.has_doubts() || self.is_timely(&whole)) {
            if is_watched || !self.writes.has_doubts() {
                self.tell(line, &whole, number, owner, each);
            }
        } else if is_watched {
            self.writes.hold(line, number, owner);
        }
        Kind::Record
    }

    /// Hands over what is held back, because all of the log has come for now.
    pub(crate) fn settle(&mut self, is_end: bool, each: &mut Each<'_>) {
        self.writes.settle(is_end);
        self.release(each);
    }

    /// Begins with another file: what follows is not the rest of a record.
    pub(crate) fn restart(&mut self) {
        self.writes.settle(true);
    }

    /// Goes on after a gap.
    pub(crate) fn skip(&mut self) {
        self.writes.settle(true);
        self.writes.forget_numbers();
    }

    fn release(&mut self, each: &mut Each<'_>) {
        for held in self.writes.released() {
            if let (_, Some(whole)) = parts(&held.text) {
                self.tell(&held.text, &whole, held.line, held.owner, each);
            }
        }
    }

    fn tell(
        &mut self,
        line: &[u8],
        whole: &Whole<'_>,
        number: u64,
        owner: Owner,
        each: &mut Each<'_>,
    ) {
        let Some(client) = owner.client else { return };
        let is_sure = !owner.is_rest && whole.readings.is_one() && !self.writes.has_doubts();
        let time = if is_sure { None } else { self.likely_time(&whole.readings) };
        for reading in whole.readings.iter() {
            let mut http = reading.http(line, client, time.unwrap_or(reading.time), &whole.tail);
            if owner.is_rest && http.user.is_none() {
                // Only a user name can have the line break.
                http.user = Some(Cow::Borrowed(b"\n"));
            }
            each(http, number, owner.begin);
        }
        if is_sure {
            self.last = whole.readings.iter().next().map(|reading| reading.time);
            self.guesses.clear();
        } else if self.last.is_none() {
            self.guesses = whole.readings.iter().map(|reading| reading.time).collect();
        }
    }

    /// Returns whether a line has a time that is not far from the last one.
    fn is_timely(&self, whole: &Whole<'_>) -> bool {
        let is_near = |last: Time| {
            whole.readings.iter().any(|it| it.time.distance(last) <= MAX_FORGED_MICROS)
        };
        self.last.is_none_or(is_near)
    }

    /// Returns the time of a record whose time may be forged: of those that it has, the one nearest to
    /// the record before, and not far from that.
    fn likely_time(&self, readings: &Readings<'_>) -> Option<Time> {
        let times = readings.iter().map(|reading| reading.time);
        let Some(last) = self.last else {
            // True times of two records are near each other. Of one record, a time that is too early
            // pushes nothing out of a window.
            let distance = |time: &Time| self.guesses.iter().map(|it| it.distance(*time)).min();
            return times.min_by_key(|time| (distance(time), *time));
        };
        let nearest = times.min_by_key(|time| time.distance(last))?;
        Some(if nearest.distance(last) <= MAX_FORGED_MICROS { nearest } else { last })
    }
}

/// The beginning of a line: the client's part, and where the user's begins, after ` - `.
struct Beginning<'a> {
    hosts: &'a [u8],
    last: IpAddr,
    user_start: usize,
}

/// Returns the beginning of a line, and the rest if it ends as a record.
fn parts(line: &[u8]) -> (Option<Beginning<'_>>, Option<Whole<'_>>) {
    let begin = beginning(line);
    let user_start = match &begin {
        // What looks like a beginning may stand behind a request, at the end of a record.
        Some(begin) if OPENING.places(begin.hosts).next().is_none() => begin.user_start,
        _ => 0,
    };
    (begin, Whole::of(line, user_start))
}

fn beginning(line: &[u8]) -> Option<Beginning<'_>> {
    // With X-Forwarded-For there are several addresses, each after a comma and a space.
    // What stands before the last one is what a client may have said.
    let window = line.get(..line.len().min(MAX_HOSTS_BYTES))?;
    let end = SEPARATOR.places(window).next()?;
    let hosts = line.get(..end)?;
    Some(Beginning { hosts, last: last_host(hosts)?, user_start: end + SEPARATOR.text.len() })
}

/// A short text to look for, by the byte of it that is the rarest in logs. A searcher of any text would take
/// longer to make than the line to search.
struct Needle {
    text: &'static [u8],
    rarest: usize,
}

/// What stands between the client and the user.
const SEPARATOR: Needle = Needle { text: b" - ", rarest: 1 };

/// What stands before a request.
const OPENING: Needle = Needle { text: b"] \"", rarest: 0 };

impl Needle {
    /// Returns where the text stands.
    fn places<'l>(&self, line: &'l [u8]) -> impl Iterator<Item = usize> + use<'l> {
        let Needle { text, rarest } = *self;
        let byte = text.get(rarest).copied().unwrap_or_default();
        memchr::memchr_iter(byte, line).filter_map(move |at| {
            let start = at.checked_sub(rarest)?;
            line.get(start..)?.starts_with(text).then_some(start)
        })
    }
}

/// Returns the last address of a list.
fn last_host(hosts: &[u8]) -> Option<IpAddr> {
    address::parse(hosts.rsplit(|byte| *byte == b',').next()?.trim_ascii())
}

/// Returns the client of a line, unless it may be another one as well. The log has no other word for a
/// client behind a proxy than the list itself, in which that client may write what looks like its end.
fn speaker(
    line: &[u8],
    begin: &Beginning<'_>,
    whole: Option<&Whole<'_>>,
    trusted: &[IpNetwork],
) -> Option<Client> {
    if !trusted.is_empty() {
        let rest = line.get(begin.user_start..).unwrap_or_default();
        let users = whole.map(|whole| whole.readings.iter().filter_map(|reading| reading.user));
        let mut users = users.into_iter().flatten();
        if users.any(has_host) || whole.is_none() && has_host(rest) {
            return None;
        }
    }
    let hosts = begin.hosts;
    let before = memchr::memrchr(b',', hosts).and_then(|comma| hosts.get(..comma));
    Some(client(begin.last, before, trusted))
}

/// Returns whether a user name can be the rest of a list of addresses.
fn has_host(user: &[u8]) -> bool {
    let mut ends = SEPARATOR.places(user);
    ends.any(|end| {
        let before = user.get(end.saturating_sub(64)..end).unwrap_or_default();
        before.contains(&b',') && last_host(before).is_some()
    })
}
