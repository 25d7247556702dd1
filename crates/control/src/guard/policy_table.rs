//! The policy's table: owned, watched, put right.

use nfguard_ban::{NeverBan, Target, scan};
use nfguard_netlink::{Error, Nft, Table};
use nfguard_policy::TABLE;

use super::api::Kept;
use crate::table::{ours, replacement};
use crate::{digest, table_diff};

/// `EOPNOTSUPP` and `EPERM`, the same on every architecture that this runs on.
const UNKNOWN_FLAG: i32 = 95;
const NOT_THE_OWNER: i32 = 1;

/// The policy's table, and the socket that owns it.
pub(super) struct PolicyTable {
    kernel: Option<Nft>,
    /// What the kernel is to hold, stamp included.
    intended: Option<Table>,
    kept: Kept,
    /// Whether this kernel keeps an owned table without its owner.
    can_own: bool,
}

/// What was put right.
pub(super) struct Repair {
    pub(super) changes: Vec<String>,
}

impl PolicyTable {
    /// Puts the table in, or takes over what is there.
    pub(super) fn keep(intended: Option<Table>) -> Result<PolicyTable, Error> {
        let mut policy = PolicyTable { kernel: None, intended, kept: Kept::Absent, can_own: true };
        policy.take()?;
        Ok(policy)
    }

    pub(super) fn kept(&self) -> Kept {
        self.kept
    }

    pub(super) fn is_kept(&self) -> bool {
        matches!(self.kept, Kept::Owned | Kept::Watched)
    }

    /// The name of the file that was loaded.
    pub(super) fn file(&self) -> String {
        self.intended.as_ref().map(|table| digest::verify(table).0).unwrap_or_default()
    }

    /// Makes the kernel hold what is intended, owned if it can be.
    fn take(&mut self) -> Result<(), Error> {
        let kernel = match &mut self.kernel {
            Some(kernel) => kernel,
            none => none.insert(Nft::open()?),
        };
        let Some(table) = &self.intended else {
            self.kept = Kept::Absent;
            return Ok(());
        };
        if !self.can_own {
            put_in(kernel, table)?;
            self.kept = Kept::Watched;
            return Ok(());
        }
        self.kept = match nfguard_netlink::own(kernel, table) {
            Ok(_) => Kept::Owned,
            Err(Error::Refused(refusals))
                if refusals.iter().any(|refusal| refusal.errno == UNKNOWN_FLAG) =>
            {
                self.can_own = false;
                put_in(kernel, table)?;
                Kept::Watched
            }
            Err(Error::Refused(refusals))
                if refusals.iter().any(|refusal| refusal.errno == NOT_THE_OWNER) =>
            {
                return Err(Error::Permission);
            }
            Err(error) => return Err(error),
        };
        Ok(())
    }

    /// Puts right what was changed, if anything was.
    pub(super) fn check(&mut self) -> Result<Option<Repair>, Error> {
        let Some(intended) = &self.intended else { return Ok(None) };
        let kernel = match &mut self.kernel {
            Some(kernel) => kernel,
            none => none.insert(Nft::open()?),
        };
        let held = match nfguard_netlink::own_table(kernel, &ours()) {
            Ok(snapshot) => snapshot.loaded.map(|loaded| loaded.table),
            Err(Error::Decode(error)) => {
                let changes = vec![format!("+{error}")];
                self.take()?;
                return Ok(Some(Repair { changes }));
            }
            Err(error) => return Err(error),
        };
        let as_intended = held.as_ref().map(|held| held.clone().normalized())
            == Some(intended.clone().normalized());
        if as_intended {
            return Ok(None);
        }
        self.take()?;
        // After the repair, for it takes time.
        let changes = table_diff::changes(self.intended.as_ref(), held.as_ref());
        Ok(Some(Repair { changes }))
    }

    /// Lets go: the table stays, and others can change it.
    pub(super) fn lend(&mut self) {
        self.kernel = None;
        self.kept = Kept::Lent;
    }

    /// Takes the table back, as it is now if that is what a load has made, or is meant, else as it was. Whether it is another one.
    pub(super) fn take_back(&mut self, removed: &[String], as_is: bool) -> Result<bool, Error> {
        let mut kernel = Nft::open()?;
        let held = match nfguard_netlink::own_table(&mut kernel, &ours()) {
            Ok(snapshot) => snapshot.loaded.map(|loaded| loaded.table),
            Err(Error::Decode(_)) => None,
            Err(error) => return Err(error),
        };
        self.kernel = Some(kernel);
        let before = self.intended.clone().map(Table::normalized);
        match held {
            Some(held) if as_is || digest::verify(&held).1 => self.intended = Some(held),
            None if removed.iter().any(|table| table == TABLE) => self.intended = None,
            _ => {}
        }
        self.take()?;
        Ok(self.intended.clone().map(Table::normalized) != before)
    }

    /// Has its rules spare those who are never banned. Only the owner can.
    pub(super) fn spare(&mut self, never: &NeverBan) -> Result<(), nfguard_ban::Error> {
        self.kernel.as_mut().map_or(Ok(()), |kernel| scan::write_never_ban(kernel, never))
    }

    /// TcpConnection the ban of a scan.
    pub(super) fn unban(&mut self, target: Target) -> Result<bool, nfguard_ban::Error> {
        self.kernel.as_mut().map_or(Ok(false), |kernel| scan::unban(kernel, target))
    }

    /// What each of its counters has counted.
    pub(super) fn counters(
        &mut self,
    ) -> Result<Vec<(nfguard_netlink::Counter, nfguard_netlink::Counts)>, Error> {
        self.kernel.as_mut().map_or(Ok(Vec::new()), |kernel| kernel.counters(TABLE))
    }
}

fn put_in(kernel: &mut Nft, table: &Table) -> Result<(), Error> {
    match nfguard_netlink::load(kernel, table) {
        Ok(_) => Ok(()),
        // An orphan that is dormant, for one.
        Err(Error::Refused(_)) => kernel.commit(&replacement(Some(table)), None),
        Err(error) => Err(error),
    }
}
