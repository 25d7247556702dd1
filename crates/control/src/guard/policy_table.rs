//! The policy's table: owned or watched, and repaired.

use nfguard_api::message::{PolicyState, Release};
use nfguard_ban::{NeverBan, Target, scan};
use nfguard_netlink::{Counter, Counts, Error, Nft, Table};
use nfguard_policy::TABLE;

use crate::table::{ours, replacement};
use crate::{digest, table_diff};

/// `EOPNOTSUPP`: the kernel does not know the flag `persist`.
const UNKNOWN_FLAG: i32 = 95;
/// `EPERM`: another process owns the table. Both numbers are the same on every architecture that
/// nfguard runs on.
const NOT_THE_OWNER: i32 = 1;

/// The policy's table, and the socket that owns it.
pub(super) struct PolicyTable {
    /// The socket whose end would end the ownership; `None` while a client holds the lease.
    nft: Option<Nft>,
    /// What the kernel is to hold, with the digest that the load put in.
    intended: Option<Table>,
    state: PolicyState,
    /// Whether this kernel keeps an owned table without its owner.
    can_own: bool,
}

/// What the guard found when a lease ended.
pub(super) enum TakenBack {
    /// The content from before the lease, or it is put back.
    AsBefore,
    /// Another content, which is guarded from now on.
    New,
    /// Not what the client put in. The table is still leased.
    NotTheirs,
}

impl PolicyTable {
    /// Loads the table, or takes over the one that is loaded.
    pub(super) fn take_over(intended: Option<Table>) -> Result<PolicyTable, Error> {
        let state = PolicyState::Absent;
        let mut table = PolicyTable { nft: None, intended, state, can_own: true };
        table.enforce()?;
        Ok(table)
    }

    pub(super) fn state(&self) -> PolicyState {
        self.state
    }

    /// Returns the name of the policy's file; empty without a policy.
    pub(super) fn file(&self) -> String {
        self.intended.as_ref().map(|table| digest::verify(table).0).unwrap_or_default()
    }

    /// Makes the kernel hold the intended table, owned if it can be.
    fn enforce(&mut self) -> Result<(), Error> {
        let nft = match &mut self.nft {
            Some(nft) => nft,
            none => none.insert(Nft::open()?),
        };
        let Some(table) = &self.intended else {
            self.state = PolicyState::Absent;
            return Ok(());
        };
        if !self.can_own {
            load(nft, table)?;
            self.state = PolicyState::Watched;
            return Ok(());
        }
        self.state = match nfguard_netlink::load_owned(nft, table) {
            Ok(_) => PolicyState::Owned,
            Err(error) if is_refused_with(&error, UNKNOWN_FLAG) => {
                self.can_own = false;
                load(nft, table)?;
                PolicyState::Watched
            }
            Err(error) if is_refused_with(&error, NOT_THE_OWNER) => return Err(Error::Permission),
            Err(error) => return Err(error),
        };
        Ok(())
    }

    /// Repairs the table if it is not as intended. Returns what was different.
    pub(super) fn repair(&mut self) -> Result<Option<Vec<String>>, Error> {
        let Some(intended) = &self.intended else { return Ok(None) };
        let nft = match &mut self.nft {
            Some(nft) => nft,
            none => none.insert(Nft::open()?),
        };
        let held = match nfguard_netlink::read_own_table(nft, &ours()) {
            Ok(snapshot) => snapshot.loaded.map(|loaded| loaded.table),
            Err(Error::Decode(error)) => {
                let changes = vec![format!("+{error}")];
                self.enforce()?;
                return Ok(Some(changes));
            }
            Err(error) => return Err(error),
        };
        let is_intended = held.as_ref().map(|held| held.clone().normalized())
            == Some(intended.clone().normalized());
        if is_intended {
            return Ok(None);
        }
        self.enforce()?;
        // After the repair, because it takes time.
        Ok(Some(table_diff::changes(self.intended.as_ref(), held.as_ref())))
    }

    /// Lets go of the table: it stays, and other processes may change it.
    pub(super) fn let_go(&mut self) {
        self.nft = None;
        self.state = PolicyState::Leased;
    }

    /// Takes the table back. Its new content counts if a load made it or the client says so; else
    /// the content from before is put back.
    pub(super) fn take_back(&mut self, tables: &Release) -> Result<TakenBack, Error> {
        let mut nft = Nft::open()?;
        let held = match nfguard_netlink::read_own_table(&mut nft, &ours()) {
            Ok(snapshot) => snapshot.loaded.map(|loaded| loaded.table),
            Err(Error::Decode(_)) => None,
            Err(error) => return Err(error),
        };
        if let Release::PutIn(digest) = tables
            && held.as_ref().map(digest::digest).as_ref() != Some(digest)
        {
            return Ok(TakenBack::NotTheirs);
        }
        self.nft = Some(nft);
        let before = self.intended.clone().map(Table::normalized);
        match (held, tables) {
            (Some(held), Release::AsFound | Release::PutIn(_)) => self.intended = Some(held),
            (Some(held), _) if digest::verify(&held).1 => {
                self.intended = Some(held);
            }
            (None, Release::Removed(removed)) if removed.iter().any(|table| table == TABLE) => {
                self.intended = None;
            }
            _ => {}
        }
        self.enforce()?;
        let is_before = self.intended.clone().map(Table::normalized) == before;
        Ok(if is_before { TakenBack::AsBefore } else { TakenBack::New })
    }

    /// Writes the never-ban list into its sets. Only the owner can.
    pub(super) fn write_never_ban(&mut self, never: &NeverBan) -> Result<(), nfguard_ban::Error> {
        self.nft.as_mut().map_or(Ok(()), |nft| scan::write_never_ban(nft, never))
    }

    /// Ends the ban of a scan; `false` if there is none.
    pub(super) fn unban(&mut self, target: Target) -> Result<bool, nfguard_ban::Error> {
        self.nft.as_mut().map_or(Ok(false), |nft| scan::unban(nft, target))
    }

    /// Returns what each of its counters has counted.
    pub(super) fn counters(&mut self) -> Result<Vec<(Counter, Counts)>, Error> {
        self.nft.as_mut().map_or(Ok(Vec::new()), |nft| nft.counters(TABLE))
    }

    /// Returns how often a counter was moved; `None` if it cannot be read.
    pub(super) fn counter(&mut self, name: &str) -> Option<u64> {
        let counters = self.counters().ok()?;
        counters.iter().find(|(counter, _)| counter.name == name).map(|(_, counts)| counts.packets)
    }
}

fn load(nft: &mut Nft, table: &Table) -> Result<(), Error> {
    match nfguard_netlink::load(nft, table) {
        Ok(_) => Ok(()),
        // An orphaned table that is dormant, for instance, takes no changes.
        Err(Error::Refused(_)) => nft.commit(&replacement(Some(table)), None),
        Err(error) => Err(error),
    }
}

fn is_refused_with(error: &Error, errno: i32) -> bool {
    matches!(error, Error::Refused(refusals) if refusals.iter().any(|it| it.errno == errno))
}
