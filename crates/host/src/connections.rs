//! Connections of containers, which this host may forward.

use std::collections::HashSet;
use std::fs::{self, File};
use std::io;
use std::net::IpAddr;
use std::os::fd::AsFd as _;
use std::os::unix::fs::MetadataExt as _;
use std::thread;

use nfguard_netlink::{
    ConnectionTuple, Error, OpenConnection, RouteAnswer, RouteQuestion, Rtnetlink, SockDiag,
    fib_type,
};
use rustix::thread::{LinkNameSpaceType, move_into_link_name_space};

use crate::facts::addresses;

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
    let others = other_namespaces().unwrap_or_default();
    let found = others
        .iter()
        .map(|namespace| connections_of(namespace, &mut routes, wanted).unwrap_or_default());
    let ends = |one: &OpenConnection| [one.original.source, one.original.destination];
    found.flatten().filter(|one| !ends(one).iter().any(|end| ours.contains(end))).collect()
}

/// Returns each network namespace but this thread's, once.
fn other_namespaces() -> io::Result<Vec<File>> {
    let inode = |path: &str| fs::metadata(path).map(|namespace| namespace.ino());
    let user = inode("/proc/thread-self/ns/user")?;
    let mut seen = HashSet::from([inode("/proc/thread-self/ns/net")?]);
    let mut others = Vec::new();
    for process in fs::read_dir("/proc")?.flatten() {
        let name = process.file_name();
        let Some(number) = name.to_str().and_then(|name| name.parse::<u32>().ok()) else {
            continue;
        };
        let of = format!("/proc/{number}/ns");
        // A process may have ended, or be none that this one may look into. Its network namespace is
        // opened before its user namespace is asked: no process comes back from one of its own.
        let Ok(net) = File::open(format!("{of}/net")) else { continue };
        let is_ours = inode(&format!("{of}/user")).is_ok_and(|its| its == user);
        if is_ours && net.metadata().is_ok_and(|net| seen.insert(net.ino())) {
            others.push(net);
        }
    }
    Ok(others)
}

/// Returns the connections of a namespace. `routes` are those of the namespace that asks.
fn connections_of(
    namespace: &File,
    routes: &mut Rtnetlink,
    wanted: impl Fn(&IpAddr) -> bool + Sync,
) -> Result<Vec<OpenConnection>, Error> {
    let read = || {
        let network = Some(LinkNameSpaceType::Network);
        move_into_link_name_space(namespace.as_fd(), network).map_err(io::Error::from)?;
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
    // The thread stays in the namespace, and ends.
    let outcome = thread::scope(|scope| scope.spawn(read).join());
    outcome.unwrap_or_else(|panic| std::panic::resume_unwind(panic))
}

/// Returns the addresses of this thread's network namespace that are used beyond a link.
fn routed_addresses() -> io::Result<HashSet<IpAddr>> {
    let is_routed = |address: &IpAddr| match address {
        IpAddr::V4(v4) => !v4.is_loopback() && !v4.is_link_local(),
        IpAddr::V6(v6) => !v6.is_loopback() && !v6.is_unicast_link_local(),
    };
    Ok(addresses()?.into_iter().map(|one| one.address).filter(is_routed).collect())
}
