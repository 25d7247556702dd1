//! Lists of addresses as others publish them, made fit to be dropped. Pure.

use std::net::IpAddr;

use ipnetwork::IpNetwork;
use nfguard_netlink::{IpVersion, PerIpVersion};

use crate::address::{self, AddressRange};
use crate::addresses::Addresses;
use crate::never_ban::NeverBan;
use crate::target::Target;

/// Addresses that are no single host of the internet: what the IANA registries of special-purpose
/// addresses (RFC 6890, as of 2025) have as not globally reachable or as a translation mechanism,
/// multicast (RFC 5771), and of IPv6 all that lies outside of 2000::/3, the only part that is given
/// out as unicast addresses.
const RESERVED: [&str; 22] = [
    "0.0.0.0/8",
    "10.0.0.0/8",
    "100.64.0.0/10",
    "127.0.0.0/8",
    "169.254.0.0/16",
    "172.16.0.0/12",
    "192.0.0.0/24",
    "192.0.2.0/24",
    "192.88.99.0/24",
    "192.168.0.0/16",
    "198.18.0.0/15",
    "198.51.100.0/24",
    "203.0.113.0/24",
    "224.0.0.0/4",
    "240.0.0.0/4",
    "::/3",
    "2001::/23",
    "2001:db8::/32",
    "2002::/16",
    "3fff::/20",
    "4000::/2",
    "8000::/1",
];

/// A list as it was published: addresses and ranges in any order, which may overlap.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Feed {
    ranges: PerIpVersion<Vec<AddressRange>>,
}

/// A range whose end lies before its start, or whose ends are of two IP versions.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("{first}-{last} is no range; expected the lower address first, both IPv4 or both IPv6")]
#[non_exhaustive]
pub struct InvalidRange {
    /// The first address, as it was given.
    pub first: IpAddr,
    /// The last address, as it was given.
    pub last: IpAddr,
}

/// A feed that can be dropped: without reserved addresses and never-ban entries, in ranges that
/// neither overlap nor adjoin.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
#[non_exhaustive]
pub struct CleanFeed {
    /// How many entries the feed had.
    pub entries: u64,
    /// How many of these had reserved addresses (private, bogons, multicast), which were removed.
    pub reserved: u64,
    /// How many of these had addresses of never-ban entries, which were removed.
    pub never_ban: u64,
    /// The widest entry: what is left of it without reserved addresses.
    pub widest: PerIpVersion<Option<WidestEntry>>,
    ranges: PerIpVersion<Vec<AddressRange>>,
}

/// The entry of a feed with the most addresses that are not reserved.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub struct WidestEntry {
    /// The first address of the entry, as it was given.
    pub first: IpAddr,
    /// The last one.
    pub last: IpAddr,
    /// How many addresses it has that are not reserved.
    pub addresses: u128,
}

impl Feed {
    /// Adds addresses. One address is itself, IPv6 too.
    pub fn add_addresses(&mut self, addresses: Addresses) {
        let (first, last) = addresses.ends();
        self.ranges[IpVersion::of(first)].push((address::number(first), address::number(last)));
    }

    /// Adds an address or a prefix. Host bits count for nothing.
    pub fn add(&mut self, network: IpNetwork) {
        let network = Target::from(network).network();
        self.ranges[IpVersion::of(network.ip())].push(address::range_of(network));
    }

    /// Adds a range, both ends included.
    ///
    /// # Errors
    /// [`InvalidRange`].
    pub fn add_range(&mut self, first: IpAddr, last: IpAddr) -> Result<(), InvalidRange> {
        let (start, end) = (first.to_canonical(), last.to_canonical());
        if IpVersion::of(start) != IpVersion::of(end) || start > end {
            return Err(InvalidRange { first, last });
        }
        self.ranges[IpVersion::of(start)].push((address::number(start), address::number(end)));
        Ok(())
    }

