//! Why bans could not be read or changed.

use nfguard_netlink::Refusal;

use crate::ban::BanCounts;
use crate::layout::{MARK, TABLE};
use crate::never_ban::Refused;

/// Why bans could not be read or changed.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum Error {
    /// The ban would hit a never-ban entry.
    #[error(transparent)]
    NeverBanned(#[from] Refused),
    /// A set has no room for more bans. Nothing was changed.
    #[error(
        "no room for {more} more bans: {set} holds {held} of at most {size}; end some, or ban \
         prefixes in place of addresses"
    )]
    Full {
        /// The set's name.
        set: String,
        /// How many bans it has.
        held: u64,
        /// How many bans it can have.
        size: u32,
        /// How many bans were to be added.
        more: usize,
    },
    /// The never-ban list has too many single addresses. Nothing was changed.
    #[error(
        "no room for {entries} single addresses on the never-ban list, which holds {size} of each \
         IP version; name prefixes in their place"
    )]
    TooManyEntries {
        /// How many single addresses there would be.
        entries: usize,
        /// How many there can be.
        size: u32,
    },
    /// The table was made by a version of this crate that has another layout. Nothing was changed.
    #[error(
        "the bans were made by another version of nfguard ({found:?}, this one makes {MARK:?}). \
         Nothing was changed; save them with that version, remove table inet {TABLE} and ban them \
         again"
    )]
    OtherVersion {
        /// The table's comment.
        found: String,
    },
    /// A feed cannot have this name.
    #[error("{name:?} is no name for a feed; expected 1 to 32 letters, digits, `-`, `_` and `.`")]
    InvalidFeedName {
        /// The name, as it was given.
        name: String,
    },
    /// Another process put in the same feed meanwhile. What it has put in holds.
    #[error("another process changed feed {name} meanwhile; what it put in holds")]
    FeedInUse {
        /// The feed's name.
        name: String,
    },
    /// A part of a long list is in force, the rest is not.
    #[error("{} of the list are banned, the rest is not: {error}", done.all())]
    Partly {
        /// What became of the bans before the failure.
        done: BanCounts,
        /// What stopped it.
        error: Box<Error>,
    },
    /// The kernel refused, or could not be asked.
    #[error(transparent)]
    Kernel(#[from] nfguard_netlink::Error),
}

/// `errno`s, the same on every architecture.
pub(crate) mod errno {
    pub(crate) const EPERM: i32 = 1;
    pub(crate) const ENOENT: i32 = 2;
    pub(crate) const EEXIST: i32 = 17;
    pub(crate) const ENFILE: i32 = 23;
}

/// Tells whether the kernel refused an operation for this reason.
pub(crate) fn is_refused_with(outcome: &Result<(), nfguard_netlink::Error>, errno: i32) -> bool {
    outcome.as_ref().is_err_and(|error| is_refusal(error, errno))
}

/// Tells whether an error is the kernel's refusal for this reason.
pub(crate) fn is_refusal(error: &nfguard_netlink::Error, errno: i32) -> bool {
    let is = |refusal: &Refusal| refusal.errno == errno;
    matches!(error, nfguard_netlink::Error::Refused(refusals) if refusals.iter().any(is))
}
