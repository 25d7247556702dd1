#![doc = include_str!("../README.md")]
//!
//! # Rooms
//!
//! ```text
//!        model   Table, Set, Chain, Rule, Expr: plain values        build, comment
//!          │                                                     make expressions and comments
//!    ┌─────┼──────────┬─────────────┐
//!    ▼     ▼          ▼             ▼
//!  text   diff      eval         foreign   tables of other programs,
//!         Table to  a packet's   translated as far as possible
//!         Table     verdict
//!          │
//!          ▼
//!    Transaction ──► wire   attributes, objects, batches, answers
//!                     │
//!                     ▼
//!    Nft   SockDiag   Rtnetlink          RulesetMonitor   Nflog
//!      │      │          │                     │            │
//!      └──────┴──────────┴──── socket.rs ──────┴────────────┘
//!                               the only file with I/O
//! ```
//!
//! # The way of a transaction
//!
//! 1. [`load()`] reads the ruleset's generation and then the table ([`Nft::table`]).
//! 2. [`diff()`] compares the two tables. Counters, and sets with state, stay if their definition
//!    stays.
//! 3. [`Nft::commit`] encodes the [`Transaction`] as one batch with that generation, and sends it
//!    once. If another process has changed the ruleset meanwhile, the kernel refuses the batch, and
//!    the load starts again.
//! 4. An error names the operation and the place in it ([`Refusal`]), and nothing was changed. If the
//!    answer is lost ([`Error::AnswerLost`]), only reading the table tells.
//! 5. [`load()`] reads the table back and compares it with the desired one.
//!
//! # Without a kernel
//!
//! [`Nft::from_exchange`] takes a function in place of a socket: bytes of a request in, bytes of the
//! answer out. So a test, or a program with a socket of its own, needs no more than that function:
//!
//! ```
//! use nfguard_netlink::{Error, Nft, Op, Transaction};
//!
//! // Answers as a kernel that commits the batch: an acknowledgement of its last operation, which is
//! // an NLMSG_ERROR with the number 0 and the operation's sequence number.
//! let acknowledge = |batch: &[u8]| {
//!     let end = batch.len() - 20;
//!     let seq = u32::from_ne_bytes(batch[end + 8..end + 12].try_into().expect("four bytes"));
//!     let (length, kind, flags) = (36u32.to_ne_bytes(), 2u16.to_ne_bytes(), [0; 2]);
//!     Ok([&length[..], &kind, &flags, &(seq - 1).to_ne_bytes(), &[0; 24]].concat())
//! };
//! let mut nft = Nft::from_exchange(acknowledge);
//! let mut transaction = Transaction::new("example");
//! transaction.ops.push(Op::AddTable { comment: None, awake: false });
//! nft.commit(&transaction, None)?;
//!
//! // An answer without an acknowledgement is no success.
//! let mut silent = Nft::from_exchange(|_| Ok(Vec::new()));
//! assert!(matches!(silent.commit(&transaction, None), Err(Error::AnswerLost)));
//! # Ok::<(), Error>(())
//! ```
//!
//! # What it does not do
//!
//! - Maps, flowtables, quotas, named limits and tables of other families than `inet`. They are not
//!   written; in tables of other programs they are read as [`Expr::Unknown`] or left out.
//! - Changes of tables of other programs ([`Nft::foreign_tables`] only reads).
//! - Netlink families other than nf_tables, connection tracking, NFLOG, sock_diag and rtnetlink.
//! - Threads, timers, retries over time, log lines. A call sends, receives and returns.
//!
//! # Kernels and features
//!
//! The oldest kernel that this is tested on is Linux 6.1. An item that needs a later kernel says so:
//! [`load_owned`] and [`Op::OwnTable`] need Linux 6.9.
//!
//! The feature `socket` (on by default) adds `Nft::open` and the other functions that open sockets.
//! Without it the crate is pure: no sockets, no files, no clock, no `libc`.

#![deny(clippy::indexing_slicing, clippy::cast_possible_truncation)]
#![cfg_attr(not(feature = "socket"), allow(dead_code, reason = "only sockets use it"))]

pub mod build;
pub mod comment;
mod conntrack;
mod diff;
mod elements;
mod error;
pub mod eval;
mod foreign;
mod ip_version;
mod load;
mod model;
mod monitor;
mod nflog;
mod nft;
mod ownership;
mod packet;
mod rtnetlink;
mod sock_diag;
#[cfg(feature = "socket")]
mod socket;
mod symbols;
pub mod text;
mod transaction;
mod wire;

pub use conntrack::{Connection, ConnectionPhase, ConnectionTuple, OpenConnection};
pub use diff::diff;
#[cfg(feature = "socket")]
pub use elements::KeyDump;
pub use error::{DecodeError, Error, Refusal};
pub use foreign::{
    Family, ForeignChain, ForeignFilter, ForeignRule, ForeignSourceNat, ForeignTable,
    ForeignVerdict, Nat, Published,
};
pub use ip_version::{IpVersion, PerIpVersion, address_from_bytes};
pub use load::{
    LoadPlan, TableChange, load, load_after, plan_load, read_own_head, read_own_table, unload,
};
pub use model::{
    Base, Chain, ChainPolicy, CmpOp, Counter, Counts, CtHelper, CtKey, Dynset, Element, Expr,
    Header, Hook, Key, KeyType, Limit, LiveElement, Log, LogTo, MetaKey, Reg, Reject, Rule, Set,
    Table, Verdict,
};
pub use monitor::RulesetEvent;
#[cfg(feature = "socket")]
pub use monitor::RulesetMonitor;
pub use nflog::LoggedPacket;
#[cfg(feature = "socket")]
pub use nflog::{Nflog, NflogEvent};
pub use nft::{LoadedTable, Nft, TableSnapshot};
pub use ownership::{Ownership, load_owned};
pub use packet::ParsedPacket;
pub use rtnetlink::{
    InterfaceAddress, Link, NextHop, Route, RouteAnswer, RouteQuestion, Rtnetlink,
};
pub use sock_diag::{ListeningSocket, SockDiag};
pub use symbols::{ICMP_TYPES, ICMPV6_TYPES, ct_state, ct_status, fib_type, protocol, tcp_flag};
pub use transaction::{Op, Transaction};
pub use wire::element::{ElementOptions, Elements};
