//! The forms in which logs write times.

use crate::time::{Civil, SECOND_MICROS, Time, Zone};

const MONTHS: [&[u8; 3]; 12] = [
    b"Jan", b"Feb", b"Mar", b"Apr", b"May", b"Jun", b"Jul", b"Aug", b"Sep", b"Oct", b"Nov", b"Dec",
];

/// Reads `18/Nov/2026:21:00:00 +0000`, the form of access logs.
pub fn clf(text: &[u8]) -> Option<Time> {
    let mut cursor = Cursor(text);
    let day = cursor.digits(2)?;
    cursor.byte(b'/')?;
    let month = cursor.month()?;
    cursor.byte(b'/')?;
    let year = cursor.digits(4)?;
    cursor.byte(b':')?;
    let civil = cursor.time_of_day(year, month, day)?;
    cursor.byte(b' ')?;
    civil.at_offset(offset(cursor.0)?)
}

/// Reads RFC 3339 and its neighbours: `2026-11-18T21:00:00.5Z`, with a space or with slashes, with a
/// comma before the fraction. Without an offset it is in `zone`.
pub fn rfc3339(text: &[u8], zone: &Zone) -> Option<Time> {
    let (time, rest) = dated(text, zone)?;
    rest.is_empty().then_some(time)
}

/// Reads seconds since 1970, with a fraction or without, such as `1795035600.123`.
pub fn epoch(text: &[u8]) -> Option<Time> {
    let (time, rest) = epoch_prefix(text)?;
    rest.is_empty().then_some(time)
}

/// The time at the beginning of a line.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Leading<'a> {
    /// The time.
    pub time: Time,
    /// The line has its year.
    pub has_year: bool,
    /// The rest of the line.
    pub rest: &'a [u8],
}

/// Reads the time at the beginning of a line.
///
/// `known` is a time near which the line was written. It decides the year of a time without one.
pub fn leading<'a>(line: &'a [u8], zone: &Zone, known: Option<Time>) -> Option<Leading<'a>> {
    let bracketed = line.strip_prefix(b"[");
    let text = bracketed.unwrap_or(line);
    let with_year = dated(text, zone)
        .or_else(|| clf_prefix(text))
        .or_else(|| ctime(text, zone))
        .or_else(|| epoch_prefix(text));
    let has_year = with_year.is_some();
    let (time, rest) = with_year.or_else(|| syslog(text, zone, known))?;
    let rest = if bracketed.is_some() { rest.strip_prefix(b"]")? } else { rest };
    let is_end = rest.first().is_none_or(|next| !next.is_ascii_alphanumeric());
    let rest = rest.strip_prefix(b" ").unwrap_or(rest);
    is_end.then_some(Leading { time, has_year, rest })
}

fn dated<'a>(text: &'a [u8], zone: &Zone) -> Option<(Time, &'a [u8])> {
    let mut cursor = Cursor(text);
    let year = cursor.digits(4)?;
    let separator = *cursor.0.first().filter(|found| matches!(found, b'-' | b'/'))?;
    cursor.byte(separator)?;
    let month = cursor.digits(2)?;
    cursor.byte(separator)?;
    let day = cursor.digits(2)?;
    cursor.byte(b'T').or_else(|| cursor.byte(b't')).or_else(|| cursor.byte(b' '))?;
    let civil = cursor.time_of_day(year, month, day)?;
    if let Some(rest) = cursor.0.strip_prefix(b"Z").or_else(|| cursor.0.strip_prefix(b"z")) {
        return Some((civil.at_offset(0)?, rest));
    }
    let sign = cursor.0.strip_prefix(b" ").unwrap_or(cursor.0);
    if matches!(sign.first(), Some(b'+' | b'-')) {
        let has_colon = sign.get(3) == Some(&b':');
        let (text, rest) = sign.split_at_checked(if has_colon { 6 } else { 5 })?;
        if let Some(seconds) = offset(text) {
            return Some((civil.at_offset(seconds)?, rest));
        }
    }
    Some((civil.in_zone(zone)?, cursor.0))
}

