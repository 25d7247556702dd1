//! Loads a table into the nft, or removes it, and verifies what the kernel holds.

use crate::diff::diff;
use crate::error::Error;
use crate::model::Table;
use crate::nft::{LoadedTable, Nft, TableSnapshot};
use crate::transaction::{Op, Transaction};

/// Number of attempts of a load while others change the ruleset.
const MAX_ATTEMPTS: usize = 3;

/// Reports what a load changed.
#[derive(Clone, Debug)]
pub struct TableChange {
    /// The table that the kernel held before; `None` if it was absent or could not be read.
    pub before: Option<Table>,
    /// The operations that were committed; none if the kernel held the table already.
    pub transaction: Transaction,
    /// Whether the table was read back and is exactly the desired one. `false` if another process
    /// changed it before it could be read back.
    pub verified: bool,
}

/// Holds what a load would do, and to what.
#[derive(Clone, Debug)]
pub struct LoadPlan {
    /// The table as the kernel holds it.
    pub snapshot: TableSnapshot,
    /// The operations that lead to the desired table; none if the kernel holds it already.
    pub transaction: Transaction,
}

/// Loads the table: makes the kernel hold exactly this one, in one transaction.
///
/// A table of the same name counts as an earlier load if it has the same comment. Any other table is
/// left as it is. If others put objects into our table that this crate has no model of (a map, a
/// chain of type `nat`), the whole table is deleted and created again, and its counters start at
/// zero.
///
/// # Errors
/// After [`Error::ReadBack`] the ruleset is changed, and after [`Error::AnswerLost`] it may be. After
/// any other error nothing was changed.
pub fn load(nft: &mut Nft, desired: &Table) -> Result<TableChange, Error> {
    load_after(nft, desired, |_| Ok(()))
}

/// Loads the table as [`load`] does, and calls `prepare` with the operations before each attempt to
/// commit them. If `prepare` fails, nothing is loaded.
///
/// # Errors
/// Those of [`load`], and those of `prepare`.
pub fn load_after<E: From<Error>>(
    nft: &mut Nft,
    desired: &Table,
    mut prepare: impl FnMut(&Transaction) -> Result<(), E>,
) -> Result<TableChange, E> {
    for _ in 0..MAX_ATTEMPTS {
        let LoadPlan { snapshot, transaction } = plan_load(nft, desired)?;
        let before = snapshot.loaded.map(|loaded| loaded.table);
        if transaction.is_empty() {
            return Ok(TableChange { before, transaction, verified: true });
        }
        prepare(&transaction)?;
        match commit_and_verify(nft, &transaction, snapshot.generation, desired) {
            Err(Error::Interrupted) => {}
            verified => return Ok(TableChange { before, transaction, verified: verified? }),
        }
    }
    Err(Error::Interrupted.into())
}

/// Commits, and returns whether the kernel holds the table afterwards. [`Error::Interrupted`] if
/// nothing was committed.
pub(crate) fn commit_and_verify(
    nft: &mut Nft,
    transaction: &Transaction,
    generation: u32,
    desired: &Table,
) -> Result<bool, Error> {
    match nft.commit(transaction, Some(generation)) {
        // What the kernel holds tells whether the transaction was committed.
        outcome @ (Ok(()) | Err(Error::AnswerLost)) => match verify(nft, desired, generation) {
            Err(Error::Interrupted) => outcome.map(|()| false),
            Err(Error::Decode(error)) => Err(Error::ReadBack(error.to_string())),
            verified => verified,
        },
        Err(error) => Err(error),
    }
}

/// Returns what [`load`] would do now, and changes nothing.
///
/// # Errors
/// [`Error::ForeignTable`] if nfguard did not make the table of that name.
pub fn plan_load(nft: &mut Nft, desired: &Table) -> Result<LoadPlan, Error> {
    let generation = nft.generation()?;
    let snapshot = match read_own_table(nft, desired) {
        Err(Error::Decode(_)) => {
            let mut transaction = diff(None, desired);
            transaction.ops.insert(0, Op::DeleteTable);
            let snapshot = TableSnapshot { generation, loaded: None };
            return Ok(LoadPlan { snapshot, transaction });
        }
        snapshot => snapshot?,
    };
    let current = snapshot.loaded.as_ref().map(|loaded| &loaded.table);
    let transaction = diff(current, desired);
    Ok(LoadPlan { snapshot, transaction })
}

