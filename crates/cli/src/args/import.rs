//! Arguments of `import`.

use std::path::PathBuf;

use clap::{Args as ClapArgs, Subcommand};

#[derive(Debug, Subcommand)]
pub(crate) enum ImportVerb {
    /// Convert UFW's configuration; exit status 1 if the policy cannot do everything that UFW does,
    /// with a list of the differences
    Ufw(UfwRequest),
}

// What to read of UFW, and where to write.
#[derive(Debug, ClapArgs)]
pub(crate) struct UfwRequest {
    /// Directory of user.rules, before.rules, ufw.conf and applications.d
    #[arg(value_name = "DIR", default_value = "/etc/ufw")]
    pub(crate) folder: PathBuf,
    /// The file of the default policies [default: DIR/../default/ufw]
    #[arg(long, value_name = "FILE")]
    pub(crate) defaults: Option<PathBuf>,
    /// Write the policy to this file instead of standard output; only its owner can read the file,
    /// and it is replaced completely or not at all
    #[arg(short, long, value_name = "FILE")]
    pub(crate) output: Option<PathBuf>,
    /// This host has no containers: the rules for `route` judge traffic from and to Docker's
    /// bridges, as in UFW, instead of the policy's container rules
    #[arg(long)]
    pub(crate) no_containers: bool,
}
