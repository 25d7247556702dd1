//! The jails at work: bytes of logs in, events out.

use std::collections::HashMap;
use std::net::IpAddr;
use std::sync::Arc;

use ipnetwork::IpNetwork;
use serde::{Deserialize, Serialize};

use crate::address;
use crate::address::Source;
use crate::config::Config;
use crate::event::{Ban, Event, Limit, Shelter, Spared, Taken};
use crate::evidence::{Finding, Looks};
use crate::fail2ban;
use crate::jail::{Jail, Log, LogKey, Mode};
use crate::read::{Found, Progress, ReadCounts, Reader, finder};
use crate::record::Client;
use crate::status::StatusSet;
use crate::time::Time;
use crate::window::{Effect, Evidence, Offences, Room, Windows};

/// Microseconds of a minute.
const MINUTE_MICROS: i64 = 60_000_000;

/// Jails, their logs, and what they remember.
#[derive(Clone, Debug)]
pub struct Jails {
    jails: Vec<Jail>,
    logs: Vec<Reading>,
    never: Vec<IpNetwork>,
    /// Trusted proxies of all logs. Behind each are many clients.
    proxies: Vec<IpNetwork>,
    memory: Memory,
}

/// A log that jails read.
#[derive(Clone, Debug)]
struct Reading {
    log: Log,
    reader: Reader,
    /// The jails that read it.
    jails: Vec<usize>,
    progress: Progress,
}

/// A log of [`Jails`].
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct LogId(usize);

/// What jails remember: how far each log is read, windows, offences, and lines of which a part has
/// come. It can be saved, and [put back](Jails::with_state).
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
pub struct State {
    logs: Vec<(LogKey, Progress)>,
    jails: Vec<SavedJail>,
    offences: Offences,
}

/// What a state has of a jail.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
struct SavedJail {
    name: String,
    log: Option<LogKey>,
    memory: JailMemory,
}

/// What the jails remember while they run.
#[derive(Clone, Debug, Default)]
struct Memory {
    jails: Vec<JailMemory>,
    offences: Offences,
}

/// What a jail remembers.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
struct JailMemory {
    windows: Windows,
    /// The newest minute of a ban, and how many bans there were since it began.
    minute: (i64, u32),
    /// Where the last record begins that was evidence. One record is evidence once.
    taken: Option<u64>,
    /// What a filter of Fail2Ban remembers.
    filter: fail2ban::State,
}

impl Jails {
    /// Puts jails to work that remember nothing. `never` is the never-ban list.
    pub fn new(config: Config, never: Vec<IpNetwork>) -> Self {
        let never = never.into_iter().map(address::canonical).collect();
        let jails = config.jails;
        let mut logs: Vec<Reading> = Vec::new();
        for (at, jail) in jails.iter().enumerate() {
            let Some(log) = &jail.log else { continue };
            match logs.iter_mut().find(|reading| reading.log == *log) {
                Some(reading) => reading.jails.push(at),
                None => logs.push(Reading::new(log.clone(), at)),
            }
        }
        for reading in &mut logs {
            let of_jail = |at: &usize| jails.get(*at).map(|jail| jail.looks.statuses());
            for statuses in reading.jails.iter().filter_map(of_jail) {
                reading.reader.watched.extend(&statuses);
            }
        }
        let memories = vec![JailMemory::default(); jails.len()];
        let memory = Memory { jails: memories, offences: Offences::default() };
        let trusted = logs.iter().flat_map(|reading| &reading.log.trusted_proxies);
        let proxies = trusted.copied().collect();
        Self { jails, logs, never, proxies, memory }
    }

