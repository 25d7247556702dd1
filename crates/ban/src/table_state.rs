//! The ban table as the kernel holds it, read once.

use std::collections::BTreeMap;

use nfguard_netlink::{IpVersion, Nft, Op, PerIpVersion, Rule, Set};

use crate::error::Error;
use crate::layout::{self, BanSet, Outgoing, TABLE, TableLayout};
use crate::never_sets;

/// The ban table at one moment. Each set and each chain is asked for once, and what is to be done
/// is then planned without the kernel.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(crate) struct TableState {
    /// Whether there is a table.
    pub(crate) exists: bool,
    /// All sets, without their elements.
    pub(crate) sets: Vec<Set>,
    /// The never-ban sets with their elements; one that is absent has none.
    pub(crate) never_sets: Vec<Set>,
    /// The rules of each chain.
    rules: BTreeMap<&'static str, Vec<Rule>>,
}

impl TableState {
    /// Reads the table. To see it whole, take the generation before, and commit for that.
    ///
    /// # Errors
    /// [`Error::OtherVersion`], or the kernel's refusal.
    pub(crate) fn read(nft: &mut Nft) -> Result<TableState, Error> {
        let mut state =
            TableState { never_sets: never_sets::empty_sets().collect(), ..TableState::default() };
        if !exists(nft)? {
            return Ok(state);
        }
        state.exists = true;
        state.sets = nft.sets(TABLE)?;
        read_elements(nft, &state.sets, &mut state.never_sets)?;
        let chains = layout::RULE_CHAINS.into_iter();
        for chain in chains.chain(IpVersion::ALL.map(layout::feed_chain)) {
            state.rules.insert(chain, nft.rules(TABLE, chain)?);
        }
        Ok(state)
    }

    /// Returns what the table's rules are made for.
    pub(crate) fn layout(&self) -> TableLayout {
        let outgoing = match self.rules(layout::OUTGOING) {
            [] => Outgoing::Pass,
            _ => Outgoing::Drop,
        };
        TableLayout {
            sets: self.sets.iter().filter_map(|set| BanSet::from_name(&set.name)).collect(),
            never_ban: never_sets::checks(&self.never_sets),
            has_feeds: PerIpVersion::from_fn(|version| {
                !self.rules(layout::feed_chain(version)).is_empty()
            }),
            outgoing,
        }
    }

    /// Plans to give the chains the rules of a layout; nothing if they have them.
    pub(crate) fn rewritten(&self, layout: &TableLayout) -> Vec<Op> {
        let mut ops = Vec::new();
        for (chain, rules) in layout.chains() {
            if self.rules(chain) != rules {
                ops.push(Op::FlushChain(chain.to_owned()));
                let add = |rule| Op::AddRule { chain: chain.to_owned(), rule };
                ops.extend(rules.into_iter().map(add));
            }
        }
        ops
    }

    /// Returns the elements of a never-ban set.
    pub(crate) fn never_set(&self, name: &str) -> Option<&Set> {
        self.never_sets.iter().find(|set| set.name == name)
    }

    /// Returns the rules of a chain; none if it is absent.
    pub(crate) fn rules(&self, chain: &str) -> &[Rule] {
        self.rules.get(chain).map(Vec::as_slice).unwrap_or_default()
    }
}

/// Reads the never-ban sets alone; `None` if there is no table.
///
/// # Errors
/// As [`TableState::read`].
#[cfg(feature = "socket")]
pub(crate) fn read_never_sets(nft: &mut Nft) -> Result<Option<Vec<Set>>, Error> {
    if !exists(nft)? {
        return Ok(None);
    }
    let present = nft.readable_sets(TABLE)?;
    let mut sets: Vec<Set> = never_sets::empty_sets().collect();
    read_elements(nft, &present, &mut sets)?;
    Ok(Some(sets))
}

/// Reads the elements of those of the sets that are present.
fn read_elements(nft: &mut Nft, present: &[Set], sets: &mut [Set]) -> Result<(), Error> {
    for set in sets {
        if present.iter().any(|other| other.name == set.name) {
            set.elements = nft.elements(TABLE, set)?;
        }
    }
    Ok(())
}

/// Tells whether there is a table, and it is one that this version works with.
fn exists(nft: &mut Nft) -> Result<bool, Error> {
    let Some(head) = nft.table_head(TABLE)? else { return Ok(false) };
    match head.comment {
        Some(comment) if comment == layout::MARK => Ok(true),
        Some(found) if found.starts_with(layout::ANY_MARK) => Err(Error::OtherVersion { found }),
        // Another program's table: the error says how that is seen.
        _ => Ok(nfguard_netlink::read_own_head(nft, &layout::table_identity())?.is_some()),
    }
}
