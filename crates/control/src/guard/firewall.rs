//! The two tables that the guard keeps, and what it does to keep them.

mod never_ban;
mod reads;
mod work;

use std::collections::{BTreeSet, HashSet};
use std::fmt::Display;
use std::time::{Duration, Instant, SystemTime};

use nfguard_api::message::{Event, ListedBan, Release};
use nfguard_ban::{
    ActiveBan, Ban, BanChange, BanCounts, BanMirror, Bans, Port, RestoredBans, Target, scan,
};
use nfguard_netlink::{Error, RulesetEvent};
use nfguard_policy::TABLE;

use super::ban_input::{BanEnd, BansToEnd, CheckedBan};
use super::ban_record::BanRecord;
use super::login_watch::LoginWatch;
use super::metrics::Metrics;
use super::policy_table::{PolicyTable, TakenBack};
use super::repeated_warning::RepeatedWarning;
use super::scan_watch::{self, ScanWatch};
use crate::saved_bans::OpenBanLog;

/// Events may be lost, so the tables are verified without any after this time.
const VERIFY_INTERVAL: Duration = Duration::from_secs(5);
/// The addresses of this host change, so the never-ban list is read again after this time.
const NEVER_BAN_INTERVAL: Duration = Duration::from_secs(15);
/// Longest time a client may hold the lease.
const LEASE_TIMEOUT: Duration = Duration::from_secs(60);
/// Difference between two ends that are the same: the kernel counts in steps of up to ten
/// milliseconds, and clocks are adjusted.
const CLOCK_TOLERANCE: Duration = Duration::from_secs(1);

pub(super) struct Firewall {
    pub(super) metrics: Metrics,
    policy: PolicyTable,
    mirror: BanMirror,
    bans: Bans,
    scan_watch: ScanWatch,
    logins: LoginWatch,
    /// Where the bans that clients end are written down; `None` if nothing is kept.
    log: Option<OpenBanLog>,
    lease: Option<HeldLease>,
    /// What subscribers are to be told.
    events: Vec<Event>,
    next_verify: Instant,
    next_never_ban: Instant,
    never_ban_warning: RepeatedWarning,
    logins_warning: RepeatedWarning,
    scans_warning: RepeatedWarning,
    metrics_warning: RepeatedWarning,
    log_warning: RepeatedWarning,
    /// The metrics as they were answered last, and until when they are answered again.
    metrics_text: Option<(Instant, String)>,
    /// When there is more to do.
    next_work: Option<Instant>,
    /// Bans are not read before this time.
    reads_from: Instant,
    record: Option<BanRecord>,
    read_warning: RepeatedWarning,
    record_warning: RepeatedWarning,
}

/// The lease of the policy's table.
#[derive(Clone, Copy)]
struct HeldLease {
    client: u64,
    acquired_at: Instant,
}

/// Why a client does not get or give the lease.
pub(super) enum LeaseError {
    /// Another client holds it.
    Taken,
    /// This client does not hold it.
    NotHeld,
    /// The table is not what this client put in. It still holds the lease.
    TableChanged,
    /// The table cannot be taken back.
    Kernel(Error),
}

impl Firewall {
    pub(super) fn new(
        policy: PolicyTable,
        mirror: BanMirror,
        bans: Bans,
        log: Option<OpenBanLog>,
        record: Option<BanRecord>,
    ) -> Firewall {
        let now = Instant::now();
        Firewall {
            metrics: Metrics::new(),
            policy,
            mirror,
            bans,
            scan_watch: ScanWatch::new(),
            logins: LoginWatch::default(),
            log,
            lease: None,
            events: Vec::new(),
            next_verify: now,
            next_never_ban: now,
            never_ban_warning: RepeatedWarning::default(),
            logins_warning: RepeatedWarning::default(),
            scans_warning: RepeatedWarning::default(),
            metrics_warning: RepeatedWarning::default(),
            log_warning: RepeatedWarning::default(),
            metrics_text: None,
            next_work: None,
            reads_from: now,
            record,
            read_warning: RepeatedWarning::default(),
            record_warning: RepeatedWarning::default(),
        }
    }

    pub(super) fn log_start(&self) {
        log::info!(state:? = self.policy.state(), file = self.policy.file(); "guarding");
    }

