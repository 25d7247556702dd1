//! The comment lines of `user.rules` that UFW itself reads back.
//!
//! `### tuple ### ACTION PROTO DPORT DST SPORT SRC [DAPP SAPP] DIRECTION comment=HEX`

use std::net::{IpAddr, Ipv4Addr};

use ipnetwork::IpNetwork;

use super::{Findings, Text};

const MARK: &str = "### tuple ###";

/// One rule of one family, as UFW remembers it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Tuple {
    pub(super) line: usize,
    pub(super) what: What,
    pub(super) comment: Option<String>,
}

/// What a rule does and to what: equal for the two halves of a rule that holds for both families.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub(super) struct What {
    pub(super) action: Action,
    /// `log` or `log-all`.
    pub(super) log: bool,
    pub(super) way: Way,
    /// `any`, or a protocol's name.
    pub(super) proto: String,
    pub(super) to: End,
    pub(super) from: End,
    pub(super) in_interface: Option<String>,
    pub(super) out_interface: Option<String>,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub(super) enum Action {
    Allow,
    Deny,
    Reject,
    Limit,
}

impl Action {
    /// As UFW and policies write it.
    pub(super) fn word(self) -> &'static str {
        match self {
            Self::Allow => "allow",
            Self::Deny => "deny",
            Self::Reject => "reject",
            Self::Limit => "limit",
        }
    }
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub(super) enum Way {
    In,
    Out,
    Route,
}

/// One end of a connection.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub(super) struct End {
    /// `None`: anywhere.
    pub(super) net: Option<IpNetwork>,
    /// Ranges; empty: any.
    pub(super) ports: Vec<(u16, u16)>,
    /// The profile that the ports are from.
    pub(super) app: Option<String>,
}

/// The rules of a file, in order.
pub(super) fn read(file: &Text, is_v6: bool, findings: &mut Findings) -> Vec<Tuple> {
    let mut tuples = Vec::new();
    // UFW puts an empty line before each of its own rules.
    let (mut inside, mut of_tuple) = (false, false);
    for (text, line) in file.text.lines().zip(1..) {
        let text = text.trim();
        if let Some(words) = text.strip_prefix(MARK) {
            match tuple(words, line, is_v6) {
                Ok(tuple) => tuples.push(tuple),
                Err(why) => findings.lost(&file.name, line, format!("{why}: {}", words.trim())),
            }
            of_tuple = true;
        } else if text == "### RULES ###" {
            inside = true;
        } else if text == "### END RULES ###" {
            inside = false;
        } else if text.is_empty() {
            of_tuple = false;
        } else if inside && !of_tuple && text.starts_with('-') && !is_limit_chain(text) {
            let message = format!("a rule that no ufw command made: {text}");
            findings.lost(&file.name, line, message);
        }
    }
    tuples
}

/// A fresh file has them in the middle of its rules.
fn is_limit_chain(text: &str) -> bool {
    ["-A ufw-user-limit", "-A ufw6-user-limit"].iter().any(|start| text.starts_with(start))
}

fn tuple(text: &str, line: usize, is_v6: bool) -> Result<Tuple, String> {
    let (words, comment) = match text.split_once(" comment=") {
        Some((words, hex)) => (words, Some(hex.trim())),
        None => (text, None),
    };
    let words: Vec<&str> = words.split_whitespace().collect();
    let (rest, dapp, sapp, last) = match words.as_slice() {
        // Before version 0.30 there was no direction.
        [rest @ .., dapp, sapp] if rest.len() == 6 => (rest, Some(*dapp), Some(*sapp), "in"),
        [rest @ .., dapp, sapp, last] if rest.len() == 6 => (rest, Some(*dapp), Some(*sapp), *last),
        [rest @ .., last] if rest.len() == 6 => (rest, None, None, *last),
        rest if rest.len() == 6 => (rest, None, None, "in"),
        _ => return Err("a rule with too few or too many words".to_owned()),
    };
    let [action, proto, dport, dst, sport, src] = rest else {
        return Err("a rule with too few or too many words".to_owned());
    };
    let (is_route, action) = match action.split_once(':') {
        Some(("route", action)) => (true, action),
        Some(_) => return Err("an unknown kind of rule".to_owned()),
        None => (false, *action),
    };
    let (action, log) = match action.split_once('_') {
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
    let (is_out, in_interface, out_interface) = direction(last)?;
    let app =
        |name: Option<&str>| name.filter(|name| *name != "-").map(|name| name.replace("%20", " "));
    let way = match (is_route, is_out) {
        (true, _) => Way::Route,
        (false, true) => Way::Out,
        (false, false) => Way::In,
    };
    let what = What {
        action,
        log,
        way,
        proto: (*proto).to_owned(),
        to: End { net: net(dst, is_v6)?, ports: ports(dport)?, app: app(dapp) },
        from: End { net: net(src, is_v6)?, ports: ports(sport)?, app: app(sapp) },
        in_interface,
        out_interface,
    };
    Ok(Tuple { line, what, comment: comment.map(unhex).filter(|text| !text.is_empty()) })
}

type Interfaces = (bool, Option<String>, Option<String>);

/// `in`, `out`, `in_eth0`, `out_eth0` or `in_eth0!out_eth1`.
fn direction(word: &str) -> Result<Interfaces, String> {
    let (is_out, mut inputs) = (word.starts_with("out"), (None, None));
    for part in word.split('!') {
        match part.split_once('_') {
            Some(("in", name)) => inputs.0 = interface(name),
            Some(("out", name)) => inputs.1 = interface(name),
            None if matches!(part, "in" | "out") => {}
            _ => return Err("an unknown direction".to_owned()),
        }
    }
    Ok((is_out, inputs.0, inputs.1))
}

/// `+` at the end stands for anything, as `*` does in a policy.
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

fn net(word: &str, is_v6: bool) -> Result<Option<IpNetwork>, String> {
    if matches!(word, "any" | "0.0.0.0/0" | "::/0") {
        return Ok(None);
    }
    let bad = || "a bad address".to_owned();
    let (address, length) = match word.split_once('/') {
        Some((address, length)) => (address, Some(length)),
        None => (word, None),
    };
    let address: IpAddr = address.parse().map_err(|_| bad())?;
    let whole = if address.is_ipv4() { 32 } else { 128 };
    let length = match length.map(|text| (text.parse::<u8>(), text.parse::<Ipv4Addr>())) {
        None => whole,
        Some((Ok(length), _)) => length,
        Some((_, Ok(mask))) if address.is_ipv4() => ipnetwork::ipv4_mask_to_prefix(mask)
            .map_err(|_| "a netmask with holes, which no prefix can say".to_owned())?,
        Some(_) => return Err(bad()),
    };
    if address.is_ipv6() != is_v6 {
        return Err("an address of the other family".to_owned());
    }
    let given = IpNetwork::new(address, length).map_err(|_| bad())?;
    // UFW cuts host bits off itself; iptables does where somebody wrote them by hand.
    let net = IpNetwork::new(given.network(), length).map_err(|_| bad())?;
    Ok(Some(net).filter(|net| net.prefix() > 0))
}

/// What `comment=` says in hexadecimal; an odd digit at the end is left out, as UFW does.
fn unhex(hex: &str) -> String {
    let byte = |pair: &[u8]| u8::from_str_radix(str::from_utf8(pair).ok()?, 16).ok();
    let bytes: Vec<u8> = hex.as_bytes().chunks_exact(2).map_while(byte).collect();
    String::from_utf8_lossy(&bytes).into_owned()
}
