//! From what the kernel holds to what is meant, in one transaction.

use std::collections::HashMap;

use crate::model::{Chain, Counter, Set, Table};
use crate::transaction::{Op, Transaction};

/// What turns `current` into `desired`; empty if they are the same.
///
/// Rules are all put anew. Counters and sets with state whose definition is the same are not touched,
/// so they keep what they have counted and remembered. A base chain must keep its hook and
/// priority, or packets that pass while the transaction is committed see neither of the two.
#[must_use]
pub fn diff(current: Option<&Table>, desired: &Table) -> Transaction {
    let mut transaction = Transaction::new(&desired.name);
    if current.is_some_and(|current| current.clone().normalized() == desired.clone().normalized()) {
        return transaction;
    }
    let empty = Table::default();
    let old = current.unwrap_or(&empty);
    let ops = &mut transaction.ops;

    let awake = current.is_none_or(|current| current.dormant);
    ops.push(Op::AddTable { comment: desired.comment.clone(), awake });
    if current.is_some() {
        ops.push(Op::FlushRules);
    }
    let (old_by, new_by) = (Names::of(old), Names::of(desired));
    // A chain's head cannot be compared piece by piece in the kernel, so one that differs goes.
    let chain_stays = |name: &str| match (old_by.chains.get(name), new_by.chains.get(name)) {
        (Some(old), Some(new)) => old.base == new.base && old.comment == new.comment,
        _ => false,
    };
    let set_stays = |name: &str| match (old_by.sets.get(name), new_by.sets.get(name)) {
        (Some(old), Some(new)) => same_set(old, new),
        _ => false,
    };
    let counter_stays = |counter: &Counter| {
        let name = counter.name.as_str();
        old_by.counters.get(name) == Some(&counter) && new_by.counters.get(name) == Some(&counter)
    };

    let gone = old.chains.iter().filter(|chain| !chain_stays(&chain.name));
    ops.extend(gone.map(|chain| Op::DeleteChain(chain.name.clone())));
    let gone = old.sets.iter().filter(|set| !set_stays(&set.name));
    ops.extend(gone.map(|set| Op::DeleteSet(set.name.clone())));
    let gone = old.counters.iter().filter(|counter| !counter_stays(counter));
    ops.extend(gone.map(|counter| Op::DeleteCounter(counter.name.clone())));

    let new = desired.counters.iter().filter(|counter| !counter_stays(counter));
    ops.extend(new.map(|counter| Op::AddCounter(counter.clone())));
    for set in desired.sets.iter().filter(|set| !set_stays(&set.name)) {
        ops.push(Op::AddSet(Set { elements: Vec::new(), ..set.clone() }));
        if !set.elements.is_empty() {
            ops.push(Op::AddElements { set: set.name.clone(), elements: set.elements.clone() });
        }
    }
    for chain in desired.chains.iter().filter(|chain| !chain_stays(&chain.name)) {
        let head = Chain { rules: Vec::new(), ..chain.clone() };
        ops.push(Op::AddChain(head));
    }
    for chain in &desired.chains {
        let rules = chain.rules.iter().cloned();
        ops.extend(rules.map(|rule| Op::AddRule { chain: chain.name.clone(), rule }));
    }
    transaction
}

/// What a table holds, to be found by name however much it is.
struct Names<'t> {
    chains: HashMap<&'t str, &'t Chain>,
    sets: HashMap<&'t str, &'t Set>,
    counters: HashMap<&'t str, &'t Counter>,
}

impl<'t> Names<'t> {
    fn of(table: &'t Table) -> Names<'t> {
        Names {
            chains: table.chains.iter().map(|chain| (chain.name.as_str(), chain)).collect(),
            sets: table.sets.iter().map(|set| (set.name.as_str(), set)).collect(),
            counters: table.counters.iter().map(|it| (it.name.as_str(), it)).collect(),
        }
    }
}

fn same_set(old: &Set, new: &Set) -> bool {
    let one = |set: &Set| Table { sets: vec![set.clone()], ..Table::default() }.normalized();
    one(old) == one(new)
}
