//! Bans that the kernel makes by itself, by the rules of a policy that looks for scans.
//!
//! A rule can add only to a set of its own table. So these bans lie in the policy's table,
//! `inet nfguard`, and not in [`TABLE`](crate::TABLE). Lists and
//! changes of bans make no difference.

use std::collections::{BTreeMap, BTreeSet};
use std::net::IpAddr;
use std::time::Duration;

use ipnetwork::IpNetwork;
use nfguard_netlink::{IpVersion, Key, LiveElement, Nft, Op, Set, Transaction, protocol};

use crate::address::{address_from, push_address};
use crate::ban::ActiveBan;
use crate::comment;
use crate::error::{Error, errno, is_refusal, is_refused_with};
use crate::layout::range_element;
use crate::never_ban::NeverBan;
use crate::target::Target;

/// The policy's table.
pub const TABLE: &str = "nfguard";

/// The source of these bans.
pub const SOURCE: &str = "scan";

/// How often a change starts again because others changed the ruleset meanwhile.
const MAX_ATTEMPTS: usize = 100;

/// The sets of banned sources, of those that are remembered for having been banned, of sources that
/// sent illegal TCP flags, and of closed ports that were tried.
const BANNED: &str = "banned";
const BANNED_BEFORE: &str = "again";
const ILLEGAL_FLAGS: &str = "flags";
const TRIED_PORTS: &str = "seen";
/// The set of never-ban entries.
const NEVER: &str = "never";

/// Returns the name of a set of the policy's table: what it holds, of one IP version.
#[must_use]
pub fn set(what: &str, version: IpVersion) -> String {
    format!("scan/{what}/{}", version.suffix())
}

/// Lists these bans.
pub(crate) fn list(nft: &mut Nft, now: u64) -> Result<Vec<ActiveBan>, Error> {
    let mut all = Vec::new();
    let sets = nft.readable_sets(TABLE)?;
    for version in IpVersion::ALL {
        if find(&sets, BANNED, version).is_none() {
            continue;
        }
        let mut read = |what| nft.live_elements(TABLE, &set(what, version));
        let banned = read(BANNED)?;
        if banned.is_empty() {
            continue;
        }
        let flagged: BTreeSet<Vec<u8>> = read(ILLEGAL_FLAGS)?.iter().filter_map(key).collect();
        let ports = ports(read(TRIED_PORTS)?, version);
        let (threshold, window) = threshold(&sets, version);
        for element in &banned {
            let Some(key) = key(element) else { continue };
            let Some(target) = target(&key) else { continue };
            let mut reason = if flagged.contains(&key) {
                "illegal TCP flags".to_owned()
            } else {
                format!("{threshold} closed ports in {} s", window.as_secs())
            };
            if let Some(ports) = ports.get(&key) {
                reason.push_str(": ");
                reason.push_str(&ports.join(" "));
            }
            let age = element.element.timeout.zip(element.expires_in);
            let age = age.map_or(0, |(whole, left)| whole.saturating_sub(left).as_secs());
            all.push(ActiveBan {
                target,
                port: None,
                expires_in: element.expires_in,
                source: SOURCE.to_owned(),
                reason: comment::clean(&reason),
                created_at: Some(now.saturating_sub(age)),
            });
        }
    }
    Ok(all)
}

/// Counts these bans.
pub(crate) fn count(nft: &mut Nft) -> Result<u64, Error> {
    let mut all = 0;
    for version in IpVersion::ALL {
        all += nft.count(TABLE, &set(BANNED, version))?;
    }
    Ok(all)
}

/// Ends the ban of exactly this target; `false` if there is none. All that was held against the
/// target is forgotten, also that it was banned before.
///
/// # Errors
/// The kernel's refusal, see [`is_owned`].
pub fn unban(nft: &mut Nft, target: Target) -> Result<bool, Error> {
    let network = target.network();
    let (version, is_source) = match network {
        IpNetwork::V4(network) => (IpVersion::V4, network.prefix() == 32),
        IpNetwork::V6(network) => (IpVersion::V6, network.prefix() == Target::V6_SOURCE),
    };
    if !is_source {
        return Ok(false);
    }
    let mut key = Vec::new();
    push_address(&mut key, network.network());
    for _ in 0..MAX_ATTEMPTS {
        let mut has =
            |what| Ok::<_, Error>(nft.element(TABLE, &set(what, version), &key)?.is_some());
        let (is_banned, was_banned) = (has(BANNED)?, has(BANNED_BEFORE)?);
        if !is_banned && !was_banned {
            return Ok(false);
        }
        let mut transaction = Transaction::new(TABLE);
        for name in sets_about_sources(&nft.readable_sets(TABLE)?, version) {
            if nft.element(TABLE, &name, &key)?.is_some() {
                transaction.ops.push(Op::DeleteElements { set: name, keys: vec![key.clone()] });
            }
        }
        match nft.commit(&transaction, None) {
            // One of the elements expired meanwhile.
            outcome if is_refused_with(&outcome, errno::ENOENT) => {}
            outcome => return Ok(outcome.map(|()| is_banned)?),
        }
    }
    Err(nfguard_netlink::Error::Interrupted.into())
}

