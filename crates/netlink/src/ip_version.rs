//! IPv4 or IPv6, and one value for each.

use std::net::IpAddr;
use std::ops::{Index, IndexMut};

/// A version of the Internet Protocol.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum IpVersion {
    /// IPv4.
    V4,
    /// IPv6.
    V6,
}

impl IpVersion {
    /// Both, in the order in which nfguard names them.
    pub const ALL: [IpVersion; 2] = [IpVersion::V4, IpVersion::V6];

    /// Returns the version of an address.
    #[must_use]
    pub const fn of(address: IpAddr) -> IpVersion {
        match address {
            IpAddr::V4(_) => IpVersion::V4,
            IpAddr::V6(_) => IpVersion::V6,
        }
    }

    /// Returns the number by which the kernel knows the version: `AF_INET` or `AF_INET6`, which
    /// `meta nfproto` loads.
    #[must_use]
    pub const fn family(self) -> u8 {
        match self {
            IpVersion::V4 => 2,
            IpVersion::V6 => 10,
        }
    }

    /// Returns the version that has this number; `None` for any other family of addresses.
    #[must_use]
    pub const fn from_family(family: u8) -> Option<IpVersion> {
        match family {
            2 => Some(IpVersion::V4),
            10 => Some(IpVersion::V6),
            _ => None,
        }
    }

    /// Returns the length of an address in bytes.
    #[must_use]
    pub const fn address_bytes(self) -> usize {
        match self {
            IpVersion::V4 => 4,
            IpVersion::V6 => 16,
        }
    }

    /// Returns the length of an address in bits, which is the longest prefix.
    #[must_use]
    pub const fn address_bits(self) -> u8 {
        match self {
            IpVersion::V4 => 32,
            IpVersion::V6 => 128,
        }
    }

    /// Returns the word that names the version in the names of sets: `v4` or `v6`.
    #[must_use]
    pub const fn suffix(self) -> &'static str {
        match self {
            IpVersion::V4 => "v4",
            IpVersion::V6 => "v6",
        }
    }
}

/// Returns the address that has these 4 or 16 bytes; `None` for any other number of bytes.
#[must_use]
pub fn address_from_bytes(bytes: &[u8]) -> Option<IpAddr> {
    let v4 = <[u8; 4]>::try_from(bytes).map(IpAddr::from);
    v4.or_else(|_| <[u8; 16]>::try_from(bytes).map(IpAddr::from)).ok()
}

/// One value for IPv4 and one for IPv6.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct PerIpVersion<T> {
    /// The value for IPv4.
    pub v4: T,
    /// The value for IPv6.
    pub v6: T,
}

impl<T> PerIpVersion<T> {
    /// Makes the value of each version.
    pub fn from_fn(mut make: impl FnMut(IpVersion) -> T) -> PerIpVersion<T> {
        PerIpVersion { v4: make(IpVersion::V4), v6: make(IpVersion::V6) }
    }

    /// Returns each version with its value, IPv4 first.
    pub fn iter(&self) -> impl Iterator<Item = (IpVersion, &T)> {
        [(IpVersion::V4, &self.v4), (IpVersion::V6, &self.v6)].into_iter()
    }
}

impl<T> Index<IpVersion> for PerIpVersion<T> {
    type Output = T;

    fn index(&self, version: IpVersion) -> &T {
        match version {
            IpVersion::V4 => &self.v4,
            IpVersion::V6 => &self.v6,
        }
    }
}

impl<T> IndexMut<IpVersion> for PerIpVersion<T> {
    fn index_mut(&mut self, version: IpVersion) -> &mut T {
        match version {
            IpVersion::V4 => &mut self.v4,
            IpVersion::V6 => &mut self.v6,
        }
    }
}
