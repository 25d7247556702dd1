//! What a table of somebody else's does with a packet, as far as its rules can be read.

use super::{Family, Foreign, ForeignChain, ForeignRule, Nat};
use crate::eval::{Fate, Memory, Packet, evaluate};
use crate::model::{Base, Chain, ChainPolicy, Hook, Rule, Table};
use crate::model::{Expr, Verdict};

/// What a base chain does with a packet.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum ForeignVerdict {
    /// It goes on.
    Passes,
    /// It is dropped or rejected.
    Drops {
        /// `false`: unless a rule lets it pass that cannot be read.
        certain: bool,
    },
}

/// A base chain, and all that it leads to.
///
/// It is played through twice: once as if the rules that cannot be read never matched, and once as
/// if those that let packets pass always did.
#[derive(Clone, Debug)]
pub struct Gate {
    family: Family,
    /// Where packets come to it.
    pub hook: Hook,
    readings: [Table; 2],
}

impl Gate {
    /// What it does with this packet; `None` if it does not see it at all.
    #[must_use]
    pub fn outcome(&self, packet: &Packet) -> Option<ForeignVerdict> {
        if !self.family.sees(packet.source) {
            return None;
        }
        let drops = self.readings.each_ref().map(|table| {
            let decided = evaluate(table, self.hook, packet, &mut Memory::default());
            decided.is_some_and(|decision| decision.fate != Fate::Accept)
        });
        Some(match drops {
            [false, false] => ForeignVerdict::Passes,
            [one, other] => ForeignVerdict::Drops { certain: one && other },
        })
    }
}

impl Foreign {
    /// What it takes to say what this chain of it does with packets; `None` for one that only
    /// rewrites addresses, or that packets are led to by others.
    #[must_use]
    pub fn gate(&self, chain: &ForeignChain) -> Option<Gate> {
        let hook = chain.base.filter(|_| !chain.is_nat)?.hook;
        let readings =
            [false, true].map(|hopeful| self.played(chain, &|rule| self.readable(rule, hopeful)));
        Some(Gate { family: self.family, hook, readings })
    }

    /// Whether it makes this packet, on its way out of this host, seem to come from somebody else.
    #[must_use]
    pub fn hides_source(&self, packet: &Packet) -> bool {
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
        self.family.sees(packet.source)
            && self.chains.iter().filter(at_postrouting).any(|base| {
                let table = self.played(base, &rewrites);
                let decided = evaluate(&table, Hook::Postrouting, packet, &mut Memory::default());
                decided
                    .is_some_and(|decision| decision.rule.is_some() && decision.fate == Fate::Drop)
            })
    }

    /// The same table with one base chain, as a value that can be played through.
    fn played(
        &self,
        base: &ForeignChain,
        exprs: &dyn Fn(&ForeignRule) -> Option<Vec<Expr>>,
    ) -> Table {
        let chains = self.chains.iter().map(|chain| Chain {
            name: chain.name.clone(),
            base: chain.base.filter(|_| chain.name == base.name).map(|base| Base {
                // The policy of a nat chain is about packets that are not rewritten.
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
        Table { chains: chains.collect(), sets: self.sets.clone(), ..Table::default() }
    }

    /// The rule without what cannot be read; `None` for one that is taken not to match.
    fn readable(&self, rule: &ForeignRule, hopeful: bool) -> Option<Vec<Expr>> {
        let is_known = |expr: &Expr| match expr {
            Expr::Unknown { .. } => false,
            Expr::Lookup { set, .. } => self.sets.iter().any(|known| known.name == *set),
            _ => true,
        };
        if rule.exprs.iter().all(is_known) {
            return Some(rule.exprs.clone());
        }
        let passes = hopeful
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

    /// Whether a packet that enters this chain can be let pass there.
    fn may_accept(&self, chain: &str) -> bool {
        let chains = self.reached_from([chain]);
        let chains = self.chains.iter().filter(|chain| chains.contains(&*chain.name));
        let mut exprs = chains.flat_map(|chain| &chain.rules).flat_map(|rule| &rule.exprs);
        exprs.any(|expr| *expr == Expr::Verdict(Verdict::Accept) || is_opaque_end(expr))
    }
}

/// A map of verdicts, or a target of iptables that nfguard does not know.
fn is_opaque_end(expr: &Expr) -> bool {
    matches!(expr, Expr::Unknown { name, .. } if name == "lookup" || name == "target")
}

fn is_end(expr: &Expr) -> bool {
    matches!(expr, Expr::Verdict(_) | Expr::Reject(_))
}
