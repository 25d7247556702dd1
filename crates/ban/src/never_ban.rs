//! The never-ban list: addresses that no ban may touch. Pure.

mod kind;

use std::collections::HashMap;
use std::net::IpAddr;
use std::time::Duration;

use ipnetwork::IpNetwork;
use nfguard_netlink::{IpVersion, PerIpVersion};

use crate::address::{self, AddressRange};
use crate::addresses::{self, Addresses};
use crate::day::{Day, Moment};
use crate::target::Target;

pub use kind::NeverBanKind;

/// The never-ban list. Loopback is always on it.
///
/// The list protects twice: only an [`Admitted`] target becomes an element of a set, and the
/// kernel's rules pass the list's addresses even if another program puts one into a set.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct NeverBan {
    /// The entries without what the policy lets be banned.
    entries: Vec<NeverBanEntry>,
    /// The entries as they were added.
    added: Vec<NeverBanEntry>,
    /// What may be banned although it is behind this host.
    may_ban: Vec<IpNetwork>,
    /// Whether all facts of this host are on the list, so that facts which other programs found
    /// earlier are out of date.
    pub(crate) knows_host: bool,
    /// The entries' addresses, merged.
    ranges: PerIpVersion<Vec<AddressRange>>,
}

/// An entry of the never-ban list.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct NeverBanEntry {
    /// The address or prefix.
    pub network: IpNetwork,
    /// What it is, and so why it is on the list.
    pub kind: NeverBanKind,
}

/// A target that has passed a [`NeverBan`] list.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Admitted(Target);

/// A target that was refused because it has an address in common with a never-ban entry.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error(
    "{target} is not banned: it would ban {} ({}), which is on the never-ban list{}",
    Target::from(entry.network),
    entry.kind,
    hint(*target, entry)
)]
#[non_exhaustive]
pub struct Refused {
    /// What was to be banned.
    pub target: Target,
    /// The entry that the ban would hit.
    pub entry: NeverBanEntry,
}

/// Says what is wrong with the log that a ban of an address on this host's own side comes from.
fn hint(target: Target, entry: &NeverBanEntry) -> &'static str {
    let is_inside = target.network().prefix() >= entry.network.prefix();
    match entry.kind {
        NeverBanKind::Behind { .. } | NeverBanKind::OwnAddress { .. } if is_inside => {
            ". A log that has it as a client has the address of a proxy or a translator: have it log \
             the client's own (X-Forwarded-For or the PROXY protocol, from a proxy that is trusted), or \
             turn docker-proxy off (\"userland-proxy\": false)"
        }
        NeverBanKind::Behind { .. } => ". Ban the parts of it that are not behind this host",
        _ => "",
    }
}

impl Default for NeverBan {
    fn default() -> NeverBan {
        let ranges = PerIpVersion::default();
        let (entries, added, may_ban) = (Vec::new(), Vec::new(), Vec::new());
        let empty = NeverBan { entries, added, may_ban, knows_host: false, ranges };
        let loopback = ["127.0.0.0/8", "::1/128"].into_iter().filter_map(|text| text.parse().ok());
        empty.with_all(loopback.map(|network| (network, NeverBanKind::Loopback).into()))
    }
}

impl NeverBan {
    /// How long the peer of an SSH session stays on the list of other programs.
    pub const SSH_PEER_RETENTION: Duration = Duration::from_secs(7 * 24 * 3600);

    /// Adds an entry. A lone address is that address, IPv6 too. A network that is on the list
    /// already keeps its kind.
    #[must_use]
    pub fn with(self, network: impl Into<IpNetwork>, kind: NeverBanKind) -> NeverBan {
        self.with_all([(network.into(), kind).into()])
    }

    /// Adds entries. A network that is on the list already keeps its kind; if it is one behind this
    /// host, what is said of it counts from then on, and not where it lies.
    #[must_use]
    pub fn with_all(mut self, entries: impl IntoIterator<Item = NeverBanEntry>) -> NeverBan {
        let known = self.added.iter().enumerate().map(|(at, entry)| (entry.network, at));
        let mut known: HashMap<IpNetwork, usize> = known.collect();
        for NeverBanEntry { network, kind } in entries {
            let network = Target::from(network).network();
            let at = *known.entry(network).or_insert(self.added.len());
            match self.added.get_mut(at) {
                None => self.added.push(NeverBanEntry { network, kind: kind.cleaned() }),
                Some(entry) if entry.kind.is_behind() && !kind.is_fact_of_host() => {
                    entry.kind = kind.cleaned();
                }
                Some(_) => {}
            }
        }
        self.entries = match self.may_ban[..] {
            [] => self.added.clone(),
            _ => self.added.iter().flat_map(|entry| self.left_of(entry)).collect(),
        };
        self.ranges = PerIpVersion::from_fn(|version| {
            let networks = self.entries.iter().map(|entry| entry.network);
            let of_version = networks.filter(|network| IpVersion::of(network.ip()) == version);
            address::merged(of_version.map(address::range_of))
        });
        self
    }

