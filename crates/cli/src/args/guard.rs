//! Arguments of `guard`.

use std::path::PathBuf;

use clap::Args as ClapArgs;
use nfguard_control::guard::{MetricsAddress, Options};

use super::values;

// What to guard, and who may connect.
#[derive(Clone, Debug, ClapArgs)]
pub(crate) struct GuardRequest {
    /// Load this policy first [default: what is loaded, or was loaded last]
    pub(crate) file: Option<PathBuf>,
    /// The socket for programs that read bans and ban
    #[arg(long, value_name = "PATH", default_value = "/run/nfguard/guard.sock")]
    pub(crate) socket: PathBuf,
    /// Permissions of the socket, as for chmod: who may connect. Permissions for others let every
    /// local user read the bans
    #[arg(long, value_name = "MODE", default_value = "0660", value_parser = values::file_mode)]
    pub(crate) mode: u32,
    /// Group that may ban besides root, by name or number
    #[arg(long, value_name = "GROUP", value_parser = values::group)]
    pub(crate) group: Option<u32>,
    /// Metrics for Prometheus: a loopback address, 127.0.0.1:9477, or the path of a socket
    #[arg(long, value_name = "ADDR:PORT|PATH", value_parser = values::metrics_address)]
    pub(crate) metrics: Option<MetricsAddress>,
}

impl GuardRequest {
    pub(crate) fn options(&self) -> Options {
        let GuardRequest { socket, mode, group, metrics, .. } = self.clone();
        Options { socket, mode, group, metrics }
    }
}
