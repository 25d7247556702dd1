//! Facts of this machine for `status` and `doctor`, and what they mean. Only ever read.

pub(crate) mod docker;
pub(crate) mod findings;
pub(crate) mod iptables_legacy;
pub(crate) mod ports;
pub(crate) mod system;
