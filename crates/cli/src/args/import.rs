//! Arguments of `import`.

use std::path::PathBuf;

use clap::{Args as ClapArgs, Subcommand};

use super::ban::Extent;
use super::list::ListRequest;
use super::values::{self, BanDuration};

#[derive(Debug, Subcommand)]
pub(crate) enum ImportVerb {
    /// Convert UFW's configuration; exit status 1 if the policy cannot do everything that UFW does,
    /// with a list of the differences
    Ufw(UfwRequest),
    /// Convert Fail2Ban's jails into a file of jails; exit status 1 if something is not carried over,
    /// with a list of it
    Fail2ban(Fail2banRequest),
    /// Take over the bans of other tools with the time that is left of them, or ban a list; bans that
    /// are over are counted
    Bans(BansImport),
}

// What to read of Fail2Ban, and where to write.
#[derive(Debug, ClapArgs)]
pub(crate) struct Fail2banRequest {
    /// Directory of jail.conf, jail.local, jail.d and filter.d
    #[arg(value_name = "DIR", default_value = "/etc/fail2ban")]
    pub(crate) folder: PathBuf,
    /// Write the jails to this file instead of standard output; only its owner can read the file,
    /// and it is replaced completely or not at all
    #[arg(short, long, value_name = "FILE")]
    pub(crate) output: Option<PathBuf>,
}

// Bans to take over.
#[derive(Debug, ClapArgs)]
pub(crate) struct BansImport {
    /// Fail2Ban's database (/var/lib/fail2ban/fail2ban.sqlite3, read with python3), the output of
    /// `ipset save`, `nft list set` or `cscli decisions list` (-o json or raw), sshguard's blacklist,
    /// `bans --json`, or a list as for `feed add`; `-` is standard input
    pub(crate) file: PathBuf,
    /// The source of all bans [default: fail2ban/JAIL, ipset/SET, nft/SET, crowdsec, sshguard, else
    /// import]
    #[arg(long)]
    pub(crate) source: Option<String>,
    /// Duration of the bans that have none: 90s, 10m, 1h30m, 7d, or seconds. Without it, or with -1,
    /// these last until they are removed
    #[arg(long = "for", value_name = "TIME", value_parser = values::ban_duration, allow_hyphen_values = true)]
    pub(crate) duration: Option<BanDuration>,
    /// The reason of the bans that have none
    #[arg(long, default_value = "")]
    pub(crate) reason: String,
    #[command(flatten)]
    pub(crate) list: ListRequest,
    #[command(flatten)]
    pub(crate) extent: Extent,
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
