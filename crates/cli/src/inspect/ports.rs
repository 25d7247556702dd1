//! The ports of this host that are published, listened at or allowed, and whether the policy lets the
//! world reach them. Pure.

use std::net::{IpAddr, SocketAddr};

use nfguard_netlink::eval::{Fate, Memory};
use nfguard_netlink::{CmpOp, Expr, IpVersion, Key, KeyType, PerIpVersion, Table, protocol};
use nfguard_policy::{Flow, FlowPath, Payload, explain};

use crate::inspect::example::{self, SOURCE_PORT};
use crate::inspect::system::{Host, PROXY};

/// A port, or a range of ports that the policy does not tell apart.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Port {
    /// The transport protocol's number.
    pub(crate) protocol: u8,
    /// First and last.
    pub(crate) ports: (u16, u16),
    /// In ascending order.
    pub(crate) ip_versions: Vec<IpVersion>,
    /// The only address of the host at which the port is open; `None` for all.
    pub(crate) on: Option<IpAddr>,
    pub(crate) responder: Responder,
    /// What the policy does with a new connection from the world; `None` if no policy is loaded.
    pub(crate) admission: Option<Admission>,
}

/// What the policy does with a new connection.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Admission {
    pub(crate) allowed: bool,
    /// The comment of the deciding rule.
    pub(crate) rule: Option<String>,
}

/// What answers at a port.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum Responder {
    /// The target of address translation. It sees the address of the client.
    Translated {
        to: SocketAddr,
        container: Option<String>,
        bridge: Option<String>,
    },
    /// Docker's relay. The container sees only the address of the relay.
    Relayed {
        to: Option<SocketAddr>,
        container: Option<String>,
    },
    /// A process on this host, with its number and name if this process may see them.
    Process(Option<(u32, String)>),
    /// A container that Docker reports, without a trace in the kernel.
    Docker {
        container: String,
    },
    Nothing,
}

/// How the port of the responder and the policy fit together.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum State {
    Reachable,
    /// It is not published: this is no contradiction.
    NotAllowed,
    /// It is published for the world, and the policy refuses the world.
    PublishedNotAllowed,
    /// The policy admits the world, and nothing answers.
    AllowedNotAnswered,
    /// Only this host itself reaches it.
    Local,
    NoPolicy,
}

