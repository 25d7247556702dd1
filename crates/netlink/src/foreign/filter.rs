//! The verdict of a foreign table on a packet, as far as its rules can be read.

use super::{Family, ForeignChain, ForeignRule, ForeignTable, Nat};
use crate::eval::{Fate, Memory, Packet, PortIndex, evaluate_indexed};
use crate::model::{Base, Chain, ChainPolicy, Hook, Rule, Table};
use crate::model::{Expr, Header, MetaKey, Verdict};

/// The verdict of a base chain on a packet.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum ForeignVerdict {
    /// The packet passes.
    Passes,
    /// The packet is dropped or rejected.
    Drops {
        /// Whether that is certain. `false` if a rule that cannot be read may accept the packet.
        certain: bool,
    },
}

/// A base chain with all chains that a packet can reach from it.
///
/// A packet is evaluated twice: once as if the rules that cannot be read never matched, and once as
/// if those of them that accept packets always did.
#[derive(Clone, Debug)]
pub struct ForeignFilter {
    family: Family,
    /// The hook of the base chain.
    pub hook: Hook,
    readings: [(Table, PortIndex); 2],
}

impl ForeignFilter {
    /// Returns the verdict on this packet; `None` if the chain does not see it.
    #[must_use]
    pub fn verdict(&self, packet: &Packet) -> Option<ForeignVerdict> {
        if !self.family.sees(packet.source) {
            return None;
        }
        let drops = |(table, index): &(Table, PortIndex)| {
            let memory = &mut Memory::default();
            let decided = evaluate_indexed(table, Some(index), self.hook, packet, memory);
            decided.is_some_and(|decision| decision.fate != Fate::Accept)
        };
        // A rule that accepts more drops no more.
        let [strict, lenient] = &self.readings;
        Some(match drops(strict) {
            false => ForeignVerdict::Passes,
            true => ForeignVerdict::Drops { certain: drops(lenient) },
        })
    }
}

/// The chains of a table that rewrite source addresses. A rewriting rule stands as a drop.
#[derive(Clone, Debug)]
pub struct ForeignSourceNat {
    family: Family,
    chains: Vec<(Table, PortIndex)>,
}

impl ForeignSourceNat {
    /// Returns whether the source address of this packet is rewritten when it leaves the host.
    #[must_use]
    pub fn hides_source(&self, packet: &Packet) -> bool {
        let rewrites = |(table, index): &(Table, PortIndex)| {
            let memory = &mut Memory::default();
            let decided = evaluate_indexed(table, Some(index), Hook::Postrouting, packet, memory);
            decided.is_some_and(|decision| decision.rule.is_some() && decision.fate == Fate::Drop)
        };
        self.family.sees(packet.source) && self.chains.iter().any(rewrites)
    }
}

impl ForeignTable {
    /// Returns the filter that this chain of the table is; `None` for a chain that rewrites
    /// addresses, and for one that is no base chain.
    #[must_use]
    pub fn filter_of(&self, chain: &ForeignChain) -> Option<ForeignFilter> {
        let hook = chain.base.filter(|_| !chain.is_nat)?.hook;
        let readings = [false, true]
            .map(|optimistic| self.with_one_base(chain, &|rule| self.readable(rule, optimistic)));
        Some(ForeignFilter { family: self.family, hook, readings })
    }

    /// Returns what the table does to the source addresses of packets that leave the host.
    #[must_use]
    pub fn source_nat(&self) -> ForeignSourceNat {
        let at_postrouting = |chain: &&ForeignChain| {
            chain.is_nat && chain.base.is_some_and(|base| base.hook == Hook::Postrouting)
        };
        let rewrites = |rule: &ForeignRule| {
            let mut exprs = self.readable(rule, false)?;
            match &rule.nat {
                Some(Nat::Source) => exprs.push(Expr::Verdict(Verdict::Drop)),
                Some(Nat::Destination { .. }) => exprs.push(Expr::Verdict(Verdict::Accept)),
                None => {}
            }
            Some(exprs)
        };
        let chains = self.chains.iter().filter(at_postrouting);
        let chains = chains.map(|base| self.with_one_base(base, &rewrites)).collect();
        ForeignSourceNat { family: self.family, chains }
    }

