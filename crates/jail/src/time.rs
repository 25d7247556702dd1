//! Times as logs write them.
//!
//! A time is the log's, so it needs no clock. A time without a zone is in the [`Zone`] of its log. A
//! time without a year is in the year that brings it nearest to a time that is known.

mod read;
mod span;

use std::fmt;

use jiff::civil::{Date, DateTime};
use jiff::tz::TimeZone;
use serde::{Deserialize, Serialize};

pub use read::{Leading, clf, epoch, leading, rfc3339};
pub use span::Span;

/// Microseconds of a second.
pub(crate) const SECOND_MICROS: i64 = 1_000_000;

/// A moment: microseconds since 1970 in UTC.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(transparent)]
pub struct Time(i64);

/// Times that can be written with a year of four digits, with a day to spare for zones.
const FIRST_MICROS: i64 = -62_135_510_400 * SECOND_MICROS;
const LAST_MICROS: i64 = 253_402_214_400 * SECOND_MICROS;

impl Time {
    /// The last second of 2000. By it, a date without a year is in 2000, which has all days.
    pub(crate) const END_OF_2000: Time = Time(978_307_199 * SECOND_MICROS);

    /// Returns the time that is this number of seconds after 1970 began.
    pub fn from_seconds(seconds: i64) -> Option<Self> {
        Self::from_micros(seconds.checked_mul(SECOND_MICROS)?)
    }

    /// Returns the time that is this number of microseconds after 1970 began. Its year is from 1 to
    /// 9999.
    pub fn from_micros(micros: i64) -> Option<Self> {
        (FIRST_MICROS..=LAST_MICROS).contains(&micros).then_some(Self(micros))
    }

    /// Returns the microseconds since 1970 began.
    pub fn micros(self) -> i64 {
        self.0
    }

    /// Returns the time that is this span later. The end of all times is the last moment of 9999.
    pub fn after(self, span: Span) -> Self {
        Self(self.0.saturating_add(span.micros()).min(LAST_MICROS))
    }

    /// Returns the time that is this span earlier.
    pub fn before(self, span: Span) -> Self {
        Self(self.0.saturating_sub(span.micros()))
    }

    /// Returns how far two times are apart, in microseconds.
    pub(crate) fn distance(self, other: Self) -> u64 {
        self.0.abs_diff(other.0)
    }
}

/// RFC 3339 in UTC: whole seconds, or a fraction if the time has one.
impl fmt::Display for Time {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let (seconds, micros) =
            (self.0.div_euclid(SECOND_MICROS), self.0.rem_euclid(SECOND_MICROS));
        let (day, second) = (seconds.div_euclid(86_400), seconds.rem_euclid(86_400));
        let (year, month, date) = civil_of_day(day);
        let (hour, minute, second) = (second / 3600, second / 60 % 60, second % 60);
        write!(f, "{year:04}-{month:02}-{date:02}T{hour:02}:{minute:02}:{second:02}")?;
        if micros > 0 {
            write!(f, ".{}", format!("{micros:06}").trim_end_matches('0'))?;
        }
        f.write_str("Z")
    }
}

/// A date and a time of day without a zone, checked.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Civil {
    /// Year from 1 to 9999.
    pub year: i16,
    /// Month from 1.
    pub month: i8,
    /// Day of the month from 1.
    pub day: i8,
    /// Hour from 0 to 23.
    pub hour: i8,
    /// Minute from 0 to 59.
    pub minute: i8,
    /// Second from 0 to 59. A leap second is the second before it.
    pub second: i8,
    /// Microsecond from 0 to 999,999.
    pub micro: i32,
}

impl Civil {
    /// Returns the time in a zone that is this number of seconds ahead of UTC.
    pub fn at_offset(self, seconds: i32) -> Option<Time> {
        let day = days_of_civil(i64::from(self.year), self.month.into(), self.day.into())?;
        let in_range = (0..24).contains(&self.hour)
            && (0..60).contains(&self.minute)
            && (0..=60).contains(&self.second)
            && (0..1_000_000).contains(&self.micro);
        if !in_range || seconds.abs() >= 86_400 {
            return None;
        }
        let hours = i64::from(self.hour) * 3600 + i64::from(self.minute) * 60;
        let whole = day * 86_400 + hours + i64::from(self.second.min(59)) - i64::from(seconds);
        Time::from_micros(whole * SECOND_MICROS + i64::from(self.micro))
    }