impl Port {
    pub(crate) fn state(&self) -> State {
        let Some(Admission { allowed, .. }) = self.admission else { return State::NoPolicy };
        match (&self.responder, allowed) {
            _ if self.on.is_some_and(|on| on.is_loopback()) => State::Local,
            (Responder::Nothing, _) => State::AllowedNotAnswered,
            (_, true) => State::Reachable,
            (Responder::Process(_), false) => State::NotAllowed,
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

/// Returns the text of [`Port::name`].
pub(crate) fn name(ports: (u16, u16), protocol: u8) -> String {
    match ports {
        (first, last) if first == last => format!("{first}/{}", protocol_name(protocol)),
        (first, last) => format!("{first}-{last}/{}", protocol_name(protocol)),
    }
}

pub(crate) fn protocol_name(protocol: u8) -> &'static str {
    if protocol == protocol::UDP { "udp" } else { "tcp" }
}

/// The protocols that have ports.
pub(crate) const PROTOCOLS: [u8; 2] = [protocol::TCP, protocol::UDP];

/// Returns every port that is published, listened at or allowed, in order. `own` holds the addresses
/// of this host in the internet.
pub(crate) fn list(host: &Host, table: Option<&Table>, own: PerIpVersion<IpAddr>) -> Vec<Port> {
    let mut all = Vec::new();
    for version in IpVersion::ALL {
        let mut ports = translated(host, version);
        for port in listening(host, version) {
            // Address translation redirects a packet before a socket sees it.
            let same = |translated: &Port| {
                translated.covers(&port) && (translated.on.is_none() || translated.on == port.on)
            };
            if !ports.iter().any(same) {
                ports.push(port);
            }
        }
        for port in published_by_docker(host, version) {
            if !ports.iter().any(|known| known.covers(&port)) {
                ports.push(port);
            }
        }
        let judge = |port: &mut Port| {
            port.admission = table.map(|table| admission(table, host.uplink(), port, own[version]));
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

/// Merges the ports of IPv4 and of IPv6 that are otherwise equal.
fn merged(ports: Vec<Port>) -> Vec<Port> {
    let mut merged: Vec<Port> = Vec::new();
    for port in ports {
        let same = |other: &&mut Port| {
            Port { ip_versions: port.ip_versions.clone(), ..(**other).clone() } == port
        };
        match merged.iter_mut().find(same) {
            Some(other) => {
                other.ip_versions.extend(&port.ip_versions);
                other.ip_versions.sort_unstable();
                other.ip_versions.dedup();
            }
            None => merged.push(port),
        }
    }
    merged.sort_by_key(|port| (port.ports, port.protocol, port.ip_versions.clone(), port.on));
    merged
}

fn translated(host: &Host, version: IpVersion) -> Vec<Port> {
    let published = host.published().into_iter();
    let of_version = published.filter(|sent| IpVersion::of(sent.to) == version);
    let ports = of_version.map(|sent| {
        let to = SocketAddr::new(sent.to, sent.to_port.unwrap_or(sent.ports.0));
        let container = container_of(host, to);
        Port {
            protocol: sent.protocol,
            ports: sent.ports,
            ip_versions: vec![version],
            on: sent.on,
            responder: Responder::Translated { to, container, bridge: sent.bridge },
            admission: None,
        }
    });
    ports.collect()
}

/// Returns the ports at which a socket listens, except on loopback.
fn listening(host: &Host, version: IpVersion) -> Vec<Port> {
    let mut ports = Vec::new();
    for socket in &host.listening {
        let of_version = IpVersion::of(socket.address) == version || socket.both_families;
        let owner = host.owners.get(&socket.inode);
        let is_proxy = owner.is_some_and(|owner| owner.relays_to.is_some() || owner.name == PROXY);
        if !of_version || (socket.address.is_loopback() && !is_proxy) {
            continue;
        }
        let responder = match owner {
            Some(owner) if is_proxy => Responder::Relayed {
                to: owner.relays_to,
                container: owner.relays_to.and_then(|to| container_of(host, to)),
            },
            owner => Responder::Process(owner.map(|owner| (owner.id, owner.name.clone()))),
        };
        let port = Port {
            protocol: socket.protocol,
            ports: (socket.port, socket.port),
            ip_versions: vec![version],
            on: Some(socket.address).filter(|address| !address.is_unspecified()),
            responder,
            admission: None,
        };
        // Several processes may share one port, each with its own socket.
        let same = |known: &Port| {
            (known.protocol, known.ports, known.on) == (port.protocol, port.ports, port.on)
        };
        if !ports.iter().any(same) {
            ports.push(port);
        }
    }
    ports
}

fn published_by_docker(host: &Host, version: IpVersion) -> Vec<Port> {
    let of_version = host.docker.iter().filter(|port| IpVersion::of(port.on) == version);
    let ports = of_version.map(|port| Port {
        protocol: port.protocol,
        ports: (port.port, port.port),
        ip_versions: vec![version],
        on: Some(port.on).filter(|on| !on.is_unspecified()),
        responder: match port.addresses.iter().find(|it| IpVersion::of(**it) == version) {
            // Docker translates with rules that cannot be listed.
            Some(address) => Responder::Translated {
                to: SocketAddr::new(*address, port.inner),
                container: Some(port.container.clone()),
                bridge: None,
            },
            None => Responder::Docker { container: port.container.clone() },
        },
        admission: None,
    });
    ports.collect()
}

fn container_of(host: &Host, to: SocketAddr) -> Option<String> {
    let port = host.docker.iter().find(|port| port.addresses.contains(&to.ip()))?;
    Some(port.container.clone())
}

/// Returns what the policy does with the first packet of a connection from the world, as `explain`
/// judges it.
fn admission(table: &Table, uplink: &str, port: &Port, own: IpAddr) -> Admission {
    let (path, bridge) = match &port.responder {
        Responder::Translated { to, bridge, .. } => {
            (FlowPath::Published(to.port()), bridge.as_deref())
        }
        _ => (FlowPath::In, None),
    };
    let flow = Flow {
        path,
        source: example::remote(IpVersion::of(own)),
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
    let rule = explanation.deciding().and_then(|(_, decision)| decision.rule);
    let rule = rule.and_then(|(_, rule)| rule.comment.clone());
    Admission { allowed: explanation.fate == Fate::Accept, rule }
}

/// Returns the ports of this host that the policy lets the world reach, as ranges that no rule splits.
fn allowed(table: &Table, uplink: &str, own: PerIpVersion<IpAddr>) -> Vec<Port> {
    let mut found = Vec::new();
    for ports in intervals(table) {
        for protocol in PROTOCOLS {
            for (version, own) in own.iter() {
                let port = Port {
                    protocol,
                    ports,
                    ip_versions: vec![version],
                    on: None,
                    responder: Responder::Nothing,
                    admission: None,
                };
                let admission = admission(table, uplink, &port, *own);
                if admission.allowed {
                    found.push(Port { admission: Some(admission), ..port });
                }
            }
        }
    }
    found
}

/// Returns all ports as ranges, first and last, that no rule of the table splits.
pub(crate) fn intervals(table: &Table) -> Vec<(u16, u16)> {
    let starts = starts(table);
    let ends = starts.iter().skip(1).map(|next| next - 1).chain([u16::MAX]);
    starts.iter().copied().zip(ends).collect()
}

/// Returns the ports at which a verdict of the table may change, in order. Port 0 is reserved.
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
        let own = PerIpVersion::from_fn(example::host);
        let ports = merged(allowed(&policy.compile(), "eth0", own));
        let versions = |port: &Port| match port.ip_versions[..] {
            [IpVersion::V4] => " v4",
            [IpVersion::V6] => " v6",
            _ => "",
        };
        ports.iter().map(|port| port.name() + versions(port)).collect()
    }

    #[test]
    fn the_ports_that_the_world_may_reach_are_ranges_as_in_the_rules() {
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
