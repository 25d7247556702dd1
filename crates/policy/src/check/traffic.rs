//! Checks the protocols, ports and ICMP types of a rule together.

use crate::check::rule::RuleContext;
use crate::json::document::Problems;
use crate::json::file::RuleFile;
use crate::json::port::{PerTransport, PortItem};
use crate::json::protocol::{IcmpType, Protocol};
use crate::json::reader::{Field, OneOrMany, shown};
use crate::policy::{Ports, Traffic, Transport};

impl RuleContext<'_> {
    /// Returns the traffic that a rule is for. Returns `None` if an error was reported, here or by the
    /// reader.
    pub(crate) fn traffic(&self, file: &RuleFile, problems: &mut Problems) -> Option<Traffic> {
        let has_ports = !matches!((&file.port, &file.from_port), (Field::Absent, Field::Absent));
        let has_types = !matches!(file.icmp_type, Field::Absent);
        let protocols = match &file.proto {
            Field::Bad => return None,
            Field::Absent => None,
            Field::Given(list) => Some(self.protocols(list, problems)?),
        };
        let kind = protocols.as_deref().map_or(ProtocolKind::Any, kind);
        let may_have_ports = kind == ProtocolKind::Ports || protocols.is_none();
        if has_types && kind != ProtocolKind::Icmp {
            let message = "an ICMP type needs a \"proto\" of \"icmp\", \"icmpv6\" or both";
            self.error(problems, "icmp_type", message);
        }
        if has_ports && !may_have_ports {
            for (key, is_given) in [
                ("port", !matches!(file.port, Field::Absent)),
                ("from_port", !matches!(file.from_port, Field::Absent)),
            ] {
                if is_given {
                    self.error(problems, key, "only TCP and UDP have ports in a policy");
                }
            }
        }
        if (has_types && kind != ProtocolKind::Icmp) || (has_ports && !may_have_ports) {
            return None;
        }
        let protocols = protocols.unwrap_or_default();
        match kind {
            ProtocolKind::Any if has_ports => self.ports(file, None, problems),
            ProtocolKind::Any => Some(Traffic::Any),
            ProtocolKind::Ports => self.ports(file, Some(&protocols), problems),
            ProtocolKind::Icmp => self.icmp(file, &protocols, problems),
            ProtocolKind::Other => {
                let mut numbers: Vec<u8> = protocols
                    .iter()
                    .filter_map(|protocol| match protocol {
                        Protocol::Number(number) => Some(*number),
                        Protocol::Any => None,
                    })
                    .collect();
                numbers.sort_unstable();
                numbers.dedup();
                Some(Traffic::Protocols(numbers))
            }
        }
    }

    /// Returns the protocols of a rule, which are all of one kind.
    fn protocols(
        &self,
        list: &OneOrMany<Protocol>,
        problems: &mut Problems,
    ) -> Option<Vec<Protocol>> {
        let mut protocols: Vec<Protocol> = Vec::new();
        for (step, protocol) in list.iter() {
            if let Some(first) = protocols.first()
                && kind(&[*first]) != kind(&[*protocol])
            {
                let message = format!(
                    "\"{}\" and \"{}\" cannot stand in one rule; expected TCP with UDP, ICMP with \
                     ICMPv6, or other protocols",
                    first.shown(),
                    protocol.shown()
                );
                self.error(problems, &format!("proto{step}"), message);
                return None;
            }
            protocols.push(*protocol);
        }
        list.is_complete().then_some(protocols)
    }

    fn ports(
        &self,
        file: &RuleFile,
        explicit: Option<&[Protocol]>,
        problems: &mut Problems,
    ) -> Option<Traffic> {
        if file.port.is_bad() || file.from_port.is_bad() {
            return None;
        }
        let mut wanted = match explicit {
            None => PerTransport { tcp: true, udp: true },
            Some(protocols) => PerTransport {
                tcp: protocols.contains(&Protocol::TCP),
                udp: protocols.contains(&Protocol::UDP),
            },
        };
        let destination = match file.port.given() {
            Some(list) => Some(self.port_list("port", list, wanted, problems)?),
            None => None,
        };
        if explicit.is_none()
            && let Some(ports) = &destination
        {
            wanted = PerTransport::from_fn(|transport| !ports[transport].is_empty());
        }
        let mut source = Vec::new();
        if let Some(list) = file.from_port.given() {
            let lists = self.port_list("from_port", list, wanted, problems)?;
            if explicit.is_none() {
                wanted = PerTransport::from_fn(|transport| {
                    wanted[transport] && !lists[transport].is_empty()
                });
            }
            // Both protocols share one list of source ports.
            let differ = wanted.tcp && wanted.udp && lists.tcp != lists.udp;
            if differ || !(wanted.tcp || wanted.udp) {
                let message = "these services have different ports in TCP and UDP; expected \
                               numbers, or a rule for each protocol";
                self.error(problems, "from_port", message);
                return None;
            }
            source = if wanted.tcp { lists.tcp } else { lists.udp };
        }
        let mut lists = destination.unwrap_or_default();
        if explicit.is_some() && file.port.given().is_some() {
            for transport in Transport::ALL {
                if wanted[transport] && lists[transport].is_empty() {
                    let message = format!(
                        "none of these services is listed for {}, which \"proto\" names",
                        transport.word()
                    );
                    self.error(problems, "port", message);
                    return None;
                }
            }
        }
        let mut ports = |transport| {
            wanted[transport].then(|| Ports::from_ranges(std::mem::take(&mut lists[transport])))
        };
        Some(Traffic::Ports {
            tcp: ports(Transport::Tcp),
            udp: ports(Transport::Udp),
            source: Ports::from_ranges(source),
        })
    }

    /// Returns the ranges of a list for each protocol that is wanted.
    fn port_list(
        &self,
        key: &str,
        list: &OneOrMany<PortItem>,
        wanted: PerTransport<bool>,
        problems: &mut Problems,
    ) -> Option<PerTransport<Vec<(u16, u16)>>> {
        let mut lists: PerTransport<Vec<(u16, u16)>> = PerTransport::default();
        let mut fits = list.is_complete();
        for (step, item) in list.iter() {
            let ranges = item.ranges();
            let mut is_used = false;
            for transport in Transport::ALL {
                if let (true, Some(range)) = (wanted[transport], ranges[transport]) {
                    lists[transport].push(range);
                    is_used = true;
                }
            }
            if !is_used {
                let listed = if ranges.tcp.is_some() { Transport::Tcp } else { Transport::Udp };
                let message = format!(
                    "the service {} is listed for {} only; expected one of the rule's protocol, \
                     or a number",
                    shown(&item.label()),
                    listed.word()
                );
                self.error(problems, &format!("{key}{step}"), message);
                fits = false;
            }
        }
        fits.then_some(lists)
    }

    fn icmp(
        &self,
        file: &RuleFile,
        protocols: &[Protocol],
        problems: &mut Problems,
    ) -> Option<Traffic> {
        let has_v4 = protocols.contains(&Protocol::ICMP);
        let has_v6 = protocols.contains(&Protocol::ICMPV6);
        let list = match &file.icmp_type {
            Field::Bad => return None,
            Field::Absent => {
                let any = |is_wanted: bool| is_wanted.then(Vec::new);
                return Some(Traffic::Icmp { v4: any(has_v4), v6: any(has_v6) });
            }
            Field::Given(list) => list,
        };
        let (mut v4, mut v6) = (Vec::new(), Vec::new());
        let mut fits = list.is_complete();
        for (step, item) in list.iter() {
            let (in_v4, in_v6) = match *item {
                IcmpType::Number(_) if has_v4 && has_v6 => {
                    let message = "a number means different things in ICMP and ICMPv6; expected \
                                   a name, or a rule for each protocol";
                    self.error(problems, &format!("icmp_type{step}"), message);
                    fits = false;
                    continue;
                }
                IcmpType::Number(number) => (Some(number), Some(number)),
                IcmpType::Named { v4, v6, .. } => (v4, v6),
            };
            let (in_v4, in_v6) = (in_v4.filter(|_| has_v4), in_v6.filter(|_| has_v6));
            if let (None, None, IcmpType::Named { name, .. }) = (in_v4, in_v6, *item) {
                let (here, there) = if has_v4 { ("ICMP", "icmpv6") } else { ("ICMPv6", "icmp") };
                let message =
                    format!("{here} has no type \"{name}\"; expected a \"proto\" of \"{there}\"");
                self.error(problems, &format!("icmp_type{step}"), message);
                fits = false;
            }
            v4.extend(in_v4);
            v6.extend(in_v6);
        }
        let types = |mut types: Vec<u8>| {
            types.sort_unstable();
            types.dedup();
            (!types.is_empty()).then_some(types)
        };
        fits.then(|| Traffic::Icmp { v4: types(v4), v6: types(v6) })
    }
}

/// Protocols that can stand together in one rule.
#[derive(Clone, Copy, PartialEq, Eq)]
enum ProtocolKind {
    Any,
    Ports,
    Icmp,
    Other,
}

/// Returns the kind of the first protocol, which is the kind of all.
fn kind(protocols: &[Protocol]) -> ProtocolKind {
    match protocols.first() {
        None | Some(Protocol::Any) => ProtocolKind::Any,
        Some(&Protocol::TCP | &Protocol::UDP) => ProtocolKind::Ports,
        Some(&Protocol::ICMP | &Protocol::ICMPV6) => ProtocolKind::Icmp,
        Some(Protocol::Number(_)) => ProtocolKind::Other,
    }
}
