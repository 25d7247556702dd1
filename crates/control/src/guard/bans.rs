//! What the ban table holds, remembered, so that it can be put back.

use std::collections::BTreeMap;
use std::time::{Duration, Instant};

use nfguard_ban::{ActiveBan, TABLE, is_intact};
use nfguard_netlink::{
    Element, Error, Key, LiveElement, Nft, Op, RulesetEvent, Table, Transaction, diff,
};

/// A change of a ban that the kernel told.
pub(super) enum BanChange {
    /// A ban was made or extended.
    Banned(ActiveBan),
    /// A ban was ended before its time.
    Unbanned(ActiveBan),
    /// Changes were lost.
    Lost,
}

/// How many bans go into one transaction: what a socket without privilege can send.
const AT_ONCE: usize = 4_000;
/// How many bans one answer has.
const PAGE: usize = 1_000;
/// How old numbers by source may be. To count is to look at all bans.
const COUNTED: Duration = Duration::from_secs(5);
/// Reading all bans is slow for very many: it takes at most this part of the time.
const REST: u32 = 20;

/// What was put back.
pub(super) struct Restored {
    pub(super) bans: usize,
    /// Those whose set was made so shortly before it was removed that nobody has seen what it is.
    pub(super) homeless: Vec<ActiveBan>,
}

/// The ban table, kept in step with the kernel by what that tells of it.
pub(super) struct Memory {
    kernel: Nft,
    /// Everything but the bans; `None` if there is no table.
    skeleton: Option<Table>,
    bans: BTreeMap<(String, Vec<u8>), Held>,
    /// Changes were heard of that are not of bans.
    is_stale: bool,
    /// The table was removed.
    is_gone: bool,
    /// Events were lost, so all bans have to be read.
    is_lost: bool,
    /// And not before this time.
    not_before: Instant,
    counted: Option<(Instant, BTreeMap<String, u64>)>,
}

struct Held {
    until: Option<Instant>,
    comment: Option<String>,
}

impl Memory {
    pub(super) fn read(kernel: Nft) -> Result<Memory, Error> {
        let mut memory = Memory {
            kernel,
            skeleton: None,
            bans: BTreeMap::new(),
            is_stale: false,
            is_gone: false,
            is_lost: false,
            not_before: Instant::now(),
            counted: None,
        };
        memory.read_all()?;
        Ok(memory)
    }

    /// Takes note of what the kernel told; what it means for subscribers.
    pub(super) fn hear(&mut self, news: &RulesetEvent, now: Instant) -> Vec<BanChange> {
        let mut events = Vec::new();
        match news {
            RulesetEvent::Added { table, set, elements } if table == TABLE => {
                for element in elements {
                    match ActiveBan::of(set, element.clone()) {
                        Some(ban) => {
                            self.remember(set, element, now);
                            events.push(BanChange::Banned(ban));
                        }
                        None => self.is_stale = true,
                    }
                }
            }
            RulesetEvent::Removed { table, set, elements } if table == TABLE => {
                for element in elements {
                    let Some(ban) = ActiveBan::of(set, element.clone()) else {
                        self.is_stale = true;
                        continue;
                    };
                    if let Key::Value(key) = &element.element.key {
                        self.bans.remove(&(set.clone(), key.clone()));
                    }
                    events.push(BanChange::Unbanned(ban));
                }
            }
            RulesetEvent::TableRemoved(table) if table == TABLE => self.is_gone = true,
            RulesetEvent::Changed(table) if table == TABLE => self.is_stale = true,
            RulesetEvent::Lost => {
                (self.is_lost, self.is_stale) = (true, true);
                events.push(BanChange::Lost);
            }
            _ => {}
        }
        events
    }

    /// Puts the table back if it was removed, and reads what has to be read.
    pub(super) fn settle(&mut self, now: Instant) -> Result<Option<Restored>, Error> {
        let is_there = self.kernel.table_head(TABLE)?.is_some();
        let mut is_gone = self.skeleton.is_some() && (self.is_gone || !is_there);
        if self.is_stale && !is_gone {
            let found =
                self.kernel.table_without_timed_elements(TABLE)?.loaded.map(|loaded| loaded.table);
            match (found, &self.skeleton) {
                (Some(found), Some(known)) if is_intact(known) && !is_intact(&found) => {
                    is_gone = true;
                }
                (Some(found), _) => self.skeleton = Some(found),
                // Removed since it was looked for: that will be heard of.
                (None, _) => {}
            }
        }
        (self.is_gone, self.is_stale) = (false, false);
        if is_gone {
            return self.restore(now).map(Some);
        }
        if self.is_lost && self.not_before <= now {
            self.read_all()?;
            self.is_lost = false;
            self.not_before = Instant::now() + now.elapsed() * REST;
        }
        Ok(None)
    }

    /// They were removed on purpose.
    pub(super) fn forget(&mut self) {
        (self.skeleton, self.is_gone, self.is_stale) = (None, false, true);
        self.bans.clear();
        self.counted = None;
    }

    fn read_all(&mut self) -> Result<(), Error> {
        let Some(loaded) = self.kernel.table_without_timed_elements(TABLE)?.loaded else {
            return Ok(());
        };
        let now = Instant::now();
        let mut elements = Vec::new();
        for set in loaded.table.sets.iter().filter(|set| set.timeout.is_some()) {
            elements.push((set.name.clone(), self.kernel.live_elements(TABLE, &set.name)?));
        }
        // Not what somebody has left of it meanwhile.
        if self.kernel.table_head(TABLE)?.is_none() {
            return Ok(());
        }
        self.skeleton = Some(loaded.table);
        self.bans.clear();
        self.counted = None;
        for (set, elements) in elements {
            elements.iter().for_each(|element| self.remember(&set, element, now));
        }
        Ok(())
    }

