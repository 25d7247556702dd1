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
//! # The way of a ban
//! ```text
//!  "203.0.113.7"
//!       │ parse: host bits cleared, IPv4 written as IPv6 is IPv4
//!       ▼
//!    Target ──► NeverBan::admit ──► Refused { entry }
//!                    │
//!                    ▼
//!                Admitted ──► Ban { target, port, duration, source, reason }
//!                                │ one transaction, about 3 µs
//!                                ▼
//!       table inet nfguard_bans:  set v4/32 { 203.0.113.7 timeout 1h comment "my-tool @… …" }
//!                                ▲
//!       prerouting, raw: drop if the source is in a set, and is no never-ban entry
//! ```
//! Only [`NeverBan::admit`] makes an [`Admitted`] target, and only that can be banned. This part
//! needs no kernel:
//!
//! ```
//! use nfguard_ban::ipnetwork::IpNetwork;
//! use nfguard_ban::{NeverBan, NeverBanKind, Target};
//!
//! let office: IpNetwork = "198.51.100.0/24".parse()?;
//! let never_ban = NeverBan::default().with(office, NeverBanKind::by_hand("the office"));
//!
//! assert!(never_ban.admit("203.0.113.7".parse()?).is_ok());
//! let refused = never_ban.admit("198.51.0.0/16".parse()?).expect_err("contains the office");
//! assert_eq!(
//!     refused.to_string(),
//!     "198.51.0.0/16 is not banned: it would ban 198.51.100.0/24 (the office), which is on the \
//!      never-ban list"
//! );
//! # Ok::<(), Box<dyn std::error::Error>>(())
//! ```
//!
//! # What a ban does
//! The kernel drops the next packet of the target, and every one after it: ahead of connection
//! tracking and of Docker's address translation, for the host and for containers alike, established
//! connections included. What this host sends to the target still leaves it, unless
//! [`Bans::set_outgoing`] says otherwise.
//!
//! Bans lie in a table of their own, `inet nfguard_bans`. No other table is read or written, but for
//! the sets of [`scan`]. So bans work beside any firewall, and no other firewall's reload ends a
//! ban. The kernel ends each ban at its time, whether this process runs or not.
//!
//! # Whose a ban is
//! A ban belongs to its source, and bans of one target by several sources are independent of each
//! other: the kernel drops until the last of them ends. [`Bans::unban_of`] ends the ban of one
//! source. [`Bans::unban`] is the operator's word and ends all.
//!
//! # What it costs
//! A ban is one transaction of about 3 µs, however many bans are in force. A million in one call of
//! [`Bans::ban_all`] take about a second, nearly all of it the kernel's, and 5 MB. To ban a target
//! that is banned already takes about 10 ms, because the kernel aborts a transaction. Listing
//! ([`Bans::list`], [`Bans::flush`], [`Bans::replace`]) is for operators: its time grows with the
//! square of the number, a third of a second for 100,000 bans and a minute for a million.
//! (Linux 6.18, two cores.)
//!
//! # Threads and processes
//! Calls block, for as long as the kernel takes. [`Bans`] is `Send`, has no thread of its own and
//! needs no async runtime. It belongs to the network namespace of the thread that opened it. Any
//! number of processes may have it open at once: none overwrites what another did. A process that
//! watches over the table keeps a [`BanMirror`] of it.
//!
//! # What is never banned
//! The never-ban list in the kernel is what all programs on the host have said together, and the
//! kernel's rules pass its addresses too. An entry stays when the program ends that named it, until
//! [`Bans::replace_never_ban`] or [`Bans::remove_never_ban`] removes it (a program that runs keeps
//! to the entries that it named itself). But this host's own addresses, gateways and name servers
//! stay only as long as they are its own, and the peer of an SSH session stays for a week.
//!
//! # Lists that others publish
//! Very many prefixes that come and go together are a [`Feed`], not bans: no prefix in it has a time
//! of its own, and the next list of its name replaces it in one step.
//!
//! ```no_run
//! # let mut bans = nfguard_ban::Bans::open(nfguard_ban::NeverBan::of_this_host()?)?;
//! let mut feed = nfguard_ban::Feed::default();
//! feed.add("45.9.20.0/24".parse()?);
//! bans.set_feed("drop", &feed.clean(bans.never_ban()))?;
//! # Ok::<(), Box<dyn std::error::Error>>(())
//! ```
//!
//! Private and reserved addresses are removed from a feed, those for documentation too.
//!
//! # After a reboot
//! Nothing of all this is left, as after another program's `flush ruleset` without a guard. This
//! library writes no file: what a program puts in by it, that program puts in again.
//! [`Bans::is_new`] tells that there was no table. To have bans again, write down [`Bans::list`] and
//! when each ban ends, and give them to [`Bans::ban_all`]; or let `nfguard save` and `nfguard boot` do
//! it, which keep the bans of all programs. Feeds go to [`Bans::set_feed`] and never-ban entries to
//! [`Bans::add_never_ban`] again. The program `nfguard` writes down what its own commands put in.
//!
//! # Errors
//! Without the privilege each call fails with [`Error::Kernel`] of
//! [`Permission`](nfguard_netlink::Error::Permission). Each function says what else can stop it.
//!
//! # Requirements
//! `CAP_NET_ADMIN` in the network namespace, nf_tables, Linux 6.1 or newer (the oldest that this is
//! tested on).

mod address;
mod addresses;
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
mod mirror;
mod never_ban;
mod never_sets;
mod plan;
pub mod scan;
mod table_state;
mod target;

// They are part of the interface: of errors, never-ban entries and feeds.
pub use {ipnetwork, nfguard_netlink};

pub use addresses::{Addresses, InvalidTarget};
pub use ban::{ActiveBan, Ban, BanCounts, BanOutcome, ReplacedBans};
pub use bans::{ActiveFeed, Bans};
pub use comment::source_name;
pub use day::{Day, InvalidDay, Moment};
pub use error::Error;
pub use feed::{CleanFeed, Feed, InvalidRange, WidestEntry};
pub use layout::{Outgoing, TABLE, table_identity};
pub use mirror::{BanChange, BanMirror, RecordWrite, RestoredBans, SLOT_BYTES, recorded_targets};
pub use never_ban::{Admitted, NeverBan, NeverBanEntry, NeverBanKind, Refused};
pub use target::{InvalidPort, Port, Protocol, Target};
