//! Put a table into the kernel, or take it out, and make sure.

use crate::diff::diff;
use crate::error::Error;
use crate::kernel::{Kernel, Loaded, Snapshot};
use crate::model::Table;
use crate::transaction::{Op, Transaction};

/// How often a load starts again because others changed the ruleset meanwhile.
const ATTEMPTS: usize = 3;

/// What a load did.
#[derive(Clone, Debug)]
pub struct Change {
    /// What the kernel held before.
    pub before: Option<Table>,
    /// What was done; empty if the kernel held the table already.
    pub transaction: Transaction,
    /// Whether the kernel was seen to hold exactly the table afterwards. `false` if somebody
    /// else changed it before it could be read back.
    pub verified: bool,
}

/// Makes the kernel hold exactly this table, in one transaction.
///
/// A table of the same name counts as an earlier load if it has the same comment; any other is
/// left alone.
///
/// # Errors
/// Nothing was changed unless it is [`Error::ReadBack`].
pub fn load(kernel: &mut Kernel, desired: &Table) -> Result<Change, Error> {
    for _ in 0..ATTEMPTS {
        let (snapshot, transaction) = plan(kernel, desired)?;
        let before = snapshot.loaded.map(|loaded| loaded.table);
        if transaction.is_empty() {
            return Ok(Change { before, transaction, verified: true });
        }
        match kernel.commit(&transaction, Some(snapshot.generation)) {
            Err(Error::Interrupted) => {}
            // Whether it was committed is seen below.
            Ok(()) | Err(Error::Unknown) => {
                let verified = verify(kernel, desired, snapshot.generation)?;
                return Ok(Change { before, transaction, verified });
            }
            Err(error) => return Err(error),
        }
    }
    Err(Error::Interrupted)
}

/// What [`load`] would do now, and to what.
///
/// # Errors
/// [`Error::Foreign`] if a table of that name is not ours.
pub fn plan(kernel: &mut Kernel, desired: &Table) -> Result<(Snapshot, Transaction), Error> {
    let snapshot = own_table(kernel, desired)?;
    let current = snapshot.loaded.as_ref().map(|loaded| &loaded.table);
    let transaction = diff(current, desired);
    Ok((snapshot, transaction))
}

/// Removes the table of this name if it has the same comment; `false` if there was none.
///
/// # Errors
/// [`Error::Foreign`] if a table of that name is not ours.
pub fn unload(kernel: &mut Kernel, ours: &Table) -> Result<bool, Error> {
    for _ in 0..ATTEMPTS {
        let generation = kernel.generation()?;
        if own_head(kernel, ours)?.is_none() {
            return Ok(false);
        }
        let transaction = Transaction { table: ours.name.clone(), ops: vec![Op::DeleteTable] };
        match kernel.commit(&transaction, Some(generation)) {
            Err(Error::Interrupted) => {}
            result => return result.map(|()| true),
        }
    }
    Err(Error::Interrupted)
}

/// The table as the kernel holds it, if it is ours.
///
/// # Errors
/// [`Error::Foreign`] if a table of that name is not ours.
pub fn own_table(kernel: &mut Kernel, ours: &Table) -> Result<Snapshot, Error> {
    if own_head(kernel, ours)?.is_none() {
        let generation = kernel.generation()?;
        return Ok(Snapshot { generation, loaded: None });
    }
    kernel.table(&ours.name)
}

fn own_head(kernel: &mut Kernel, ours: &Table) -> Result<Option<Table>, Error> {
    let head = kernel.table_head(&ours.name)?;
    match &head {
        Some(found) if found.comment != ours.comment => Err(Error::Foreign {
            table: ours.name.clone(),
            reason: match &found.comment {
                Some(comment) => format!("its comment is {comment:?}"),
                None => "it has no comment".to_owned(),
            },
        }),
        _ => Ok(head),
    }
}

/// Whether the kernel holds the table; an error if it does not and nobody else was at it.
fn verify(kernel: &mut Kernel, desired: &Table, before: u32) -> Result<bool, Error> {
    let Snapshot { generation, loaded } = kernel.table(&desired.name)?;
    let found = loaded.map(|Loaded { table, .. }| table.normalized());
    if found.as_ref() == Some(&desired.clone().normalized()) {
        return Ok(true);
    }
    if generation == before {
        return Err(Error::Unknown);
    }
    if generation == before.wrapping_add(1) {
        let found = found.as_ref().map_or_else(String::new, crate::text::table);
        let meant = crate::text::table(&desired.clone().normalized());
        let line = meant.lines().zip(found.lines()).find(|(meant, found)| meant != found);
        return Err(Error::ReadBack(match line {
            Some((meant, found)) => format!("`{}` instead of `{}`", found.trim(), meant.trim()),
            None => "something is missing or was added".to_owned(),
        }));
    }
    Ok(false)
}
