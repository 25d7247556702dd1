//! The command line. What a verb takes is named after the verb.

mod ban;
mod explain;
mod feed;
mod guard;
mod history;
mod import;
mod inspect;
mod jail;
mod list;
mod load;
mod log;
mod never;
mod values;

pub(crate) use ban::{BanRequest, BansRequest, UnbanRequest};
pub(crate) use explain::ExplainRequest;
pub(crate) use feed::FeedVerb;
pub(crate) use guard::GuardRequest;
pub(crate) use history::HistoryVerb;
pub(crate) use import::{BansImport, Fail2banRequest, ImportVerb, UfwRequest};
pub(crate) use inspect::{DoctorRequest, StatusRequest};
pub(crate) use jail::{JailTestRequest, JailVerb};
pub(crate) use list::ListRequest;
pub(crate) use load::LockoutRequest;
pub(crate) use log::LogRequest;
pub(crate) use never::NeverChange;
pub(crate) use values::BanDuration;

use std::net::IpAddr;
use std::path::PathBuf;

use clap::{Parser, Subcommand};
use clap_complete::Shell;

/// The release, the commit that it was built from, its features and its target.
pub(crate) const VERSION: &str = concat!(
    env!("CARGO_PKG_VERSION"),
    " (commit ",
    env!("NFGUARD_COMMIT"),
    ", features: ",
    env!("NFGUARD_FEATURES"),
    ", ",
    env!("NFGUARD_TARGET"),
    ")"
);

/// A deny-by-default nftables firewall for servers that run Docker behind a reverse proxy
#[derive(Debug, Parser)]
#[command(name = "nfguard", version = VERSION, max_term_width = 100, after_help = EXIT_STATUS)]
pub(crate) struct Args {
    /// Print machine-readable JSON, with a `schema` number
    #[arg(long, global = true)]
    pub(crate) json: bool,

    /// Directory of the history, the saved bans and the scanners [default: $NFGUARD_STATE_DIR, else /var/lib/nfguard]
    #[arg(long, global = true, value_name = "DIR")]
    pub(crate) state_dir: Option<PathBuf>,

    #[command(subcommand)]
    pub(crate) verb: Verb,
}

const EXIT_STATUS: &str = "Exit status: 0 done, 1 the answer is \"no\" or \"differs\", 2 bad usage \
or bad input, 3 the kernel refused, 4 no permission.";

