//! Values of Fail2Ban's jails: times, zones, actions, names with options.

use std::collections::BTreeMap;

/// The abbreviations of a length of time, by jail.conf(5), with its seconds.
const UNITS: [(&[&str], i64); 7] = [
    (&["", "s", "ss", "se", "sec", "second", "seconds"], 1),
    (&["m", "mm", "mi", "min", "minute", "minutes"], 60),
    (&["h", "hh", "ho", "hou", "hour", "hours"], 3600),
    (&["d", "dd", "da", "day", "days"], 86_400),
    (&["w", "ww", "we", "wee", "week", "weeks"], 604_800),
    (&["mo", "mon", "month", "months"], 2_629_800),
    (&["y", "yy", "ye", "yea", "year", "years"], 31_557_600),
];

/// Reads seconds, or `1d12h`, `10m`, `1 week`, or a product such as `60*10`.
pub(super) fn seconds(text: &str) -> Option<i64> {
    text.split('*').try_fold(1_i64, |product, factor| product.checked_mul(sum(factor)?))
}

fn sum(text: &str) -> Option<i64> {
    let mut sum = 0_i64;
    let mut rest = text.trim();
    while !rest.is_empty() {
        let digits = rest.find(|part: char| !part.is_ascii_digit()).unwrap_or(rest.len());
        let number: i64 = rest[..digits].parse().ok()?;
        rest = rest[digits..].trim_start();
        let letters = rest.find(|part: char| !part.is_ascii_alphabetic()).unwrap_or(rest.len());
        let name = rest[..letters].to_ascii_lowercase();
        let (_, unit) = UNITS.iter().find(|(names, _)| names.contains(&name.as_str()))?;
        sum = sum.checked_add(number.checked_mul(*unit)?)?;
        rest = rest[letters..].trim_start();
    }
    (!text.trim().is_empty()).then_some(sum)
}

/// Returns the zone of `Z`, `UTC`, `UTC+0200` or `GMT-0100`, as a file of jails says it.
pub(super) fn zone(text: &str) -> Option<String> {
    let text = text.to_ascii_uppercase();
    let offset = text.strip_prefix("UTC").or(text.strip_prefix("GMT")).or(text.strip_prefix('Z'));
    let offset = offset.unwrap_or(&text);
    if offset.is_empty() {
        return Some("UTC".to_owned());
    }
    let (sign, digits) =
        offset.split_at_checked(1).filter(|(sign, _)| ["+", "-"].contains(sign))?;
    let digits = digits.replace(':', "");
    let is_number = digits.bytes().all(|byte| byte.is_ascii_digit());
    match digits.len() {
        2 if is_number => Some(format!("{sign}{digits}:00")),
        4 if is_number => Some(format!("{sign}{}:{}", &digits[..2], &digits[2..])),
        _ => None,
    }
}

/// Tells whether each of the multipliers is twice the one before.
pub(super) fn doubles(text: &str) -> bool {
    let numbers: Option<Vec<u64>> = text.split_whitespace().map(|it| it.parse().ok()).collect();
    numbers.is_some_and(|all| {
        all.first() == Some(&1)
            && all.windows(2).all(|pair| pair[0].checked_mul(2) == Some(pair[1]))
    })
}

/// What an action does.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Effect {
    /// Bans in the kernel of this host.
    Ban,
    /// Sends mail or a report.
    Report,
    Unknown,
}

/// An action of a jail.
#[derive(Debug)]
pub(super) struct Action {
    pub(super) name: String,
    pub(super) effect: Effect,
    /// The ports that it is told.
    pub(super) port: Option<String>,
}

/// How the names of actions begin that ban in the kernel of this host, and of those that send mail or
/// reports.
const BANS: [&str; 7] =
    ["firewallcmd", "iptables", "nfguard", "nftables", "route", "shorewall", "ufw"];
const REPORTS: [&str; 10] = [
    "abuseipdb",
    "badips",
    "blocklist_de",
    "complain",
    "dshield",
    "dummy",
    "mail",
    "sendmail",
    "smtp",
    "xarf",
];

