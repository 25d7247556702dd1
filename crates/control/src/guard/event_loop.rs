//! The one loop: the kernel's news first, then clients.

use std::io::{self, ErrorKind};
use std::os::fd::AsFd as _;
use std::time::{Duration, Instant};

use nfguard_ban::{ActiveBan, Ban, Bans};
use nfguard_netlink::{Error, RulesetEvent, RulesetMonitor};
use nfguard_policy::TABLE;
use nix::poll::{PollFd, PollFlags, poll};

use super::api::Event;
use super::bans::{Memory, Restored};
use super::client::{Peer, Right};
use super::listener::Listener;
use super::metrics::Numbers;
use super::policy_table::PolicyTable;

/// Events may be lost; so often all is looked at without any.
const LOOK: Duration = Duration::from_secs(5);
/// So often it is seen anew who is never banned: addresses of this host change.
const NEVER: Duration = Duration::from_secs(15);
/// For so long one may have the table.
const LENT: Duration = Duration::from_secs(60);
/// The longest wait, in milliseconds.
const WAIT: u16 = 1000;
/// How many clients there may be, and how many who cannot load.
const CLIENTS: usize = 2000;
const OTHERS: usize = 1500;
/// How many are let in before somebody else's turn.
const AT_ONCE: usize = 64;

pub(super) struct Guard {
    pub(super) policy: PolicyTable,
    pub(super) memory: Memory,
    pub(super) bans: Bans,
    pub(super) numbers: Numbers,
    pub(super) peers: Vec<Peer>,
    events: RulesetMonitor,
    /// To whom the policy's table was lent, and since when.
    pub(super) lent: Option<(u64, Instant)>,
    clients: u64,
    next_look: Instant,
    next_never: Instant,
}

impl Guard {
    pub(super) fn new(
        policy: PolicyTable,
        memory: Memory,
        bans: Bans,
        events: RulesetMonitor,
    ) -> Guard {
        let now = Instant::now();
        Guard {
            policy,
            memory,
            bans,
            numbers: Numbers::new(),
            peers: Vec::new(),
            events,
            lent: None,
            clients: 0,
            next_look: now,
            next_never: now,
        }
    }

    /// Until the process is ended from outside. The table stays.
    pub(super) fn serve(mut self, listeners: &[Listener]) -> Result<(), crate::Error> {
        let kept = self.policy.kept();
        log::info!(kept:? = kept, file = self.policy.file(); "guarding");
        loop {
            let (has_news, comers, ready) =
                self.wait(listeners).map_err(|error| crate::Error::Guard(error.to_string()))?;
            if has_news {
                self.heed();
            }
            self.keep_time();
            for (at, can) in ready.into_iter().enumerate() {
                self.turn(at, can);
            }
            self.part();
            for (listener, has_come) in listeners.iter().zip(comers) {
                if has_come {
                    self.let_in(listener);
                }
            }
        }
    }

    /// Until something happens: whether the kernel has news, where clients come in, and what can be
    /// done with each of those that are here.
    fn wait(&self, listeners: &[Listener]) -> io::Result<(bool, Vec<bool>, Vec<PollFlags>)> {
        let mut all = vec![PollFd::new(self.events.as_fd(), PollFlags::POLLIN)];
        all.extend(listeners.iter().map(|it| PollFd::new(it.as_fd(), PollFlags::POLLIN)));
        all.extend(self.peers.iter().map(|peer| PollFd::new(peer.as_fd(), peer.awaited())));
        let hurries = self.peers.iter().any(|peer| peer.busy && peer.has_room());
        match poll(&mut all, if hurries { 0 } else { WAIT }) {
            Err(nix::errno::Errno::EINTR) => {}
            outcome => {
                outcome?;
            }
        }
        let mut ready = all.iter().map(|fd| fd.revents().unwrap_or(PollFlags::empty()));
        let has_news = ready.next().is_some_and(|flags| !flags.is_empty());
        let comers = ready.by_ref().take(listeners.len()).map(|flags| !flags.is_empty()).collect();
        Ok((has_news, comers, ready.collect()))
    }

