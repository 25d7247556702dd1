//! What to do about bans, planned from what the kernel holds. Pure: no socket, no clock.

use std::cmp::Ordering;
use std::collections::{BTreeMap, BTreeSet};
use std::ptr;
use std::time::Duration;

use nfguard_netlink::{Element, ElementOptions, Elements, Key, Op, Transaction, diff};

use crate::ban::{ActiveBan, Ban, BanOutcome, outlasts};
use crate::comment::{self, Sharing};
use crate::element::{self, timeout};
use crate::error::Error;
use crate::layout::{self, BanSet, Place, SetKey, TABLE};
use crate::never_ban::NeverBan;
use crate::never_sets;
use crate::table_state::TableState;
use crate::target::Target;

/// Difference between two ends that are the same.
const END_TOLERANCE: Duration = Duration::from_secs(1);
/// How long it is known that the operator ended a ban of a source.
const ENDED_RETENTION: Duration = Duration::from_secs(30 * 24 * 3600);

/// Plans to complete the table: to make it if it is absent, with the sets, and with the rules and
/// the elements that a never-ban list asks for. Returns the sets of bans that the table then has.
///
/// # Errors
/// [`Error::TooManyEntries`].
pub(crate) fn complete(
    state: &TableState,
    sets: &BTreeSet<BanSet>,
    never_ban: &NeverBan,
) -> Result<(Transaction, BTreeSet<BanSet>), Error> {
    let mut transaction = match state.exists {
        true => Transaction::new(TABLE),
        false => diff(None, &layout::empty_table()),
    };
    let mut layout = state.layout();
    let filled = never_sets::filled_sets(never_ban);
    layout.never_ban = never_sets::checks(&filled);
    for set in filled {
        let entries = set.elements.len();
        if let Some(size) = set.size.filter(|size| count(entries) > u64::from(*size)) {
            return Err(Error::TooManyEntries { entries, size });
        }
        if state.never_set(&set.name).is_none_or(|held| held.elements != set.elements) {
            transaction.ops.push(Op::AddSet(set.clone()));
            transaction.ops.push(Op::FlushElements(set.name.clone()));
            transaction.ops.push(Op::AddElements { set: set.name, elements: set.elements });
        }
    }
    for set in sets {
        if layout.sets.insert(*set) {
            transaction.ops.push(Op::AddSet(set.set()));
        }
    }
    transaction.ops.extend(state.rewritten(&layout));
    Ok((transaction, layout.sets))
}