    /// Adds the peer of an SSH session; of an IPv6 peer its /64, because its address changes by the
    /// day. Other programs that ban on this host keep the entry for [`NeverBan::SSH_PEER_RETENTION`]
    /// from the beginning of the day.
    #[must_use]
    pub fn with_ssh_peer(self, peer: IpAddr, now: Moment) -> NeverBan {
        let is_of_link = matches!(peer, IpAddr::V6(v6) if v6.is_unicast_link_local());
        let network =
            Target::source(peer, if is_of_link { 128 } else { Target::V6_SOURCE }).network();
        let kind = NeverBanKind::SshPeer {
            seen_on: Day::of(now.calendar),
            day_since_boot: Some(now.days_since_boot()),
        };
        if self.entries.iter().any(|entry| entry.network == network && entry.kind != kind) {
            // A session that goes on is seen again.
            let is_old = |entry: &NeverBanEntry| {
                entry.network == network && matches!(entry.kind, NeverBanKind::SshPeer { .. })
            };
            return self.without(is_old).with(network, kind);
        }
        self.with(network, kind)
    }

    /// Lets these networks be banned although they are behind this host. What is on the list for
    /// another reason, such as an address of this host, stays on it.
    #[must_use]
    pub fn with_may_ban(mut self, networks: &[IpNetwork]) -> NeverBan {
        self.may_ban = networks.iter().map(|network| Target::from(*network).network()).collect();
        self.may_ban.sort_unstable();
        self.may_ban.dedup();
        self.with_all([])
    }

    /// Returns the networks that may be banned although they are behind this host.
    #[must_use]
    pub fn may_ban(&self) -> &[IpNetwork] {
        &self.may_ban
    }

    /// Returns what is left of an entry without what may be banned.
    fn left_of(&self, entry: &NeverBanEntry) -> Vec<NeverBanEntry> {
        let is_about = |other: &&IpNetwork| Target::from(**other).overlaps(entry.network.into());
        if !entry.kind.is_behind() || !self.may_ban.iter().any(|other| is_about(&other)) {
            return vec![entry.clone()];
        }
        let holes =
            address::merged(self.may_ban.iter().filter(is_about).map(|it| address::range_of(*it)));
        let version = IpVersion::of(entry.network.ip());
        let ranges = address::subtract(&[address::range_of(entry.network)], &holes).into_iter();
        let networks = ranges.flat_map(|range| addresses::prefixes(version, range));
        networks.map(|network| NeverBanEntry { network, kind: entry.kind.clone() }).collect()
    }

    /// Removes the entries that match `predicate`.
    pub(crate) fn without(mut self, predicate: impl Fn(&NeverBanEntry) -> bool) -> NeverBan {
        self.added.retain(|entry| !predicate(entry));
        self.with_all([])
    }

    /// Adds what other programs have said, as far as it still holds: a program that knows this host
    /// knows better which addresses are its own, and an SSH session is forgotten in time.
    pub(crate) fn merged_with(&self, others: NeverBan, now: Moment) -> NeverBan {
        let holds = |entry: &NeverBanEntry| match &entry.kind {
            NeverBanKind::SshPeer { seen_on, day_since_boot } => {
                is_recent(*seen_on, *day_since_boot, now)
            }
            kind => !(self.knows_host && kind.is_fact_of_host()),
        };
        let may_ban = [self.may_ban(), others.may_ban()].concat();
        let all = self.clone().with_may_ban(&may_ban);
        all.with_all(others.added.into_iter().filter(holds))
    }

    /// Admits a target unless it has an address in common with an entry. The time does not grow
    /// with the list, or hardly.
    ///
    /// # Errors
    /// [`Refused`] names the entry.
    pub fn admit(&self, target: Target) -> Result<Admitted, Refused> {
        let network = target.network();
        let version = IpVersion::of(network.ip());
        if !address::overlaps_any(self.ranges(version), address::range_of(network)) {
            return Ok(Admitted(target));
        }
        // The widest says most: of a bridge its network, and not this host's address there.
        let hits = self.entries.iter().filter(|entry| Target::from(entry.network).overlaps(target));
        let hit = hits.min_by_key(|entry| entry.network.prefix());
        hit.map_or(Ok(Admitted(target)), |entry| Err(Refused { target, entry: entry.clone() }))
    }

