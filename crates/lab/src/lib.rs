//! Throw-away network namespaces, virtual links between them, and probes that
//! send real packets across.
//!
//! The rehearsal of a policy, the end-to-end tests and the benchmarks run on
//! it. It needs no root: [`enter_user_namespace`] gives a process the rights
//! that it needs, over namespaces of its own only.
//!
//! **No function here changes the network namespace that the process was
//! started in.** A [`Netns`] can only be made new, never from an existing
//! namespace, and everything that configures a network is a method of one.
//! Each piece of work runs on a short-lived thread that has joined that
//! namespace; the caller's thread never does.

mod capture;
mod link;
mod netns;
pub mod packet;
mod probe;
mod server;
mod user_namespace;
mod world;

pub use capture::{Capture, RawSender};
pub use link::veth;
pub use netns::Netns;
pub use probe::{DEFAULT_TIMEOUT, Probe, ProbeOutcome, Refusal, run_all};
pub use server::Server;
pub use user_namespace::enter_user_namespace;
pub use world::World;

use std::{fmt::Display, io};

/// Puts `what` before an error's own words and keeps its kind.
fn context(what: impl Display) -> impl FnOnce(io::Error) -> io::Error {
    move |error| io::Error::new(error.kind(), format!("{what}: {error}"))
}