    /// Puts back a state. What it has of logs and jails that there are no longer is forgotten.
    #[must_use]
    pub fn with_state(mut self, state: State) -> Self {
        let mut logs = state.logs;
        // First those that are read as before, then those whose settings have changed.
        let is_exact: fn(&LogKey, &LogKey) -> bool = |known, key| known == key;
        let mut new: Vec<&mut Reading> = self.logs.iter_mut().collect();
        for is_of in [is_exact, LogKey::is_of] {
            new.retain_mut(|reading| {
                let key = reading.log.key();
                let at = logs.iter().position(|(known, _)| is_of(known, &key));
                if let Some(at) = at {
                    reading.progress = logs.remove(at).1;
                }
                at.is_none()
            });
        }
        let jails = state.jails.into_iter().map(|it| (it.name, (it.log, it.memory)));
        let mut jails: HashMap<_, _> = jails.collect();
        for (jail, memory) in self.jails.iter().zip(&mut self.memory.jails) {
            let Some((log, known)) = jails.remove(jail.name()) else { continue };
            *memory = known;
            let key = jail.log.as_ref().map(Log::key);
            if !log.zip(key).is_some_and(|(log, key)| log.is_of(&key)) {
                // It is a line of another log.
                memory.taken = None;
            }
        }
        self.memory.offences = state.offences;
        self
    }

    /// Says when the logs begin, more or less. Times without a year need it, until one is known.
    #[must_use]
    pub fn with_time(mut self, time: Time) -> Self {
        self.logs.iter_mut().for_each(|reading| reading.reader.known = Some(time));
        self
    }

    /// Returns the state, to be saved.
    pub fn state(&self) -> State {
        let jails = self.jails.iter().zip(&self.memory.jails).map(|(jail, memory)| SavedJail {
            name: jail.name().to_owned(),
            log: jail.log.as_ref().map(Log::key),
            memory: memory.clone(),
        });
        State {
            logs: self.logs.iter().map(|it| (it.log.key(), it.progress.clone())).collect(),
            jails: jails.collect(),
            offences: self.memory.offences.clone(),
        }
    }

    /// Returns the logs that are to be read.
    pub fn logs(&self) -> impl Iterator<Item = (LogId, &Log)> {
        self.logs.iter().enumerate().map(|(at, reading)| (LogId(at), &reading.log))
    }

    /// Returns the jails.
    pub fn jails(&self) -> &[Jail] {
        &self.jails
    }

    /// Returns how far a log is read, in bytes.
    pub fn position(&self, log: LogId) -> u64 {
        self.logs.get(log.0).map_or(0, |reading| reading.progress.position)
    }

    /// Returns what was read of a log.
    pub fn counts(&self, log: LogId) -> ReadCounts {
        self.logs.get(log.0).map_or_else(ReadCounts::default, |reading| reading.progress.counts)
    }

    /// Returns on how many lines an expression of a Fail2Ban filter reached the limit of its steps.
    pub fn limits_reached(&self) -> u64 {
        self.memory.jails.iter().map(|memory| memory.filter.limits_reached).sum()
    }

    /// Replaces the never-ban list.
    pub fn set_never(&mut self, never: Vec<IpNetwork>) {
        self.never = never.into_iter().map(address::canonical).collect();
    }

    /// Reads bytes of a log that begin at this position of it. Bytes that were read before are left
    /// out, so reading them again changes nothing. Before a position that is further than what was read
    /// there is a gap, and half a line before it has no other half.
    pub fn read(&mut self, log: LogId, position: u64, bytes: &[u8], each: &mut dyn FnMut(Event)) {
        self.with_log(log, each, |reader, progress, sink| {
            reader.read(progress, position, bytes, sink);
        });
    }

    /// Says that a log begins again, at position 0: it was rotated or cut. Half a line of before has no
    /// other half. Line numbers go on.
    pub fn restart(&mut self, log: LogId) {
        if let Some(reading) = self.logs.get_mut(log.0) {
            reading.progress.restart();
        }
    }

    /// Says that all of a log's last write has come: its end was reached, and nothing has come since.
    /// What is held back, because it might have been a part of another record, is judged. A program that
    /// follows a log calls this when the log has been quiet for a second.
    pub fn settle(&mut self, log: LogId, each: &mut dyn FnMut(Event)) {
        self.with_log(log, each, |reader, progress, sink| reader.settle(progress, sink));
    }

