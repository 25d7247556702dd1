//! The ways in which a line of Traefik's common format can be read.

use std::borrow::Cow;

use crate::read::clf::tail::Tail;
use crate::read::clf::{Needle, OPENING};
use crate::read::combined::is_token;
use crate::read::traefik_json::status;
use crate::record::{Client, Http, Origin};
use crate::time::{Time, clf as read_time};

/// What stands between a target and the version of HTTP.
const PROTOCOL: Needle = Needle { text: b" HTTP/", rarest: 1 };

/// Bytes of `[18/Nov/2026:21:00:00 +0000]`.
const STAMP_BYTES: usize = 28;

/// Readings of a line that are kept from its beginning and from its end, and beginnings of requests.
const READINGS: usize = 32;
const OPENINGS: usize = 8;

/// The ways in which a line can be read. Most lines have one, for which nothing is allocated.
pub(super) struct Readings<'a> {
    first: Option<Reading<'a>>,
    others: Vec<Reading<'a>>,
}

/// One way to read a line.
#[derive(Clone, Copy)]
pub(super) struct Reading<'a> {
    pub(super) time: Time,
    pub(super) user: Option<&'a [u8]>,
    method: &'a [u8],
    target: &'a [u8],
    pub(super) status: u16,
}

/// What stands where a request may begin.
struct Opening<'a> {
    time: Time,
    user: &'a [u8],
    method: &'a [u8],
    target_start: usize,
    /// Where a target that was escaped must have ended.
    target_limit: usize,
}

impl<'a> Readings<'a> {
    /// Finds each place where a request and its status may stand, in one pass over the line. A user name
    /// or a query may have others, before and after. Returns `None` if there is none.
    pub(super) fn of(line: &'a [u8], user_start: usize, tail: &Tail) -> Option<Self> {
        let mut openings = OPENING.places(line);
        let mut next = openings.find_map(|at| Opening::at(line, user_start, at));
        // The last opening, and those before it.
        let mut last: Option<Opening<'a>> = None;
        let mut open: Vec<Opening<'a>> = Vec::new();
        let text = line.get(..tail.start).unwrap_or_default();
        let mut readings = Self { first: None, others: Vec::new() };
        let gap_at = |quote: usize| text.get(..=quote)?.ends_with(b"\" \"").then(|| quote - 2);
        let last_gap = memchr::memrchr_iter(b'"', text).find_map(gap_at)?;
        for at in PROTOCOL.places(text) {
            while let Some(opening) = next.take_if(|opening| opening.target_start <= at) {
                open.extend(last.replace(opening));
                open.retain(|known| at <= known.target_limit);
                if open.len() == 2 * OPENINGS {
                    open.remove(OPENINGS);
                }
                next = openings.find_map(|at| Opening::at(line, user_start, at));
            }
            let Some(status) = answer(text, at + 6, last_gap) else { continue };
            let reaches = |opening: &&Opening<'a>| at <= opening.target_limit;
            for opening in open.iter().chain(&last).filter(reaches) {
                if let Some(target) = line.get(opening.target_start..at) {
                    let user = Some(opening.user).filter(|user| !user.is_empty() && *user != b"-");
                    let (time, method) = (opening.time, opening.method);
                    readings.add(Reading { time, user, method, target, status });
                }
            }
        }
        readings.first.is_some().then_some(readings)
    }

    /// Returns the readings.
    pub(super) fn iter(&self) -> impl Iterator<Item = &Reading<'a>> {
        self.first.iter().chain(&self.others)
    }

    /// Returns whether the line can be read in one way only.
    pub(super) fn is_one(&self) -> bool {
        self.others.is_empty()
    }

    /// Keeps a reading. A line with very many is forged: of those in its middle, one for each status
    /// stays.
    fn add(&mut self, reading: Reading<'a>) {
        if self.first.is_none() {
            self.first = Some(reading);
            return;
        }
        self.others.push(reading);
        if self.others.len() > 2 * READINGS {
            let dropped = self.others.remove(READINGS);
            if self.iter().all(|kept| kept.status != dropped.status) {
                self.others.insert(0, dropped);
            }
        }
    }
}

impl<'a> Opening<'a> {
    /// Reads `USER [TIME] "METHOD ` with its `] "` at a place of the line.
    fn at(line: &'a [u8], user_start: usize, bracket: usize) -> Option<Self> {
        let stamp_start = (bracket + 1).checked_sub(STAMP_BYTES)?;
        let stamp = line.get(stamp_start..=bracket)?;
        let time = read_time(stamp.strip_prefix(b"[")?.strip_suffix(b"]")?)?;
        let user_end = stamp_start.checked_sub(1)?;
        (line.get(user_end) == Some(&b' ')).then_some(())?;
        let user = line.get(user_start..user_end)?;
        let request = line.get(bracket + 3..)?;
        let method_end = request.iter().position(|byte| !is_token(*byte))?;
        (method_end > 0 && request.get(method_end) == Some(&b' ')).then_some(())?;
        let method = request.get(..method_end)?;
        let target_start = bracket + 3 + method_end + 1;
        let target = line.get(target_start..)?;
        // A path is escaped. A query is as it came, and with HTTP/2 may have spaces and quotes.
        let target_limit = match memchr::memchr3(b' ', b'"', b'?', target) {
            Some(at) if target.get(at) == Some(&b'?') => usize::MAX,
            Some(at) => target_start + at,
            None => usize::MAX,
        };
        Some(Self { time, user, method, target_start, target_limit })
    }
}

impl<'a> Reading<'a> {
    pub(super) fn http(&self, line: &'a [u8], client: Client, time: Time, tail: &Tail) -> Http<'a> {
        let service = line.get(tail.service.clone()).unwrap_or_default();
        Http {
            time,
            client,
            status: self.status,
            method: Some(Cow::Borrowed(self.method)),
            target: Some(Cow::Borrowed(self.target)),
            host: None,
            user: self.user.map(Cow::Borrowed),
            origin: Some(match service {
                b"-" | b"" => Origin::Proxy,
                _ => Origin::Application,
            }),
        }
    }
}

/// Reads `1.1" 401 17 "-" "…"`, which is what follows `HTTP/` up to the end of the User-Agent.
/// `last_gap` is where the last `" "` of the text stands.
fn answer(text: &[u8], start: usize, last_gap: usize) -> Option<u16> {
    let rest = text.get(start..)?;
    let digits = |text: &[u8]| text.iter().take_while(|byte| byte.is_ascii_digit()).count();
    let rest = rest.get(digits(rest)..)?;
    let rest = rest.strip_prefix(b".").map_or(Some(rest), |minor| minor.get(digits(minor)..))?;
    let (code, rest) = rest.strip_prefix(b"\" ")?.split_at_checked(3)?;
    let status = status(code)?;
    let rest = rest.strip_prefix(b" ")?;
    let rest = match rest.strip_prefix(b"-") {
        Some(rest) => rest,
        None => rest.get(Some(digits(rest)).filter(|count| *count > 0)?..)?,
    };
    let quoted = rest.strip_prefix(b" \"")?;
    let has_two = text.len() - quoted.len() <= last_gap;
    (quoted.last() == Some(&b'"') && has_two).then_some(status)
}
