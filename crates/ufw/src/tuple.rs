//! The tuples of `user.rules`: the comment lines from which UFW itself reads its rules back.
//!
//! `### tuple ### ACTION PROTO DPORT DST SPORT SRC [DAPP SAPP] DIRECTION comment=HEX`

use std::net::{IpAddr, Ipv4Addr};

use ipnetwork::IpNetwork;
use nfguard_netlink::IpVersion;

use crate::config::SourceFile;
use crate::diagnostic::Diagnostics;

const MARK: &str = "### tuple ###";

/// One rule of one IP version, as UFW stores it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Tuple {
    pub(crate) line: usize,
    pub(crate) spec: RuleSpec,
    pub(crate) comment: Option<String>,
}

/// What a rule matches and does. The IPv4 and IPv6 halves of one `ufw` command have equal specs.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub(crate) struct RuleSpec {
    pub(crate) action: Action,
    /// Whether the command said `log` or `log-all`.
    pub(crate) logs: bool,
    pub(crate) direction: Direction,
    /// Name of a protocol, or `any`.
    pub(crate) protocol: String,
    pub(crate) destination: Endpoint,
    pub(crate) source: Endpoint,
    pub(crate) in_interface: Option<String>,
    pub(crate) out_interface: Option<String>,
}

impl RuleSpec {
    /// Returns whether the rule is for every protocol and destination port.
    pub(crate) fn is_for_any_service(&self) -> bool {
        self.protocol == "any" && self.destination.ports.is_empty()
    }
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub(crate) enum Action {
    Allow,
    Deny,
    Reject,
    Limit,
}

impl Action {
    /// Returns the word that both UFW and policies use.
    pub(crate) fn word(self) -> &'static str {
        match self {
            Self::Allow => "allow",
            Self::Deny => "deny",
            Self::Reject => "reject",
            Self::Limit => "limit",
        }
    }

    /// Returns whether the action refuses every packet that the rule matches.
    pub(crate) fn refuses(self) -> bool {
        matches!(self, Self::Deny | Self::Reject)
    }
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub(crate) enum Direction {
    In,
    Out,
    Route,
}

/// Source or destination of a connection.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub(crate) struct Endpoint {
    /// `None` matches every address.
    pub(crate) net: Option<IpNetwork>,
    /// Inclusive ranges. An empty list matches every port.
    pub(crate) ports: Vec<(u16, u16)>,
    /// Name of the application profile that the ports are from.
    pub(crate) app: Option<String>,
}

impl Endpoint {
    /// Every address and port.
    pub(crate) const ANY: Self = Self { net: None, ports: Vec::new(), app: None };
}

/// Reads the tuples of a file, in order.
pub(crate) fn read(
    file: &SourceFile,
    version: IpVersion,
    diagnostics: &mut Diagnostics,
) -> Vec<Tuple> {
    let mut tuples = Vec::new();
    // UFW puts an empty line before each of its own rules.
    let (mut in_rules, mut in_tuple) = (false, false);
    for (text, line) in file.text.lines().zip(1..) {
        let text = text.trim();
        if let Some(words) = text.strip_prefix(MARK) {
            match tuple(words, line, version) {
                Ok(tuple) => tuples.push(tuple),
                Err(reason) => {
                    let message = format!("{reason}: {}", words.trim());
                    diagnostics.not_carried_over(&file.name, line, message);
                }
            }
            in_tuple = true;
        } else if text == "### RULES ###" {
            in_rules = true;
        } else if text == "### END RULES ###" {
            in_rules = false;
        } else if text.is_empty() {
            in_tuple = false;
        } else if in_rules && !in_tuple && text.starts_with('-') && !is_limit_chain(text) {
            let message = format!("a rule that no ufw command made: {text}");
            diagnostics.not_carried_over(&file.name, line, message);
        }
    }
    tuples
}

/// Returns whether a line is part of UFW's chain for limits. A fresh file has that chain among the
/// rules.
fn is_limit_chain(text: &str) -> bool {
    ["-A ufw-user-limit", "-A ufw6-user-limit"].iter().any(|start| text.starts_with(start))
}

