//! A rule of UFW as a rule of a policy file.

use ipnetwork::IpNetwork;
use nfguard_netlink::{IpVersion, comment};
use serde::Serialize;
use serde_json::{Value, json};

use crate::merge::{MergedRule, RuleVersions};
use crate::profile::Profiles;
use crate::tuple::{Action, Direction, Endpoint, RuleSpec, Tuple};

/// Longest comment of a policy's rule, in bytes.
const MAX_COMMENT_BYTES: usize = 120;

/// Longest name that [`slug`] makes, in bytes. A number that keeps two names apart still fits.
const MAX_SLUG_BYTES: usize = 42;

/// A rule of a policy file. The keys stand in the order in which people read them.
#[derive(Clone, Debug, Default, PartialEq, Serialize)]
pub(crate) struct Rule {
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(crate) name: Option<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(crate) comment: Option<String>,
    pub(crate) action: &'static str,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(crate) direction: Option<&'static str>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(crate) in_interface: Option<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(crate) out_interface: Option<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(crate) proto: Option<Value>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(crate) icmp_type: Option<&'static str>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(crate) from: Option<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(crate) from_port: Option<Value>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(crate) to: Option<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(crate) port: Option<Value>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(crate) log: Option<Value>,
}

/// Returns a rule as JSON in one line, for a message.
pub(crate) fn in_one_line(rule: &Rule) -> String {
    let rule = Rule { comment: None, name: None, log: None, ..rule.clone() };
    serde_json::to_string(&rule).unwrap_or_default()
}

/// Returns the rule of a tuple, without its log. `ipv6`: the policy does not deny all IPv6.
pub(crate) fn rule(merged: &MergedRule, profiles: &Profiles, ipv6: bool) -> Rule {
    let Tuple { spec, comment, .. } = &merged.tuple;
    let app = spec.destination.app.as_ref().or(spec.source.app.as_ref());
    let comment = comment.clone().or_else(|| {
        let app = app?;
        Some(match profiles.title(app) {
            Some(title) => format!("UFW profile {app}: {title}"),
            None => format!("UFW profile {app}"),
        })
    });
    let mut rule = Rule {
        name: app.map(|app| slug(app)),
        comment: Some(clean(&comment.unwrap_or_else(|| command(spec)))),
        action: spec.action.word(),
        direction: match spec.direction {
            Direction::In => None,
            Direction::Out => Some("out"),
            Direction::Route => Some("forward"),
        },
        in_interface: spec.in_interface.clone(),
        out_interface: spec.out_interface.clone(),
        proto: proto(&spec.protocol),
        from: spec.source.net.map(address),
        from_port: ports(&spec.source.ports),
        to: spec.destination.net.map(address),
        port: ports(&spec.destination.ports),
        ..Rule::default()
    };
    // Addresses say which IP version a rule is for. A rule without addresses needs the widest
    // prefix to say it.
    if rule.from.is_none() && rule.to.is_none() && ipv6 {
        rule.from = match merged.versions {
            RuleVersions::Only(IpVersion::V4) => Some("0.0.0.0/0".to_owned()),
            RuleVersions::Only(IpVersion::V6) => Some("::/0".to_owned()),
            RuleVersions::Both => None,
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

/// Returns a prefix as text; a single address has no length.
fn address(net: IpNetwork) -> String {
    let longest = IpVersion::of(net.ip()).address_bits();
    if net.prefix() == longest { net.ip().to_string() } else { net.to_string() }
}

/// Returns a rule's name that is made from a profile's name.
fn slug(text: &str) -> String {
    let allowed = |found: char| found.is_ascii_alphanumeric() || "._-".contains(found);
    let name = text.to_ascii_lowercase().replace(|found| !allowed(found), "-");
    let name = name.trim_start_matches(['.', '_', '-']);
    let name: String = name.chars().take(MAX_SLUG_BYTES).collect();
    if name.is_empty() { "app".to_owned() } else { name }
}

/// Returns a text as a policy's comment allows it: one line, no quotes, not too long.
pub(crate) fn clean(text: &str) -> String {
    comment::clean(text, MAX_COMMENT_BYTES).trim_end().to_owned()
}

/// Returns the `ufw` command that makes a rule.
fn command(spec: &RuleSpec) -> String {
    let mut words = vec!["ufw".to_owned()];
    words.extend((spec.direction == Direction::Route).then(|| "route".to_owned()));
    words.push(spec.action.word().to_owned());
    let is_out = spec.direction == Direction::Out;
    words.extend(is_out.then(|| "out".to_owned()));
    for (word, name) in [("in", &spec.in_interface), ("out", &spec.out_interface)] {
        if let Some(name) = name {
            let word = if is_out { String::new() } else { format!("{word} ") };
            words.push(format!("{word}on {}", name.replace('*', "+")));
        }
    }
    words.extend(spec.logs.then(|| "log".to_owned()));
    let Endpoint { net: to_net, ports: to_ports, .. } = &spec.destination;
    let is_simple = spec.source == Endpoint::ANY && to_net.is_none() && !to_ports.is_empty();
    let list = |ports: &[(u16, u16)]| {
        let one = |(low, high): &(u16, u16)| {
            if low == high { low.to_string() } else { format!("{low}:{high}") }
        };
        ports.iter().map(one).collect::<Vec<_>>().join(",")
    };
    if is_simple {
        let protocol =
            if spec.protocol == "any" { String::new() } else { format!("/{}", spec.protocol) };
        words.push(format!("{}{protocol}", list(to_ports)));
        return words.join(" ");
    }
    words.extend((spec.protocol != "any").then(|| format!("proto {}", spec.protocol)));
    for (word, end) in [("from", &spec.source), ("to", &spec.destination)] {
        if word == "from" || *end != Endpoint::ANY {
            words.push(format!("{word} {}", end.net.map_or("any".to_owned(), address)));
            words.extend((!end.ports.is_empty()).then(|| format!("port {}", list(&end.ports))));
        }
    }
    words.join(" ")
}

/// Returns the prefix that UFW's log lines have for an action.
pub(crate) fn log_prefix(action: Action) -> &'static str {
    match action {
        Action::Allow => "[UFW ALLOW] ",
        Action::Deny | Action::Reject => "[UFW BLOCK] ",
        Action::Limit => "[UFW LIMIT BLOCK] ",
    }
}
