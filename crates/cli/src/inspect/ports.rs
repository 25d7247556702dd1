//! Which ports of this host something answers, or might, and whether the policy lets the world reach
//! them. Pure, but for the printing.

mod show;

use std::net::{IpAddr, SocketAddr};

use nfguard_netlink::eval::{Fate, Memory};
use nfguard_netlink::{CmpOp, Expr, Key, KeyType, Table, protocol};
use nfguard_policy::{Flow, FlowPath, Payload, explain};

use crate::commands::explain::{SOMEBODY_V4, SOMEBODY_V6, SOURCE_PORT};
use crate::inspect::system::{Host, PROXY};

pub(crate) use show::{print, to_json};

/// A port, or several that are alike.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Port {
    /// The transport protocol's number.
    pub(crate) protocol: u8,
    /// First and last.
    pub(crate) ports: (u16, u16),
    /// IPv4, IPv6 or both.
    pub(crate) families: Vec<bool>,
    /// Only at this address of the host.
    pub(crate) on: Option<IpAddr>,
    pub(crate) answer: Answer,
    /// Whether the policy lets a new connection from the world reach it, and what rule says so;
    /// `None`: no policy is loaded.
    pub(crate) world: Option<(bool, Option<String>)>,
}

/// Who answers there.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum Answer {
    /// Somebody to whom address translation sends it, who sees who asks.
    Sent { to: SocketAddr, container: Option<String>, bridge: Option<String> },
    /// Docker's relay, for somebody who sees only the relay.
    Relayed { to: Option<SocketAddr>, container: Option<String> },
    /// A process on this host, if it may be known.
    Process(Option<(u32, String)>),
    /// Docker says that it publishes it, and the kernel does not show how.
    Docker { container: String },
    /// Nobody.
    Nobody,
}

/// What is to be said of a port.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum State {
    Reachable,
    /// Not published, so nothing is wrong with it.
    NotAllowed,
    /// Somebody published it for the world, and the policy keeps the world out.
    PublishedNotAllowed,
    /// An open door without a house.
    NobodyAnswers,
    /// Only this host itself comes there.
    Local,
    NoPolicy,
}

impl Port {
    pub(crate) fn state(&self) -> State {
        let Some((allowed, _)) = self.world else { return State::NoPolicy };
        match (&self.answer, allowed) {
            _ if self.on.is_some_and(|on| on.is_loopback()) => State::Local,
            (Answer::Nobody, _) => State::NobodyAnswers,
            (_, true) => State::Reachable,
            (Answer::Process(_), false) => State::NotAllowed,
            (_, false) => State::PublishedNotAllowed,
        }
    }

    /// `80/tcp`, `8000-8100/udp`
    pub(crate) fn name(&self) -> String {
        name(self.ports, self.protocol)
    }

    fn covers(&self, other: &Port) -> bool {
        self.protocol == other.protocol
            && self.ports.0 <= other.ports.1
            && other.ports.0 <= self.ports.1
    }
}

/// As [`Port::name`].
pub(crate) fn name(ports: (u16, u16), protocol: u8) -> String {
    match ports {
        (first, last) if first == last => format!("{first}/{}", word(protocol)),
        (first, last) => format!("{first}-{last}/{}", word(protocol)),
    }
}

fn word(protocol: u8) -> &'static str {
    if protocol == protocol::UDP { "udp" } else { "tcp" }
}

/// The protocols that have ports.
pub(crate) const PROTOCOLS: [u8; 2] = [protocol::TCP, protocol::UDP];

/// Every port that is published, listened at, or allowed; sorted. `own` is the address that the
/// world knows this host by, IPv4 and IPv6.
pub(crate) fn list(host: &Host, table: Option<&Table>, own: [IpAddr; 2]) -> Vec<Port> {
    let mut all = Vec::new();
    for is_v6 in [false, true] {
        let mut ports = sent(host, is_v6);
        for port in answered(host, is_v6) {
            // A packet from the world is sent on before a socket sees it.
            let same =
                |sent: &Port| sent.covers(&port) && (sent.on.is_none() || sent.on == port.on);
            if !ports.iter().any(same) {
                ports.push(port);
            }
        }
        for port in said_by_docker(host, is_v6) {
            if !ports.iter().any(|known| known.covers(&port)) {
                ports.push(port);
            }
        }
        let judge = |port: &mut Port| {
            let own = own[usize::from(is_v6)];
            port.world = table.map(|table| world(table, host.uplink(), port, own));
        };
        ports.iter_mut().for_each(judge);
        all.extend(ports);
    }
    let mut open = Vec::new();
    for port in table.into_iter().flat_map(|table| allowed(table, host.uplink(), own)) {
        let is_local = |known: &&Port| known.on.is_some_and(|on| on.is_loopback());
        if !all.iter().filter(|known| !is_local(known)).any(|known: &Port| known.covers(&port)) {
            open.push(port);
        }
    }
    all.extend(open);
    merged(all)
}

