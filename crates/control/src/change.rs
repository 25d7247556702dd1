//! The one protocol by which the policy in the kernel changes.
//!
//! A load, an unload, a boot, a rollback and the start of a guard all change the policy's table while
//! other programs look on: a guard that repairs it, rules of the kernel that ban by themselves, and
//! another load. [`PolicyChange`] has their steps in the one order in which a process may be killed
//! between any two of them.
//!
//! ```text
//! begin     1  lease acquired       from the guard, if there is one
//!           2  scan bans read       the table holds them, and they end with it
//! arm       3  watchdog armed       only of a load that waits to be confirmed
//! commit    4  history written      only if the table changes
//!           5  scan bans copied     to the ban table, if the new table will not hold them
//!           6  table committed      in one transaction, and read back; around the first table, the
//!                                   kernel is told which connections are open
//! finish    7  scan bans compared   what ended with the table all the same is banned again
//!           8  ban table told       what the policy says of bans
//!           9  lease released       the guard keeps the table that was put in
//!          10  watchdog told        that the load is done
//! ```
//!
//! Why in this order:
//! - The lease comes first. A table that is owned can be changed by its owner alone, and a guard
//!   repairs what it sees changed. If the process dies, its connection closes, and the guard takes
//!   the table back: as it is if a load made it so, else as it was.
//! - The watchdog is armed before anything changes, so there is no moment in which new rules are in
//!   force and nothing takes them back. If it cannot be armed, nothing is loaded.
//! - The history is written before the commit. A load that was killed half-way is in it, so that
//!   `status` knows the table by its digest, and `rollback` finds the load before it. A load that
//!   the kernel refused is taken out again.
//! - Bans by scans lie in the policy's table. They are copied before the commit, so an address that
//!   is banned stays banned throughout. Where both tables hold it, that is one ban.
//! - Before the first table the kernel tracks no connections, so it is told of those that are open
//!   before the table comes, and of those that opened meanwhile once it is there. If the load is
//!   killed or refused in between, they are known and change nothing.
//! - The ban table is told before the lease is released: from then on the guard's rules count.
//! - While the lease is held, the table has no owner, and other programs can change it. So the guard
//!   is told the digest of the table that was put in. If the kernel holds another one, the table is
//!   put in again.
//! - The watchdog is told last. If its time is over before, it puts the old rules back, and once more
//!   when the load has ended: what a load still does in between, such as putting its table in again,
//!   does not stay.

use std::net::IpAddr;
use std::time::Duration;

use nfguard_ban::Bans;
use nfguard_netlink::{Error as KernelError, Nft, Table, TableChange, Transaction, load_after};
use nfguard_policy::TABLE;

use crate::ban_table::BanRules;
use crate::context::Context;
use crate::history::{LoadOutcome, LoadRecord};
use crate::lease::{Lease, Release};
use crate::lockout::{Obstacle, Visitor};
use crate::open_connections::OpenConnections;
use crate::policy_file::{PolicyFile, Sealed};
use crate::rollback::client::{Armed, Commit};
use crate::rollback::snapshot::Snapshot;
use crate::scan_bans::ScanBans;
use crate::table::{ours, removal, replacement};
use crate::{Error, digest, interface_names, lease};

/// How often a table is put in that other programs change before the guard has it.
const RELEASE_ATTEMPTS: usize = 3;

/// How careful a load is.
#[derive(Clone, Copy, Debug, Default)]
pub struct Caution {
    /// The rules from before the load come back unless it is confirmed within this time.
    pub confirm: Option<Duration>,
    /// The address that must still get in, and its port; `None`: the peer of the SSH session.
    pub peer: Option<(IpAddr, Option<u16>)>,
    /// Load also what would lock out the peer.
    pub force: bool,
}

/// What a load has done.
#[derive(Debug)]
pub struct Loaded {
    /// What the kernel was to hold.
    pub table: Table,
    /// What was changed.
    pub change: TableChange,
    /// Why the peer would not get in again.
    pub obstacle: Option<Obstacle>,
    /// How long the load waits to be confirmed.
    pub confirm: Option<Duration>,
}

