//! A deny-by-default firewall policy: from a JSON file to an nftables table.
//!
//! ```text
//!  policy.json ─► json::document ─► json::file ─────► check ─► Policy ─► compile ─► Table (netlink)
//!                 tree with         keys, values,     meaning   │         total      │
//!                 byte offsets      defaults, schema            ├─► lint             ▼
//!                      │                 │              │       │   warnings      explain(table, flow)
//!                      └───── Problem { line, column, message } ┘   samples       the deciding rule
//! ```
//!
//! [`Policy::parse`] reads a file and reports every [`Problem`] at once, each with its place and with
//! what was probably meant. Only this function makes a [`Policy`], so a policy that exists is valid.
//! [`Policy::compile`] cannot fail. It returns the table as a value, and the value is the same on
//! every machine. [`explain()`] tells which rule of a table decides about a connection.
//! [`schema()`] describes the language to editors, and the page `docs/policy.md` is made from it.
//!
//! # Example
//!
//! ```
//! use nfguard_netlink::{eval, text};
//! use nfguard_policy::{Flow, FlowPath, Payload, Policy, explain};
//!
//! let file = r#"{
//!     "version": 1,
//!     "rules": [
//!         { "action": "limit", "port": "ssh" },
//!         { "action": "allow", "port": ["http", "https"], "proto": "tcp" }
//!     ]
//! }"#;
//! let (policy, warnings) = Policy::parse(file).expect("a valid policy");
//! assert!(warnings.is_empty());
//!
//! // The table as nft would print it.
//! let table = policy.compile();
//! assert!(text::table(&table).contains("table inet nfguard"));
//!
//! // Telnet from the internet reaches no rule, so the default drops it.
//! let flow = Flow {
//!     path: FlowPath::In,
//!     source: "203.0.113.7".parse()?,
//!     destination: "198.51.100.2".parse()?,
//!     payload: Payload::Ports { protocol: 6, source: 40_000, destination: 23 },
//!     in_interface: "eth0".to_owned(),
//!     out_interface: String::new(),
//! };
//! let explanation = explain(&table, &flow, &mut eval::Memory::default());
//! assert_eq!(explanation.fate, eval::Fate::Drop);
//!
//! // A mistake has a place and a suggestion.
//! let problems = Policy::parse(r#"{ "version": 1, "rule": [] }"#).expect_err("a wrong key");
//! assert_eq!((problems[0].line, problems[0].column), (1, 17));
//! assert_eq!(problems[0].suggestion.as_deref(), Some(r#""rules""#));
//! # Ok::<(), std::net::AddrParseError>(())
//! ```
//!
//! # What this crate does not do
//!
//! It is pure: no sockets, no files, no clock, no output. It does not load the table; the crate
//! `nfguard-netlink` does, and `nfguard-control` says in which order. It knows nothing about bans,
//! which have a table of their own, except for those of the `scan` key. It does not know the host:
//! its addresses, interfaces and routes are no part of a policy.

#[cfg(any(test, feature = "arbitrary"))]
pub mod arbitrary;
mod check;
mod compile;
mod explain;
mod json;
mod lint;
mod log_prefix;
mod policy;
mod sample;

pub use compile::builtin::DHCPV6_SERVERS;
pub use compile::{CONTAINERS_CHAIN, RETURN_PATH_COUNTER, TABLE, TABLE_COMMENT};
pub use explain::{Explanation, Flow, FlowPath, Payload, Treatment, explain, explain_treated};
pub use json::{keep_comments, protocol_number, protocol_word, schema, service_ports};
pub use log_prefix::LoggedRule;
pub use nfguard_json::{Problem, Severity};
pub use policy::{Policy, RuleInfo};
pub use sample::{Sample, SampleHosts};
