//! Lists of addresses as others publish them, made fit to be dropped. Pure.

use std::net::IpAddr;

use ipnetwork::IpNetwork;

use crate::never::{self, NeverBan, Span};

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
    spans: [Vec<Span>; 2],
}

/// A range whose end lies before its start, or whose ends are of two families.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("{first}-{last} is no range; expected the lower address first, both IPv4 or both IPv6")]
pub struct InvalidRange {
    /// As it was given.
    pub first: IpAddr,
    /// As it was given.
    pub last: IpAddr,
}

/// What is left of a feed: ranges that can be dropped, and how many entries had to give something.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Cleaned {
    /// Entries of the feed.
    pub entries: u64,
    /// Of these, how many had reserved addresses: private, bogons, multicast. Those were taken out.
    pub reserved: u64,
    /// Of these, how many had addresses of the never-ban list. Those were taken out.
    pub spared: u64,
    /// Sorted, apart from each other, IPv4 and IPv6.
    pub(crate) spans: [Vec<Span>; 2],
}

impl Feed {
    /// One more address or prefix. Host bits count for nothing.
    pub fn add(&mut self, network: IpNetwork) {
        let network = crate::Target::from(network).network();
        self.push(network.is_ipv6(), never::bounds(network));
    }

    /// One more range, both ends included.
    ///
    /// # Errors
    /// It is none.
    pub fn add_range(&mut self, first: IpAddr, last: IpAddr) -> Result<(), InvalidRange> {
        let (start, end) = (first.to_canonical(), last.to_canonical());
        if start.is_ipv6() != end.is_ipv6() || start > end {
            return Err(InvalidRange { first, last });
        }
        self.push(start.is_ipv6(), (never::number(start), never::number(end)));
        Ok(())
    }

    /// Takes out what nobody may drop, puts together what overlaps or adjoins.
    #[must_use]
    pub fn clean(&self, never: &NeverBan) -> Cleaned {
        let mut cleaned = Cleaned::default();
        for (is_v6, spans) in [false, true].into_iter().zip(&self.spans) {
            let reserved = RESERVED.iter().filter_map(|text| text.parse().ok());
            let reserved = never::merged(
                reserved
                    .filter(|network: &IpNetwork| network.is_ipv6() == is_v6)
                    .map(never::bounds),
            );
            let spared = never.spans(is_v6);
            cleaned.entries += count(spans, |_| true);
            cleaned.reserved += count(spans, |span| never::hit(&reserved, span));
            cleaned.spared += count(spans, |span| never::hit(spared, span));
            let left = minus(&never::merged(spans.iter().copied()), &reserved);
            let [v4, v6] = &mut cleaned.spans;
            *(if is_v6 { v6 } else { v4 }) = minus(&left, spared);
        }
        cleaned
    }

    fn push(&mut self, is_v6: bool, span: Span) {
        let [v4, v6] = &mut self.spans;
        if is_v6 { v6 } else { v4 }.push(span);
    }
}

impl Cleaned {
    /// How many ranges it has.
    #[must_use]
    pub fn ranges(&self) -> u64 {
        self.spans.iter().map(|spans| count(spans, |_| true)).sum()
    }

    /// Whether an address is in it.
    #[must_use]
    pub fn contains(&self, address: IpAddr) -> bool {
        let [v4, v6] = &self.spans;
        let address = address.to_canonical();
        let number = never::number(address);
        never::hit(if address.is_ipv6() { v6 } else { v4 }, (number, number))
    }
}

fn count(spans: &[Span], is_counted: impl Fn(Span) -> bool) -> u64 {
    spans.iter().map(|span| u64::from(is_counted(*span))).sum()
}

/// The first without the second, both sorted and without overlap.
fn minus(spans: &[Span], holes: &[Span]) -> Vec<Span> {
    let mut left = Vec::with_capacity(spans.len());
    for &(first, last) in spans {
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

#[cfg(test)]
mod tests {
    use super::*;

    fn cleaned(networks: &[&str], never: &NeverBan) -> Cleaned {
        let mut feed = Feed::default();
        networks.iter().for_each(|text| feed.add(text.parse().expect("a network")));
        feed.clean(never)
    }

    fn has(cleaned: &Cleaned, address: &str) -> bool {
        cleaned.contains(address.parse().expect("an address"))
    }

    #[test]
    fn private_and_reserved_entries_are_taken_out_and_counted() {
        let list = ["10.0.0.0/8", "192.168.1.1", "1.2.3.0/24", "::1", "fe80::/10", "2a00::/16"];
        let cleaned = cleaned(&list, &NeverBan::default());
        assert_eq!((cleaned.entries, cleaned.reserved, cleaned.spared), (6, 4, 1));
        assert_eq!(cleaned.ranges(), 2);
        assert!(has(&cleaned, "1.2.3.4") && has(&cleaned, "2a00::1") && !has(&cleaned, "10.0.0.1"));
    }

    #[test]
    fn an_ally_is_cut_out_of_the_prefix_around_it_and_the_rest_stays() {
        let ally: IpAddr = "1.2.3.4".parse().expect("an address");
        let cleaned = cleaned(&["1.2.3.0/24"], &NeverBan::default().and(ally, "a friend"));
        assert_eq!((cleaned.spared, cleaned.ranges()), (1, 2));
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
    fn a_range_the_wrong_way_round_or_of_two_families_is_refused() {
        let address = |text: &str| text.parse::<IpAddr>().expect("an address");
        for (first, last) in [("1.2.3.4", "1.2.3.3"), ("1.2.3.4", "2a00::1")] {
            assert!(Feed::default().add_range(address(first), address(last)).is_err());
        }
    }

    proptest::proptest! {
        #[test]
        fn cleaning_agrees_with_looking_at_each_address(
            list in proptest::collection::vec((0..400_u32, 0..60_u32), 0..30),
            allies in proptest::collection::vec((0..400_u32, 24..=32_u8), 0..5),
        ) {
            // Around the border of what is reserved: 9.255.255.0 and on.
            let address = |at: u32| IpAddr::from((0x09ff_ff00 + at).to_be_bytes());
            let mut feed = Feed::default();
            for (first, len) in &list {
                feed.add_range(address(*first), address(first + len)).expect("a range");
            }
            let mut never = NeverBan::default();
            for (at, bits) in &allies {
                never = never.and(IpNetwork::new(address(*at), *bits).expect("a network"), "ally");
            }
            let cleaned = feed.clean(&never);
            for at in 0..500 {
                let address = address(at);
                let expected = list.iter().any(|(first, len)| (*first..=first + len).contains(&at))
                    && at < 256
                    && !never.entries().iter().any(|ally| ally.network.contains(address));
                proptest::prop_assert_eq!(cleaned.contains(address), expected, "{}", address);
            }
            let gap = |pair: &[Span]| pair[0].1 + 1 < pair[1].0;
            proptest::prop_assert!(cleaned.spans[0].windows(2).all(gap));
        }
    }
}