    /// Returns the first and the last address of each range, joined where they overlap or adjoin.
    pub fn blocks(&self) -> impl Iterator<Item = (IpAddr, IpAddr)> + '_ {
        self.ranges.iter().flat_map(|(version, ranges)| {
            let address = move |number| address::from_number(number, version);
            let merged = address::merged(ranges.iter().copied()).into_iter();
            merged.map(move |(first, last)| (address(first), address(last)))
        })
    }

    /// Removes what must not be dropped, and joins what overlaps or adjoins.
    #[must_use]
    pub fn clean(&self, never_ban: &NeverBan) -> CleanFeed {
        let mut clean = CleanFeed::default();
        for (version, ranges) in self.ranges.iter() {
            let reserved = reserved(version);
            let never_banned = never_ban.ranges(version);
            clean.entries += count(ranges, |_| true);
            clean.reserved += count(ranges, |range| address::overlaps_any(&reserved, range));
            clean.never_ban += count(ranges, |range| address::overlaps_any(never_banned, range));
            clean.widest[version] = widest(version, ranges, &reserved);
            let left = address::subtract(&address::merged(ranges.iter().copied()), &reserved);
            clean.ranges[version] = address::subtract(&left, never_banned);
        }
        clean
    }
}

impl CleanFeed {
    /// Returns the number of ranges.
    #[must_use]
    pub fn ranges(&self) -> u64 {
        self.ranges.iter().map(|(_, ranges)| count(ranges, |_| true)).sum()
    }

    /// Returns the number of addresses of one IP version.
    #[must_use]
    pub fn addresses(&self, version: IpVersion) -> u128 {
        size(&self.ranges[version])
    }

    /// Returns the number of addresses of one IP version that a feed can have: those that are not
    /// reserved.
    #[must_use]
    pub fn most_addresses(version: IpVersion) -> u128 {
        let all = u128::MAX >> (128 - u32::from(version.address_bits()));
        size(&address::subtract(&[(0, all)], &reserved(version)))
    }

    /// Returns the ranges of one IP version, sorted.
    pub(crate) fn ranges_of(&self, version: IpVersion) -> &[AddressRange] {
        &self.ranges[version]
    }

    /// Tells whether an address is in the feed.
    #[must_use]
    pub fn contains(&self, address: IpAddr) -> bool {
        let address = address.to_canonical();
        let number = address::number(address);
        address::overlaps_any(self.ranges_of(IpVersion::of(address)), (number, number))
    }
}

/// Returns the reserved ranges of an IP version, merged.
fn reserved(version: IpVersion) -> Vec<AddressRange> {
    let reserved = RESERVED.iter().filter_map(|text| text.parse().ok());
    let of_version = reserved.filter(|network: &IpNetwork| IpVersion::of(network.ip()) == version);
    address::merged(of_version.map(address::range_of))
}

fn widest(
    version: IpVersion,
    ranges: &[AddressRange],
    reserved: &[AddressRange],
) -> Option<WidestEntry> {
    let mut widest: Option<WidestEntry> = None;
    for range in ranges {
        let most = widest.map_or(0, |widest| widest.addresses);
        // Without its reserved addresses it may be smaller, but no larger.
        if size(&[*range]) <= most {
            continue;
        }
        let addresses = size(&address::subtract(&[*range], reserved));
        if addresses > most {
            let of = |number| address::from_number(number, version);
            widest = Some(WidestEntry { first: of(range.0), last: of(range.1), addresses });
        }
    }
    widest
}

/// Returns the number of addresses of ranges that do not overlap.
fn size(ranges: &[AddressRange]) -> u128 {
    let sizes = ranges.iter().map(|(first, last)| (last - first).saturating_add(1));
    sizes.fold(0, u128::saturating_add)
}

