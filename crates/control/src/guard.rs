//! `guard`: keeps what is loaded, whatever other programs do.
//!
//! One thread that waits for the kernel's news, for clients and for the time, and does one thing
//! after the other: first the firewall, then whoever asks.

mod api;
mod bans;
mod client;
mod event_loop;
mod listener;
mod metrics;
mod policy_table;
mod requests;
mod sandbox;

use std::env;
use std::fs;
use std::io::{self, ErrorKind};
use std::net;
use std::os::linux::net::SocketAddrExt as _;
use std::os::unix::net::{SocketAddr, UnixDatagram, UnixListener};
use std::path::PathBuf;

use nfguard_ban::Bans;
use nfguard_netlink::{Error as KernelError, Nft, Ownership, RulesetMonitor, Table};
use nix::sys::resource::{Resource, getrlimit, setrlimit};

use crate::Error;
use crate::ban_table::BanRules;
use crate::change::PolicyChange;
use crate::context::Context;
use crate::history::{History, LoadRecord};
use crate::lease::{Lease, Release};
use crate::policy_file::PolicyFile;
use crate::table::{ours, removal};
use crate::{digest, lease};
use event_loop::Guard;

/// How many files and sockets are to be had.
const FILES: u64 = 4096;

/// As `nice` has it.
const HURRY: i32 = -10;

/// Where a guard listens.
#[derive(Clone, Debug)]
pub struct Options {
    /// The socket of its clients.
    pub socket: PathBuf,
    /// Who may connect to it, as chmod has it.
    pub mode: u32,
    /// The group of those who may ban.
    pub group: Option<u32>,
    /// Where its numbers are read.
    pub metrics: Option<Scraped>,
}

/// Where numbers are read.
#[derive(Clone, Debug)]
pub enum Scraped {
    /// At a port.
    Tcp(net::SocketAddr),
    /// At a socket in the file system.
    File(PathBuf),
}

/// Guards this policy, or without one what is loaded or was last, until the process is ended.
///
/// # Errors
/// If it cannot start, or its sockets cannot be waited for.
pub fn run(options: &Options, file: Option<&PolicyFile>, context: &Context) -> Result<(), Error> {
    let failed = |error: io::Error| Error::Guard(error.to_string());
    let (soft, hard) = getrlimit(Resource::RLIMIT_NOFILE).map_err(|error| failed(error.into()))?;
    let _ = setrlimit(Resource::RLIMIT_NOFILE, FILES.clamp(soft.min(hard), hard), hard);
    // Before anything is changed, so that there is one alone.
    let inner =
        UnixListener::bind_addr(&lease::address().map_err(failed)?).map_err(|error| match error
            .kind()
        {
            ErrorKind::AddrInUse if matches!(lease::find(context.warn), Ok(None)) => {
                Error::Guard("another program has the name of its socket".to_owned())
            }
            ErrorKind::AddrInUse => {
                Error::Guard("another guard runs in this network namespace".to_owned())
            }
            _ => failed(error),
        })?;
    let listeners = listener::open(options, inner)?;

    // First of all, so that nothing is missed.
    let events = RulesetMonitor::open()?;
    let held = held()?;
    let sealed = file.map(PolicyFile::seal);
    let intended = match &sealed {
        Some(sealed) => Some(sealed.table.clone()),
        None => held.clone().or_else(|| last(&context.history)),
    };
    // The name of the socket is the lease: as long as it is taken, no other process asks for one.
    let mut change = PolicyChange::begin_with(context, Lease::default())?;
    if let (Some(file), Some(sealed)) = (file, sealed)
        && held.map(Table::normalized) != intended.clone().map(Table::normalized)
    {
        change.record(file.record(sealed.digest, context.connection()));
    }
    if let Some(table) = &intended {
        let is_plain = change.nft.holding(&table.name)? == Some(Ownership::Plain);
        let transaction = if is_plain && can_own() {
            // To own a table that nothing owned before, the kernel has to make it again.
            removal()
        } else {
            nfguard_netlink::plan(&mut change.nft, table)?.1
        };
        change.copy_scan_bans(&transaction)?;
    }
    let policy = policy_table::PolicyTable::keep(intended).inspect_err(|_| change.cancel())?;
    let rules = file.map_or(BanRules::Unchanged, |file| BanRules::of(&file.policy));
    change.finish(rules, Release::Loaded)?;
    let bans = Bans::open(context.never_ban()?)?;
    let memory = bans::Memory::read(Nft::open()?)?;
    // What others flush is to be back before their next packet; without the privilege it is later.
    let _ = rustix::process::setpriority_process(None, HURRY);
    ready();
    sandbox::enter().map_err(failed)?;
    Guard::new(policy, memory, bans, events).serve(&listeners)
}

/// Whether this kernel keeps an owned table when its owner ends: since Linux 6.9.
fn can_own() -> bool {
    let release = fs::read_to_string("/proc/sys/kernel/osrelease").unwrap_or_default();
    let mut numbers = release.split(['.', '-']).map_while(|number| number.parse::<u32>().ok());
    (numbers.next().unwrap_or_default(), numbers.next().unwrap_or_default()) >= (6, 9)
}

/// What the kernel holds, if it is what was loaded.
fn held() -> Result<Option<Table>, KernelError> {
    let held = match nfguard_netlink::own_table(&mut Nft::open()?, &ours()) {
        Ok(snapshot) => snapshot.loaded.map(|loaded| loaded.table),
        Err(KernelError::Decode(_)) => None,
        Err(error) => return Err(error),
    };
    Ok(held.filter(|table| digest::verify(table).1))
}

/// What was loaded last, if it was not removed on purpose.
fn last(history: &History) -> Option<Table> {
    let entry = history.entries().into_iter().rfind(LoadRecord::holds)?;
    Some(PolicyFile::parse(&entry.file, entry.policy?).ok()?.seal().table)
}

/// Tells systemd, where that waits for it.
fn ready() {
    let Some(name) = env::var_os("NOTIFY_SOCKET") else { return };
    let name = name.to_string_lossy();
    let address = match name.strip_prefix('@') {
        Some(name) => SocketAddr::from_abstract_name(name),
        None => SocketAddr::from_pathname(&*name),
    };
    let sent =
        address.and_then(|address| UnixDatagram::unbound()?.send_to_addr(b"READY=1\n", &address));
    if let Err(error) = sent {
        log::warn!("systemd is not told that the guard is ready: {error}");
    }
}
