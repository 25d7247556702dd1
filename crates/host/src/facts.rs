//! Addresses, gateways and name servers, read together.

use std::collections::BTreeSet;
use std::io;
use std::net::IpAddr;

use nix::ifaddrs::getifaddrs;

use crate::name_servers::name_servers;
use crate::routes::gateways;

/// An address of an interface.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct InterfaceAddress {
    /// The interface's name.
    pub interface: String,
    /// The address.
    pub address: IpAddr,
}

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
}

impl HostFacts {
    /// Reads the facts of this thread's network namespace.
    ///
    /// All routes are read for it: on a router, a million take about 0.2 s.
    ///
    /// # Errors
    /// The kernel does not answer, or a file cannot be read. An absent file names no server.
    pub fn read() -> io::Result<HostFacts> {
        Ok(HostFacts {
            addresses: addresses()?,
            gateways: gateways()?,
            name_servers: name_servers()?,
        })
    }
}

/// Returns the addresses of all interfaces of this thread's network namespace, loopback too.
///
/// # Errors
/// The kernel does not answer.
pub fn addresses() -> io::Result<Vec<InterfaceAddress>> {
    let addresses = getifaddrs()?.filter_map(|interface| {
        let address = interface.address?;
        let v4 = address.as_sockaddr_in().map(|address| IpAddr::V4(address.ip()));
        let v6 = || address.as_sockaddr_in6().map(|address| IpAddr::V6(address.ip()));
        Some(InterfaceAddress {
            interface: interface.interface_name.clone(),
            address: v4.or_else(v6)?,
        })
    });
    Ok(addresses.collect())
}
