//! A host with a firewall, and its internet.

use std::{
    io,
    net::{IpAddr, Ipv4Addr, Ipv6Addr},
};

use crate::{Netns, veth};

/// A host and the internet, joined by a veth pair, with IPv4 and IPv6.
///
/// ```text
///  container              host                    internet
///  eth0 ── veth0·docker0 ──── eth0 ─────────────── eth0
///  172.17.0.2   172.17.0.1    198.51.100.2         198.51.100.1
///  2001:db8:d0c::2  …d0c::1   2001:db8:1::2        2001:db8:1::1
///                                                  192.0.2.0/24, 203.0.113.0/24
///                                                  2001:db8::/32, the rest of it
/// ```
///
/// The internet is the default gateway of the host. It answers for every one of
/// its addresses, and can send from each. It reaches the container over the
/// host, which forwards.
#[derive(Debug)]
pub struct World {
    /// The host, which has the policy.
    pub host: Netns,
    /// All other hosts.
    pub internet: Netns,
    /// The container behind the bridge `docker0`, if the world has one.
    pub container: Option<Netns>,
}

impl World {
    /// The host's address on `eth0`.
    pub const HOST_V4: IpAddr = IpAddr::V4(Ipv4Addr::new(198, 51, 100, 2));
    /// The host's address on `eth0`.
    pub const HOST_V6: IpAddr = v6(1, 2);
    /// The host's gateway.
    pub const INTERNET_V4: IpAddr = IpAddr::V4(Ipv4Addr::new(198, 51, 100, 1));
    /// The host's gateway.
    pub const INTERNET_V6: IpAddr = v6(1, 1);
    /// The container's address, on a /16.
    pub const CONTAINER_V4: IpAddr = IpAddr::V4(Ipv4Addr::new(172, 17, 0, 2));
    /// The container's address, on a /64.
    pub const CONTAINER_V6: IpAddr = v6(0xd0c, 2);

    /// Makes a host and the internet.
    ///
    /// # Errors
    /// A namespace or a link is refused.
    pub fn new() -> io::Result<Self> {
        let (host, internet) = (Netns::new()?, Netns::new()?);
        veth(&host, "eth0", &internet, "eth0")?;
        host.address("eth0", Self::HOST_V4, 24)?;
        host.address("eth0", Self::HOST_V6, 64)?;
        host.route(ANY_V4, 0, Self::INTERNET_V4)?;
        host.route(ANY_V6, 0, Self::INTERNET_V6)?;
        internet.address("eth0", Self::INTERNET_V4, 24)?;
        internet.address("eth0", Self::INTERNET_V6, 64)?;
        for network in [[192, 0, 2, 0], [203, 0, 113, 0]] {
            internet.own_prefix(network.into(), 24)?;
        }
        internet.own_prefix(v6(0, 0), 32)?;
        Ok(Self { host, internet, container: None })
    }

    /// Makes a host with a container behind a bridge, and the internet. The
    /// host forwards between the two without address translation.
    ///
    /// # Errors
    /// A namespace or a link is refused.
    pub fn with_container() -> io::Result<Self> {
        let mut world = Self::new()?;
        let (host, container) = (&world.host, Netns::new()?);
        host.bridge("docker0")?;
        host.address("docker0", GATEWAY_V4, 16)?;
        host.address("docker0", GATEWAY_V6, 64)?;
        veth(host, "veth0", &container, "eth0")?;
        host.enslave("veth0", "docker0")?;
        host.sysctl("ipv4/ip_forward", "1")?;
        host.sysctl("ipv6/conf/all/forwarding", "1")?;
        container.address("eth0", Self::CONTAINER_V4, 16)?;
        container.address("eth0", Self::CONTAINER_V6, 64)?;
        container.route(ANY_V4, 0, GATEWAY_V4)?;
        container.route(ANY_V6, 0, GATEWAY_V6)?;
        let internet = &world.internet;
        internet.route([172, 17, 0, 0].into(), 16, Self::HOST_V4)?;
        internet.route(v6(0xd0c, 0), 64, Self::HOST_V6)?;
        world.container = Some(container);
        Ok(world)
    }
}

const ANY_V4: IpAddr = IpAddr::V4(Ipv4Addr::UNSPECIFIED);
const ANY_V6: IpAddr = IpAddr::V6(Ipv6Addr::UNSPECIFIED);
const GATEWAY_V4: IpAddr = IpAddr::V4(Ipv4Addr::new(172, 17, 0, 1));
const GATEWAY_V6: IpAddr = v6(0xd0c, 1);

const fn v6(network: u16, host: u16) -> IpAddr {
    IpAddr::V6(Ipv6Addr::new(0x2001, 0xdb8, network, 0, 0, 0, 0, host))
}
