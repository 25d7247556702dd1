//! Lists in JSON: an object a line, or one document of a provider.

use std::collections::{BTreeMap, BTreeSet};

use serde_json::Value;

use super::crowdsec::Decision;
use super::{At, Reader, ban, nft, some_names};
use nfguard_ban::Addresses;

/// The documents of providers: a key that only they have, and the keys of the addresses.
const PROVIDERS: [(&str, &str, &[&str]); 9] = [
    ("ranges of AWS", "ipv6_prefixes", &["ip_prefix", "ipv6_prefix"]),
    ("ranges of Google, or in that form", "ipv4Prefix", &["ipv4Prefix", "ipv6Prefix"]),
    ("ranges of Google, or in that form", "ipv6Prefix", &["ipv4Prefix", "ipv6Prefix"]),
    ("ranges of Cloudflare", "ipv4_cidrs", &["ipv4_cidrs", "ipv6_cidrs", "jdcloud_cidrs"]),
    ("ranges of Fastly", "ipv6_addresses", &["addresses", "ipv6_addresses"]),
    ("service tags of Azure", "addressPrefixes", &["addressPrefixes"]),
    ("ranges of Oracle", "cidrs", &["cidr"]),
    ("blacklist of AbuseIPDB", "ipAddress", &["ipAddress"]),
    ("block list of Feodo Tracker", "ip_address", &["ip_address"]),
];

/// A key that only the ranges of GitHub have. They have a key for each service.
const GITHUB: &str = "verifiable_password_authentication";

pub(super) fn read(reader: &mut Reader<'_>, text: &str) -> Result<String, String> {
    let start = text.trim_start();
    let first_key = start.strip_prefix('{').unwrap_or_default().trim_start();
    if first_key.starts_with("\"bans\"") {
        ban::read_listing(reader, text);
        return Ok("bans of nfguard".to_owned());
    }
    if first_key.starts_with("\"nfguard_bans\"") {
        return Err("this is a file of `nfguard save`; `nfguard restore` reads it".to_owned());
    }
    let mut rows = text.lines().filter(|line| !line.trim().is_empty());
    let is_line = |line: &str| line.trim_start().starts_with('{') && line.trim_end().ends_with('}');
    let (first, second) = (rows.next().unwrap_or_default(), rows.next());
    if is_line(first) && (second.is_some() || is_entry(first)) {
        return Ok(lines(reader, text));
    }
    let document: Value = serde_json::from_str(text)
        .map_err(|error| format!("this is no JSON, or not all of it was received: {error}"))?;
    document_of(reader, &document)
}

/// Tells whether a line alone is an entry, and no document.
fn is_entry(line: &str) -> bool {
    let value: Value = serde_json::from_str(line).unwrap_or_default();
    ["target", "cidr"].iter().any(|key| value[*key].is_string())
}

fn lines(reader: &mut Reader<'_>, text: &str) -> String {
    for (at, line) in (1..).map(At::Line).zip(text.lines().map(str::trim)) {
        if line.starts_with('{') {
            ban::read_line(reader, at, line);
        } else if !super::is_comment(line) {
            reader.addresses(at, super::line::value(line), None);
        }
    }
    "JSON, an object a line".to_owned()
}