/// The same port of both families in one line, if all else is the same.
fn merged(ports: Vec<Port>) -> Vec<Port> {
    let mut merged: Vec<Port> = Vec::new();
    for port in ports {
        let same = |other: &&mut Port| {
            Port { families: port.families.clone(), ..(**other).clone() } == port
        };
        match merged.iter_mut().find(same) {
            Some(other) => {
                other.families.extend(&port.families);
                other.families.sort_unstable();
                other.families.dedup();
            }
            None => merged.push(port),
        }
    }
    merged.sort_by_key(|port| (port.ports, port.protocol, port.families.clone(), port.on));
    merged
}

fn sent(host: &Host, is_v6: bool) -> Vec<Port> {
    let of_family = host.published().into_iter().filter(|sent| sent.to.is_ipv6() == is_v6);
    let ports = of_family.map(|sent| {
        let to = SocketAddr::new(sent.to, sent.to_port.unwrap_or(sent.ports.0));
        let container = container_of(host, to);
        Port {
            protocol: sent.protocol,
            ports: sent.ports,
            families: vec![is_v6],
            on: sent.on,
            answer: Answer::Sent { to, container, bridge: sent.bridge },
            world: None,
        }
    });
    ports.collect()
}

/// What sockets answer; those on loopback are nobody's business.
fn answered(host: &Host, is_v6: bool) -> Vec<Port> {
    let mut ports = Vec::new();
    for socket in &host.listening {
        let of_family = socket.address.is_ipv6() == is_v6 || socket.both_families;
        let owner = host.owners.get(&socket.inode);
        let is_proxy = owner.is_some_and(|owner| owner.relays_to.is_some() || owner.name == PROXY);
        if !of_family || (socket.address.is_loopback() && !is_proxy) {
            continue;
        }
        let answer = match owner {
            Some(owner) if is_proxy => Answer::Relayed {
                to: owner.relays_to,
                container: owner.relays_to.and_then(|to| container_of(host, to)),
            },
            owner => Answer::Process(owner.map(|owner| (owner.id, owner.name.clone()))),
        };
        let port = Port {
            protocol: socket.protocol,
            ports: (socket.port, socket.port),
            families: vec![is_v6],
            on: Some(socket.address).filter(|address| !address.is_unspecified()),
            answer,
            world: None,
        };
        // Several processes may share one, each with a socket of its own.
        let same = |known: &Port| {
            (known.protocol, known.ports, known.on) == (port.protocol, port.ports, port.on)
        };
        if !ports.iter().any(same) {
            ports.push(port);
        }
    }
    ports
}

fn said_by_docker(host: &Host, is_v6: bool) -> Vec<Port> {
    let of_family = host.docker.iter().filter(|port| port.on.is_ipv6() == is_v6);
    let ports = of_family.map(|port| Port {
        protocol: port.protocol,
        ports: (port.port, port.port),
        families: vec![is_v6],
        on: Some(port.on).filter(|on| !on.is_unspecified()),
        answer: match port.addresses.iter().find(|address| address.is_ipv6() == is_v6) {
            // Translated by rules that cannot be listed.
            Some(address) => Answer::Sent {
                to: SocketAddr::new(*address, port.inner),
                container: Some(port.container.clone()),
                bridge: None,
            },
            None => Answer::Docker { container: port.container.clone() },
        },
        world: None,
    });
    ports.collect()
}

fn container_of(host: &Host, to: SocketAddr) -> Option<String> {
    let port = host.docker.iter().find(|port| port.addresses.contains(&to.ip()))?;
    Some(port.container.clone())
}

/// Whether the world reaches this port: the first packet of a connection, as `explain` judges it.
fn world(table: &Table, uplink: &str, port: &Port, own: IpAddr) -> (bool, Option<String>) {
    let (path, bridge) = match &port.answer {
        Answer::Sent { to, bridge, .. } => (FlowPath::Published(to.port()), bridge.as_deref()),
        _ => (FlowPath::In, None),
    };
    let flow = Flow {
        path,
        source: if own.is_ipv6() { SOMEBODY_V6 } else { SOMEBODY_V4 },
        destination: port.on.unwrap_or(own),
        payload: Payload::Ports {
            protocol: port.protocol,
            source: SOURCE_PORT,
            destination: port.ports.0,
        },
        in_interface: uplink.to_owned(),
        out_interface: bridge.unwrap_or("docker0").to_owned(),
    };
    let mut memory = Memory::default();
    let explanation = explain(table, &flow, &mut memory);
    let by = explanation.deciding().and_then(|(_, decision)| decision.rule);
    let by = by.and_then(|(_, rule)| rule.comment.clone());
    (explanation.fate == Fate::Accept, by)
}

