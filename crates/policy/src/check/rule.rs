//! Checks one rule: whether its keys make sense together, and what they mean.

use crate::check::distinct;
use ipnetwork::IpNetwork;
use nfguard_netlink::{IpVersion, PerIpVersion};

use crate::json::address::{Peer, suggest_group};
use crate::json::document::Problems;
use crate::json::file::{LimitFile, RuleFile};
use crate::json::log::RuleLog;
use crate::json::port::PortItem;
use crate::json::protocol::IcmpType;
use crate::json::reader::{Field, OneOrMany};
use crate::json::values::{
    ActionWord, Connections, HelperWord, OverLimit, Seconds, SourceCount, V6PrefixLength,
};
use crate::policy::{
    Action, Addresses, Containers, Direction, Group, Helper, Interface, Limit, LogTarget, Prefixes,
    Rule, Traffic, Transport, Verdict,
};

/// A rule before it gets its final name.
pub(crate) struct Draft {
    pub(crate) given_name: Option<String>,
    pub(crate) derived_name: String,
    pub(crate) rule: Rule,
}

/// Checks the rule at `pointer`. The draft is valid only if `problems` has no error.
pub(crate) fn rule(
    file: RuleFile,
    pointer: &str,
    groups: &[Group],
    containers: &Containers,
    log: &LogTarget,
    problems: &mut Problems,
) -> Draft {
    let context = RuleContext { pointer, groups };
    let direction = file.direction.given().copied();
    if let (false, direction) = (file.direction.is_bad(), direction.unwrap_or(Direction::In)) {
        context.check_interfaces(&file, direction, containers, problems);
    }
    let direction = direction.unwrap_or(Direction::In);
    let traffic = context.traffic(&file, problems);
    let from = context.addresses("from", &file.from, problems);
    let to = context.addresses("to", &file.to, problems);
    let traffic = match (traffic, &from, &to) {
        (Some(traffic), Some(from), Some(to)) => {
            context.restrict_to_versions(traffic, from, to, problems)
        }
        (traffic, ..) => traffic.unwrap_or(Traffic::Any),
    };
    let derived_name = derived_name(&file, direction);
    let helper = context.helper(&file, &traffic, problems);
    let declines_helper = file.helper.given() == Some(&HelperWord(None));
    let untracked = context.untracked(&file, &traffic, problems);
    let action = context.action(&file.action, file.limit, problems);
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
        helper,
        declines_helper,
        untracked,
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

/// The place of a rule, and the groups that it can name.
pub(crate) struct RuleContext<'c> {
    pub(crate) pointer: &'c str,
    pub(crate) groups: &'c [Group],
}

