//! Addresses that stand for a host of the internet and for this host (RFC 5737, RFC 3849).

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

use nfguard_netlink::IpVersion;

/// A source port at which no service listens.
pub(crate) const SOURCE_PORT: u16 = 40_000;

/// Returns the address of a host of the internet.
pub(crate) fn remote(version: IpVersion) -> IpAddr {
    match version {
        IpVersion::V4 => Ipv4Addr::new(203, 0, 113, 7).into(),
        IpVersion::V6 => Ipv6Addr::new(0x2001, 0xdb8, 0, 0, 0, 0, 0, 7).into(),
    }
}

/// Returns the address of this host.
pub(crate) fn host(version: IpVersion) -> IpAddr {
    match version {
        IpVersion::V4 => Ipv4Addr::new(198, 51, 100, 2).into(),
        IpVersion::V6 => Ipv6Addr::new(0x2001, 0xdb8, 1, 0, 0, 0, 0, 2).into(),
    }
}
