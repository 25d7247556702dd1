//! Addresses, prefixes and groups: their reading, their schema, and their merging.

use core::net::{IpAddr, Ipv4Addr, Ipv6Addr};

use ipnetwork::{IpNetwork, Ipv4Network, Ipv6Network};
use nfguard_netlink::IpVersion;
use schemars::json_schema;

use crate::json::document::{Pointer, Problems};
use crate::json::reader::{FromJson, List, Node, schema, shown};
use crate::json::suggest::{nearest_text, quoted};
use crate::policy::Prefixes;

const EXPECTED_NET: &str = "an address or a prefix like \"192.0.2.0/24\" or \"2001:db8::/32\"";
const EXPECTED_PEER: &str = "an address, a prefix like \"192.0.2.0/24\", a group's name or \"any\"";

/// One element of `from` or `to`.
#[derive(Clone, Debug)]
pub(crate) enum Peer {
    Any,
    Net(IpNetwork),
    /// Name of a group. Whether the group exists is not yet known.
    Group(String),
}

impl FromJson for Peer {
    fn from_json(node: Node<'_>, problems: &mut Problems) -> Option<Self> {
        let text = node.text(problems, EXPECTED_PEER)?;
        if text == "any" {
            return Some(Self::Any);
        }
        if is_group_name(text) {
            return Some(Self::Group(text.to_owned()));
        }
        net(node, text, EXPECTED_PEER, problems).map(Self::Net)
    }
}

schema!(Peer as "peer": |generator| {
    json_schema!({
        "description": "An address, a prefix, the name of a group, or `any`.",
        "anyOf": [
            { "const": "any" },
            generator.subschema_for::<Net>(),
            { "type": "string", "pattern": GROUP_NAME },
        ],
    })
});

/// An address, or a prefix without host bits.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Net(pub(crate) IpNetwork);

impl FromJson for Net {
    fn from_json(node: Node<'_>, problems: &mut Problems) -> Option<Self> {
        let text = node.text(problems, EXPECTED_NET)?;
        if is_group_name(text) {
            let message = format!(
                "found {}; expected {EXPECTED_NET}: a group cannot contain another group",
                shown(text)
            );
            node.error(problems, message);
            return None;
        }
        net(node, text, EXPECTED_NET, problems).map(Self)
    }
}

schema!(Net as "prefix": |_| {
    json_schema!({
        "description": "An address, or a prefix without host bits.",
        "type": "string",
        "pattern": "^([0-9]+(\\.[0-9]+){3}|[0-9a-fA-F]*:[0-9a-fA-F:.]+)(/[0-9]{1,3})?$",
        "examples": ["192.0.2.7", "192.0.2.0/24", "2001:db8::/32"],
    })
});

/// Returns the prefix that a text names, or reports what is wrong with it.
fn net(node: Node<'_>, text: &str, expected: &str, problems: &mut Problems) -> Option<IpNetwork> {
    match parse_net(text) {
        Ok(net) => Some(net),
        Err(BadNet { reason, suggestion }) => {
            let reason = if reason.is_empty() { reason } else { format!(": {reason}") };
            let message = format!("found {}; expected {expected}{reason}", shown(text));
            let suggestion = suggestion.and_then(valid).map(|net| quoted(&net));
            node.error_suggesting(problems, message, suggestion);
            None
        }
    }
}

/// Returns a suggestion, or what it leads to: a text without a second mistake.
fn valid(suggestion: String) -> Option<String> {
    match parse_net(&suggestion) {
        Ok(_) => Some(suggestion),
        Err(BadNet { suggestion: next, .. }) => {
            next.filter(|next| *next != suggestion).and_then(valid)
        }
    }
}

/// What is wrong with an address.
struct BadNet {
    /// Empty if the text is no address at all.
    reason: String,
    /// What was probably meant.
    suggestion: Option<String>,
}

impl BadNet {
    fn new(reason: impl Into<String>, suggestion: Option<String>) -> Self {
        Self { reason: reason.into(), suggestion }
    }
}

