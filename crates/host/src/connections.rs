//! Connections of containers, which this host may forward.

use std::collections::HashSet;
use std::io;
use std::net::IpAddr;

use nfguard_netlink::{
    ConnectionTuple, Error, OpenConnection, RouteAnswer, RouteQuestion, Rtnetlink, SockDiag,
    fib_type,
};

use crate::facts::addresses;
use crate::namespaces::NetworkNamespace;

/// Returns the open connections of the other network namespaces that processes are in, as far as this
/// process may enter them. Entering needs `CAP_SYS_ADMIN`. The connections may pass through this
/// namespace, or they may not. Only those from a local address that `wanted` is true of are read, and
/// that this namespace reaches without a gateway: the kernel walks through the sockets of the whole
/// machine for each namespace.
///
/// An unprivileged user must not be able to invent a connection. So only namespaces whose processes
/// have the user namespace of this thread count, and only connections from an address that an
/// interface of the namespace has. Connections that end at an address of this namespace are left out:
/// of those, a socket of this namespace is the only proof.
#[must_use]
pub fn connections_of_containers(wanted: impl Fn(IpAddr) -> bool + Sync) -> Vec<OpenConnection> {
    let (Ok(ours), Ok(mut routes)) = (routed_addresses(), Rtnetlink::open()) else {
        return Vec::new();
    };
    let wanted = |address: &IpAddr| wanted(*address) && !ours.contains(address);
    let others = NetworkNamespace::others(Vec::new());
    let found = others
        .iter()
        .filter(|namespace| namespace.is_of_this_user())
        .map(|namespace| connections_of(namespace, &mut routes, wanted).unwrap_or_default());
    let ends = |one: &OpenConnection| [one.original.source, one.original.destination];
    found.flatten().filter(|one| !ends(one).iter().any(|end| ours.contains(end))).collect()
}

/// Returns the connections of a namespace. `routes` are those of the namespace that asks.
fn connections_of(
    namespace: &NetworkNamespace,
    routes: &mut Rtnetlink,
    wanted: impl Fn(&IpAddr) -> bool + Sync,
) -> Result<Vec<OpenConnection>, Error> {
    let read = || {
        let all = routed_addresses()?;
        let own: Vec<IpAddr> = all.iter().copied().filter(&wanted).collect();
        let questions: Vec<_> = own.iter().copied().map(RouteQuestion::to).collect();
        let answers = routes.look_up(&questions)?;
        let is_on_link = |answer: &RouteAnswer| {
            u32::from(answer.kind) == fib_type::UNICAST && answer.gateway.is_none()
        };
        let near = own.into_iter().zip(answers);
        let near = near.filter(|(_, answer)| answer.as_ref().is_some_and(is_on_link));
        let own: HashSet<IpAddr> = near.map(|(address, _)| address).collect();
        if own.is_empty() {
            return Ok(Vec::new());
        }
        let mut open = SockDiag::open()?.connections(|local| own.contains(&local))?;
        // What the namespace says to itself does not leave it.
        open.retain(
            |OpenConnection { original: ConnectionTuple { source, destination, .. }, .. }| {
                !(all.contains(source) && all.contains(destination))
            },
        );
        Ok(open)
    };
    namespace.run(read).map_err(Error::from).flatten()
}

/// Returns the addresses of this thread's network namespace that are used beyond a link.
fn routed_addresses() -> io::Result<HashSet<IpAddr>> {
    let is_routed = |address: &IpAddr| match address {
        IpAddr::V4(v4) => !v4.is_loopback() && !v4.is_link_local(),
        IpAddr::V6(v6) => !v6.is_loopback() && !v6.is_unicast_link_local(),
    };
    Ok(addresses()?.into_iter().map(|one| one.address).filter(is_routed).collect())
}
