//! One rule: whether its keys make sense together, and what they mean.

use crate::address::{Peer, suggest_group};
use crate::check::distinct;
use crate::file::{LimitFile, RuleFile, RuleLog};
use crate::leaf::{
    ActionWord, Connections, IcmpType, Over, PerSource, Protocol, Seconds, V6Source,
};
use crate::policy::{
    Action, Addresses, Direction, Group, Interface, Limit, LogTarget, Ports, Prefixes, Rule,
    Traffic, Verdict,
};
use crate::port::PortItem;
use crate::read::{Field, OneOrMany, shown};
use crate::source::Findings;

/// A rule that is yet to get its name.
pub(crate) struct Draft {
    pub(crate) given_name: Option<String>,
    pub(crate) derived_name: String,
    pub(crate) rule: Rule,
}

/// Checks the rule that stands at `pointer`. The draft is of no use if an error has been noted.
pub(crate) fn rule(
    file: RuleFile,
    pointer: &str,
    groups: &[Group],
    log: &LogTarget,
    findings: &mut Findings,
) -> Draft {
    let check = Check { pointer, groups };
    let direction = file.direction.given().copied();
    if let (false, direction) = (file.direction.is_bad(), direction.unwrap_or(Direction::In)) {
        check.interfaces_fit(&file, direction, findings);
    }
    let direction = direction.unwrap_or(Direction::In);
    let traffic = check.traffic(&file, findings);
    let from = check.addresses("from", &file.from, findings);
    let to = check.addresses("to", &file.to, findings);
    let traffic = match (traffic, &from, &to) {
        (Some(traffic), Some(from), Some(to)) => check.meeting(traffic, from, to, findings),
        (traffic, ..) => traffic.unwrap_or(Traffic::Any),
    };
    let derived_name = derived_name(&file, direction);
    let action = check.action(&file.action, file.limit, findings);
    let rule = Rule {
        name: String::new(),
        comment: file.comment.or_none().map(|comment| comment.0),
        direction,
        action,
        traffic,
        from: from.unwrap_or(Addresses::Any),
        to: to.unwrap_or(Addresses::Any),
        in_interface: interfaces(file.in_interface),
        out_interface: interfaces(file.out_interface),
        log: log_target(file.log, log),
    };
    Draft { given_name: file.name.or_none().map(|name| name.0), derived_name, rule }
}

fn interfaces(field: Field<OneOrMany<Interface>>) -> Vec<Interface> {
    distinct(field.or_none().into_iter().flat_map(|list| list.values).flatten().collect())
}

fn log_target(field: Field<RuleLog>, defaults: &LogTarget) -> Option<LogTarget> {
    match field.or_none()? {
        RuleLog::Switch(on) => on.then(|| defaults.clone()),
        RuleLog::Settings(settings) => Some(LogTarget {
            to: settings.to.unwrap_or(defaults.to),
            prefix: settings.prefix.or_none().map_or(defaults.prefix.clone(), |prefix| prefix.0),
            rate: settings.rate.or_none().map_or(defaults.rate, |rate| rate.0),
        }),
    }
}

struct Check<'c> {
    pointer: &'c str,
    groups: &'c [Group],
}

