//! The rollback of a load that waits to be confirmed.
//!
//! A process of its own, the watchdog, holds a snapshot of what was there before a load, and puts it
//! back when the time is over. It is there before the load, and needs neither the loader nor its
//! terminal, its parents or a disk. It listens in a folder of root's, at a name that belongs to the
//! network namespace: each namespace has at most one watchdog, and every process finds it.
//!
//! ```text
//! nfguard load ── arm, loaded, cancel ──┐
//! nfguard confirm, rollback, status ────┤ a line of JSON each
//!                                       ▼
//!                     watchdog: snapshot · timer · signals ──▶ kernel
//! ```

pub mod client;
pub(crate) mod snapshot;
mod spawn;
mod watchdog;

pub use client::{Confirmed, confirm, go_back, proof_phrase, proof_word, time_left};
pub use nfguard_api::message::watchdog::Proof;
pub use spawn::start_in_new_session;
pub use watchdog::run;
