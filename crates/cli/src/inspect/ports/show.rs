//! The ports for people and for programs.

use anstyle::Style;
use serde_json::{Value, json};

use super::{Answer, Port, State, word};
use crate::inspect::system::PROXY;
use crate::output::{self, BAD, GOOD, NOTE};

pub(crate) fn print(ports: &[Port]) {
    let rows: Vec<_> = ports.iter().map(|port| (answered_by(port), port)).collect();
    let widths = rows.iter().map(|(answer, _)| answer.chars().count());
    let width = widths.max().unwrap_or(0).max(ANSWERED_BY.len());
    output::line(&format!(
        "\n{:<16} {:<6} {ANSWERED_BY:<width$}  from the world",
        "port", "family"
    ));
    for (answer, port) in rows {
        let families = port.families.iter().map(|is_v6| if *is_v6 { "v6" } else { "v4" });
        let families = families.collect::<Vec<_>>().join(" ");
        let (style, words) = verdict(port);
        let name = port.name();
        output::line(&format!(
            "{name:<16} {families:<6} {answer:<width$}  {style}{words}{style:#}"
        ));
    }
}

const ANSWERED_BY: &str = "answered by";

/// What stands out begins with a mark, for those who see no colour.
fn verdict(port: &Port) -> (Style, String) {
    let by = port.world.as_ref().and_then(|(_, by)| by.as_deref());
    let by = by.map(|by| format!(" ({by})")).unwrap_or_default();
    match port.state() {
        State::Reachable => (GOOD, format!("reachable{by}")),
        State::NotAllowed => (Style::new(), "not allowed".to_owned()),
        State::PublishedNotAllowed => (BAD, "! published, but not allowed".to_owned()),
        State::NobodyAnswers => (NOTE, format!("! allowed, but nothing answers{by}")),
        State::Local => (Style::new(), "only this host itself".to_owned()),
        State::NoPolicy => (BAD, "no policy is loaded".to_owned()),
    }
}

fn answered_by(port: &Port) -> String {
    let answer = describe(&port.answer);
    port.on.map_or(answer.clone(), |on| format!("{answer}, only at {on}"))
}

fn describe(answer: &Answer) -> String {
    match answer {
        Answer::Sent { to, container: Some(name), .. } => {
            format!("container {name} at {to}, by DNAT")
        }
        Answer::Sent { to, bridge: Some(_), .. } => format!("container at {to}, by DNAT"),
        // Somebody's own rule, not Docker's.
        Answer::Sent { to, .. } => format!("{to}, by DNAT"),
        Answer::Relayed { to: Some(to), container: Some(name) } => {
            format!("{PROXY}, for container {name} at {to}")
        }
        Answer::Relayed { to: Some(to), container: None } => {
            format!("{PROXY}, for the container at {to}")
        }
        Answer::Relayed { to: None, .. } => PROXY.to_owned(),
        Answer::Process(Some((id, name))) => format!("{name} (process {id})"),
        Answer::Process(None) => "a socket of this host".to_owned(),
        Answer::Docker { container } => format!("container {container}, Docker says"),
        Answer::Nobody => "nothing".to_owned(),
    }
}

pub(crate) fn to_json(ports: &[Port]) -> Vec<Value> {
    let one = |port: &Port| {
        let families = port.families.iter().map(|is_v6| if *is_v6 { "ipv6" } else { "ipv4" });
        let answer = match &port.answer {
            Answer::Sent { to, container, .. } => json!({
                "kind": "dnat", "address": to.ip(), "port": to.port(), "container": container,
            }),
            Answer::Relayed { to, container } => json!({
                "kind": "docker-proxy",
                "address": to.map(|to| to.ip()),
                "port": to.map(|to| to.port()),
                "container": container,
            }),
            Answer::Process(process) => json!({
                "kind": "process",
                "pid": process.as_ref().map(|(id, _)| id),
                "name": process.as_ref().map(|(_, name)| name),
            }),
            Answer::Docker { container } => json!({ "kind": "docker", "container": container }),
            Answer::Nobody => json!({ "kind": "nothing" }),
        };
        json!({
            "port": port.ports.0,
            "last_port": port.ports.1,
            "protocol": word(port.protocol),
            "families": families.collect::<Vec<_>>(),
            "address": port.on,
            "answer": answer,
            "allowed": port.world.as_ref().map(|(allowed, _)| allowed),
            "rule": port.world.as_ref().and_then(|(_, by)| by.as_ref()),
            "state": match port.state() {
                State::Reachable => "reachable",
                State::NotAllowed => "not-allowed",
                State::PublishedNotAllowed => "published-not-allowed",
                State::NobodyAnswers => "allowed-not-answered",
                State::Local => "local",
                State::NoPolicy => "no-policy",
            },
        })
    };
    ports.iter().map(one).collect()
}
