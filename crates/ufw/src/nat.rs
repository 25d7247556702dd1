//! Redirects and port forwards. UFW judges packets after NAT, by the port of the receiver; a policy
//! judges them before, by the port that the sender sees. So a rule about the receiver's port becomes
//! one about the other port, too.

use std::net::IpAddr;

use ipnetwork::IpNetwork;
use nfguard_netlink::{IpVersion, PerIpVersion, Published, protocol};

use crate::config::SourceFile;
use crate::diagnostic::Diagnostics;
use crate::tuple::{Direction, Endpoint, RuleSpec};

/// Ports that are rewritten on their way in.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct PortForward {
    pub(crate) version: IpVersion,
    /// `tcp` or `udp`.
    pub(crate) protocol: &'static str,
    pub(crate) in_interface: Option<String>,
    pub(crate) source: Option<IpNetwork>,
    /// The address that the sender sees; `None` for all.
    pub(crate) destination: Option<IpNetwork>,
    /// The ports that the sender sees, first and last.
    pub(crate) ports: (u16, u16),
    /// The receiver; `None`: this host, which UFW's rules for `in` judge.
    pub(crate) to: Option<IpAddr>,
    /// The receiver's port; `None`: the same.
    pub(crate) to_port: Option<u16>,
}

impl PortForward {
    /// Returns the port forward of a rule that the kernel holds, such as Docker's of a published port.
    pub(crate) fn of_kernel(published: &Published) -> Option<PortForward> {
        let on_loopback = published.on.is_some_and(|on| on.is_loopback());
        let protocol = match published.protocol {
            protocol::TCP => "tcp",
            protocol::UDP => "udp",
            _ => return None,
        };
        (!on_loopback).then(|| PortForward {
            version: IpVersion::of(published.to),
            protocol,
            in_interface: None,
            source: None,
            destination: published.on.map(IpNetwork::from),
            ports: published.ports,
            to: Some(published.to),
            to_port: published.to_port,
        })
    }

    /// Returns what a rule says of this port forward, as a rule for `in` about the ports that the
    /// sender sees; `None` if the rule is about other packets.
    pub(crate) fn before_nat(&self, spec: &RuleSpec) -> Option<RuleSpec> {
        let judges = match (spec.direction, self.to) {
            (Direction::Route, Some(_)) | (Direction::In, None) => true,
            (Direction::Route | Direction::In | Direction::Out, _) => false,
        };
        let to = &spec.destination;
        let is_there = match (to.net, self.to) {
            (None, _) => true,
            (Some(net), Some(to)) => net.contains(to),
            (Some(net), None) => self.destination == Some(net),
        };
        let has_protocol = spec.protocol == "any" || spec.protocol == self.protocol;
        // A rule of UFW for every port of this host includes the port before NAT.
        let is_wider = self.to.is_none() && to.ports.is_empty();
        if !judges || !is_there || !has_protocol || is_wider {
            return None;
        }
        let ports = self.ports_before_nat(&to.ports)?;
        if self.to.is_none() && ports.iter().all(|range| contains(&to.ports, *range)) {
            return None;
        }
        Some(RuleSpec {
            direction: Direction::In,
            protocol: self.protocol.to_owned(),
            destination: Endpoint { net: self.destination, ports, app: None },
            source: Endpoint {
                net: narrower_net(spec.source.net, self.source)?,
                ..spec.source.clone()
            },
            in_interface: narrower_interface(&spec.in_interface, &self.in_interface)?,
            out_interface: None,
            ..spec.clone()
        })
    }

    /// Returns the ports that the sender sees of those that a rule names; `None` if there are none.
    fn ports_before_nat(&self, wanted: &[(u16, u16)]) -> Option<Vec<(u16, u16)>> {
        if wanted.is_empty() {
            return Some(vec![self.ports]);
        }
        let ports: Vec<_> = match self.to_port {
            Some(port) if contains(wanted, (port, port)) => vec![self.ports],
            Some(_) => Vec::new(),
            None => wanted
                .iter()
                .map(|(low, high)| (*low.max(&self.ports.0), *high.min(&self.ports.1)))
                .filter(|(low, high)| low <= high)
                .collect(),
        };
        (!ports.is_empty()).then_some(ports)
    }
}

fn contains(ranges: &[(u16, u16)], (first, last): (u16, u16)) -> bool {
    ranges.iter().any(|(low, high)| *low <= first && last <= *high)
}

/// Returns the packets that both match; `None` if there are none.
fn narrower_net(one: Option<IpNetwork>, other: Option<IpNetwork>) -> Option<Option<IpNetwork>> {
    match (one, other) {
        (None, net) | (net, None) => Some(net),
        (Some(one), Some(other)) if other.contains(one.ip()) && other.prefix() <= one.prefix() => {
            Some(Some(one))
        }
        (Some(one), Some(other)) if one.contains(other.ip()) => Some(Some(other)),
        (Some(_), Some(_)) => None,
    }
}

