//! Arguments of `ban`, `unban` and `bans`.

use clap::{ArgGroup, Args as ClapArgs};
use nfguard_ban::{Port, Target};

use super::list::ListRequest;
use super::values::{self, BanDuration, Ports};

// What to report of the bans.
#[derive(Debug, ClapArgs)]
#[command(group = ArgGroup::new("what"))]
pub(crate) struct BansRequest {
    /// List only the bans of this source
    #[arg(long, conflicts_with = "count")]
    pub(crate) source: Option<String>,
    /// Print only the number of bans
    #[arg(long, group = "what")]
    pub(crate) count: bool,
    /// Check whether the ban table exists; exit status 1 if it does not. With `--source`, also if
    /// `unban` without a source has ended a ban of this source
    #[arg(long, group = "what")]
    pub(crate) ready: bool,
    /// Create the ban table if it does not exist, and print nothing. With `--source`, take note of
    /// what `unban` has ended, so that `--ready` is true again
    #[arg(long, group = "what")]
    pub(crate) prepare: bool,
}

// Bans to make.
#[derive(Debug, ClapArgs)]
pub(crate) struct BanRequest {
    /// 203.0.113.7, 203.0.113.0/24, 203.0.113.1-203.0.113.9, 2001:db8::1, 2001:db8::/32; `-` alone
    /// reads a list from standard input, in a form that `import bans` reads
    #[arg(required = true)]
    pub(crate) targets: Vec<String>,
    /// Duration: 90s, 10m, 1h30m, 7d, or seconds. Without it, or with -1, the ban lasts until it is
    /// removed
    #[arg(long = "for", value_name = "TIME", value_parser = values::ban_duration, allow_hyphen_values = true)]
    pub(crate) duration: Option<BanDuration>,
    /// The reason; it is kept with the ban
    #[arg(long, default_value = "")]
    pub(crate) reason: String,
    /// The tool or jail that bans; it is kept with the ban. Bans of one address by several sources
    /// are independent of each other
    #[arg(long, default_value = "cli")]
    pub(crate) source: String,
    /// Also remove the open connections from the kernel's connection table. The output tells their
    /// number. This is necessary where a flowtable leads packets past the firewall
    #[arg(long)]
    pub(crate) cut: bool,
    #[command(flatten)]
    pub(crate) list: ListRequest,
    #[command(flatten)]
    pub(crate) extent: Extent,
}

// Bans to remove.
#[derive(Debug, ClapArgs)]
pub(crate) struct UnbanRequest {
    /// 203.0.113.7, 203.0.113.0/24, 203.0.113.1-203.0.113.9, 2001:db8::1, 2001:db8::/32
    #[arg(required_unless_present = "source")]
    pub(crate) targets: Vec<String>,
    /// Remove only the bans of this source, without targets all of them. The address stays banned
    /// for as long as another source wants. Without it, the bans of all sources are removed
    #[arg(long)]
    pub(crate) source: Option<String>,
    #[command(flatten)]
    pub(crate) extent: Extent,
}

// How much a ban of an address covers.
#[derive(Debug, ClapArgs)]
pub(crate) struct Extent {
    /// Ban only from these ports: 443, 443/udp, 8000-8010, or http,https; `any` is every port. They
    /// are the ports that the world sees, not those inside a container. Without a protocol, TCP and
    /// UDP
    #[arg(long = "port", value_name = "PORTS", value_parser = values::ports)]
    pub(crate) ports: Vec<Ports>,
    /// Prefix length of a ban of an IPv6 address without a prefix
    #[arg(long, value_name = "BITS", default_value_t = Target::V6_SOURCE)]
    #[arg(value_parser = clap::value_parser!(u8).range(1..=128))]
    pub(crate) v6_prefix: u8,
}

impl Extent {
    /// Returns each port, or `None` for all traffic.
    pub(crate) fn ports(&self) -> Vec<Option<Port>> {
        let ports: Vec<_> = self.ports.iter().flat_map(|ports| &ports.0).copied().collect();
        if ports.is_empty() || ports.contains(&None) { vec![None] } else { ports }
    }
}
