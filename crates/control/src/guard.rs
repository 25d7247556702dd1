//! The guard: keeps what is loaded, whatever other programs do.
//!
//! One thread waits for the kernel's events, for clients and for timers, and handles one after the
//! other: first the firewall, then the clients.
//!
//! ```text
//!  kernel's events ─┐
//!  timers ──────────┼─▶ event_loop ─▶ firewall ─▶ policy_table, bans, scan_watch ─▶ kernel
//!  clients ─────────┘       │            ▲
//!    listener, client       └─▶ requests, batch, ban_input
//! ```

mod ban_input;
pub(crate) mod ban_record;
mod batch;
mod client;
mod denied_call;
mod event_loop;
mod firewall;
mod listener;
mod login_watch;
mod metrics;
mod policy_table;
mod repeated_warning;
mod requests;
mod sandbox;
mod scan_watch;

use std::fs;
use std::io::{self, ErrorKind};
use std::net;
use std::path::PathBuf;

use nfguard_api::local_socket::LocalAddress;
use nfguard_ban::BanMirror;
use nfguard_netlink::{Error as KernelError, Nft, Ownership, RulesetMonitor, Table};
use nix::sys::resource::{Resource, getrlimit, setrlimit};

use crate::Error;
use crate::ban_table::BanRules;
use crate::change::PolicyChange;
use crate::context::Context;
use crate::history::{History, LoadRecord};
use crate::lease::Lease;
use crate::open_connections::OpenConnections;
use crate::policy_file::PolicyFile;
use crate::table::{ours, removal};
use crate::{digest, persistence, systemd};
use ban_record::BanRecord;
use event_loop::EventLoop;
use firewall::Firewall;

/// Most open files and sockets.
const MAX_OPEN_FILES: u64 = 4096;

/// Priority of the process, as `nice` has it: what others flush is to be back before their next
/// packet.
const NICENESS: i32 = -10;

/// Where a guard listens, and to which users.
#[derive(Clone, Debug)]
pub struct Options {
    /// The path of the socket for clients.
    pub socket: PathBuf,
    /// The mode of the socket, as chmod has it.
    pub mode: u32,
    /// The group of the socket, whose members may ban.
    pub group: Option<u32>,
    /// Where Prometheus reads the metrics.
    pub metrics: Option<MetricsAddress>,
}

/// Where Prometheus reads the metrics.
#[derive(Clone, Debug)]
pub enum MetricsAddress {
    /// A TCP port.
    Tcp(net::SocketAddr),
    /// A socket in the file system.
    File(PathBuf),
}

/// Guards this policy until the process is ended. Without one, it guards the policy that is loaded or
/// was loaded last.
///
/// # Errors
/// The guard cannot start, or cannot wait for its sockets.
pub fn run(options: &Options, file: Option<&PolicyFile>, context: &Context) -> Result<(), Error> {
    let failed = |error: io::Error| Error::Guard(error.to_string());
    let (soft, hard) = getrlimit(Resource::RLIMIT_NOFILE).map_err(|error| failed(error.into()))?;
    let wanted = MAX_OPEN_FILES.clamp(soft.min(hard), hard);
    let raised = setrlimit(Resource::RLIMIT_NOFILE, wanted, hard);
    let max_files = if raised.is_ok() { wanted } else { soft };
    // Before anything is changed, so that there is only one guard.
    let namespace = LocalAddress::Guard.listen().map_err(|error| match error.kind() {
        ErrorKind::AddrInUse => {
            Error::Guard("another guard runs in this network namespace".to_owned())
        }
        _ => failed(error),
    })?;
    let listeners = listener::open(options, namespace)?;

    // Before the tables are read, so that no change is missed.
    let monitor = RulesetMonitor::open()?;
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
    let mut open = None;
    if let Some(table) = &intended {
        let is_plain = change.nft.ownership(&table.name)? == Some(Ownership::Plain);
        let transaction = if is_plain && can_own() {
            // To own a table that nothing owned before, the kernel has to make it again.
            removal()
        } else {
            nfguard_netlink::plan_load(&mut change.nft, table)?.transaction
        };
        change.copy_scan_bans(&transaction).inspect_err(|_| change.cancel())?;
        open = OpenConnections::before_first_table(&mut change.nft, context);
    }
    let policy = policy_table::PolicyTable::take_over(intended).inspect_err(|_| change.cancel())?;
    if let Some(open) = &mut open {
        open.track_new(&mut change.nft);
    }
    let rules = file.map_or(BanRules::Unchanged, |file| BanRules::of(&file.policy));
    // There is no lease to release.
    change.finish_removed(rules, Vec::new())?;
    // Without a table for bans, all that is written down is restored.
    let extended = systemd::ExtendedTimeout::start();
    let bans = persistence::open(context)?;
    let mut mirror = BanMirror::open(Nft::open()?)?;
    let warned = |error: io::Error| (context.warn)(&format!("the bans are not recorded: {error}"));
    // In the sandbox they can be opened no more.
    let record = context
        .files
        .folder()
        .and_then(|folder| BanRecord::open(folder, &mut mirror).map_err(warned).ok());
    let log = context
        .files
        .ban_log()
        .and_then(|log| log.open().inspect_err(|error| (context.warn)(&error.to_string())).ok());
    // Without the privilege, repairs are later.
    let _ = rustix::process::setpriority_process(None, NICENESS);
    let firewall = Firewall::new(policy, mirror, bans, log, record);
    let mut event_loop = EventLoop::new(firewall, monitor, max_files);
    event_loop.read_bans();
    drop(extended);
    systemd::notify("READY=1\n");
    sandbox::enter().map_err(failed)?;
    event_loop.run(&listeners)
}

/// Whether this kernel keeps an owned table when its owner ends: since Linux 6.9.
fn can_own() -> bool {
    let release = fs::read_to_string("/proc/sys/kernel/osrelease").unwrap_or_default();
    let mut numbers = release.split(['.', '-']).map_while(|number| number.parse::<u32>().ok());
    (numbers.next().unwrap_or_default(), numbers.next().unwrap_or_default()) >= (6, 9)
}

/// Returns the table that the kernel holds, if a load made it.
fn held() -> Result<Option<Table>, KernelError> {
    let held = match nfguard_netlink::read_own_table(&mut Nft::open()?, &ours()) {
        Ok(snapshot) => snapshot.loaded.map(|loaded| loaded.table),
        Err(KernelError::Decode(_)) => None,
        Err(error) => return Err(error),
    };
    Ok(held.filter(|table| digest::verify(table).1))
}

/// Returns the table that was loaded last, unless it was removed on purpose.
fn last(history: &History) -> Option<Table> {
    let entry = history.entries().into_iter().rfind(LoadRecord::holds)?;
    Some(PolicyFile::parse(&entry.file, entry.policy?).ok()?.seal().table)
}
