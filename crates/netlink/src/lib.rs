//! The nf_tables ruleset as a value: model, netlink encoding, nft text, evaluation and difference.
//!
//! A [`Table`] is a plain value, the same on every machine. [`load()`] makes the kernel hold it, in
//! one transaction, and reads it back; [`text`] prints it as nft would; [`eval`] says what it does
//! with a packet, without a kernel. [`Nft::connections`] lists the connections that are tracked,
//! [`Nft::listening`] the sockets that wait for some, and [`Nft::foreign`] the tables that
//! others have made, which are only ever read. [`Nflog`] hears of the packets that rules log.
//!
//! Everything but `socket.rs` is pure: no sockets, no files, no clock. Without the feature
//! `socket` nothing else is left, and [`Nft::from_exchange`] takes any function from request to answer.
//!
//! Tables are of the `inet` family, which covers IPv4 and IPv6. The oldest kernel that this is
//! tested on is Linux 6.1.

#![deny(clippy::indexing_slicing, clippy::cast_possible_truncation)]
#![cfg_attr(not(feature = "socket"), allow(dead_code, reason = "what sockets alone ask and hear"))]

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

pub use conntrack::{Connection, ConnectionTuple};
pub use diff::diff;
pub use error::{DecodeError, Error, Refusal};
pub use foreign::{
    Family, Foreign, ForeignChain, ForeignRule, ForeignVerdict, Gate, Nat, Published,
};
pub use ip_version::{IpVersion, PerIpVersion, address_from_bytes};
pub use load::{Change, load, load_after, own_head, own_table, plan, unload};
pub use model::{
    Base, Chain, ChainPolicy, CmpOp, Counter, Counts, CtKey, Dynset, Element, Expr, Header, Hook,
    Key, KeyType, Limit, LiveElement, Log, LogTo, MetaKey, Reg, Reject, Rule, Set, Table, Verdict,
};
pub use monitor::RulesetEvent;
#[cfg(feature = "socket")]
pub use monitor::RulesetMonitor;
pub use nflog::LoggedPacket;
#[cfg(feature = "socket")]
pub use nflog::{Nflog, NflogEvent};
pub use nft::{LoadedTable, Nft, Snapshot};
pub use ownership::{Ownership, own};
pub use packet::ParsedPacket;
pub use rtnetlink::{InterfaceAddress, NextHop, Route, Rtnetlink};
pub use sock_diag::{ListeningSocket, SockDiag};
pub use symbols::{ICMP_TYPES, ICMPV6_TYPES, ct_state, ct_status, fib_type, protocol, tcp_flag};
pub use transaction::{Op, Transaction};
pub use wire::element::{Attached, Elements};