fn parse_net(text: &str) -> Result<IpNetwork, BadNet> {
    let plain = text.trim();
    if plain != text {
        return Err(BadNet::new("it has spaces around it", Some(plain.to_owned())));
    }
    // As ifconfig and route write a network and its mask.
    if let Some((address, mask)) = text.split_once(char::is_whitespace) {
        let mask = mask.trim_start();
        let mask = mask.strip_prefix("netmask").map_or(mask, str::trim_start);
        let meant = mask.parse::<IpAddr>().is_ok().then(|| format!("{address}/{mask}"));
        return Err(BadNet::new("", meant));
    }
    let (address, length) = match text.split_once('/') {
        Some((address, length)) => (address, Some(length)),
        None => (text, None),
    };
    if address.contains('%') {
        let reason = "an address has no zone here; use \"in_interface\"";
        return Err(BadNet::new(reason, None));
    }
    let Ok(address) = address.parse::<IpAddr>() else {
        return Err(BadNet::new("", without_leading_zeros(address, length)));
    };
    let longest = IpVersion::of(address).address_bits();
    let length = match length {
        None => longest,
        Some(text) => {
            prefix_length(text, longest).ok_or_else(|| bad_length(address, text, longest))?
        }
    };
    let parsed =
        IpNetwork::new(address, length).map_err(|error| BadNet::new(error.to_string(), None))?;
    if let IpAddr::V6(v6) = address
        && let Some(v4) = v6.to_ipv4_mapped()
        && length >= 96
    {
        let meant = if length == 128 { v4.to_string() } else { format!("{v4}/{}", length - 96) };
        return Err(BadNet::new("such packets are IPv4", Some(meant)));
    }
    if parsed.network() != address {
        let meant = format!("{}/{length}", parsed.network());
        return Err(BadNet::new("it has bits after its prefix", Some(meant)));
    }
    Ok(parsed)
}

/// Says what is wrong with the length of a prefix. A mask is no length, and its zeros may stand at
/// either end: for the host bits, or, as routers have it, for the network's.
fn bad_length(address: IpAddr, text: &str, longest: u8) -> BadNet {
    let reason = format!("a prefix is 0 to {longest} bits long");
    let without_zeros = || {
        let digits = text.trim_start_matches('0');
        let digits = if digits.is_empty() && !text.is_empty() { "0" } else { digits };
        prefix_length(digits, longest)
    };
    let length = match (address, text.parse()) {
        (IpAddr::V4(_), Ok(IpAddr::V4(mask))) => mask_length(mask.to_bits().into(), 32),
        (IpAddr::V6(_), Ok(IpAddr::V6(mask))) => mask_length(mask.to_bits(), 128),
        (_, Ok(_)) => None,
        (_, Err(_)) => without_zeros(),
    };
    BadNet::new(reason, length.map(|length| format!("{address}/{length}")))
}

/// Returns the length of the prefix that a mask of this width leaves; `None` if it may mean two things,
/// or nothing.
fn mask_length(mask: u128, width: u32) -> Option<u8> {
    let all = u128::MAX >> (128 - width);
    let is_low = |bits: u128| bits & bits.wrapping_add(1) == 0;
    let length = match mask {
        0 => return None,
        mask if is_low(!mask & all) => mask.count_ones(),
        mask if is_low(mask) => width - mask.count_ones(),
        _ => return None,
    };
    u8::try_from(length).ok()
}

fn prefix_length(text: &str, longest: u8) -> Option<u8> {
    let plain = text.bytes().all(|byte| byte.is_ascii_digit());
    let canonical = plain && (text == "0" || !text.starts_with('0'));
    canonical.then(|| text.parse().ok()).flatten().filter(|length| *length <= longest)
}

/// Returns an address without leading zeros as a suggestion. `010.0.0.1` is refused, because it is
/// 10.0.0.1 to some programs and 8.0.0.1 to others.
fn without_leading_zeros(address: &str, length: Option<&str>) -> Option<String> {
    let parts = address.split('.').map(|part| match part.trim_start_matches('0') {
        "" if !part.is_empty() => "0",
        trimmed => trimmed,
    });
    let meant: Ipv4Addr = parts.collect::<Vec<_>>().join(".").parse().ok()?;
    Some(length.map_or(meant.to_string(), |length| format!("{meant}/{length}")))
}

const GROUP_NAME: &str = "^[a-z][a-z0-9_-]{0,30}$";

fn is_group_name(text: &str) -> bool {
    let rest =
        |found: char| found.is_ascii_lowercase() || found.is_ascii_digit() || "_-".contains(found);
    text.len() <= 31
        && text.starts_with(|first: char| first.is_ascii_lowercase())
        && text.chars().all(rest)
}

