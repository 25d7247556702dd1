//! Strict addresses, and the source that an address belongs to.
//!
//! A name is no address, and nothing here looks one up. An IPv4 address within IPv6 is the IPv4
//! address. An IPv6 client is its /64, because the owner of one address of a /64 has all of them.

use std::fmt;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

use ipnetwork::IpNetwork;
use serde::{Deserialize, Serialize};

/// Longest text of an address, in bytes.
const MAX_TEXT_BYTES: usize = 45;

/// Bits of an IPv6 source.
const V6_SOURCE_BITS: u8 = 64;

/// Reads an address as strictly as the standard library does: no name, no leading zeros, no zone,
/// no port, no space. Returns it in its canonical form.
pub fn parse(text: &[u8]) -> Option<IpAddr> {
    if text.len() > MAX_TEXT_BYTES {
        return None;
    }
    if !text.contains(&b':') {
        return dotted(text).map(IpAddr::V4);
    }
    let address: Ipv6Addr = std::str::from_utf8(text).ok()?.parse().ok()?;
    Some(IpAddr::V6(address).to_canonical())
}

/// Reads an IPv4 address. Most lines have one, and this takes a third of the standard library's time.
fn dotted(text: &[u8]) -> Option<Ipv4Addr> {
    let (mut octets, mut rest) = ([0; 4], text);
    for (at, octet) in octets.iter_mut().enumerate() {
        if at > 0 {
            rest = rest.strip_prefix(b".")?;
        }
        let digits = rest.iter().take_while(|byte| byte.is_ascii_digit()).count();
        let number = rest.get(..digits)?;
        rest = rest.get(digits..)?;
        // `010` is eight to some programs.
        if !(1..=3).contains(&digits) || digits > 1 && number.first() == Some(&b'0') {
            return None;
        }
        let value = number.iter().fold(0, |value, byte| value * 10 + u32::from(byte - b'0'));
        *octet = u8::try_from(value).ok()?;
    }
    rest.is_empty().then(|| octets.into())
}

/// Returns a prefix in its canonical form: one within `::ffff:0:0/96` is the prefix in IPv4.
pub fn canonical(prefix: IpNetwork) -> IpNetwork {
    let mapped = match prefix.ip().to_canonical() {
        IpAddr::V4(address) if prefix.is_ipv6() => {
            let bits = prefix.prefix().checked_sub(96);
            bits.and_then(|bits| IpNetwork::new(IpAddr::V4(address), bits).ok())
        }
        _ => None,
    };
    mapped.unwrap_or(prefix)
}

/// What is counted and banned as one: an IPv4 address, or the /64 of an IPv6 address.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(transparent)]
pub struct Source(IpAddr);

impl Source {
    /// Returns the source of an address.
    pub fn of(address: IpAddr) -> Self {
        match address.to_canonical() {
            IpAddr::V4(address) => Self(IpAddr::V4(address)),
            IpAddr::V6(address) => {
                let kept = u128::MAX << (128 - u32::from(V6_SOURCE_BITS));
                Self(IpAddr::V6(Ipv6Addr::from_bits(address.to_bits() & kept)))
            }
        }
    }

    /// Returns the prefix that a ban of the source would hit.
    pub fn prefix(self) -> IpNetwork {
        let bits = if self.0.is_ipv4() { 32 } else { V6_SOURCE_BITS };
        IpNetwork::new(self.0, bits).unwrap_or_else(|_| IpNetwork::from(self.0))
    }

    /// Returns whether a ban of the source would hit an address of the prefix.
    pub fn overlaps(self, prefix: IpNetwork) -> bool {
        let own = self.prefix();
        own.contains(prefix.network()) || prefix.contains(own.network())
    }

    /// Returns whether no ban makes sense: the machine itself, or no address of a machine.
    pub fn is_own(self) -> bool {
        // `::1` and `::` have the same /64.
        match self.0 {
            IpAddr::V4(address) => {
                address.is_loopback() || address.is_unspecified() || address.is_multicast()
            }
            IpAddr::V6(address) => address.is_unspecified() || address.is_multicast(),
        }
    }
}

impl fmt::Display for Source {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.0 {
            IpAddr::V4(address) => address.fmt(f),
            IpAddr::V6(address) => write!(f, "{address}/{V6_SOURCE_BITS}"),
        }
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn only_an_address_is_an_address() {
        assert_eq!(parse(b"::ffff:203.0.113.6"), parse(b"203.0.113.6"));
        let wrong = ["010.0.113.5", "203.0.113.6 ", "client.example.org", "203.0.113", "1", ""];
        let more = ["fe80::1%eth0", "[::1]", "203.0.113.6:80", "0x7f.0.0.1", "203.0.113.256"];
        for text in wrong.into_iter().chain(more) {
            assert_eq!(parse(text.as_bytes()), None, "{text}");
        }
    }

    proptest! {
        #[test]
        fn an_address_is_what_the_standard_library_takes_for_one(
            text in "([0-9]{1,3}[.]){2,4}[0-9]{0,3}|[0-9a-f:.]{0,20}|(::ffff:)?[0-9]{1,3}([.][0-9]{1,3}){3}",
        ) {
            let known = text.parse().ok().map(|address: IpAddr| address.to_canonical());
            prop_assert_eq!(parse(text.as_bytes()), known);
        }
    }

    #[test]
    fn a_source_is_an_ipv4_address_or_a_64() {
        let source = |text: &str| Source::of(text.parse().unwrap()).to_string();
        assert_eq!(source("203.0.113.6"), "203.0.113.6");
        assert_eq!(source("::ffff:203.0.113.6"), "203.0.113.6");
        assert_eq!(source("2001:db8:66:0:1:2:3:4"), "2001:db8:66::/64");
    }
}
