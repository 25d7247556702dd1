//! What was there before a load, in memory.

use std::collections::BTreeSet;

use ipnetwork::IpNetwork;
use nfguard_ban::{Bans, NeverBan, NeverBanKind, Outgoing};
use nfguard_netlink::{Error as KernelError, Expr, Nft, Table};

use crate::ban_table::BanRules;
use crate::table::{ours, replacement};

/// What a load changes, as it was.
pub(crate) struct Snapshot {
    /// `None`: no policy was loaded.
    table: Option<Table>,
    /// The never-ban entries of the policy.
    never_ban: Vec<IpNetwork>,
    /// What may be banned although it is behind this host.
    may_ban: Vec<IpNetwork>,
    /// What became of packets to the banned.
    outgoing: Outgoing,
}

impl Snapshot {
    /// Takes a snapshot of what the kernel holds now.
    ///
    /// # Errors
    /// Why it could not be put back as it is.
    pub(super) fn take() -> Result<Snapshot, String> {
        let mut kernel = Nft::open().map_err(|error| error.to_string())?;
        let by_hand = |what: &str| {
            format!(
                "the current rules could not be restored: the table was changed by hand, and {what}; \
                 load its policy file again without `--confirm`, then load this one"
            )
        };
        let table = match nfguard_netlink::read_own_table(&mut kernel, &ours()) {
            Err(KernelError::Decode(error)) => return Err(by_hand(&format!("holds {error}"))),
            Err(error) => return Err(error.to_string()),
            Ok(snapshot) => snapshot.loaded.map(|loaded| loaded.table),
        };
        if let Some(table) = &table {
            if table.dormant {
                return Err(by_hand("is dormant"));
            }
            if let Some(set) = nameless_set(table) {
                return Err(by_hand(&format!("one of its rules has an anonymous set, {set}")));
            }
            replacement(Some(table)).to_bytes().map_err(|error| error.to_string())?;
        }
        let said = || -> Result<_, nfguard_ban::Error> {
            let Some(mut bans) = Bans::open_existing(NeverBan::default())? else {
                return Ok((Vec::new(), Vec::new(), Outgoing::Pass));
            };
            let entries = bans.never_ban().entries().iter();
            let of_policy = entries.filter(|entry| entry.kind == NeverBanKind::Policy);
            let never_ban = of_policy.map(|entry| entry.network).collect();
            Ok((never_ban, bans.never_ban().may_ban().to_vec(), bans.outgoing()?))
        };
        let (never_ban, may_ban, outgoing) = said().map_err(|error| error.to_string())?;
        Ok(Snapshot { table, never_ban, may_ban, outgoing })
    }

    /// Returns the table that was there, if one was.
    pub(crate) fn table(&self) -> Option<&Table> {
        self.table.as_ref()
    }

    /// Returns what the ban table was told.
    pub(crate) fn ban_rules(&self) -> BanRules<'_> {
        BanRules::Set {
            never_ban: &self.never_ban,
            may_ban: &self.may_ban,
            outgoing: self.outgoing,
            bans_scans: false,
        }
    }
}

/// Returns the first set that a rule uses and that has no name of its own. nfguard makes none, and the
/// model does not hold its elements.
fn nameless_set(table: &Table) -> Option<&str> {
    let named: BTreeSet<&str> = table.sets.iter().map(|set| set.name.as_str()).collect();
    let exprs = table.chains.iter().flat_map(|chain| &chain.rules).flat_map(|rule| &rule.exprs);
    let used = exprs.filter_map(|expr| match expr {
        Expr::Lookup { set, .. } => Some(set.as_str()),
        Expr::Dynset(dynset) => Some(dynset.set.as_str()),
        // A map, for one, may need an object that the snapshot does not hold.
        Expr::Unknown { name, .. } if name == "lookup" || name == "dynset" || name == "objref" => {
            Some(name.as_str())
        }
        _ => None,
    });
    used.into_iter().find(|set| !named.contains(set))
}
