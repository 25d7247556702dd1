//! Warnings about rules, or parts of them, that match no packet whatever the other rules are.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

use ipnetwork::IpNetwork;
use nfguard_netlink::IpVersion;

use crate::json::document::Problems;
use crate::lint::cover::{EXTENSION_HEADERS, in_v6};
use crate::policy::{Addresses, Builtin, Direction, Interface, Policy, Prefixes, Rule, Traffic};

/// Warns about rules that match nothing by themselves.
pub(super) fn rules(policy: &Policy, problems: &mut Problems) {
    for (index, rule) in policy.rules.iter().enumerate() {
        let lint = RuleLint { policy, rule, pointer: format!("/rules/{index}") };
        let mut warn = |key: &str, message: &str| {
            problems.warn(format!("{}{key}", lint.pointer), message.to_owned());
        };
        lint.interfaces(&mut warn);
        lint.addresses(&mut warn);
        lint.traffic(&mut warn);
    }
    let is_for_lo = |list: &[Interface]| !list.is_empty() && list.iter().all(is_lo);
    if policy.scan.as_ref().is_some_and(|scan| is_for_lo(&scan.interfaces)) {
        problems
            .warn("/scan/in_interface", "it finds no scan: all that comes by lo is this host's");
    }
}

struct RuleLint<'p> {
    policy: &'p Policy,
    rule: &'p Rule,
    pointer: String,
}

impl RuleLint<'_> {
    fn interfaces(&self, warn: &mut impl FnMut(&str, &str)) {
        let Rule { direction, in_interface, out_interface, .. } = self.rule;
        let containers = &self.policy.containers;
        let all_are = |list: &[Interface], test: &dyn Fn(&Interface) -> bool| {
            !list.is_empty() && list.iter().all(test)
        };
        let by_lo = match direction {
            Direction::In => Some(("/in_interface", in_interface)),
            Direction::Out => Some(("/out_interface", out_interface)),
            Direction::Forward => None,
        };
        if let Some((key, list)) = by_lo
            && self.policy.builtin.contains(&Builtin::Loopback)
            && list.iter().any(|one| one.contains(&lo()))
            && !all_are(list, &is_lo)
        {
            let message = "a part of the rule can never match: lo, because the built-in \"loopback\" \
                           accepts all of lo";
            warn(key, message);
        }
        let is_bridge = |one: &Interface| containers.interfaces.iter().any(|it| it.contains(one));
        match direction {
            Direction::Forward => {
                for (key, list) in
                    [("/in_interface", in_interface), ("/out_interface", out_interface)]
                {
                    if all_are(list, &is_lo) {
                        warn(key, "the rule can never match: nothing is forwarded by lo");
                    }
                }
                if all_are(in_interface, &is_bridge) {
                    let message = if containers.follow_out {
                        "the rule can never match: the rules for \"out\" judge what containers send; \
                         expected a \"direction\" of \"out\""
                    } else {
                        "the rule can never match: \"egress\" of \"containers\" is open"
                    };
                    warn("/in_interface", message);
                }
            }
            Direction::Out if !in_interface.is_empty() && all_are(out_interface, &is_bridge) => {
                let message = "the rule can never match: what one container sends to another is left \
                               to the program that runs them";
                warn("/out_interface", message);
            }
            Direction::Out | Direction::In => {}
        }
    }

    fn addresses(&self, warn: &mut impl FnMut(&str, &str)) {
        let Rule { direction, from, to, traffic, .. } = self.rule;
        let by_lo_alone = self.policy.builtin.contains(&Builtin::Loopback);
        let is_tcp = matches!(traffic, Traffic::Ports { udp: None, .. });
        for (key, side, is_source) in [("/from", from, true), ("/to", to, false)] {
            let Some(prefixes) = self.prefixes(side) else { continue };
            let nets: Vec<IpNetwork> = prefixes.nets().collect();
            let have = |test: fn(&IpNetwork) -> bool| nets.iter().any(test);
            if have(is_to_many) && is_source {
                let message = "a part of the rule can never match: no packet comes from a multicast \
                               or broadcast address";
                warn(key, message);
            }
            if have(is_to_many) && !is_source && is_tcp {
                let message = "a part of the rule can never match: TCP has no multicast and no \
                               broadcast";
                warn(key, message);
            }
            let is_unspecified = |net: &IpNetwork| net.ip().is_unspecified() && net.prefix() >= 32;
            if nets.iter().any(is_unspecified) && is_source {
                let message = "only a host that has no address yet sends from 0.0.0.0 or ::, and no \
                               TCP; \"any\" is every address";
                warn(key, message);
            }
            if have(is_loopback) {
                match direction {
                    Direction::Forward => {
                        let message = "a part of the rule can never match: loopback addresses are not forwarded";
                        warn(key, message);
                    }
                    Direction::In | Direction::Out
                        if by_lo_alone && (*direction == Direction::In || !is_source) =>
                    {
                        let message = "a part of the rule can never match outside of a VRF: loopback \
                                       addresses are used over lo alone, and the built-in \
                                       \"loopback\" accepts all of lo";
                        warn(key, message);
                    }
                    Direction::In | Direction::Out => {}
                }
            }
            let is_own = matches!(side, Addresses::Prefixes(_));
            let other = self.prefixes(if is_source { to } else { from });
            for version in IpVersion::ALL {
                let is_lost = is_own
                    && has(prefixes, version)
                    && has(prefixes, other_version(version))
                    && (other.is_some_and(|other| !has(other, version))
                        || !carries(traffic, version));
                if is_lost {
                    let message = format!(
                        "a part of the rule can never match: its {} addresses, because the rest of the \
                         rule is for {}",
                        version_word(version),
                        version_word(other_version(version))
                    );
                    warn(key, &message);
                }
            }
        }
    }

    fn traffic(&self, warn: &mut impl FnMut(&str, &str)) {
        match &self.rule.traffic {
            Traffic::Protocols(numbers) => {
                if numbers.iter().any(|number| EXTENSION_HEADERS.contains(number)) {
                    let message = "43, 44 and 60 are extension headers of IPv6; a rule matches the \
                                   protocol behind them";
                    warn("/proto", message);
                }
                let is_v6 = !self.has_version(IpVersion::V4);
                if is_v6 && numbers.iter().all(|number| !in_v6(*number)) {
                    let message =
                        "the rule can never match: IPv6 packets do not carry this protocol";
                    warn("/proto", message);
                }
            }
            Traffic::Any | Traffic::Icmp { .. } | Traffic::Ports { .. } => {}
        }
    }

    fn has_version(&self, version: IpVersion) -> bool {
        let sides = [&self.rule.from, &self.rule.to];
        sides.into_iter().all(|side| self.prefixes(side).is_none_or(|it| has(it, version)))
    }

    fn prefixes<'s>(&'s self, side: &'s Addresses) -> Option<&'s Prefixes> {
        match side {
            Addresses::Any => None,
            Addresses::Prefixes(prefixes) => Some(prefixes),
            Addresses::Group(index) => self.policy.groups.get(*index).map(|group| &group.prefixes),
        }
    }
}

