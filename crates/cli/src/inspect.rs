//! Facts of this machine for `status` and `doctor`, and what they mean.

pub(crate) mod docker;
pub(crate) mod example;
pub(crate) mod finding;
pub(crate) mod findings;
pub(crate) mod foreign_drops;
pub(crate) mod guests;
pub(crate) mod iptables_legacy;
pub(crate) mod namespaces;
pub(crate) mod network;
pub(crate) mod port_ranges;
pub(crate) mod ports;
pub(crate) mod system;
