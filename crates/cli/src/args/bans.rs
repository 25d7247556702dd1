//! Arguments of `ban`, `unban` and `bans`.

use std::time::Duration;

use clap::{ArgGroup, Args as ClapArgs};
use nfguard_ban::{Port, Target};

/// What to say of the bans.
#[derive(Debug, ClapArgs)]
#[command(group = ArgGroup::new("what"))]
pub(crate) struct BansRequest {
    /// Only those of this source
    #[arg(long, group = "what")]
    pub(crate) source: Option<String>,
    /// Only say how many there are
    #[arg(long, group = "what")]
    pub(crate) count: bool,
    /// Only say whether there is a table for them; exit status 1 if not
    #[arg(long, group = "what")]
    pub(crate) ready: bool,
    /// Make the table for them if there is none, and say nothing
    #[arg(long, group = "what")]
    pub(crate) prepare: bool,
}

/// Bans to make.
#[derive(Debug, ClapArgs)]
pub(crate) struct BanRequest {
    /// 203.0.113.7, 203.0.113.0/24, 2001:db8::1, 2001:db8::/32; `-` alone is a list on standard
    /// input: one of these a line, one JSON object a line, or what `bans --json` prints
    #[arg(required = true)]
    pub(crate) targets: Vec<String>,
    /// Ban the rest when a line of the list is bad, and exit with 1
    #[arg(long)]
    pub(crate) skip_bad_lines: bool,
    /// For how long: 90s, 10m, 1h, 7d, or seconds; without it, or if negative, until somebody
    /// unbans
    #[arg(long = "for", value_name = "TIME", value_parser = parse_time, allow_hyphen_values = true)]
    pub(crate) lasts: Option<Lasts>,
    /// Why; kept with the ban
    #[arg(long, default_value = "")]
    pub(crate) reason: String,
    /// Who bans: a tool or one of its jails; kept with the ban, at most 32 bytes
    #[arg(long, default_value = "cli")]
    pub(crate) source: String,
    /// Make the kernel forget their open connections too, so that it is seen that they are gone;
    /// needed where a flowtable leads packets past the firewall
    #[arg(long)]
    pub(crate) cut: bool,
    #[command(flatten)]
    pub(crate) extent: Extent,
}

/// Bans to end.
#[derive(Debug, ClapArgs)]
pub(crate) struct UnbanRequest {
    /// 203.0.113.7, 203.0.113.0/24, 2001:db8::1, 2001:db8::/32
    #[arg(required_unless_present = "source")]
    pub(crate) targets: Vec<String>,
    /// All bans of this source
    #[arg(long, conflicts_with = "targets")]
    pub(crate) source: Option<String>,
    #[command(flatten)]
    pub(crate) extent: Extent,
}

/// How much a ban of an address is.
#[derive(Debug, ClapArgs)]
pub(crate) struct Extent {
    /// Only from these ports, as the world sees them, not as a container does: 443, 443/udp;
    /// without a protocol it is TCP and UDP
    #[arg(long = "port", value_name = "PORT", value_delimiter = ',', value_parser = parse_ports)]
    pub(crate) ports: Vec<Ports>,
    /// How many bits of an IPv6 address without a prefix are one source
    #[arg(long, value_name = "BITS", default_value_t = Target::V6_SOURCE)]
    #[arg(value_parser = clap::value_parser!(u8).range(1..=128))]
    pub(crate) v6_prefix: u8,
}

impl Extent {
    /// Each port, or `None` for everything.
    pub(crate) fn ports(&self) -> Vec<Option<Port>> {
        let ports: Vec<_> =
            self.ports.iter().flat_map(|ports| &ports.0).copied().map(Some).collect();
        if ports.is_empty() { vec![None] } else { ports }
    }
}

/// What one item of `--port` says.
#[derive(Clone, Debug)]
pub(crate) struct Ports(Vec<Port>);

/// How long a ban lasts; `None`: until somebody unbans.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Lasts(pub(crate) Option<Duration>);

pub(crate) fn parse_time(text: &str) -> Result<Lasts, String> {
    nfguard_control::ban_text::parse_time(text).map(Lasts)
}

fn parse_ports(text: &str) -> Result<Ports, String> {
    let ports = if text.contains('/') {
        vec![text.parse()]
    } else {
        vec![format!("{text}/tcp").parse(), format!("{text}/udp").parse()]
    };
    let ports: Result<Vec<Port>, _> = ports.into_iter().collect();
    ports.map(Ports).map_err(|_| "expected 443, 443/tcp or 443/udp".to_owned())
}
