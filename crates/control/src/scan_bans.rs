//! The bans that the kernel makes by itself.

use std::collections::BTreeSet;

use nfguard_ban::{ActiveBan, Ban, Bans, NeverBan, Target};

use crate::Error;
use crate::ban_table::never;

/// Whom the kernel itself has banned. These bans lie in the policy's table, and end with it.
pub(crate) struct Scans(Vec<ActiveBan>);

impl Scans {
    pub(crate) fn now() -> Result<Scans, Error> {
        let bans = Bans::open_existing(NeverBan::default())?;
        Ok(Scans(bans.map_or(Ok(Vec::new()), |mut bans| bans.list_scans())?))
    }

    /// Makes bans like any others of those that have ended with the table.
    pub(crate) fn outlive(self) -> Result<(), Error> {
        if self.0.is_empty() {
            return Ok(());
        }
        let mut bans = Bans::open(never()?)?;
        let stay: BTreeSet<Target> = bans.list_scans()?.iter().map(|ban| ban.target).collect();
        let gone = self.0.iter().filter(|ban| !stay.contains(&ban.target));
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
