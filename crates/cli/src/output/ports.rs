//! The ports of this host, for people and for programs.

use std::net::IpAddr;

use anstyle::Style;
use nfguard_netlink::IpVersion;
use nfguard_netlink::comment::one_line;
use serde_json::{Value, json};

use super::{BAD, GOOD, NOTE, PLAIN};
use crate::inspect::network::Network;
use crate::inspect::ports::{Port, Responder, State, protocol_name};
use crate::inspect::system::PROXY;
use crate::output;

pub(crate) fn print(ports: &[Port], network: &Network) {
    let rows: Vec<_> = ports.iter().map(|port| (responder_text(port, network), port)).collect();
    let widths = rows.iter().map(|(answer, _)| answer.chars().count());
    let width = widths.max().unwrap_or(0).max(ANSWERED_BY.len());
    output::line("");
    output::line(&format!("{:<16} {:<6} {ANSWERED_BY:<width$}  from the world", "port", "family"));
    for (answer, port) in rows {
        let versions = port.ip_versions.iter().map(|version| version.suffix());
        let versions = versions.collect::<Vec<_>>().join(" ");
        let (style, words) = verdict(port);
        let name = port.name();
        let start = format!("{name:<16} {versions:<6} {answer:<width$}  ");
        output::spans(&[(PLAIN, &start), (style, &words)]);
    }
}

const ANSWERED_BY: &str = "answered by";

/// A mark precedes what needs attention: not every terminal shows colours.
fn verdict(port: &Port) -> (Style, String) {
    let rule = port.admission.as_ref().and_then(|admission| admission.rule.as_deref());
    let by = rule.map(|rule| format!(" ({rule})")).unwrap_or_default();
    match port.state() {
        State::Reachable => (GOOD, format!("reachable{by}")),
        State::NotAllowed => (PLAIN, "not allowed".to_owned()),
        State::PublishedNotAllowed => (BAD, "! published, but not allowed".to_owned()),
        State::AllowedNotAnswered => (NOTE, format!("! allowed, but nothing answers{by}")),
        State::Local => (PLAIN, "only this host itself".to_owned()),
        State::NoPolicy => (BAD, "no policy is loaded".to_owned()),
    }
}

fn responder_text(port: &Port, network: &Network) -> String {
    let responder = one_line(&describe(&port.responder, network)).into_owned();
    match port.on {
        Some(on) => format!("{responder}, only at {on}"),
        None => responder,
    }
}

fn describe(responder: &Responder, network: &Network) -> String {
    let is_guest = |to: &IpAddr| {
        let way = network.way(*to);
        way.is_some_and(|way| !way.is_local() && network.is_for_guests(&way.interface))
    };
    match responder {
        Responder::Translated { to, container: Some(name), .. } => {
            format!("container {name} at {to}, by DNAT")
        }
        Responder::Translated { to, .. } if is_guest(&to.address) => {
            format!("container at {to}, by DNAT")
        }
        // A rule of the operator, not of Docker.
        Responder::Translated { to, .. } => format!("{to}, by DNAT"),
        Responder::Relayed { to: Some(to), container: Some(name) } => {
            format!("{PROXY}, for container {name} at {to}")
        }
        Responder::Relayed { to: Some(to), container: None } => {
            format!("{PROXY}, for the container at {to}")
        }
        Responder::Relayed { to: None, .. } => PROXY.to_owned(),
        Responder::Process(Some((id, name))) => format!("{name} (process {id})"),
        Responder::Process(None) => "a socket of this host".to_owned(),
        Responder::Docker { container } => format!("container {container}, Docker says"),
        Responder::Nothing => "nothing".to_owned(),
    }
}

pub(crate) fn to_json(ports: &[Port]) -> Vec<Value> {
    let one = |port: &Port| {
        let families = port.ip_versions.iter().map(|version| match version {
            IpVersion::V4 => "ipv4",
            IpVersion::V6 => "ipv6",
        });
        let responder = match &port.responder {
            Responder::Translated { to, container, .. } => json!({
                "kind": "dnat", "address": to.address, "port": to.ports.0,
                "last_port": to.ports.1, "container": container,
            }),
            Responder::Relayed { to, container } => json!({
                "kind": "docker-proxy",
                "address": to.map(|to| to.address),
                "port": to.map(|to| to.ports.0),
                "last_port": to.map(|to| to.ports.1),
                "container": container,
            }),
            Responder::Process(process) => json!({
                "kind": "process",
                "pid": process.as_ref().map(|(id, _)| id),
                "name": process.as_ref().map(|(_, name)| name),
            }),
            Responder::Docker { container } => json!({ "kind": "docker", "container": container }),
            Responder::Nothing => json!({ "kind": "nothing" }),
        };
        json!({
            "port": port.ports.0,
            "last_port": port.ports.1,
            "protocol": protocol_name(port.protocol),
            "families": families.collect::<Vec<_>>(),
            "address": port.on,
            "answer": responder,
            "allowed": port.admission.as_ref().map(|admission| admission.allowed),
            "rule": port.admission.as_ref().and_then(|admission| admission.rule.as_ref()),
            "state": match port.state() {
                State::Reachable => "reachable",
                State::NotAllowed => "not-allowed",
                State::PublishedNotAllowed => "published-not-allowed",
                State::AllowedNotAnswered => "allowed-not-answered",
                State::Local => "local",
                State::NoPolicy => "no-policy",
            },
        })
    };
    ports.iter().map(one).collect()
}