fn clf_prefix(text: &[u8]) -> Option<(Time, &[u8])> {
    let (stamp, rest) = text.split_at_checked(26)?;
    Some((clf(stamp)?, rest))
}

/// Reads `Nov 18 21:00:00`.
fn syslog<'a>(text: &'a [u8], zone: &Zone, known: Option<Time>) -> Option<(Time, &'a [u8])> {
    let mut cursor = Cursor(text);
    let month = cursor.month()?;
    cursor.byte(b' ')?;
    let day = cursor.day_of_month()?;
    cursor.byte(b' ')?;
    // A year that has 29 February, until the year is known.
    let civil = cursor.time_of_day(2000, month, day)?;
    civil.at_offset(0)?;
    Some((civil.in_nearest_year(zone, known)?, cursor.0))
}

/// Reads `Wed Nov 18 21:00:00.123456 2026`.
fn ctime<'a>(text: &'a [u8], zone: &Zone) -> Option<(Time, &'a [u8])> {
    const WEEK_DAYS: [&[u8; 3]; 7] = [b"Mon", b"Tue", b"Wed", b"Thu", b"Fri", b"Sat", b"Sun"];
    let (name, rest) = text.split_first_chunk::<3>()?;
    if !WEEK_DAYS.contains(&name) {
        return None;
    }
    let mut cursor = Cursor(rest);
    cursor.byte(b' ')?;
    let month = cursor.month()?;
    cursor.byte(b' ')?;
    let day = cursor.day_of_month()?;
    cursor.byte(b' ')?;
    let civil = cursor.time_of_day(2000, month, day)?;
    cursor.byte(b' ')?;
    let year = i16::try_from(cursor.digits(4)?).ok()?;
    Some((Civil { year, ..civil }.in_zone(zone)?, cursor.0))
}

fn epoch_prefix(text: &[u8]) -> Option<(Time, &[u8])> {
    let digits = text.iter().take_while(|byte| byte.is_ascii_digit()).count();
    // Seconds from 2001 to 2286; a shorter number is something else.
    if digits != 10 {
        return None;
    }
    let mut cursor = Cursor(text);
    let seconds = i64::from(cursor.digits(5)?) * 100_000 + i64::from(cursor.digits(5)?);
    let micro = i64::from(cursor.fraction()?);
    Some((Time::from_micros(seconds * SECOND_MICROS + micro)?, cursor.0))
}

/// Reads `+02:00` or `+0200` as seconds.
pub(super) fn offset(text: &[u8]) -> Option<i32> {
    let (sign, rest) = match text.split_first()? {
        (b'+', rest) => (1, rest),
        (b'-', rest) => (-1, rest),
        _ => return None,
    };
    let mut cursor = Cursor(rest);
    let hours = cursor.digits(2)?;
    let _ = cursor.byte(b':');
    let minutes = cursor.digits(2)?;
    (cursor.0.is_empty() && hours < 24 && minutes < 60)
        .then_some(sign * (hours * 3600 + minutes * 60))
}

/// What is left to read.
struct Cursor<'a>(&'a [u8]);