/// The ports of this host that the policy lets the world reach, each with its neighbours that no
/// rule tells apart from it.
fn allowed(table: &Table, uplink: &str, own: [IpAddr; 2]) -> Vec<Port> {
    let mut found = Vec::new();
    for ports in intervals(table) {
        for protocol in PROTOCOLS {
            for own in own {
                let (families, answer) = (vec![own.is_ipv6()], Answer::Nobody);
                let port = Port { protocol, ports, families, on: None, answer, world: None };
                let world = world(table, uplink, &port, own);
                if world.0 {
                    found.push(Port { world: Some(world), ..port });
                }
            }
        }
    }
    found
}

/// All ports, first and last of those that no rule of the table tells apart.
pub(crate) fn intervals(table: &Table) -> Vec<(u16, u16)> {
    let starts = starts(table);
    let ends = starts.iter().skip(1).map(|next| next - 1).chain([u16::MAX]);
    starts.iter().copied().zip(ends).collect()
}

/// The ports at which the table may begin to decide otherwise, in order. Port 0 is nobody's.
fn starts(table: &Table) -> Vec<u16> {
    let mut starts = vec![1];
    let number = |port: &[u8]| port.try_into().ok().map(u16::from_be_bytes);
    let mut at = |port: &[u8]| starts.extend(number(port));
    let mut after = Vec::new();
    for rule in table.chains.iter().flat_map(|chain| &chain.rules) {
        for expr in &rule.exprs {
            match expr {
                Expr::Cmp { op: CmpOp::Eq | CmpOp::Neq, data, .. } => {
                    at(data);
                    after.extend(number(data));
                }
                Expr::Cmp { op: CmpOp::Lt | CmpOp::Gte, data, .. } => at(data),
                Expr::Cmp { op: CmpOp::Lte | CmpOp::Gt, data, .. } => after.extend(number(data)),
                _ => {}
            }
        }
    }
    for set in table.sets.iter().filter(|set| set.key == [KeyType::InetService]) {
        for element in &set.elements {
            let (Key::Value(last) | Key::Range(_, last)) = &element.key;
            let (Key::Value(first) | Key::Range(first, _)) = &element.key;
            at(first);
            after.extend(number(last));
        }
    }
    starts.extend(after.into_iter().filter_map(|last: u16| last.checked_add(1)));
    starts.retain(|port| *port > 0);
    starts.sort_unstable();
    starts.dedup();
    starts
}

#[cfg(test)]
mod tests {
    use nfguard_policy::Policy;

    use super::*;

    fn allowed_by(rules: &str) -> Vec<String> {
        let text = format!(r#"{{ "version": 1, "rules": [{rules}] }}"#);
        let (policy, _) = Policy::parse(&text).expect("a valid policy");
        let own = ["198.51.100.2", "2001:db8:1::2"].map(|own| own.parse().expect("an address"));
        let ports = merged(allowed(&policy.compile(), "eth0", own));
        let families = |port: &Port| match port.families[..] {
            [false] => " v4",
            [true] => " v6",
            _ => "",
        };
        ports.iter().map(|port| port.name() + families(port)).collect()
    }

    #[test]
    fn what_the_world_may_reach_is_told_by_ranges_as_the_rules_have_them() {
        for (rules, expected) in [
            ("", &[][..]),
            (r#"{ "action": "allow", "port": 53 }"#, &["53/tcp", "53/udp"]),
            (
                r#"{ "action": "deny", "proto": "tcp", "port": 8010 },
                   { "action": "allow", "proto": "tcp", "port": ["8000-8019", 65535] }"#,
                &["8000-8009/tcp", "8011-8019/tcp", "65535/tcp"],
            ),
            (
                r#"{ "action": "allow", "proto": "udp", "port": 443, "from": "::/0" }"#,
                &["443/udp v6"],
            ),
            (r#"{ "action": "allow", "proto": "tcp", "port": 22, "from": "10.0.0.0/8" }"#, &[]),
            (r#"{ "action": "allow", "proto": "tcp", "port": 22, "in_interface": "wg0" }"#, &[]),
            (r#"{ "action": "limit", "proto": "tcp", "port": 22 }"#, &["22/tcp"]),
        ] {
            assert_eq!(allowed_by(rules), expected, "{rules}");
        }
    }
}