    /// Returns the time in a zone. Of a time of day that a zone has twice, it is the first.
    pub fn in_zone(self, zone: &Zone) -> Option<Time> {
        let utc = self.at_offset(0)?;
        let Some(zone) = &zone.0 else { return Some(utc) };
        let date = Date::new(self.year, self.month, self.day).ok()?;
        let date_time: DateTime = date.at(self.hour, self.minute, self.second.min(59), 0);
        let offset = zone.to_ambiguous_timestamp(date_time).compatible().ok()?;
        Time::from_micros(offset.as_second() * SECOND_MICROS + i64::from(self.micro))
    }

    /// Returns the time in a zone, in the year that brings it nearest to `known`. Without a known
    /// time, the year is 2000, which has all days.
    pub fn in_nearest_year(self, zone: &Zone, known: Option<Time>) -> Option<Time> {
        let Some(known) = known else { return Civil { year: 2000, ..self }.in_zone(zone) };
        let day = known.0.div_euclid(86_400 * SECOND_MICROS);
        let year = i16::try_from(civil_of_day(day).0).ok()?;
        // 29 February may be four years away, and eight around 2100.
        let near = [0, -1, 1].into_iter().chain([-2, 2, -3, 3, -4, 4]);
        let times = near.filter_map(|step| Civil { year: year + step, ..self }.in_zone(zone));
        times.min_by_key(|time| time.distance(known))
    }
}

/// The time zone of a log.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Zone(Option<TimeZone>);

impl Zone {
    /// Coordinated Universal Time.
    pub const UTC: Zone = Zone(None);

    /// Reads `UTC`, an offset such as `+02:00`, or a name such as `Europe/Berlin`. The names and
    /// their rules are built in.
    pub fn parse(text: &str) -> Option<Self> {
        if ["UTC", "Z", "GMT"].contains(&text) {
            return Some(Self::UTC);
        }
        if text.starts_with(['+', '-']) {
            let seconds = read::offset(text.as_bytes())?;
            return Some(Self(Some(TimeZone::fixed(
                jiff::tz::Offset::from_seconds(seconds).ok()?,
            ))));
        }
        TimeZone::get(text).ok().map(|zone| Self(Some(zone)))
    }

    /// Returns its name, or its offset.
    pub(crate) fn name(&self) -> String {
        let Some(zone) = &self.0 else { return "UTC".to_owned() };
        match zone.iana_name() {
            Some(name) => name.to_owned(),
            None => zone.to_fixed_offset().map_or(String::new(), |offset| offset.to_string()),
        }
    }

    /// Returns the names of all zones.
    pub fn names() -> impl Iterator<Item = String> {
        jiff::tz::db().available().map(|name| name.to_string())
    }
}

/// Returns the day since 1970 of a date that exists.
fn days_of_civil(year: i64, month: i64, day: i64) -> Option<i64> {
    const DAYS: [i64; 12] = [31, 28, 31, 30, 31, 30, 31, 31, 30, 31, 30, 31];
    let is_leap = year % 4 == 0 && (year % 100 != 0 || year % 400 == 0);
    let last = *DAYS.get(usize::try_from(month - 1).ok()?)? + i64::from(is_leap && month == 2);
    if !(1..=9999).contains(&year) || !(1..=last).contains(&day) {
        return None;
    }
    // Years that begin in March have their leap day at their end.
    let (shifted, month) = if month > 2 { (year, month - 3) } else { (year - 1, month + 9) };
    let era = shifted.div_euclid(400);
    let year_of_era = shifted.rem_euclid(400);
    let day_of_year = (153 * month + 2) / 5 + day - 1;
    Some(
        era * 146_097 + year_of_era * 365 + year_of_era / 4 - year_of_era / 100 + day_of_year
            - 719_468,
    )
}

/// Returns year, month and day of a day since 1970.
fn civil_of_day(day: i64) -> (i64, i64, i64) {
    let day = day + 719_468;
    let (era, day_of_era) = (day.div_euclid(146_097), day.rem_euclid(146_097));
    let year_of_era =
        (day_of_era - day_of_era / 1460 + day_of_era / 36_524 - day_of_era / 146_096) / 365;
    let day_of_year = day_of_era - (365 * year_of_era + year_of_era / 4 - year_of_era / 100);
    let month = (5 * day_of_year + 2) / 153;
    let date = day_of_year - (153 * month + 2) / 5 + 1;
    let month = if month < 10 { month + 3 } else { month - 9 };
    (year_of_era + era * 400 + i64::from(month <= 2), month, date)
}
