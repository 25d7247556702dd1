//! Text of a ban: its ports and its time. Addresses are read by [`nfguard_ban::Addresses`].
//!
//! The command line, lists, the socket and saved files all read with these functions, so a text means
//! the same in each, and what is refused is refused with the same words.

use std::time::{Duration, SystemTime, UNIX_EPOCH};

use nfguard_api::message::Time;
use nfguard_ban::{Addresses, Port, Protocol, Target};
use nfguard_policy::service_ports;

/// The longest list of ports; a ban is made for each.
const MAX_PORTS: usize = 128;

/// The number that Fail2Ban writes for a ban without end.
const WITHOUT_END: &str = "-1";

/// Reads the ports that a ban closes, as the jails of Fail2Ban name them: `443`, `443/tcp`,
/// `http,https`, `8000:8010`, `8000-8010`. Without a protocol a number is of TCP and UDP, and a service
/// of those that it has. `any`, `all` and `0:65535` are no restriction: `None`.
///
/// # Errors
/// Why these are no such ports.
pub fn parse_ports(text: &str) -> Result<Vec<Option<Port>>, String> {
    let mut all = Vec::new();
    for item in text.split(',') {
        let Some(ports) = ports_of(item.trim()) else {
            let text: String = text.chars().take(80).collect();
            return Err(format!(
                "{text:?} is no port; expected 443, 443/tcp, 8000-8010, a service such as https, \
                 some of these with commas, or any"
            ));
        };
        let Some(ports) = ports else { return Ok(vec![None]) };
        all.extend(ports);
        if all.len() > 2 * MAX_PORTS {
            break;
        }
    }
    all.sort_unstable();
    all.dedup();
    if all.len() > MAX_PORTS {
        return Err(format!(
            "{text:?} are more than {MAX_PORTS} ports, counting TCP and UDP; expected fewer, or any"
        ));
    }
    Ok(all.into_iter().map(Some).collect())
}

/// Returns the ports of one item; `Some(None)`: all.
fn ports_of(item: &str) -> Option<Option<Vec<Port>>> {
    if ["any", "all"].contains(&item) {
        return Some(None);
    }
    let (ports, protocols) = match item.split_once('/') {
        Some((ports, "tcp")) => (ports, &[Protocol::Tcp][..]),
        Some((ports, "udp")) => (ports, &[Protocol::Udp][..]),
        Some(_) => return None,
        None => (item, &[Protocol::Tcp, Protocol::Udp][..]),
    };
    let with = |number, protocol: &Protocol| Port { protocol: *protocol, number };
    if let (tcp @ Some(_), udp) | (tcp, udp @ Some(_)) = service_ports(ports) {
        let number = |protocol: &Protocol| match protocol {
            Protocol::Tcp => tcp,
            Protocol::Udp => udp,
        };
        let found: Vec<Port> =
            protocols.iter().filter_map(|it| number(it).map(|number| with(number, it))).collect();
        return (!found.is_empty()).then_some(Some(found));
    }
    let number = |text: &str| {
        let is_number = !text.is_empty() && text.bytes().all(|byte| byte.is_ascii_digit());
        text.parse::<u16>()
            .ok()
            .filter(|_| is_number && (text.len() == 1 || !text.starts_with('0')))
    };
    let (first, last) = match ports.split_once([':', '-']) {
        Some((first, last)) => (number(first)?, number(last)?),
        None => (number(ports)?, number(ports)?),
    };
    if first <= 1 && last == u16::MAX && protocols.len() == 2 {
        return Some(None);
    }
    if first == 0 || first > last {
        return None;
    }
    // More than are taken are told from the first ones.
    let numbers = (first..=last).take(MAX_PORTS + 1);
    let all = numbers.flat_map(|number| protocols.iter().map(move |it| with(number, it)));
    Some(Some(all.collect()))
}

/// Reads how long a ban lasts; `None`: without end, which is written `-1`, as Fail2Ban does. A number
/// alone is seconds. `0` and other negative times are refused: they are no time, and no ban without
/// end.
///
/// # Errors
/// Why it is no such time.
pub fn parse_duration(text: &str) -> Result<Option<Duration>, String> {
    let text = text.trim();
    if text == WITHOUT_END {
        return Ok(None);
    }
    let is_number = text.bytes().all(|byte| byte.is_ascii_digit() || byte == b'.');
    let time = match text.parse::<f64>() {
        Ok(seconds) if is_number => Duration::try_from_secs_f64(seconds).ok(),
        _ => humantime::parse_duration(text).ok(),
    };
    // The kernel counts milliseconds.
    time.filter(|time| *time >= Duration::from_millis(1)).map(Some).ok_or_else(|| {
        let text: String = text.chars().take(80).collect();
        format!(
            "{text:?} is no duration; expected 90s, 10m, 1h30m, 7d or seconds, at least 1ms, or -1 for \
             a ban without end"
        )
    })
}

