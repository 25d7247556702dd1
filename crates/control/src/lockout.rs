//! Lock-out: whether the operator of this host could still get in.

use std::fmt;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};

use nfguard_host::{arrival_interface, path_to};
use nfguard_netlink::eval::{Decision, Fate, Memory, Packet, evaluate};
use nfguard_netlink::{Hook, Table, ct_state, fib_type, protocol, text};

use nfguard_host::{InvalidSession, SshSession, TcpConnection};

/// Source port of the connection that is tried.
const SOURCE_PORT: u16 = 40_000;
/// Port of this host that a peer is taken to come to if only its address is given.
const SSH: u16 = 22;

/// Why a policy should not be loaded without a second thought.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Obstacle {
    /// The policy refuses its operator; where.
    Refusal(String),
    /// The operator came by a session that does not say from where.
    Unknown(String),
}

impl Obstacle {
    /// Returns the reason.
    pub fn why(&self) -> &str {
        let (Obstacle::Refusal(why) | Obstacle::Unknown(why)) = self;
        why
    }
}

impl fmt::Display for Obstacle {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Obstacle::Refusal(why) => write!(f, "this policy would lock you out: {why}"),
            Obstacle::Unknown(why) => write!(
                f,
                "whether this policy would lock you out cannot be judged: {why}. `--peer` names \
                 the client that must still get in"
            ),
        }
    }
}

/// The peer that must still get in, and how it comes.
#[derive(Clone, Debug)]
pub struct Visitor {
    ends: TcpConnection,
    /// The interface that the peer comes in by.
    interface: String,
}

impl Visitor {
    /// Returns the peer of the SSH session; `None` if there is no session, or if it came to another
    /// network namespace, where a load cannot cut it.
    ///
    /// # Errors
    /// Says why nothing is known of the way that the session came by.
    pub fn of_session(
        session: Result<Option<SshSession>, InvalidSession>,
    ) -> Result<Option<Visitor>, String> {
        match session.map_err(|invalid| invalid.to_string())? {
            None => Ok(None),
            Some(SshSession { connection: Some(ends), .. }) => Ok(Visitor::of_connection(ends)),
            Some(SshSession { peer, local_port: Some(port), .. }) => {
                Ok(Some(Visitor::given(peer, Some(port))))
            }
            Some(SshSession { peer, .. }) => {
                Err(format!("the SSH session from {peer} does not name the port that it came to"))
            }
        }
    }

    fn of_connection(ends: TcpConnection) -> Option<Visitor> {
        let interface = arrival_interface(ends.peer.ip(), ends.local.ip())?;
        Some(Visitor { ends, interface })
    }

    /// Returns a peer given by its address, and the port that it has to reach.
    pub fn given(peer: IpAddr, port: Option<u16>) -> Visitor {
        let nowhere: IpAddr = match peer {
            IpAddr::V4(_) => Ipv4Addr::new(198, 51, 100, 2).into(),
            IpAddr::V6(_) => Ipv6Addr::new(0x2001, 0xdb8, 1, 0, 0, 0, 0, 2).into(),
        };
        let (local, interface) = match path_to(peer) {
            Some(path) => (path.source, path.interface),
            None => (nowhere, "eth0".to_owned()),
        };
        let local = SocketAddr::new(local, port.unwrap_or(SSH));
        Visitor {
            ends: TcpConnection { peer: SocketAddr::new(peer, SOURCE_PORT), local },
            interface,
        }
    }

    /// Says why this table would refuse a new connection of the peer, or cut it; `None` if it would
    /// not. A rule with a limit lets the first connection in.
    pub fn obstacle(&self, table: &Table) -> Option<String> {
        let TcpConnection { peer, local } = self.ends;
        let begin = Packet {
            in_interface: self.interface.clone(),
            ..Packet::new(
                peer.ip(),
                local.ip(),
                protocol::TCP,
                // Not the port of the open connection.
                (SOURCE_PORT, local.port()),
            )
        };
        let answer = Packet {
            out_interface: self.interface.clone(),
            ct_state: ct_state::ESTABLISHED,
            fib_daddr_type: fib_type::UNICAST,
            fib_saddr_type: fib_type::LOCAL,
            ..Packet::new(local.ip(), peer.ip(), protocol::TCP, (local.port(), SOURCE_PORT))
        };
        let go_on = Packet { ct_state: ct_state::ESTABLISHED, ..begin.clone() };
        let mut memory = Memory::default();
        let steps = [
            ("a new connection", Hook::Prerouting, &begin),
            ("a new connection", Hook::Input, &begin),
            ("the answer to a new connection", Hook::Output, &answer),
            ("the answer to a new connection", Hook::Postrouting, &answer),
            ("a later packet of a new connection", Hook::Prerouting, &go_on),
            ("a later packet of a new connection", Hook::Input, &go_on),
        ];
        steps.into_iter().find_map(|(what, hook, packet)| {
            let decision = evaluate(table, hook, packet, &mut memory)?;
            (decision.fate != Fate::Accept).then(|| self.describe(what, hook, &decision))
        })
    }

    fn describe(&self, what: &str, hook: Hook, decision: &Decision<'_>) -> String {
        let rule = match decision.rule {
            Some((index, rule)) => format!("rule {}: {}", index + 1, text::rule(rule)),
            None => "its policy".to_owned(),
        };
        let fate = match decision.fate {
            Fate::Accept => "accepted",
            Fate::Drop => "dropped",
            Fate::Reject(_) => "rejected",
        };
        format!(
            "{what} from {} to {} would be {fate} at {}, chain {}, {rule}",
            self.ends.peer.ip(),
            self.ends.local,
            text::hook_word(hook),
            decision.chain,
        )
    }
}

#[cfg(test)]
mod tests {
    use nfguard_policy::Policy;

    use super::*;

    fn obstacle(rules: &str, builtin: &str, peer: &str) -> Option<String> {
        let text = format!(r#"{{ "version": 1, "builtin": {{ {builtin} }}, "rules": [{rules}] }}"#);
        let (policy, _) = Policy::parse(&text).expect("a policy");
        let ends = format!("{peer} 50000 198.51.100.2 22").parse().expect("ends");
        Visitor { ends, interface: "eth0".to_owned() }.obstacle(&policy.compile())
    }

    #[test]
    fn a_visitor_is_judged_by_a_new_connection_and_not_by_the_open_one() {
        let ssh = r#"{ "action": "allow", "port": 22 }"#;
        assert_eq!(obstacle(ssh, "", "203.0.113.9"), None);
        let limit = r#"{ "action": "limit", "port": 22 }"#;
        assert_eq!(obstacle(limit, "", "203.0.113.9"), None, "the first one is let in");
        let why = obstacle("", "", "203.0.113.9").expect("no way in");
        assert!(why.contains("from 203.0.113.9 to 198.51.100.2:22 would be dropped at"), "{why}");
        let some = r#"{ "name": "ssh", "action": "allow", "port": 22, "from": "192.0.2.0/24" }"#;
        assert_eq!(obstacle(some, "", "192.0.2.9"), None);
        assert!(obstacle(some, "", "203.0.113.9").is_some());
        let deny = format!(
            r#"{{ "name": "away", "action": "reject", "port": 22, "from": "203.0.113.9" }}, {ssh}"#
        );
        let why = obstacle(&deny, "", "203.0.113.9").expect("rejected");
        assert!(why.contains("rejected") && why.contains("away"), "{why}");
    }
}
