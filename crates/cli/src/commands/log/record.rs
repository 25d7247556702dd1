//! One line for each packet that was logged, for people or as JSON.

use std::collections::HashMap;
use std::fmt;
use std::net::{IpAddr, SocketAddr};
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use nfguard_netlink::{ICMP_TYPES, ICMPV6_TYPES, LoggedPacket, ParsedPacket, text};
use nfguard_policy::{LoggedRule, protocol_word};
use nix::net::if_::if_indextoname;
use serde::Serialize;

use crate::output::{SCHEMA, tcp_flags};

/// The line of a packet.
#[derive(Serialize)]
#[serde(tag = "event", rename = "packet")]
pub(super) struct Record<'a> {
    schema: u32,
    /// Seconds since 1970.
    pub(super) time: f64,
    #[serde(flatten)]
    rule: Option<LoggedRule<'a>>,
    prefix: &'a str,
    group: u16,
    hook: Option<&'static str>,
    in_interface: Option<String>,
    out_interface: Option<String>,
    #[serde(flatten)]
    packet: Option<Words>,
}

impl<'a> Record<'a> {
    pub(super) fn new(
        logged: &'a LoggedPacket,
        packet: Option<&ParsedPacket<'_>>,
        interfaces: &mut Interfaces,
    ) -> Record<'a> {
        let now = || SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
        Record {
            schema: SCHEMA,
            time: logged.time.unwrap_or_else(now).as_secs_f64(),
            rule: LoggedRule::parse(&logged.prefix),
            prefix: &logged.prefix,
            group: logged.group,
            hook: logged.hook.map(text::hook_word),
            in_interface: logged.in_interface.map(|number| interfaces.name(number)),
            out_interface: logged.out_interface.map(|number| interfaces.name(number)),
            packet: packet.map(Words::new),
        }
    }
}

impl Record<'_> {
    /// Tells whether another host sent the packet, and it was not accepted.
    pub(super) fn is_unwanted(&self) -> bool {
        let is_own = matches!(self.hook, Some("output" | "postrouting"));
        !is_own && self.rule.as_ref().is_none_or(|rule| rule.verdict != "accept")
    }
}

/// `2026-01-31T12:00:00.123Z drop in/telnet prerouting iif eth0 PACKET`
impl fmt::Display for Record<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let time = UNIX_EPOCH + Duration::from_secs_f64(self.time);
        write!(f, "{}", humantime::format_rfc3339_millis(time))?;
        match &self.rule {
            Some(LoggedRule { verdict, rule }) => write!(f, " {verdict} {rule}")?,
            None => write!(f, " {:?}", self.prefix.trim())?,
        }
        let (came, leaves) = (self.in_interface.as_deref(), self.out_interface.as_deref());
        for (key, word) in [("", self.hook), (" iif", came), (" oif", leaves)] {
            if let Some(word) = word {
                write!(f, "{key} {word}")?;
            }
        }
        match &self.packet {
            Some(packet) => write!(f, " {packet}"),
            None => f.write_str(" not IP"),
        }
    }
}

/// The fields of a packet.
#[derive(Serialize)]
struct Words {
    source: IpAddr,
    destination: IpAddr,
    protocol: String,
    #[serde(skip_serializing_if = "Option::is_none")]
    source_port: Option<u16>,
    #[serde(skip_serializing_if = "Option::is_none")]
    destination_port: Option<u16>,
    #[serde(skip_serializing_if = "Option::is_none")]
    tcp_flags: Option<Vec<&'static str>>,
    #[serde(skip_serializing_if = "Option::is_none")]
    icmp_type: Option<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    icmp_code: Option<u8>,
    #[serde(skip_serializing_if = "Option::is_none")]
    fragment_offset: Option<u16>,
    length: u32,
}

impl Words {
    fn new(packet: &ParsedPacket<'_>) -> Words {
        let icmp_types = if packet.source.is_ipv4() { ICMP_TYPES } else { ICMPV6_TYPES };
        let icmp_type = |number: u8| {
            let known = icmp_types.iter().find(|(_, known)| *known == number);
            known.map_or_else(|| number.to_string(), |(name, _)| (*name).to_owned())
        };
        Words {
            source: packet.source,
            destination: packet.destination,
            protocol: protocol_word(packet.protocol),
            source_port: packet.ports.map(|ports| ports.0),
            destination_port: packet.ports.map(|ports| ports.1),
            tcp_flags: packet.tcp_flags.map(tcp_flags),
            icmp_type: packet.icmp.map(|icmp| icmp_type(icmp.0)),
            icmp_code: packet.icmp.map(|icmp| icmp.1),
            fragment_offset: packet.fragment,
            length: packet.length,
        }
    }
}

/// `203.0.113.7:40000 > 198.51.100.2:23 tcp syn length 60`
impl fmt::Display for Words {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match (self.source_port, self.destination_port) {
            (Some(from), Some(to)) => {
                let [from, to] =
                    [(self.source, from), (self.destination, to)].map(SocketAddr::from);
                write!(f, "{from} > {to}")?;
            }
            _ => write!(f, "{} > {}", self.source, self.destination)?,
        }
        write!(f, " {}", self.protocol)?;
        match self.tcp_flags.as_deref() {
            Some([]) => f.write_str(" no flags")?,
            Some(flags) => write!(f, " {}", flags.join(","))?,
            None => {}
        }
        if let Some(kind) = &self.icmp_type {
            write!(f, " {kind}")?;
        }
        if let Some(code) = self.icmp_code.filter(|code| *code != 0) {
            write!(f, " code {code}")?;
        }
        if let Some(offset) = self.fragment_offset {
            write!(f, " fragment at {offset}")?;
        }
        write!(f, " length {}", self.length)
    }
}

/// The names of interfaces, each read once.
#[derive(Default)]
pub(super) struct Interfaces(HashMap<u32, String>);

impl Interfaces {
    fn name(&mut self, number: u32) -> String {
        let ask = || {
            let name = if_indextoname(number).ok();
            name.map_or_else(|| number.to_string(), |name| name.to_string_lossy().into_owned())
        };
        self.0.entry(number).or_insert_with(ask).clone()
    }
}