/// Returns the targets that a ban of these addresses may have: of one IPv6 address, its network or the
/// address alone.
#[must_use]
pub fn may_be_banned_as(addresses: Addresses, v6_prefix: u8) -> Vec<Target> {
    let mut targets = addresses.targets(v6_prefix);
    if let Addresses::One(address) = addresses {
        targets.push(Target::source(address, 128));
    }
    targets.dedup();
    targets
}

/// Reads the time at which a ban ends: seconds since 1970, or RFC 3339 with any offset.
///
/// # Errors
/// The text is no such time, or the time is over.
pub fn parse_end(text: &str, now: SystemTime) -> Result<SystemTime, String> {
    let is_number = text.bytes().all(|byte| byte.is_ascii_digit() || byte == b'.');
    let end = match text.parse() {
        Ok(seconds) if is_number => Duration::try_from_secs_f64(seconds)
            .ok()
            .and_then(|since| UNIX_EPOCH.checked_add(since)),
        _ => parse_rfc3339(text),
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

/// Returns the text of a time that JSON has as a number or as text: both have one parser.
pub(crate) fn time_text(time: &Time) -> String {
    match time {
        Time::Number(number) => number.to_string(),
        Time::Text(text) => text.clone(),
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
    fn a_duration_is_a_time_or_without_end_and_everything_else_is_refused_with_one_text() {
        let seconds = |seconds: f64| Ok(Some(Duration::from_secs_f64(seconds)));
        for (text, duration) in [
            ("-1", Ok(None)),
            ("90", seconds(90.0)),
            ("90s", seconds(90.0)),
            ("0.5", seconds(0.5)),
            ("1h30m", seconds(5400.0)),
            ("1h 30m", seconds(5400.0)),
            ("10m", seconds(600.0)),
            ("1.5h", seconds(5400.0)),
            ("1w", seconds(604_800.0)),
            ("10000000000000000000", seconds(1e19)),
        ] {
            assert_eq!(parse_duration(text), duration, "{text}");
        }
        for text in [
            "0",
            "0s",
            "0.0001",
            "-0",
            "-2",
            "-1s",
            "-1.5",
            "+5",
            "1e3",
            "1e30",
            "inf",
            "NaN",
            "soon",
            "",
            "10 000",
            "99999999999999999999999999",
        ] {
            let error = parse_duration(text).expect_err(text);
            assert!(error.contains("is no duration; expected 90s"), "{error}");
        }
    }

    #[test]
    fn ports_are_read_as_jails_of_fail2ban_name_them() {
        let read = |text: &str| {
            parse_ports(text).map(|ports| {
                let texts =
                    ports.iter().map(|port| port.map_or("all".to_owned(), |it| it.to_string()));
                texts.collect::<Vec<_>>().join(" ")
            })
        };
        for (text, ports) in [
            ("443/tcp", "443/tcp"),
            ("443", "443/tcp 443/udp"),
            ("http,https/tcp", "80/tcp 443/tcp"),
            ("ssh", "22/tcp"),
            ("ssh/tcp,22/tcp", "22/tcp"),
            ("8000:8001/udp", "8000/udp 8001/udp"),
            ("8000-8001/udp", "8000/udp 8001/udp"),
            ("0:65535", "all"),
            ("1-65535", "all"),
            ("any", "all"),
            ("http,all", "all"),
        ] {
            assert_eq!(read(text), Ok(ports.to_owned()), "{text}");
        }
        for text in [
            "",
            ",",
            "0",
            "0/tcp",
            "70000",
            "443/sctp",
            "nothing",
            "ssh/udp",
            "80:79",
            "http,",
            "080",
            "+80",
            "80:",
            "-80",
            "443/",
            "1:65535/tcp",
            "1000:2000",
        ] {
            let error = read(text).expect_err(text);
            assert!(
                error.contains("is no port; expected 443") || error.contains("more than 128"),
                "{error}"
            );
        }
    }

    proptest::proptest! {
        #[test]
        fn no_text_makes_a_reader_panic(text in ".{0,30}|[0-9a-z:,./-]{0,30}") {
            let _ = (parse_duration(&text), parse_end(&text, UNIX_EPOCH));
            if let Ok(ports) = parse_ports(&text) {
                let written: Vec<_> = ports.iter().flatten().map(ToString::to_string).collect();
                if !written.is_empty() {
                    proptest::prop_assert_eq!(parse_ports(&written.join(",")), Ok(ports));
                }
            }
        }
    }
}
