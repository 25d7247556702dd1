//! The bans that the kernel makes by itself, while the table that holds them changes.

use std::collections::BTreeSet;

use nfguard_ban::{ActiveBan, Ban, Bans, Target, scan};
use nfguard_netlink::{IpVersion, Op, Transaction};

use crate::context::Context;
use crate::{Error, persistence};

/// The bans that the kernel made by itself, for scans. They lie in the policy's table, and end with
/// it.
#[derive(Default)]
pub(crate) struct ScanBans {
    bans: Vec<ActiveBan>,
    /// Whether the ban table has them too.
    copied: bool,
}

impl ScanBans {
    /// Reads them.
    pub(crate) fn read(bans: Option<&mut Bans>) -> Result<ScanBans, Error> {
        Ok(ScanBans { bans: bans.map_or(Ok(Vec::new()), Bans::list_scans)?, copied: false })
    }

    /// They are to end with the table.
    pub(crate) fn forget(&mut self) {
        self.bans.clear();
    }

    /// Bans the same addresses in the ban table if this transaction ends a set that holds them.
    pub(crate) fn copy_before(
        &mut self,
        transaction: &Transaction,
        bans: &mut Option<Bans>,
        context: &Context,
    ) -> Result<(), Error> {
        let sets = IpVersion::ALL.map(|version| scan::set("banned", version));
        let is_lost = |op: &Op| match op {
            Op::DeleteTable => true,
            Op::DeleteSet(name) => sets.contains(name),
            _ => false,
        };
        // Once: the copy is a change of the ruleset, after which the load is tried again.
        if self.copied || !transaction.ops.iter().any(is_lost) {
            return Ok(());
        }
        self.ban(bans, context, &BTreeSet::new())?;
        self.copied = true;
        Ok(())
    }

    /// Bans those again that have ended with the table.
    pub(crate) fn restore(&self, bans: &mut Option<Bans>, context: &Context) -> Result<(), Error> {
        if self.copied || self.bans.is_empty() {
            return Ok(());
        }
        let left = match bans.as_mut() {
            Some(bans) => bans.list_scans()?,
            None => Vec::new(),
        };
        self.ban(bans, context, &left.iter().map(|ban| ban.target).collect())
    }

    fn ban(
        &self,
        bans: &mut Option<Bans>,
        context: &Context,
        but: &BTreeSet<Target>,
    ) -> Result<(), Error> {
        if self.bans.is_empty() {
            return Ok(());
        }
        let bans = match bans {
            Some(bans) => bans,
            none => none.insert(persistence::open(context)?),
        };
        let gone = self.bans.iter().filter(|ban| !but.contains(&ban.target));
        let gone: Vec<_> =
            gone.filter_map(|ban| Some((bans.admit(ban.target).ok()?, ban))).collect();
        bans.ban_all(gone.into_iter().map(|(target, ban)| Ban {
            target,
            port: None,
            duration: ban.expires_in,
            source: &ban.source,
            reason: &ban.reason,
            created_at: ban.created_at,
        }))?;
        Ok(())
    }
}
