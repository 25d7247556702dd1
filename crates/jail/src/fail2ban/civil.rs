//! The parts of a date, and the time that they are.

use super::Clock;
use crate::time::{Civil, Time};
use jiff::civil::Date;
use jiff::tz::TimeZone;
use jiff::{Timestamp, ToSpan as _};

/// How far ahead of the clock a date without year may be, in microseconds: a day.
const MAX_AHEAD_MICROS: i64 = 24 * 60 * 60 * 1_000_000;

/// What a line says of its time. What it does not say is `None`.
#[derive(Clone, Copy, Debug, Default)]
pub(super) struct Parts {
    pub(super) year: Option<i16>,
    pub(super) month: Option<i8>,
    pub(super) day: Option<i8>,
    pub(super) day_of_year: Option<i16>,
    pub(super) hour: i8,
    pub(super) minute: i8,
    pub(super) second: i8,
    pub(super) micro: i32,
    /// Seconds east of UTC.
    pub(super) offset: Option<i32>,
}

impl Parts {
    /// Returns the time, or `None` if there is no such date.
    ///
    /// A date without year is in the last year in which it is not more than a day ahead of the
    /// clock. A time without date is on the last day on which it is not ahead of the clock.
    pub(super) fn time(&self, clock: &Clock<'_>) -> Option<Time> {
        let now = Timestamp::from_microsecond(clock.now.micros()).ok()?;
        let today = now.to_zoned(TimeZone::UTC).date();
        let is_dated = self.month.is_some() || self.day_of_year.is_some();
        if let Some(year) = self.year {
            return self.on(self.date_in(year)?, clock);
        }
        if is_dated {
            // The first day of the next year is near in December only.
            let years = (today.year() - 1..=today.year() + i16::from(today.month() == 12)).rev();
            if clock.is_near {
                let near = today.year() - 4..=today.year() + 4;
                let times = near.filter_map(|year| self.on(self.date_in(year)?, clock));
                return times.min_by_key(|time| time.distance(clock.now));
            }
            let mut times = years.filter_map(|year| self.on(self.date_in(year)?, clock));
            let is_near = |time: &Time| time.micros() <= clock.now.micros() + MAX_AHEAD_MICROS;
            return times.find(is_near);
        }
        if self.day.is_some() {
            return None;
        }
        let days = [1, 0, -1, -2].iter().filter_map(|step| today.checked_add(step.days()).ok());
        let mut times = days.filter_map(|day| self.on(day, clock));
        if clock.is_near {
            return times.min_by_key(|time| time.distance(clock.now));
        }
        times.find(|time| *time <= clock.now)
    }

    fn date_in(&self, year: i16) -> Option<Date> {
        match self.day_of_year {
            Some(day) => Date::new(year, 1, 1).ok()?.checked_add((i64::from(day) - 1).days()).ok(),
            None => Date::new(year, self.month.unwrap_or(1), self.day.unwrap_or(1)).ok(),
        }
    }

    fn on(&self, date: Date, clock: &Clock<'_>) -> Option<Time> {
        let civil = Civil {
            year: date.year(),
            month: date.month(),
            day: date.day(),
            hour: self.hour,
            minute: self.minute,
            second: self.second,
            micro: self.micro,
        };
        match self.offset {
            Some(offset) => civil.at_offset(offset),
            None => civil.in_zone(clock.zone),
        }
    }
}

/// Seconds east of UTC of a zone as logs write it: `Z`, `+02:00`, `CEST`, `EDT+0100`.
pub(super) fn zone_offset(text: &str) -> Option<i32> {
    let sign = text.find(['+', '-']).unwrap_or(text.len());
    let (name, offset) = text.split_at(sign);
    let base = if name.is_empty() { 0 } else { named_zone(&name.to_ascii_uppercase())? };
    if offset.is_empty() {
        return Some(base);
    }
    let digits: String = offset.chars().filter(char::is_ascii_digit).collect();
    let hours: i32 = digits.get(..2)?.parse().ok()?;
    let minutes: i32 = digits.get(2..4).map_or(Some(0), |minutes| minutes.parse().ok())?;
    let seconds = hours * 3600 + minutes * 60;
    Some(base + if offset.starts_with('-') { -seconds } else { seconds })
}

/// Hours east of UTC of the zones whose names are in use in logs.
fn named_zone(name: &str) -> Option<i32> {
    let hours = match name {
        "Z" | "UTC" | "GMT" | "UT" | "WET" => 0,
        "CET" | "WEST" | "BST" | "MEZ" => 1,
        "CEST" | "EET" | "MEST" | "MESZ" => 2,
        "EEST" | "MSK" => 3,
        "JST" | "KST" => 9,
        "AEST" => 10,
        "AEDT" => 11,
        "EST" | "CDT" => -5,
        "EDT" => -4,
        "CST" | "MDT" => -6,
        "MST" | "PDT" => -7,
        "PST" => -8,
        _ => match (name.len(), name.as_bytes().first()?) {
            (1, letter @ b'A'..=b'I') => i32::from(letter - b'A') + 1,
            (1, letter @ b'K'..=b'M') => i32::from(letter - b'K') + 10,
            (1, letter @ b'N'..=b'Y') => -(i32::from(letter - b'N') + 1),
            _ => return None,
        },
    };
    Some(hours * 3600)
}
