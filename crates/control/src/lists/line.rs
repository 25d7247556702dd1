//! The forms of a single line.

use nfguard_ban::{Addresses, InvalidTarget};

use super::is_comment;

/// The words that begin a line of Tor's exit list.
const TOR: [&str; 4] = ["ExitNode", "Published", "LastStatus", "ExitAddress"];
/// Tells whether this is the length of a prefix that stands apart from its address.
pub(super) fn is_length(text: &str) -> bool {
    text.strip_prefix('/').is_some_and(|length| length.parse::<u8>().is_ok())
}

/// Returns a line without its comment. After `;`, an address or the length of a prefix would be a
/// second column.
pub(super) fn value(line: &str) -> &str {
    if is_comment(line) {
        return "";
    }
    let line = line.split('#').next().unwrap_or_default();
    let (value, comment) = line.split_once(';').unwrap_or((line, ""));
    let is_column = comment.split(';').map(str::trim).any(|field| {
        field.parse::<Addresses>().is_ok() || is_length(field) || field.parse::<u8>().is_ok()
    });
    if is_column { line.trim() } else { value.trim() }
}

/// Tells whether a line is one of Tor's exit list.
pub(super) fn is_tor(line: &str) -> bool {
    let word = line.split_whitespace().next().unwrap_or_default();
    TOR.contains(&word)
}

/// Reads a line of sshguard: time, service, kind of address, address.
pub(super) fn sshguard(line: &str) -> Option<(u64, &str)> {
    let fields: Vec<&str> = line.split('|').map(str::trim).collect();
    let [time, service, "4" | "6", address] = fields[..] else { return None };
    service.parse::<u32>().ok()?;
    Some((time.parse().ok()?, address))
}

/// Reads a line of a DAT file, whose numbers have three digits each: the range and the access level.
pub(super) fn dat(line: &str) -> Option<(String, u32)> {
    let mut fields = line.splitn(3, ',').map(str::trim);
    let (range, level) = (fields.next()?, fields.next()?);
    let (first, last) = range.split_once('-')?;
    let padded = |text: &str| {
        let numbers: Vec<&str> = text.trim().split('.').collect();
        let is_padded = |text: &&str| text.len() == 3 && text.bytes().all(|it| it.is_ascii_digit());
        if numbers.len() != 4 || !numbers.iter().all(is_padded) {
            return None;
        }
        let plain = |text: &&str| match text.trim_start_matches('0') {
            "" => "0".to_owned(),
            number => number.to_owned(),
        };
        Some(numbers.iter().map(plain).collect::<Vec<_>>().join("."))
    };
    Some((format!("{}-{}", padded(first)?, padded(last)?), level.parse().ok()?))
}

/// Reads a range with a name before it, in which there may be colons.
pub(super) fn p2p(line: &str) -> Option<Result<Addresses, InvalidTarget>> {
    let (_, range) = line.rsplit_once(':')?;
    let (first, last) = range.split_once('-')?;
    let is_v4 = |text: &str| text.trim().parse::<std::net::Ipv4Addr>().is_ok();
    (is_v4(first) && is_v4(last)).then(|| range.parse())
}