fn count(ranges: &[AddressRange], is_counted: impl Fn(AddressRange) -> bool) -> u64 {
    ranges.iter().map(|range| u64::from(is_counted(*range))).sum()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::never_ban::NeverBanKind;

    fn cleaned(networks: &[&str], never_ban: &NeverBan) -> CleanFeed {
        let mut feed = Feed::default();
        networks.iter().for_each(|text| feed.add(text.parse().expect("a network")));
        feed.clean(never_ban)
    }

    fn has(cleaned: &CleanFeed, address: &str) -> bool {
        cleaned.contains(address.parse().expect("an address"))
    }

    #[test]
    fn private_and_reserved_entries_are_taken_out_and_counted() {
        let list = ["10.0.0.0/8", "192.168.1.1", "1.2.3.0/24", "::1", "fe80::/10", "2a00::/16"];
        let cleaned = cleaned(&list, &NeverBan::default());
        assert_eq!((cleaned.entries, cleaned.reserved, cleaned.never_ban), (6, 4, 1));
        assert_eq!(cleaned.ranges(), 2);
        assert!(has(&cleaned, "1.2.3.4") && has(&cleaned, "2a00::1") && !has(&cleaned, "10.0.0.1"));
    }

    #[test]
    fn a_never_ban_entry_is_cut_out_of_the_prefix_around_it_and_the_rest_stays() {
        let gateway: IpAddr = "1.2.3.4".parse().expect("an address");
        let never_ban = NeverBan::default().with(gateway, NeverBanKind::Gateway);
        let cleaned = cleaned(&["1.2.3.0/24"], &never_ban);
        assert_eq!((cleaned.never_ban, cleaned.ranges()), (1, 2));
        assert!(has(&cleaned, "1.2.3.3") && !has(&cleaned, "1.2.3.4") && has(&cleaned, "1.2.3.5"));
    }

    #[test]
    fn what_overlaps_or_adjoins_becomes_one_range() {
        let list = ["1.0.0.0/25", "1.0.0.128/25", "1.0.0.7", "1.0.1.0/24", "1.0.3.0/24"];
        assert_eq!(cleaned(&list, &NeverBan::default()).ranges(), 2);
    }

    #[test]
    fn the_last_address_of_all_is_handled() {
        let all = cleaned(&["0.0.0.0/0", "::/0"], &NeverBan::default());
        assert!(has(&all, "1.0.0.0") && has(&all, "223.255.255.255") && has(&all, "2a00::"));
        assert!(!has(&all, "255.255.255.255"));
        assert!(!has(&all, "ffff:ffff:ffff:ffff:ffff:ffff:ffff:ffff"));
    }

    #[test]
    fn a_range_the_wrong_way_round_or_of_two_ip_versions_is_refused() {
        let address = |text: &str| text.parse::<IpAddr>().expect("an address");
        for (first, last) in [("1.2.3.4", "1.2.3.3"), ("1.2.3.4", "2a00::1")] {
            assert!(Feed::default().add_range(address(first), address(last)).is_err());
        }
    }

    proptest::proptest! {
        #[test]
        fn cleaning_agrees_with_looking_at_each_address(
            list in proptest::collection::vec((0..400_u32, 0..60_u32), 0..30),
            entries in proptest::collection::vec((0..400_u32, 24..=32_u8), 0..5),
        ) {
            // Around the border of what is reserved: 9.255.255.0 and on.
            let address = |at: u32| IpAddr::from((0x09ff_ff00 + at).to_be_bytes());
            let mut feed = Feed::default();
            for (first, len) in &list {
                feed.add_range(address(*first), address(first + len)).expect("a range");
            }
            let mut never_ban = NeverBan::default();
            for (at, bits) in &entries {
                let network = IpNetwork::new(address(*at), *bits).expect("a network");
                never_ban = never_ban.with(network, NeverBanKind::Policy);
            }
            let cleaned = feed.clean(&never_ban);
            for at in 0..500 {
                let address = address(at);
                let expected = list.iter().any(|(first, len)| (*first..=first + len).contains(&at))
                    && at < 256
                    && !never_ban.entries().iter().any(|entry| entry.network.contains(address));
                proptest::prop_assert_eq!(cleaned.contains(address), expected, "{}", address);
            }
            let gap = |pair: &[AddressRange]| pair[0].1 + 1 < pair[1].0;
            proptest::prop_assert!(cleaned.ranges.v4.windows(2).all(gap));
        }
    }
}