    /// Takes the last line of a log as whole, though it has no end.
    pub fn finish(&mut self, log: LogId, each: &mut dyn FnMut(Event)) {
        self.with_log(log, each, |reader, progress, sink| reader.finish(progress, sink));
    }

    /// Notes a ban that something else made, such as a scan. It counts for `recidive`, and for the
    /// length of further bans.
    pub fn note_ban(&mut self, source: Source, time: Time, each: &mut dyn FnMut(Event)) {
        let mut judge = Judge {
            jails: &self.jails,
            never: &self.never,
            proxies: &self.proxies,
            memory: &mut self.memory,
        };
        judge.memory.offences.add(source, time);
        judge.look_at_ban(source, None, time, 0, None, each);
    }

    /// Forgets all evidence and all bans of a source.
    pub fn forget(&mut self, source: Source) {
        self.memory.offences.forget(source);
        self.memory.jails.iter_mut().for_each(|memory| memory.windows.forget(source));
    }

    fn with_log(
        &mut self,
        log: LogId,
        each: &mut dyn FnMut(Event),
        read: impl FnOnce(&Reader, &mut Progress, &mut crate::read::Sink<'_>),
    ) {
        let Some(reading) = self.logs.get_mut(log.0) else { return };
        let mut judge = Judge {
            jails: &self.jails,
            never: &self.never,
            proxies: &self.proxies,
            memory: &mut self.memory,
        };
        let readers = &reading.jails;
        read(&reading.reader, &mut reading.progress, &mut |found| {
            readers.iter().for_each(|at| judge.look(*at, &found, each));
        });
    }
}

impl Reading {
    fn new(log: Log, jail: usize) -> Self {
        let reader = Reader {
            format: log.format,
            zone: log.zone.clone(),
            trusted: log.trusted_proxies.clone(),
            vouched: log.vouched.clone(),
            watched: StatusSet::NONE,
            finder: finder(log.format),
            known: None,
        };
        Self { log, reader, jails: vec![jail], progress: Progress::default() }
    }
}

/// Decides about records.
struct Judge<'j> {
    jails: &'j [Jail],
    never: &'j [IpNetwork],
    proxies: &'j [IpNetwork],
    memory: &'j mut Memory,
}