impl RuleContext<'_> {
    /// Reports an error at a key of the rule.
    pub(crate) fn error(&self, problems: &mut Problems, key: &str, message: impl Into<String>) {
        problems.error(format!("{}/{key}", self.pointer), message, None);
    }

    fn check_interfaces(
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
            self.check_bridges(list, containers, problems);
        }
    }

    /// Checks that the input interfaces of a rule for "out" are bridges of containers. Packets of this
    /// host itself have no input interface.
    fn check_bridges(
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
            let message = "a rule for \"out\" has an in_interface only for what containers send; \
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
            ActionWord::Limit => Action::Limit(limit_of(limit)),
        }
    }

    fn helper(
        &self,
        file: &RuleFile,
        traffic: &Traffic,
        problems: &mut Problems,
    ) -> Option<Helper> {
        let helper = file.helper.given()?.0?;
        let is_allowed =
            matches!(file.action, Field::Bad | Field::Given(ActionWord::Allow | ActionWord::Limit));
        let has_ports = |transport| match (traffic, transport) {
            (Traffic::Ports { tcp, .. }, Transport::Tcp) => tcp.is_some(),
            (Traffic::Ports { udp, .. }, Transport::Udp) => udp.is_some(),
            _ => false,
        };
        let may_read = Transport::ALL.into_iter().any(|it| helper.reads(it) && has_ports(it));
        let message = if !is_allowed {
            "only a rule that allows connections has a helper".to_owned()
        } else if matches!(file.port, Field::Absent) {
            let why = "a helper reads every connection that its rule matches";
            format!("{why}; expected a \"port\" in this rule")
        } else if file.port.given().is_some() && !may_read {
            let reads = Transport::ALL.into_iter().filter(|it| helper.reads(*it));
            let words: Vec<_> = reads.map(Transport::word).collect();
            format!("the helper \"{}\" reads {} alone", helper.kind(), words.join(" and "))
        } else {
            return Some(helper);
        };
        self.error(problems, "helper", message);
        None
    }

    fn untracked(&self, file: &RuleFile, traffic: &Traffic, problems: &mut Problems) -> bool {
        if file.untracked.given() != Some(&true) {
            return false;
        }
        let is_allowed = matches!(file.action, Field::Bad | Field::Given(ActionWord::Allow));
        let message = if !is_allowed {
            "only a rule with the action \"allow\" accepts untracked packets and their replies"
        } else if !matches!(traffic, Traffic::Ports { .. }) && file.port.given().is_some() {
            return false;
        } else if !matches!(traffic, Traffic::Ports { .. }) || matches!(file.port, Field::Absent) {
            "replies to untracked packets are told by their source port; expected a \"port\""
        } else if file.direction.given() == Some(&Direction::Out)
            && !matches!(file.in_interface, Field::Absent)
        {
            "packets of containers are tracked; expected a rule without in_interface"
        } else if file.helper.given().is_some_and(|helper| helper.0.is_some()) {
            "a helper reads tracked connections alone; expected one of \"helper\" and \"untracked\""
        } else {
            return true;
        };
        self.error(problems, "untracked", message);
        false
    }

    /// Returns the addresses of a key. Returns `None` if an error was reported, here or by the reader.
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
                    let message = "\"any\" cannot stand in a list with others; expected \"any\" alone, or no \"any\"";
                    self.error(problems, &format!("{key}{step}"), message);
                    fits = false;
                }
                Peer::Any => return Some(Addresses::Any),
                Peer::Net(net) if key == "to" && net.ip().is_unspecified() && is_host(net) => {
                    let message =
                        format!("nothing is sent to {}; \"any\" is every address", net.ip());
                    let pointer = format!("{}/{key}{step}", self.pointer);
                    problems.error(pointer, message, Some("\"any\"".to_owned()));
                    fits = false;
                }
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

    /// Returns the traffic without the IP version that the addresses exclude. Reports an error if no
    /// packet is left.
    fn restrict_to_versions(
        &self,
        traffic: Traffic,
        from: &Addresses,
        to: &Addresses,
        problems: &mut Problems,
    ) -> Traffic {
        let [from, to] = [from, to].map(|addresses| self.versions(addresses));
        // A group that could not be read has no address. The reader has reported its error.
        let has_none = |has: &PerIpVersion<bool>| !has.v4 && !has.v6;
        if has_none(&from) || has_none(&to) {
            return traffic;
        }
        let (v4, v6) = (from.v4 && to.v4, from.v6 && to.v6);
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
            let (protocol, version) = if v4 { ("ICMPv6", "IPv4") } else { ("ICMP", "IPv6") };
            let message = format!(
                "the rule can never match: it is for {protocol}, its addresses are {version}"
            );
            problems.error(self.pointer, message, None);
        }
        Traffic::Icmp { v4: types, v6: types_v6 }
    }

    /// Returns for each IP version whether the addresses include one of it.
    fn versions(&self, addresses: &Addresses) -> PerIpVersion<bool> {
        let prefixes = match addresses {
            Addresses::Any => return PerIpVersion { v4: true, v6: true },
            Addresses::Prefixes(prefixes) => Some(prefixes),
            Addresses::Group(index) => self.groups.get(*index).map(|group| &group.prefixes),
        };
        PerIpVersion {
            v4: prefixes.is_some_and(|prefixes| !prefixes.v4.is_empty()),
            v6: prefixes.is_some_and(|prefixes| !prefixes.v6.is_empty()),
        }
    }
}

fn is_host(net: &IpNetwork) -> bool {
    net.prefix() == IpVersion::of(net.ip()).address_bits()
}

/// The limit of a rule that gives no numbers, which is that of DEFAULT_LIMIT.
const DEFAULT_LIMIT: Limit =
    Limit { connections: 6, seconds: 30, v6_prefix: 64, over: Verdict::Reject, sources: 65_536 };

fn limit_of(field: Field<LimitFile>) -> Limit {
    let Field::Given(file) = field else {
        return DEFAULT_LIMIT;
    };
    let Connections(connections) =
        file.connections.unwrap_or(Connections(DEFAULT_LIMIT.connections.into()));
    Limit {
        connections: u8::try_from(connections).unwrap_or(DEFAULT_LIMIT.connections),
        seconds: file.seconds.unwrap_or(Seconds(DEFAULT_LIMIT.seconds)).0,
        v6_prefix: file.v6_prefix.unwrap_or(V6PrefixLength(DEFAULT_LIMIT.v6_prefix)).0,
        over: file.over.unwrap_or(OverLimit(DEFAULT_LIMIT.over)).0,
        sources: file.sources.unwrap_or(SourceCount(DEFAULT_LIMIT.sources)).0,
    }
}

/// Longest name that is made from a rule's keys, in bytes. A number that keeps two names apart still
/// fits into the kernel's limit.
const MAX_DERIVED_NAME_BYTES: usize = 48;

/// Returns a name made from a rule's keys, such as `limit-ssh`, `allow-http-https`, `allow-out-53` or
/// `deny-forward-any`.
fn derived_name(file: &RuleFile, direction: Direction) -> String {
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
            if name.len() + 1 + part.len() > MAX_DERIVED_NAME_BYTES {
                break;
            }
            name.push('-');
        }
        name.push_str(&part.to_ascii_lowercase());
    }
    name
}