    /// Admits the source that an address belongs to: the IPv4 address, or the IPv6 network of
    /// `v6_prefix` bits. If that network holds an entry, the address alone is admitted.
    ///
    /// # Errors
    /// [`Refused`] names the entry.
    pub fn admit_source(&self, address: IpAddr, v6_prefix: u8) -> Result<Admitted, Refused> {
        let refused = match self.admit(Target::source(address, v6_prefix)) {
            Ok(admitted) => return Ok(admitted),
            Err(refused) => refused,
        };
        self.admit(Target::source(address, 128)).map_err(|_| refused)
    }

    /// Admits the targets that have exactly these addresses, or none of them. One address is admitted
    /// as by [`NeverBan::admit_source`].
    ///
    /// # Errors
    /// [`Refused`] names the entry.
    pub fn admit_all(&self, all: Addresses, v6_prefix: u8) -> Result<Vec<Admitted>, Refused> {
        match all {
            Addresses::One(address) => Ok(vec![self.admit_source(address, v6_prefix)?]),
            all => all.targets(v6_prefix).into_iter().map(|target| self.admit(target)).collect(),
        }
    }

    /// Tells whether an entry has one of these addresses.
    #[must_use]
    pub fn has_any_of(&self, addresses: Addresses) -> bool {
        let (first, last) = addresses.ends();
        let range = (address::number(first), address::number(last));
        address::overlaps_any(self.ranges(IpVersion::of(first)), range)
    }

    pub(crate) fn ranges(&self, version: IpVersion) -> &[AddressRange] {
        &self.ranges[version]
    }

    /// Returns the entries, in the order in which they were added.
    #[must_use]
    pub fn entries(&self) -> &[NeverBanEntry] {
        &self.entries
    }
}

/// Tells whether a session was seen within [`NeverBan::SSH_PEER_RETENTION`], by one of the clocks: the
/// calendar may have been set since, and a program in another time namespace counts from another boot.
fn is_recent(seen_on: Day, day_since_boot: Option<u64>, now: Moment) -> bool {
    let limit = NeverBan::SSH_PEER_RETENTION;
    let by_boot = day_since_boot
        .and_then(|day| now.days_since_boot().checked_sub(day))
        .is_some_and(|days| days < limit.as_secs() / (24 * 3600));
    // A day that lies ahead was written before the clock was set back.
    let by_calendar = match now.calendar.duration_since(seen_on.start()) {
        Ok(ago) => ago < limit,
        Err(ahead) => ahead.duration() < limit,
    };
    by_boot || by_calendar
}

impl From<(IpNetwork, NeverBanKind)> for NeverBanEntry {
    fn from((network, kind): (IpNetwork, NeverBanKind)) -> NeverBanEntry {
        NeverBanEntry { network, kind }
    }
}

