//! Addresses as people and programs write them: one, a prefix, or a range. Pure.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};
use std::str::FromStr;

use ipnetwork::{IpNetwork, Ipv4Network, Ipv6Network};
use nfguard_netlink::IpVersion;

use crate::address::{self, AddressRange};
use crate::target::Target;

/// Addresses as a text names them. This is the only reader of addresses for bans, feeds and never-ban
/// entries.
///
/// | Text | Meaning |
/// |---|---|
/// | `192.0.2.1`, `[2001:db8::1]` | one address |
/// | `192.0.2.77/24`, `192.0.2.0/255.255.255.0` | the prefix; host bits count for nothing |
/// | `192.0.2.1-192.0.2.9` | a range, both ends included |
/// | `::ffff:192.0.2.1` | the IPv4 address, in prefixes and ranges too |
///
/// Refused are `010.0.0.1` (octal for some programs), `fe80::1%eth0` (a zone), `192.0.2` and `192.0.2.*`.
///
/// ```
/// use nfguard_ban::Addresses;
/// let read = |text: &str| text.parse::<Addresses>();
/// assert_eq!(read("::ffff:192.0.2.0/120")?, read("192.0.2.0-192.0.2.255")?);
/// assert!(read("192.0.2.010").is_err());
/// # Ok::<(), nfguard_ban::InvalidTarget>(())
/// ```
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Addresses {
    /// One address. How many bits of an IPv6 address are one source is said elsewhere.
    One(IpAddr),
    /// A prefix, host bits cleared.
    Prefix(IpNetwork),
    /// A range that is no prefix: its first and its last address.
    Range(IpAddr, IpAddr),
}

/// A text that names no addresses.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error(
    "{text:?} is no address, prefix or range{}{why}; expected 192.0.2.1, 192.0.2.0/24, \
     192.0.2.1-192.0.2.9, 2001:db8::1 or 2001:db8::/32",
    if why.is_empty() { "" } else { ": " }
)]
pub struct InvalidTarget {
    text: String,
    /// What is wrong with it; empty if it is no address at all.
    why: &'static str,
}

impl InvalidTarget {
    /// Keeps as much of the text as an error shows.
    fn new(text: &str, why: &'static str) -> InvalidTarget {
        InvalidTarget { text: text.chars().take(80).collect(), why }
    }
}

impl Addresses {
    /// Returns the range from one address to another, both included.
    ///
    /// # Errors
    /// The first address is the higher one, or the two are of different IP versions.
    pub fn range(first: IpAddr, last: IpAddr) -> Result<Addresses, InvalidTarget> {
        let refused = |why| Err(InvalidTarget::new(&format!("{first}-{last}"), why));
        let (start, end) = (first.to_canonical(), last.to_canonical());
        if IpVersion::of(start) != IpVersion::of(end) {
            return refused("its ends are of two IP versions");
        }
        if start > end {
            return refused("it ends before it starts");
        }
        let range = (address::number(start), address::number(end));
        let mut prefixes = prefixes(IpVersion::of(start), range);
        let first = prefixes.next();
        Ok(match first.filter(|_| prefixes.next().is_none()) {
            Some(prefix) => Addresses::Prefix(prefix),
            None => Addresses::Range(start, end),
        })
    }

    /// Returns the first and the last address.
    #[must_use]
    pub fn ends(self) -> (IpAddr, IpAddr) {
        match self {
            Addresses::One(address) => (address, address),
            Addresses::Prefix(prefix) => (prefix.network(), prefix.broadcast()),
            Addresses::Range(first, last) => (first, last),
        }
    }

    /// Returns the targets that have exactly these addresses: one, or up to 254 for a range. One IPv6
    /// address stands for the prefix of its first `v6_prefix` bits.
    #[must_use]
    pub fn targets(self, v6_prefix: u8) -> Vec<Target> {
        match self {
            Addresses::One(address) => vec![Target::source(address, v6_prefix)],
            Addresses::Prefix(prefix) => vec![prefix.into()],
            Addresses::Range(first, last) => {
                let range = (address::number(first), address::number(last));
                prefixes(IpVersion::of(first), range).map(Target::from).collect()
            }
        }
    }

    /// Returns the prefixes that have exactly these addresses. One IPv6 address is itself.
    #[must_use]
    pub fn networks(self) -> Vec<IpNetwork> {
        self.targets(128).into_iter().map(Target::network).collect()
    }
}

impl FromStr for Addresses {
    type Err = InvalidTarget;

