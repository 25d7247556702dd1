//! The control plane: what changes the policy in the kernel, guards it and goes back.
//!
//! Nothing here prints. A warning goes to the function that the caller gives.

mod atomic_file;
pub mod ban_table;
pub mod ban_text;
pub mod boot;
pub mod change;
pub mod context;
pub mod digest;
pub mod drift;
mod error;
pub mod guard;
pub mod history;
pub mod input;
pub mod lease;
pub mod lockout;
pub mod policy_file;
pub mod rollback;
pub mod saved_bans;
mod scan_bans;
pub mod scanners;
pub mod table;
pub mod table_diff;

pub use error::Error;

/// Takes a warning for the operator.
pub type Warn = fn(&str);