impl Cursor<'_> {
    fn byte(&mut self, expected: u8) -> Option<()> {
        let (first, rest) = self.0.split_first()?;
        (*first == expected).then(|| self.0 = rest)
    }

    fn digits(&mut self, count: usize) -> Option<i32> {
        let (text, rest) = self.0.split_at_checked(count)?;
        let mut number = 0_i32;
        for byte in text {
            number = number * 10 + i32::from(byte.is_ascii_digit().then(|| byte - b'0')?);
        }
        self.0 = rest;
        Some(number)
    }

    /// Reads `18`, ` 8` or `8`.
    fn day_of_month(&mut self) -> Option<i32> {
        let _ = self.byte(b' ');
        self.digits(2).or_else(|| self.digits(1))
    }

    fn month(&mut self) -> Option<i32> {
        let (name, rest) = self.0.split_first_chunk::<3>()?;
        let at = MONTHS.iter().position(|month| *month == name)?;
        self.0 = rest;
        i32::try_from(at + 1).ok()
    }

    /// Reads `21:00:00`, with a fraction or without.
    fn time_of_day(&mut self, year: i32, month: i32, day: i32) -> Option<Civil> {
        let hour = self.digits(2)?;
        self.byte(b':')?;
        let minute = self.digits(2)?;
        self.byte(b':')?;
        let second = self.digits(2)?;
        let micro = self.fraction()?;
        let small = |number: i32| i8::try_from(number).ok();
        Some(Civil {
            year: i16::try_from(year).ok()?,
            month: small(month)?,
            day: small(day)?,
            hour: small(hour)?,
            minute: small(minute)?,
            second: small(second)?,
            micro,
        })
    }

    /// Reads `.123` or `,123` as microseconds, and nothing as 0.
    fn fraction(&mut self) -> Option<i32> {
        let [b'.' | b',', rest @ ..] = self.0 else { return Some(0) };
        let digits = rest.iter().take_while(|byte| byte.is_ascii_digit()).count();
        if digits == 0 || digits > 12 {
            return None;
        }
        let (text, rest) = rest.split_at_checked(digits)?;
        let mut micro = 0;
        for at in 0..6 {
            micro = micro * 10 + text.get(at).map_or(0, |byte| i32::from(byte - b'0'));
        }
        self.0 = rest;
        Some(micro)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn first(line: &str, zone: &str, known: Option<&str>) -> Option<(String, String)> {
        let known = known.map(|text| rfc3339(text.as_bytes(), &Zone::UTC).unwrap());
        let zone = Zone::parse(zone).unwrap();
        let read = leading(line.as_bytes(), &zone, known)?;
        Some((read.time.to_string(), String::from_utf8(read.rest.to_vec()).unwrap()))
    }

    #[test]
    fn a_time_is_read_in_each_form() {
        for (line, zone, time) in [
            ("2026-11-18T22:00:00+01:00 x", "UTC", "2026-11-18T21:00:00Z"),
            ("2026-11-18T21:00:00.000000001Z x", "UTC", "2026-11-18T21:00:00Z"),
            ("2026-11-18 22:00:00,250 x", "Europe/Berlin", "2026-11-18T21:00:00.25Z"),
            ("2026/07/18 23:00:00 x", "Europe/Berlin", "2026-07-18T21:00:00Z"),
            ("[18/Nov/2026:22:00:00 +0100] x", "UTC", "2026-11-18T21:00:00Z"),
            ("[Wed Nov 18 21:00:00.5 2026] x", "UTC", "2026-11-18T21:00:00.5Z"),
            ("Nov 18 21:00:00 x", "UTC", "2026-11-18T21:00:00Z"),
            ("1795035600.5 x", "UTC", "2026-11-18T21:00:00.5Z"),
            ("[1795035600] x", "+02:00", "2026-11-18T21:00:00Z"),
        ] {
            let read = first(line, zone, Some("2026-11-19T00:00:00Z"));
            assert_eq!(read, Some((time.to_owned(), "x".to_owned())), "{line}");
        }
        for line in ["Nov 31 21:00:00 x", "2026-02-29T21:00:00Z x", "2026-11-18T24:00:00Z", "x"] {
            assert_eq!(first(line, "UTC", None), None, "{line}");
        }
    }

    #[test]
    fn a_time_without_a_year_is_near_the_one_that_is_known() {
        let near = |line, known| first(line, "UTC", Some(known)).unwrap().0;
        assert_eq!(near("Dec 31 23:59:59 x", "2027-01-01T00:00:05Z"), "2026-12-31T23:59:59Z");
        assert_eq!(near("Jan  1 00:00:05 x", "2026-12-31T23:59:59Z"), "2027-01-01T00:00:05Z");
        assert_eq!(near("Feb 29 12:00:00 x", "2026-12-31T23:59:59Z"), "2028-02-29T12:00:00Z");
        assert_eq!(first("Feb 29 12:00:00 x", "UTC", None).unwrap().0, "2000-02-29T12:00:00Z");
    }
}
