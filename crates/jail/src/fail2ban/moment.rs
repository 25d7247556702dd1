//! The parts of a date: how each is written in a log, and what it says.

use super::Clock;
use super::civil::{Parts, zone_offset};
use crate::time::Time;

/// A part of a date.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Part {
    Year,
    YearOfCentury,
    Month,
    MonthName,
    Day,
    DayOfYear,
    WeekDay,
    Hour,
    HourOfHalf,
    Half,
    Minute,
    Second,
    Fraction,
    Offset,
    ZoneName,
    /// A name, an offset, or both.
    AnyZone,
    /// Seconds since 1970, with a fraction or without.
    Epoch,
    /// The same, or milliseconds or microseconds.
    LongEpoch,
    Tai,
}

use Part::{
    AnyZone, Day, DayOfYear, Epoch, Fraction, Half, Hour, HourOfHalf, LongEpoch, Minute, Month,
    MonthName, Offset, Second, Tai, WeekDay, Year, YearOfCentury, ZoneName,
};

/// Each part with the name of its group.
const NAMES: [(Part, &str); 19] = [
    (Year, "at_year"),
    (YearOfCentury, "at_year_of_century"),
    (Month, "at_month"),
    (MonthName, "at_month_name"),
    (Day, "at_day"),
    (DayOfYear, "at_day_of_year"),
    (WeekDay, "at_week_day"),
    (Hour, "at_hour"),
    (HourOfHalf, "at_hour_of_half"),
    (Half, "at_half"),
    (Minute, "at_minute"),
    (Second, "at_second"),
    (Fraction, "at_fraction"),
    (Offset, "at_offset"),
    (ZoneName, "at_zone_name"),
    (AnyZone, "at_any_zone"),
    (Epoch, "at_epoch"),
    (LongEpoch, "at_long_epoch"),
    (Tai, "at_tai"),
];

const MONTHS: [&str; 12] = [
    "january",
    "february",
    "march",
    "april",
    "may",
    "june",
    "july",
    "august",
    "september",
    "october",
    "november",
    "december",
];
const WEEK_DAYS: [&str; 7] =
    ["monday", "tuesday", "wednesday", "thursday", "friday", "saturday", "sunday"];

/// How a number or a name is written.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Style {
    /// With as many digits as it needs, or with a zero or a blank before them; a name in three letters.
    Loose,
    /// With two digits always.
    Padded,
    /// A name in full.
    Full,
}

impl Part {
    /// Returns the part whose group has this name.
    pub(super) fn named(name: &str) -> Option<Self> {
        NAMES.iter().find(|(_, known)| *known == name).map(|(part, _)| *part)
    }

    /// Returns the expression of the part, in its group.
    pub(super) fn expression(self, style: Style) -> String {
        let body = match self {
            Year => "(?:19|20)[0-9]{2}".to_owned(),
            YearOfCentury => "[0-9]{2}".to_owned(),
            Month => number(1, 12, style),
            Day => number(1, 31, style),
            DayOfYear => "[0-3]?[0-9]?[0-9]".to_owned(),
            Hour => number(0, 23, style),
            HourOfHalf => number(1, 12, style),
            Minute => number(0, 59, style),
            // A leap second is one more.
            Second => number(0, 60, style),
            Fraction => "[0-9]{1,9}".to_owned(),
            MonthName => one_of(&MONTHS, style),
            WeekDay => one_of(&WEEK_DAYS, style),
            Half => "(?i:[ap]m)".to_owned(),
            Offset => format!("{OFFSET}|{UNIVERSAL}"),
            ZoneName => ABBREVIATION.to_owned(),
            AnyZone => format!("{OFFSET}|(?:{ABBREVIATION})(?:{OFFSET})?"),
            // From 2001 to 2286 there are ten digits.
            Epoch => "[0-9]{10}(?:[.,][0-9]{1,9})?".to_owned(),
            LongEpoch => "[0-9]{10}(?:[.,][0-9]{1,9}|[0-9]{6}|[0-9]{3})?".to_owned(),
            Tai => "@[0-9a-f]{24}".to_owned(),
        };
        let name = NAMES.iter().find(|(part, _)| *part == self).map_or("", |(_, name)| name);
        format!("(?P<{name}>{body})")
    }
}

/// An offset as ISO 8601 has it, from `-12` to `+14:00`.
const OFFSET: &str = "[+-](?:0[0-9]|1[0-4])(?::?[0-5][0-9])?";
/// The names that RFC 3339 and RFC 5322 have for no offset.
const UNIVERSAL: &str = "Z|UTC?|GMT";
/// An abbreviation as POSIX has it for `TZ`, of three letters or more, or a letter of RFC 822.
const ABBREVIATION: &str = "[A-Z]{3,6}|[A-Z]";

