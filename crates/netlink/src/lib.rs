//! The nf_tables ruleset as a value: model, netlink encoding, nft text, evaluation and difference.
//!
//! A [`Table`] is a plain value, the same on every machine. [`load()`] makes the kernel hold it, in
//! one transaction, and reads it back; [`text`] prints it as nft would; [`eval`] says what it does
//! with a packet, without a kernel. [`Kernel::connections`] lists the connections that are tracked,
//! [`Kernel::listening`] the sockets that wait for some, and [`Kernel::foreign`] the tables that
//! others have made, which are only ever read. [`Nflog`] hears of the packets that rules log.
//!
//! Everything but `socket.rs` is pure: no sockets, no files, no clock. Without the feature
//! `socket` nothing else is left, and [`Kernel::with`] takes any function from request to answer.
//!
//! Tables are of the `inet` family, which covers IPv4 and IPv6. The oldest kernel that this is
//! tested on is Linux 6.1.

#![deny(clippy::indexing_slicing, clippy::cast_possible_truncation)]
#![cfg_attr(not(feature = "socket"), allow(dead_code, reason = "what sockets alone ask and hear"))]

mod attr;
mod conntrack;
mod diff;
mod element;
mod error;
pub mod eval;
#[cfg(feature = "socket")]
mod events;
mod expr;
mod foreign;
mod kernel;
mod listening;
mod live;
mod load;
mod logged;
mod message;
mod model;
mod news;
#[cfg(feature = "socket")]
mod nflog;
mod object;
mod own;
mod packet;
#[cfg(feature = "socket")]
mod socket;
pub mod text;
mod transaction;
mod uapi;
mod words;

pub use conntrack::{Connection, Flow};
pub use diff::diff;
pub use element::{Attached, Elements};
pub use error::{DecodeError, Error, Refusal};
#[cfg(feature = "socket")]
pub use events::Events;
pub use expr::{
    CmpOp, CtKey, Dynset, Expr, Header, Limit, Log, LogTo, MetaKey, Reg, Reject, Verdict,
};
pub use foreign::{Family, Foreign, ForeignChain, ForeignRule, Gate, Nat, Outcome, Published};
pub use kernel::{Kernel, Loaded, Snapshot};
pub use listening::Listening;
pub use load::{Change, load, own_head, own_table, plan, unload};
pub use logged::Logged;
pub use model::{
    Base, Chain, Counter, Counts, Element, Hook, Key, KeyType, LiveElement, Policy, Rule, Set,
    Table,
};
pub use news::News;
#[cfg(feature = "socket")]
pub use nflog::{LogNews, Nflog};
pub use own::{Holding, own};
pub use packet::Packet;
pub use transaction::{Op, Transaction};
pub use words::{ICMP_TYPES, ICMPV6_TYPES, ct_state, ct_status, fib_type, protocol, tcp_flag};
