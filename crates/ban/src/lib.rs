//! Timed bans of addresses and prefixes in nftables sets, for ban tools to embed.
//!
//! ```no_run
//! use std::time::Duration;
//! use nfguard_ban::{Ban, Bans, NeverBan};
//!
//! let mut bans = Bans::open(NeverBan::of_this_host()?)?;
//! bans.ban(&Ban {
//!     target: bans.admit("203.0.113.7".parse()?)?,
//!     port: None,
//!     duration: Some(Duration::from_secs(3600)),
//!     source: "my-tool",
//!     reason: "5 failed logins",
//!     created_at: None,
//! })?;
//! # Ok::<(), Box<dyn std::error::Error>>(())
//! ```
//!
//! # What a ban does
//! The next packet of the source is dropped, and every one after it: ahead of connection tracking
//! and of Docker's address translation, for the host and for containers alike, established
//! connections included. What this host sends to the source still leaves it.
//!
//! Bans lie in a table of their own, `inet nfguard_bans`. No other table is read or written, but for
//! the sets of [`scan`], so this works beside any firewall, and no other firewall's reload ends a
//! ban. The kernel ends each at its time, whether this process lives or not.
//!
//! # What it costs
//! A ban is one transaction of about 3 µs, whatever is in force already; a million in one call of
//! [`Bans::ban_all`] take about a second, nearly all of it the kernel's, and 5 MB. A ban of one who
//! is banned already waits for the kernel to abort a transaction, about 10 ms. Listing
//! ([`Bans::list`], [`Bans::flush`], [`Bans::replace`]) is for operators: its time grows with the
//! square of the number, a third of a second for 100,000 bans and a minute for a million.
//! (Linux 6.18, two cores.)
//!
//! # Threads and processes
//! Calls block, for as long as the kernel takes. [`Bans`] is `Send`, has no thread of its own and
//! needs no async runtime. It belongs to the network namespace of the thread that opened it. Any
//! number of processes may have it open at once: none overwrites what another did.
//!
//! # Whom it spares
//! Only what [`NeverBan`] has admitted can be banned, and the kernel's rules spare those on the
//! list once more. The list in the kernel is what all programs on the host have said together. An
//! ally stays on it when the program ends that named it, until [`Bans::replace_never_ban`] or
//! [`Bans::remove_never_ban`] says otherwise (a program that runs keeps to those that it named
//! itself); but this host's own addresses only as long as they are its own, and the peer of an SSH
//! session for a week.
//!
//! # Lists that others publish
//! Very many prefixes that come and go together are a [`Feed`], not bans: nobody in it has a time of
//! his own, and the next list of its name takes its place in one step.
//!
//! ```no_run
//! # let mut bans = nfguard_ban::Bans::open(nfguard_ban::NeverBan::of_this_host()?)?;
//! let mut feed = nfguard_ban::Feed::default();
//! feed.add("45.9.20.0/24".parse()?);
//! bans.set_feed("drop", &feed.clean(bans.never_ban()))?;
//! # Ok::<(), Box<dyn std::error::Error>>(())
//! ```
//!
//! Private and reserved addresses are taken out, those for documentation too.
//!
//! # After a reboot
//! Nothing of all this is left. Who wants bans back writes down [`Bans::list`], and when each ends,
//! and gives them to [`Bans::ban_all`], or has `nfguard save` and `nfguard restore` do it. Allies
//! and feeds have to be named again.
//!
//! # When it cannot be done
//! Without the privilege each call ends with [`Error::Kernel`] of
//! [`Permission`](nfguard_netlink::Error::Permission). What else can stop one stands with it.
//!
//! # Needs
//! `CAP_NET_ADMIN` in the network namespace, nf_tables, Linux 6.1 or newer (the oldest that this is
//! tested on).

mod address;
mod ban;
mod bans;
mod comment;
mod day;
mod element;
mod error;
mod feed;
#[cfg(feature = "socket")]
mod host;
mod layout;
mod never_ban;
mod never_sets;
mod plan;
pub mod scan;
mod table_state;
mod target;

// They are part of the interface: of errors, never-ban entries and feeds.
pub use {ipnetwork, nfguard_netlink};

pub use ban::{ActiveBan, Ban, BanCounts, BanOutcome};
pub use bans::{ActiveFeed, Bans};
pub use day::{Day, InvalidDay};
pub use error::Error;
pub use feed::{CleanFeed, Feed, InvalidRange};
pub use layout::{Outgoing, TABLE, is_intact, table_identity};
pub use never_ban::{Admitted, NeverBan, NeverBanEntry, NeverBanKind, Refused};
pub use target::{InvalidPort, InvalidTarget, Port, Protocol, Target};