/// Tells whether the kernel refused to change a table because another process owns it.
#[must_use]
pub fn is_owned(error: &nfguard_netlink::Error) -> bool {
    is_refusal(error, errno::EPERM)
}

/// Writes the never-ban list into the policy's table.
///
/// # Errors
/// As [`unban`].
pub fn write_never_ban(nft: &mut Nft, never_ban: &NeverBan) -> Result<(), Error> {
    // Most hosts have no policy that looks for scans. To know that takes one request.
    let sets = nft.readable_sets(TABLE)?;
    if IpVersion::ALL.into_iter().all(|version| find(&sets, NEVER, version).is_none()) {
        return Ok(());
    }
    for _ in 0..MAX_ATTEMPTS {
        let generation = nft.generation()?;
        let sets = nft.readable_sets(TABLE)?;
        let mut transaction = Transaction::new(TABLE);
        for version in IpVersion::ALL {
            let Some(set) = find(&sets, NEVER, version) else { continue };
            let ranges = never_ban.ranges(version).iter();
            let elements: Vec<_> = ranges.map(|range| range_element(version, *range)).collect();
            if nft.elements(TABLE, set)? != elements {
                let set = set.name.clone();
                transaction.ops.push(Op::FlushElements(set.clone()));
                transaction.ops.push(Op::AddElements { set, elements });
            }
        }
        if transaction.is_empty() {
            return Ok(());
        }
        match nft.commit(&transaction, Some(generation)) {
            Err(nfguard_netlink::Error::Interrupted) => {}
            outcome => return Ok(outcome?),
        }
    }
    Err(nfguard_netlink::Error::Interrupted.into())
}

fn find<'s>(sets: &'s [Set], what: &str, version: IpVersion) -> Option<&'s Set> {
    let name = set(what, version);
    sets.iter().find(|set| set.name == name)
}

/// Returns the sets that hold something against a source: all but those of ports and of never-ban
/// entries.
fn sets_about_sources(sets: &[Set], version: IpVersion) -> Vec<String> {
    let others = ["paused", TRIED_PORTS, "known", NEVER].map(|what| set(what, version));
    let suffix = format!("/{}", version.suffix());
    let names = sets.iter().map(|set| &set.name).filter(|name| {
        name.starts_with("scan/") && name.ends_with(&suffix) && !others.contains(name)
    });
    names.cloned().collect()
}

/// Returns how many closed ports are a scan, and within what time: for each port but the last there
/// is a set.
fn threshold(sets: &[Set], version: IpVersion) -> (usize, Duration) {
    let slots = (1..).map_while(|slot: usize| find(sets, &slot.to_string(), version));
    let window = slots.clone().next().and_then(|set| set.timeout).unwrap_or_default();
    (slots.count() + 1, window)
}

/// Returns the closed ports that each source has tried, as far as they are still remembered.
fn ports(tried: Vec<LiveElement>, version: IpVersion) -> BTreeMap<Vec<u8>, Vec<String>> {
    let width = version.address_bytes();
    let mut ports: BTreeMap<Vec<u8>, BTreeSet<(u8, u16)>> = BTreeMap::new();
    for key in tried.iter().filter_map(key) {
        let Some((source, rest)) = key.split_at_checked(width) else { continue };
        let [protocol, _, _, _, high, low, ..] = rest.get(width..).unwrap_or_default() else {
            continue;
        };
        let port = (*protocol, u16::from_be_bytes([*high, *low]));
        ports.entry(source.to_vec()).or_default().insert(port);
    }
    let named = |(protocol, port): &(u8, u16)| match *protocol {
        protocol::UDP => format!("{port}/udp"),
        _ => format!("{port}/tcp"),
    };
    ports.into_iter().map(|(key, ports)| (key, ports.iter().map(named).collect())).collect()
}

fn key(live: &LiveElement) -> Option<Vec<u8>> {
    match &live.element.key {
        Key::Value(key) => Some(key.clone()),
        Key::Range(..) => None,
    }
}

fn target(key: &[u8]) -> Option<Target> {
    let address = address_from(key)?;
    let bits = match address {
        IpAddr::V4(_) => 32,
        IpAddr::V6(_) => Target::V6_SOURCE,
    };
    Some(IpNetwork::new(address, bits).ok()?.into())
}