fn document_of(reader: &mut Reader<'_>, document: &Value) -> Result<String, String> {
    if document.get("nftables").is_some() {
        return nft::read_json(reader, document);
    }
    if is_crowdsec(document) {
        crowdsec(reader, document);
        return Ok("decisions of CrowdSec".to_owned());
    }
    let mut texts = BTreeMap::new();
    collect(document, "", &mut texts);
    if let Some(key) = reader.options.column {
        let Some(found) = texts.get(key) else {
            return Err(format!("the document has no texts with the key {key:?}"));
        };
        take(reader, found);
        return Ok(format!("JSON with addresses under {key:?}"));
    }
    let has_address = |texts: &&str| texts.parse::<Addresses>().is_ok();
    if document.get(GITHUB).is_some() {
        let is_service = |texts: &&Vec<&str>| texts.iter().all(has_address);
        let all: Vec<&str> = texts.values().filter(is_service).flatten().copied().collect();
        take(reader, &all);
        return Ok("ranges of GitHub".to_owned());
    }
    let mut keys = BTreeSet::new();
    all_keys(document, &mut keys);
    if let Some((form, _, keys)) = PROVIDERS.iter().find(|(_, mark, _)| keys.contains(*mark)) {
        for key in *keys {
            take(reader, texts.get(*key).map(Vec::as_slice).unwrap_or_default());
        }
        return Ok((*form).to_owned());
    }
    let with = |texts: &Vec<&str>| texts.iter().any(|text| text.parse::<Addresses>().is_ok());
    let candidates: Vec<&str> =
        texts.iter().filter(|(_, texts)| with(texts)).map(|(key, _)| *key).collect();
    Err(match candidates[..] {
        [] => "this JSON has no addresses: perhaps an error of the server".to_owned(),
        _ => format!(
            "this JSON is of no known provider; name the key of its addresses with --column: {}",
            some_names(&candidates)
        ),
    })
}

/// Takes the texts of a document, each by its number.
fn take(reader: &mut Reader<'_>, texts: &[&str]) {
    for text in texts {
        let number = reader.summary.entries + reader.summary.bad + 1;
        let at = At::Entry(usize::try_from(number).unwrap_or(usize::MAX));
        reader.addresses(at, text, None);
    }
}

/// Collects the texts of a document by their key. The texts of a list have the key of the list.
fn collect<'v>(value: &'v Value, key: &'v str, texts: &mut BTreeMap<&'v str, Vec<&'v str>>) {
    match value {
        Value::String(text) => texts.entry(key).or_default().push(text),
        Value::Array(items) => items.iter().for_each(|item| collect(item, key, texts)),
        Value::Object(object) => object.iter().for_each(|(key, value)| collect(value, key, texts)),
        _ => {}
    }
}

fn all_keys<'v>(value: &'v Value, keys: &mut BTreeSet<&'v str>) {
    match value {
        Value::Array(items) => items.iter().for_each(|item| all_keys(item, keys)),
        Value::Object(object) => {
            for (key, value) in object {
                keys.insert(key);
                all_keys(value, keys);
            }
        }
        _ => {}
    }
}

/// Tells whether this is what `cscli decisions list -o json` prints: alerts with their decisions, or
/// `null` if there are none; or what `cscli decisions import` reads: decisions alone.
fn is_crowdsec(document: &Value) -> bool {
    let is_decision = |item: &Value| item.get("value").is_some() && item.get("duration").is_some();
    let has_decisions = |item: &Value| item.get("decisions").is_some() || is_decision(item);
    document.is_null() || document.as_array().is_some_and(|all| all.iter().any(has_decisions))
}

fn crowdsec(reader: &mut Reader<'_>, document: &Value) {
    let alerts = document.as_array().into_iter().flatten();
    let decisions = alerts.flat_map(|alert| match alert["decisions"].as_array() {
        Some(decisions) => decisions.iter().collect::<Vec<_>>(),
        None if alert["value"].is_string() => vec![alert],
        None => Vec::new(),
    });
    for (at, decision) in (1..).map(At::Entry).zip(decisions) {
        let text = |key: &str| decision[key].as_str().unwrap_or_default();
        let decision = Decision {
            target: &match text("scope") {
                "" => text("value").to_owned(),
                scope => format!("{scope}:{}", text("value")),
            },
            action: text("type"),
            left: text("duration"),
            reason: Some(text("scenario")).filter(|it| !it.is_empty()).unwrap_or(text("reason")),
            is_simulated: decision["simulated"].as_bool() == Some(true),
        };
        decision.read(reader, at);
    }
}
