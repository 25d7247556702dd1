//! `explain`: shows which rule decides about a connection.

use std::net::IpAddr;

use nfguard_netlink::eval::{Decision, Fate, Memory};
use nfguard_netlink::{Hook, ICMP_TYPES, ICMPV6_TYPES, IpVersion, protocol, text};
use nfguard_policy::{Flow, FlowPath, Payload, Treatment, explain_treated};
use serde_json::{Value, json};

use crate::args::ExplainRequest;
use crate::inspect::example::{self, SOURCE_PORT};
use crate::output::failure::Failure;
use crate::output::{self, Answer, BAD, Done, GOOD, fate_word};

pub(crate) fn explain(request: &ExplainRequest, as_json: bool) -> Done {
    let file = output::read_policy(&request.file, as_json)?;
    let flow = flow(request).map_err(Failure::Usage)?;
    let table = file.policy.compile();
    let mut memory = Memory::default();
    let treatment = Treatment {
        mark: request.mark,
        is_untracked: request.untracked,
        has_no_return_path: request.no_return_path,
        ..Treatment::default()
    };
    let mut explanation = explain_treated(&table, &flow, &treatment, &mut memory);
    for _ in 1..request.nth {
        explanation = explain_treated(&table, &flow, &treatment, &mut memory);
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
        output::styled(style, fate_word(explanation.fate));
        for (hook, decision) in &explanation.hooks {
            let rule = match decision.rule {
                Some((index, rule)) => format!("rule {}: {}", index + 1, text::rule(rule)),
                None => "its policy".to_owned(),
            };
            let hook = text::hook_word(*hook);
            let is_deciding = explanation.deciding().is_some_and(|(_, it)| it == decision);
            let mark = if is_deciding { "decided at" } else { "passes" };
            let chain = decision.chain;
            output::line(&format!("  {mark} {hook}, chain {chain}, {rule}"));
        }
        if let Some((counts, why)) = scan {
            let counts = if counts { "counts" } else { "does not count" };
            output::line(&format!("  {counts} as evidence of a scan: {why}"));
        }
    }
    Ok(Answer::from(accepted))
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

fn flow(request: &ExplainRequest) -> Result<Flow, String> {
    let path = match request.published {
        Some(inner) => FlowPath::Published(inner),
        None if request.input => FlowPath::In,
        None if request.out => FlowPath::Out,
        None => FlowPath::Forward,
    };
    let (target, payload) = parse_target(&request.to)?;
    let from = request.from.map(|(address, _)| address);
    let version = match (from.or(target), payload) {
        (Some(address), _) => IpVersion::of(address),
        (None, Target::Icmp { v4: None, .. }) => IpVersion::V6,
        (None, _) => IpVersion::V4,
    };
    let (remote, host) = (example::remote(version), example::host(version));
    let (near, far) = if path == FlowPath::Out { (remote, host) } else { (host, remote) };
    let source = from.unwrap_or(far);
    let destination = target.unwrap_or(near);
    if IpVersion::of(source) != IpVersion::of(destination) {
        return Err(format!("{source} and {destination} are addresses of different IP versions"));
    }
    let source_port = request.from.and_then(|(_, port)| port).unwrap_or(SOURCE_PORT);
    let payload = match payload {
        Target::Ports { protocol, port } => {
            Payload::Ports { protocol, source: source_port, destination: port }
        }
        Target::Protocol(number) => Payload::Protocol(number),
        Target::Icmp { v4, v6 } => {
            let (kind, protocol) = match version {
                IpVersion::V4 => (v4, "ICMP"),
                IpVersion::V6 => (v6, "ICMPv6"),
            };
            let kind = kind.ok_or_else(|| format!("{} is no type of {protocol}", request.to))?;
            Payload::Icmp { kind }
        }
    };
    let (in_interface, out_interface) = (request.iif.clone(), request.oif.clone());
    Ok(Flow { path, source, destination, payload, in_interface, out_interface })
}

#[derive(Clone, Copy)]
enum Target {
    Ports {
        protocol: u8,
        port: u16,
    },
    Protocol(u8),
    /// The number of the type in ICMP and in ICMPv6.
    Icmp {
        v4: Option<u8>,
        v6: Option<u8>,
    },
}

/// Parses `[ADDR:]PORT/PROTO`, `[ADDR/]ICMP-TYPE`, `[ADDR/]PROTOCOL`, or an address alone, which is a
/// ping.
fn parse_target(text: &str) -> Result<(Option<IpAddr>, Target), String> {
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
        return Err(format!(
            "--to {text}: the protocol is missing, expected {text}/tcp or {text}/udp"
        ));
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
        return Ok((None, Target::Ports { protocol: number, port }));
    }
    let both: std::net::SocketAddr = head.parse().map_err(|_| expected())?;
    Ok((Some(both.ip()), Target::Ports { protocol: number, port: both.port() }))
}

fn echo_request() -> Target {
    parse_word("echo-request").unwrap_or(Target::Icmp { v4: None, v6: None })
}

fn parse_word(word: &str) -> Option<Target> {
    let find = |types: &[(&str, u8)]| {
        types.iter().find(|(name, _)| *name == word).map(|(_, number)| *number)
    };
    let (v4, v6) = (find(ICMP_TYPES), find(ICMPV6_TYPES));
    if v4.is_some() || v6.is_some() {
        return Some(Target::Icmp { v4, v6 });
    }
    nfguard_policy::protocol_number(word).map(Target::Protocol)
}
