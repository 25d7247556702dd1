//! The target of a ban: an address or a prefix, in one form, and the port that it is banned from.

use std::fmt;
use std::net::{IpAddr, Ipv6Addr};
use std::str::FromStr;

use ipnetwork::{IpNetwork, Ipv4Network, Ipv6Network};

/// An address or a prefix, normalised: host bits are cleared, and an IPv4 address that is written
/// as an IPv6 one (`::ffff:192.0.2.1`, as dual-stack programs log it) is the IPv4 address.
///
/// A lone IPv6 address stands for its /64, for a site that has one of its addresses has them all.
/// A single address is written with `/128`; [`Target::source`] takes another length.
///
/// ```
/// use nfguard_ban::Target;
/// let shown = |text: &str| text.parse::<Target>().map(|target| target.to_string());
/// assert_eq!(shown("::ffff:192.0.2.77")?, "192.0.2.77");
/// assert_eq!(shown("192.0.2.77/24")?, "192.0.2.0/24");
/// assert_eq!(shown("2001:db8::77")?, "2001:db8::/64");
/// assert_eq!(shown("2001:db8::77/128")?, "2001:db8::77/128");
/// # Ok::<(), nfguard_ban::InvalidTarget>(())
/// ```
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Target(IpNetwork);

/// A port of a transport protocol, as the sender of a packet sees it: a container's published port
/// has the number that it is published at, not the one that the container listens on.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Port {
    /// Which protocol.
    pub protocol: Protocol,
    /// 1 to 65,535.
    pub number: u16,
}

/// A protocol that has ports.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Protocol {
    /// TCP.
    Tcp,
    /// UDP, and with it QUIC.
    Udp,
}

/// A text that is no port.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("{0:?} is no port; expected 443/tcp or 443/udp")]
pub struct InvalidPort(String);

impl Target {
    /// The prefix length of one IPv6 source, unless another is named: what RFC 6177 gives a site at
    /// the least.
    pub const V6_SOURCE: u8 = 64;

    /// Returns the network, host bits cleared.
    #[must_use]
    pub fn network(self) -> IpNetwork {
        self.0
    }

    /// Returns the source of an address: an IPv4 address itself, or the network of the first
    /// `v6_prefix` bits (at most 128) of an IPv6 address.
    #[must_use]
    pub fn source(address: IpAddr, v6_prefix: u8) -> Target {
        match address.to_canonical() {
            IpAddr::V4(address) => Target(IpNetwork::V4(address.into())),
            IpAddr::V6(address) => {
                let network = Ipv6Network::new(address, v6_prefix).unwrap_or(address.into());
                Target(clear_v6(network).into())
            }
        }
    }

    /// Tells whether two targets have an address in common, which means that one contains the other.
    #[must_use]
    pub fn overlaps(self, other: Target) -> bool {
        match (self.0, other.0) {
            (IpNetwork::V4(a), IpNetwork::V4(b)) => a.overlaps(b),
            (IpNetwork::V6(a), IpNetwork::V6(b)) => a.overlaps(b),
            _ => false,
        }
    }

    /// Tells whether the target contains an address, IPv4 written as IPv6 too.
    #[must_use]
    pub fn contains(self, address: IpAddr) -> bool {
        self.0.contains(address.to_canonical())
    }
}

impl From<IpNetwork> for Target {
    fn from(network: IpNetwork) -> Target {
        Target(match network {
            IpNetwork::V4(network) => clear_v4(network).into(),
            IpNetwork::V6(network) => match mapped(network) {
                Some(v4) => clear_v4(v4).into(),
                None => clear_v6(network).into(),
            },
        })
    }
}

impl fmt::Display for Target {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.0 {
            IpNetwork::V4(network) if network.prefix() == 32 => network.ip().fmt(f),
            network => network.fmt(f),
        }
    }
}

impl FromStr for Port {
    type Err = InvalidPort;

    fn from_str(text: &str) -> Result<Port, InvalidPort> {
        let parsed = text.split_once('/').and_then(|(number, protocol)| {
            let protocol = match protocol {
                "tcp" => Protocol::Tcp,
                "udp" => Protocol::Udp,
                _ => return None,
            };
            let number = number.parse().ok().filter(|number| *number > 0)?;
            Some(Port { protocol, number })
        });
        parsed.ok_or_else(|| InvalidPort(text.to_owned()))
    }
}

impl fmt::Display for Port {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let protocol = match self.protocol {
            Protocol::Tcp => "tcp",
            Protocol::Udp => "udp",
        };
        write!(f, "{}/{protocol}", self.number)
    }
}

/// Bits of a v4-mapped address before the IPv4 address begins.
const MAPPED_PREFIX: u8 = 96;

fn mapped(network: Ipv6Network) -> Option<Ipv4Network> {
    let prefix = network.prefix().checked_sub(MAPPED_PREFIX)?;
    Ipv4Network::new(Ipv6Addr::to_ipv4_mapped(&network.ip())?, prefix).ok()
}

fn clear_v4(network: Ipv4Network) -> Ipv4Network {
    Ipv4Network::new(network.network(), network.prefix()).unwrap_or(network)
}

fn clear_v6(network: Ipv6Network) -> Ipv6Network {
    Ipv6Network::new(network.network(), network.prefix()).unwrap_or(network)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn shown(text: &str) -> String {
        text.parse::<Target>().expect("a target").to_string()
    }

    #[test]
    fn host_bits_are_cleared() {
        assert_eq!(shown("192.0.2.77/24"), "192.0.2.0/24");
        assert_eq!(shown("2001:db8::77/64"), "2001:db8::/64");
    }

    #[test]
    fn mapped_addresses_and_prefixes_are_ipv4() {
        assert_eq!(shown("::ffff:192.0.2.1"), "192.0.2.1");
        assert_eq!(shown("::ffff:192.0.2.1/120"), "192.0.2.0/24");
        assert_eq!(shown("::ffff:0.0.0.0/95"), "::fffe:0:0/95");
    }

    #[test]
    fn a_banned_address_is_found_however_it_is_written() {
        let target: Target = "192.0.2.0/24".parse().expect("a target");
        assert!(target.contains("::ffff:192.0.2.9".parse().expect("an address")));
        assert!(!target.contains("192.0.3.9".parse().expect("an address")));
    }

    #[test]
    fn a_port_reads_as_it_is_written() {
        for text in ["443/tcp", "53/udp"] {
            assert_eq!(text.parse::<Port>().expect(text).to_string(), text);
        }
        for text in ["443", "0/tcp", "70000/tcp", "443/sctp", ""] {
            assert!(text.parse::<Port>().is_err(), "{text}");
        }
    }

    #[test]
    fn octal_and_other_nonsense_is_refused_with_an_example() {
        for text in ["010.0.0.1", "192.0.2", "192.0.2.0/33", "example.org", ""] {
            let error = text.parse::<Target>().expect_err(text).to_string();
            assert!(error.contains("expected 192.0.2.1"), "{error}");
        }
    }
}