    fn remember(&mut self, set: &str, live: &LiveElement, now: Instant) {
        let Key::Value(key) = &live.element.key else { return };
        let left = live.expires_in.or(live.element.timeout.filter(|timeout| !timeout.is_zero()));
        // An end too far away to be counted is none.
        let until = left.and_then(|left| now.checked_add(left));
        let held = Held { until, comment: live.element.comment.clone() };
        self.bans.insert((set.to_owned(), key.clone()), held);
    }

    /// All of it, the first bans in the same transaction as the table.
    fn restore(&mut self, now: Instant) -> Result<Restored, Error> {
        self.drop_over(now);
        let is_there = self.kernel.table_head(TABLE)?.is_some();
        let mut restored = Restored { bans: 0, homeless: Vec::new() };
        let Some(skeleton) = &self.skeleton else { return Ok(restored) };
        let mut transaction = Transaction::new(TABLE);
        if is_there {
            transaction.ops.push(Op::DeleteTable);
        }
        transaction.ops.extend(diff(None, skeleton).ops);
        let mut room = AT_ONCE;
        for ((set, key), held) in &self.bans {
            if skeleton.set(set).is_none() {
                restored.homeless.extend(active(set, key, held, now));
                continue;
            }
            let left = held.until.map(|until| until.saturating_duration_since(now));
            let element = Element {
                key: Key::Value(key.clone()),
                timeout: left.map(|left| left.max(Duration::from_millis(1))),
                comment: held.comment.clone(),
            };
            match transaction.ops.last_mut() {
                Some(Op::AddElements { set: last, elements }) if last == set => {
                    elements.push(element);
                }
                _ => transaction
                    .ops
                    .push(Op::AddElements { set: set.clone(), elements: vec![element] }),
            }
            (room, restored.bans) = (room - 1, restored.bans + 1);
            if room == 0 {
                self.kernel.commit(&transaction, None)?;
                (transaction.ops, room) = (Vec::new(), AT_ONCE);
            }
        }
        self.kernel.commit(&transaction, None)?;
        Ok(restored)
    }

    fn drop_over(&mut self, now: Instant) {
        self.bans.retain(|_, held| held.until.is_none_or(|until| until > now));
    }

    /// How many bans there are. Those whose time is just over may be among them.
    pub(super) fn count(&self) -> u64 {
        u64::try_from(self.bans.len()).unwrap_or(u64::MAX)
    }

    /// How many bans of each source, as of some seconds ago.
    pub(super) fn by_source(&mut self, now: Instant) -> &BTreeMap<String, u64> {
        let is_new = |(at, _): &(Instant, _)| now.saturating_duration_since(*at) < COUNTED;
        if !self.counted.as_ref().is_some_and(is_new) {
            self.drop_over(now);
            let mut counts = BTreeMap::new();
            for ((set, key), held) in &self.bans {
                let source = active(set, key, held, now).map(|ban| ban.source).unwrap_or_default();
                *counts.entry(source).or_insert(0) += 1;
            }
            self.counted = Some((now, counts));
        }
        &self.counted.get_or_insert_with(|| (now, BTreeMap::new())).1
    }

    /// Some bans from this place on, and where the next ones begin.
    pub(super) fn page(
        &self,
        source: Option<&str>,
        after: Option<&str>,
        now: Instant,
    ) -> (Vec<ActiveBan>, Option<String>) {
        let start = after.and_then(place).unwrap_or_default();
        let mut entries = Vec::new();
        for (seen, ((set, key), held)) in self.bans.range(start..).enumerate() {
            // So that looking for what is rare does not keep everybody else waiting.
            if entries.len() == PAGE || seen == 100 * PAGE {
                return (entries, Some(format!("{set} {}", hex(key))));
            }
            if held.until.is_some_and(|until| until <= now) {
                continue;
            }
            let Some(ban) = active(set, key, held, now) else { continue };
            if source.is_none_or(|source| source == ban.source) {
                entries.push(ban);
            }
        }
        (entries, None)
    }

    /// What each named counter of a table has counted.
    pub(super) fn counters(
        &mut self,
        table: &str,
    ) -> Result<Vec<(nfguard_netlink::Counter, nfguard_netlink::Counts)>, Error> {
        self.kernel.counters(table)
    }
}

fn active(set: &str, key: &[u8], held: &Held, now: Instant) -> Option<ActiveBan> {
    let element =
        Element { key: Key::Value(key.to_vec()), timeout: None, comment: held.comment.clone() };
    let expires_in = held.until.map(|until| until.saturating_duration_since(now));
    ActiveBan::of(set, LiveElement { element, expires_in })
}

fn hex(bytes: &[u8]) -> String {
    bytes.iter().map(|byte| format!("{byte:02x}")).collect()
}

fn place(text: &str) -> Option<(String, Vec<u8>)> {
    let (set, key) = text.split_once(' ')?;
    let bytes = key.as_bytes().chunks(2).map(|pair| {
        let pair = str::from_utf8(pair).ok()?;
        u8::from_str_radix(pair, 16).ok()
    });
    Some((set.to_owned(), bytes.collect::<Option<_>>()?))
}