/// Plans to add bans, which the kernel refuses if one is in force. Returns the sets that they need.
pub(crate) fn create(part: &[Ban<'_>], now: u64) -> (BTreeSet<BanSet>, Transaction) {
    let mut by_set: Vec<(BanSet, Elements)> = Vec::new();
    // Most lists have one end and one reason for all.
    let mut last: Option<(&Ban<'_>, ElementOptions)> = None;
    let mut key = Vec::new();
    for ban in part {
        let attached = match last.take() {
            Some((other, attached)) if are_alike(other, ban) => attached,
            _ => {
                ElementOptions::new(Some(timeout(ban.duration)), Some(&element::comment(ban, now)))
            }
        };
        let target = ban.target.target();
        key.clear();
        layout::push_key(&mut key, target, ban.port);
        let set = BanSet::of(target, ban.port);
        // Few sets, and mostly the same one again.
        match by_set.iter_mut().rev().find(|(other, _)| *other == set) {
            Some((_, elements)) => elements.push(&key, &attached),
            None => {
                let mut elements = Elements::default();
                elements.push(&key, &attached);
                by_set.push((set, elements));
            }
        }
        last = Some((ban, attached));
    }
    let sets = by_set.iter().map(|(set, _)| *set).collect();
    let ops = by_set
        .into_iter()
        .map(|(set, elements)| Op::CreateElements { set: set.name(), elements })
        .collect();
    (sets, Transaction { table: TABLE.to_owned(), ops })
}

/// Adds a ban to the bans in force of the same target and port. Of two of one source, the one that
/// ends later counts.
pub(crate) fn add(owners: &mut Vec<ActiveBan>, ban: ActiveBan) -> BanOutcome {
    match owners.iter_mut().find(|other| other.source == ban.source) {
        None => {
            owners.push(ban);
            BanOutcome::Added
        }
        Some(own) if outlasts(ban.expires_in, own.expires_in) => {
            *own = ban;
            BanOutcome::Extended
        }
        Some(_) => BanOutcome::Kept,
    }
}

/// Makes a ban the one of its source, also if it ends earlier.
pub(crate) fn put(owners: &mut Vec<ActiveBan>, ban: ActiveBan) -> BanOutcome {
    let Some(own) = owners.iter_mut().find(|other| other.source == ban.source) else {
        owners.push(ban);
        return BanOutcome::Added;
    };
    if !is_same_end(own.expires_in, ban.expires_in) {
        *own = ban;
        return BanOutcome::Extended;
    }
    own.reason = ban.reason;
    BanOutcome::Kept
}

/// The bans that the kernel holds of one target and port.
#[derive(Clone, Debug, Default)]
pub(crate) struct Owners {
    /// Those in force, the one that drops first.
    pub(crate) bans: Vec<ActiveBan>,
    /// How many elements lie in the set of owners behind those in force: they are left of a ban that
    /// was removed by hand.
    pub(crate) stale: usize,
    pub(crate) sharing: Option<Sharing>,
}

/// Plans to make these the owners of a target, in the place of those that are held there. Nothing is
/// added twice or updated: before Linux 6.12 to add what is present leaves it as it is, and no
/// kernel changes a comment. What is removed comes first, so that a listener hears of an owner that
/// changes its place last that it is there.
pub(crate) fn rewrite(
    key: &SetKey,
    held: &Owners,
    mut wanted: Vec<ActiveBan>,
    now: u64,
) -> Vec<Op> {
    sort(&mut wanted);
    let (mut ops, mut additions) = (Vec::new(), Vec::new());
    let sharing = if wanted.len() > 1 { Sharing::Shared } else { Sharing::Alone };
    let is_marked = sharing == Sharing::Alone || held.sharing == Some(Sharing::Shared);
    let present = held.bans.len() + held.stale;
    for rank in 0..present.max(wanted.len()) {
        let (is_present, wanted) = (rank < present, wanted.get(rank));
        let is_same = held.bans.get(rank) == wanted && rank < held.bans.len();
        let Ok(number) = u16::try_from(rank) else { break };
        if is_same && (rank > 0 || is_marked) {
            continue;
        }
        let place = Place { rank: number, key: key.clone() };
        let set = place.set_name();
        let delete = Op::DeleteElements { set: set.clone(), keys: vec![place.element_key()] };
        if is_present {
            ops.push(delete.clone());
        }
        let Some(wanted) = wanted else { continue };
        let sharing = if rank == 0 { sharing } else { Sharing::Alone };
        let elements = vec![element::of_active_ban(&place, wanted, sharing, now)];
        let add = Op::AddElements { set, elements };
        // Two that end at one moment may end the wrong way round, and leave the later rank.
        if !is_present && rank > 0 {
            additions.extend([add.clone(), delete]);
        }
        additions.push(add);
    }
    ops.extend(additions);
    ops
}

/// Sorts the bans of a target, later ends first.
pub(crate) fn sort(owners: &mut [ActiveBan]) {
    owners.sort_by(|a, b| match (a.expires_in, b.expires_in) {
        (a, b) if outlasts(a, b) => Ordering::Less,
        (a, b) if outlasts(b, a) => Ordering::Greater,
        _ => Ordering::Equal,
    });
}

/// Plans to note that the operator ended bans of these sources.
pub(crate) fn note_ended(sources: &[&str]) -> Vec<Op> {
    let mut ops = Vec::new();
    for source in sources {
        let key = ended_key(source);
        let elements = vec![Element {
            key: Key::Value(key.clone()),
            timeout: Some(ENDED_RETENTION),
            comment: Some((*source).to_owned()),
        }];
        let add = Op::AddElements { set: layout::ENDED.to_owned(), elements };
        let delete = Op::DeleteElements { set: layout::ENDED.to_owned(), keys: vec![key] };
        ops.extend([add.clone(), delete, add]);
    }
    ops
}

/// Returns the key of a source in the set of sources that had a ban ended.
pub(crate) fn ended_key(source: &str) -> Vec<u8> {
    let mut key = vec![0; 8];
    key.extend(comment::digest(source).to_be_bytes());
    key
}

/// Returns the bans of each target and port, of each source the one that ends last.
pub(crate) fn longest<'a>(bans: impl Iterator<Item = Ban<'a>>) -> BTreeMap<SetKey, Vec<Ban<'a>>> {
    let mut longest: BTreeMap<SetKey, Vec<Ban<'a>>> = BTreeMap::new();
    for ban in bans {
        let of_target = longest.entry(SetKey::of(ban.target.target(), ban.port)).or_default();
        match of_target.iter_mut().find(|other| is_same_source(other.source, ban.source)) {
            None => of_target.push(ban),
            Some(own) if outlasts(ban.duration, own.duration) => *own = ban,
            Some(_) => {}
        }
    }
    longest
}

fn is_same_source(a: &str, b: &str) -> bool {
    ptr::eq(a, b) || comment::source_name(a) == comment::source_name(b)
}

/// Tells whether two ends are the same: the kernel counts in steps of up to ten milliseconds, and
/// what is said twice is said at two moments.
fn is_same_end(a: Option<Duration>, b: Option<Duration>) -> bool {
    match (a, b) {
        (None, None) => true,
        (Some(a), Some(b)) => a.abs_diff(b) < END_TOLERANCE,
        _ => false,
    }
}

/// Returns the most bytes that a ban takes in a transaction.
pub(crate) fn encoded_len(ban: &Ban<'_>) -> usize {
    let key = if Target::network(ban.target.target()).is_ipv4() { 4 } else { 16 };
    let port = if ban.port.is_some() { 8 } else { 0 };
    44 + key + port + comment::encoded_len(ban.source, ban.reason)
}

/// Tells whether two bans differ in nothing but their targets and ports.
fn are_alike(a: &Ban<'_>, b: &Ban<'_>) -> bool {
    // Mostly it is the very same text.
    let is_same = |a: &str, b: &str| ptr::eq(a, b) || a == b;
    a.duration == b.duration
        && a.created_at == b.created_at
        && is_same(a.source, b.source)
        && is_same(a.reason, b.reason)
}

pub(crate) fn count(number: usize) -> u64 {
    u64::try_from(number).unwrap_or(u64::MAX)
}
