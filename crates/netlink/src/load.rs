//! Put a table into the kernel, or take it out, and make sure.

use crate::diff::diff;
use crate::error::Error;
use crate::model::Table;
use crate::nft::{LoadedTable, Nft, Snapshot};
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
/// left alone. If somebody put things into ours that nfguard has no words for (a map, a chain that
/// does address translation), the whole table is made anew, and what it had counted is lost.
///
/// # Errors
/// Nothing was changed unless it is [`Error::ReadBack`].
pub fn load(kernel: &mut Nft, desired: &Table) -> Result<Change, Error> {
    load_after(kernel, desired, |_| Ok(()))
}

/// As [`load`], with something to be done before each commit that is tried, once it is known what
/// that will change. If it fails, nothing is loaded.
///
/// # Errors
/// As [`load`], and those of `prepare`.
pub fn load_after<E: From<Error>>(
    kernel: &mut Nft,
    desired: &Table,
    mut prepare: impl FnMut(&Transaction) -> Result<(), E>,
) -> Result<Change, E> {
    for _ in 0..ATTEMPTS {
        let (snapshot, transaction) = plan(kernel, desired)?;
        let before = snapshot.loaded.map(|loaded| loaded.table);
        if transaction.is_empty() {
            return Ok(Change { before, transaction, verified: true });
        }
        prepare(&transaction)?;
        match commit_or_look(kernel, &transaction, snapshot.generation, desired) {
            Err(Error::Interrupted) => {}
            verified => return Ok(Change { before, transaction, verified: verified? }),
        }
    }
    Err(Error::Interrupted.into())
}

/// Commits, and says whether the kernel was seen to hold the table afterwards;
/// [`Error::Interrupted`] if nothing was done.
pub(crate) fn commit_or_look(
    kernel: &mut Nft,
    transaction: &Transaction,
    generation: u32,
    desired: &Table,
) -> Result<bool, Error> {
    match kernel.commit(transaction, Some(generation)) {
        // Whether it was committed is seen from what the kernel holds.
        outcome @ (Ok(()) | Err(Error::Unknown)) => match verify(kernel, desired, generation) {
            Err(Error::Interrupted) => outcome.map(|()| false),
            Err(Error::Decode(error)) => Err(Error::ReadBack(error.to_string())),
            verified => verified,
        },
        Err(error) => Err(error),
    }
}

/// What [`load`] would do now, and to what.
///
/// # Errors
/// [`Error::Foreign`] if a table of that name is not ours.
pub fn plan(kernel: &mut Nft, desired: &Table) -> Result<(Snapshot, Transaction), Error> {
    let generation = kernel.generation()?;
    let snapshot = match own_table(kernel, desired) {
        Err(Error::Decode(_)) => {
            let mut transaction = diff(None, desired);
            transaction.ops.insert(0, Op::DeleteTable);
            return Ok((Snapshot { generation, loaded: None }, transaction));
        }
        snapshot => snapshot?,
    };
    let current = snapshot.loaded.as_ref().map(|loaded| &loaded.table);
    let transaction = diff(current, desired);
    Ok((snapshot, transaction))
}

/// Removes the table of this name if it has the same comment; `false` if there was none.
///
/// # Errors
/// [`Error::Foreign`] if a table of that name is not ours.
pub fn unload(kernel: &mut Nft, ours: &Table) -> Result<bool, Error> {
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
pub fn own_table(kernel: &mut Nft, ours: &Table) -> Result<Snapshot, Error> {
    // Before the look at the table: a commit for this generation then fails if one was made since.
    let generation = kernel.generation()?;
    if own_head(kernel, ours)?.is_none() {
        return Ok(Snapshot { generation, loaded: None });
    }
    let snapshot = kernel.table(&ours.name)?;
    // The name may have got a new owner between the two reads.
    if let Some(loaded) = &snapshot.loaded {
        own(&loaded.table, ours)?;
    }
    Ok(snapshot)
}

/// Name, comment and flags of the table of this name, if it is ours.
///
/// # Errors
/// [`Error::Foreign`] if a table of that name is not ours.
pub fn own_head(kernel: &mut Nft, ours: &Table) -> Result<Option<Table>, Error> {
    let head = kernel.table_head(&ours.name)?;
    if let Some(found) = &head {
        own(found, ours)?;
    }
    Ok(head)
}

fn own(found: &Table, ours: &Table) -> Result<(), Error> {
    if found.comment == ours.comment {
        return Ok(());
    }
    Err(Error::Foreign {
        table: ours.name.clone(),
        reason: match &found.comment {
            Some(comment) => format!("its comment is {comment:?}"),
            None => "it has no comment".to_owned(),
        },
    })
}

/// How often the table is read back before it counts as another: a dump of a large set that was
/// only just filled may leave elements out, because its hash table is still growing.
const READS_BACK: usize = 3;

/// Whether the kernel holds the table; an error if it does not and nobody else was at it.
fn verify(kernel: &mut Nft, desired: &Table, before: u32) -> Result<bool, Error> {
    let desired = desired.clone().normalized();
    let mut found = None;
    for _ in 0..READS_BACK {
        let Snapshot { generation, loaded } = kernel.table(&desired.name)?;
        found = loaded.map(|LoadedTable { table, .. }| table.normalized());
        if found.as_ref() == Some(&desired) {
            return Ok(true);
        }
        if generation == before {
            return Err(Error::Unknown);
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
        return "something is missing or was added".to_owned();
    };
    let same = meant.chars().zip(found.chars()).take_while(|(meant, found)| meant == found).count();
    // A set's elements stand in one line, however many they are.
    let excerpt =
        |line: &str| line.chars().skip(same.saturating_sub(60)).take(120).collect::<String>();
    format!("`{}` instead of `{}`", excerpt(found).trim(), excerpt(meant).trim())
}