    /// Returns the table with only one base chain and what a packet reaches from it, as a value that
    /// can be evaluated.
    fn with_one_base(
        &self,
        base: &ForeignChain,
        exprs: &dyn Fn(&ForeignRule) -> Option<Vec<Expr>>,
    ) -> (Table, PortIndex) {
        let reached = self.reached_from([base.name.as_str()]);
        let chains = self.chains.iter().filter(|chain| reached.contains(&*chain.name));
        let chains = chains.map(|chain| Chain {
            name: chain.name.clone(),
            base: chain.base.filter(|_| chain.name == base.name).map(|base| Base {
                // The policy of a nat chain applies to packets that are not rewritten.
                policy: if chain.is_nat { ChainPolicy::Accept } else { base.policy },
                ..base
            }),
            rules: chain
                .rules
                .iter()
                .filter_map(|rule| Some(Rule { exprs: exprs(rule)?, comment: None }))
                .collect(),
            comment: None,
        });
        let chains = chains.collect();
        let table = Table { chains, sets: self.sets.clone(), ..Table::default() };
        let index = PortIndex::of(&table);
        (table, index)
    }

    /// Returns the rule without the expressions that cannot be read; `None` for a rule that counts as
    /// not matching.
    fn readable(&self, rule: &ForeignRule, optimistic: bool) -> Option<Vec<Expr>> {
        let is_known = |expr: &Expr| match expr {
            Expr::Unknown { .. }
            | Expr::Payload { header: Header::Link, .. }
            | Expr::Meta {
                key:
                    MetaKey::Mark | MetaKey::Iifkind | MetaKey::Oifkind | MetaKey::Iif | MetaKey::Skuid,
                ..
            }
            | Expr::FibSaddrType { .. }
            | Expr::FibReturnPath { .. } => false,
            Expr::Lookup { set, .. } => self.sets.iter().any(|known| known.name == *set),
            _ => true,
        };
        if rule.exprs.iter().all(is_known) {
            return Some(rule.exprs.clone());
        }
        let passes = optimistic
            && match rule.exprs.iter().rev().find(|expr| is_end(expr)) {
                Some(Expr::Verdict(Verdict::Jump(chain) | Verdict::Goto(chain))) => {
                    self.may_accept(chain)
                }
                Some(Expr::Verdict(Verdict::Accept | Verdict::Return)) => true,
                Some(_) => false,
                None => rule.exprs.iter().any(is_opaque_end),
            };
        let known = rule.exprs.iter().filter(|expr| is_known(expr) && !is_end(expr)).cloned();
        passes.then(|| known.chain([Expr::Verdict(Verdict::Accept)]).collect())
    }

    /// Returns whether a rule of this chain, or of one behind it, may accept a packet.
    fn may_accept(&self, chain: &str) -> bool {
        let chains = self.reached_from([chain]);
        let chains = self.chains.iter().filter(|chain| chains.contains(&*chain.name));
        let mut exprs = chains.flat_map(|chain| &chain.rules).flat_map(|rule| &rule.exprs);
        exprs.any(|expr| *expr == Expr::Verdict(Verdict::Accept) || is_opaque_end(expr))
    }
}

/// Returns whether the expression is a verdict map, or an unknown target of iptables.
fn is_opaque_end(expr: &Expr) -> bool {
    matches!(expr, Expr::Unknown { name, .. } if name == "lookup" || name == "target")
}

fn is_end(expr: &Expr) -> bool {
    matches!(expr, Expr::Verdict(_) | Expr::Reject(_))
}
