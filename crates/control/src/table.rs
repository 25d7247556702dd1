//! The policy's table in the kernel.

use nfguard_netlink::{Op, Table, Transaction, diff};
use nfguard_policy::{TABLE, TABLE_COMMENT};

/// Returns the name and the comment that tell our table.
pub fn ours() -> Table {
    Table { name: TABLE.to_owned(), comment: Some(TABLE_COMMENT.to_owned()), ..Table::default() }
}

/// Returns the transaction that removes our table.
pub(crate) fn removal() -> Transaction {
    Transaction { table: TABLE.to_owned(), ops: vec![Op::DeleteTable] }
}

/// Returns the transaction that replaces our table, or removes it, whatever the kernel holds. Nothing
/// is read for it.
pub(crate) fn replacement(table: Option<&Table>) -> Transaction {
    let ours = ours();
    // The first one, because a table that is absent cannot be deleted.
    let mut ops = vec![Op::AddTable { comment: ours.comment, awake: false }, Op::DeleteTable];
    ops.extend(table.into_iter().flat_map(|table| diff(None, table).ops));
    Transaction { table: ours.name, ops }
}
