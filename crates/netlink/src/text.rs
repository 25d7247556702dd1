//! A table in nft's own language, as text that `nft -f` loads and people read.

mod rule;

use std::fmt::Write as _;
use std::net::{Ipv4Addr, Ipv6Addr};
use std::time::Duration;

use crate::comment::one_line;
use crate::ip_version::IpVersion;
use crate::model::{Base, Chain, ChainPolicy, CtHelper, Element, Hook, Key, KeyType, Set, Table};
use crate::protocol;
use crate::symbols::{ICMP_TYPES, ICMPV6_TYPES};

pub use rule::rule;

/// Returns the whole table as `nft list table` prints it.
#[must_use]
pub fn table(table: &Table) -> String {
    let mut out = format!("table inet {} {{\n", table.name);
    let mut first = true;
    let mut block = |out: &mut String, head: String, lines: Vec<String>| {
        if !std::mem::take(&mut first) {
            out.push('\n');
        }
        let _ = writeln!(out, "\t{} {{", one_line(&head));
        for line in lines {
            let _ = writeln!(out, "\t\t{}", one_line(&line));
        }
        out.push_str("\t}\n");
    };
    if table.dormant {
        out.push_str("\tflags dormant\n");
    }
    if let Some(comment) = &table.comment {
        let _ = writeln!(out, "\tcomment {}", quoted(comment));
    }
    for counter in &table.counters {
        let comment = counter.comment.as_deref().map(comment_line);
        let lines = comment.into_iter().chain(["packets 0 bytes 0".to_owned()]).collect();
        block(&mut out, format!("counter {}", counter.name), lines);
    }
    for helper in &table.helpers {
        block(&mut out, format!("ct helper {}", helper.name), helper_lines(helper));
    }
    for set in &table.sets {
        block(&mut out, format!("set {}", set.name), set_lines(set));
    }
    for chain in &table.chains {
        let lines = chain_lines(chain).into_iter().chain(chain.rules.iter().map(rule)).collect();
        block(&mut out, format!("chain {}", chain.name), lines);
    }
    out.push_str("}\n");
    out
}

/// Returns the properties of a chain in one line.
#[must_use]
pub fn chain_head(chain: &Chain) -> String {
    chain_lines(chain).join("; ").replace(";;", ";")
}

/// Returns the properties of a set in one line, without its elements.
#[must_use]
pub fn set_head(set: &Set) -> String {
    set_lines(&Set { elements: Vec::new(), ..set.clone() }).join("; ")
}

/// Returns an element as `nft add element` takes it. The key's type is not known, so its length
/// decides.
pub(crate) fn plain_element(element: &Element) -> String {
    match &element.key {
        Key::Value(key) => plain_key(key),
        Key::Range(first, last) => format!("{}-{}", plain_key(first), plain_key(last)),
    }
}

pub(crate) fn plain_key(key: &[u8]) -> String {
    match key.len() {
        4 => value(KeyType::Ipv4Addr, key),
        16 => value(KeyType::Ipv6Addr, key),
        2 => value(KeyType::InetService, key),
        _ => hex(key),
    }
}

fn chain_lines(chain: &Chain) -> Vec<String> {
    let base = chain.base.map(|Base { hook, priority, policy }| {
        let policy = match policy {
            ChainPolicy::Accept => "accept",
            ChainPolicy::Drop => "drop",
        };
        let (hook, priority) = (hook_word(hook), priority_words(priority));
        format!("type filter hook {hook} priority {priority}; policy {policy};")
    });
    chain.comment.as_deref().map(comment_line).into_iter().chain(base).collect()
}

/// Returns nft's word for a hook.
#[must_use]
pub fn hook_word(hook: Hook) -> &'static str {
    match hook {
        Hook::Prerouting => "prerouting",
        Hook::Input => "input",
        Hook::Forward => "forward",
        Hook::Output => "output",
        Hook::Postrouting => "postrouting",
    }
}

/// Returns a priority relative to the nearest of nft's names, as nft prints it.
fn priority_words(priority: i32) -> String {
    const NAMES: [(&str, i32); 4] =
        [("raw", -300), ("mangle", -150), ("filter", 0), ("security", 50)];
    for (name, at) in NAMES {
        match priority.saturating_sub(at) {
            0 => return name.to_owned(),
            above @ 1..=10 => return format!("{name} + {above}"),
            below @ -10..=-1 => return format!("{name} - {}", -below),
            _ => {}
        }
    }
    priority.to_string()
}

/// Returns the properties of a helper, as `nft add ct helper` takes them.
pub(crate) fn helper_lines(helper: &CtHelper) -> Vec<String> {
    let protocol = match helper.protocol {
        protocol::TCP => "tcp".to_owned(),
        protocol::UDP => "udp".to_owned(),
        other => other.to_string(),
    };
    let version = match helper.version {
        Some(IpVersion::V4) => "ip",
        Some(IpVersion::V6) => "ip6",
        None => "inet",
    };
    vec![format!("type {} protocol {protocol}", quoted(&helper.kind)), format!("l3proto {version}")]
}