/// Returns the interface that both match, where `*` is a wildcard; `None` if there is none.
fn narrower_interface(one: &Option<String>, other: &Option<String>) -> Option<Option<String>> {
    let (Some(a), Some(b)) = (one, other) else {
        return Some(one.clone().or_else(|| other.clone()));
    };
    let includes = |wide: &str, name: &str| {
        wide == name || wide.strip_suffix('*').is_some_and(|start| name.starts_with(start))
    };
    if includes(a, b) {
        Some(other.clone())
    } else if includes(b, a) {
        Some(one.clone())
    } else {
        None
    }
}

/// Reads the port forwards of `before.rules` and its IPv6 twin. A rule that is more than a port forward
/// is named: what it needs in the policy is for its author to say.
pub(crate) fn read(
    files: &PerIpVersion<SourceFile>,
    ipv6: bool,
    diagnostics: &mut Diagnostics,
) -> Vec<PortForward> {
    let mut forwards = Vec::new();
    for (version, file) in files.iter().filter(|(version, _)| ipv6 || *version == IpVersion::V4) {
        let mut table = "";
        for (text, line) in file.text.lines().zip(1..) {
            let text = text.trim();
            if let Some(name) = text.strip_prefix('*') {
                table = name;
            }
            let is_nat = table == "nat" && text.starts_with('-');
            if !is_nat || !["DNAT", "REDIRECT", "NETMAP"].iter().any(|word| text.contains(word)) {
                continue;
            }
            match port_forwards(text, version) {
                Some(found) => forwards.extend(found),
                None => {
                    let message = "UFW judges after this translation, and a policy before it: what UFW \
                                   allows by the port of the receiver needs a rule like { \"action\": \
                                   \"allow\", \"port\": the port that the sender sees }";
                    diagnostics.not_carried_over(&file.name, line, message);
                }
            }
        }
    }
    forwards
}

/// Returns the port forwards of a rule; `None` if the rule has a match that this does not know.
fn port_forwards(text: &str, version: IpVersion) -> Option<Vec<PortForward>> {
    let mut words = text.split_whitespace();
    (words.next() == Some("-A") && words.next() == Some("PREROUTING")).then_some(())?;
    let mut forward = PortForward {
        version,
        protocol: "",
        in_interface: None,
        source: None,
        destination: None,
        ports: (0, 0),
        to: None,
        to_port: None,
    };
    let (mut ports, mut is_complete) = (Vec::new(), false);
    let net = |word: &str| -> Option<IpNetwork> {
        let net: IpNetwork = word.parse().ok()?;
        let net = IpNetwork::new(net.network(), net.prefix()).ok()?;
        (IpVersion::of(net.ip()) == version).then_some(net)
    };
    while let Some(option) = words.next() {
        let value = words.next()?;
        match option {
            "-p" | "--protocol" => {
                forward.protocol = ["tcp", "udp"].into_iter().find(|known| *known == value)?;
            }
            "-m" | "--match" if ["tcp", "udp", "multiport", "addrtype"].contains(&value) => {}
            // Only packets to this host's own addresses, which are those that a policy judges as `in`.
            "--dst-type" if value == "LOCAL" => {}
            "-i" | "--in-interface" => {
                forward.in_interface = Some(match value.strip_suffix('+') {
                    Some(start) => format!("{start}*"),
                    None => value.to_owned(),
                });
            }
            "-s" | "--source" => forward.source = Some(net(value)?),
            "-d" | "--destination" => forward.destination = Some(net(value)?),
            "--dport" | "--destination-port" | "--dports" | "--destination-ports" => {
                for item in value.split(',') {
                    let (low, high) = item.split_once(':').unwrap_or((item, item));
                    ports.push((low.parse().ok()?, high.parse().ok()?));
                }
            }
            "-j" | "--jump" if ["REDIRECT", "DNAT"].contains(&value) => is_complete = true,
            "--to-port" | "--to-ports" => forward.to_port = Some(value.parse().ok()?),
            "--to" | "--to-destination" => {
                (forward.to, forward.to_port) = receiver(value)?;
            }
            _ => return None,
        }
    }
    let is_known = is_complete && !forward.protocol.is_empty() && !ports.is_empty();
    // Docker and others redirect to loopback, or to the host itself.
    forward.to = forward.to.filter(|to| !to.is_loopback());
    is_known
        .then(|| ports.into_iter().map(|ports| PortForward { ports, ..forward.clone() }).collect())
}

/// Parses `10.0.0.2`, `10.0.0.2:80`, `:80`, `2001:db8::2` or `[2001:db8::2]:80`.
fn receiver(text: &str) -> Option<(Option<IpAddr>, Option<u16>)> {
    if let Some(port) = text.strip_prefix(':').filter(|port| !port.contains(':')) {
        return Some((None, Some(port.parse().ok()?)));
    }
    if let Ok(address) = text.trim_matches(['[', ']']).parse() {
        return Some((Some(address), None));
    }
    let (address, port) = text.rsplit_once(':')?;
    let address = address.trim_matches(['[', ']']).parse().ok()?;
    Some((Some(address), Some(port.parse().ok()?)))
}
