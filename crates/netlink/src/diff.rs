//! The difference of two tables, as one transaction.

use std::collections::HashMap;

use crate::model::{Chain, Counter, CtHelper, Set, Table};
use crate::transaction::{Op, Transaction};

/// Returns the transaction that turns `current` into `desired`; an empty one if they are the same.
///
/// It replaces all rules. It leaves counters, and sets with state, whose definition is the same, so
/// they keep their numbers and elements. A base chain has to keep its hook and priority: otherwise a
/// packet that passes during the commit sees neither the old nor the new chain.
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
    // The kernel cannot change a chain's properties one by one, so a chain that differs is removed.
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

    let helper_stays =
        |helper: &CtHelper| old.helpers.contains(helper) && desired.helpers.contains(helper);

    let gone = old.chains.iter().filter(|chain| !chain_stays(&chain.name));
    ops.extend(gone.map(|chain| Op::DeleteChain(chain.name.clone())));
    let gone = old.sets.iter().filter(|set| !set_stays(&set.name));
    ops.extend(gone.map(|set| Op::DeleteSet(set.name.clone())));
    let gone = old.counters.iter().filter(|counter| !counter_stays(counter));
    ops.extend(gone.map(|counter| Op::DeleteCounter(counter.name.clone())));
    let gone = old.helpers.iter().filter(|helper| !helper_stays(helper));
    ops.extend(gone.map(|helper| Op::DeleteHelper(helper.name.clone())));

    let new = desired.counters.iter().filter(|counter| !counter_stays(counter));
    ops.extend(new.map(|counter| Op::AddCounter(counter.clone())));
    let new = desired.helpers.iter().filter(|helper| !helper_stays(helper));
    ops.extend(new.map(|helper| Op::AddHelper(helper.clone())));
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

/// The objects of a table by name.
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