impl Check<'_> {
    /// Notes an error at a key of the rule.
    fn error(&self, findings: &mut Findings, key: &str, message: impl Into<String>) {
        findings.error(format!("{}/{key}", self.pointer), message, None);
    }

    fn interfaces_fit(&self, file: &RuleFile, direction: Direction, findings: &mut Findings) {
        if direction == Direction::In && !matches!(file.out_interface, Field::Absent) {
            let message = "a rule for \"in\" has no out_interface; expected in_interface";
            self.error(findings, "out_interface", message);
        }
        if direction == Direction::Out && !matches!(file.in_interface, Field::Absent) {
            let message = "a rule for \"out\" has no in_interface; expected out_interface";
            self.error(findings, "in_interface", message);
        }
    }

    fn action(
        &self,
        action: &Field<ActionWord>,
        limit: Field<LimitFile>,
        findings: &mut Findings,
    ) -> Action {
        let word = action.given().copied();
        if !matches!(limit, Field::Absent) && word.is_some_and(|word| word != ActionWord::Limit) {
            let message = "only a rule with the action \"limit\" has a limit";
            self.error(findings, "limit", message);
        }
        match word.unwrap_or(ActionWord::Deny) {
            ActionWord::Allow => Action::Allow,
            ActionWord::Deny => Action::Deny,
            ActionWord::Reject => Action::Reject,
            ActionWord::Limit => Action::Limit(limit_numbers(limit)),
        }
    }

    /// `None` after an error has been noted, here or while reading.
    fn traffic(&self, file: &RuleFile, findings: &mut Findings) -> Option<Traffic> {
        let has_ports = !matches!((&file.port, &file.from_port), (Field::Absent, Field::Absent));
        let has_types = !matches!(file.icmp_type, Field::Absent);
        let protocols = match &file.proto {
            Field::Bad => return None,
            Field::Absent => None,
            Field::Given(list) => Some(self.protocols(list, findings)?),
        };
        let kind = protocols.as_deref().map_or(Kind::Any, kind);
        let may_have_ports = kind == Kind::Ports || protocols.is_none();
        if has_types && kind != Kind::Icmp {
            let message = "an ICMP type needs a \"proto\" of \"icmp\", \"icmpv6\" or both";
            self.error(findings, "icmp_type", message);
        }
        if has_ports && !may_have_ports {
            for (key, is_given) in [
                ("port", !matches!(file.port, Field::Absent)),
                ("from_port", !matches!(file.from_port, Field::Absent)),
            ] {
                if is_given {
                    self.error(findings, key, "only TCP and UDP have ports here");
                }
            }
        }
        if (has_types && kind != Kind::Icmp) || (has_ports && !may_have_ports) {
            return None;
        }
        let protocols = protocols.unwrap_or_default();
        match kind {
            Kind::Any if has_ports => self.ports(file, None, findings),
            Kind::Any => Some(Traffic::Any),
            Kind::Ports => self.ports(file, Some(&protocols), findings),
            Kind::Icmp => self.icmp(file, &protocols, findings),
            Kind::Other => {
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

    /// The protocols of a rule, all of one kind.
    fn protocols(
        &self,
        list: &OneOrMany<Protocol>,
        findings: &mut Findings,
    ) -> Option<Vec<Protocol>> {
        let mut protocols: Vec<Protocol> = Vec::new();
        for (step, protocol) in list.iter() {
            if let Some(first) = protocols.first()
                && kind(&[*first]) != kind(&[*protocol])
            {
                let message = format!(
                    "\"{}\" and \"{}\" do not go into one rule; expected TCP with UDP, ICMP with \
                     ICMPv6, or other protocols",
                    first.shown(),
                    protocol.shown()
                );
                self.error(findings, &format!("proto{step}"), message);
                return None;
            }
            protocols.push(*protocol);
        }
        list.is_whole().then_some(protocols)
    }

    fn ports(
        &self,
        file: &RuleFile,
        explicit: Option<&[Protocol]>,
        findings: &mut Findings,
    ) -> Option<Traffic> {
        if file.port.is_bad() || file.from_port.is_bad() {
            return None;
        }
        let mut wanted = explicit.map_or([true; 2], |protocols| {
            [Protocol::TCP, Protocol::UDP].map(|protocol| protocols.contains(&protocol))
        });
        let destination = match file.port.given() {
            Some(list) => Some(self.port_list("port", list, wanted, findings)?),
            None => None,
        };
        if explicit.is_none()
            && let Some(ports) = &destination
        {
            wanted = [0, 1].map(|protocol| !ports[protocol].is_empty());
        }
        let mut source = Vec::new();
        if let Some(list) = file.from_port.given() {
            let lists = self.port_list("from_port", list, wanted, findings)?;
            let matched = [0, 1].map(|protocol| wanted[protocol] && !lists[protocol].is_empty());
            if explicit.is_none() {
                wanted = matched;
            }
            // One list of source ports serves both protocols.
            let differ = wanted == [true; 2] && lists[0] != lists[1];
            if differ || wanted == [false; 2] {
                let message = "these services have different ports in TCP and UDP; expected \
                               numbers, or a rule for each protocol";
                self.error(findings, "from_port", message);
                return None;
            }
            source.clone_from(&lists[usize::from(!wanted[0])]);
        }
        let mut lists = destination.unwrap_or_default();
        if explicit.is_some() && file.port.given().is_some() {
            for (protocol, name) in ["tcp", "udp"].into_iter().enumerate() {
                if wanted[protocol] && lists[protocol].is_empty() {
                    let message = format!(
                        "none of these services is listed for {name}, which \"proto\" names"
                    );
                    self.error(findings, "port", message);
                    return None;
                }
            }
        }
        let mut ports = |protocol: usize| {
            wanted[protocol].then(|| Ports::from_ranges(std::mem::take(&mut lists[protocol])))
        };
        Some(Traffic::Ports { tcp: ports(0), udp: ports(1), source: Ports::from_ranges(source) })
    }

    /// The ranges of a list in TCP and UDP, for whichever is wanted.
    fn port_list(
        &self,
        key: &str,
        list: &OneOrMany<PortItem>,
        wanted: [bool; 2],
        findings: &mut Findings,
    ) -> Option<[Vec<(u16, u16)>; 2]> {
        let mut lists = [Vec::new(), Vec::new()];
        let mut fits = list.is_whole();
        for (step, item) in list.iter() {
            let ranges = item.ranges();
            let mut is_used = false;
            for protocol in [0, 1] {
                if let (true, Some(range)) = (wanted[protocol], ranges[protocol]) {
                    lists[protocol].push(range);
                    is_used = true;
                }
            }
            if !is_used {
                let listed = if ranges[0].is_some() { "tcp" } else { "udp" };
                let message = format!(
                    "the service {} is listed for {listed} only; expected one of the rule's \
                     protocol, or a number",
                    shown(&item.label())
                );
                self.error(findings, &format!("{key}{step}"), message);
                fits = false;
            }
        }
        fits.then_some(lists)
    }

    fn icmp(
        &self,
        file: &RuleFile,
        protocols: &[Protocol],
        findings: &mut Findings,
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
        let mut fits = list.is_whole();
        for (step, item) in list.iter() {
            let (in_v4, in_v6) = match *item {
                IcmpType::Number(_) if has_v4 && has_v6 => {
                    let message = "a number means different things in ICMP and ICMPv6; expected \
                                   a name, or a rule for each protocol";
                    self.error(findings, &format!("icmp_type{step}"), message);
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
                self.error(findings, &format!("icmp_type{step}"), message);
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

    /// `None` after an error has been noted, here or while reading.
    fn addresses(
        &self,
        key: &str,
        field: &Field<OneOrMany<Peer>>,
        findings: &mut Findings,
    ) -> Option<Addresses> {
        let list = match field {
            Field::Absent => return Some(Addresses::Any),
            Field::Bad => return None,
            Field::Given(list) => list,
        };
        let mut fits = list.is_whole();
        let mut nets = Vec::new();
        let mut only_group = None;
        for (step, peer) in list.iter() {
            match peer {
                Peer::Any if list.values.len() > 1 => {
                    let message = "\"any\" stands alone; expected no list, or no \"any\" in it";
                    self.error(findings, &format!("{key}{step}"), message);
                    fits = false;
                }
                Peer::Any => return Some(Addresses::Any),
                Peer::Net(net) => nets.push(*net),
                Peer::Group(name) => match self.group(name) {
                    Some((index, group)) => {
                        only_group = (list.values.len() == 1).then_some(index);
                        nets.extend(group.prefixes.nets());
                    }
                    None => {
                        let names = self.groups.iter().map(|group| group.name.as_str());
                        let suggestion = suggest_group(name, names);
                        let message = format!(
                            "unknown group \"{name}\"; expected one that \"groups\" defines, an \
                             address, a prefix or \"any\""
                        );
                        let pointer = format!("{}/{key}{step}", self.pointer);
                        findings.error(pointer, message, suggestion);
                        fits = false;
                    }
                },
            }
        }
        let addresses = match only_group {
            Some(index) => Addresses::Group(index),
            None => Addresses::Prefixes(Prefixes::from_nets(nets)),
        };
        fits.then_some(addresses)
    }

    fn group(&self, name: &str) -> Option<(usize, &Group)> {
        self.groups.iter().enumerate().find(|(_, group)| group.name == name)
    }

    /// The traffic without the family that the addresses exclude; an error if nothing is left.
    fn meeting(
        &self,
        traffic: Traffic,
        from: &Addresses,
        to: &Addresses,
        findings: &mut Findings,
    ) -> Traffic {
        let [from, to] = [from, to].map(|addresses| self.families(addresses));
        // A group that could not be read has no address; its error stands elsewhere.
        if from == [false; 2] || to == [false; 2] {
            return traffic;
        }
        let [v4, v6] = [0, 1].map(|family| from[family] && to[family]);
        if !v4 && !v6 {
            let message = "the rule can never match: one of \"from\" and \"to\" is IPv4, the \
                           other IPv6";
            findings.error(self.pointer, message, None);
            return traffic;
        }
        let Traffic::Icmp { v4: types, v6: types_v6 } = traffic else {
            return traffic;
        };
        let (types, types_v6) = (types.filter(|_| v4), types_v6.filter(|_| v6));
        if types.is_none() && types_v6.is_none() {
            let (protocol, family) = if v4 { ("ICMPv6", "IPv4") } else { ("ICMP", "IPv6") };
            let message = format!(
                "the rule can never match: it is for {protocol}, its addresses are {family}"
            );
            findings.error(self.pointer, message, None);
        }
        Traffic::Icmp { v4: types, v6: types_v6 }
    }

    /// Whether there are IPv4 and IPv6 addresses.
    fn families(&self, addresses: &Addresses) -> [bool; 2] {
        let prefixes = match addresses {
            Addresses::Any => return [true; 2],
            Addresses::Prefixes(prefixes) => Some(prefixes),
            Addresses::Group(index) => self.groups.get(*index).map(|group| &group.prefixes),
        };
        prefixes.map_or([false; 2], |prefixes| [!prefixes.v4.is_empty(), !prefixes.v6.is_empty()])
    }
}

/// What goes together in one rule.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Kind {
    Any,
    Ports,
    Icmp,
    Other,
}

/// The kind of the first, which is that of all.
fn kind(protocols: &[Protocol]) -> Kind {
    match protocols.first() {
        None | Some(Protocol::Any) => Kind::Any,
        Some(&Protocol::TCP | &Protocol::UDP) => Kind::Ports,
        Some(&Protocol::ICMP | &Protocol::ICMPV6) => Kind::Icmp,
        Some(Protocol::Number(_)) => Kind::Other,
    }
}

fn limit_numbers(field: Field<LimitFile>) -> Limit {
    const UFW: Limit = Limit {
        connections: 6,
        seconds: 30,
        v6_prefix: 64,
        over: Verdict::Reject,
        sources: 65_535,
    };
    let Field::Given(file) = field else {
        return UFW;
    };
    let Connections(connections) = file.connections.unwrap_or(Connections(UFW.connections.into()));
    Limit {
        connections: u8::try_from(connections).unwrap_or(UFW.connections),
        seconds: file.seconds.unwrap_or(Seconds(UFW.seconds)).0,
        v6_prefix: file.v6_prefix.unwrap_or(V6Source(UFW.v6_prefix)).0,
        over: file.over.unwrap_or(Over(UFW.over)).0,
        sources: file.sources.unwrap_or(PerSource(UFW.sources)).0,
    }
}

/// `limit-ssh`, `allow-http-https`, `allow-out-53`, `deny-forward-any`.
fn derived_name(file: &RuleFile, direction: Direction) -> String {
    /// So that the number that keeps two names apart fits too.
    const MOST: usize = 48;
    let mut parts = vec![match file.action.given() {
        Some(ActionWord::Allow) | None => "allow".to_owned(),
        Some(ActionWord::Deny) => "deny".to_owned(),
        Some(ActionWord::Reject) => "reject".to_owned(),
        Some(ActionWord::Limit) => "limit".to_owned(),
    }];
    match direction {
        Direction::In => {}
        Direction::Out => parts.push("out".to_owned()),
        Direction::Forward => parts.push("forward".to_owned()),
    }
    let labels = |list: &OneOrMany<PortItem>| -> Vec<_> {
        list.iter().map(|(_, item)| item.label()).collect()
    };
    let protocols = file.proto.given();
    let protocols = protocols.into_iter().flat_map(OneOrMany::iter).map(|(_, it)| it.shown());
    match (file.port.given(), file.from_port.given(), file.icmp_type.given()) {
        (Some(ports), ..) => {
            parts.extend(labels(ports));
            parts.extend(protocols);
        }
        (None, Some(ports), _) => {
            parts.push("from".to_owned());
            parts.extend(labels(ports));
            parts.extend(protocols);
        }
        (None, None, Some(types)) => parts.extend(types.iter().map(|(_, item)| match item {
            IcmpType::Number(number) => format!("icmp-{number}"),
            IcmpType::Named { name, .. } => (*name).to_owned(),
        })),
        (None, None, None) if file.proto.given().is_some() => parts.extend(protocols),
        (None, None, None) => parts.push("any".to_owned()),
    }
    let mut name = String::new();
    for part in parts {
        if !name.is_empty() {
            if name.len() + 1 + part.len() > MOST {
                break;
            }
            name.push('-');
        }
        name.push_str(&part.to_ascii_lowercase());
    }
    name
}
