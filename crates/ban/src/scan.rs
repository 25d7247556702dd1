//! Whom the kernel itself has banned, by the rules of a policy that looks for scans.
//!
//! A rule can add only to a set of its own table. So these bans lie in the policy's, `inet nfguard`,
//! and not in [`TABLE`](crate::TABLE); to whoever lists or ends bans they are bans like any others.

use std::collections::{BTreeMap, BTreeSet};
use std::net::IpAddr;
use std::time::Duration;

use ipnetwork::IpNetwork;
use nfguard_netlink::{Key, LiveElement, Nft, Op, Set, Transaction, protocol};

use crate::bans::{ActiveBan, Bans, now};
use crate::error::{Error, errno, is_refusal, refused};
use crate::layout::{FAMILIES, address, feed_element, push_address};
use crate::never::NeverBan;
use crate::note;
use crate::target::Target;

/// The policy's table.
pub const TABLE: &str = "nfguard";

/// The source of these bans.
pub const SOURCE: &str = "scan";

/// How often it is tried when others change the ruleset meanwhile.
const ATTEMPTS: usize = 100;

/// A set of the policy's table: what it holds of one family.
#[must_use]
pub fn set(what: &str, is_v6: bool) -> String {
    format!("scan/{what}/{}", if is_v6 { "v6" } else { "v4" })
}

impl Bans {
    /// Those alone that the kernel itself has banned, for a scan. None if no such policy is loaded.
    ///
    /// # Errors
    /// The kernel's refusal.
    pub fn scans(&mut self) -> Result<Vec<ActiveBan>, Error> {
        list(&mut self.kernel)
    }

    /// Tells the kernel once more who is never banned. Facts of the host are those of when this was
    /// opened.
    ///
    /// # Errors
    /// The kernel's refusal.
    pub fn tell_never(&mut self) -> Result<(), Error> {
        self.prepare(&BTreeSet::new())
    }

    /// How many those are. One whose time is just over may still be counted.
    ///
    /// # Errors
    /// The kernel's refusal.
    pub fn count_scans(&mut self) -> Result<u64, Error> {
        let mut all = 0;
        for is_v6 in FAMILIES {
            all += self.kernel.count(TABLE, &set("banned", is_v6))?;
        }
        Ok(all)
    }
}

fn list(kernel: &mut Nft) -> Result<Vec<ActiveBan>, Error> {
    let mut all = Vec::new();
    let sets = kernel.readable_sets(TABLE)?;
    for is_v6 in FAMILIES {
        if find(&sets, "banned", is_v6).is_none() {
            continue;
        }
        let mut read = |what| kernel.live_elements(TABLE, &set(what, is_v6));
        let banned = read("banned")?;
        if banned.is_empty() {
            continue;
        }
        let flagged: BTreeSet<Vec<u8>> = read("flags")?.iter().filter_map(key).collect();
        let ports = ports(read("seen")?, is_v6);
        let (most, within) = measure(&sets, is_v6);
        for element in &banned {
            let Some(key) = key(element) else { continue };
            let Some(target) = target(&key) else { continue };
            let mut reason = if flagged.contains(&key) {
                "illegal TCP flags".to_owned()
            } else {
                format!("{most} closed ports in {} s", within.as_secs())
            };
            if let Some(ports) = ports.get(&key) {
                reason.push_str(": ");
                reason.push_str(&ports.join(" "));
            }
            let lasted = element.element.timeout.zip(element.expires_in);
            let lasted = lasted.map_or(0, |(whole, left)| whole.saturating_sub(left).as_secs());
            all.push(ActiveBan {
                target,
                port: None,
                expires_in: element.expires_in,
                source: SOURCE.to_owned(),
                reason: note::clean(&reason),
                since: Some(now().saturating_sub(lasted)),
            });
        }
    }
    Ok(all)
}

