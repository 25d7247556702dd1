//! `explain`: which rule decides about a connection.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

use nfguard_netlink::eval::{Decision, Fate, Memory};
use nfguard_netlink::{Hook, ICMP_TYPES, ICMPV6_TYPES, protocol, text};
use nfguard_policy::{Flow, FlowPath, Payload, explain as ask};
use serde_json::{Value, json};

use crate::args::Question;
use crate::output::failure::Failure;
use crate::output::{self, BAD, GOOD};
use crate::{Answer, Done};

/// Stand-ins for "somebody" and "this host" (RFC 5737, RFC 3849).
pub(crate) const SOMEBODY_V4: IpAddr = IpAddr::V4(Ipv4Addr::new(203, 0, 113, 7));
pub(crate) const SOMEBODY_V6: IpAddr = IpAddr::V6(Ipv6Addr::new(0x2001, 0xdb8, 0, 0, 0, 0, 0, 7));
pub(crate) const HOST_V4: IpAddr = IpAddr::V4(Ipv4Addr::new(198, 51, 100, 2));
pub(crate) const HOST_V6: IpAddr = IpAddr::V6(Ipv6Addr::new(0x2001, 0xdb8, 1, 0, 0, 0, 0, 2));
/// A source port that nobody listens at.
pub(crate) const SOURCE_PORT: u16 = 40_000;

pub(crate) fn explain(question: &Question, as_json: bool) -> Done {
    let file = output::read_policy(&question.file, as_json)?;
    let flow = flow(question).map_err(Failure::Usage)?;
    let table = file.policy.compile();
    let mut memory = Memory::default();
    let mut explanation = ask(&table, &flow, &mut memory);
    for _ in 1..question.nth {
        explanation = ask(&table, &flow, &mut memory);
    }
    let accepted = explanation.fate == Fate::Accept;
    let scan = explanation.scan();
    if as_json {
        let hooks: Vec<Value> =
            explanation.hooks.iter().map(|(hook, decision)| describe(*hook, decision)).collect();
        output::json(&json!({
            "warnings": file.warnings,
            "verdict": fate_word(explanation.fate),
            "decided_by": explanation.deciding().map(|(hook, decision)| describe(*hook, decision)),
            "hooks": hooks,
            "scan": scan.map(|(counts, why)| json!({ "counts": counts, "why": why })),
        }));
    } else {
        let style = if accepted { GOOD } else { BAD };
        output::line(&format!("{style}{}{style:#}", fate_word(explanation.fate)));
        for (hook, decision) in &explanation.hooks {
            let rule = match decision.rule {
                Some((index, rule)) => format!("rule {}: {}", index + 1, text::rule(rule)),
                None => "its policy".to_owned(),
            };
            let hook = text::hook_word(*hook);
            let is_deciding = explanation.deciding().is_some_and(|(_, it)| it == decision);
            let mark = if is_deciding { "decided at" } else { "passes" };
            output::line(&format!("  {mark} {hook}, chain {}, {rule}", decision.chain));
        }
        if let Some((counts, why)) = scan {
            let counts = if counts { "counts" } else { "does not count" };
            output::line(&format!("  {counts} as evidence of a scan: {why}"));
        }
    }
    Ok(Answer::from(accepted))
}

pub(crate) fn fate_word(fate: Fate) -> &'static str {
    match fate {
        Fate::Accept => "accept",
        Fate::Drop => "drop",
        Fate::Reject(_) => "reject",
    }
}

fn describe(hook: Hook, decision: &Decision<'_>) -> Value {
    json!({
        "hook": text::hook_word(hook),
        "verdict": fate_word(decision.fate),
        "chain": decision.chain,
        "rule": decision.rule.map(|(index, rule)| json!({
            "index": index,
            "comment": rule.comment,
            "nft": text::rule(rule),
        })),
    })
}

