//! Errors that name the object and quote the kernel.

use std::fmt;
use std::io;

/// Reports bytes that a kernel would not send, or that this crate has no words for.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum DecodeError {
    /// A header announces more bytes than there are.
    #[error("{rest} bytes at the end are no whole message or attribute")]
    Truncated {
        /// The number of bytes that are left.
        rest: usize,
    },
    /// A value has the wrong length.
    #[error("attribute {kind} has {found} bytes instead of {expected}")]
    Length {
        /// The attribute's type.
        kind: u16,
        /// The number of bytes that it should have.
        expected: usize,
        /// The number of bytes that it has.
        found: usize,
    },
    /// An object lacks an attribute that every object of its kind has.
    #[error("a {object} has no {attribute}")]
    Missing {
        /// nft's word for the object.
        object: &'static str,
        /// The absent attribute.
        attribute: &'static str,
    },
    /// A value that this version of nfguard does not know.
    #[error("a {object} has {attribute} {value}, which this version of nfguard does not know")]
    Unknown {
        /// nft's word for the object.
        object: &'static str,
        /// The property.
        attribute: &'static str,
        /// The value.
        value: String,
    },
}

/// Reports why the kernel was not asked, did not answer, or refused.
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
        /// The number of bytes of the whole batch.
        bytes: usize,
        /// The number of bytes that the socket takes.
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
    /// Another process changed the ruleset after it was read. Nothing was changed.
    #[error("another process changed the ruleset in between. Nothing was changed")]
    Interrupted,
    /// The kernel's answer was lost, so a transaction may be committed or not. Read the ruleset
    /// back.
    #[error("the kernel's answer was lost: read the ruleset back to see what holds")]
    AnswerLost,
    /// nfguard did not make the table of this name. Nothing was changed.
    #[error(
        "table inet {table} exists and was not made by nfguard: {reason}. Nothing was changed; \
         if it may go, remove it with `nft delete table inet {table}`"
    )]
    ForeignTable {
        /// The table's name.
        table: String,
        /// What tells it from a table of nfguard.
        reason: String,
    },
    /// The kernel committed the transaction, and holds something else.
    #[error("the kernel holds something else than was loaded: {0}")]
    ReadBack(String),
    /// Another program reads the packets that are logged to this group.
    #[error(
        "another program reads NFLOG group {0} (ulogd, or `nfguard log`?), and the kernel serves one \
         reader per group: stop that program, or have the policy log to another group"
    )]
    GroupTaken(u16),
    /// The kernel's answer cannot be read.
    #[error("the kernel's answer cannot be read: {0}")]
    Decode(#[from] DecodeError),
    /// The socket failed.
    #[error("netlink: {0}")]
    Io(#[from] io::Error),
}

/// Names one operation that the kernel refused.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Refusal {
    /// The operation as an nft command; `None` for the transaction as a whole.
    pub operation: Option<String>,
    /// The place in the operation, if the kernel names one.
    pub place: Option<String>,
    /// The kernel's error number.
    pub errno: i32,
    /// The kernel's own message, or what its number means for this operation.
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