    /// Returns what happened since the last call, for subscribers.
    pub(super) fn take_events(&mut self) -> Vec<Event> {
        std::mem::take(&mut self.events)
    }

    /// Takes note of the kernel's events, and repairs what others changed.
    pub(super) fn handle_events(&mut self, events: Vec<RulesetEvent>, received_at: Instant) {
        let (mut is_policy_changed, mut is_touched, mut by) = (false, false, String::new());
        let mut changes = Vec::new();
        for event in events {
            match &event {
                RulesetEvent::Added { table, set, .. }
                | RulesetEvent::Removed { table, set, .. }
                    if table == nfguard_ban::TABLE && set.starts_with("never/") =>
                {
                    self.next_never_ban = received_at;
                }
                RulesetEvent::Lost => is_policy_changed = true,
                RulesetEvent::Committed { process, name } => {
                    // What the guard itself has done needs no look.
                    is_policy_changed |= is_touched && *process != std::process::id();
                    if is_touched || by.is_empty() {
                        by = format!("{name} ({process})");
                    }
                    is_touched = false;
                }
                RulesetEvent::Added { table, .. }
                | RulesetEvent::Removed { table, .. }
                | RulesetEvent::TableRemoved(table)
                | RulesetEvent::Changed(table) => is_touched |= table == TABLE,
            }
            if let RulesetEvent::Removed { table, set, elements } = &event
                && table == scan::TABLE
            {
                let ended = self.scan_watch.removed(set, elements);
                self.events.extend(ended.into_iter().map(unbanned));
            }
            changes.extend(self.mirror.apply(&event, received_at));
        }
        self.publish(changes);
        if is_policy_changed || is_touched {
            self.verify_policy(received_at, &by);
        }
        self.verify_bans(received_at, &by);
    }

    /// Publishes changes of bans. A ban that was removed and is there again was extended, or has
    /// another place in the kernel.
    fn publish(&mut self, changes: Vec<BanChange>) {
        let mut is_again = HashSet::new();
        let mut events = Vec::with_capacity(changes.len());
        for change in changes.into_iter().rev() {
            match change {
                BanChange::Banned(ban) => {
                    is_again.insert((ban.target, ban.port, ban.source.clone()));
                    events.push(banned(ban));
                }
                BanChange::Unbanned(ban) => {
                    if !is_again.remove(&(ban.target, ban.port, ban.source.clone())) {
                        events.push(unbanned(ban));
                    }
                }
                BanChange::Lost => events.push(Event::Lost {}),
            }
        }
        self.events.extend(events.into_iter().rev());
    }

    pub(super) fn is_verify_due(&self, now: Instant) -> bool {
        now >= self.next_verify
    }

    /// Verifies the policy's table without an event.
    pub(super) fn verify(&mut self, now: Instant) {
        self.next_verify = now + VERIFY_INTERVAL;
        self.verify_policy(now, "");
    }

    fn verify_policy(&mut self, since: Instant, by: &str) {
        if self.lease.is_some() {
            return;
        }
        match self.policy.repair() {
            Ok(None) => {}
            Ok(Some(changes)) => {
                let microseconds = micros(since);
                // The never-ban list in its sets is to come back, too.
                self.next_never_ban = since;
                self.scan_watch.forget_counter();
                self.metrics.repairs += 1;
                let lines = changes.join("\n");
                log::warn!(by, microseconds, changes = lines; "another process changed the policy; it is repaired");
                self.events.push(Event::Repaired { changes, by: by.to_owned(), microseconds });
            }
            Err(error) => log::error!("the policy cannot be repaired: {error}"),
        }
    }

    fn verify_bans(&mut self, since: Instant, by: &str) {
        if self.lease.is_some() {
            return;
        }
        match self.mirror.reconcile(since) {
            Ok(None) => {}
            Ok(Some(RestoredBans { bans, unplaced })) => {
                let bans = bans + self.ban_again(&unplaced);
                let bans = u64::try_from(bans).unwrap_or(u64::MAX);
                let microseconds = micros(since);
                self.metrics.restores += 1;
                log::warn!(by, microseconds, bans; "another process removed the bans; they are restored");
                self.events.push(Event::Restored { bans, by: by.to_owned(), microseconds });
            }
            Err(error) => log::error!("the bans cannot be restored: {error}"),
        }
    }

