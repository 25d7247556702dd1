//! Sets of nftables: what `nft list set` prints, with and without `-j`, and files for `nft -f`.

use serde_json::Value;

use super::{At, Details, Reader, cut};

/// A set of the file.
#[derive(Default)]
struct Set {
    name: String,
    is_concatenated: bool,
    /// Time of an element that names none, in milliseconds.
    timeout: Option<i128>,
    /// Each element with the number of its line.
    elements: Vec<(usize, String)>,
}

pub(super) fn is_nft(line: &str) -> bool {
    let mut words = line.split_whitespace();
    match (words.next().unwrap_or_default(), words.next().unwrap_or_default()) {
        ("table" | "define" | "set", _)
        | ("add" | "flush" | "create", "element" | "set" | "table") => true,
        (first, _) => first.starts_with("elements"),
    }
}

pub(super) fn read(reader: &mut Reader<'_>, text: &str) -> Result<String, String> {
    let sets = sets_of(text)?;
    let names: Vec<String> = sets.iter().map(|set| set.name.clone()).collect();
    reader.check_sets(&names)?;
    for set in &sets {
        if !reader.is_wanted_set(&set.name) {
            continue;
        }
        if set.is_concatenated {
            return Err(format!("set {}: its elements are more than addresses", set.name));
        }
        for (line, element) in &set.elements {
            self::element(reader, At::Line(*line), set, element);
        }
    }
    match reader.summary.entries + reader.summary.bad + reader.summary.over {
        0 if sets.is_empty() => Err("the file has no set with elements".to_owned()),
        _ => Ok("a set of nftables".to_owned()),
    }
}

/// Returns the sets that have elements: `elements = { … }`, `define NAME = { … }` and
/// `add element TABLE SET { … }`.
fn sets_of(text: &str) -> Result<Vec<Set>, String> {
    let mut sets: Vec<Set> = Vec::new();
    let (mut name, mut is_concatenated, mut timeout) = (String::new(), false, None);
    let mut is_inside = false;
    for (number, line) in (1..).zip(text.lines()) {
        let mut rest = without_remark(line).trim();
        if !is_inside {
            let words: Vec<&str> = rest.split_whitespace().collect();
            match words[..] {
                ["set", set, ..] => {
                    (name, is_concatenated, timeout) = (set.to_owned(), false, None);
                }
                ["map" | "vmap", ..] => return Err("the file has a map; expected a set".to_owned()),
                ["type" | "typeof", ..] => is_concatenated = words.contains(&"."),
                ["timeout", time, ..] => timeout = milliseconds(time.trim_end_matches(';')),
                ["define", variable, "=", ..] => name = variable.to_owned(),
                ["add" | "create", "element", ..] => {
                    let before = rest.split('{').next().unwrap_or_default();
                    name = before.split_whitespace().last().unwrap_or_default().to_owned();
                    (is_concatenated, timeout) = (false, None);
                }
                _ => {}
            }
            let begins = rest.starts_with("elements")
                || rest.starts_with("define")
                || rest.starts_with("add element")
                || rest.starts_with("create element");
            let Some((_, elements)) = rest.split_once('{').filter(|_| begins) else { continue };
            rest = elements;
            if sets.last().is_none_or(|last| last.name != name) {
                sets.push(Set {
                    name: name.clone(),
                    is_concatenated,
                    timeout,
                    elements: Vec::new(),
                });
            }
        }
        let (elements, is_end) = match end_of_elements(rest) {
            Some(at) => (rest.get(..at).unwrap_or_default(), true),
            None => (rest, false),
        };
        if let Some(set) = sets.last_mut() {
            let each = outside_quotes(elements, ',').into_iter().map(str::trim);
            let each = each.filter(|element| !element.is_empty());
            set.elements.extend(each.map(|element| (number, element.to_owned())));
        }
        is_inside = !is_end;
    }
    match is_inside {
        true => Err("the set has no end: not all of the file was received".to_owned()),
        false => Ok(sets),
    }
}

fn without_remark(line: &str) -> &str {
    outside_quotes(line, '#').first().copied().unwrap_or_default()
}

fn end_of_elements(text: &str) -> Option<usize> {
    let before = outside_quotes(text, '}');
    (before.len() > 1).then(|| before.first().map_or(0, |text| text.len()))
}

