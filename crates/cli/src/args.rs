//! The command line.

use std::net::{IpAddr, SocketAddr};
use std::path::PathBuf;
use std::time::Duration;

use clap::{ArgGroup, Args as ClapArgs, Parser, Subcommand};
use ipnetwork::IpNetwork;
use nfguard_ban::{Port, Target};
use nix::unistd::Group;

/// A deny-by-default nftables firewall for servers that run Docker behind a reverse proxy.
#[derive(Debug, Parser)]
#[command(name = "nfguard", version, max_term_width = 100, after_help = EXIT_STATUS)]
pub(crate) struct Args {
    /// Print machine-readable JSON, with a `schema` number
    #[arg(long, global = true)]
    pub(crate) json: bool,

    /// Where the history of loads is kept [default: $NFGUARD_STATE_DIR, else /var/lib/nfguard]
    #[arg(long, global = true, value_name = "DIR")]
    pub(crate) state_dir: Option<PathBuf>,

    #[command(subcommand)]
    pub(crate) verb: Verb,
}

const EXIT_STATUS: &str = "Exit status: 0 done, 1 the answer is \"no\" or \"differs\", 2 bad usage \
or bad input, 3 the kernel refused, 4 no permission.";

#[derive(Debug, Subcommand)]
pub(crate) enum Verb {
    /// Validate a policy file and say everything that is wrong with it
    Check {
        /// The policy; `-` is standard input
        file: PathBuf,
    },
    /// Put a policy into the kernel, in one transaction
    Load {
        /// The policy; `-` is standard input
        file: PathBuf,
        /// Only say what would change
        #[arg(long)]
        dry_run: bool,
        #[command(flatten)]
        caution: Caution,
    },
    /// Keep what `load --confirm` has put in; exit status 1 if it went back, or nothing waits
    Confirm,
    /// Go back by one load, at once if one waits to be confirmed; or load what was loaded once
    Rollback {
        /// The number of the load in the history, whose policy is to be loaded again
        number: Option<u64>,
        #[command(flatten)]
        caution: Caution,
    },
    /// List the last loads: when, by whom, and what became of them
    History {
        #[command(subcommand)]
        of: Option<HistoryVerb>,
    },
    /// Say what `load` would change; exit status 1 if anything
    Diff {
        /// The policy; `-` is standard input
        file: PathBuf,
    },
    /// Print a policy as nftables text, or what the kernel holds
    Show {
        /// The policy; without it, what is loaded
        file: Option<PathBuf>,
    },
    /// Say which rule decides about a connection, without a kernel; exit status 1 if it is refused
    Explain(Question),
    /// Rehearse a policy with real packets in a throw-away network namespace; needs no root
    Try {
        /// The policy; `-` is standard input
        file: PathBuf,
    },
    /// Say whether a policy is loaded and intact, what its rules have counted, and which ports the
    /// world reaches; exit status 1 if none is, or it was changed
    Status(StatusRequest),
    /// Find what will bite: rules of others that drop what the policy allows, clients that no log
    /// shows, what takes the policy away at boot; exit status 1 if anything is found
    Doctor(DoctorRequest),
    /// Remove our policy from the kernel; bans and other tables stay
    Unload {
        /// Remove the bans, feeds and the never-ban list too
        #[arg(long)]
        all: bool,
    },
    /// Ban addresses or prefixes, on every way into host and containers
    Ban(BanRequest),
    /// End bans of exactly these addresses or prefixes, and of exactly these ports; exit status 1 if
    /// one was not banned
    Unban(UnbanRequest),
    /// List the bans in force
    Bans(BansRequest),
    /// Write the bans in force to a file, for `restore`; feeds and the never-ban list are not in it
    Save {
        /// Replaced whole or not at all; `-` is standard output
        file: PathBuf,
    },
    /// Ban again whom `save` wrote down, for the time that is left
    Restore {
        /// One that is damaged is renamed, and nobody is banned; `-` is standard input
        file: PathBuf,
    },
    /// Drop everyone in a published list, as long as it is there
    #[command(subcommand)]
    Feed(FeedVerb),
    /// List who is never banned, and why; or change it
    Never {
        #[command(subcommand)]
        change: Option<NeverChange>,
    },
    /// Keep what is loaded, whatever other programs do, and answer on a socket; ends when it is ended,
    /// and leaves everything as it is
    Guard(GuardRequest),
    /// Holds the way back from a load: `load --confirm` starts it
    #[command(hide = true)]
    WayBack {
        /// Leave the session that this was started in, and start anew
        #[arg(long)]
        session: bool,
    },
}

