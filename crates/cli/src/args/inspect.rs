//! Arguments of `status` and `doctor`.

use std::path::PathBuf;

use clap::Args as ClapArgs;

// Sources of facts besides the kernel.
#[derive(Debug, ClapArgs)]
pub(crate) struct FactSources {
    /// Docker's socket: the source of container names and ports. Without permission to read it,
    /// nfguard goes without
    #[arg(long, value_name = "PATH", default_value = "/var/run/docker.sock")]
    pub(crate) docker_socket: PathBuf,
}

// What to report of the loaded policy.
#[derive(Debug, ClapArgs)]
pub(crate) struct StatusRequest {
    #[command(flatten)]
    pub(crate) sources: FactSources,
    /// The policy that was loaded, if the history of loads lacks it; differences from it are
    /// printed
    #[arg(long, value_name = "FILE")]
    pub(crate) policy: Option<PathBuf>,
}

// What to examine.
#[derive(Debug, ClapArgs)]
pub(crate) struct DoctorRequest {
    #[command(flatten)]
    pub(crate) sources: FactSources,
    /// The file that nftables.service loads at boot
    #[arg(long, value_name = "FILE", default_value = "/etc/nftables.conf")]
    pub(crate) nftables_conf: PathBuf,
}