/// The groups of a file in the order of the file.
#[derive(Debug)]
pub(crate) struct Groups(pub(crate) Vec<(String, Option<List<Net>>)>);

impl FromJson for Groups {
    fn from_json(node: Node<'_>, problems: &mut Problems) -> Option<Self> {
        let properties = node.properties(problems, "an object with a list for each group")?;
        let mut groups = Vec::new();
        for property in properties {
            let name = property.name.as_str();
            let pointer = Pointer::Key(&node.pointer, name);
            if !is_group_name(name) || name == "any" {
                let why = if name == "any" {
                    "that word is reserved"
                } else {
                    "expected a-z, then a-z, 0-9, \"_\" and \"-\", at most 31 characters"
                };
                let message = format!("a group cannot have the name {}: {why}", shown(name));
                problems.error_at(property.range.start, pointer, message, None);
            }
            let nets = List::from_json(Node { value: &property.value, pointer }, problems);
            if nets.as_ref().is_some_and(|nets| nets.0.is_empty()) {
                let node = Node { value: &property.value, pointer };
                node.error(
                    problems,
                    "found an empty group; expected at least one address or prefix",
                );
            }
            groups.push((name.to_owned(), nets));
        }
        Some(Self(groups))
    }
}

schema!(Groups as "groups": |generator| {
    json_schema!({
        "description": "The addresses and prefixes of each group. A group cannot contain another group.",
        "type": "object",
        "propertyNames": { "pattern": GROUP_NAME, "not": { "const": "any" } },
        "additionalProperties": {
            "type": "array", "items": generator.subschema_for::<Net>(), "minItems": 1
        },
    })
});

/// Returns the group that an unknown name was probably meant to be, as JSON.
pub(crate) fn suggest_group<'g>(
    name: &str,
    groups: impl Iterator<Item = &'g str> + Clone,
) -> Option<String> {
    nearest_text(name, groups.chain(["any"]))
}

impl Prefixes {
    /// Sorts and merges prefixes. A prefix within another one disappears, and two halves become one
    /// prefix.
    pub(crate) fn from_nets(nets: impl IntoIterator<Item = IpNetwork>) -> Self {
        let (mut v4, mut v6) = (Vec::new(), Vec::new());
        for net in nets {
            match net {
                IpNetwork::V4(net) => v4.push((u128::from(net.ip().to_bits()) << 96, net.prefix())),
                IpNetwork::V6(net) => v6.push((net.ip().to_bits(), net.prefix())),
            }
        }
        let v4 = merge(v4).into_iter().filter_map(|(bits, length)| {
            let bits = u32::try_from(bits >> 96).unwrap_or(0);
            Ipv4Network::new(Ipv4Addr::from_bits(bits), length).ok()
        });
        let v6 = merge(v6)
            .into_iter()
            .filter_map(|(bits, length)| Ipv6Network::new(Ipv6Addr::from_bits(bits), length).ok());
        Self { v4: v4.collect(), v6: v6.collect() }
    }

    /// Returns all prefixes, IPv4 first.
    pub(crate) fn nets(&self) -> impl Iterator<Item = IpNetwork> {
        let v4 = self.v4.iter().copied().map(IpNetwork::V4);
        v4.chain(self.v6.iter().copied().map(IpNetwork::V6))
    }
}

/// Merges prefixes, each given by its bits at the top of a `u128` and its length.
fn merge(mut prefixes: Vec<(u128, u8)>) -> Vec<(u128, u8)> {
    prefixes.sort_unstable();
    let mut merged: Vec<(u128, u8)> = Vec::new();
    for mut next in prefixes {
        if merged.last().is_some_and(|last| next.0 & mask(last.1) == last.0) {
            continue;
        }
        while let Some(last) = merged.last().copied() {
            let is_other_half = last.1 == next.1
                && next.1 > 0
                && last.0 & mask(last.1 - 1) == last.0
                && next.0 & mask(next.1 - 1) == last.0;
            if !is_other_half {
                break;
            }
            merged.pop();
            next = (last.0, last.1 - 1);
        }
        merged.push(next);
    }
    merged
}

/// Returns the mask of a prefix length.
fn mask(length: u8) -> u128 {
    u128::MAX.checked_shl(128 - u32::from(length)).unwrap_or(0)
}