impl Judge<'_> {
    fn look(&mut self, at: usize, found: &Found<'_, '_>, each: &mut dyn FnMut(Event)) {
        let (Some(jail), Some(memory)) = (self.jails.get(at), self.memory.jails.get_mut(at)) else {
            return;
        };
        if memory.taken == Some(found.begun) {
            return;
        }
        let line = found.line;
        if let Looks::Filter(rule) = &jail.looks {
            let before = memory.filter.limits_reached;
            let failures = rule.failures(found.record, &mut memory.filter);
            if memory.filter.limits_reached > before {
                each(Event::Limit(Limit { line, jail: Arc::clone(&jail.name) }));
            }
            for failure in failures {
                self.take_failure(at, failure, line, each);
            }
        } else if let Some(finding) = jail.looks.find(found.record) {
            memory.taken = Some(found.begun);
            self.take(at, &finding, None, line, each);
        }
    }

    /// Takes what a filter of Fail2Ban found. A client that is no address is only told.
    fn take_failure(
        &mut self,
        at: usize,
        failure: fail2ban::Failure,
        line: u64,
        each: &mut dyn FnMut(Event),
    ) {
        let time = failure.time;
        if let Some(address) = address::parse(failure.client.as_bytes()) {
            let client = Client { address, proxy: None };
            let finding = Finding { time, client, counts: 1, mark: None };
            self.take(at, &finding, Some(failure.client), line, each);
        } else if let Some(jail) = self.jails.get(at) {
            let (jail, client) = (Arc::clone(&jail.name), failure.client);
            let (source, counts, score) = (None, 1, 0);
            each(Event::Evidence(Taken { line, jail, client, source, time, counts, score }));
        }
    }

    fn take(
        &mut self,
        at: usize,
        finding: &Finding,
        text: Option<String>,
        line: u64,
        each: &mut dyn FnMut(Event),
    ) {
        let (Some(jail), Some(memory)) = (self.jails.get(at), self.memory.jails.get_mut(at)) else {
            return;
        };
        let Finding { time, client, counts, mark } = *finding;
        let source = Source::of(client.address);
        let evidence = Evidence { time, line, counts, mark };
        let room = Room::of_each(self.jails.len());
        let effect = memory.windows.add(source, evidence, &jail.limits, room);
        let score = match &effect {
            Effect::Same => return,
            Effect::Nothing => 0,
            Effect::Score(score) | Effect::Reached { score, .. } => *score,
        };
        let name = Arc::clone(&jail.name);
        each(Event::Evidence(Taken {
            line,
            jail: Arc::clone(&name),
            client: text.unwrap_or_else(|| client.address.to_string()),
            source: Some(source),
            time,
            counts,
            score,
        }));
        let Effect::Reached { newest, lines, .. } = effect else { return };
        let is_in = |list: &[IpNetwork]| list.iter().any(|prefix| source.overlaps(*prefix));
        let shelter = match () {
            () if is_in(self.never) => Some(Shelter::Never),
            () if is_in(self.proxies) => Some(Shelter::Proxy),
            () if source.is_own() => Some(Shelter::Own),
            () => None,
        };
        if let Some(why) = shelter {
            return each(Event::Spared(Spared { line, jail: name, source, time: newest, why }));
        }
        let again = self.memory.offences.count(source, newest, jail.limits.again.forget);
        let length = jail.limits.length(again);
        let until = newest.after(length);
        let is_over_cap =
            jail.mode == Mode::Enforce && !memory.may_ban(newest, jail.limits.bans_a_minute);
        if !is_over_cap {
            memory.windows.ban(source, until);
        }
        let mode = if is_over_cap { Mode::Observe } else { jail.mode };
        each(Event::Ban(Ban {
            line,
            jail: name,
            source,
            since: newest,
            until,
            seconds: length.seconds(),
            again,
            mode,
            evidence: lines,
            is_over_cap,
            proxy: client.proxy,
        }));
        if mode == Mode::Enforce {
            self.memory.offences.add(source, newest);
            self.look_at_ban(source, client.proxy, newest, line, Some(at), each);
        }
    }

    /// Hands a ban to the jails that look at bans, but for the one that made it.
    fn look_at_ban(
        &mut self,
        source: Source,
        proxy: Option<IpAddr>,
        time: Time,
        line: u64,
        by: Option<usize>,
        each: &mut dyn FnMut(Event),
    ) {
        let made_by_such = by.and_then(|at| self.jails.get(at));
        if made_by_such.is_some_and(|jail| matches!(jail.looks, Looks::Bans)) {
            return;
        }
        let client = Client { address: source.prefix().ip(), proxy };
        let finding = Finding { time, client, counts: 1, mark: None };
        for at in 0..self.jails.len() {
            if self.jails.get(at).is_some_and(|jail| matches!(jail.looks, Looks::Bans)) {
                self.take(at, &finding, None, line, each);
            }
        }
    }
}

impl JailMemory {
    /// Counts a ban in its minute, and returns whether it may be made.
    fn may_ban(&mut self, time: Time, most: u32) -> bool {
        let minute = time.micros().div_euclid(MINUTE_MICROS);
        // Records can be out of order, and minutes do not begin again.
        if self.minute.0 < minute {
            self.minute = (minute, 0);
        }
        self.minute.1 = self.minute.1.saturating_add(1);
        self.minute.1 <= most
    }
}
