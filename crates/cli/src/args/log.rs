//! Arguments of `log`.

use clap::Args as ClapArgs;

/// Which packets to print.
#[derive(Debug, ClapArgs)]
pub(crate) struct LogRequest {
    /// Read this group, and not those that the loaded policy logs to
    #[arg(long, value_name = "N")]
    pub(crate) group: Vec<u16>,
    /// Also write down who scans what, for `nfguard scans`
    #[arg(long)]
    pub(crate) keep: bool,
    /// End after so many packets
    #[arg(long, value_name = "N", value_parser = clap::value_parser!(u64).range(1..))]
    pub(crate) count: Option<u64>,
}
