//! Addresses as bytes of a key, as numbers and as ranges of numbers. Pure.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

use ipnetwork::IpNetwork;
use nfguard_netlink::IpVersion;

/// First and last address of a range, as numbers. Both are of one IP version, which is said
/// elsewhere.
pub(crate) type AddressRange = (u128, u128);

/// Appends an address as keys of sets hold it.
pub(crate) fn push_address(out: &mut Vec<u8>, address: IpAddr) {
    match address {
        IpAddr::V4(address) => out.extend(address.octets()),
        IpAddr::V6(address) => out.extend(address.octets()),
    }
}

/// Reads an address from the bytes of a key.
pub(crate) fn address_from(bytes: &[u8]) -> Option<IpAddr> {
    let v4 = || <[u8; 4]>::try_from(bytes).map(IpAddr::from);
    v4().or_else(|_| <[u8; 16]>::try_from(bytes).map(IpAddr::from)).ok()
}

/// Returns the range that a prefix covers.
pub(crate) fn range_of(network: IpNetwork) -> AddressRange {
    (number(network.network()), number(network.broadcast()))
}

/// Returns an address as a number.
pub(crate) fn number(address: IpAddr) -> u128 {
    match address {
        IpAddr::V4(address) => u128::from(address.to_bits()),
        IpAddr::V6(address) => address.to_bits(),
    }
}

/// Returns the address of a number. Of IPv4 the last 32 bits count.
pub(crate) fn from_number(number: u128, version: IpVersion) -> IpAddr {
    match version {
        IpVersion::V4 => IpAddr::V4(Ipv4Addr::from_bits(number as u32)),
        IpVersion::V6 => IpAddr::V6(Ipv6Addr::from_bits(number)),
    }
}

/// Sorts ranges, and joins those that overlap or adjoin.
pub(crate) fn merged(ranges: impl Iterator<Item = AddressRange>) -> Vec<AddressRange> {
    let mut all: Vec<AddressRange> = ranges.collect();
    all.sort_unstable();
    all.dedup_by(|(first, last), (_, end)| {
        let joins = *first <= end.saturating_add(1);
        if joins {
            *end = (*last).max(*end);
        }
        joins
    });
    all
}

/// Tells whether a range has an address in common with one of `ranges`, which are [`merged`].
pub(crate) fn overlaps_any(ranges: &[AddressRange], (first, last): AddressRange) -> bool {
    let next = ranges.partition_point(|(_, end)| *end < first);
    ranges.get(next).is_some_and(|(start, _)| *start <= last)
}

/// Returns the first ranges without the addresses of the second; both are [`merged`].
pub(crate) fn subtract(ranges: &[AddressRange], holes: &[AddressRange]) -> Vec<AddressRange> {
    let mut left = Vec::with_capacity(ranges.len());
    for &(first, last) in ranges {
        let mut start = Some(first);
        let from = holes.partition_point(|(_, end)| *end < first);
        let inside = holes.iter().skip(from).take_while(|(start, _)| *start <= last);
        for &(hole, end) in inside {
            if let Some(start) = start.filter(|start| *start < hole) {
                left.push((start, hole - 1));
            }
            start = end.checked_add(1).filter(|next| *next <= last);
        }
        left.extend(start.map(|start| (start, last)));
    }
    left
}