/// Splits a text where a character does not stand in quotes.
fn outside_quotes(text: &str, separator: char) -> Vec<&str> {
    let mut is_quoted = false;
    let parts = text.split(|character: char| {
        is_quoted ^= character == '"';
        character == separator && !is_quoted
    });
    parts.collect()
}

fn element(reader: &mut Reader<'_>, at: At, set: &Set, text: &str) {
    let (value, rest) = text.split_once(char::is_whitespace).unwrap_or((text, ""));
    let (rest, reason) = super::without_comment(rest);
    let rest: Vec<&str> = rest.split_whitespace().collect();
    let option = |name: &str| {
        let at = rest.iter().position(|word| *word == name)?;
        rest.get(at + 1).copied()
    };
    if rest.first() == Some(&".") || rest.first() == Some(&":") {
        return reader.bad(at, format!("{:?} is more than addresses", cut(text)));
    }
    let left = match option("expires").or_else(|| option("timeout")) {
        Some(time) => match milliseconds(time) {
            Some(left) => Some(left),
            None => return reader.bad(at, format!("{time:?} is no time of nft; expected 1h2m3s")),
        },
        None => set.timeout,
    };
    reader.timed(at, value, left, details(&set.name, reason));
}

fn details(set: &str, reason: Option<&str>) -> Details {
    Details {
        source: Some(format!("nft/{set}")),
        reason: reason.map(str::to_owned),
        ..Details::default()
    }
}

/// Reads a time as nft prints it, `1d2h3m4s5ms`, in milliseconds.
fn milliseconds(text: &str) -> Option<i128> {
    let mut all = 0_i128;
    let mut rest = text;
    while !rest.is_empty() {
        let end = rest.find(|it: char| !it.is_ascii_digit())?;
        let (number, after) = rest.split_at(end);
        let units = [("ms", 1), ("d", 86_400_000), ("h", 3_600_000), ("m", 60_000), ("s", 1000)];
        let (unit, size) = units.into_iter().find(|(unit, _)| after.starts_with(unit))?;
        all = all.saturating_add(number.parse::<i128>().ok()?.saturating_mul(size));
        rest = after.strip_prefix(unit)?;
    }
    (!text.is_empty()).then_some(all)
}

/// Reads what `nft -j list set` prints.
pub(super) fn read_json(reader: &mut Reader<'_>, document: &Value) -> Result<String, String> {
    let items = document["nftables"].as_array().into_iter().flatten();
    let sets: Vec<&Value> = items.filter_map(|item| item.get("set")).collect();
    let name = |set: &Value| set["name"].as_str().unwrap_or_default().to_owned();
    let with_elements = |set: &&&Value| set["elem"].as_array().is_some_and(|all| !all.is_empty());
    let names: Vec<String> = sets.iter().filter(with_elements).map(|set| name(set)).collect();
    reader.check_sets(&names)?;
    for set in sets {
        let name = name(set);
        if !reader.is_wanted_set(&name) {
            continue;
        }
        let timeout = set["timeout"].as_i64().map(|seconds| i128::from(seconds) * 1000);
        for (at, item) in (1..).map(At::Entry).zip(set["elem"].as_array().into_iter().flatten()) {
            let inner = item.get("elem").unwrap_or(item);
            let value = inner.get("val").unwrap_or(inner);
            let Some(text) = json_text(value) else {
                reader.bad(at, format!("{} is more than addresses", cut(&value.to_string())));
                continue;
            };
            let seconds = inner["expires"].as_i64().or_else(|| inner["timeout"].as_i64());
            let left = seconds.map(|seconds| i128::from(seconds) * 1000).or(timeout);
            reader.timed(at, &text, left, details(&name, inner["comment"].as_str()));
        }
    }
    Ok("a set of nftables in JSON".to_owned())
}

fn json_text(value: &Value) -> Option<String> {
    if let Some(text) = value.as_str() {
        return Some(text.to_owned());
    }
    if let Some(prefix) = value.get("prefix") {
        return Some(format!("{}/{}", prefix["addr"].as_str()?, prefix["len"].as_u64()?));
    }
    let range = value.get("range")?.as_array()?;
    Some(format!("{}-{}", range.first()?.as_str()?, range.get(1)?.as_str()?))
}
