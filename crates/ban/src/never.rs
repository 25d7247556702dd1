//! Who is never banned.

use std::collections::HashSet;
use std::net::IpAddr;
use std::time::{Duration, SystemTime};

use ipnetwork::IpNetwork;

use crate::note;
use crate::target::Target;

/// Addresses that no ban may touch, and why. Loopback is always among them.
///
/// They are kept safe twice: only an [`Admitted`] target becomes an element of a set, and the
/// kernel's rules spare them even if somebody else puts one into a set.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct NeverBan {
    allies: Vec<NeverBanEntry>,
    /// Whether all facts of this host are among them.
    pub(crate) knows_host: bool,
    /// The same addresses: sorted, without overlap, IPv4 and IPv6.
    spans: [Vec<Span>; 2],
}

/// First and last address, as numbers.
pub(crate) type Span = (u128, u128);

/// Somebody who is never banned.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct NeverBanEntry {
    /// The address or prefix.
    pub network: IpNetwork,
    /// Why it is spared. Kept in the kernel, at most 127 bytes.
    pub reason: String,
}

/// The reasons that are facts of this host, which can change; the interface follows the first.
pub(crate) const ADDRESS: &str = "this host's address on ";
pub(crate) const GATEWAY: &str = "this host's gateway";
pub(crate) const NAME_SERVER: &str = "this host's name server";
/// How the reason begins of who had an SSH session; the day follows.
const SSH: &str = "an SSH session on ";
const SSH_HOLDS: Duration = Duration::from_secs(7 * 24 * 3600);

/// A target that has passed a [`NeverBan`].
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Admitted(Target);

/// A target that was refused because it is, contains or belongs to an ally.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("{target} is not banned: it would ban {ally} ({reason}), which is on the never-ban list")]
pub struct Refused {
    /// What was to be banned.
    pub target: Target,
    /// Who would have been hit.
    pub ally: Target,
    /// Why that one is on the list.
    pub reason: String,
}

impl Default for NeverBan {
    fn default() -> NeverBan {
        let spans = [Vec::new(), Vec::new()];
        let nobody = NeverBan { allies: Vec::new(), knows_host: false, spans };
        let loopback = ["127.0.0.0/8", "::1/128"].into_iter().filter_map(|text| text.parse().ok());
        nobody.and_all(loopback.map(|network| (network, "loopback".to_owned())))
    }
}

impl NeverBan {
    /// The same list with one more ally. An address alone is that address, IPv6 too.
    #[must_use]
    pub fn and(self, ally: impl Into<IpNetwork>, reason: &str) -> NeverBan {
        self.and_all([(ally.into(), reason.to_owned())])
    }

    /// The same list with more allies, each with its reason. One that is named already keeps its
    /// reason.
    #[must_use]
    pub fn and_all(mut self, allies: impl IntoIterator<Item = (IpNetwork, String)>) -> NeverBan {
        let mut known: HashSet<IpNetwork> = self.allies.iter().map(|ally| ally.network).collect();
        for (network, reason) in allies {
            let network = Target::from(network).network();
            if known.insert(network) {
                self.allies.push(NeverBanEntry { network, reason: note::clean(&reason) });
            }
        }
        self.spans = [false, true].map(|is_v6| {
            let networks = self.allies.iter().map(|ally| ally.network);
            merged(networks.filter(|network| network.is_ipv6() == is_v6).map(bounds))
        });
        self
    }

    /// The same list with the peer of an SSH session, as `SSH_CONNECTION` names it: address, port,
    /// address, port. Other programs that ban on this host spare it for a week.
    #[must_use]
    pub fn and_ssh_peer(self, connection: &str, now: SystemTime) -> NeverBan {
        // A link-local one has its interface behind it.
        let peer = connection.split([' ', '%']).next().and_then(|peer| peer.parse().ok());
        let Some(peer) = peer.map(|peer: IpAddr| peer.to_canonical()) else { return self };
        let time = humantime::format_rfc3339_seconds(now).to_string();
        let day = time.split('T').next().unwrap_or_default();
        self.and(peer, &format!("{SSH}{day}"))
    }

    /// The same list without those of whom this is true.
    pub(crate) fn without(mut self, goes: impl Fn(&NeverBanEntry) -> bool) -> NeverBan {
        self.allies.retain(|ally| !goes(ally));
        self.and_all([])
    }

    /// The same list with what others have said, as far as that still holds: who knows this host
    /// knows better what its addresses were, and an SSH session is forgotten in time.
    pub(crate) fn beside(&self, others: Vec<(IpNetwork, String)>, now: SystemTime) -> NeverBan {
        let holds = |(_, reason): &(IpNetwork, String)| match reason.strip_prefix(SSH) {
            // What is no day is the operator's own wording.
            Some(day) => humantime::parse_rfc3339_weak(&format!("{day}T00:00:00Z"))
                .map_or(true, |day| now.duration_since(day).is_ok_and(|ago| ago < SSH_HOLDS)),
            None => !(self.knows_host && is_fact(reason)),
        };
        self.clone().and_all(others.into_iter().filter(holds))
    }

