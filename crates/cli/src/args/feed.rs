//! Arguments of `feed`.

use std::path::PathBuf;

use clap::Subcommand;

#[derive(Debug, Subcommand)]
pub(crate) enum FeedVerb {
    /// Add a list, or replace the list of the same name without a gap
    Add {
        /// At most 32 letters, digits, `-`, `_` and `.`
        name: String,
        /// FireHOL netset, Spamhaus DROP (text or JSON), ranges, or one address or prefix a line;
        /// `-` is standard input
        file: PathBuf,
        /// Skip bad lines, add the rest, and exit with 1
        #[arg(long)]
        skip_bad_lines: bool,
    },
    /// List the active feeds with the packets that each has dropped
    List,
    /// Remove a list; exit status 1 if there is no list of this name
    Remove {
        /// The name that `feed add` was given
        name: String,
    },
}
