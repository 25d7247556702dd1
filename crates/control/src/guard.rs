//! `guard`: keeps what is loaded, whatever other programs do.
//!
//! One thread that waits for the kernel's news, for clients and for the time, and does one thing
//! after the other: first the firewall, then whoever asks.

mod answer;
mod api;
mod bans;
mod fence;
mod journal;
mod lend;
mod listen;
mod metrics;
mod peer;
mod policy;
mod serve;

pub(crate) use lend::{borrow, try_borrow};

use std::env;
use std::io::{self, ErrorKind};
use std::os::linux::net::SocketAddrExt as _;
use std::os::unix::net::{SocketAddr, UnixDatagram, UnixListener};

use nfguard_ban::Bans;
use nfguard_netlink::{Error, Nft, RulesetMonitor, Table};
use nix::sys::resource::{Resource, getrlimit, setrlimit};

use crate::args::GuardRequest;
use crate::bans::Scans;
use crate::failure::Failure;
use crate::history::{History, LoadOutcome, LoadRecord};
use crate::load::{ours, tell_bans};
use crate::policy_file::PolicyFile;
use crate::{Answer, Done, stamp};
use serve::Guard;

/// How many files and sockets are to be had.
const FILES: u64 = 4096;

/// As `nice` has it.
const HURRY: i32 = -10;

pub(crate) fn guard(request: &GuardRequest, history: &History) -> Done {
    journal::open();
    let failed = |error: io::Error| Failure::Guard(error.to_string());
    let file = request.file.as_deref().map(PolicyFile::read_trusted).transpose()?;
    let file = file.map(|file| file.warned(false));
    let (soft, hard) = getrlimit(Resource::RLIMIT_NOFILE).map_err(|error| failed(error.into()))?;
    let _ = setrlimit(Resource::RLIMIT_NOFILE, FILES.clamp(soft.min(hard), hard), hard);
    // Before anything is changed, so that there is one alone.
    let inner =
        UnixListener::bind_addr(&lend::address().map_err(failed)?).map_err(|error| match error
            .kind()
        {
            ErrorKind::AddrInUse if matches!(lend::find(), Ok(None)) => {
                Failure::Guard("its name is taken".to_owned())
            }
            ErrorKind::AddrInUse => {
                Failure::Guard("another one runs in this network namespace".to_owned())
            }
            _ => failed(error),
        })?;
    let listeners = listen::open(request, inner)?;

    // First of all, so that nothing is missed.
    let events = RulesetMonitor::open()?;
    let held = held()?;
    let intended = match &file {
        Some(file) => Some(file.table()),
        None => held.clone().or_else(|| last(history)),
    };
    let scans = Scans::now()?;
    let policy = policy::PolicyTable::keep(intended.clone())?;
    scans.outlive()?;
    if let Some(file) = &file {
        tell_bans(&file.policy)?;
        if held.map(Table::normalized) != intended.map(Table::normalized) {
            let digest = stamp::digest(&file.policy.compile());
            history.add(LoadRecord::new(&file.name, Some(&file.text), digest, LoadOutcome::Loaded));
        }
    }
    let bans = Bans::open(crate::bans::never()?)?;
    let memory = bans::Memory::read(Nft::open()?)?;
    // What others flush is to be back before their next packet; without the privilege it is later.
    let _ = rustix::process::setpriority_process(None, HURRY);
    ready();
    fence::enter().map_err(failed)?;
    Guard::new(policy, memory, bans, events).serve(&listeners)?;
    Ok(Answer::Yes)
}

/// What the kernel holds, if it is what was loaded.
fn held() -> Result<Option<Table>, Error> {
    let held = match nfguard_netlink::own_table(&mut Nft::open()?, &ours()) {
        Ok(snapshot) => snapshot.loaded.map(|loaded| loaded.table),
        Err(Error::Decode(_)) => None,
        Err(error) => return Err(error),
    };
    Ok(held.filter(|table| stamp::verify(table).1))
}

/// What was loaded last, if it was not removed on purpose.
fn last(history: &History) -> Option<Table> {
    let entry = history.entries().into_iter().rfind(LoadRecord::holds)?;
    Some(PolicyFile::parse(&entry.file, entry.policy?).ok()?.table())
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
