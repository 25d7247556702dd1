//! One rule: whether its keys make sense together, and what they mean.

use crate::check::distinct;
use crate::json::address::{Peer, suggest_group};
use crate::json::document::Problems;
use crate::json::file::{LimitFile, RuleFile};
use crate::json::log::RuleLog;
use crate::json::port::PortItem;
use crate::json::protocol::IcmpType;
use crate::json::reader::{Field, OneOrMany};
use crate::json::values::{
    ActionWord, Connections, OverLimit, Seconds, SourceCount, V6PrefixLength,
};
use crate::policy::{
    Action, Addresses, Containers, Direction, Group, Interface, Limit, LogTarget, Prefixes, Rule,
    Traffic, Verdict,
};

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
    containers: &Containers,
    log: &LogTarget,
    problems: &mut Problems,
) -> Draft {
    let check = Check { pointer, groups };
    let direction = file.direction.given().copied();
    if let (false, direction) = (file.direction.is_bad(), direction.unwrap_or(Direction::In)) {
        check.interfaces_fit(&file, direction, containers, problems);
    }
    let direction = direction.unwrap_or(Direction::In);
    let traffic = check.traffic(&file, problems);
    let from = check.addresses("from", &file.from, problems);
    let to = check.addresses("to", &file.to, problems);
    let traffic = match (traffic, &from, &to) {
        (Some(traffic), Some(from), Some(to)) => check.meeting(traffic, from, to, problems),
        (traffic, ..) => traffic.unwrap_or(Traffic::Any),
    };
    let derived_name = derived_name(&file, direction);
    let action = check.action(&file.action, file.limit, problems);
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

/// Where a rule stands and which groups it can name.
pub(crate) struct Check<'c> {
    pub(crate) pointer: &'c str,
    pub(crate) groups: &'c [Group],
}

impl Check<'_> {
    /// Notes an error at a key of the rule.
    pub(crate) fn error(&self, problems: &mut Problems, key: &str, message: impl Into<String>) {
        problems.error(format!("{}/{key}", self.pointer), message, None);
    }

    fn interfaces_fit(
        &self,
        file: &RuleFile,
        direction: Direction,
        containers: &Containers,
        problems: &mut Problems,
    ) {
        if direction == Direction::In && !matches!(file.out_interface, Field::Absent) {
            let message = "a rule for \"in\" has no out_interface; expected in_interface";
            self.error(problems, "out_interface", message);
        }
        if let (Direction::Out, Field::Given(list)) = (direction, &file.in_interface) {
            self.are_bridges(list, containers, problems);
        }
    }

    /// What this host sends came in nowhere, so for "out" only a container's bridge makes sense.
    fn are_bridges(
        &self,
        list: &OneOrMany<Interface>,
        containers: &Containers,
        problems: &mut Problems,
    ) {
        let bridges = &containers.interfaces;
        if !containers.follow_out {
            let message = "the rule can never match: \"egress\" of \"containers\" is open";
            self.error(problems, "in_interface", message);
            return;
        }
        for (step, one) in list.iter() {
            if bridges.iter().any(|bridge| bridge.contains(one) || one.contains(bridge)) {
                continue;
            }
            let message = "only what containers send comes in by an interface and goes \"out\"; \
                           expected a bridge that \"containers\" names, or out_interface";
            self.error(problems, &format!("in_interface{step}"), message);
        }
    }

    fn action(
        &self,
        action: &Field<ActionWord>,
        limit: Field<LimitFile>,
        problems: &mut Problems,
    ) -> Action {
        let word = action.given().copied();
        if !matches!(limit, Field::Absent) && word.is_some_and(|word| word != ActionWord::Limit) {
            let message = "only a rule with the action \"limit\" has a limit";
            self.error(problems, "limit", message);
        }
        match word.unwrap_or(ActionWord::Deny) {
            ActionWord::Allow => Action::Allow,
            ActionWord::Deny => Action::Deny,
            ActionWord::Reject => Action::Reject,
            ActionWord::Limit => Action::Limit(limit_numbers(limit)),
        }
    }

    /// `None` after an error has been noted, here or while reading.
    pub(crate) fn addresses(
        &self,
        key: &str,
        field: &Field<OneOrMany<Peer>>,
        problems: &mut Problems,
    ) -> Option<Addresses> {
        let list = match field {
            Field::Absent => return Some(Addresses::Any),
            Field::Bad => return None,
            Field::Given(list) => list,
        };
        let mut fits = list.is_complete();
        let mut nets = Vec::new();
        let mut only_group = None;
        for (step, peer) in list.iter() {
            match peer {
                Peer::Any if list.values.len() > 1 => {
                    let message = "\"any\" stands alone; expected no list, or no \"any\" in it";
                    self.error(problems, &format!("{key}{step}"), message);
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
                        problems.error(pointer, message, suggestion);
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
        problems: &mut Problems,
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
            problems.error(self.pointer, message, None);
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
            problems.error(self.pointer, message, None);
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

fn limit_numbers(field: Field<LimitFile>) -> Limit {
    const UFW: Limit = Limit {
        connections: 6,
        seconds: 30,
        v6_prefix: 64,
        over: Verdict::Reject,
        sources: 65_536,
    };
    let Field::Given(file) = field else {
        return UFW;
    };
    let Connections(connections) = file.connections.unwrap_or(Connections(UFW.connections.into()));
    Limit {
        connections: u8::try_from(connections).unwrap_or(UFW.connections),
        seconds: file.seconds.unwrap_or(Seconds(UFW.seconds)).0,
        v6_prefix: file.v6_prefix.unwrap_or(V6PrefixLength(UFW.v6_prefix)).0,
        over: file.over.unwrap_or(OverLimit(UFW.over)).0,
        sources: file.sources.unwrap_or(SourceCount(UFW.sources)).0,
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
