//! The path that packets to a peer take, and those from it come in by.

use std::net::IpAddr;

use nfguard_netlink::{RouteQuestion, Rtnetlink, fib_type};

/// The path of packets to a peer.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Path {
    /// The address that this host sends from.
    pub source: IpAddr,
    /// The interface that packets leave by; that of loopback if the peer is this host itself.
    pub interface: String,
}

/// Returns the path of packets to a peer, as the kernel routes them; `None` if no route leads there.
/// Nothing is sent.
#[must_use]
pub fn path_to(peer: IpAddr) -> Option<Path> {
    path(RouteQuestion::to(peer))
}

/// The ways by which packets of a peer come to an address of this host.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Arrival {
    /// The interfaces that packets may come in by. There is one, unless answers leave by another one than
    /// the one that has the address: then the kernel does not say which.
    pub interfaces: Vec<String>,
    /// The interface that answers leave by; `None` if no route leads to the peer.
    pub answers: Option<String>,
}

/// Returns the ways by which packets of a peer come to an address of this host. `None` if the address is
/// none of this network namespace.
#[must_use]
pub fn arrival(peer: IpAddr, local: IpAddr) -> Option<Arrival> {
    let mut rtnetlink = Rtnetlink::open().ok()?;
    let is_same = |own: IpAddr| own == local || own.is_loopback() && local.is_loopback();
    let own = rtnetlink.addresses().ok()?.into_iter().find(|own| is_same(own.address))?;
    let link = rtnetlink.links().ok()?.remove(&own.index)?;
    let path = path(RouteQuestion { source: Some(local), ..RouteQuestion::to(peer) });
    let answers = path.or_else(|| path_to(peer)).map(|path| path.interface);
    let interfaces = match &answers {
        // Packets of this host to itself come in by loopback, and no packet by a dummy.
        Some(answers) if answers == LOOPBACK || link.is_loopback || link.kind == "dummy" => {
            vec![answers.clone()]
        }
        Some(answers) if *answers != link.name => vec![link.name, answers.clone()],
        _ => vec![link.name],
    };
    Some(Arrival { interfaces, answers })
}

const LOOPBACK: &str = "lo";

fn path(question: RouteQuestion) -> Option<Path> {
    let mut rtnetlink = Rtnetlink::open().ok()?;
    let answer = rtnetlink.look_up(&[question]).ok()?.pop()??;
    let interface = match u32::from(answer.kind) {
        fib_type::UNICAST => rtnetlink.links().ok()?.remove(&answer.interface?)?.name,
        fib_type::LOCAL => LOOPBACK.to_owned(),
        _ => return None,
    };
    // A packet with a source of its own is not asked for one.
    let source = answer.source.or(question.source)?;
    Some(Path { source, interface })
}

#[cfg(test)]
mod tests {
    use std::net::Ipv4Addr;

    use super::*;

    #[test]
    fn a_host_reaches_itself_by_its_loopback_interface() {
        let loopback = IpAddr::V4(Ipv4Addr::LOCALHOST);
        let path = path_to(loopback).expect("a path");
        assert_eq!((path.source, path.interface.as_str()), (loopback, LOOPBACK));
        let arrival = arrival(loopback, [127, 0, 0, 9].into()).expect("an own address");
        assert_eq!(arrival.interfaces, [LOOPBACK]);
    }
}
