//! Arguments of `history`.

use clap::Subcommand;

#[derive(Debug, Subcommand)]
pub(crate) enum HistoryVerb {
    /// Print the policy of a load
    Show {
        /// Number of the load
        number: u64,
    },
    /// Compare two loads, or a load with what is loaded now; exit status 1 if they differ
    Diff {
        /// Number of the first load
        number: u64,
        /// Number of the second load [default: what is loaded now]
        other: Option<u64>,
    },
}
