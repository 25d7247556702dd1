//! Tables that one process keeps for itself.
//!
//! Nobody but its owner, the socket that made it so, can change a table, and `flush ruleset` of
//! others passes it over. When the socket is closed the table stays, as an orphan: anyone may change
//! it or take it over, which changes nothing in it. (Linux 6.9. Before, an owned table dies with its
//! socket, which no firewall should.)

use crate::diff::diff;
use crate::error::{DecodeError, Error};
use crate::load::{Change, commit_or_look, own_table};
use crate::model::Table;
use crate::nft::Nft;
use crate::transaction::{Op, Transaction};
use crate::wire::attr::Attrs;
use crate::wire::object::NFT_TABLE_F_PERSIST;
use crate::wire::uapi::*;

/// How often it is tried when others change the ruleset meanwhile.
const ATTEMPTS: usize = 10;

/// Who can change a table.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Ownership {
    /// Anyone, and nobody can own it.
    Plain,
    /// Anyone, and anyone can take it over.
    Orphan,
    /// The socket of this number alone.
    Owned(u32),
}

impl Nft {
    /// Who can change the table; `None` if there is none.
    ///
    /// # Errors
    /// As [`Nft::table`].
    pub fn holding(&mut self, name: &str) -> Result<Option<Ownership>, Error> {
        let mut holding = None;
        let names = [(NFTA_TABLE_NAME, name)];
        self.read(NFT_MSG_GETTABLE, NFT_MSG_NEWTABLE, false, &names, |attrs| {
            holding = Some(decode_holding(attrs)?);
            Ok(())
        })?;
        Ok(holding)
    }
}

fn decode_holding(attrs: Attrs<'_>) -> Result<Ownership, DecodeError> {
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

/// Makes the kernel hold exactly this table, in one transaction, and this `kernel` own it, for as
/// long as that value lives.
///
/// An orphan is taken over as it is and changed like in [`load`](crate::load()). A plain table
/// cannot be owned: it is made anew in the same transaction, so no packet passes in between, but
/// what it had counted and remembered is lost.
///
/// # Errors
/// [`Error::Refused`] with `EOPNOTSUPP` before Linux 6.9, with `EPERM` if another process owns it.
/// Nothing was changed unless it is [`Error::ReadBack`].
pub fn own(kernel: &mut Nft, desired: &Table) -> Result<Change, Error> {
    for _ in 0..ATTEMPTS {
        let generation = kernel.generation()?;
        let holding = kernel.holding(&desired.name)?;
        let (before, anew) = match own_table(kernel, desired) {
            Ok(snapshot) if snapshot.generation != generation => continue,
            Ok(snapshot) => {
                let table = snapshot.loaded.map(|loaded| loaded.table);
                // It cannot be woken with its flags kept.
                let anew = table.as_ref().is_some_and(|table| table.dormant);
                (table, anew || holding == Some(Ownership::Plain))
            }
            Err(Error::Decode(_)) => (None, true),
            Err(error) => return Err(error),
        };
        let mut transaction = Transaction::new(&desired.name);
        if anew {
            transaction.ops.push(Op::DeleteTable);
        }
        transaction.ops.push(Op::OwnTable { comment: desired.comment.clone() });
        let current = before.as_ref().filter(|_| !anew);
        let is_table = |op: &Op| matches!(op, Op::AddTable { .. });
        let rest = diff(current, desired).ops.into_iter().filter(|op| !is_table(op));
        transaction.ops.extend(rest);
        match commit_or_look(kernel, &transaction, generation, desired) {
            Err(Error::Interrupted) => {}
            verified => return verified.map(|verified| Change { before, transaction, verified }),
        }
    }
    Err(Error::Interrupted)
}