/// A change of the policy's table that has begun. The order of its steps stands above. If it is
/// dropped, the guard takes its table back.
pub struct PolicyChange<'c> {
    context: &'c Context,
    pub(crate) nft: Nft,
    lease: Lease,
    scans: ScanBans,
    /// The ban table; `None` if there is none.
    bans: Option<Bans>,
    /// Whether this host told which addresses are never banned.
    host: Result<(), Error>,
    armed: Option<(Armed, Duration)>,
    /// The number of this load in the history.
    record: Option<u64>,
}

impl<'c> PolicyChange<'c> {
    /// Acquires the lease, and reads the bans by scans: steps 1 and 2. Waits while another process
    /// holds the lease.
    ///
    /// # Errors
    /// If the lease is not to be had, or the kernel does not tell.
    pub fn begin(context: &'c Context) -> Result<PolicyChange<'c>, Error> {
        PolicyChange::begin_with(context, lease::acquire()?)
    }

    /// As [`PolicyChange::begin`], with a lease that was acquired already, or none.
    ///
    /// # Errors
    /// If the kernel does not tell.
    pub(crate) fn begin_with(
        context: &'c Context,
        lease: Lease,
    ) -> Result<PolicyChange<'c>, Error> {
        let nft = Nft::open()?;
        // A host that does not tell who it is can still be given a policy: see `finish`.
        let (never_ban, host) = match context.never_ban() {
            Ok(never_ban) => (never_ban, Ok(())),
            Err(error) => (context.without_host_facts(), Err(error)),
        };
        let mut bans = Bans::open_existing(never_ban)?;
        let scans = ScanBans::read(bans.as_mut())?;
        Ok(PolicyChange { context, nft, lease, scans, bans, host, armed: None, record: None })
    }

    /// Arms the watchdog: step 3.
    ///
    /// # Errors
    /// If it cannot be armed. Nothing was changed.
    pub fn arm(&mut self, time: Duration) -> Result<(), Error> {
        let armed = Armed::ready(time, self.context.connection(), &self.context.history);
        let armed = armed.map_err(|error| match error {
            Error::Rollback(why) => Error::Rollback(format!("nothing was loaded: {why}")),
            other => other,
        })?;
        self.armed = Some((armed, time));
        Ok(())
    }

    /// Makes the kernel hold this table: steps 4 to 6.
    ///
    /// # Errors
    /// If the kernel refuses it.
    pub fn load(
        &mut self,
        table: &Table,
        mut record: Option<LoadRecord>,
    ) -> Result<TableChange, Error> {
        if let (Some(record), true) = (&mut record, self.armed.is_some()) {
            record.outcome = LoadOutcome::Pending;
        }
        let is_recorded_here = record.is_some();
        let PolicyChange { context, nft, scans, bans, record: written, .. } = self;
        let mut open = OpenConnections::before_first_table(nft, context);
        let loaded = load_after(nft, table, |transaction| {
            // A second attempt is the same load.
            if let Some(record) = record.take() {
                *written = context.history.add(record);
            }
            scans.copy_before(transaction, bans, context)
        });
        match loaded {
            Ok(change) if change.transaction.is_empty() => {
                // Another load may have done the same between two attempts.
                if is_recorded_here {
                    self.context.history.forget(self.record.take());
                }
                self.disarm();
                Ok(change)
            }
            Ok(change) => {
                if let Some(open) = &mut open {
                    open.track_new(nft);
                }
                Ok(change)
            }
            // Something may be in force now that nothing has asked for: the watchdog ends it.
            Err(error @ Error::Kernel(KernelError::ReadBack(_) | KernelError::AnswerLost)) => {
                if let Some((_, time)) = &self.armed {
                    let time = humantime::format_duration(*time);
                    let warn = self.context.warn;
                    warn(&format!("the rules from before the load come back in {time}"));
                }
                Err(error)
            }
            Err(error) => {
                self.cancel();
                Err(error)
            }
        }
    }

    /// Writes this load down before it is known whether the table changes: step 4.
    pub fn record(&mut self, record: LoadRecord) {
        self.record = self.context.history.add(record);
    }

    /// Bans by scans that this transaction would end are copied to the ban table: step 5. Call it
    /// before a commit that is not [`PolicyChange::load`].
    ///
    /// # Errors
    /// If the ban table refuses.
    pub(crate) fn copy_scan_bans(&mut self, transaction: &Transaction) -> Result<(), Error> {
        self.scans.copy_before(transaction, &mut self.bans, self.context)
    }

    /// Nothing was changed after all.
    pub(crate) fn cancel(&mut self) {
        self.context.history.forget(self.record.take());
        self.disarm();
    }