    /// Bans what the mirror could not place, and returns the number of bans.
    fn ban_again(&mut self, bans: &[ActiveBan]) -> usize {
        let again: Vec<Ban<'_>> = bans
            .iter()
            .filter_map(|ban| {
                Some(Ban {
                    target: self.bans.admit(ban.target).ok()?,
                    port: ban.port,
                    duration: ban.expires_in,
                    source: &ban.source,
                    reason: &ban.reason,
                    created_at: ban.created_at,
                })
            })
            .collect();
        if let Err(error) = self.bans.ban_all(again) {
            log::error!("{} bans cannot be restored: {error}", bans.len());
            return 0;
        }
        bans.len()
    }

    /// Publishes the bans that the kernel made by itself, every other second.
    pub(super) fn watch_scans(&mut self, now: Instant) {
        if self.scan_watch.is_due(now) {
            self.see_scans(now);
        }
    }

    /// Looks which bans the kernel made by itself, and publishes what is new.
    pub(super) fn see_scans(&mut self, now: Instant) {
        let counter = || self.policy.counter(scan_watch::COUNTER);
        let looked = self.scan_watch.look(counter, &mut self.bans, now);
        let looked = looked.map(|new| self.events.extend(new.into_iter().map(banned)));
        self.scans_warning.log("the bans for scans cannot be read", looked);
    }

    /// Lets go of the policy's table, so that this client may change it.
    pub(super) fn acquire(&mut self, client: u64, now: Instant) -> Result<(), LeaseError> {
        if self.lease.is_some() {
            return Err(LeaseError::Taken);
        }
        self.lease = Some(HeldLease { client, acquired_at: now });
        self.policy.let_go();
        Ok(())
    }

    /// Guards the table again, which this client had.
    pub(super) fn release(&mut self, client: u64, tables: &Release) -> Result<(), LeaseError> {
        if self.lease.is_none_or(|lease| lease.client != client) {
            return Err(LeaseError::NotHeld);
        }
        self.end_lease(tables)
    }

    /// Ends the lease of a client that is gone.
    pub(super) fn end_lease_of(&mut self, client: u64) {
        if self.lease.is_some_and(|lease| lease.client == client) {
            // The error is in the log.
            let _ = self.end_lease(&Release::Loaded);
        }
    }

    /// Ends a lease that was held for too long.
    pub(super) fn check_lease(&mut self, now: Instant) {
        let is_over =
            |lease: HeldLease| now.saturating_duration_since(lease.acquired_at) > LEASE_TIMEOUT;
        if self.lease.is_some_and(is_over) {
            log::warn!("a client held the lease of the policy for too long");
            let _ = self.end_lease(&Release::Loaded);
        }
    }

    fn end_lease(&mut self, tables: &Release) -> Result<(), LeaseError> {
        let taken = self.policy.take_back(tables);
        if let Ok(TakenBack::NotTheirs) = taken {
            return Err(LeaseError::TableChanged);
        }
        self.lease = None;
        self.next_verify = Instant::now();
        if let Release::Removed(tables) = tables
            && tables.iter().any(|table| table == nfguard_ban::TABLE)
        {
            self.mirror.forget();
        }
        self.scan_watch.forget_counter();
        // Before the client is answered: from then on the rules ban.
        self.refresh_never_ban(self.next_verify);
        match taken {
            Ok(TakenBack::AsBefore | TakenBack::NotTheirs) => Ok(()),
            Ok(TakenBack::New) => {
                let file = self.policy.file();
                if file.is_empty() {
                    log::info!("unloaded");
                    self.events.push(Event::Unloaded {});
                } else {
                    self.metrics.loads += 1;
                    log::info!(file; "loaded");
                    self.events.push(Event::Loaded { file });
                }
                Ok(())
            }
            Err(error) => {
                log::error!("the policy cannot be taken back: {error}");
                Err(LeaseError::Kernel(error))
            }
        }
    }