/// Returns an expression for the numbers from `low` to `high`, which have at most two digits. No two of its
/// branches begin alike, so that the engine needs one pass.
fn number(low: u8, high: u8, style: Style) -> String {
    let class = |low: u8, high: u8| match low == high {
        true => low.to_string(),
        false => format!("[{low}-{high}]"),
    };
    // What may follow each first digit.
    let mut branches: Vec<(u8, u8, String)> = Vec::new();
    for first in 0..=9 {
        let from = low.saturating_sub(first * 10).min(10);
        let up_to = high.checked_sub(first * 10).map(|rest| rest.min(9));
        let second = up_to.filter(|up_to| from <= *up_to).map(|up_to| class(from, up_to));
        let is_alone = style == Style::Loose && (low..=high).contains(&first);
        let follows = match (second, is_alone) {
            (Some(second), true) => format!("{second}?"),
            (Some(second), false) => second,
            (None, true) => String::new(),
            (None, false) => continue,
        };
        match branches.last_mut() {
            Some((_, last, same)) if *same == follows => *last = first,
            _ => branches.push((first, first, follows)),
        }
    }
    let written = branches.iter().map(|(from, to, follows)| class(*from, *to) + follows);
    let mut all: Vec<String> = written.collect();
    if style == Style::Loose {
        all.push(format!(" [{low}-9]"));
    }
    all.join("|")
}

fn one_of(names: &[&str], style: Style) -> String {
    let names = names.iter().map(|name| if style == Style::Full { name } else { &name[..3] });
    format!("(?i:{})", names.collect::<Vec<_>>().join("|"))
}

/// Returns the time that the parts of a date say, or `None` if there is no such time.
pub(super) fn time<'l>(
    said: impl Iterator<Item = (Part, &'l str)>,
    clock: &Clock<'_>,
) -> Option<Time> {
    let mut parts = Parts::default();
    let (mut is_afternoon, mut is_said) = (None, false);
    for (part, text) in said {
        is_said = true;
        let digits = || text.trim().parse::<i8>().ok();
        match part {
            Year => parts.year = Some(text.parse().ok()?),
            YearOfCentury => parts.year = Some(2000 + text.parse::<i16>().ok()?),
            Month => parts.month = Some(digits()?),
            MonthName => parts.month = Some(month(text)?),
            Day => parts.day = Some(digits()?),
            DayOfYear => parts.day_of_year = Some(text.parse().ok()?),
            Hour | HourOfHalf => parts.hour = digits()?,
            Half => is_afternoon = Some(text.starts_with(['p', 'P'])),
            Minute => parts.minute = digits()?,
            Second => parts.second = digits()?,
            Fraction => parts.micro = micros(text),
            Offset | ZoneName | AnyZone => parts.offset = zone_offset(text),
            Epoch | LongEpoch => return since_1970(text),
            Tai => return tai(text),
            WeekDay => {}
        }
    }
    if let Some(is_afternoon) = is_afternoon {
        parts.hour = parts.hour % 12 + if is_afternoon { 12 } else { 0 };
    }
    if is_said { parts.time(clock) } else { None }
}

fn month(name: &str) -> Option<i8> {
    let begins = |full: &&str| name.get(..3).is_some_and(|it| it.eq_ignore_ascii_case(&full[..3]));
    i8::try_from(MONTHS.iter().position(begins)? + 1).ok()
}

/// Returns the digits after a point as microseconds.
fn micros(digits: &str) -> i32 {
    let known = digits.bytes().chain(std::iter::repeat(b'0')).take(6);
    known.fold(0, |sum, digit| sum * 10 + i32::from(digit - b'0'))
}

/// Reads seconds, milliseconds or microseconds, by how many digits there are.
fn since_1970(text: &str) -> Option<Time> {
    let (whole, after) = text.split_once(['.', ',']).unwrap_or((text, ""));
    let unit = match whole.len() {
        0..=11 => 1_000_000,
        12..=14 => 1_000,
        _ => 1,
    };
    let count: i64 = whole.parse().ok()?;
    let rest = i64::from(micros(after)) * unit / 1_000_000;
    Time::from_micros(count.checked_mul(unit)?.checked_add(rest)?)
}

/// Reads a label of TAI64N: a mark of its kind, fifteen digits of seconds, eight of nanoseconds.
fn tai(text: &str) -> Option<Time> {
    Time::from_seconds(i64::from_str_radix(text.get(2..17)?, 16).ok()?)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_number_is_matched_whole_and_nothing_else_is() {
        for (low, high) in [(0, 23), (1, 12), (1, 31), (0, 59), (0, 60)] {
            for style in [Style::Loose, Style::Padded] {
                let regex = regex::Regex::new(&format!("^(?:{})$", number(low, high, style)));
                let regex = regex.unwrap();
                for value in 0..100_u8 {
                    let is_in = (low..=high).contains(&value);
                    assert_eq!(regex.is_match(&format!("{value:02}")), is_in, "{regex} {value}");
                    let alone = is_in && (style == Style::Loose || value > 9);
                    assert_eq!(regex.is_match(&value.to_string()), alone, "{regex} {value}");
                }
            }
        }
    }
}