    fn disarm(&mut self) {
        if let Some((armed, _)) = self.armed.take() {
            armed.cancel();
        }
    }

    /// As [`PolicyChange::begin`] of a rollback, which nothing may hold up. Where another process
    /// holds the lease, that is the load which takes too long: then the table can be changed without
    /// it, or in a moment. Without the ban table, the rules come back all the same.
    ///
    /// # Errors
    /// If the kernel does not talk to this process.
    fn begin_rollback(context: &'c Context) -> Result<PolicyChange<'c>, Error> {
        let lease = lease::acquire_for_rollback(context.warn);
        let nft = Nft::open()?;
        // What the load let be banned is spared again from then on.
        let never_ban = context.never_ban().unwrap_or_default();
        let mut bans = Bans::open_existing(never_ban).ok().flatten();
        let scans = ScanBans::read(bans.as_mut()).unwrap_or_default();
        let host = Ok(());
        Ok(PolicyChange { context, nft, lease, scans, bans, host, armed: None, record: None })
    }

    /// Makes the kernel hold this table, or none, whatever it holds now: steps 5 and 6.
    ///
    /// # Errors
    /// If the kernel refuses it.
    pub(crate) fn put_back(&mut self, table: Option<&Table>) -> Result<(), Error> {
        let PolicyChange { context, nft, scans, bans, .. } = self;
        let mut copy = |transaction: &Transaction| {
            if let Err(error) = scans.copy_before(transaction, bans, context) {
                (context.warn)(&format!("the bans of scanners could not be kept: {error}"));
            }
        };
        let gently = match table {
            // What both have in common keeps its counters and its memory.
            Some(table) => load_after(nft, table, |transaction| {
                copy(transaction);
                Ok::<_, KernelError>(())
            })
            .map(drop),
            None => {
                copy(&removal());
                nfguard_netlink::unload(nft, &ours()).map(drop)
            }
        };
        // Others may write all the time, or the table may hold what nfguard cannot read. That takes
        // reading; this does not.
        gently.or_else(|_| {
            let replacement = replacement(table);
            copy(&replacement);
            Ok(nft.commit(&replacement, None)?)
        })
    }

    /// Tells the ban table, releases the lease, and tells the watchdog: steps 7 to 10. `table` is the
    /// one that was put in. If other programs change it again and again, the lease ends with
    /// `at_last`.
    ///
    /// # Errors
    /// If the ban table or the guard refuses: the policy is in force all the same. If the watchdog's
    /// time is over, or it has ended: then the rules from before are back.
    pub fn finish(
        mut self,
        rules: BanRules<'_>,
        table: &Table,
        at_last: Release,
    ) -> Result<(), Error> {
        let told = self.tell_bans(rules);
        let released = self.release(table, at_last);
        self.tell_watchdog()?;
        released.and(told).and(self.host)
    }

    fn release(&mut self, table: &Table, at_last: Release) -> Result<(), Error> {
        let put_in = Release::PutIn(digest::digest(table));
        for _ in 0..RELEASE_ATTEMPTS {
            if self.lease.try_release(put_in.clone())? {
                return Ok(());
            }
            self.put_back(Some(table))?;
        }
        self.lease.try_release(at_last)?;
        Err(Error::Guard("another program changes the policy's table all the time".to_owned()))
    }

    /// Step 10.
    fn tell_watchdog(&mut self) -> Result<(), Error> {
        let Some((armed, _)) = self.armed.take() else { return Ok(()) };
        let why = match armed.loaded() {
            Commit::Pending => return Ok(()),
            Commit::Expired => "the load took longer than the time to confirm it",
            Commit::WatchdogGone(before) => {
                restore(&before, self.context)?;
                self.context.history.settle(&LoadOutcome::RolledBack);
                "another program ended the watchdog"
            }
        };
        Err(Error::Rollback(format!("{why}; the rules from before the load are back")))
    }

    /// As [`PolicyChange::finish`], where these tables were removed.
    ///
    /// # Errors
    /// As [`PolicyChange::finish`].
    pub(crate) fn finish_removed(
        mut self,
        rules: BanRules<'_>,
        removed: Vec<String>,
    ) -> Result<(), Error> {
        let told = self.tell_bans(rules);
        self.lease.release(Release::Removed(removed))?;
        told
    }

    /// Steps 7 and 8.
    fn tell_bans(&mut self, rules: BanRules<'_>) -> Result<(), Error> {
        let kept = self.scans.restore(&mut self.bans, self.context);
        let told = rules.tell(&mut self.bans, self.context);
        told.and(kept)
    }
}

/// Puts back what was there before a load in one transaction, whatever the kernel holds now.
///
/// # Errors
/// If the kernel refuses the table. What else fails is a warning: the rules are back.
pub(crate) fn restore(before: &Snapshot, context: &Context) -> Result<(), Error> {
    let mut change = PolicyChange::begin_rollback(context)?;
    change.put_back(before.table())?;
    let finished = match before.table() {
        // What stands there is nearer to these rules than those that no one confirmed.
        Some(table) => change.finish(before.ban_rules(), table, Release::AsFound),
        None => change.finish_removed(before.ban_rules(), vec![ours().name]),
    };
    if let Err(error) = finished {
        (context.warn)(&error.to_string());
    }
    Ok(())
}

/// Loads a policy as carefully as is asked for. `of` is the load in the history whose policy it is.
///
/// # Errors
/// If it would lock out the peer, or cannot be done.
pub fn load(
    file: &PolicyFile,
    of: Option<u64>,
    caution: &Caution,
    context: &Context,
) -> Result<Loaded, Error> {
    let Sealed { table, digest } = file.seal();
    let obstacle = obstacle(&table, caution, context);
    if let Some(obstacle) = &obstacle {
        if !caution.force {
            return Err(Error::Lockout(obstacle.clone()));
        }
        (context.warn)(&obstacle.to_string());
    }
    for warning in interface_names::warnings(&file.policy.interfaces()) {
        (context.warn)(&warning);
    }
    let mut record = file.record(digest, context.connection());
    record.of = of;
    let mut change = PolicyChange::begin(context)?;
    if let Some(time) = caution.confirm {
        change.arm(time)?;
    }
    let done = change.load(&table, Some(record))?;
    change.finish(BanRules::of(&file.policy), &table, Release::Loaded)?;
    let confirm = caution.confirm.filter(|_| !done.transaction.is_empty());
    Ok(Loaded { table, change: done, obstacle, confirm })
}

/// Says why the table would lock out its operator, or why that cannot be told; `None` if it would
/// not.
pub fn obstacle(table: &Table, caution: &Caution, context: &Context) -> Option<Obstacle> {
    let visitor = match caution.peer {
        Some((address, port)) => Visitor::given(address, port),
        None => match Visitor::of_session(context.session()) {
            Ok(visitor) => visitor?,
            Err(why) => return Some(Obstacle::Unknown(why)),
        },
    };
    visitor.obstacle(table)
}

/// What an unload has done.
#[derive(Debug)]
pub struct Unloaded {
    /// The names of the tables that were removed.
    pub tables: Vec<String>,
    /// Whether bans, feeds or never-ban entries were written down. The next boot has them no more.
    pub was_written_down: bool,
}

/// Removes the policy, and with `all` then the bans: between the two, everything is let in but what
/// is banned.
///
/// # Errors
/// If the guard or the kernel does not let go of them.
pub fn unload(all: bool, context: &Context) -> Result<Unloaded, Error> {
    let mut change = PolicyChange::begin(context)?;
    if nfguard_netlink::read_own_head(&mut change.nft, &ours())?.is_some() {
        change.record(LoadRecord::new("", None, String::new(), context.connection()));
    }
    if !all {
        change.copy_scan_bans(&removal()).inspect_err(|_| change.cancel())?;
    }
    let removed_policy = match nfguard_netlink::unload(&mut change.nft, &ours()) {
        Ok(removed) => removed,
        Err(error) => {
            change.cancel();
            return Err(error.into());
        }
    };
    let mut removed: Vec<String> = removed_policy.then(|| TABLE.to_owned()).into_iter().collect();
    if all {
        let bans = nfguard_ban::table_identity();
        if nfguard_netlink::unload(&mut change.nft, &bans)? {
            removed.push(bans.name);
        }
    }
    if all {
        change.scans.forget();
    }
    change.finish_removed(BanRules::Unchanged, removed.clone())?;
    // The operator has ended all of it: the next boot is not to bring it back.
    let was_written_down = all && context.files.forget()?;
    Ok(Unloaded { tables: removed, was_written_down })
}
