//! Timed bans of addresses and prefixes in nftables sets, for ban tools to embed.
//!
//! ```no_run
//! use std::time::Duration;
//! use nfguard_ban::{Ban, Bans, NeverBan, Target};
//!
//! let never = NeverBan::default().and("192.0.2.10".parse()?, "the operator");
//! let mut bans = Bans::open(never)?;
//! let target: Target = "203.0.113.7".parse()?;
//! bans.ban(Ban {
//!     target: bans.admit(target)?,
//!     lasts: Some(Duration::from_secs(3600)),
//!     source: "my-tool".to_owned(),
//!     reason: "5 failed logins".to_owned(),
//!     since: None,
//! })?;
//! # Ok::<(), Box<dyn std::error::Error>>(())
//! ```
//!
//! Bans lie in a table of their own, `inet nfguard_bans`, which drops a banned source's packets
//! ahead of connection tracking: for the host and for containers alike, established connections
//! included. No other table is read or written, so this works beside any firewall.
//!
//! The oldest kernel that this is tested on is Linux 6.1.

mod bans;
mod layout;
mod never;
mod note;
mod target;

pub use bans::{Active, Ban, Bans, Error, Made};
pub use layout::{MARK, TABLE};
pub use never::{Admitted, NeverBan, Refused};
pub use target::{InvalidTarget, Target};
