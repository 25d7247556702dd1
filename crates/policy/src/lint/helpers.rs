//! Warnings about protocols that need a helper, and rules without one.

use crate::json::document::Problems;
use crate::policy::{Action, Direction, Helper, Policy, Ports, Rule, Traffic, Transport, Verdict};

/// Ports of protocols whose two ends agree on further connections: the port, the name, the transport
/// protocols, the helper, and what fails without it.
const PORTS: [(u16, &str, &[Transport], Helper, &str); 3] = [
    (21, "FTP", &[Transport::Tcp], Helper::Ftp, "transfers data over a second connection"),
    (69, "TFTP", &[Transport::Udp], Helper::Tftp, "answers from another port"),
    (
        5060,
        "SIP",
        &[Transport::Tcp, Transport::Udp],
        Helper::Sip,
        "agrees on other ports for the voice",
    ),
];

/// Number of ports from which on a rule is about no single protocol, and may be about the ports of
/// data.
const MANY_PORTS: u32 = 10;

/// Warns about each rule that allows such a port without a helper, where the further connections are
/// refused.
pub(super) fn without(policy: &Policy, problems: &mut Problems) {
    for (index, rule) in policy.rules.iter().enumerate() {
        let is_asked = rule.helper.is_none() && !rule.declines_helper && !rule.untracked;
        if !is_asked || !matches!(rule.action, Action::Allow | Action::Limit(_)) {
            continue;
        }
        for (port, name, transports, helper, why) in PORTS {
            let asks = |transport: &Transport| {
                let ports = ports(rule, *transport);
                ports.is_some_and(|ports| holds(ports, port) && count(ports) < MANY_PORTS)
            };
            if transports.iter().any(asks) && !has_room_for_data(policy, rule, port, transports) {
                let message = format!(
                    "{name} {why}, which counts as a new one; expected a \"helper\" of \"{}\", or \
                     \"none\" if nothing is missing",
                    helper.kind()
                );
                problems.warn(format!("/rules/{index}"), message);
            }
        }
    }
}

/// Returns whether the further connections get through all the same: by a default, or by a rule for
/// many ports.
fn has_room_for_data(policy: &Policy, rule: &Rule, port: u16, transports: &[Transport]) -> bool {
    let direction = rule.direction;
    let default = |direction| match direction {
        Direction::In => policy.default.input,
        Direction::Out => policy.default.output,
        Direction::Forward => policy.default.forward,
    };
    // A TFTP server answers by a new connection of its own.
    let of_data = match direction {
        Direction::In if port == 69 => Direction::Out,
        Direction::Out if port == 69 => Direction::In,
        other => other,
    };
    default(of_data) == Verdict::Accept
        || policy.rules.iter().any(|other| {
            other.direction == of_data
                && matches!(other.action, Action::Allow | Action::Limit(_))
                && (other.traffic == Traffic::Any
                    || transports.iter().any(|transport| {
                        let ports = ports(other, *transport);
                        ports.is_some_and(|ports| {
                            ports.0.is_empty() || count(ports) >= MANY_PORTS
                        })
                    })
                    // Voice and other data of TCP may come by UDP.
                    || ports(other, Transport::Udp).is_some_and(|ports| count(ports) >= MANY_PORTS))
        })
}

fn ports(rule: &Rule, transport: Transport) -> Option<&Ports> {
    match (&rule.traffic, transport) {
        (Traffic::Ports { tcp, .. }, Transport::Tcp) => tcp.as_ref(),
        (Traffic::Ports { udp, .. }, Transport::Udp) => udp.as_ref(),
        _ => None,
    }
}

fn holds(ports: &Ports, port: u16) -> bool {
    ports.0.iter().any(|(first, last)| (*first..=*last).contains(&port))
}

fn count(ports: &Ports) -> u32 {
    ports.0.iter().map(|(first, last)| u32::from(*last) - u32::from(*first) + 1).sum()
}
