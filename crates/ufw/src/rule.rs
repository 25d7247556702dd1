//! A rule of UFW as a rule of a policy.

use ipnetwork::IpNetwork;
use serde::Serialize;
use serde_json::{Value, json};

use super::merge::{Families, Merged};
use super::profile::Profiles;
use super::tuple::{Action, End, Tuple, Way, What};

/// The most bytes of a rule's comment.
const COMMENT: usize = 120;

/// A rule as a policy file has it, its keys in the order in which people read them.
#[derive(Clone, Debug, Default, PartialEq, Serialize)]
pub(super) struct Rule {
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(super) name: Option<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(super) comment: Option<String>,
    pub(super) action: &'static str,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(super) direction: Option<&'static str>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(super) in_interface: Option<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(super) out_interface: Option<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(super) proto: Option<Value>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(super) icmp_type: Option<&'static str>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(super) from: Option<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(super) from_port: Option<Value>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(super) to: Option<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(super) port: Option<Value>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(super) log: Option<Value>,
}

/// The rule without its log. `with_v6`: IPv6 is not denied as a whole.
pub(super) fn rule(merged: &Merged, profiles: &Profiles, with_v6: bool) -> Rule {
    let Tuple { what, comment, .. } = &merged.tuple;
    let app = what.to.app.as_ref().or(what.from.app.as_ref());
    let comment = comment.clone().or_else(|| {
        let app = app?;
        Some(match profiles.title(app) {
            Some(title) => format!("UFW profile {app}: {title}"),
            None => format!("UFW profile {app}"),
        })
    });
    let mut rule = Rule {
        name: app.map(|app| slug(app)),
        comment: Some(clean(&comment.unwrap_or_else(|| command(what)))),
        action: what.action.word(),
        direction: match what.way {
            Way::In => None,
            Way::Out => Some("out"),
            Way::Route => Some("forward"),
        },
        in_interface: what.in_interface.clone(),
        out_interface: what.out_interface.clone(),
        proto: proto(&what.proto),
        from: what.from.net.map(address),
        from_port: ports(&what.from.ports),
        to: what.to.net.map(address),
        port: ports(&what.to.ports),
        ..Rule::default()
    };
    // Addresses say which family is meant; without any, the widest prefix does.
    if rule.from.is_none() && rule.to.is_none() && with_v6 {
        rule.from = match merged.families {
            Families::V4 => Some("0.0.0.0/0".to_owned()),
            Families::V6 => Some("::/0".to_owned()),
            Families::Both => None,
        };
    }
    rule
}

fn proto(name: &str) -> Option<Value> {
    match name {
        "any" => None,
        "vrrp" => Some(json!(112)),
        name => Some(json!(name)),
    }
}

fn ports(ranges: &[(u16, u16)]) -> Option<Value> {
    let one = |(low, high): &(u16, u16)| {
        if low == high { json!(low) } else { json!(format!("{low}-{high}")) }
    };
    match ranges {
        [] => None,
        [range] => Some(one(range)),
        ranges => Some(ranges.iter().map(one).collect()),
    }
}

/// A whole address without its length.
fn address(net: IpNetwork) -> String {
    let whole = if net.is_ipv4() { 32 } else { 128 };
    if net.prefix() == whole { net.ip().to_string() } else { net.to_string() }
}

/// A profile's name as the name of a rule.
pub(super) fn slug(text: &str) -> String {
    let allowed = |found: char| found.is_ascii_alphanumeric() || "._-".contains(found);
    let name = text.to_ascii_lowercase().replace(|found| !allowed(found), "-");
    let name = name.trim_start_matches(['.', '_', '-']);
    // Room for the number that keeps two names apart.
    let name: String = name.chars().take(42).collect();
    if name.is_empty() { "app".to_owned() } else { name }
}

/// What a comment may be: one line, no quotes, not too long.
pub(super) fn clean(text: &str) -> String {
    let plain = |found: char| match found {
        '"' => '\'',
        found if found.is_control() => ' ',
        found => found,
    };
    let text: String = text.chars().map(plain).collect();
    let end = (0..=COMMENT.min(text.len())).rev().find(|at| text.is_char_boundary(*at));
    text.get(..end.unwrap_or(0)).unwrap_or_default().trim_end().to_owned()
}

/// The command that makes the rule.
pub(super) fn command(what: &What) -> String {
    let mut words = vec!["ufw".to_owned()];
    words.extend((what.way == Way::Route).then(|| "route".to_owned()));
    words.push(what.action.word().to_owned());
    words.extend((what.way == Way::Out).then(|| "out".to_owned()));
    let interfaces = [("in", &what.in_interface), ("out", &what.out_interface)];
    for (word, name) in interfaces {
        if let Some(name) = name {
            let word = if what.way == Way::Out { String::new() } else { format!("{word} ") };
            words.push(format!("{word}on {}", name.replace('*', "+")));
        }
    }
    words.extend(what.log.then(|| "log".to_owned()));
    let is_simple = what.from == ANYWHERE && what.to.net.is_none() && !what.to.ports.is_empty();
    let list = |ports: &[(u16, u16)]| {
        let one = |(low, high): &(u16, u16)| {
            if low == high { low.to_string() } else { format!("{low}:{high}") }
        };
        ports.iter().map(one).collect::<Vec<_>>().join(",")
    };
    if is_simple {
        let proto = if what.proto == "any" { String::new() } else { format!("/{}", what.proto) };
        words.push(format!("{}{proto}", list(&what.to.ports)));
        return words.join(" ");
    }
    words.extend((what.proto != "any").then(|| format!("proto {}", what.proto)));
    let ends = [("from", &what.from), ("to", &what.to)];
    for (word, end) in ends {
        if word == "from" || *end != ANYWHERE {
            words.push(format!("{word} {}", end.net.map_or("any".to_owned(), address)));
            words.extend((!end.ports.is_empty()).then(|| format!("port {}", list(&end.ports))));
        }
    }
    words.join(" ")
}

const ANYWHERE: End = End { net: None, ports: Vec::new(), app: None };

/// What stands before a log line of UFW about this action.
pub(super) fn log_prefix(action: Action) -> &'static str {
    match action {
        Action::Allow => "[UFW ALLOW] ",
        Action::Deny | Action::Reject => "[UFW BLOCK] ",
        Action::Limit => "[UFW LIMIT BLOCK] ",
    }
}