    fn from_str(text: &str) -> Result<Addresses, InvalidTarget> {
        let text = text.trim();
        // Nearly all lines of a long list.
        if let Ok(address) = text.parse::<IpAddr>() {
            return Ok(Addresses::One(address.to_canonical()));
        }
        let refused = |why| Err(InvalidTarget::new(text, why));
        if text.contains('%') {
            return refused("an address with a zone is one of a link");
        }
        if let Some((first, last)) = text.split_once('-') {
            return match (address(first.trim()), address(last.trim())) {
                (Some(first), Some(last)) => Addresses::range(first, last)
                    .map_err(|InvalidTarget { why, .. }| InvalidTarget::new(text, why)),
                _ => refused(""),
            };
        }
        let (base, length) = match text.split_once('/') {
            Some((base, length)) => (base, Some(length)),
            None => (text, None),
        };
        let Some(address) = address(base) else {
            return refused(reason(base));
        };
        let Some(length) = length else { return Ok(Addresses::One(address.to_canonical())) };
        let network = match prefix_length(address, length) {
            Some(length) => IpNetwork::new(address, length).ok(),
            None => None,
        };
        let Some(network) = network else {
            return refused("a prefix is up to 32 bits long in IPv4 and up to 128 in IPv6");
        };
        Ok(Addresses::Prefix(Target::from(network).network()))
    }
}

impl FromStr for Target {
    type Err = InvalidTarget;

    fn from_str(text: &str) -> Result<Target, InvalidTarget> {
        let targets = text.parse::<Addresses>()?.targets(Target::V6_SOURCE);
        match targets[..] {
            [target] => Ok(target),
            _ => Err(InvalidTarget::new(text, "it is a range, and no prefix has its addresses")),
        }
    }
}

/// Reads an address, which may stand in brackets if it is IPv6.
fn address(text: &str) -> Option<IpAddr> {
    let inner = text.strip_prefix('[').and_then(|text| text.strip_suffix(']'));
    match inner {
        Some(inner) => inner.parse().ok().map(IpAddr::V6),
        None => text.parse().ok(),
    }
}

/// Reads the length of a prefix, or a netmask of IPv4.
fn prefix_length(address: IpAddr, text: &str) -> Option<u8> {
    if address.is_ipv4()
        && let Ok(mask) = text.parse::<Ipv4Addr>()
    {
        return ipnetwork::ipv4_mask_to_prefix(mask).ok();
    }
    let is_number = (1..=3).contains(&text.len()) && text.bytes().all(|byte| byte.is_ascii_digit());
    text.parse().ok().filter(|_| is_number && (text.len() == 1 || !text.starts_with('0')))
}

/// Returns what probably is wrong with the text of an address.
fn reason(text: &str) -> &'static str {
    let octets: Vec<&str> = text.split('.').collect();
    let are_numbers = octets.iter().all(|octet| octet.parse::<u32>().is_ok());
    let has_leading_zero = |octet: &&str| octet.len() > 1 && octet.starts_with('0');
    match octets.len() {
        4 if are_numbers && octets.iter().any(has_leading_zero) => {
            "a number with a leading zero is octal for some programs"
        }
        2..=3 if are_numbers => "an IPv4 address has four numbers",
        _ if text.contains('*') => "write a prefix in place of `*`",
        _ => "",
    }
}

/// Returns the fewest prefixes that have exactly the addresses of a range, in order.
pub(crate) fn prefixes(
    version: IpVersion,
    (first, last): AddressRange,
) -> impl Iterator<Item = IpNetwork> {
    let bits = version.address_bits();
    let mut next = Some(first);
    std::iter::from_fn(move || {
        let start = next.filter(|start| *start <= last)?;
        // As many addresses as the start is aligned to, but no more than are left.
        let mut host_bits = (start.trailing_zeros()).min(u32::from(bits));
        let end = |host_bits: u32| {
            let ones = 1_u128.checked_shl(host_bits).map_or(u128::MAX, |size| size - 1);
            start | ones
        };
        while end(host_bits) > last {
            host_bits -= 1;
        }
        next = end(host_bits).checked_add(1);
        let length = bits.saturating_sub(u8::try_from(host_bits).unwrap_or(bits));
        network(version, start, length)
    })
}

