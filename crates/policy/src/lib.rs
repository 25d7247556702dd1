//! A deny-by-default firewall policy, from JSON to what it means.
//!
//! [`Policy::parse`] reads a policy file and reports every [`Problem`] of it at once, each with its
//! place and what was probably meant. [`schema`] describes the language to editors.
//!
//! This crate is pure: no sockets, no files, no clock. It gives the same answer on every machine.

#[cfg(any(test, feature = "arbitrary"))]
pub mod arbitrary;
mod check;
mod comment;
mod compile;
mod explain;
mod json;
mod lint;
mod log_prefix;
mod policy;
mod problem;
mod sample;

pub use compile::{CONTAINERS_CHAIN, TABLE_COMMENT, TABLE_NAME};
pub use explain::{Explanation, Flow, FlowPath, Payload, explain};
pub use json::{protocol_number, protocol_word, schema};
pub use log_prefix::LoggedRule;
pub use policy::{Policy, RuleInfo};
pub use problem::{Problem, Severity};
pub use sample::{Sample, SampleHosts};
