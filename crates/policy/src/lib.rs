//! A deny-by-default firewall policy, from JSON to what it means.
//!
//! [`Policy::parse`] reads a policy file and reports every [`Problem`] of it at once, each with its
//! place and what was probably meant. [`schema`] describes the language to editors.
//!
//! This crate is pure: no sockets, no files, no clock. It gives the same answer on every machine.

mod address;
#[cfg(any(test, feature = "arbitrary"))]
pub mod arbitrary;
mod check;
mod check_rule;
mod check_traffic;
mod compile;
mod cover;
mod explain;
mod file;
mod leaf;
mod lint;
mod nearby;
mod policy;
mod port;
mod problem;
mod protocol;
mod read;
mod sample;
mod schema;
mod services;
mod source;
mod suggest;

pub use compile::{CONTAINERS, MARK, TABLE};
pub use explain::{Explanation, Flow, Path, Payload, explain};
pub use policy::{Policy, RuleInfo};
pub use problem::{Problem, Severity};
pub use protocol::{protocol_number, protocol_word};
pub use sample::{Ground, Sample};
pub use schema::schema;
