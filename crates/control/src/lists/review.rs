//! Whether a list may be put in: what it would shut out, as a whole.
//!
//! A list is the word of someone else. One wrong line of it, or half of it, must not shut everyone out
//! or let everyone in. So a list that does what no list should is refused, unless its operator insists.

use std::collections::BTreeSet;
use std::io;
use std::net::IpAddr;

use nfguard_ban::nfguard_netlink::IpVersion;
use nfguard_ban::{ActiveFeed, Addresses, CleanFeed, Feed, NeverBan};
use nfguard_host::tcp_connections;

use super::Summary;

/// The widest entry: a /8 of IPv4, a /16 of IPv6. The widest ones of published lists are narrower.
const WIDEST_V4: u128 = 1 << 24;
const WIDEST_V6: u128 = 1 << 112;
/// The largest share of the addresses that are not reserved, in percent. The largest country but one
/// has some 9 percent of IPv4.
const MAX_PERCENT: f64 = 10.0;
/// The smallest part of the version before, in percent.
const MIN_PERCENT_OF_BEFORE: u64 = 50;
/// A version before of fewer ranges may shrink as it likes.
const MIN_RANGES_BEFORE: u64 = 10;
/// A version of as many times the IPv4 addresses of the one before, and of this share, has grown too
/// much.
const MAX_GROWTH: u64 = 10;
const GROWTH_PERCENT: f64 = 0.5;
/// The fewest connected peers that count, if they are half of all.
const MIN_PEERS: usize = 4;

/// What is banned one by one is judged above these numbers of addresses: a /24 of IPv4 or a /48 of IPv6
/// has one owner, and more may have several.
const NARROW_V4: u128 = 1 << 8;
const NARROW_V6: u128 = 1 << 80;

/// What becomes of a list.
#[derive(Clone, Copy, Debug)]
pub enum ListUse<'a> {
    /// It becomes a feed, in place of the version before if there is one. It has to have addresses
    /// that may be dropped.
    Feed {
        /// The version before.
        before: Option<&'a ActiveFeed>,
    },
    /// Its entries become bans.
    Bans,
}

/// Returns the peers of the open connections of this host.
///
/// # Errors
/// The kernel does not tell.
pub fn connected_peers() -> io::Result<BTreeSet<IpAddr>> {
    let peers = tcp_connections()?.into_iter().map(|it| it.peer.ip().to_canonical());
    Ok(peers.filter(|peer| !peer.is_loopback() && !peer.is_unspecified()).collect())
}

/// Tells whether a ban of these addresses alone is judged as a list is, because they are many.
#[must_use]
pub fn is_judged(addresses: Addresses) -> bool {
    match addresses.ends() {
        (IpAddr::V4(first), IpAddr::V4(last)) => {
            u128::from(last.to_bits() - first.to_bits()) >= NARROW_V4
        }
        (IpAddr::V6(first), IpAddr::V6(last)) => last.to_bits() - first.to_bits() >= NARROW_V6,
        _ => false,
    }
}

/// Returns why all of these should not be banned together; empty if nothing speaks against it, or none
/// of them [is judged](is_judged). Those that the never-ban list refuses do not count.
///
/// # Errors
/// As [`connected_peers`].
pub fn objections_to(
    all: impl IntoIterator<Item = Addresses>,
    never_ban: &NeverBan,
) -> io::Result<Vec<String>> {
    let (mut feed, mut has_judged) = (Feed::default(), false);
    for addresses in all.into_iter().filter(|addresses| !never_ban.has_any_of(*addresses)) {
        has_judged |= is_judged(addresses);
        feed.add_addresses(addresses);
    }
    if !has_judged {
        return Ok(Vec::new());
    }
    let (list, summary, peers) = (&feed.clean(never_ban), &Summary::default(), &connected_peers()?);
    Ok(Facts { list, summary, list_use: ListUse::Bans, peers }.objections())
}

/// What a list is judged by.
#[derive(Clone, Debug)]
pub struct Facts<'a> {
    /// The list, without reserved and never-ban addresses.
    pub list: &'a CleanFeed,
    /// What was read.
    pub summary: &'a Summary,
    /// What becomes of it.
    pub list_use: ListUse<'a>,
    /// The peers of the open connections of this host.
    pub peers: &'a BTreeSet<IpAddr>,
}