fn flow(question: &Question) -> Result<Flow, String> {
    let path = match question.published {
        Some(inner) => FlowPath::Published(inner),
        None if question.input => FlowPath::In,
        None if question.out => FlowPath::Out,
        None => FlowPath::Forward,
    };
    let (target, what) = parse_target(&question.to)?;
    let from = question.from.map(|(address, _)| address);
    let is_v6 = match (from.or(target), what) {
        (Some(address), _) => address.is_ipv6(),
        (None, What::Icmp(None, _)) => true,
        (None, _) => false,
    };
    let outgoing = path == FlowPath::Out;
    let somebody = if is_v6 { SOMEBODY_V6 } else { SOMEBODY_V4 };
    let host = if is_v6 { HOST_V6 } else { HOST_V4 };
    let source = from.unwrap_or(if outgoing { host } else { somebody });
    let destination = target.unwrap_or(if outgoing { somebody } else { host });
    if source.is_ipv4() != destination.is_ipv4() {
        return Err(format!("{source} and {destination} are of different families"));
    }
    let source_port = question.from.and_then(|(_, port)| port).unwrap_or(SOURCE_PORT);
    let payload = match what {
        What::Ports(protocol, destination) => {
            Payload::Ports { protocol, source: source_port, destination }
        }
        What::Protocol(number) => Payload::Protocol(number),
        What::Icmp(v4, v6) => {
            let kind = if is_v6 { v6 } else { v4 };
            let family = if is_v6 { "ICMPv6" } else { "ICMP" };
            let kind = kind.ok_or_else(|| format!("{} is no type of {family}", question.to))?;
            Payload::Icmp { kind }
        }
    };
    let (in_interface, out_interface) = (question.iif.clone(), question.oif.clone());
    Ok(Flow { path, source, destination, payload, in_interface, out_interface })
}

#[derive(Clone, Copy)]
enum What {
    Ports(u8, u16),
    Protocol(u8),
    /// As ICMP and as ICMPv6.
    Icmp(Option<u8>, Option<u8>),
}

/// `[ADDR:]PORT/PROTO`, `[ADDR/]ICMP-TYPE`, `[ADDR/]PROTOCOL` or only an address, which is a ping.
fn parse_target(text: &str) -> Result<(Option<IpAddr>, What), String> {
    let expected = || {
        format!(
            "--to {text}: expected PORT/tcp, PORT/udp, ADDR:PORT/tcp, [ADDR]:PORT/udp, an address, \
             an ICMP type (echo-request) or a protocol's name (gre)"
        )
    };
    if let Ok(address) = text.parse::<IpAddr>() {
        return Ok((Some(address), echo_request()));
    }
    if text.parse::<u16>().is_ok() {
        return Err(format!("--to {text}: of which protocol? {text}/tcp or {text}/udp"));
    }
    let Some((head, tail)) = text.rsplit_once('/') else {
        return Ok((None, parse_word(text).ok_or_else(expected)?));
    };
    let number = match tail {
        "tcp" => protocol::TCP,
        "udp" => protocol::UDP,
        _ => {
            let address = head.trim_matches(['[', ']']).parse().map_err(|_| expected())?;
            return Ok((Some(address), parse_word(tail).ok_or_else(expected)?));
        }
    };
    if let Ok(port) = head.parse() {
        return Ok((None, What::Ports(number, port)));
    }
    let both: std::net::SocketAddr = head.parse().map_err(|_| expected())?;
    Ok((Some(both.ip()), What::Ports(number, both.port())))
}

fn echo_request() -> What {
    parse_word("echo-request").unwrap_or(What::Icmp(None, None))
}

fn parse_word(word: &str) -> Option<What> {
    let find = |types: &[(&str, u8)]| {
        types.iter().find(|(name, _)| *name == word).map(|(_, number)| *number)
    };
    let (v4, v6) = (find(ICMP_TYPES), find(ICMPV6_TYPES));
    if v4.is_some() || v6.is_some() {
        return Some(What::Icmp(v4, v6));
    }
    nfguard_policy::protocol_number(word).map(What::Protocol)
}
