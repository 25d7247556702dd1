//! The ports of this host that are published, listened at or allowed, and whether the policy lets the
//! world reach them. Pure.

use std::collections::BTreeMap;
use std::net::{IpAddr, SocketAddr};

use nfguard_netlink::eval::{Fate, Memory};
use nfguard_netlink::{IpVersion, Table, protocol};
use nfguard_policy::{Flow, FlowPath, Payload, explain};

use crate::inspect::example::{self, SOURCE_PORT};
use crate::inspect::network::Network;
use crate::inspect::port_ranges::{Target, cut, intervals, starts_in};
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
        to: Target,
        container: Option<String>,
    },
    /// Docker's relay. The container sees only the address of the relay.
    Relayed {
        to: Option<Target>,
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

    /// Returns the range of this one and the next; `None` if that is not the same range.
    fn with(&self, next: &Port) -> Option<Port> {
        if self.ports.1.checked_add(1) != Some(next.ports.0) {
            return None;
        }
        let responder = match (&self.responder, &next.responder) {
            (
                Responder::Translated { to, container },
                Responder::Translated { to: other, container: same },
            ) if container == same => Responder::Translated {
                to: to.with(self.ports, *other, next.ports)?,
                container: container.clone(),
            },
            (
                Responder::Relayed { to: Some(to), container },
                Responder::Relayed { to: Some(other), container: same },
            ) if container == same => Responder::Relayed {
                to: Some(to.with(self.ports, *other, next.ports)?),
                container: container.clone(),
            },
            (one, other) if one == other => one.clone(),
            _ => return None,
        };
        let range = Port { ports: (self.ports.0, next.ports.1), responder, ..self.clone() };
        let as_next =
            Port { ports: next.ports, responder: next.responder.clone(), ..range.clone() };
        (as_next == *next).then_some(range)
    }

    /// Cuts a range before each of these ports, which are in ascending order.
    pub(crate) fn cut(&self, cuts: &[u16]) -> Vec<Port> {
        let part = |ports: (u16, u16)| {
            let responder = match &self.responder {
                Responder::Translated { to, container } => Responder::Translated {
                    to: to.part(self.ports, ports),
                    container: container.clone(),
                },
                other => other.clone(),
            };
            Port { ports, responder, ..self.clone() }
        };
        cut(self.ports, cuts).into_iter().map(part).collect()
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

/// Returns every port that is published, listened at or allowed, in order.
pub(crate) fn list(host: &Host, table: Option<&Table>) -> Vec<Port> {
    // A rule of the policy may tell apart what one rule of address translation does not.
    let cuts = table.map(starts_in).unwrap_or_default();
    let mut all = Vec::new();
    for version in IpVersion::ALL {
        let translated = translated(host, version).into_iter();
        let mut ports: Vec<Port> = translated.flat_map(|port| port.cut(&cuts)).collect();
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
            port.admission = table.map(|table| admission(table, &host.network, port, version));
        };
        ports.iter_mut().for_each(judge);
        all.extend(ports);
    }
    let mut open = Vec::new();
    for port in table.into_iter().flat_map(|table| allowed(table, &host.network)) {
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
    let mut merged: BTreeMap<_, Vec<Port>> = BTreeMap::new();
    for port in ports {
        let alike = merged.entry((port.ports, port.protocol, port.on)).or_default();
        let same = |other: &&mut Port| {
            other.responder == port.responder && other.admission == port.admission
        };
        match alike.iter_mut().find(same) {
            Some(other) => {
                other.ip_versions.extend(&port.ip_versions);
                other.ip_versions.sort_unstable();
                other.ip_versions.dedup();
            }
            None => alike.push(port),
        }
    }
    let mut merged: Vec<Port> = merged.into_values().flatten().collect();
    merged.sort_by_key(|port| (port.ports, port.protocol, port.ip_versions.clone(), port.on));
    merged
}

/// Returns the ports with ranges in place of adjacent ports that are otherwise equal. What receives
/// them may be adjacent ports too.
pub(crate) fn summed_up(ports: &[Port]) -> Vec<Port> {
    let mut ranges: Vec<Port> = Vec::new();
    // The ranges that the next port may continue.
    let mut open: Vec<usize> = Vec::new();
    for port in ports {
        let before = port.ports.0.checked_sub(1);
        open.retain(|index| ranges.get(*index).is_some_and(|range| Some(range.ports.1) >= before));
        let next = open.iter().find_map(|index| Some((*index, ranges.get(*index)?.with(port)?)));
        match next {
            Some((index, range)) => ranges[index] = range,
            None => {
                open.push(ranges.len());
                ranges.push(port.clone());
            }
        }
    }
    ranges
}

fn translated(host: &Host, version: IpVersion) -> Vec<Port> {
    let published = host.published().into_iter();
    let of_version = published.filter(|sent| IpVersion::of(sent.to) == version);
    let ports = of_version.map(|sent| {
        let ports = sent.to_port.map_or(sent.ports, |port| (port, port));
        let to = Target { address: sent.to, ports };
        let container = container_of(host, to.address);
        Port {
            protocol: sent.protocol,
            ports: sent.ports,
            ip_versions: vec![version],
            on: sent.on,
            responder: Responder::Translated { to, container },
            admission: None,
        }
    });
    ports.collect()
}

/// Returns the ports at which a socket listens, except on loopback and at an interface that nothing
/// from outside comes in by.
fn listening(host: &Host, version: IpVersion) -> Vec<Port> {
    let mut ports = Vec::new();
    let uplinks = host.network.uplinks();
    let is_inside = |index| {
        let link = host.network.links.get(&index);
        link.is_some_and(|link| !uplinks.contains(link.name.as_str()))
    };
    for socket in &host.listening {
        if socket.interface.is_some_and(is_inside) {
            continue;
        }
        let of_version = IpVersion::of(socket.address) == version || socket.both_families;
        let owner = host.owners.get(&socket.inode);
        let is_proxy = owner.is_some_and(|owner| owner.relays_to.is_some() || owner.name == PROXY);
        if !of_version || (socket.address.is_loopback() && !is_proxy) {
            continue;
        }
        let responder = match owner {
            Some(owner) if is_proxy => Responder::Relayed {
                to: owner.relays_to.map(Target::from),
                container: owner.relays_to.and_then(|to| container_of(host, to.ip())),
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
                to: SocketAddr::new(*address, port.inner).into(),
                container: Some(port.container.clone()),
            },
            None => Responder::Docker { container: port.container.clone() },
        },
        admission: None,
    });
    ports.collect()
}

fn container_of(host: &Host, address: IpAddr) -> Option<String> {
    let port = host.docker.iter().find(|port| port.addresses.contains(&address))?;
    Some(port.container.clone())
}

/// Returns what the policy does with the first packet of a connection from the world, as `explain`
/// judges it.
fn admission(table: &Table, network: &Network, port: &Port, version: IpVersion) -> Admission {
    let (path, out_interface) = match &port.responder {
        Responder::Translated { to, .. } => {
            let out = network.way(to.address).map(|way| way.interface.clone());
            (FlowPath::Published(to.ports.0), out.unwrap_or_default())
        }
        _ => (FlowPath::In, String::new()),
    };
    let flow = Flow {
        path,
        source: example::remote(version),
        destination: port.on.unwrap_or(network.own(version)),
        payload: Payload::Ports {
            protocol: port.protocol,
            source: SOURCE_PORT,
            destination: port.ports.0,
        },
        in_interface: network.uplink(version).to_owned(),
        out_interface,
    };
    let mut memory = Memory::default();
    let explanation = explain(table, &flow, &mut memory);
    let rule = explanation.deciding().and_then(|(_, decision)| decision.rule);
    let rule = rule.and_then(|(_, rule)| rule.comment.clone());
    Admission { allowed: explanation.fate == Fate::Accept, rule }
}

/// Returns the ports of this host that the policy lets the world reach, as ranges that no rule splits.
fn allowed(table: &Table, network: &Network) -> Vec<Port> {
    let mut found = Vec::new();
    for ports in intervals(table) {
        for protocol in PROTOCOLS {
            for version in IpVersion::ALL {
                let port = Port {
                    protocol,
                    ports,
                    ip_versions: vec![version],
                    on: None,
                    responder: Responder::Nothing,
                    admission: None,
                };
                let admission = admission(table, network, &port, version);
                if admission.allowed {
                    found.push(Port { admission: Some(admission), ..port });
                }
            }
        }
    }
    found
}

#[cfg(test)]
mod tests {
    use nfguard_policy::Policy;

    use super::*;

    fn allowed_by(rules: &str) -> Vec<String> {
        let text = format!(r#"{{ "version": 1, "rules": [{rules}] }}"#);
        let (policy, _) = Policy::parse(&text).expect("a valid policy");
        let ports = merged(allowed(&policy.compile(), &Network::default()));
        let versions = |port: &Port| match port.ip_versions[..] {
            [IpVersion::V4] => " v4",
            [IpVersion::V6] => " v6",
            _ => "",
        };
        ports.iter().map(|port| port.name() + versions(port)).collect()
    }

    /// Returns a published port, by its number and what receives it.
    fn published(port: u16, to: &str) -> Port {
        Port {
            protocol: protocol::TCP,
            ports: (port, port),
            ip_versions: vec![IpVersion::V4],
            on: None,
            responder: Responder::Translated {
                to: to.parse::<SocketAddr>().expect("an address").into(),
                container: None,
            },
            admission: None,
        }
    }

    #[test]
    fn adjacent_ports_are_one_range_if_adjacent_ports_or_one_receive_them() {
        let sums = |ports: &[(u16, &str)]| {
            let ports: Vec<Port> = ports.iter().map(|(port, to)| published(*port, to)).collect();
            let sums = summed_up(&ports);
            let text = |port: &Port| match &port.responder {
                Responder::Translated { to, .. } => format!("{} {to}", port.name()),
                _ => port.name(),
            };
            sums.iter().map(text).collect::<Vec<_>>()
        };
        let (a, b) = ("172.17.0.2:80", "172.17.0.2:81");
        assert_eq!(sums(&[(80, a), (81, b)]), ["80-81/tcp 172.17.0.2:80-81"]);
        assert_eq!(sums(&[(80, a), (81, a), (82, a)]), ["80-82/tcp 172.17.0.2:80"]);
        let mixed = ["80-81/tcp 172.17.0.2:80", "82/tcp 172.17.0.2:81"];
        assert_eq!(sums(&[(80, a), (81, a), (82, b)]), mixed, "one port does not become a range");
        assert_eq!(sums(&[(80, b), (81, a)]).len(), 2, "the other way round");
        assert_eq!(sums(&[(80, a), (82, b)]).len(), 2, "a gap");
        assert_eq!(sums(&[(80, a), (81, "172.17.0.3:81")]).len(), 2, "another container");
        let mut other = published(81, b);
        other.ip_versions = vec![IpVersion::V6];
        assert_eq!(summed_up(&[published(80, a), other.clone()]).len(), 2);
        other.ip_versions = vec![IpVersion::V4];
        other.admission = Some(Admission { allowed: true, rule: None });
        assert_eq!(summed_up(&[published(80, a), other]).len(), 2);
        let thousand = (8000..9000).flat_map(|port| {
            let to = |address: &str| format!("{address}:{port}");
            let mut v6 = published(port, &to("[2001:db8::2]"));
            v6.ip_versions = vec![IpVersion::V6];
            [published(port, &to("172.17.0.2")), v6]
        });
        let names: Vec<String> =
            summed_up(&thousand.collect::<Vec<_>>()).iter().map(Port::name).collect();
        assert_eq!(names, ["8000-8999/tcp", "8000-8999/tcp"]);
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