fn tuple(text: &str, line: usize, version: IpVersion) -> Result<Tuple, String> {
    let (words, comment) = match text.split_once(" comment=") {
        Some((words, hex)) => (words, Some(hex.trim())),
        None => (text, None),
    };
    let words: Vec<&str> = words.split_whitespace().collect();
    let (rest, dapp, sapp, last) = match words.as_slice() {
        // UFW wrote no direction before version 0.30.
        [rest @ .., dapp, sapp] if rest.len() == 6 => (rest, Some(*dapp), Some(*sapp), "in"),
        [rest @ .., dapp, sapp, last] if rest.len() == 6 => (rest, Some(*dapp), Some(*sapp), *last),
        [rest @ .., last] if rest.len() == 6 => (rest, None, None, *last),
        rest if rest.len() == 6 => (rest, None, None, "in"),
        _ => return Err("a rule with too few or too many words".to_owned()),
    };
    let [action, protocol, dport, dst, sport, src] = rest else {
        return Err("a rule with too few or too many words".to_owned());
    };
    let (is_route, action) = match action.split_once(':') {
        Some(("route", action)) => (true, action),
        Some(_) => return Err("an unknown kind of rule".to_owned()),
        None => (false, *action),
    };
    let (action, logs) = match action.split_once('_') {
        Some((action, "log" | "log-all")) => (action, true),
        Some(_) => return Err("an unknown way to log".to_owned()),
        None => (action, false),
    };
    let action = match action {
        "allow" => Action::Allow,
        "deny" => Action::Deny,
        "reject" => Action::Reject,
        "limit" => Action::Limit,
        _ => return Err("an unknown action".to_owned()),
    };
    let Interfaces { is_out, in_interface, out_interface } = interfaces(last)?;
    let app =
        |name: Option<&str>| name.filter(|name| *name != "-").map(|name| name.replace("%20", " "));
    let direction = match (is_route, is_out) {
        (true, _) => Direction::Route,
        (false, true) => Direction::Out,
        (false, false) => Direction::In,
    };
    let spec = RuleSpec {
        action,
        logs,
        direction,
        protocol: (*protocol).to_owned(),
        destination: Endpoint { net: net(dst, version)?, ports: ports(dport)?, app: app(dapp) },
        source: Endpoint { net: net(src, version)?, ports: ports(sport)?, app: app(sapp) },
        in_interface,
        out_interface,
    };
    Ok(Tuple { line, spec, comment: comment.map(decode_hex).filter(|text| !text.is_empty()) })
}

/// What the last word of a tuple says.
struct Interfaces {
    is_out: bool,
    in_interface: Option<String>,
    out_interface: Option<String>,
}

/// Reads `in`, `out`, `in_eth0`, `out_eth0` or `in_eth0!out_eth1`.
fn interfaces(word: &str) -> Result<Interfaces, String> {
    let is_out = word.starts_with("out");
    let mut interfaces = Interfaces { is_out, in_interface: None, out_interface: None };
    for part in word.split('!') {
        match part.split_once('_') {
            Some(("in", name)) => interfaces.in_interface = interface(name),
            Some(("out", name)) => interfaces.out_interface = interface(name),
            None if matches!(part, "in" | "out") => {}
            _ => return Err("an unknown direction".to_owned()),
        }
    }
    Ok(interfaces)
}

/// Returns an interface as a policy writes it. The wildcard is `+` in UFW and `*` in a policy.
fn interface(name: &str) -> Option<String> {
    match name.strip_suffix('+') {
        Some("") => None,
        Some(start) => Some(format!("{start}*")),
        None => Some(name.to_owned()),
    }
}

fn ports(word: &str) -> Result<Vec<(u16, u16)>, String> {
    if word == "any" {
        return Ok(Vec::new());
    }
    let number = |text: &str| text.parse::<u16>().ok().filter(|port| *port > 0);
    let range = |item: &str| {
        let (low, high) = item.split_once(':').unwrap_or((item, item));
        let (low, high) = (number(low)?, number(high)?);
        (low <= high).then_some((low, high))
    };
    let ports: Option<Vec<_>> = word.split(',').map(range).collect();
    ports.ok_or_else(|| "a bad port".to_owned())
}

fn net(word: &str, version: IpVersion) -> Result<Option<IpNetwork>, String> {
    if matches!(word, "any" | "0.0.0.0/0" | "::/0") {
        return Ok(None);
    }
    let bad = || "a bad address".to_owned();
    let (address, length) = match word.split_once('/') {
        Some((address, length)) => (address, Some(length)),
        None => (word, None),
    };
    let address: IpAddr = address.parse().map_err(|_| bad())?;
    let longest = IpVersion::of(address).address_bits();
    let length = match length.map(|text| (text.parse::<u8>(), text.parse::<Ipv4Addr>())) {
        None => longest,
        Some((Ok(length), _)) => length,
        Some((_, Ok(mask))) if address.is_ipv4() => ipnetwork::ipv4_mask_to_prefix(mask)
            .map_err(|_| "a netmask with holes, which no prefix can say".to_owned())?,
        Some(_) => return Err(bad()),
    };
    if IpVersion::of(address) != version {
        return Err("an address of the other family".to_owned());
    }
    let given = IpNetwork::new(address, length).map_err(|_| bad())?;
    // UFW removes host bits itself. iptables removes them from addresses that were edited by hand.
    let net = IpNetwork::new(given.network(), length).map_err(|_| bad())?;
    Ok(Some(net).filter(|net| net.prefix() > 0))
}

/// Returns the text of a hexadecimal `comment=`. An odd digit at the end is ignored, as UFW does.
fn decode_hex(hex: &str) -> String {
    let byte = |pair: &[u8]| u8::from_str_radix(str::from_utf8(pair).ok()?, 16).ok();
    let bytes: Vec<u8> = hex.as_bytes().chunks_exact(2).map_while(byte).collect();
    String::from_utf8_lossy(&bytes).into_owned()
}
