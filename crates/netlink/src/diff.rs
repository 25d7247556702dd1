//! From what the kernel holds to what is meant, in one transaction.

use crate::model::{Counter, Set, Table};
use crate::transaction::{Op, Transaction};

/// What turns `current` into `desired`; empty if they are the same.
///
/// Rules are all put anew. Counters and dynamic sets whose definition is the same are not touched,
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

    ops.push(Op::AddTable { comment: desired.comment.clone() });
    if current.is_some() {
        ops.push(Op::FlushRules);
    }
    // A chain's head cannot be compared piece by piece in the kernel, so one that differs goes.
    let chain_stays = |name: &str| match (old.chain(name), desired.chain(name)) {
        (Some(old), Some(new)) => old.base == new.base && old.comment == new.comment,
        _ => false,
    };
    let set_stays = |name: &str| match (old.set(name), desired.set(name)) {
        (Some(old), Some(new)) => same_set(old, new),
        _ => false,
    };
    let counter_stays =
        |counter: &Counter| old.counters.contains(counter) && desired.counters.contains(counter);

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
        let head = crate::model::Chain { rules: Vec::new(), ..chain.clone() };
        ops.push(Op::AddChain(head));
    }
    for chain in &desired.chains {
        let rules = chain.rules.iter().cloned();
        ops.extend(rules.map(|rule| Op::AddRule { chain: chain.name.clone(), rule }));
    }
    transaction
}

fn same_set(old: &Set, new: &Set) -> bool {
    let one = |set: &Set| Table { sets: vec![set.clone()], ..Table::default() }.normalized();
    one(old) == one(new)
}
