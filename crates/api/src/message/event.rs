//! What the guard tells subscribers.

#[cfg(any(test, feature = "schema"))]
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use super::ListedBan;

/// A line that tells a subscriber what happened.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[cfg_attr(any(test, feature = "schema"), derive(JsonSchema))]
#[serde(tag = "event", rename_all = "snake_case")]
#[non_exhaustive]
pub enum Event {
    /// A ban was made or extended, by any program; or the kernel made it, for a scan. The guard
    /// hears of a ban for a scan within 5 seconds.
    Banned {
        /// The ban as it is now.
        ban: ListedBan,
    },
    /// A ban was ended before its time.
    Unbanned {
        /// The ban as it was.
        ban: ListedBan,
    },
    /// Another process changed the policy's table, and the guard repaired it.
    Repaired {
        /// What was missing (`-`) and what was too much (`+`).
        changes: Vec<String>,
        /// The process that changed it, as far as the kernel says.
        by: String,
        /// Time from the kernel's message to the repair.
        microseconds: u64,
    },
    /// Another process removed the bans, and the guard restored them.
    Restored {
        /// Number of bans restored.
        bans: u64,
        /// The process that removed them, as far as the kernel says.
        by: String,
        /// Time from the kernel's message to the last ban.
        microseconds: u64,
    },
    /// A policy was loaded.
    Loaded {
        /// Its file.
        file: String,
    },
    /// The policy was removed on purpose.
    Unloaded {},
    /// The kernel reported more than the guard read in time. The guard has read everything again,
    /// and a subscriber does so with `bans`.
    Lost {},
    /// An event that this version of the crate does not know.
    #[serde(other)]
    #[cfg_attr(any(test, feature = "schema"), schemars(skip))]
    Unknown,
}