/// Returns the loopback interface.
pub(super) fn lo() -> Interface {
    Interface { name: "lo".to_owned(), wildcard: false }
}

fn is_lo(one: &Interface) -> bool {
    one.name == "lo" && !one.wildcard
}

fn has(prefixes: &Prefixes, version: IpVersion) -> bool {
    match version {
        IpVersion::V4 => !prefixes.v4.is_empty(),
        IpVersion::V6 => !prefixes.v6.is_empty(),
    }
}

fn other_version(version: IpVersion) -> IpVersion {
    match version {
        IpVersion::V4 => IpVersion::V6,
        IpVersion::V6 => IpVersion::V4,
    }
}

fn version_word(version: IpVersion) -> &'static str {
    match version {
        IpVersion::V4 => "IPv4",
        IpVersion::V6 => "IPv6",
    }
}

fn carries(traffic: &Traffic, version: IpVersion) -> bool {
    match (traffic, version) {
        (Traffic::Icmp { v4, .. }, IpVersion::V4) => v4.is_some(),
        (Traffic::Icmp { v6, .. }, IpVersion::V6) => v6.is_some(),
        (Traffic::Protocols(numbers), IpVersion::V6) => numbers.iter().any(|it| in_v6(*it)),
        (Traffic::Protocols(_) | Traffic::Any | Traffic::Ports { .. }, _) => true,
    }
}

fn is_to_many(net: &IpNetwork) -> bool {
    match net {
        IpNetwork::V4(net) => {
            net.ip() == Ipv4Addr::BROADCAST || net.ip().is_multicast() && net.prefix() >= 4
        }
        IpNetwork::V6(net) => net.ip().is_multicast() && net.prefix() >= 8,
    }
}

fn is_loopback(net: &IpNetwork) -> bool {
    match net.ip() {
        IpAddr::V4(ip) => ip.is_loopback() && net.prefix() >= 8,
        IpAddr::V6(ip) => ip == Ipv6Addr::LOCALHOST && net.prefix() == 128,
    }
}
