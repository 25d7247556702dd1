//! The control plane of nfguard: it changes the policy in the kernel, guards it, and rolls it back.
//!
//! ```text
//!          boot       guard (event_loop, requests, …)      rollback (client, watchdog, snapshot)
//!            └───────────┐      │      ┌────────────────────────────┘
//!                        ▼      ▼      ▼
//!  load, unload ──▶ change: PolicyChange ──▶ lease            the guard lets go of the table
//!                        │             ├───▶ scan_bans        bans of the kernel outlive the table
//!                        │             ├───▶ history          one record for each load
//!                        │             ├───▶ open_connections those from before the first rules go on
//!                        │             └───▶ ban_table        what the policy says of bans
//!                        ▼
//!                     context       the host and the session, found out once
//!                     policy_file   a policy, sealed with its digest
//!
//!  beside them: persistence, kept, saved_bans (what the next boot brings back), scanners (who tried which ports), drift, lockout
//! ```
//!
//! Every change of the policy's table goes through [`change::PolicyChange`]. The order of its steps,
//! and the reason for it, stand in [`change`].
//!
//! This crate prints nothing. Results and errors are values. A warning goes to the function that a
//! [`context::Context`] is made with, and the guard writes to the `log` facade.

mod atomic_file;
pub mod ban_table;
pub mod ban_text;
pub mod boot;
pub mod change;
pub mod child;
mod clock;
pub mod context;
pub mod digest;
pub mod drift;
mod error;
pub mod fail2ban;
#[doc(hidden)]
pub mod fuzz;
pub mod guard;
pub mod history;
pub mod input;
pub mod interface_names;
pub mod lease;
pub mod lists;
pub mod lockout;
mod open_connections;
pub mod operator_files;
pub mod persistence;
pub mod policy_file;
pub mod rollback;
pub mod saved_bans;
mod scan_bans;
pub mod scanners;
mod state_folder;
pub mod systemd;
pub mod table;
pub mod table_diff;
pub mod timed_bans;
mod trusted_file;
pub mod voided_bans;

pub use error::Error;

/// Takes a warning for the operator.
pub type Warn = fn(&str);
