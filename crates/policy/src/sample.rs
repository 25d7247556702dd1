//! Connections to try a policy with: for each rule some that it is about, and some that no rule
//! asked for.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

use ipnetwork::{Ipv4Network, Ipv6Network};
use nfguard_netlink::protocol;

use crate::explain::{Flow, Path, Payload};
use crate::policy::{Action, Addresses, Direction, Interface, Policy, Ports, Rule, Traffic};

/// Where connections are tried.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Ground {
    /// The addresses of the host with the policy.
    pub host: (Ipv4Addr, Ipv6Addr),
    /// Somebody on the internet.
    pub far: (Ipv4Addr, Ipv6Addr),
    /// The interface that is between them.
    pub interface: String,
}

/// A connection to try.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Sample {
    /// The connection.
    pub flow: Flow,
    /// The rule that it was chosen for; `None` if it is there to be refused by the defaults.
    pub rule: Option<String>,
    /// How often to open it, one after the other: more than once for a limit.
    pub times: u8,
}

/// Source port of all samples of rules that do not ask for one.
const SOURCE_PORT: u16 = 40_000;
/// How many ranges of a list of ports are tried.
const RANGES: usize = 3;
/// "discard" and "smtp": ports that hardly a policy opens (RFC 863, RFC 5321).
const UNWANTED: [(u8, u16); 3] = [(protocol::TCP, 9), (protocol::UDP, 9), (protocol::TCP, 25)];
const ECHO_REQUEST: (u8, u8) = (8, 128);

impl Policy {
    /// Connections that show what the policy does, IPv4 and IPv6. Rules for other interfaces than
    /// the ground's, for routed packets, for containers alone, and for protocols without ports are
    /// left out.
    #[must_use]
    pub fn samples(&self, ground: &Ground) -> Vec<Sample> {
        let mut samples = Vec::new();
        for rule in &self.rules {
            let (path, interfaces) = match rule.direction {
                Direction::In => (Path::In, &rule.in_interface),
                Direction::Out if rule.in_interface.is_empty() => (Path::Out, &rule.out_interface),
                Direction::Out | Direction::Forward => continue,
            };
            if !includes(interfaces, &ground.interface) {
                continue;
            }
            let times = match rule.action {
                Action::Limit(limit) => limit.connections,
                Action::Allow | Action::Deny | Action::Reject => 1,
            };
            for is_v6 in [false, true] {
                let Some((source, destination)) = self.ends(rule, path, is_v6, ground) else {
                    continue;
                };
                samples.extend(payloads(&rule.traffic, is_v6).into_iter().map(|payload| Sample {
                    flow: flow(path, source, destination, payload, ground),
                    rule: Some(rule.name.clone()),
                    times,
                }));
            }
        }
        for (path, is_v6) in
            [(Path::In, false), (Path::In, true), (Path::Out, false), (Path::Out, true)]
        {
            let (source, destination) = default_ends(path, is_v6, ground);
            let ports = UNWANTED.map(|(protocol, destination)| Payload::Ports {
                protocol,
                source: SOURCE_PORT,
                destination,
            });
            let kind = if is_v6 { ECHO_REQUEST.1 } else { ECHO_REQUEST.0 };
            samples.extend(ports.into_iter().chain([Payload::Icmp { kind }]).map(|payload| {
                let flow = flow(path, source, destination, payload, ground);
                Sample { flow, rule: None, times: 1 }
            }));
        }
        samples
    }

    /// Source and destination that the rule is about; `None` if it is not about this family.
    fn ends(
        &self,
        rule: &Rule,
        path: Path,
        is_v6: bool,
        ground: &Ground,
    ) -> Option<(IpAddr, IpAddr)> {
        let (source, destination) = default_ends(path, is_v6, ground);
        Some((
            self.address(&rule.from, is_v6, source)?,
            self.address(&rule.to, is_v6, destination)?,
        ))
    }

    fn address(&self, addresses: &Addresses, is_v6: bool, any: IpAddr) -> Option<IpAddr> {
        let prefixes = match addresses {
            Addresses::Any => return Some(any),
            Addresses::Group(index) => &self.groups.get(*index)?.prefixes,
            Addresses::Prefixes(prefixes) => prefixes,
        };
        if is_v6 {
            prefixes.v6.first().map(|network| host_v6(*network).into())
        } else {
            prefixes.v4.first().map(|network| host_v4(*network).into())
        }
    }
}

fn includes(interfaces: &[Interface], name: &str) -> bool {
    let named = Interface { name: name.to_owned(), wildcard: false };
    interfaces.is_empty() || interfaces.iter().any(|each| each.contains(&named))
}

fn default_ends(path: Path, is_v6: bool, ground: &Ground) -> (IpAddr, IpAddr) {
    let pick =
        |(v4, v6): (Ipv4Addr, Ipv6Addr)| -> IpAddr { if is_v6 { v6.into() } else { v4.into() } };
    let (host, far) = (pick(ground.host), pick(ground.far));
    if path == Path::Out { (host, far) } else { (far, host) }
}

/// A host's address in the network: not the network's own, nor its broadcast address.
fn host_v4(network: Ipv4Network) -> Ipv4Addr {
    let inside = if network.prefix() < 31 { 1 } else { 0 };
    Ipv4Addr::from_bits(network.network().to_bits() | inside)
}

fn host_v6(network: Ipv6Network) -> Ipv6Addr {
    let inside = if network.prefix() < 127 { 1 } else { 0 };
    Ipv6Addr::from_bits(network.network().to_bits() | inside)
}

fn payloads(traffic: &Traffic, is_v6: bool) -> Vec<Payload> {
    match traffic {
        Traffic::Any => vec![
            Payload::Ports { protocol: protocol::TCP, source: SOURCE_PORT, destination: 4000 },
            Payload::Ports { protocol: protocol::UDP, source: SOURCE_PORT, destination: 4000 },
        ],
        Traffic::Ports { tcp, udp, source } => {
            let source = source.0.first().map_or(SOURCE_PORT, |(first, _)| *first);
            [(protocol::TCP, tcp), (protocol::UDP, udp)]
                .into_iter()
                .filter_map(|(protocol, ports)| Some((protocol, ports.as_ref()?)))
                .flat_map(|(protocol, ports)| {
                    starts(ports).into_iter().map(move |destination| Payload::Ports {
                        protocol,
                        source,
                        destination,
                    })
                })
                .collect()
        }
        Traffic::Icmp { v4, v6 } => {
            let (types, echo) = if is_v6 { (v6, ECHO_REQUEST.1) } else { (v4, ECHO_REQUEST.0) };
            let pings = types.as_ref().is_some_and(|all| all.is_empty() || all.contains(&echo));
            if pings { vec![Payload::Icmp { kind: echo }] } else { Vec::new() }
        }
        Traffic::Protocols(_) => Vec::new(),
    }
}

fn starts(ports: &Ports) -> Vec<u16> {
    if ports.0.is_empty() {
        return vec![4000];
    }
    ports.0.iter().take(RANGES).map(|(first, _)| *first).collect()
}

fn flow(
    path: Path,
    source: IpAddr,
    destination: IpAddr,
    payload: Payload,
    ground: &Ground,
) -> Flow {
    let interface = ground.interface.clone();
    Flow {
        path,
        source,
        destination,
        payload,
        in_interface: interface.clone(),
        out_interface: interface,
    }
}
