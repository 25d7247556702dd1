//! Connections to try a policy with: some for each rule, and some that no rule is about.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

use ipnetwork::{Ipv4Network, Ipv6Network};
use nfguard_netlink::{IpVersion, PerIpVersion, protocol};

use crate::explain::{Flow, FlowPath, Payload};
use crate::policy::{Action, Addresses, Direction, Interface, Policy, Ports, Rule, Traffic};

/// The two hosts between which connections are tried.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct SampleHosts {
    /// Addresses of the host with the policy.
    pub host: (Ipv4Addr, Ipv6Addr),
    /// Addresses of a host on the internet.
    pub remote: (Ipv4Addr, Ipv6Addr),
    /// The host's interface to the remote host.
    pub interface: String,
}

/// A connection to try.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Sample {
    /// The connection.
    pub flow: Flow,
    /// The rule that the connection was chosen for. `None` if only the defaults are about it.
    pub rule: Option<String>,
    /// How many times to open it in sequence: more than once for a limit.
    pub times: u8,
}

/// Source port of samples for rules without a source port.
const SOURCE_PORT: u16 = 40_000;
/// Number of port ranges of one rule that get a sample.
const MAX_RANGES: usize = 3;
/// The ports of "discard" and "smtp", which few policies open (RFC 863, RFC 5321).
const UNMATCHED_PORTS: [(u8, u16); 3] =
    [(protocol::TCP, 9), (protocol::UDP, 9), (protocol::TCP, 25)];
const ECHO_REQUEST: PerIpVersion<u8> = PerIpVersion { v4: 8, v6: 128 };

impl Policy {
    /// Returns connections that show what the policy does, for IPv4 and IPv6. There are none for
    /// rules about other interfaces, routed packets, containers alone, or protocols without ports.
    #[must_use]
    pub fn samples(&self, hosts: &SampleHosts) -> Vec<Sample> {
        let mut samples = Vec::new();
        for rule in &self.rules {
            let (path, interfaces) = match rule.direction {
                Direction::In => (FlowPath::In, &rule.in_interface),
                Direction::Out if rule.in_interface.is_empty() => {
                    (FlowPath::Out, &rule.out_interface)
                }
                Direction::Out | Direction::Forward => continue,
            };
            if !includes(interfaces, &hosts.interface) {
                continue;
            }
            let times = match rule.action {
                Action::Limit(limit) => limit.connections,
                Action::Allow | Action::Deny | Action::Reject => 1,
            };
            for version in IpVersion::ALL {
                let Some((source, destination)) = self.ends(rule, path, version, hosts) else {
                    continue;
                };
                samples.extend(payloads(&rule.traffic, version).into_iter().map(|payload| {
                    Sample {
                        flow: flow(path, source, destination, payload, hosts),
                        rule: Some(rule.name.clone()),
                        times,
                    }
                }));
            }
        }
        let paths = [FlowPath::In, FlowPath::Out];
        for (path, version) in
            paths.into_iter().flat_map(|path| IpVersion::ALL.map(|it| (path, it)))
        {
            let (source, destination) = default_ends(path, version, hosts);
            let ports = UNMATCHED_PORTS.map(|(protocol, destination)| Payload::Ports {
                protocol,
                source: SOURCE_PORT,
                destination,
            });
            let kind = ECHO_REQUEST[version];
            samples.extend(ports.into_iter().chain([Payload::Icmp { kind }]).map(|payload| {
                let flow = flow(path, source, destination, payload, hosts);
                Sample { flow, rule: None, times: 1 }
            }));
        }
        samples
    }

    /// Returns a source and a destination that a rule is about. Returns `None` if the rule is not about
    /// this IP version.
    fn ends(
        &self,
        rule: &Rule,
        path: FlowPath,
        version: IpVersion,
        hosts: &SampleHosts,
    ) -> Option<(IpAddr, IpAddr)> {
        let (source, destination) = default_ends(path, version, hosts);
        Some((
            self.address(&rule.from, version, source)?,
            self.address(&rule.to, version, destination)?,
        ))
    }

    fn address(&self, addresses: &Addresses, version: IpVersion, any: IpAddr) -> Option<IpAddr> {
        let prefixes = match addresses {
            Addresses::Any => return Some(any),
            Addresses::Group(index) => &self.groups.get(*index)?.prefixes,
            Addresses::Prefixes(prefixes) => prefixes,
        };
        match version {
            IpVersion::V4 => prefixes.v4.first().map(|network| host_v4(*network).into()),
            IpVersion::V6 => prefixes.v6.first().map(|network| host_v6(*network).into()),
        }
    }
}

fn includes(interfaces: &[Interface], name: &str) -> bool {
    let named = Interface { name: name.to_owned(), wildcard: false };
    interfaces.is_empty() || interfaces.iter().any(|each| each.contains(&named))
}

fn default_ends(path: FlowPath, version: IpVersion, hosts: &SampleHosts) -> (IpAddr, IpAddr) {
    let address = |(v4, v6): (Ipv4Addr, Ipv6Addr)| -> IpAddr {
        match version {
            IpVersion::V4 => v4.into(),
            IpVersion::V6 => v6.into(),
        }
    };
    let (host, remote) = (address(hosts.host), address(hosts.remote));
    if path == FlowPath::Out { (host, remote) } else { (remote, host) }
}

/// Returns the address of a host in a network: not the network's own, and not its broadcast address.
fn host_v4(network: Ipv4Network) -> Ipv4Addr {
    let inside = if network.prefix() < 31 { 1 } else { 0 };
    Ipv4Addr::from_bits(network.network().to_bits() | inside)
}

fn host_v6(network: Ipv6Network) -> Ipv6Addr {
    let inside = if network.prefix() < 127 { 1 } else { 0 };
    Ipv6Addr::from_bits(network.network().to_bits() | inside)
}

fn payloads(traffic: &Traffic, version: IpVersion) -> Vec<Payload> {
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
            let types = match version {
                IpVersion::V4 => v4,
                IpVersion::V6 => v6,
            };
            let echo = ECHO_REQUEST[version];
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
    ports.0.iter().take(MAX_RANGES).map(|(first, _)| *first).collect()
}

fn flow(
    path: FlowPath,
    source: IpAddr,
    destination: IpAddr,
    payload: Payload,
    hosts: &SampleHosts,
) -> Flow {
    let interface = hosts.interface.clone();
    Flow {
        path,
        source,
        destination,
        payload,
        in_interface: interface.clone(),
        out_interface: interface,
    }
}
