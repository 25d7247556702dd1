//! Arguments of `log`.

use clap::Args as ClapArgs;

// Which packets to print.
#[derive(Debug, ClapArgs)]
pub(crate) struct LogRequest {
    /// Read this NFLOG group instead of the groups of the loaded policy
    #[arg(long, value_name = "N")]
    pub(crate) group: Vec<u16>,
    /// Record the scanners for `nfguard scans`
    #[arg(long)]
    pub(crate) keep: bool,
    /// Stop after this number of packets
    #[arg(long, value_name = "N", value_parser = clap::value_parser!(u64).range(1..))]
    pub(crate) count: Option<u64>,
}
