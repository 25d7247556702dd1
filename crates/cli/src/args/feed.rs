//! Arguments of `feed`.

use std::path::PathBuf;

use clap::Subcommand;

use super::list::ListRequest;

#[derive(Debug, Subcommand)]
pub(crate) enum FeedVerb {
    /// Add a list, or replace the list of the same name without a gap
    Add {
        /// At most 32 letters, digits, `-`, `_` and `.`
        name: String,
        /// The list, also with gzip: one address, prefix or range a line; a table; JSON of a provider;
        /// a set of ipset or nft; `-` is standard input
        file: PathBuf,
        #[command(flatten)]
        list: ListRequest,
    },
    /// List the active feeds with the packets that each has dropped
    List,
    /// Remove a list; exit status 1 if there is no list of this name
    Remove {
        /// The name that `feed add` was given
        name: String,
    },
}