fn network(version: IpVersion, start: u128, length: u8) -> Option<IpNetwork> {
    match version {
        IpVersion::V4 => {
            let address = Ipv4Addr::from_bits(u32::try_from(start).ok()?);
            Ipv4Network::new(address, length).ok().map(IpNetwork::V4)
        }
        IpVersion::V6 => {
            Ipv6Network::new(Ipv6Addr::from_bits(start), length).ok().map(IpNetwork::V6)
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn read(text: &str) -> Addresses {
        text.parse().expect(text)
    }

    fn targets(text: &str) -> Vec<String> {
        read(text).targets(64).iter().map(ToString::to_string).collect()
    }

    #[test]
    fn one_meaning_has_one_value_however_it_is_written() {
        for (meaning, texts) in [
            ("192.0.2.1", &["::ffff:192.0.2.1", "::ffff:c000:201", " 192.0.2.1 "][..]),
            (
                "192.0.2.0/24",
                &[
                    "192.0.2.77/24",
                    "192.0.2.9/255.255.255.0",
                    "192.0.2.0-192.0.2.255",
                    "192.0.2.0 - 192.0.2.255",
                    "::ffff:192.0.2.1/120",
                    "::ffff:192.0.2.0-::ffff:192.0.2.255",
                ],
            ),
            ("2001:db8::1", &["[2001:db8::1]", "2001:DB8:0:0::1"]),
            ("2001:db8::/32", &["[2001:db8::]/32", "2001:db8::7/32"]),
        ] {
            for text in texts {
                assert_eq!(read(text), read(meaning), "{text}");
            }
        }
    }

    #[test]
    fn a_range_becomes_the_fewest_prefixes() {
        assert_eq!(targets("192.0.2.1-192.0.2.4"), ["192.0.2.1", "192.0.2.2/31", "192.0.2.4"]);
        assert_eq!(targets("0.0.0.0-255.255.255.255"), ["0.0.0.0/0"]);
        assert_eq!(targets("::-ffff:ffff:ffff:ffff:ffff:ffff:ffff:ffff"), ["::/0"]);
        assert_eq!(targets("192.0.2.7-192.0.2.7"), ["192.0.2.7"]);
        assert_eq!(targets("0.0.0.1-255.255.255.254").len(), 62);
        assert_eq!(targets("2001:db8::1"), ["2001:db8::/64"]);
        assert_eq!(targets("2001:db8::1-2001:db8::1"), ["2001:db8::1/128"]);
    }

    #[test]
    fn what_could_mean_two_things_is_refused_with_its_reason() {
        for (text, why) in [
            ("010.0.0.1", "octal"),
            ("192.0.2.010/32", "octal"),
            ("fe80::1%eth0", "zone"),
            ("fe80::1%eth0/64", "zone"),
            ("192.0.2", "four numbers"),
            ("192.0.2.*", "in place of `*`"),
            ("192.0.2.0/33", "up to 32 bits"),
            ("192.0.2.0/024", "up to 32 bits"),
            ("192.0.2.0/+8", "up to 32 bits"),
            ("192.0.2.0/0.0.0.255", "up to 32 bits"),
            ("192.0.2.0/", "up to 32 bits"),
            ("2001:db8::/129", "up to 32 bits"),
            ("192.0.2.9-192.0.2.1", "ends before"),
            ("192.0.2.1-2001:db8::1", "two IP versions"),
            ("192.0.2.1-9", ""),
            ("192.0.2.1-", ""),
            ("192.0.2.1:80", ""),
            ("[192.0.2.1]", ""),
            ("[2001:db8::1]:80", ""),
            ("192.0.2.1,192.0.2.2", ""),
            ("example.org", ""),
            ("", ""),
        ] {
            let error = text.parse::<Addresses>().expect_err(text).to_string();
            assert!(error.contains("expected 192.0.2.1") && error.contains(why), "{error}");
        }
    }

    proptest::proptest! {
        #[test]
        fn any_text_is_read_without_a_panic_and_what_is_read_can_be_written(text in ".{0,40}|[0-9a-f:./%-]{0,40}") {
            if let Ok(addresses) = text.parse::<Addresses>() {
                let (first, last) = addresses.ends();
                proptest::prop_assert_eq!(
                    format!("{first}-{last}").parse::<Addresses>().map(Addresses::ends),
                    Ok((first, last))
                );
            }
        }

        #[test]
        fn the_prefixes_of_a_range_follow_each_other_from_its_first_to_its_last_address(
            one: u128, other: u128, is_v4: bool,
        ) {
            let of = |number: u128| match is_v4 {
                true => IpAddr::V4(Ipv4Addr::from_bits(number as u32)),
                false => IpAddr::V6(Ipv6Addr::from_bits(number)),
            };
            let (mut ends, number) = ([of(one).to_canonical(), of(other).to_canonical()], address::number);
            ends.sort();
            let Ok(range) = Addresses::range(ends[0], ends[1]) else { return Ok(()) };
            let networks = range.networks();
            let mut next = Some(number(ends[0]));
            for network in &networks {
                proptest::prop_assert_eq!(Some(number(network.network())), next);
                next = number(network.broadcast()).checked_add(1);
            }
            proptest::prop_assert_eq!(networks.last().map(IpNetwork::broadcast), Some(ends[1]));
            proptest::prop_assert!(networks.len() <= 254);
        }
    }
}