/// Removes the table of this name if it has the same comment. Returns `false` if it was absent.
///
/// # Errors
/// [`Error::ForeignTable`] if nfguard did not make the table of that name.
pub fn unload(nft: &mut Nft, ours: &Table) -> Result<bool, Error> {
    for _ in 0..MAX_ATTEMPTS {
        let generation = nft.generation()?;
        if read_own_head(nft, ours)?.is_none() {
            return Ok(false);
        }
        let transaction = Transaction { table: ours.name.clone(), ops: vec![Op::DeleteTable] };
        match nft.commit(&transaction, Some(generation)) {
            Err(Error::Interrupted) => {}
            result => return result.map(|()| true),
        }
    }
    Err(Error::Interrupted)
}

/// Reads the table of the name and the comment of `ours`.
///
/// # Errors
/// [`Error::ForeignTable`] if the table of that name has another comment.
pub fn read_own_table(nft: &mut Nft, ours: &Table) -> Result<TableSnapshot, Error> {
    // Read before the table: a commit for this generation fails if the table is made meanwhile.
    let generation = nft.generation()?;
    if read_own_head(nft, ours)?.is_none() {
        return Ok(TableSnapshot { generation, loaded: None });
    }
    let snapshot = nft.table(&ours.name)?;
    // Another process may have replaced the table between the two reads.
    if let Some(loaded) = &snapshot.loaded {
        check_comment(&loaded.table, ours)?;
    }
    Ok(snapshot)
}

/// Reads name, comment and flags of the table of the name and the comment of `ours`.
///
/// # Errors
/// [`Error::ForeignTable`] if the table of that name has another comment.
pub fn read_own_head(nft: &mut Nft, ours: &Table) -> Result<Option<Table>, Error> {
    let head = nft.table_head(&ours.name)?;
    if let Some(found) = &head {
        check_comment(found, ours)?;
    }
    Ok(head)
}

fn check_comment(found: &Table, ours: &Table) -> Result<(), Error> {
    if found.comment == ours.comment {
        return Ok(());
    }
    Err(Error::ForeignTable {
        table: ours.name.clone(),
        reason: match &found.comment {
            Some(comment) => format!("its comment is {comment:?}"),
            None => "it has no comment".to_owned(),
        },
    })
}

/// Number of reads before the table counts as another. A dump of a large set right after its elements
/// were added may leave some out, because the set's hash table is still growing.
const MAX_READ_BACKS: usize = 3;

/// Returns whether the kernel holds the table. Fails if it does not and no other process changed it.
fn verify(nft: &mut Nft, desired: &Table, before: u32) -> Result<bool, Error> {
    let desired = desired.clone().normalized();
    let mut found = None;
    for _ in 0..MAX_READ_BACKS {
        let TableSnapshot { generation, loaded } = nft.table(&desired.name)?;
        found = loaded.map(|LoadedTable { table, .. }| table.normalized());
        if found.as_ref() == Some(&desired) {
            return Ok(true);
        }
        if generation == before {
            return Err(Error::AnswerLost);
        }
        if generation != before.wrapping_add(1) {
            return Ok(false);
        }
    }
    let found = found.as_ref().map_or_else(String::new, crate::text::table);
    Err(Error::ReadBack(first_difference(&crate::text::table(&desired), &found)))
}

fn first_difference(meant: &str, found: &str) -> String {
    let differs = |(meant, found): &(&str, &str)| meant != found;
    let Some((meant, found)) = meant.lines().zip(found.lines()).find(differs) else {
        return "lines are missing, or there are more of them".to_owned();
    };
    let same = meant.chars().zip(found.chars()).take_while(|(meant, found)| meant == found).count();
    // All elements of a set stand in one line.
    let excerpt =
        |line: &str| line.chars().skip(same.saturating_sub(60)).take(120).collect::<String>();
    format!("`{}` instead of `{}`", excerpt(found).trim(), excerpt(meant).trim())
}