/// What to guard, and whom to tell.
#[derive(Debug, ClapArgs)]
pub(crate) struct GuardRequest {
    /// The policy to load first; without it, what is loaded, or was last
    pub(crate) file: Option<PathBuf>,
    /// Where programs ask and ban
    #[arg(long, value_name = "PATH", default_value = "/run/nfguard/guard.sock")]
    pub(crate) socket: PathBuf,
    /// Who may connect, as chmod has it. With others' rights, strangers can read bans
    #[arg(long, value_name = "MODE", default_value = "0660", value_parser = parse_mode)]
    pub(crate) mode: u32,
    /// Who may ban besides root: a group, by name or number
    #[arg(long, value_name = "GROUP", value_parser = parse_group)]
    pub(crate) group: Option<u32>,
    /// Where Prometheus reads: an address of this host alone, 127.0.0.1:9477, or the path of a
    /// socket
    #[arg(long, value_name = "ADDR:PORT|PATH", value_parser = parse_scraped)]
    pub(crate) metrics: Option<Scraped>,
}

/// Where numbers are read.
#[derive(Clone, Debug)]
pub(crate) enum Scraped {
    Tcp(SocketAddr),
    File(PathBuf),
}

fn parse_mode(text: &str) -> Result<u32, String> {
    let mode = u32::from_str_radix(text, 8).ok().filter(|mode| *mode <= 0o777);
    mode.ok_or_else(|| "expected three octal digits, such as 660".to_owned())
}

fn parse_group(text: &str) -> Result<u32, String> {
    if let Ok(number) = text.parse() {
        return Ok(number);
    }
    let group = Group::from_name(text).map_err(|error| error.to_string())?;
    Ok(group.ok_or_else(|| "there is no such group".to_owned())?.gid.as_raw())
}

fn parse_scraped(text: &str) -> Result<Scraped, String> {
    if text.contains('/') {
        return Ok(Scraped::File(text.into()));
    }
    let address: SocketAddr = text.parse().map_err(|_| "expected 127.0.0.1:9477, or a path")?;
    match address.ip().is_loopback() {
        true => Ok(Scraped::Tcp(address)),
        false => Err("others could read it: expected an address of this host alone".to_owned()),
    }
}

/// What a load does lest it locks its operator out.
#[derive(Debug, ClapArgs)]
pub(crate) struct Caution {
    /// Put back what was there before, unless `nfguard confirm` comes within this time: 90s, 5m
    #[arg(long, value_name = "TIME", value_parser = parse_confirm)]
    pub(crate) confirm: Option<Duration>,
    /// Who must still get in, over TCP, and to which port of this host [default: the peer of the
    /// SSH session, to the port that it came to; else 22]
    #[arg(long, value_name = "ADDR[:PORT]", value_parser = parse_from)]
    pub(crate) peer: Option<(IpAddr, Option<u16>)>,
    /// Load even what would not let in the peer again
    #[arg(long)]
    pub(crate) force: bool,
}

#[derive(Debug, Subcommand)]
pub(crate) enum HistoryVerb {
    /// Print the policy of a load
    Show {
        /// Its number
        number: u64,
    },
    /// Say what differs between two loads, or between one and what is loaded now; exit status 1 if
    /// anything
    Diff {
        /// The number of one
        number: u64,
        /// The number of the other
        other: Option<u64>,
    },
}

#[derive(Debug, Subcommand)]
pub(crate) enum FeedVerb {
    /// Put a list in, in place of an older one of that name, without a moment between the two
    Add {
        /// At most 32 letters, digits, `-`, `_` and `.`
        name: String,
        /// FireHOL netset, Spamhaus DROP (text or JSON), ranges, or one address or prefix a line;
        /// `-` is standard input
        file: PathBuf,
        /// Take the rest when a line of the list is bad, and exit with 1
        #[arg(long)]
        skip_bad_lines: bool,
    },
    /// List the feeds in force, and what each has dropped
    List,
    /// Let in again who is on the list; exit status 1 if there is none of that name
    Remove {
        /// As it was added
        name: String,
    },
}

#[derive(Debug, Subcommand)]
pub(crate) enum NeverChange {
    /// Spare addresses or prefixes, whoever bans them
    Add {
        /// 203.0.113.7, 203.0.113.0/24, 2001:db8::1, 2001:db8::/32; an IPv6 address without a
        /// prefix is that address alone
        #[arg(required = true)]
        networks: Vec<IpNetwork>,
        /// Why; kept with them
        #[arg(long, default_value = "the operator says so")]
        reason: String,
    },
    /// Spare them no longer; exit status 1 if one is not on the list, or is on it for what it is to
    /// this host
    Remove {
        /// As the list has them
        #[arg(required = true)]
        networks: Vec<IpNetwork>,
    },
}