    /// Makes bans. To say the same end twice is to say it once: a ban that ends at a given time and
    /// is in force until then is kept.
    pub(super) fn ban<'a>(
        &mut self,
        bans: &'a [CheckedBan],
    ) -> Result<BanCounts, nfguard_ban::Error> {
        let timed = bans.iter().filter(|ban| matches!(ban.end, BanEnd::At(_)));
        let key = |ban: &'a CheckedBan| (ban.source(), ban.target.target(), ban.port);
        let mut held = self.bans.look_up_all_of(timed.map(key))?.into_iter();
        let now = SystemTime::now();
        let mut kept = 0;
        let mut new = Vec::with_capacity(bans.len());
        for ban in bans {
            // The kernel counts the time that is left, so two ends that are the same differ by what was
            // lost on the way.
            let is_in_force = match ban.end {
                BanEnd::At(end) => held.next().flatten().is_some_and(|held| {
                    held.expires_in.is_none_or(|left| now + left + CLOCK_TOLERANCE >= end)
                }),
                _ => false,
            };
            if is_in_force { kept += 1 } else { new.push(ban) }
        }
        let mut counts = self.bans.ban_all(new.into_iter().map(|ban| ban.at(now)))?;
        counts.kept += kept;
        Ok(counts)
    }

    /// Makes bans that are new to their source.
    pub(super) fn make(&mut self, bans: &[CheckedBan]) -> Result<BanCounts, nfguard_ban::Error> {
        let now = SystemTime::now();
        self.bans.ban_all(bans.iter().map(|ban| ban.at(now)))
    }

    /// Returns what one source has banned.
    pub(super) fn targets_of(&self, source: &str) -> BTreeSet<(Target, Option<Port>)> {
        self.mirror.targets_of(source).into_iter().collect()
    }

    /// Makes each ban the one of its source, also if it ends earlier.
    pub(super) fn renew(&mut self, bans: &[CheckedBan]) -> Result<BanCounts, nfguard_ban::Error> {
        let now = SystemTime::now();
        self.bans.renew_all(&bans.iter().map(|ban| ban.at(now)).collect::<Vec<_>>())
    }

    /// Ends the bans of these targets by one source, and returns their number.
    pub(super) fn end(
        &mut self,
        source: &str,
        targets: &[(Target, Option<Port>)],
    ) -> Result<u64, nfguard_ban::Error> {
        let ended = self.bans.end_all(source, targets)?;
        if let Some(log) = &mut self.log {
            log.unbanned(targets.iter().copied(), Some(source));
        }
        self.write_down();
        Ok(ended)
    }

    /// Ends the bans of these targets by one source, or by all and the kernel's own too; `false` if
    /// there is none.
    pub(super) fn unban(&mut self, bans: &BansToEnd) -> Result<bool, nfguard_ban::Error> {
        let BansToEnd { targets, ports, source } = bans;
        let mut is_ended = false;
        for (target, port) in targets.iter().flat_map(|it| ports.iter().map(move |port| (it, port)))
        {
            if port.is_none() && source.as_ref().is_none_or(|source| source == scan::SOURCE) {
                is_ended |= self.policy.unban(*target)?;
            }
            is_ended |= match source {
                Some(source) => self.bans.unban_of(source, *target, *port)?,
                None => self.bans.unban(*target, *port)?,
            };
            // Also where none is in force: the next boot may have one.
            if let Some(log) = &mut self.log {
                log.unbanned([(*target, *port)], source.as_deref());
            }
        }
        Ok(is_ended)
    }

    /// Writes down which bans clients have ended, so that the next boot does not bring them back.
    pub(super) fn write_down(&mut self) {
        if let Some(log) = &mut self.log {
            self.log_warning.log("ended bans may come back at the next boot", log.flush());
        }
    }
}

/// Returns the value, or the default and takes note of the error.
fn or_note<T: Default, E: Display>(result: Result<T, E>, noted: &mut Result<(), String>) -> T {
    result.unwrap_or_else(|error| {
        *noted = Err(error.to_string());
        T::default()
    })
}

fn banned(ban: ActiveBan) -> Event {
    Event::Banned { ban: listed(ban) }
}

fn unbanned(ban: ActiveBan) -> Event {
    Event::Unbanned { ban: listed(ban) }
}

fn listed(ban: ActiveBan) -> ListedBan {
    ListedBan {
        target: ban.target.to_string(),
        port: ban.port.map(|port| port.to_string()),
        expires_in_seconds: ban.expires_in.map(|left| left.as_secs_f64()),
        source: ban.source,
        reason: ban.reason,
        created_at: ban.created_at,
    }
}

fn micros(since: Instant) -> u64 {
    u64::try_from(since.elapsed().as_micros()).unwrap_or(u64::MAX)
}