/// Ends the ban of exactly this target; `false` if there is none. What was held against it is
/// forgotten, that it was banned before too.
///
/// # Errors
/// The kernel's refusal, see [`is_owned`].
pub fn unban(kernel: &mut Nft, target: Target) -> Result<bool, Error> {
    let network = target.network();
    let (is_v6, is_source) = match network {
        IpNetwork::V4(network) => (false, network.prefix() == 32),
        IpNetwork::V6(network) => (true, network.prefix() == Target::V6_SOURCE),
    };
    if !is_source {
        return Ok(false);
    }
    let mut key = Vec::new();
    push_address(&mut key, network.network());
    for _ in 0..ATTEMPTS {
        let mut has =
            |what| Ok::<_, Error>(kernel.element(TABLE, &set(what, is_v6), &key)?.is_some());
        let (is_banned, was_banned) = (has("banned")?, has("again")?);
        if !is_banned && !was_banned {
            return Ok(false);
        }
        let mut transaction = Transaction::new(TABLE);
        for name in noted(&kernel.readable_sets(TABLE)?, is_v6) {
            if kernel.element(TABLE, &name, &key)?.is_some() {
                transaction.ops.push(Op::DeleteElements { set: name, keys: vec![key.clone()] });
            }
        }
        match kernel.commit(&transaction, None) {
            // One of them expired meanwhile.
            outcome if refused(&outcome, errno::ENOENT) => {}
            outcome => return Ok(outcome.map(|()| is_banned)?),
        }
    }
    Err(nfguard_netlink::Error::Interrupted.into())
}

/// Whether this is how the kernel refuses to change a table that another process owns.
#[must_use]
pub fn is_owned(error: &nfguard_netlink::Error) -> bool {
    is_refusal(error, errno::EPERM)
}

/// Tells the policy's table whom to spare.
///
/// # Errors
/// As [`unban`].
pub fn spare(kernel: &mut Nft, never: &NeverBan) -> Result<(), Error> {
    for _ in 0..ATTEMPTS {
        let generation = kernel.generation()?;
        let sets = kernel.readable_sets(TABLE)?;
        let mut transaction = Transaction::new(TABLE);
        for is_v6 in FAMILIES {
            let Some(set) = find(&sets, "never", is_v6) else { continue };
            let spans = never.spans(is_v6).iter();
            let elements: Vec<_> = spans.map(|span| feed_element(is_v6, *span)).collect();
            if kernel.elements(TABLE, set)? != elements {
                let set = set.name.clone();
                transaction.ops.push(Op::FlushElements(set.clone()));
                transaction.ops.push(Op::AddElements { set, elements });
            }
        }
        if transaction.is_empty() {
            return Ok(());
        }
        match kernel.commit(&transaction, Some(generation)) {
            Err(nfguard_netlink::Error::Interrupted) => {}
            outcome => return Ok(outcome?),
        }
    }
    Err(nfguard_netlink::Error::Interrupted.into())
}

fn find<'s>(sets: &'s [Set], what: &str, is_v6: bool) -> Option<&'s Set> {
    let name = set(what, is_v6);
    sets.iter().find(|set| set.name == name)
}

/// The sets that hold something against a source: all but those of ports and of those who are
/// spared.
fn noted(sets: &[Set], is_v6: bool) -> Vec<String> {
    let others = ["paused", "seen", "known", "never"].map(|what| set(what, is_v6));
    let suffix = set("", is_v6).replacen("scan/", "", 1);
    let names = sets.iter().map(|set| &set.name).filter(|name| {
        name.starts_with("scan/") && name.ends_with(&suffix) && !others.contains(name)
    });
    names.cloned().collect()
}

/// How many closed ports are a scan, and within what time: for each but the last there is a set.
fn measure(sets: &[Set], is_v6: bool) -> (usize, Duration) {
    let slots = (1..).map_while(|slot: usize| find(sets, &slot.to_string(), is_v6));
    let within = slots.clone().next().and_then(|set| set.timeout).unwrap_or_default();
    (slots.count() + 1, within)
}

/// The closed ports that each source has tried, as far as they are still remembered.
fn ports(seen: Vec<LiveElement>, is_v6: bool) -> BTreeMap<Vec<u8>, Vec<String>> {
    let width = if is_v6 { 16 } else { 4 };
    let mut ports: BTreeMap<Vec<u8>, BTreeSet<(u8, u16)>> = BTreeMap::new();
    for key in seen.iter().filter_map(key) {
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
    let address = address(key)?;
    let bits = match address {
        IpAddr::V4(_) => 32,
        IpAddr::V6(_) => Target::V6_SOURCE,
    };
    Some(IpNetwork::new(address, bits).ok()?.into())
}
