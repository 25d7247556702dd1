//! Reads the configuration of UFW (Uncomplicated Firewall) and writes the nfguard policy that does
//! the same.
//!
//! ```text
//!  /etc/default/ufw, ufw.conf ────► settings ──┐
//!  before*.rules, after*.rules ───► framework ─┤
//!  user.rules, user6.rules ───────► tuple ─────┼─► assemble ─► policy file (JSON)
//!  applications.d/* ──────────────► profile ───┘           └─► diagnostics (file, line, message)
//! ```
//!
//! UFW stores each of its rules as a comment line of `user.rules` or `user6.rules`, the *tuple*.
//! [`import`] reads the tuples, and not the `iptables-restore` lines below them. It compares
//! `before.rules` and `after.rules` with what UFW ships. A difference switches a built-in of the
//! policy off, becomes a rule, or is named in [`Import::not_carried_over`]. Nothing is lost in
//! silence.
//!
//! The policy has passed [`Policy::parse`](nfguard_policy::Policy::parse), so it can be loaded.
//!
//! # Example
//!
//! ```
//! use nfguard_ufw::{ContainerBridges, SourceFile, UfwConfig, import};
//!
//! fn file(name: &str, text: &str) -> SourceFile {
//!     SourceFile { name: name.to_owned(), text: text.to_owned() }
//! }
//!
//! let mut config = UfwConfig {
//!     defaults: file(
//!         "/etc/default/ufw",
//!         "IPV6=no\nDEFAULT_INPUT_POLICY=DROP\nDEFAULT_OUTPUT_POLICY=ACCEPT\n\
//!          DEFAULT_FORWARD_POLICY=DROP\n",
//!     ),
//!     conf: file("/etc/ufw/ufw.conf", "ENABLED=yes\nLOGLEVEL=low\n"),
//!     ..UfwConfig::default()
//! };
//! config.user_rules.v4 = file(
//!     "/etc/ufw/user.rules",
//!     "*filter\n### tuple ### limit tcp 22 0.0.0.0/0 any 192.0.2.0/24 in\nCOMMIT\n",
//! );
//! config.before_rules.v4 = file("/etc/ufw/before.rules", "*filter\nCOMMIT\n");
//! config.after_rules.v4 = file("/etc/ufw/after.rules", "*filter\nCOMMIT\n");
//!
//! let import = import(&config, ContainerBridges::Absent)?;
//! assert!(import.not_carried_over.is_empty());
//! assert!(import.policy.contains(r#""action": "limit""#));
//! let (policy, _warnings) = nfguard_policy::Policy::parse(&import.policy).expect("a policy");
//! assert_eq!(policy.rules().len(), import.rules);
//! # Ok::<(), nfguard_ufw::ImportError>(())
//! ```
//!
//! # What this crate does not do
//!
//! It opens no file, runs no program and prints nothing. The caller reads the files into
//! [`UfwConfig`]. It does not read the rules that are in the kernel, and does not change UFW.

mod assemble;
mod config;
mod diagnostic;
mod document;
mod framework;
mod merge;
mod nat;
mod notes;
mod ping;
mod profile;
mod rule;
mod settings;
mod shipped;
mod tuple;

#[cfg(test)]
mod tests;

pub use assemble::{ContainerBridges, Import, ImportError, import};
pub use config::{SourceFile, UfwConfig};
pub use diagnostic::Diagnostic;
pub use settings::{ipv6_is_off, sysctl_path};
