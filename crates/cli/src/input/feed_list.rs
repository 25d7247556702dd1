//! Parser of published lists of addresses.
//!
//! | Form | A line |
//! |---|---|
//! | FireHOL netset, plain lists | `1.2.3.0/24`, `1.2.3.4`, with `#` before comments |
//! | Spamhaus DROP, text | `1.2.3.0/24 ; SBL1` |
//! | Spamhaus DROP, JSON | `{"cidr":"1.2.3.0/24","sblid":"SBL1"}`; the last line describes the list |
//! | ranges | `1.2.3.0-1.2.3.255` |
//! | DShield | first address, last address, prefix length, more, with tabs between |

use std::net::IpAddr;

use ipnetwork::IpNetwork;
use nfguard_ban::Feed;
use serde_json::Value;

/// Returns all entries, and the problem of each bad line with its number from 1.
pub(crate) fn parse(text: &str) -> (Feed, Vec<String>) {
    let (mut feed, mut bad) = (Feed::default(), Vec::new());
    let text = text.strip_prefix('\u{feff}').unwrap_or(text);
    for (number, line) in (1..).zip(text.lines()) {
        if let Err(problem) = entry(line.trim(), &mut feed) {
            bad.push(format!("line {number}: {problem}"));
        }
    }
    (feed, bad)
}

fn entry(line: &str, feed: &mut Feed) -> Result<(), String> {
    if line.starts_with('{') {
        return object(line, feed);
    }
    let entry = line.split(['#', ';']).next().unwrap_or_default();
    let mut words = entry.split([' ', '\t', ',', '-']).filter(|word| !word.is_empty());
    let Some(first) = words.next() else { return Ok(()) };
    let last: Option<IpAddr> = words.next().and_then(|word| word.parse().ok());
    let rest = entry.trim().strip_prefix(first).unwrap_or_default().trim_start();
    match (first.parse::<IpAddr>(), last) {
        (Ok(first), Some(last)) if rest.starts_with('-') || is_block(first, last, words.next()) => {
            feed.add_range(first, last).map_err(|error| error.to_string())
        }
        // As a range, the two addresses may cover half of the internet.
        (Ok(_), Some(_)) => {
            Err(format!("{entry:?} has two addresses; expected one, or a range: 1.2.3.4-1.2.3.9"))
        }
        // The rest of the line is a comment, unless a dash shows an incomplete range.
        _ if entry.trim().strip_prefix(first).is_some_and(|rest| rest.starts_with('-')) => {
            Err(expected(entry))
        }
        _ => network(first, feed),
    }
}

/// Tells whether the addresses are the ends of a prefix of this length, as in DShield's list.
fn is_block(first: IpAddr, last: IpAddr, bits: Option<&str>) -> bool {
    let network = bits.and_then(|bits| IpNetwork::new(first, bits.parse().ok()?).ok());
    network.is_some_and(|block| (block.network(), block.broadcast()) == (first, last))
}

fn object(line: &str, feed: &mut Feed) -> Result<(), String> {
    let value: Value = serde_json::from_str(line).map_err(|error| error.to_string())?;
    match (value["cidr"].as_str(), value["type"].as_str()) {
        (Some(cidr), _) => network(cidr, feed),
        (None, Some("metadata")) => Ok(()),
        (None, _) => Err("expected an object with the key \"cidr\"".to_owned()),
    }
}

fn network(text: &str, feed: &mut Feed) -> Result<(), String> {
    let network: IpNetwork = text.parse().map_err(|_| expected(text))?;
    feed.add(network);
    Ok(())
}

fn expected(text: &str) -> String {
    let text: String = text.chars().take(60).collect();
    format!(
        "{text:?} is not an address, prefix or range; expected 1.2.3.4, 1.2.3.0/24 or 2a00::/32"
    )
}

#[cfg(test)]
mod tests {
    use nfguard_ban::NeverBan;

    use super::*;

    fn ranges(text: &str) -> u64 {
        let (feed, bad) = parse(text);
        assert_eq!(bad, [""; 0], "{text}");
        feed.clean(&NeverBan::default()).ranges()
    }

    #[test]
    fn each_published_form_is_read() {
        for (form, text) in [
            ("netset", "#\n# level 1\n#\n1.2.3.0/24\r\n1.2.5.4\n"),
            ("drop text", "; DROP list\n1.2.3.0/24 ; SBL1\n1.2.5.0/24 ; SBL2\n"),
            (
                "drop JSON",
                "{\"cidr\":\"1.2.3.0/24\",\"sblid\":\"SBL1\",\"rir\":\"apnic\"}\n\
                           {\"cidr\":\"2a00:1::/32\"}\n{\"type\":\"metadata\",\"size\":2}\n",
            ),
            ("ranges", "\u{feff}1.2.3.0-1.2.3.9\n1.2.5.0 - 1.2.5.9 # why\n"),
            ("DShield", "1.2.3.0\t1.2.3.255\t24\t900\tNAME\n1.2.5.0\t1.2.5.255\t24\t1\tX-Y\n"),
            ("columns", "1.2.3.4,2026-01-01,scan\n1.2.5.4\t12\n"),
        ] {
            assert_eq!(ranges(text), 2, "{form}");
        }
    }

    #[test]
    fn two_addresses_in_a_line_are_no_range_unless_it_says_so() {
        for line in
            ["1.2.3.4 5.6.7.8", "1.2.3.4,5.6.7.8,443", "1.2.3.4\t5.6.7.8\t22", ",1.2.3.4,::1"]
        {
            let (feed, bad) = parse(line);
            assert_eq!((feed, bad.len()), (Feed::default(), 1), "{line}");
        }
    }

    #[test]
    fn a_page_that_is_no_list_has_a_problem_in_each_line() {
        let (_, bad) = parse("<!DOCTYPE html>\n<html>\n404 Not Found\n1.2.3.300\n1.2.3.4-x\n{}\n");
        let numbers: Vec<_> =
            bad.iter().map(|line| line.split(':').next().expect("a line")).collect();
        assert_eq!(numbers, ["line 1", "line 2", "line 3", "line 4", "line 5", "line 6"]);
    }
}