/// Reads the actions of a jail, each with its options in brackets.
pub(super) fn actions(text: &str) -> Vec<Action> {
    let mut actions = Vec::new();
    let mut rest = text.trim_start();
    while !rest.is_empty() {
        let end = end_of_item(rest);
        let (name, options) = with_options(&rest[..end]);
        let begins = |list: &[&str]| list.iter().any(|begin| name.starts_with(begin));
        let effect = match () {
            () if begins(&BANS) => Effect::Ban,
            () if begins(&REPORTS) => Effect::Report,
            () => Effect::Unknown,
        };
        // Such an action has no use for ports.
        let port = options.get("port").filter(|_| !name.contains("allports")).cloned();
        actions.push(Action { name: name.to_owned(), effect, port });
        rest = rest[end..].trim_start();
    }
    actions
}

/// Returns where the first item of a list ends: at a blank that is not within brackets or quotes.
fn end_of_item(text: &str) -> usize {
    let (mut depth, mut quote) = (0_usize, None);
    for (at, part) in text.char_indices() {
        match (quote, part) {
            (Some(open), _) => quote = Some(open).filter(|open| *open != part),
            (None, '"' | '\'') if depth > 0 => quote = Some(part),
            (None, '[') => depth += 1,
            (None, ']') => depth = depth.saturating_sub(1),
            (None, blank) if depth == 0 && blank.is_whitespace() => return at,
            _ => {}
        }
    }
    text.len()
}

/// Reads `name[option=value, option="a, b"]`.
pub(super) fn with_options(text: &str) -> (&str, BTreeMap<String, String>) {
    let Some((name, rest)) = text.split_once('[') else { return (text.trim(), BTreeMap::new()) };
    let mut options = BTreeMap::new();
    let mut rest = rest.trim_end();
    rest = rest.strip_suffix(']').unwrap_or(rest).trim();
    while let Some((key, value)) = rest.split_once('=') {
        let value = value.trim_start();
        let quote = value.chars().next().filter(|first| matches!(first, '"' | '\''));
        let (value, after) = match quote {
            Some(quote) => value[1..].split_once(quote).unwrap_or((&value[1..], "")),
            None => value
                .split_once(',')
                .map_or((value, ""), |(value, after)| (value.trim_end(), after)),
        };
        options.insert(key.trim().to_lowercase(), value.trim().to_owned());
        // More options may follow in brackets of their own.
        rest = after.trim_start_matches([',', ' ', '\t', '\n', ']', '[']);
    }
    (name.trim(), options)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn times_are_read_as_the_manual_says() {
        for (text, expected) in [
            ("600", 600),
            ("10m", 600),
            ("1d12h30m", 131_400),
            ("1y 6mo", 31_557_600 + 6 * 2_629_800),
            ("2 weeks 1day", 1_296_000),
            ("60*10", 600),
            ("86400 * 7", 604_800),
            ("1h*2", 7200),
        ] {
            assert_eq!(seconds(text), Some(expected), "{text}");
        }
        for text in ["", "m", "10x", "10 mangos", "1*", "99999999999999999999", "-1", "1.5h"] {
            assert_eq!(seconds(text), None, "{text}");
        }
    }

    #[test]
    fn actions_are_told_apart_by_what_they_do() {
        let text = "iptables[name=SSH, port=\"22,80\", protocol=tcp]\n\
                    sendmail-whois[name=SSH, dest=me@example.com,\n  sender=\"a [b\"]\n\
                    cloudflare iptables-allports[port=ssh]";
        let found: Vec<_> =
            actions(text).into_iter().map(|it| (it.name, it.effect, it.port)).collect();
        let name = str::to_owned;
        assert_eq!(
            found,
            [
                (name("iptables"), Effect::Ban, Some(name("22,80"))),
                (name("sendmail-whois"), Effect::Report, None),
                (name("cloudflare"), Effect::Unknown, None),
                (name("iptables-allports"), Effect::Ban, None),
            ]
        );
    }

    #[test]
    fn zones_and_multipliers_are_read() {
        let expected =
            [("Z", "UTC"), ("utc", "UTC"), ("UTC+0200", "+02:00"), ("GMT-01:30", "-01:30")];
        for (text, zone_text) in expected {
            assert_eq!(zone(text).as_deref(), Some(zone_text));
        }
        assert_eq!((zone("CET"), zone("UTC+2")), (None, None));
        assert!(doubles("1 2 4 8 16") && !doubles("1 5 30 60") && !doubles("1,2"));
    }
}