impl Admitted {
    /// Returns what was admitted.
    #[must_use]
    pub fn target(self) -> Target {
        self.0
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn network(text: &str) -> IpNetwork {
        text.parse().expect("a network")
    }

    fn moment(day: &str, days_since_boot: u64) -> Moment {
        Moment {
            calendar: day.parse::<Day>().expect("a day").start(),
            since_boot: Duration::from_secs(days_since_boot * 24 * 3600),
        }
    }

    #[test]
    fn a_session_that_goes_on_is_written_again_once_a_day_by_either_clock() {
        let peer = |day, boot| {
            let all = NeverBan::default().with_ssh_peer([192, 0, 2, 7].into(), moment(day, boot));
            all.entries().last().cloned().expect("the peer")
        };
        assert_eq!(peer("2026-03-02", 40), peer("2026-03-02", 40));
        assert_ne!(peer("2026-03-02", 40), peer("2026-03-02", 41));
        assert_ne!(peer("2026-03-02", 40), peer("2026-03-01", 40));
    }

    fn admit(never_ban: &NeverBan, text: &str) -> Result<(), String> {
        let target = text.parse().expect("a target");
        never_ban.admit(target).map(|_| ()).map_err(|refused| refused.to_string())
    }

    #[test]
    fn facts_of_the_host_change_and_what_the_operator_says_stays() {
        let this_host = NeverBan { knows_host: true, ..NeverBan::default() };
        let kept = |kind: NeverBanKind| {
            let entry = NeverBanEntry { network: network("192.0.2.1"), kind };
            let all = this_host.merged_with(
                NeverBan::default().with_all([entry.clone()]),
                moment("2026-03-02", 40),
            );
            all.entries().contains(&entry)
        };
        let ssh_peer = |seen_on: &str, day_since_boot| NeverBanKind::SshPeer {
            seen_on: seen_on.parse().expect("a day"),
            day_since_boot,
        };
        for fact in [
            NeverBanKind::Gateway,
            NeverBanKind::NameServer,
            NeverBanKind::OwnAddress { interface: "eth0".to_owned() },
            ssh_peer("2026-01-01", None),
            ssh_peer("2026-02-23", None),
            ssh_peer("2026-02-23", Some(33)),
            ssh_peer("2027-03-02", None),
            // Of another time namespace.
            ssh_peer("2027-03-02", Some(41)),
        ] {
            assert!(!kept(fact.clone()), "{fact}");
        }
        for said in [
            // An operator's words count as such, whatever they say.
            NeverBanKind::by_hand("this host's gateway"),
            NeverBanKind::by_hand("an SSH session on 2026-01-01"),
            NeverBanKind::Policy,
            ssh_peer("2026-03-01", None),
            ssh_peer("2026-03-01", Some(39)),
            ssh_peer("2026-02-24", Some(34)),
            // The clock was set back by a day or a year, or set forward.
            ssh_peer("2026-03-03", None),
            ssh_peer("2026-03-03", Some(40)),
            ssh_peer("2027-03-02", Some(40)),
            ssh_peer("1970-01-01", Some(40)),
            // Of another time namespace.
            ssh_peer("2026-03-02", Some(9_000)),
            ssh_peer("2026-03-02", Some(0)),
        ] {
            assert!(kept(said.clone()), "{said}");
        }
    }

    #[test]
    fn a_prefix_around_an_entry_and_an_address_within_one_are_refused_by_name() {
        let never_ban = NeverBan::default()
            .with(network("192.0.2.10"), NeverBanKind::by_hand("the operator"))
            .with(network("192.0.2.0/28"), NeverBanKind::by_hand("the office"))
            .with(network("2001:db8::5"), NeverBanKind::Gateway);
        let refused = admit(&never_ban, "192.0.2.0/24").expect_err("contains both");
        assert!(refused.contains("192.0.2.0/28 (the office)"), "the widest: {refused}");
        assert!(admit(&never_ban, "192.0.2.3").expect_err("inside").contains("the office"));
        let own_64 = admit(&never_ban, "2001:db8::77").expect_err("its /64");
        assert!(own_64.contains("this host's gateway"), "{own_64}");
        for allowed in ["192.0.2.16", "192.0.1.255", "2001:db8::77/128", "2001:db8:0:1::/64"] {
            assert_eq!(admit(&never_ban, allowed), Ok(()), "{allowed}");
        }
    }

    #[test]
    fn what_may_be_banned_is_taken_out_of_networks_behind_this_host_alone() {
        let behind = |interface: &str| NeverBanKind::Behind { interface: interface.to_owned() };
        let never_ban = NeverBan::default()
            .with(network("10.8.0.0/24"), behind("wg0"))
            .with(network("10.8.0.1"), NeverBanKind::OwnAddress { interface: "wg0".to_owned() })
            .with(network("fd00:8::/64"), behind("wg0"))
            .with_may_ban(&["10.8.0.0/25", "10.8.0.200/32", "fd00::/16"].map(network));
        let refused = |all: &NeverBan, text: &str| admit(all, text).is_err();
        for (text, is_refused) in [
            ("10.8.0.1", true),
            ("10.8.0.2", false),
            ("10.8.0.128", true),
            ("10.8.0.200", false),
            ("10.8.0.201", true),
            ("10.8.0.192/26", true),
            ("fd00:8::/64", false),
        ] {
            assert_eq!(refused(&never_ban, text), is_refused, "{text}");
        }
        // What was taken out comes back whole.
        let again = never_ban.clone().with_may_ban(&[]);
        assert!(refused(&again, "10.8.0.2") && refused(&again, "fd00:8::7"));
        assert_eq!(again.entries().len(), 5, "with loopback: {:?}", again.entries());
        // An operator's word about the very same network goes before the policy's.
        let said = never_ban.with(network("10.8.0.0/24"), NeverBanKind::by_hand("the backup"));
        assert!(admit(&said, "10.8.0.2").expect_err("refused").contains("the backup"));
    }
}