#[derive(Debug, Subcommand)]
// Only the arguments of the verb that runs are built. Their structs have no doc comments: clap would
// print these instead of what stands here.
#[command(defer = true)]
pub(crate) enum Verb {
    /// Validate a policy file: list all errors and warnings
    Check {
        /// The policy; `-` is standard input
        file: PathBuf,
    },
    /// Load a policy into the kernel, in one transaction
    Load {
        /// The policy; `-` is standard input
        file: PathBuf,
        /// Show the changes and load nothing
        #[arg(long)]
        dry_run: bool,
        #[command(flatten)]
        lockout: LockoutRequest,
    },
    /// Load the policy and restore bans, feeds and never-ban entries, before the network starts; exit
    /// status 1 if another policy than the file's is in force, or something was not restored
    Boot {
        /// The policy. If it cannot be loaded, boot loads the last good policy of the history. If
        /// there is none, it keeps the policy that the kernel holds. If there is none either, it
        /// loads a rescue policy that admits only SSH
        #[arg(default_value = "/etc/nfguard/policy.json")]
        file: PathBuf,
        /// A file that `save` wrote [default: `bans` in the state directory]
        #[arg(long, value_name = "FILE")]
        bans: Option<PathBuf>,
    },
    /// Confirm what `load --confirm` loaded; exit status 1 if no load waits, or the rules from
    /// before it are back
    Confirm,
    /// Return to the previous load, or load a policy of the history again; a load that waits to be
    /// confirmed is undone at once
    Rollback {
        /// Number of a load in the history: load its policy again
        number: Option<u64>,
        #[command(flatten)]
        lockout: LockoutRequest,
    },
    /// List the last loads: time, user, file and outcome
    History {
        #[command(subcommand)]
        of: Option<HistoryVerb>,
    },
    /// Show what `load` would change; exit status 1 if it would change anything
    Diff {
        /// The policy; `-` is standard input
        file: PathBuf,
        /// Compare with this policy file, without a kernel
        #[arg(long, value_name = "POLICY")]
        offline: Option<PathBuf>,
    },
    /// Print a policy, or the loaded policy, as nftables text
    Show {
        /// The policy [default: what is loaded]
        file: Option<PathBuf>,
    },
    /// Show which rule decides about a connection, without a kernel; exit status 1 if the
    /// connection is refused
    Explain(ExplainRequest),
    /// Test a policy with real packets in a temporary network namespace; needs no root
    Try {
        /// The policy; `-` is standard input
        file: PathBuf,
    },
    /// Show whether the policy is loaded and intact, its counters, and the ports that the world
    /// reaches; exit status 1 if no policy is loaded, or it was changed
    Status(StatusRequest),
    /// Print each packet that a rule logs to an NFLOG group: the rule, its verdict and the packet;
    /// runs until interrupted
    Log(LogRequest),
    /// List the scanners that `log --keep` has recorded, the most dangerous first; or show one
    /// source in detail, with exit status 1 if it was not seen
    Scans {
        /// Show this source; an IPv6 address stands for its /64
        address: Option<IpAddr>,
    },
    /// Find problems of this host: other tables that drop what the policy allows, hidden client
    /// addresses, guests that the policy does not know or does not reach, services that remove the
    /// policy at boot; exit status 1 if a problem is found
    Doctor(DoctorRequest),
    /// Remove the policy from the kernel; bans and the tables of other programs stay
    Unload {
        /// Remove the bans, the feeds and the never-ban list too, also for the next boot
        #[arg(long)]
        all: bool,
    },
    /// Ban addresses or prefixes, on every path into host and containers
    Ban(BanRequest),
    /// Remove bans; address, prefix and port must match exactly; exit status 1 if one was not
    /// banned
    Unban(UnbanRequest),
    /// List the active bans
    Bans(BansRequest),
    /// Save the active bans to a file for `restore`; feeds and never-ban entries are written down when
    /// they are put in
    Save {
        /// The file; it is replaced completely or not at all. `-` is standard output
        file: PathBuf,
    },
    /// Restore saved bans with their remaining time
    Restore {
        /// A file that `save` wrote; `-` is standard input. A damaged file is renamed, and no ban
        /// of it is restored
        file: PathBuf,
        /// Restore bans that shut out a large part of all addresses or of the connected peers
        #[arg(long)]
        force: bool,
    },
    /// Drop all traffic of the addresses in published lists
    #[command(subcommand)]
    Feed(FeedVerb),
    /// List the never-ban entries with their reasons, or change them
    Never {
        #[command(subcommand)]
        change: Option<NeverChange>,
    },
    /// Print command completions for a shell
    Completions {
        /// The shell
        shell: Shell,
    },
    /// Print the manual page in roff, or write one page for each command
    Man {
        /// Write all pages to this existing directory
        folder: Option<PathBuf>,
    },
    /// Protect the loaded policy and the bans against other programs, and serve a socket; runs
    /// until interrupted, and leaves policy and bans in place
    Guard(GuardRequest),
    /// Holds the rules from before a load: `load --confirm` starts it
    #[command(hide = true)]
    Watchdog {
        /// Start again in a new session
        #[arg(long)]
        session: bool,
    },
    /// Test, check and show jails, which read logs and decide which sources to ban; needs no privilege
    #[command(subcommand)]
    Jail(JailVerb),
    /// Take over from other tools: a policy file from UFW, a file of jails from Fail2Ban, or bans
    #[command(subcommand)]
    Import(ImportVerb),
}

#[cfg(test)]
mod tests {
    use clap::CommandFactory as _;

    use super::*;

    #[test]
    fn the_help_of_a_verb_begins_with_its_line_in_the_list_of_verbs() {
        let abouts = |command: &clap::Command| {
            let verbs = command.get_subcommands().filter(|verb| verb.get_name() != "help");
            let about = |verb: &clap::Command| verb.get_about().map(ToString::to_string);
            verbs.map(|verb| (verb.get_name().to_owned(), about(verb))).collect::<Vec<_>>()
        };
        let mut command = Args::command();
        let listed = abouts(&command);
        assert!(listed.len() > 20 && listed.iter().all(|(_, about)| about.is_some()), "{listed:?}");
        command.build();
        assert_eq!(abouts(&command), listed);
    }
}
