//! Arguments of verbs that read lists.

use std::time::SystemTime;

use clap::Args as ClapArgs;
use nfguard_control::lists;

// How a list is read, and what may be wrong with it.
#[derive(Debug, ClapArgs)]
pub(crate) struct ListRequest {
    /// The column or the JSON key with the addresses, by its name, or the number of a column from 1
    #[arg(long, value_name = "NAME")]
    pub(crate) column: Option<String>,
    /// The set to take of a file of ipset or nft with several sets
    #[arg(long, value_name = "NAME")]
    pub(crate) set: Option<String>,
    /// Skip bad lines, take the rest, and exit with 1
    #[arg(long)]
    pub(crate) skip_bad_lines: bool,
    /// Take a list, or ban a wide prefix, that shuts out a large part of all addresses or of the
    /// connected peers; take a list that is empty or has lost half of its ranges
    #[arg(long)]
    pub(crate) force: bool,
}

impl ListRequest {
    pub(crate) fn options(&self) -> lists::Options<'_> {
        let (column, set) = (self.column.as_deref(), self.set.as_deref());
        lists::Options { column, set, now: SystemTime::now() }
    }

    /// Returns the first option that was given and says nothing about targets on the command line.
    pub(crate) fn of_lists_alone(&self) -> Option<&'static str> {
        let given = [("--column", self.column.is_some()), ("--set", self.set.is_some())];
        given.into_iter().find(|(_, is_given)| *is_given).map(|(option, _)| option)
    }
}