fn set_lines(set: &Set) -> Vec<String> {
    let types = set.key.iter().map(|part| part.word()).collect::<Vec<_>>().join(" . ");
    let mut lines = vec![format!("type {types}")];
    if let Some(size) = set.size {
        lines.push(format!("size {size}"));
    }
    let flags =
        [("dynamic", set.dynamic), ("interval", set.interval), ("timeout", set.timeout.is_some())];
    let flags: Vec<_> = flags.into_iter().filter(|flag| flag.1).map(|flag| flag.0).collect();
    if !flags.is_empty() {
        lines.push(format!("flags {}", flags.join(",")));
    }
    if let Some(timeout) = set.timeout.filter(|timeout| !timeout.is_zero()) {
        lines.push(format!("timeout {}", duration(timeout)));
    }
    lines.extend(set.comment.as_deref().map(comment_line));
    if !set.elements.is_empty() {
        let elements: Vec<_> = set.elements.iter().map(|each| element(&set.key, each)).collect();
        lines.push(format!("elements = {{ {} }}", elements.join(", ")));
    }
    lines
}

fn element(types: &[KeyType], element: &Element) -> String {
    let mut out = match &element.key {
        Key::Value(key) => key_text(types, key),
        Key::Range(first, last) => match (prefix_len(first, last), types) {
            _ if first == last => key_text(types, first),
            (Some(len), [KeyType::Ipv4Addr | KeyType::Ipv6Addr]) => {
                format!("{}/{len}", key_text(types, first))
            }
            _ => format!("{}-{}", key_text(types, first), key_text(types, last)),
        },
    };
    if let Some(timeout) = element.timeout {
        let _ = write!(out, " timeout {}", duration(timeout));
    }
    if let Some(comment) = &element.comment {
        let _ = write!(out, " {}", comment_line(comment));
    }
    out
}

fn key_text(types: &[KeyType], key: &[u8]) -> String {
    let mut rest = key;
    let mut parts = Vec::new();
    for kind in types {
        let (part, later) = rest.split_at_checked(kind.bytes()).unwrap_or((rest, &[]));
        parts.push(value(*kind, part));
        rest = later.get(kind.bytes().next_multiple_of(4) - kind.bytes()..).unwrap_or_default();
    }
    parts.join(" . ")
}

/// Returns one value of this type; in hexadecimal if it has the wrong length.
fn value(kind: KeyType, bytes: &[u8]) -> String {
    let word = |words: &[(&str, u8)], byte: u8| {
        let found = words.iter().find(|(_, number)| *number == byte);
        found.map_or_else(|| byte.to_string(), |(word, _)| (*word).to_owned())
    };
    match (kind, bytes) {
        (KeyType::Ipv4Addr, [a, b, c, d]) => Ipv4Addr::new(*a, *b, *c, *d).to_string(),
        (KeyType::Ipv6Addr, _) => <[u8; 16]>::try_from(bytes)
            .map_or_else(|_| hex(bytes), |octets| Ipv6Addr::from(octets).to_string()),
        (KeyType::InetService, [high, low]) => u16::from_be_bytes([*high, *low]).to_string(),
        (KeyType::IcmpType, [byte]) => word(ICMP_TYPES, *byte),
        (KeyType::Icmpv6Type, [byte]) => word(ICMPV6_TYPES, *byte),
        (KeyType::InetProto, [byte]) => byte.to_string(),
        (KeyType::Ifname, _) => quoted(String::from_utf8_lossy(bytes).trim_end_matches('\0')),
        _ => hex(bytes),
    }
}

fn hex(bytes: &[u8]) -> String {
    bytes.iter().fold("0x".to_owned(), |out, byte| out + &format!("{byte:02x}"))
}

/// Returns the length of the prefix that covers exactly this range.
fn prefix_len(first: &[u8], last: &[u8]) -> Option<usize> {
    let differ: Vec<u8> = first.iter().zip(last).map(|(a, b)| a ^ b).collect();
    let len = leading_zeros(&differ);
    let is_host =
        |bytes: &[u8], bit: bool| (len..bytes.len() * 8).all(|at| bit_at(bytes, at) == bit);
    (is_host(first, false) && is_host(last, true)).then_some(len)
}

fn leading_zeros(bytes: &[u8]) -> usize {
    (0..bytes.len() * 8).take_while(|at| !bit_at(bytes, *at)).count()
}

fn bit_at(bytes: &[u8], at: usize) -> bool {
    bytes.get(at / 8).is_some_and(|byte| byte & (0x80 >> (at % 8)) != 0)
}

fn comment_line(comment: &str) -> String {
    format!("comment {}", quoted(comment))
}

/// nft has no escapes inside quotes, so comments and prefixes have to be without quotes, see
/// [`comment::clean`](crate::comment::clean). What others wrote stays on its line.
fn quoted(text: &str) -> String {
    format!("\"{}\"", one_line(text))
}

fn duration(duration: Duration) -> String {
    let (seconds, millis) = (duration.as_secs(), duration.subsec_millis());
    let parts = [
        (seconds / 86_400, "d"),
        (seconds / 3600 % 24, "h"),
        (seconds / 60 % 60, "m"),
        (seconds % 60, "s"),
        (u64::from(millis), "ms"),
    ];
    let text: String = parts
        .iter()
        .filter(|(number, _)| *number != 0)
        .map(|(number, unit)| format!("{number}{unit}"))
        .collect();
    if text.is_empty() { "0s".to_owned() } else { text }
}
