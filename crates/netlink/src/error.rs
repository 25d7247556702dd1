//! What can go wrong, in words that name the object and quote the kernel.

use std::fmt;
use std::io;

/// Bytes that are not what the kernel would send.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum DecodeError {
    /// A header announces more bytes than there are.
    #[error("{rest} bytes at the end are no whole message or attribute")]
    Truncated {
        /// How many bytes are left.
        rest: usize,
    },
    /// A number has the wrong size.
    #[error("attribute {kind} has {found} bytes instead of {expected}")]
    Length {
        /// The attribute's type.
        kind: u16,
        /// Bytes that it should have.
        expected: usize,
        /// Bytes that it has.
        found: usize,
    },
    /// An attribute that each such object has is absent.
    #[error("a {object} without its {attribute}")]
    Missing {
        /// nft's word for the object.
        object: &'static str,
        /// What is absent.
        attribute: &'static str,
    },
    /// A value that this version of nfguard does not know.
    #[error("a {object} with {attribute} {value}, which this version of nfguard does not know")]
    Unknown {
        /// nft's word for the object.
        object: &'static str,
        /// Which property.
        attribute: &'static str,
        /// Its value.
        value: String,
    },
}

/// Why the kernel was not asked, did not answer, or refused.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum Error {
    /// The process may not change the firewall of this network namespace.
    #[error(
        "no permission: changing nftables needs CAP_NET_ADMIN (run as root, or rehearse with \
         `nfguard try`)"
    )]
    Permission,
    /// The kernel was built without nf_tables, or its module cannot be loaded.
    #[error("this kernel has no nf_tables: {0}")]
    NoNftables(io::Error),
    /// The transaction is larger than the socket can send at once. Nothing was sent.
    #[error(
        "the transaction has {bytes} bytes and this socket sends at most {limit} at once; with \
         CAP_NET_ADMIN outside of a user namespace there is no such limit. Nothing was changed"
    )]
    TooLarge {
        /// Bytes of the whole batch.
        bytes: usize,
        /// Bytes that the socket takes.
        limit: usize,
    },
    /// One object does not fit a netlink message. Nothing was sent.
    #[error("{operation}: attribute {attribute} is longer than 65,535 bytes. Nothing was changed")]
    TooLong {
        /// The operation.
        operation: String,
        /// The attribute's type.
        attribute: u16,
    },
    /// The kernel refused the transaction. Nothing was changed.
    #[error("{}", Refusals(.0))]
    Refused(Vec<Refusal>),
    /// Somebody else changed the ruleset since it was read. Nothing was changed.
    #[error("the ruleset was changed by another process in between. Nothing was changed")]
    Interrupted,
    /// The kernel's answers were lost, so it is not known whether the transaction was committed.
    #[error("the kernel's answer was lost: read the ruleset back to see what holds")]
    Unknown,
    /// A table of our name that nfguard did not make. Nothing was changed.
    #[error(
        "table inet {table} exists and was not made by nfguard: {reason}. Nothing was changed; \
         if it may go, remove it with `nft delete table inet {table}`"
    )]
    Foreign {
        /// Its name.
        table: String,
        /// What gives it away.
        reason: String,
    },
    /// The kernel took the transaction, but holds something else than was meant.
    #[error("the kernel holds something else than was loaded: {0}")]
    ReadBack(String),
    /// Somebody else reads what is logged to this group.
    #[error(
        "another program reads NFLOG group {0} (ulogd, or `nfguard log`?), and the kernel tells each \
         group to one only: end that one, or have the policy log to another group"
    )]
    GroupTaken(u16),
    /// The kernel's answer makes no sense.
    #[error("the kernel's answer cannot be read: {0}")]
    Decode(#[from] DecodeError),
    /// The socket failed.
    #[error("netlink: {0}")]
    Io(#[from] io::Error),
}

/// One operation that the kernel refused.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Refusal {
    /// What was to be done, as nft would say it; `None` for the transaction as a whole.
    pub operation: Option<String>,
    /// Where in the operation, as far as the kernel says.
    pub place: Option<String>,
    /// The kernel's error number.
    pub errno: i32,
    /// The kernel's own words, if it had any.
    pub message: Option<String>,
}

impl fmt::Display for Refusal {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let operation = self.operation.as_deref().unwrap_or("the ruleset as a whole");
        write!(f, "{operation}: {}", io::Error::from_raw_os_error(self.errno))?;
        if let Some(message) = &self.message {
            write!(f, ": {message}")?;
        }
        match &self.place {
            Some(place) => write!(f, " ({place})"),
            None => Ok(()),
        }
    }
}

struct Refusals<'a>(&'a [Refusal]);

impl fmt::Display for Refusals<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("the kernel refused, and nothing was changed:")?;
        self.0.iter().try_for_each(|refusal| write!(f, "\n  {refusal}"))
    }
}