impl Facts<'_> {
    /// Returns the share of the addresses of an IP version that the list shuts out, in percent.
    #[must_use]
    pub fn percent(&self, version: IpVersion) -> f64 {
        percent(self.list.addresses(version), CleanFeed::most_addresses(version))
    }

    /// Returns the connected peers that the list would shut out.
    #[must_use]
    pub fn peers_shut_out(&self) -> Vec<IpAddr> {
        self.peers.iter().copied().filter(|peer| self.list.contains(*peer)).collect()
    }

    /// Returns why the list should not be put in; empty: nothing speaks against it.
    #[must_use]
    pub fn objections(&self) -> Vec<String> {
        let mut all = Vec::new();
        let Summary { entries, bad, .. } = self.summary;
        if self.list.ranges() == 0 && matches!(self.list_use, ListUse::Feed { .. }) {
            all.push(match entries {
                0 => "the list is empty: it has no address".to_owned(),
                _ => {
                    "the list is empty: it has no address that is not private, reserved or on the \
                      never-ban list"
                        .to_owned()
                }
            });
        }
        if bad > entries {
            all.push(format!("{bad} of its {} lines cannot be read", bad + entries));
        }
        for (version, limit) in [(IpVersion::V4, WIDEST_V4), (IpVersion::V6, WIDEST_V6)] {
            if let Some(entry) = self.list.widest[version].filter(|it| it.addresses > limit) {
                all.push(format!(
                    "one entry is {}-{}: {:.1} percent of all addresses of {}",
                    entry.first,
                    entry.last,
                    percent(entry.addresses, CleanFeed::most_addresses(version)),
                    name(version)
                ));
            }
            let share = self.percent(version);
            if share > MAX_PERCENT {
                all.push(format!(
                    "it shuts out {share:.1} percent of all addresses of {}",
                    name(version)
                ));
            }
        }
        all.extend(self.difference());
        let shut_out = self.peers_shut_out();
        if shut_out.len() >= MIN_PEERS && shut_out.len() * 2 >= self.peers.len() {
            all.push(format!(
                "it shuts out {} of the {} peers that are connected now, {} among them",
                shut_out.len(),
                self.peers.len(),
                shut_out.first().map(ToString::to_string).unwrap_or_default()
            ));
        }
        all
    }

    /// Returns what is wrong with the difference to the version before.
    fn difference(&self) -> Option<String> {
        let ListUse::Feed { before: Some(before) } = self.list_use else { return None };
        let ranges = self.list.ranges();
        let addresses = u64::try_from(self.list.addresses(IpVersion::V4)).unwrap_or(u64::MAX);
        let has_shrunk = |now: u64, before: u64| {
            now.saturating_mul(100) < before.saturating_mul(MIN_PERCENT_OF_BEFORE)
        };
        // Ranges that were joined are fewer, but have as many addresses.
        let is_smaller = before.v4_addresses.is_none_or(|before| addresses < before || before == 0);
        if before.ranges >= MIN_RANGES_BEFORE
            && has_shrunk(ranges, before.ranges)
            && is_smaller
            && ranges > 0
        {
            return Some(format!(
                "it has {ranges} ranges, and the version before has {}: perhaps not all of it was received",
                before.ranges
            ));
        }
        let v4_before = before.v4_addresses.filter(|before| *before > 0)?;
        let has_grown =
            addresses / MAX_GROWTH >= v4_before && self.percent(IpVersion::V4) > GROWTH_PERCENT;
        has_grown.then(|| {
            format!("it has {addresses} IPv4 addresses, and the version before has {v4_before}")
        })
    }
}

fn name(version: IpVersion) -> &'static str {
    match version {
        IpVersion::V4 => "IPv4",
        IpVersion::V6 => "IPv6",
    }
}

#[allow(clippy::cast_precision_loss, reason = "a share needs no more digits than that")]
fn percent(part: u128, whole: u128) -> f64 {
    part as f64 / whole.max(1) as f64 * 100.0
}
