//! Text of a ban: its target and its time.

use std::net::IpAddr;
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use nfguard_ban::{Admitted, InvalidTarget, NeverBan, Refused, Target};

/// The target of a ban, as it is written.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum BanTarget {
    /// A lone address. How many bits of an IPv6 address are one source is said elsewhere.
    Address(IpAddr),
    /// A prefix, of whatever length.
    Prefix(Target),
}

impl BanTarget {
    /// Returns the target of a ban, unless the ban would hit a never-ban entry.
    ///
    /// # Errors
    /// The entry that would be hit.
    pub fn admit(self, never: &NeverBan, v6_prefix: u8) -> Result<Admitted, Refused> {
        match self {
            BanTarget::Address(address) => never.admit_source(address, v6_prefix),
            BanTarget::Prefix(target) => never.admit(target),
        }
    }

    /// Returns what [`BanTarget::admit`] may have made of it.
    pub fn may_be_banned_as(self, v6_prefix: u8) -> Vec<Target> {
        let mut targets = match self {
            BanTarget::Address(address) => {
                vec![v6_prefix, 128].into_iter().map(|bits| Target::source(address, bits)).collect()
            }
            BanTarget::Prefix(target) => vec![target],
        };
        targets.dedup();
        targets
    }
}

impl std::str::FromStr for BanTarget {
    type Err = InvalidTarget;

    fn from_str(text: &str) -> Result<BanTarget, InvalidTarget> {
        text.parse().map(BanTarget::Address).or_else(|_| text.parse().map(BanTarget::Prefix))
    }
}

/// Reads how long a ban lasts; `None`: without end. The kernel counts milliseconds, and takes no ban
/// without a length. A number alone is seconds, as Fail2Ban writes them, and a negative one a ban
/// without end.
///
/// # Errors
/// Why it is no such time.
pub fn parse_duration(text: &str) -> Result<Option<Duration>, String> {
    let time = match text.parse::<f64>() {
        Ok(seconds) if seconds < 0.0 => return Ok(None),
        Ok(seconds) => Duration::try_from_secs_f64(seconds).map_err(|error| error.to_string())?,
        Err(_) => humantime::parse_duration(text).map_err(|error| error.to_string())?,
    };
    if time < Duration::from_millis(1) {
        return Err("expected at least 1ms; leave it out for a ban without end".to_owned());
    }
    Ok(Some(time))
}

/// Reads the time at which a ban ends: seconds since 1970, or RFC 3339 with any offset.
///
/// # Errors
/// The text is no such time, or the time is over.
pub fn parse_end(text: &str, now: SystemTime) -> Result<SystemTime, String> {
    let end = match text.parse() {
        Ok(seconds) => Duration::try_from_secs_f64(seconds)
            .ok()
            .and_then(|since| UNIX_EPOCH.checked_add(since)),
        Err(_) => parse_rfc3339(text),
    };
    match end {
        Some(end) if end > now => Ok(end),
        Some(_) => Err(format!("the time {text:?} is over")),
        None => Err(format!("expected 2026-12-24T18:00:00Z or seconds since 1970, not {text:?}")),
    }
}

fn parse_rfc3339(text: &str) -> Option<SystemTime> {
    let text = text.to_ascii_uppercase();
    if text.ends_with('Z') {
        return humantime::parse_rfc3339(&text).ok();
    }
    let (local, offset) = text.split_at_checked(text.len().checked_sub("+00:00".len())?)?;
    let local = humantime::parse_rfc3339(&format!("{local}Z")).ok()?;
    let (hours, minutes) = offset.get(1..)?.split_once(':')?;
    let two_digits = |text: &str| {
        let is_number = text.len() == 2 && text.bytes().all(|byte| byte.is_ascii_digit());
        text.parse::<u64>().ok().filter(|_| is_number)
    };
    let offset_seconds = two_digits(hours)? * 3600 + two_digits(minutes)? * 60;
    match offset.get(..1)? {
        "+" => local.checked_sub(Duration::from_secs(offset_seconds)),
        "-" => local.checked_add(Duration::from_secs(offset_seconds)),
        _ => None,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_end_reads_the_same_in_every_form_and_what_is_over_or_no_time_is_refused() {
        let noon = UNIX_EPOCH + Duration::from_secs(1_700_000_000);
        for text in [
            "1700000000",
            "1700000000.0",
            "2023-11-14T22:13:20Z",
            "2023-11-14t22:13:20z",
            "2023-11-14T23:13:20+01:00",
            "2023-11-14T16:43:20-05:30",
            "2023-11-14T22:13:20.000+00:00",
        ] {
            assert_eq!(parse_end(text, UNIX_EPOCH), Ok(noon), "{text}");
            assert!(parse_end(text, noon).is_err(), "{text} is over");
        }
        for text in [
            "",
            "soon",
            "-1",
            "NaN",
            "1e300",
            "2023-11-14",
            "2023-11-14T22:13:20",
            "2023-02-30T00:00:00Z",
            "2023-11-14T22:13:20+1:00",
            "2023-11-14T22:13:20+01:0x",
            "ä2023-11-14T22:13:20+01:00",
            "\u{e4}01:00",
        ] {
            assert!(parse_end(text, UNIX_EPOCH).is_err(), "{text}");
        }
    }

    #[test]
    fn no_time_at_all_is_no_duration_and_a_negative_one_has_no_end() {
        for text in ["0", "0s", "0.0001", "soon"] {
            assert!(parse_duration(text).is_err(), "{text}");
        }
        assert_eq!(parse_duration("-1"), Ok(None));
        assert_eq!(parse_duration("90s"), parse_duration("90"));
    }
}
