//! Lock-out: whether the operator of this host could still get in.

use std::fmt;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};

use nfguard_host::{
    Arrival, InvalidSession, SshSession, TcpConnection, arrival,
    is_in_other_namespace_than_ancestors, path_to,
};
use nfguard_netlink::eval::{Decision, Fate, Memory, Packet, evaluate};
use nfguard_netlink::{Expr, Hook, Nft, Table, ct_state, fib_type, protocol, text};
use nfguard_policy::RETURN_PATH_COUNTER;

/// Source port of the connection that is tried.
const SOURCE_PORT: u16 = 40_000;
/// Port of this host that a peer is taken to come to if only its address is given.
const SSH: u16 = 22;

/// Why a policy should not be loaded without a second thought.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Obstacle {
    /// The policy refuses its operator; where.
    Refusal(String),
    /// The operator came by a session that does not say from where, or by which way.
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
    /// The ends as the peer's packets name them when they come in.
    ends: TcpConnection,
    /// The end at this host after DNAT; `None` if it is the same.
    translated: Option<SocketAddr>,
    /// Whether the address that the peer sends to is one of this host.
    is_to_own_address: bool,
    arrival: Arrival,
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
            Some(SshSession { connection: Some(ends), .. }) => Visitor::of_connection(ends),
            Some(SshSession { peer, local_port: Some(port), .. }) => {
                Ok(Some(Visitor::given(peer, Some(port))))
            }
            Some(SshSession { peer, .. }) => {
                Err(format!("the SSH session from {peer} does not name the port that it came to"))
            }
        }
    }

    fn of_connection(ends: TcpConnection) -> Result<Option<Visitor>, String> {
        let TcpConnection { peer, local } = ends;
        let Some(at_server) = arrival(peer.ip(), local.ip()) else {
            if is_in_other_namespace_than_ancestors() {
                return Ok(None);
            }
            return Err(format!(
                "the SSH session came to {}, which is no address of this host, so something stands \
                 between the client and sshd",
                local.ip()
            ));
        };
        if peer.ip().is_loopback() {
            return Err(format!(
                "the SSH session came from {}, so a proxy or a tunnel of this host stands between \
                 the client and sshd",
                peer.ip()
            ));
        }
        let Some(before) = before_translation(ends) else {
            let translated = None;
            return Ok(Some(Visitor {
                ends,
                translated,
                is_to_own_address: true,
                arrival: at_server,
            }));
        };
        let own = arrival(before.peer.ip(), before.local.ip());
        Ok(Some(Visitor {
            ends: before,
            translated: Some(local),
            is_to_own_address: own.is_some(),
            arrival: own.unwrap_or(at_server),
        }))
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
            translated: None,
            is_to_own_address: true,
            arrival: Arrival { interfaces: vec![interface.clone()], answers: Some(interface) },
        }
    }

    /// Says why this table would refuse a new connection of the peer, or cut it; `None` if it would
    /// not. A rule with a limit lets the first connection in.
    #[must_use]
    pub fn obstacle(&self, table: &Table) -> Option<Obstacle> {
        let interfaces = &self.arrival.interfaces;
        let found = interfaces.iter().filter_map(|it| Some((it, self.obstacle_by(it, table)?)));
        let found: Vec<(&String, String)> = found.collect();
        let (interface, why) = found.first()?;
        if found.len() == interfaces.len() {
            return Some(Obstacle::Refusal(why.clone()));
        }
        let all = interfaces.join(" or ");
        Some(Obstacle::Unknown(format!(
            "its packets come in by {all}, and if by {interface}, {why}"
        )))
    }

    /// Says why the table would refuse a connection that comes in by this interface.
    fn obstacle_by(&self, interface: &str, table: &Table) -> Option<String> {
        let TcpConnection { peer, local } = self.ends;
        let answers = self.arrival.answers.as_deref().unwrap_or(interface);
        if answers != interface && checks_return_path(table) {
            return Some(format!(
                "a new connection from {} to {local} would be dropped by the built-in \
                 \"return-path\": it comes in by {interface}, and answers leave by {answers}",
                peer.ip()
            ));
        }
        // Not from the port of the open connection.
        let to = |at: SocketAddr, fib_daddr_type| Packet {
            in_interface: interface.to_owned(),
            fib_daddr_type,
            ..Packet::new(peer.ip(), at.ip(), protocol::TCP, (SOURCE_PORT, at.port()))
        };
        let at_server = self.translated.unwrap_or(local);
        let kind = if self.is_to_own_address { fib_type::LOCAL } else { fib_type::UNICAST };
        let begin = to(local, kind);
        let delivered = Packet {
            dnat_from: self.translated.map(|_| (local.ip(), local.port())),
            ..to(at_server, fib_type::LOCAL)
        };
        let answer = Packet {
            out_interface: answers.to_owned(),
            ct_state: ct_state::ESTABLISHED,
            fib_daddr_type: fib_type::UNICAST,
            fib_saddr_type: fib_type::LOCAL,
            ..Packet::new(at_server.ip(), peer.ip(), protocol::TCP, (at_server.port(), SOURCE_PORT))
        };
        let later = |packet: &Packet| Packet { ct_state: ct_state::ESTABLISHED, ..packet.clone() };
        let mut memory = Memory::default();
        let steps = [
            ("a new connection", Hook::Prerouting, &begin),
            ("a new connection", Hook::Input, &delivered),
            ("the answer to a new connection", Hook::Output, &answer),
            ("the answer to a new connection", Hook::Postrouting, &answer),
            ("a later packet of a new connection", Hook::Prerouting, &later(&begin)),
            ("a later packet of a new connection", Hook::Input, &later(&delivered)),
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

/// Returns the ends of a connection as its packets name them when they come in; `None` if the kernel
/// translates none of its addresses and ports, or tracks no connections.
fn before_translation(ends: TcpConnection) -> Option<TcpConnection> {
    let TcpConnection { peer, local } = ends;
    let mut found = Nft::open().ok()?.connections(|connection| {
        let reply = &connection.reply;
        reply.protocol == protocol::TCP
            && (reply.source, reply.source_port) == (local.ip(), local.port())
            && (reply.destination, reply.destination_port) == (peer.ip(), peer.port())
    });
    let original = found.as_mut().ok()?.pop()?.original;
    let before = TcpConnection {
        peer: SocketAddr::new(original.source, original.source_port),
        local: SocketAddr::new(original.destination, original.destination_port),
    };
    (before != ends).then_some(before)
}

/// Tells whether the table drops what comes in by another interface than the one that leads back.
fn checks_return_path(table: &Table) -> bool {
    let counter = Expr::Counter(RETURN_PATH_COUNTER.to_owned());
    table.chains.iter().flat_map(|chain| &chain.rules).any(|rule| rule.exprs.contains(&counter))
}

#[cfg(test)]
mod tests {
    use nfguard_policy::Policy;

    use super::*;

    fn visitor(peer: &str) -> Visitor {
        Visitor {
            ends: format!("{peer} 50000 198.51.100.2 22").parse().expect("ends"),
            translated: None,
            is_to_own_address: true,
            arrival: Arrival {
                interfaces: vec!["eth0".to_owned()],
                answers: Some("eth0".to_owned()),
            },
        }
    }

    fn obstacle(rules: &str, builtin: &str, peer: &str) -> Option<String> {
        let text = format!(r#"{{ "version": 1, "builtin": {{ {builtin} }}, "rules": [{rules}] }}"#);
        let (policy, _) = Policy::parse(&text).expect("a policy");
        visitor(peer).obstacle(&policy.compile()).map(|obstacle| obstacle.why().to_owned())
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
