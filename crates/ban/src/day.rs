//! Days, to be written and read again. Pure.

use std::fmt;
use std::str::FromStr;
use std::time::{Duration, SystemTime, UNIX_EPOCH};

const SECONDS: u64 = 24 * 3600;

/// A day in UTC from 1970 to 9999, written as `2026-11-29`.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Day {
    year: u16,
    month: u8,
    day: u8,
}

/// A moment by two clocks. The clock of the calendar may be set, the other one not.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Moment {
    /// The time of the calendar.
    pub calendar: SystemTime,
    /// The time since the kernel booted.
    pub since_boot: Duration,
}

impl Moment {
    /// Returns the moment of now, as the file system of processes tells it.
    #[cfg(not(feature = "socket"))]
    pub(crate) fn now() -> Moment {
        let uptime = std::fs::read_to_string("/proc/uptime").unwrap_or_default();
        let seconds = uptime.split(['.', ' ']).next().and_then(|seconds| seconds.parse().ok());
        let since_boot = Duration::from_secs(seconds.unwrap_or_default());
        Moment { calendar: SystemTime::now(), since_boot }
    }

    /// Returns how many whole days the kernel has run.
    pub(crate) fn days_since_boot(self) -> u64 {
        self.since_boot.as_secs() / SECONDS
    }
}

/// A text that is no day.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("{0:?} is no day; expected one such as 2026-11-29")]
pub struct InvalidDay(String);

impl Day {
    /// Returns the day that `time` falls on.
    #[must_use]
    pub fn of(time: SystemTime) -> Day {
        let since_epoch = time.duration_since(UNIX_EPOCH).unwrap_or_default();
        let mut days = since_epoch.as_secs() / SECONDS;
        let mut year = 1970;
        while year < 9999 && days >= days_in_year(year) {
            days -= days_in_year(year);
            year += 1;
        }
        let mut month = 1;
        while month < 12 && days >= days_in_month(year, month) {
            days -= days_in_month(year, month);
            month += 1;
        }
        let day = u8::try_from(days + 1).unwrap_or(31).min(31);
        Day { year, month, day }
    }

    /// Returns the moment at which the day begins.
    #[must_use]
    pub fn start(self) -> SystemTime {
        let years: u64 = (1970..self.year).map(days_in_year).sum();
        let months: u64 = (1..self.month).map(|month| days_in_month(self.year, month)).sum();
        let days = years + months + u64::from(self.day) - 1;
        UNIX_EPOCH + Duration::from_secs(days * SECONDS)
    }
}

fn is_leap(year: u16) -> bool {
    year.is_multiple_of(4) && (!year.is_multiple_of(100) || year.is_multiple_of(400))
}

fn days_in_year(year: u16) -> u64 {
    if is_leap(year) { 366 } else { 365 }
}

fn days_in_month(year: u16, month: u8) -> u64 {
    match month {
        4 | 6 | 9 | 11 => 30,
        2 if is_leap(year) => 29,
        2 => 28,
        _ => 31,
    }
}

impl fmt::Display for Day {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Day { year, month, day } = self;
        write!(f, "{year:04}-{month:02}-{day:02}")
    }
}

impl FromStr for Day {
    type Err = InvalidDay;

    fn from_str(text: &str) -> Result<Day, InvalidDay> {
        let parsed = || {
            let (year, rest) = text.split_once('-')?;
            let (month, day) = rest.split_once('-')?;
            let day = Day {
                year: year.parse().ok()?,
                month: month.parse().ok()?,
                day: day.parse().ok()?,
            };
            let exists = (1970..=9999).contains(&day.year)
                && (1..=12).contains(&day.month)
                && (1..=days_in_month(day.year, day.month)).contains(&u64::from(day.day));
            // One text for each day.
            (exists && day.to_string() == text).then_some(day)
        };
        parsed().ok_or_else(|| InvalidDay(text.to_owned()))
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::{prop_assert, prop_assert_eq, proptest};

    use super::*;

    fn day(seconds: u64) -> String {
        Day::of(UNIX_EPOCH + Duration::from_secs(seconds)).to_string()
    }

    #[test]
    fn days_are_those_of_the_calendar() {
        for (seconds, text) in [
            (0, "1970-01-01"),
            (951_782_400, "2000-02-29"),
            (951_868_800, "2000-03-01"),
            (1_796_083_199, "2026-11-30"),
            (4_107_542_399, "2100-02-28"),
            (4_107_542_400, "2100-03-01"),
        ] {
            assert_eq!(day(seconds), text);
        }
    }

    #[test]
    fn what_is_no_day_is_refused() {
        for text in
            ["", "2026-11", "2026-02-29", "2026-13-01", "2026-1-1", "1969-12-31", "the bastion"]
        {
            assert!(text.parse::<Day>().is_err(), "{text}");
        }
    }

    proptest! {
        #[test]
        fn a_day_is_read_as_it_is_written_and_holds_its_moments(seconds in 0..253_402_300_800u64) {
            let time = UNIX_EPOCH + Duration::from_secs(seconds);
            let day = Day::of(time);
            prop_assert_eq!(day.to_string().parse(), Ok(day));
            let into_day = time.duration_since(day.start()).expect("it has begun");
            prop_assert!(into_day < Duration::from_secs(SECONDS));
        }
    }
}