/// Where to look beside the kernel.
#[derive(Debug, ClapArgs)]
pub(crate) struct Seeing {
    /// Where Docker is asked for its containers' names and ports, if it is there and may be read
    #[arg(long, value_name = "PATH", default_value = "/var/run/docker.sock")]
    pub(crate) docker_socket: PathBuf,
}

/// What to say of the policy that is loaded.
#[derive(Debug, ClapArgs)]
pub(crate) struct StatusRequest {
    #[command(flatten)]
    pub(crate) seeing: Seeing,
    /// What was loaded, if the history of loads does not know it; what differs from it is printed
    #[arg(long, value_name = "FILE")]
    pub(crate) policy: Option<PathBuf>,
}

/// What to examine.
#[derive(Debug, ClapArgs)]
pub(crate) struct DoctorRequest {
    #[command(flatten)]
    pub(crate) seeing: Seeing,
    /// What nftables loads at boot
    #[arg(long, value_name = "FILE", default_value = "/etc/nftables.conf")]
    pub(crate) nftables_conf: PathBuf,
}

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

/// A connection to ask about.
#[derive(Debug, ClapArgs)]
#[command(group = ArgGroup::new("way").required(true))]
pub(crate) struct Question {
    /// The policy; `-` is standard input
    pub(crate) file: PathBuf,

    /// To this host
    #[arg(long = "in", group = "way")]
    pub(crate) input: bool,
    /// From this host
    #[arg(long, group = "way")]
    pub(crate) out: bool,
    /// Through this host
    #[arg(long, group = "way")]
    pub(crate) forward: bool,
    /// To a port that this host publishes for a container, which listens at PORT inside
    #[arg(long, group = "way", value_name = "PORT")]
    pub(crate) published: Option<u16>,

    /// Who begins it: an address, or an address and a port [default: a documentation address]
    #[arg(long, value_name = "ADDR[:PORT]", value_parser = parse_from)]
    pub(crate) from: Option<(IpAddr, Option<u16>)>,
    #[arg(long, value_name = "[ADDR:]PORT/PROTO", help = TO_HELP)]
    pub(crate) to: String,
    /// The interface that it comes in by
    #[arg(long, default_value = "eth0", value_name = "NAME")]
    pub(crate) iif: String,
    /// The interface that it leaves by
    #[arg(long, default_value = "eth0", value_name = "NAME")]
    pub(crate) oif: String,
    /// Ask about the Nth such connection at once, for rules that limit
    #[arg(long, default_value_t = 1, value_name = "N", value_parser = clap::value_parser!(u32).range(1..=1000))]
    pub(crate) nth: u32,
}

/// Not a doc comment, in which brackets are links.
const TO_HELP: &str =
    "To what: 443/tcp, 203.0.113.7:53/udp, [2001:db8::1]:22/tcp, echo-request, 203.0.113.7, gre";

/// The kernel counts milliseconds, and takes no ban without a length. A number alone is seconds, as
/// Fail2Ban writes them, and a negative one a ban without end.
pub(crate) fn parse_time(text: &str) -> Result<Lasts, String> {
    let time = match text.parse::<f64>() {
        Ok(seconds) if seconds < 0.0 => return Ok(Lasts(None)),
        Ok(seconds) => Duration::try_from_secs_f64(seconds).map_err(|error| error.to_string())?,
        Err(_) => humantime::parse_duration(text).map_err(|error| error.to_string())?,
    };
    if time < Duration::from_millis(1) {
        return Err("expected at least 1ms; leave it out for a ban without end".to_owned());
    }
    Ok(Lasts(Some(time)))
}

/// Time enough to do something, and not so much that it is forgotten.
fn parse_confirm(text: &str) -> Result<Duration, String> {
    let time = humantime::parse_duration(text).map_err(|error| error.to_string())?;
    let day = Duration::from_secs(24 * 3600);
    if time < Duration::from_secs(1) || time > day {
        return Err("expected from 1s to 24h".to_owned());
    }
    Ok(time)
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

fn parse_from(text: &str) -> Result<(IpAddr, Option<u16>), String> {
    if let Ok(address) = text.parse::<IpAddr>() {
        return Ok((address, None));
    }
    text.parse::<SocketAddr>()
        .map(|both| (both.ip(), Some(both.port())))
        .map_err(|_| "expected an address, ADDR:PORT or [ADDR]:PORT".to_owned())
}
