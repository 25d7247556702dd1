//! The command line.

mod bans;
mod guard;
mod log;

pub(crate) use bans::{BanRequest, BansRequest, Lasts, UnbanRequest};
pub(crate) use guard::GuardRequest;
pub(crate) use log::LogRequest;

use std::net::{IpAddr, SocketAddr};
use std::path::PathBuf;
use std::time::Duration;

use clap::{ArgGroup, Args as ClapArgs, Parser, Subcommand};
use clap_complete::Shell;
use ipnetwork::IpNetwork;
use nfguard_control::change::Caution;

use crate::commands::man;

/// A deny-by-default nftables firewall for servers that run Docker behind a reverse proxy.
#[derive(Debug, Parser)]
#[command(name = "nfguard", version = manual::VERSION, max_term_width = 100, after_help = EXIT_STATUS)]
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
        caution: CautionArgs,
    },
    /// Load the policy and ban again whom `save` wrote down, before there is a network; exit status
    /// 1 if a policy but the file's is in force, or the bans are not
    Boot {
        /// The policy. If it cannot be loaded, the last that was good takes its place, and if there
        /// never was one, a policy that lets in nothing but SSH
        #[arg(default_value = "/etc/nfguard/policy.json")]
        file: PathBuf,
        /// What `save` wrote [default: `bans` in the folder of the history]
        #[arg(long, value_name = "FILE")]
        bans: Option<PathBuf>,
    },
    /// Keep what `load --confirm` has put in; exit status 1 if it went back, or nothing waits
    Confirm,
    /// Go back by one load, at once if one waits to be confirmed; or load what was loaded once
    Rollback {
        /// The number of the load in the history, whose policy is to be loaded again
        number: Option<u64>,
        #[command(flatten)]
        caution: CautionArgs,
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
        /// What it would change where this policy is loaded, without a kernel
        #[arg(long, value_name = "POLICY")]
        offline: Option<PathBuf>,
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
    /// Print each packet that a rule logs to an NFLOG group, as it comes: which rule, its verdict, and
    /// the packet; ends when it is ended
    Log(LogRequest),
    /// List who has scanned what, the worst first, as `log --keep` has seen it; or one source in
    /// detail, with exit status 1 if it was not seen
    Scans {
        /// Of an IPv6 address its /64 is meant
        address: Option<IpAddr>,
    },
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
    /// Print what a shell needs to complete our commands
    Completions {
        /// For which
        shell: Shell,
    },
    /// Print the manual page, in roff, or write one for each command
    Man {
        /// A folder that is there, for all of them
        folder: Option<PathBuf>,
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
    /// Turn another firewall's configuration into a policy file
    #[command(subcommand)]
    Import(ImportVerb),
}

/// What a load does lest it locks its operator out.
#[derive(Debug, ClapArgs)]
pub(crate) struct CautionArgs {
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

impl CautionArgs {
    pub(crate) fn caution(&self) -> Caution {
        let CautionArgs { confirm, peer, force } = *self;
        Caution { confirm, peer, force }
    }
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
pub(crate) enum ImportVerb {
    /// UFW's; exit status 1 if the policy does not do everything that UFW does, and then it says what
    Ufw(UfwRequest),
}

/// What of UFW to read, and where to write.
#[derive(Debug, ClapArgs)]
pub(crate) struct UfwRequest {
    /// Where user.rules, before.rules, ufw.conf and applications.d are
    #[arg(value_name = "DIR", default_value = "/etc/ufw")]
    pub(crate) folder: PathBuf,
    /// The default policies [default: DIR/../default/ufw]
    #[arg(long, value_name = "FILE")]
    pub(crate) defaults: Option<PathBuf>,
    /// Write the policy here, readable by nobody else, instead of to standard output; replaced whole
    /// or not at all
    #[arg(short, long, value_name = "FILE")]
    pub(crate) output: Option<PathBuf>,
    /// This host has no containers: what comes from or goes to a bridge of Docker is judged by the
    /// rules for `route`, as by UFW, and not as what containers send
    #[arg(long)]
    pub(crate) no_containers: bool,
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

/// Time enough to do something, and not so much that it is forgotten.
fn parse_confirm(text: &str) -> Result<Duration, String> {
    let time = humantime::parse_duration(text).map_err(|error| error.to_string())?;
    let day = Duration::from_secs(24 * 3600);
    if time < Duration::from_secs(1) || time > day {
        return Err("expected from 1s to 24h".to_owned());
    }
    Ok(time)
}

fn parse_from(text: &str) -> Result<(IpAddr, Option<u16>), String> {
    if let Ok(address) = text.parse::<IpAddr>() {
        return Ok((address, None));
    }
    text.parse::<SocketAddr>()
        .map(|both| (both.ip(), Some(both.port())))
        .map_err(|_| "expected an address, ADDR:PORT or [ADDR]:PORT".to_owned())
}