    /// Hears what was changed, and puts right what is not to be so.
    fn heed(&mut self) {
        let since = Instant::now();
        let news = self.events.hear().unwrap_or_else(|error| {
            log::warn!("news that cannot be read: {error}");
            vec![RulesetEvent::Lost]
        });
        let (mut is_hit, mut is_touched, mut by) = (false, false, String::new());
        for news in news {
            match &news {
                RulesetEvent::Added { table, set, .. }
                | RulesetEvent::Removed { table, set, .. }
                    if table == nfguard_ban::TABLE && set.starts_with("never/") =>
                {
                    self.next_never = since;
                }
                RulesetEvent::Lost => is_hit = true,
                RulesetEvent::Committed { process, name } => {
                    // What the guard has done itself it need not look at.
                    is_hit |= is_touched && *process != std::process::id();
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
            for event in self.memory.hear(&news, since) {
                self.tell(&event);
            }
        }
        if is_hit || is_touched {
            self.look_at_policy(since, &by);
        }
        self.look_at_bans(since, &by);
    }

    fn look_at_policy(&mut self, since: Instant, by: &str) {
        if self.lent.is_some() {
            return;
        }
        match self.policy.check() {
            Ok(None) => {}
            Ok(Some(repair)) => {
                let microseconds = micros(since);
                // What it spares besides is to come back, too.
                self.next_never = since;
                self.numbers.repairs += 1;
                let changes = repair.changes.join("\n");
                log::warn!(by, microseconds, changes; "the policy was changed, and put right");
                let (changes, by) = (repair.changes, by.to_owned());
                self.tell(&Event::Repaired { changes, by, microseconds });
            }
            Err(error) => log::error!("the policy cannot be put right: {error}"),
        }
    }

    fn look_at_bans(&mut self, since: Instant, by: &str) {
        if self.lent.is_some() {
            return;
        }
        match self.memory.settle(since) {
            Ok(None) => {}
            Ok(Some(Restored { bans, homeless })) => {
                let bans = bans + self.ban_again(&homeless);
                let microseconds = micros(since);
                self.numbers.restores += 1;
                log::warn!(by, microseconds, bans; "the bans were removed, and put back");
                self.tell(&Event::Restored { bans, by: by.to_owned(), microseconds });
            }
            Err(error) => log::error!("the bans cannot be put back: {error}"),
        }
    }

    /// How many of them.
    fn ban_again(&mut self, bans: &[ActiveBan]) -> usize {
        let again: Vec<Ban<'_>> = bans
            .iter()
            .filter_map(|ban| {
                let ActiveBan { target, port, expires_in, source, reason, created_at } = ban;
                let target = self.bans.admit(*target).ok()?;
                let (port, duration, created_at) = (*port, *expires_in, *created_at);
                Some(Ban { target, port, duration, source, reason, created_at })
            })
            .collect();
        if let Err(error) = self.bans.ban_all(again) {
            log::error!("{} bans cannot be put back: {error}", bans.len());
            return 0;
        }
        bans.len()
    }

    fn keep_time(&mut self) {
        let now = Instant::now();
        if self.lent.is_some_and(|(_, since)| now.saturating_duration_since(since) > LENT) {
            log::warn!("the policy was lent for too long");
            self.take_back(&[], false);
        }
        if now >= self.next_look {
            self.next_look = now + LOOK;
            // What has been told already is not to be found twice.
            self.heed();
            self.look_at_policy(now, "");
        }
        if now >= self.next_never {
            self.see_never(now);
        }
    }

    /// Looks who is never to be banned, and tells both tables.
    fn see_never(&mut self, now: Instant) {
        self.next_never = now + NEVER;
        // A table that was removed on purpose is not to come back for this.
        let opened = crate::ban_table::never().and_then(|never| Ok(Bans::open_existing(never)?));
        let told = opened.and_then(|bans| {
            if let Some(mut bans) = bans {
                bans.refresh_never_ban()?;
                self.bans = bans;
            }
            Ok(self.policy.spare(self.bans.never_ban())?)
        });
        if told.is_err() && self.lent.is_none() {
            log::warn!("it cannot be seen who is never to be banned");
        }
    }

    /// The table is guarded again.
    pub(super) fn take_back(&mut self, removed: &[String], as_is: bool) -> Option<Error> {
        self.lent = None;
        self.next_look = Instant::now();
        if removed.iter().any(|table| table == nfguard_ban::TABLE) {
            self.memory.forget();
        }
        let taken = self.policy.take_back(removed, as_is);
        // Before whoever has loaded is told: from now on its rules ban.
        self.see_never(self.next_look);
        match taken {
            Ok(false) => None,
            Ok(true) => {
                let file = self.policy.file();
                if file.is_empty() {
                    log::info!("unloaded");
                    self.tell(&Event::Unloaded {});
                } else {
                    self.numbers.loads += 1;
                    log::info!(file; "loaded");
                    self.tell(&Event::Loaded { file });
                }
                None
            }
            Err(error) => {
                log::error!("what was lent cannot be taken back: {error}");
                Some(error)
            }
        }
    }

    fn let_in(&mut self, listener: &Listener) {
        for _ in 0..AT_ONCE {
            match listener.accept() {
                Ok(None) => {}
                Ok(Some((connection, right))) => {
                    let others = || self.peers.iter().filter(|it| it.right != Right::Load).count();
                    let is_full =
                        self.peers.len() >= CLIENTS || (right != Right::Load && others() >= OTHERS);
                    if !is_full {
                        self.clients += 1;
                        self.peers.push(Peer::new(self.clients, right, connection));
                    }
                }
                Err(error) if error.kind() == ErrorKind::WouldBlock => return,
                Err(error) => return log::warn!("a client cannot come in: {error}"),
            }
        }
    }

    /// One client's turn.
    fn turn(&mut self, at: usize, can: PollFlags) {
        let now = Instant::now();
        let Some(peer) = self.peers.get_mut(at) else { return };
        let is_closed = can.intersects(PollFlags::POLLHUP | PollFlags::POLLERR);
        let has_left = is_closed && peer.hung_up;
        let mut stays = !has_left && !peer.is_too_slow(now);
        if stays && (is_closed || can.contains(PollFlags::POLLIN)) {
            // Whoever has closed one way may wait for answers on the other.
            peer.hung_up |= !peer.read(now);
            peer.busy = true;
        }
        if stays && peer.busy {
            stays = self.answer(at, now);
        }
        let Some(peer) = self.peers.get_mut(at) else { return };
        peer.ends |= peer.hung_up && !peer.busy && !peer.subscribes;
        if stays && peer.waiting() > 0 {
            stays = peer.write(now);
        }
        peer.gone |= !stays || (peer.ends && peer.waiting() == 0);
    }

    /// Those who are gone are forgotten, and what they had comes back.
    fn part(&mut self) {
        let lent_to = self.lent.map(|(client, _)| client);
        let is_lender_gone =
            self.peers.iter().any(|peer| peer.gone && Some(peer.number) == lent_to);
        self.peers.retain(|peer| !peer.gone);
        if is_lender_gone {
            self.take_back(&[], false);
        }
    }

    fn tell(&mut self, event: &Event) {
        if !self.peers.iter().any(|peer| peer.subscribes) {
            return;
        }
        let Ok(mut line) = serde_json::to_vec(event) else { return };
        line.push(b'\n');
        let now = Instant::now();
        for peer in self.peers.iter_mut().filter(|peer| peer.subscribes) {
            peer.gone |= !peer.tell(&line, now);
        }
    }
}

fn micros(since: Instant) -> u64 {
    u64::try_from(since.elapsed().as_micros()).unwrap_or(u64::MAX)
}
