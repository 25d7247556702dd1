//! Scanners: which sources have tried which ports, as `log --keep` has seen it.

mod source;
mod store;

use std::collections::HashMap;
use std::fs::File;
use std::thread::{self, JoinHandle};
use std::time::{Duration, Instant};

use nfguard_ban::Target;
use nfguard_netlink::ParsedPacket;

use crate::clock;
use crate::history::History;
use crate::{Error, Warn};
pub use source::Source;
use store::{Change, Store};

/// Number of sources that are remembered. The sources that did least, and were seen longest ago, are
/// forgotten first.
const SOURCES: usize = 10_000;
/// Number of sources beyond [`SOURCES`] at which the surplus is forgotten: finding it takes a look at
/// all sources, and sources can be forged.
const SURPLUS: usize = 10_000;
/// Time that a source is remembered after it was seen last, in seconds.
const RETENTION: f64 = 30.0 * 24.0 * 3600.0;
/// Longest time that a packet waits to be written down.
const WRITE_DELAY: Duration = Duration::from_secs(5);

/// Writes down the sources of packets that were refused.
pub struct Recorder {
    warn: Warn,
    store: Store,
    _claim: File,
    sources: HashMap<Target, Source>,
    /// Sources that are in the file and no longer remembered.
    gone: Vec<Target>,
    /// When the first change came that is not written yet.
    since: Option<Instant>,
    writer: Option<JoinHandle<Written>>,
}

/// The outcome of a write: on an error, also the changes.
type Written = Result<(), (Error, Vec<Change>)>;

impl Recorder {
    /// Reads what is known. One process at a time may write it.
    ///
    /// # Errors
    /// If another process writes it, or it cannot be read.
    pub fn open(history: &History) -> Result<Recorder, Error> {
        let store = store(history)?;
        let claim = store.claim()?;
        let sources = store.read()?;
        let gone = Vec::new();
        let warn = history.warn;
        Ok(Recorder { warn, store, _claim: claim, sources, gone, since: None, writer: None })
    }

    /// Adds a packet that was refused.
    pub fn add(&mut self, packet: &ParsedPacket<'_>, time: f64) {
        let target = Target::source(packet.source, Target::V6_SOURCE);
        self.sources.entry(target).or_insert_with(|| Source::new(time)).add(packet, time);
        self.since.get_or_insert_with(Instant::now);
        if self.sources.len() >= SOURCES + SURPLUS {
            self.forget_least();
        }
    }

    /// Forgets the surplus.
    fn forget_least(&mut self) {
        let mut over = self.sources.len().saturating_sub(SOURCES);
        if over == 0 {
            return;
        }
        let mut ranks: Vec<f64> = self.sources.values().map(Source::rank).collect();
        let last = *ranks.select_nth_unstable_by(over - 1, f64::total_cmp).1;
        self.forget(|source| {
            let is_least = over > 0 && source.rank() <= last;
            over -= usize::from(is_least);
            is_least
        });
    }

    fn forget(&mut self, mut is_meant: impl FnMut(&Source) -> bool) {
        let gone = &mut self.gone;
        self.sources.retain(|target, source| {
            let goes = is_meant(source);
            gone.extend((goes && source.is_written).then_some(*target));
            !goes
        });
    }

    /// Returns the time until the next write is due; `None` if there is nothing to be written.
    pub fn is_due_in(&self) -> Option<Duration> {
        self.since.map(|since| WRITE_DELAY.saturating_sub(since.elapsed()))
    }

    /// Begins to write down what has changed, while further packets arrive. An error is a warning, and
    /// the write is tried again.
    pub fn write(&mut self) {
        self.since = None;
        if self.writer.as_ref().is_some_and(|writer| !writer.is_finished()) {
            self.since = Some(Instant::now());
            return;
        }
        self.finish();
        let now = clock::now();
        self.forget(|source| now - source.last_seen > RETENTION);
        self.forget_least();
        let changes = self.changes();
        if changes.is_empty() {
            return;
        }
        let store = self.store.clone();
        self.writer = Some(thread::spawn(move || {
            let written = store.write(&changes);
            written.map_err(|failure| (failure, changes))
        }));
    }

    /// Returns what the file lacks, in the order that takes least to write.
    fn changes(&mut self) -> Vec<Change> {
        let mut changes: Vec<Change> = self.gone.drain(..).map(|target| (target, None)).collect();
        for (target, source) in &mut self.sources {
            if std::mem::take(&mut source.is_changed) {
                source.is_written = true;
                changes.push((*target, serde_json::to_vec(source).ok()));
            }
        }
        changes.sort_by_key(|(target, _)| *target);
        changes
    }

