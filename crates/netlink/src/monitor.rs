//! Changes of the ruleset, as the kernel reports them while they happen.

mod event;
#[cfg(feature = "socket")]
mod receiver;

pub use event::RulesetEvent;
#[cfg(feature = "socket")]
pub use receiver::RulesetMonitor;
