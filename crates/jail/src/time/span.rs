//! Lengths of time: `10m`, `1h`, `7d`.

use std::fmt;

use serde::{Deserialize, Serialize};

use crate::time::SECOND_MICROS;

/// A length of time in whole seconds, at most a hundred years.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(transparent)]
pub struct Span(i64);

/// A hundred years.
const LONGEST_SECONDS: i64 = 36_525 * 86_400;

/// Units and their seconds, the longest first.
const UNITS: [(&str, i64); 5] =
    [("w", 7 * 86_400), ("d", 86_400), ("h", 3600), ("m", 60), ("s", 1)];

impl Span {
    /// One minute.
    pub const MINUTE: Span = Span(60);

    /// A hundred years.
    pub const LONGEST: Span = Span(LONGEST_SECONDS);

    /// Returns the span of this number of seconds.
    pub fn from_seconds(seconds: i64) -> Option<Self> {
        (0..=LONGEST_SECONDS).contains(&seconds).then_some(Self(seconds))
    }

    /// Returns the span times a factor, at most a hundred years.
    pub fn times(self, factor: f64) -> Self {
        #[allow(
            clippy::cast_possible_truncation,
            clippy::cast_precision_loss,
            reason = "at most a hundred years"
        )]
        let seconds = (self.0 as f64 * factor).clamp(0.0, LONGEST_SECONDS as f64) as i64;
        Self(seconds)
    }

    /// Reads `90s`, `10m`, `1h30m`, `7d`, `2w`.
    pub fn parse(text: &str) -> Option<Self> {
        let (mut rest, mut sum) = (text, 0_i64);
        while !rest.is_empty() {
            let digits = rest.find(|found: char| !found.is_ascii_digit())?;
            let (number, after) = rest.split_at_checked(digits)?;
            let end = after.find(|found: char| found.is_ascii_digit()).unwrap_or(after.len());
            let (unit, after) = after.split_at_checked(end)?;
            let (_, seconds) = UNITS.iter().find(|(name, _)| *name == unit)?;
            sum = sum.checked_add(number.parse::<i64>().ok()?.checked_mul(*seconds)?)?;
            rest = after;
        }
        (!text.is_empty()).then(|| Self::from_seconds(sum))?
    }

    /// Returns the seconds.
    pub fn seconds(self) -> i64 {
        self.0
    }

    pub(crate) fn micros(self) -> i64 {
        self.0 * SECOND_MICROS
    }
}

impl fmt::Display for Span {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let mut rest = self.0;
        for (unit, seconds) in UNITS {
            if rest >= seconds {
                write!(f, "{}{unit}", rest / seconds)?;
                rest %= seconds;
            }
        }
        if self.0 == 0 { f.write_str("0s") } else { Ok(()) }
    }
}

#[cfg(test)]
mod tests {
    use super::Span;

    #[test]
    fn a_span_is_read_as_it_is_written() {
        for text in ["90s", "1m30s", "10m", "1h", "7d", "2w"] {
            let read = Span::parse(text).unwrap();
            assert_eq!(Span::parse(&read.to_string()), Some(read), "{text}");
        }
        assert_eq!(Span::parse("1h30m").map(Span::seconds), Some(5400));
        for text in ["", "10", "m", "10 m", "-1h", "1y", "99999999999w", "1hh"] {
            assert_eq!(Span::parse(text), None, "{text}");
        }
    }
}