    /// Lets the target pass unless it has an address in common with an ally. Takes the same time
    /// however long the list is, or nearly.
    ///
    /// # Errors
    /// Names the ally.
    pub fn admit(&self, target: Target) -> Result<Admitted, Refused> {
        if !hit(self.spans(target.network().is_ipv6()), bounds(target.network())) {
            return Ok(Admitted(target));
        }
        let ally = self.allies.iter().find(|ally| Target::from(ally.network).overlaps(target));
        ally.map_or(Ok(Admitted(target)), |ally| {
            let (ally, reason) = (ally.network.into(), ally.reason.clone());
            Err(Refused { target, ally, reason })
        })
    }

    /// Lets the source of this address pass: an IPv4 address, or the IPv6 network of `v6_prefix`
    /// bits that it belongs to. If somebody is spared in that network, it is the address alone.
    ///
    /// # Errors
    /// Names the ally.
    pub fn admit_source(&self, address: IpAddr, v6_prefix: u8) -> Result<Admitted, Refused> {
        let refused = match self.admit(Target::source(address, v6_prefix)) {
            Ok(admitted) => return Ok(admitted),
            Err(refused) => refused,
        };
        self.admit(Target::source(address, 128)).map_err(|_| refused)
    }

    pub(crate) fn spans(&self, is_v6: bool) -> &[Span] {
        let [v4, v6] = &self.spans;
        if is_v6 { v6 } else { v4 }
    }

    /// Everybody on the list, in the order in which they came.
    #[must_use]
    pub fn entries(&self) -> &[NeverBanEntry] {
        &self.allies
    }
}

impl Admitted {
    /// What was admitted.
    #[must_use]
    pub fn target(self) -> Target {
        self.0
    }
}

fn is_fact(reason: &str) -> bool {
    reason.starts_with(ADDRESS) || [GATEWAY, NAME_SERVER].contains(&reason)
}

pub(crate) fn bounds(network: IpNetwork) -> Span {
    (number(network.network()), number(network.broadcast()))
}

pub(crate) fn number(address: IpAddr) -> u128 {
    match address {
        IpAddr::V4(address) => u128::from(address.to_bits()),
        IpAddr::V6(address) => address.to_bits(),
    }
}

/// Sorted, with what overlaps or adjoins put together.
pub(crate) fn merged(spans: impl Iterator<Item = Span>) -> Vec<Span> {
    let mut all: Vec<Span> = spans.collect();
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

/// Whether a span has an address in common with one of these, which are merged.
pub(crate) fn hit(spans: &[Span], (first, last): Span) -> bool {
    let next = spans.partition_point(|(_, end)| *end < first);
    spans.get(next).is_some_and(|(start, _)| *start <= last)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn admit(never: &NeverBan, text: &str) -> Result<(), String> {
        let target = text.parse().expect("a target");
        never.admit(target).map(|_| ()).map_err(|refused| refused.to_string())
    }

    #[test]
    fn facts_of_the_host_change_and_what_the_operator_says_stays() {
        let this_host = NeverBan { knows_host: true, ..NeverBan::default() };
        let kept = |reason: &str| {
            let ally: IpNetwork = "192.0.2.1".parse().expect("a network");
            let today = humantime::parse_rfc3339_weak("2026-03-02 00:00:00").expect("a time");
            let all = this_host.beside(vec![(ally, reason.to_owned())], today);
            all.entries().iter().any(|other| other.network == ally)
        };
        for fact in
            ["this host's gateway", "this host's address on eth0", "an SSH session on 2026-01-01"]
        {
            assert!(!kept(fact), "{fact}");
        }
        for said in
            ["this host's backup", "an SSH session on the bastion", "an SSH session on 2026-03-01"]
        {
            assert!(kept(said), "{said}");
        }
    }

    #[test]
    fn a_prefix_that_contains_an_ally_and_an_address_in_one_are_refused_by_name() {
        let network = |text: &str| text.parse::<IpNetwork>().expect("a network");
        let never = NeverBan::default()
            .and(network("192.0.2.10"), "the operator")
            .and(network("192.0.2.0/28"), "the office")
            .and(network("2001:db8::5"), "the gateway");
        let refused = admit(&never, "192.0.2.0/24").expect_err("contains both");
        assert!(refused.contains("192.0.2.10 (the operator)"), "{refused}");
        assert!(admit(&never, "192.0.2.3").expect_err("inside").contains("the office"));
        assert!(admit(&never, "2001:db8::77").expect_err("its /64").contains("the gateway"));
        for allowed in ["192.0.2.16", "192.0.1.255", "2001:db8::77/128", "2001:db8:0:1::/64"] {
            assert_eq!(admit(&never, allowed), Ok(()), "{allowed}");
        }
    }
}
