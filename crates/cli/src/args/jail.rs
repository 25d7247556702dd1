//! Arguments of `jail`.

use std::path::PathBuf;

use clap::{Args as ClapArgs, Subcommand};
use ipnetwork::IpNetwork;
use nfguard_jail::time::{Time, Zone, rfc3339};

#[derive(Debug, Subcommand)]
pub(crate) enum JailVerb {
    /// Read a log as jails would, and tell which sources they would ban; bans nothing
    Test(JailTestRequest),
    /// Validate a file of jails: list all errors and warnings
    Check {
        /// The file; `-` is standard input
        #[arg(default_value = "/etc/nfguard/jails.json")]
        file: PathBuf,
    },
    /// List the built-in jails, or print one as a file of jails
    Show {
        /// The name of a built-in jail
        name: Option<String>,
    },
}

// Which log to read, and as which jails.
#[derive(Debug, ClapArgs)]
pub(crate) struct JailTestRequest {
    /// A file of jails [default: the built-in jails]
    #[arg(long, value_name = "JAILS")]
    pub(crate) file: Option<PathBuf>,
    /// A jail, by its name; repeatable [default: all jails of the file]
    #[arg(long, value_name = "NAME", required_unless_present_any = ["file", "fail2ban"])]
    pub(crate) jail: Vec<String>,
    /// One jail made of a filter of Fail2Ban, such as /etc/fail2ban/filter.d/sshd.conf; what it
    /// includes lies beside it
    #[arg(long, value_name = "FILTER", conflicts_with_all = ["file", "jail"])]
    pub(crate) fail2ban: Option<PathBuf>,
    /// Set an option of the filter, such as mode=aggressive; repeatable
    #[arg(long, value_name = "OPTION=VALUE", requires = "fail2ban", value_parser = option)]
    pub(crate) set: Vec<(String, String)>,
    /// The lines have no time of their own, as in the journal: it is that of `--now`
    #[arg(long, requires = "fail2ban")]
    pub(crate) no_stamp: bool,
    /// The time zone of times without one [default: UTC]
    #[arg(long, value_name = "ZONE", requires = "fail2ban", value_parser = zone)]
    pub(crate) timezone: Option<Zone>,
    /// An address or a prefix that must not be banned; repeatable
    #[arg(long, value_name = "PREFIX")]
    pub(crate) never: Vec<IpNetwork>,
    /// Tell each line that is evidence
    #[arg(long)]
    pub(crate) lines: bool,
    /// A time near the log's beginning, in RFC 3339, for times without a year [default: the year is 2000]
    #[arg(long, value_name = "TIME", value_parser = time)]
    pub(crate) now: Option<Time>,
    /// Compare with this file: `bans` with the keys that matter, and `evidence` with the number of
    /// lines of each client; exit status 1 if it differs
    #[arg(long, value_name = "FILE")]
    pub(crate) expect: Option<PathBuf>,
    /// The log; `-` is standard input
    #[arg(default_value = "-")]
    pub(crate) log: PathBuf,
}

fn option(text: &str) -> Result<(String, String), String> {
    let both = text.split_once('=').filter(|(option, _)| !option.is_empty());
    both.map(|(option, value)| (option.trim().to_lowercase(), value.to_owned()))
        .ok_or_else(|| "expected OPTION=VALUE".to_owned())
}

fn zone(text: &str) -> Result<Zone, String> {
    Zone::parse(text)
        .ok_or_else(|| "expected a time zone such as UTC, +02:00 or Europe/Berlin".to_owned())
}

fn time(text: &str) -> Result<Time, String> {
    rfc3339(text.as_bytes(), &Zone::UTC)
        .ok_or_else(|| "expected a time such as 2026-11-18T21:00:00Z".to_owned())
}
