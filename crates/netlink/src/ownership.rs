//! Tables that one process owns.
//!
//! The owner is a socket. No other socket can change the table, and another process's `flush
//! ruleset` passes it over. When the owner is closed the table stays, as an orphan: any process may
//! change it, or adopt it, which changes nothing in it. This needs Linux 6.9. Before, the kernel
//! deletes an owned table together with its socket.

use crate::diff::diff;
use crate::error::{DecodeError, Error};
use crate::load::{TableChange, commit_and_verify, read_own_table};
use crate::model::Table;
use crate::nft::Nft;
use crate::transaction::{Op, Transaction};
use crate::wire::attr::Attrs;
use crate::wire::object::NFT_TABLE_F_PERSIST;
use crate::wire::uapi::*;

/// Number of attempts while others change the ruleset.
const MAX_ATTEMPTS: usize = 10;

/// Tells who can change a table.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Ownership {
    /// Any process, and none can own it.
    Plain,
    /// Any process, and any process can adopt it.
    Orphan,
    /// The socket of this port number alone.
    Owned(u32),
}

impl Nft {
    /// Returns who can change the table; `None` if the table is absent.
    ///
    /// # Errors
    /// As [`Nft::table`].
    pub fn ownership(&mut self, name: &str) -> Result<Option<Ownership>, Error> {
        let mut ownership = None;
        let names = [(NFTA_TABLE_NAME, name)];
        self.read_one(NFT_MSG_GETTABLE, NFT_MSG_NEWTABLE, &names, |attrs| {
            ownership = Some(decode_ownership(attrs)?);
            Ok(())
        })?;
        Ok(ownership)
    }
}

fn decode_ownership(attrs: Attrs<'_>) -> Result<Ownership, DecodeError> {
    let (mut flags, mut owner) = (0, None);
    for attr in attrs {
        let attr = attr?;
        match attr.kind {
            NFTA_TABLE_FLAGS => flags = attr.u32()?,
            NFTA_TABLE_OWNER => owner = Some(attr.u32()?),
            _ => {}
        }
    }
    Ok(match owner {
        Some(owner) => Ownership::Owned(owner),
        None if flags & NFT_TABLE_F_PERSIST != 0 => Ownership::Orphan,
        None => Ownership::Plain,
    })
}

/// Loads the table as [`load`](crate::load()) does, and makes `nft` its owner for as long as that
/// value lives. Needs Linux 6.9.
///
/// An orphan is adopted as it is, and then changed. A plain table cannot be owned: the same
/// transaction deletes and creates it, so no packet passes in between, but its counters start at
/// zero and its dynamic sets are empty.
///
/// # Errors
/// [`Error::Refused`] with `EOPNOTSUPP` before Linux 6.9, with `EPERM` if another process owns it.
/// Otherwise as [`load`](crate::load()).
pub fn load_owned(nft: &mut Nft, desired: &Table) -> Result<TableChange, Error> {
    for _ in 0..MAX_ATTEMPTS {
        let generation = nft.generation()?;
        let ownership = nft.ownership(&desired.name)?;
        let (before, is_new) = match read_own_table(nft, desired) {
            Ok(snapshot) if snapshot.generation != generation => continue,
            Ok(snapshot) => {
                let table = snapshot.loaded.map(|loaded| loaded.table);
                // A dormant table cannot be woken with its flags kept.
                let is_new = table.as_ref().is_some_and(|table| table.dormant);
                (table, is_new || ownership == Some(Ownership::Plain))
            }
            Err(Error::Decode(_)) => (None, true),
            Err(error) => return Err(error),
        };
        let mut transaction = Transaction::new(&desired.name);
        if is_new {
            transaction.ops.push(Op::DeleteTable);
        }
        transaction.ops.push(Op::OwnTable { comment: desired.comment.clone() });
        let current = before.as_ref().filter(|_| !is_new);
        let is_table = |op: &Op| matches!(op, Op::AddTable { .. });
        let rest = diff(current, desired).ops.into_iter().filter(|op| !is_table(op));
        transaction.ops.extend(rest);
        match commit_and_verify(nft, &transaction, generation, desired) {
            Err(Error::Interrupted) => {}
            verified => {
                return verified.map(|verified| TableChange { before, transaction, verified });
            }
        }
    }
    Err(Error::Interrupted)
}
