//! What was there before a load, held in memory.

use std::collections::BTreeSet;

use ipnetwork::IpNetwork;
use nfguard_ban::{Bans, NeverBan, NeverBanKind, Outgoing};
use nfguard_netlink::{Error, Expr, Nft, Table};

use crate::table::{everything_anew, ours};
use crate::{Warn, lease};

/// What a load changes, as it was.
pub(super) struct Previous {
    /// `None`: no policy was loaded.
    table: Option<Table>,
    /// The never-ban entries of the policy.
    never_ban: Vec<IpNetwork>,
    /// What became of packets to the banned.
    outgoing: Outgoing,
}

impl Previous {
    /// As it is now.
    ///
    /// # Errors
    /// Why it could not be put back as it is.
    pub(super) fn read() -> Result<Previous, String> {
        let mut kernel = Nft::open().map_err(|error| error.to_string())?;
        let by_hand = |what: &str| {
            format!(
                "the rules that are there cannot be put back: the table was changed by hand, and \
                 {what}; load the file that it came from once more without `--confirm`, and then \
                 this one"
            )
        };
        let table = match nfguard_netlink::own_table(&mut kernel, &ours()) {
            Err(Error::Decode(error)) => return Err(by_hand(&format!("holds {error}"))),
            Err(error) => return Err(error.to_string()),
            Ok(snapshot) => snapshot.loaded.map(|loaded| loaded.table),
        };
        if let Some(table) = &table {
            if table.dormant {
                return Err(by_hand("is dormant"));
            }
            if let Some(set) = nameless_set(table) {
                return Err(by_hand(&format!("one of its rules has a set without a name, {set}")));
            }
            everything_anew(Some(table)).to_bytes().map_err(|error| error.to_string())?;
        }
        let said = || -> Result<_, nfguard_ban::Error> {
            let Some(mut bans) = Bans::open_existing(NeverBan::default())? else {
                return Ok((Vec::new(), Outgoing::Pass));
            };
            let entries = bans.never_ban().entries().iter();
            let of_policy = entries.filter(|entry| entry.kind == NeverBanKind::Policy);
            Ok((of_policy.map(|entry| entry.network).collect(), bans.outgoing()?))
        };
        let (never_ban, outgoing) = said().map_err(|error| error.to_string())?;
        Ok(Previous { table, never_ban, outgoing })
    }

    /// Puts it back in one transaction, whatever is there now.
    ///
    /// Where a guard keeps the table, that is asked for it first. It may have lent it to the load
    /// that takes too long: then it can be changed already, or will be in a moment.
    pub(super) fn put_back(&self, warn: Warn) -> Result<(), Error> {
        let lent = lease::try_borrow(warn).ok().flatten();
        self.put_back_now()?;
        if let Some(lent) = lent {
            let removed: Vec<String> =
                self.table.is_none().then(|| ours().name).into_iter().collect();
            // The guard says what is wrong in its own log; the rules are back.
            let _ = lent.give_back(&removed, true);
        }
        Ok(())
    }

    fn put_back_now(&self) -> Result<(), Error> {
        let mut kernel = Nft::open()?;
        let gently = match &self.table {
            // What both have in common keeps its counters and its memory.
            Some(table) => nfguard_netlink::load(&mut kernel, table).map(drop),
            None => nfguard_netlink::unload(&mut kernel, &ours()).map(drop),
        };
        // Others may write all the time, or the table may hold what nfguard cannot read. That takes
        // reading; this does not.
        gently.or_else(|_| kernel.commit(&everything_anew(self.table.as_ref()), None))
    }

    /// Takes back what the load said of bans.
    pub(super) fn tell_bans(&self) -> Result<(), nfguard_ban::Error> {
        let Some(mut bans) = Bans::open_existing(NeverBan::default())? else { return Ok(()) };
        bans.replace_never_ban(&NeverBanKind::Policy, &self.never_ban)?;
        bans.set_outgoing(self.outgoing)
    }
}

/// The first set that a rule uses and that has no name of its own. nfguard makes none, and the
/// model does not hold what is in it.
fn nameless_set(table: &Table) -> Option<&str> {
    let named: BTreeSet<&str> = table.sets.iter().map(|set| set.name.as_str()).collect();
    let exprs = table.chains.iter().flat_map(|chain| &chain.rules).flat_map(|rule| &rule.exprs);
    let used = exprs.filter_map(|expr| match expr {
        Expr::Lookup { set, .. } => Some(set.as_str()),
        Expr::Dynset(dynset) => Some(dynset.set.as_str()),
        // Whatever it is, a map for one, it may need something that is not held.
        Expr::Unknown { name, .. } if name == "lookup" || name == "dynset" || name == "objref" => {
            Some(name.as_str())
        }
        _ => None,
    });
    used.into_iter().find(|set| !named.contains(set))
}
