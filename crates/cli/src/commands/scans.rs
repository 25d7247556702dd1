//! `scans`: lists the scanners that `log --keep` has recorded.

use std::net::IpAddr;

use nfguard_ban::Target;
use nfguard_control::history::History;
use nfguard_control::scanners::{self, Source};
use nfguard_policy::protocol_word;
use serde_json::{Value, json};

use crate::output::{self, Answer, Done, tcp_flags};

pub(crate) fn scans(address: Option<IpAddr>, history: &History, as_json: bool) -> Done {
    let mut sources = scanners::read(history)?;
    if let Some(address) = address {
        let target = Target::source(address, Target::V6_SOURCE);
        let found = sources.into_iter().find(|(known, _)| *known == target);
        if as_json {
            let source = found.as_ref().map(|(target, source)| describe(target, source));
            output::json(&json!({ "source": source }));
        } else if let Some((target, source)) = &found {
            print_one(target, source);
        } else {
            output::line(&format!("{target} was not seen"));
        }
        return Ok(found.is_some().into());
    }
    sources.sort_by(|(_, one), (_, other)| other.rank().total_cmp(&one.rank()));
    if as_json {
        let all: Vec<Value> = sources.iter().map(|(target, it)| describe(target, it)).collect();
        output::json(&json!({ "sources": all }));
        return Ok(Answer::Yes);
    }
    let scans: Vec<_> = sources.iter().filter(|(_, source)| source.level > 0).collect();
    if !scans.is_empty() {
        output::line("level  source                    packets  ports  last seen");
    }
    for (target, source) in &scans {
        let ports = source.ports.len().to_string() + more(source);
        let last = output::time(source.last_seen as u64);
        let Source { level, packets, .. } = source;
        output::line(&format!("{level:>5}  {target:<24} {packets:>8} {ports:>6}  {last}"));
    }
    let rest = sources.len() - scans.len();
    output::line(&format!("{} scans, and {rest} other sources", scans.len()));
    Ok(Answer::Yes)
}

/// Marks a list of ports that is incomplete.
fn more(source: &Source) -> &'static str {
    if source.has_more_ports() { "+" } else { "" }
}

fn print_one(target: &Target, source: &Source) {
    let times = [source.first_seen, source.last_seen].map(|time| output::time(time as u64));
    let flags: Vec<String> = source.tcp_flags.iter().map(|set| flags_text(*set)).collect();
    let targets: Vec<String> = source.targets().map(IpAddr::to_string).collect();
    let options = source.tcp_options.clone().map(|options| match options.as_str() {
        "" => "none".to_owned(),
        _ => options,
    });
    let ports = ranges(&source.ports).join(", ") + more(source);
    let lines = [
        ("source", target.to_string()),
        ("level", source.level.to_string()),
        ("seen", format!("{} to {}", times[0], times[1])),
        ("packets", source.packets.to_string()),
        ("to", targets.join(", ")),
        ("protocols", protocols(source).join(", ")),
        ("ports", ports),
        ("tcp flags", flags.join("; ")),
        ("options", options.unwrap_or_default()),
    ];
    for (name, text) in lines.iter().filter(|(_, text)| !text.is_empty()) {
        output::line(&format!("{name:<10} {text}"));
    }
}

fn describe(target: &Target, source: &Source) -> Value {
    json!({
        "source": target.to_string(),
        "level": source.level,
        "first_seen": source.first_seen,
        "last_seen": source.last_seen,
        "packets": source.packets,
        "targets": source.targets().collect::<Vec<_>>(),
        "protocols": protocols(source),
        "ports": ranges(&source.ports),
        "more_ports": source.has_more_ports(),
        "tcp_flags": source.tcp_flags.iter().map(|set| tcp_flags(*set)).collect::<Vec<_>>(),
        "tcp_options": source.tcp_options,
    })
}

fn flags_text(set: u8) -> String {
    match tcp_flags(set).join(",") {
        none if none.is_empty() => "none".to_owned(),
        flags => flags,
    }
}

fn protocols(source: &Source) -> Vec<String> {
    source.protocols.iter().map(|number| protocol_word(*number)).collect()
}

/// Returns ports as a policy writes them, consecutive ports as a range: `22/tcp`, `80-90/tcp`.
fn ranges(ports: &[(u8, u16)]) -> Vec<String> {
    let mut ranges: Vec<(u8, u16, u16)> = Vec::new();
    for (protocol, port) in ports {
        match ranges.last_mut() {
            Some((same, _, last)) if same == protocol && *last + 1 == *port => *last = *port,
            _ => ranges.push((*protocol, *port, *port)),
        }
    }
    let text = |(protocol, first, last): (u8, u16, u16)| match protocol_word(protocol) {
        word if first == last => format!("{first}/{word}"),
        word => format!("{first}-{last}/{word}"),
    };
    ranges.into_iter().map(text).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn consecutive_ports_are_one_range() {
        let ports = [(6, 22), (6, 80), (6, 81), (6, 82), (6, 65_535), (17, 83)];
        let expected = ["22/tcp", "80-82/tcp", "65535/tcp", "83/udp"];
        assert_eq!(ranges(&ports), expected);
    }
}