    /// Waits for what is being written.
    fn finish(&mut self) {
        let Some(writer) = self.writer.take() else { return };
        if let Ok(Err((failure, changes))) = writer.join() {
            (self.warn)(&failure.to_string());
            // A source that was to be removed may as well stay in the file.
            for (target, _) in changes {
                if let Some(source) = self.sources.get_mut(&target) {
                    source.is_changed = true;
                }
            }
        }
    }

    /// Writes down the rest.
    pub fn close(mut self) {
        self.finish();
        self.write();
        self.finish();
    }
}

fn store(history: &History) -> Result<Store, Error> {
    let nowhere =
        || Error::Usage("there is no directory for the scanners: see --state-dir".to_owned());
    history.scans().map(Store::new).ok_or_else(nowhere)
}

/// Returns all sources, in no order.
///
/// # Errors
/// If there is no folder for it, or the file cannot be read.
pub fn read(history: &History) -> Result<Vec<(Target, Source)>, Error> {
    Ok(store(history)?.read()?.into_iter().collect())
}

#[cfg(test)]
mod tests {
    use std::net::{IpAddr, Ipv4Addr};
    use std::ops::Range;

    use super::*;

    const SCANNER: u32 = 0xcb00_7107;
    const FORGED: u32 = 0x0a00_0000;

    fn knock(recorder: &mut Recorder, source: u32, port: u16, time: f64) {
        let packet = ParsedPacket {
            source: Ipv4Addr::from_bits(source).into(),
            destination: Ipv4Addr::new(198, 51, 100, 2).into(),
            protocol: 6,
            length: 40,
            fragment: None,
            ports: Some((40000, port)),
            tcp_flags: Some(2),
            icmp: None,
            payload: &[],
        };
        recorder.add(&packet, time);
    }

    /// One packet of each, a second apart.
    fn flood(recorder: &mut Recorder, sources: Range<u32>) {
        let start = clock::now();
        sources.for_each(|it| knock(recorder, FORGED + it, 22, start + f64::from(it)));
    }

    /// Whether the scanner is kept, how many others are, and the first and the last of those.
    fn kept(history: &History) -> (bool, usize, u32, u32) {
        let sources = store(history).and_then(|store| store.read()).unwrap_or_default();
        let number = |target: &Target| match target.network().ip() {
            IpAddr::V4(address) => address.to_bits(),
            IpAddr::V6(_) => 0,
        };
        let mut numbers: Vec<u32> = sources.keys().map(number).collect();
        let len = numbers.len();
        numbers.retain(|number| *number != SCANNER);
        let first = numbers.iter().min().map_or(0, |it| it - FORGED);
        let last = numbers.iter().max().map_or(0, |it| it - FORGED);
        (numbers.len() < len, numbers.len(), first, last)
    }

    #[test]
    fn a_flood_of_forged_sources_leaves_the_scanner_and_the_last_of_them() {
        let folder = tempfile::tempdir().expect("a folder");
        let history = History::open(Some(folder.path().to_owned()), |_| ());
        let mut recorder = Recorder::open(&history).expect("a recorder");
        (1..=5).for_each(|port| knock(&mut recorder, SCANNER, port, clock::now()));
        flood(&mut recorder, 0..12_000);
        recorder.close();
        assert_eq!(kept(&history), (true, 9999, 2001, 11_999));

        // Those that were written are taken out, but for one that has come back meanwhile.
        let mut recorder = Recorder::open(&history).expect("a recorder");
        flood(&mut recorder, 12_000..32_000);
        knock(&mut recorder, FORGED + 2001, 22, clock::now() + 40_000.0);
        recorder.close();
        assert_eq!(kept(&history), (true, 9999, 2001, 31_999));
    }

    #[test]
    fn what_could_not_be_written_is_written_later() {
        let folder = tempfile::tempdir().expect("a folder");
        let history = History::open(Some(folder.path().to_owned()), |_| ());
        let mut recorder = Recorder::open(&history).expect("a recorder");
        let file = folder.path().join("scans");
        std::fs::create_dir(&file).expect("makes a folder");
        flood(&mut recorder, 0..2);
        recorder.write();
        recorder.finish();
        std::fs::remove_dir(&file).expect("removes it");
        flood(&mut recorder, 2..3);
        recorder.close();
        assert_eq!(kept(&history), (false, 3, 0, 2));
    }
}
