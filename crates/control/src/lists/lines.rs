//! Lists with an entry a line.
//!
//! | Form | A line |
//! |---|---|
//! | plain lists, FireHOL netset and ipset files | `192.0.2.0/24`, `192.0.2.4`, with `#` before comments |
//! | Spamhaus DROP, text | `192.0.2.0/24 ; SBL1` |
//! | ranges | `192.0.2.0-192.0.2.255` |
//! | P2P | `a name:192.0.2.0-192.0.2.255` |
//! | DAT of eMule | `192.000.002.000 - 192.000.002.255 , 000 , a name` |
//! | exit list of Tor | `ExitAddress 192.0.2.4 2026-01-01 00:00:00` |
//! | blacklist of sshguard | `1764450000|100|4|192.0.2.4` |
//! | mixed with bans of ours | `{"target": "192.0.2.4", "for": "1h"}` |
//!
//! Lines with several columns are a [`table`].

use nfguard_ban::Addresses;

use super::line::{dat, is_length, is_tor, p2p, sshguard, value};
use super::{At, Details, Reader, ban, cut, table};

/// The lowest access level of a DAT file that lets an address in.
const DAT_ALLOWED: u32 = 128;

pub(super) fn read(reader: &mut Reader<'_>, text: &str) -> Result<String, String> {
    if let Some(layout) = table::Layout::of(text, reader.options)? {
        return Ok(table::read(reader, text, &layout));
    }
    let mut form = "";
    for (at, line) in (1..).map(At::Line).zip(text.lines().map(str::trim)) {
        let one = line_form(reader, at, line);
        if form.is_empty() || form == PLAIN {
            form = if one.is_empty() { form } else { one };
        }
    }
    Ok(form.to_owned())
}

const PLAIN: &str = "addresses, prefixes or ranges, one a line";

/// Reads a line, and returns its form; empty if the line says nothing.
fn line_form(reader: &mut Reader<'_>, at: At, line: &str) -> &'static str {
    // Nearly all lines of a long list.
    if let Ok(addresses) = line.parse::<Addresses>() {
        reader.entry(at, addresses, None);
        return PLAIN;
    }
    if line.starts_with('{') {
        ban::read_line(reader, at, line);
        return "bans in JSON, one a line";
    }
    let word = value(line);
    if word.is_empty() {
        return "";
    }
    if is_tor(word) {
        let mut words = word.split_whitespace().skip(1);
        if word.starts_with("ExitAddress") {
            reader.addresses(at, words.next().unwrap_or_default(), None);
        }
        return "exit list of Tor";
    }
    if let Some((created_at, address)) = sshguard(word) {
        let details = Details {
            duration: Some(None),
            source: Some("sshguard".to_owned()),
            reason: Some("on sshguard's blacklist".to_owned()),
            created_at: Some(created_at),
            ..Details::default()
        };
        reader.addresses(at, address, Some(details));
        return "blacklist of sshguard";
    }
    if let Some((range, level)) = dat(line) {
        match level {
            DAT_ALLOWED.. => reader.leave_out("ranges that the list lets in"),
            _ => reader.addresses(at, &range, None),
        }
        return "DAT file of eMule";
    }
    match p2p(line) {
        Some(Ok(addresses)) => {
            reader.entry(at, addresses, None);
            "ranges with names (P2P)"
        }
        Some(Err(error)) => {
            reader.bad(at, error);
            "ranges with names (P2P)"
        }
        None => {
            match one_value(word) {
                Ok(text) => reader.addresses(at, text, None),
                Err(problem) => reader.bad(at, problem),
            }
            PLAIN
        }
    }
}

/// Returns the first word of a line whose other words are a remark.
fn one_value(line: &str) -> Result<&str, String> {
    if line.parse::<Addresses>().is_ok() {
        return Ok(line);
    }
    let mut words = line.split([' ', '\t', ',', ';']).filter(|word| !word.is_empty());
    let first = words.next().unwrap_or_default();
    let rest = line.strip_prefix(first).unwrap_or_default().trim_start();
    // A dash shows a range that is incomplete, and a slash the length of a prefix.
    let goes_on = rest.starts_with('-') || words.clone().any(is_length);
    if first.parse::<Addresses>().is_err() || goes_on {
        return Ok(line);
    }
    match words.find(|word| word.parse::<Addresses>().is_ok()) {
        Some(_) => Err(format!(
            "{:?} has two addresses; expected one, or a range: 192.0.2.1-192.0.2.9",
            cut(line)
        )),
        None => Ok(first),
    }
}
