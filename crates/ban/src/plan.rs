//! What to do about bans, planned from what the kernel holds. Pure: no socket, no clock.

use std::collections::{BTreeMap, BTreeSet};
use std::ptr;

use nfguard_netlink::{Element, ElementOptions, Elements, Op, Transaction, diff};

use crate::ban::{ActiveBan, Ban, BanOutcome, outlasts};
use crate::comment;
use crate::element::{self, timeout};
use crate::error::Error;
use crate::layout::{self, BanSet, SetKey, TABLE};
use crate::never_ban::NeverBan;
use crate::never_sets;
use crate::table_state::TableState;
use crate::target::Target;

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

/// Plans what a ban does to the ban in force of the same target and port.
pub(crate) fn change(
    key: &SetKey,
    ban: &Ban<'_>,
    held: Option<&ActiveBan>,
    now: u64,
) -> (Vec<Op>, BanOutcome) {
    match held {
        None => {
            let elements = vec![element::of_ban(key, ban, now)];
            (vec![Op::AddElements { set: key.set.name(), elements }], BanOutcome::Added)
        }
        Some(held) if outlasts(ban.duration, held.expires_in) => {
            (replace(key, element::of_ban(key, ban, now)), BanOutcome::Extended)
        }
        Some(_) => (Vec::new(), BanOutcome::Kept),
    }
}

/// Plans to put an element in the place of one that may be present. Before Linux 6.12 adding alone
/// leaves the old element as it is, and no kernel changes a comment. The first addition makes sure
/// that there is an element to delete: the old one may expire until then.
pub(crate) fn replace(key: &SetKey, element: Element) -> Vec<Op> {
    let add = Op::AddElements { set: key.set.name(), elements: vec![element] };
    vec![add.clone(), delete(key), add]
}

/// Plans to end a ban.
pub(crate) fn delete(key: &SetKey) -> Op {
    Op::DeleteElements { set: key.set.name(), keys: vec![key.key.clone()] }
}

/// Returns of each target and port the ban that ends last.
pub(crate) fn longest<'a>(bans: impl Iterator<Item = Ban<'a>>) -> BTreeMap<SetKey, Ban<'a>> {
    let mut longest: BTreeMap<SetKey, Ban<'a>> = BTreeMap::new();
    for ban in bans {
        let key = SetKey::of(ban.target.target(), ban.port);
        let known = longest.get(&key).map(|known| known.duration);
        if known.is_none_or(|known| outlasts(ban.duration, known)) {
            longest.insert(key, ban);
        }
    }
    longest
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
