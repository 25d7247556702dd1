//! Addresses, gateways, name servers, networks behind this host and SSH logins, read together.

use std::collections::BTreeSet;
use std::io;
use std::net::IpAddr;

use nfguard_netlink::{InterfaceAddress, Rtnetlink};

use crate::inner_networks::{NetworkBehind, networks_behind};
use crate::logins::ssh_peers;
use crate::name_servers::name_servers;
use crate::to_io;

/// What a network namespace says of its host: addresses that a firewall must not cut.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct HostFacts {
    /// The addresses of all interfaces, loopback too.
    pub addresses: Vec<InterfaceAddress>,
    /// The gateways of all routes of all routing tables, and of all next hop objects.
    pub gateways: BTreeSet<IpAddr>,
    /// The name servers of `/etc/resolv.conf`, of systemd-resolved and of NetworkManager. A server
    /// may occur twice, and a resolver on this host is among them.
    pub name_servers: Vec<IpAddr>,
    /// The networks of containers, guests and peers of tunnels.
    pub behind: Vec<NetworkBehind>,
    /// The peers of the SSH logins that are open.
    pub ssh_peers: BTreeSet<IpAddr>,
    /// What could not be read, in words: the facts above lack it.
    pub problems: Vec<String>,
}

impl HostFacts {
    /// Reads the facts of this thread's network namespace.
    ///
    /// All routes are read for it: on a router, a million take about 0.2 s.
    ///
    /// # Errors
    /// The kernel does not answer, or a file cannot be read. An absent file names no server. What the
    /// kernel may be built without is told as one of [`HostFacts::problems`].
    pub fn read() -> io::Result<HostFacts> {
        let mut rtnetlink = Rtnetlink::open().map_err(to_io)?;
        let mut problems = Vec::new();
        Ok(HostFacts {
            addresses: rtnetlink.addresses().map_err(to_io)?,
            gateways: rtnetlink.gateways().map_err(to_io)?,
            name_servers: name_servers()?,
            behind: networks_behind(&mut rtnetlink).map_err(to_io)?,
            ssh_peers: ssh_peers(&mut problems),
            problems,
        })
    }
}

/// Returns the addresses of all interfaces of this thread's network namespace, loopback too.
///
/// # Errors
/// The kernel does not answer.
pub fn addresses() -> io::Result<Vec<InterfaceAddress>> {
    Rtnetlink::open().and_then(|mut rtnetlink| rtnetlink.addresses()).map_err(to_io)
}
