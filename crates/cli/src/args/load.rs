//! Arguments of `load` and `rollback`.

use std::net::IpAddr;
use std::time::Duration;

use clap::Args as ClapArgs;
use nfguard_control::change::Caution;

use super::values;

// Lock-out protection of a load.
#[derive(Debug, ClapArgs)]
pub(crate) struct LockoutRequest {
    /// Restore the previous rules unless `nfguard confirm` follows within this time: 90s, 5m
    #[arg(long, value_name = "TIME", value_parser = values::confirm_time)]
    pub(crate) confirm: Option<Duration>,
    /// The client that must still reach this host over TCP, and the port [default: the client of
    /// the SSH session and its port; without a port, 22]
    #[arg(long, value_name = "ADDR[:PORT]", value_parser = values::address_and_port)]
    pub(crate) peer: Option<(IpAddr, Option<u16>)>,
    /// Load the policy even if it locks out this client
    #[arg(long)]
    pub(crate) force: bool,
}

impl LockoutRequest {
    pub(crate) fn caution(&self) -> Caution {
        let LockoutRequest { confirm, peer, force } = *self;
        Caution { confirm, peer, force }
    }
}
