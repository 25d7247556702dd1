//! The log of the guard: the journal, with a field for each fact, if systemd started it; otherwise
//! standard error.

use std::os::unix::fs::MetadataExt as _;
use std::os::unix::net::UnixDatagram;
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicU64, Ordering};
use std::{env, fs, io};

use log::kv::{Error, Key, Value, VisitSource};
use log::{Level, LevelFilter, Log, Metadata, Record};
use nfguard_netlink::comment::one_line;

use crate::output;

const SOCKET: &str = "/run/systemd/journal/socket";

pub(crate) fn open() {
    log::set_max_level(LevelFilter::Info);
    let journal = is_standard_error().then(|| Journal::open(Path::new(SOCKET)).ok()).flatten();
    let _ = match journal {
        Some(journal) => log::set_boxed_logger(Box::new(journal)),
        None => log::set_logger(&StandardError),
    };
}

/// Whether systemd has connected standard error to the journal.
fn is_standard_error() -> bool {
    let stream = env::var("JOURNAL_STREAM").unwrap_or_default();
    let own = fs::metadata("/proc/self/fd/2");
    own.is_ok_and(|own| stream == format!("{}:{}", own.dev(), own.ino()))
}

/// The journal. A journal that is stopped, or too slow, is not waited for.
struct Journal {
    socket: UnixDatagram,
    path: PathBuf,
    /// Entries that it did not take.
    lost: AtomicU64,
}

impl Journal {
    fn open(path: &Path) -> io::Result<Journal> {
        let socket = UnixDatagram::unbound()?;
        socket.set_nonblocking(true)?;
        Ok(Journal { socket, path: path.to_owned(), lost: AtomicU64::new(0) })
    }

    fn send(&self, entry: &[u8]) -> bool {
        self.socket.send_to(entry, &self.path).is_ok()
    }
}

impl Log for Journal {
    fn enabled(&self, _: &Metadata<'_>) -> bool {
        true
    }

    fn log(&self, record: &Record<'_>) {
        let lost = self.lost.load(Ordering::Relaxed);
        if lost > 0 {
            let text = format!("the journal did not take {lost} entries before this one");
            if self.send(&entry(Level::Warn, record.target(), &text)) {
                self.lost.fetch_sub(lost, Ordering::Relaxed);
            }
        }
        let mut entry = entry(record.level(), record.target(), &record.args().to_string());
        let _ = record.key_values().visit(&mut Fields(&mut entry));
        if !self.send(&entry) {
            self.lost.fetch_add(1, Ordering::Relaxed);
        }
    }

    fn flush(&self) {}
}

/// Returns an entry as the journal reads it (systemd.io/JOURNAL_NATIVE_PROTOCOL).
fn entry(level: Level, target: &str, message: &str) -> Vec<u8> {
    let priority = match level {
        Level::Error => "3",
        Level::Warn => "4",
        Level::Info => "5",
        Level::Debug | Level::Trace => "6",
    };
    let mut entry = Vec::new();
    for (name, value) in [
        ("PRIORITY", priority),
        ("SYSLOG_IDENTIFIER", env!("CARGO_PKG_NAME")),
        ("TARGET", target),
        ("MESSAGE", message),
    ] {
        put(&mut entry, name, value);
    }
    entry
}

/// Adds a field, whatever its value holds.
fn put(entry: &mut Vec<u8>, name: &str, value: &str) {
    entry.extend_from_slice(name.as_bytes());
    entry.push(b'\n');
    entry.extend_from_slice(&(value.len() as u64).to_le_bytes());
    entry.extend_from_slice(value.as_bytes());
    entry.push(b'\n');
}

struct Fields<'e>(&'e mut Vec<u8>);

impl<'v> VisitSource<'v> for Fields<'_> {
    fn visit_pair(&mut self, key: Key<'v>, value: Value<'v>) -> Result<(), Error> {
        let is_allowed = |letter: char| letter.is_ascii_uppercase() || letter.is_ascii_digit();
        let name = key.as_str().to_ascii_uppercase().replace(|letter| !is_allowed(letter), "_");
        put(self.0, &name, &value.to_string());
        Ok(())
    }
}

struct StandardError;

impl Log for StandardError {
    fn enabled(&self, _: &Metadata<'_>) -> bool {
        true
    }

    fn log(&self, record: &Record<'_>) {
        let mut line = format!("nfguard: {}", one_line(&record.args().to_string()));
        let _ = record.key_values().visit(&mut Pairs(&mut line));
        output::to_stderr(output::PLAIN, &line);
    }

    fn flush(&self) {}
}

struct Pairs<'l>(&'l mut String);

impl<'v> VisitSource<'v> for Pairs<'_> {
    fn visit_pair(&mut self, key: Key<'v>, value: Value<'v>) -> Result<(), Error> {
        self.0.push_str(&format!(" {key}={:?}", value.to_string()));
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_journal_that_takes_nothing_is_not_waited_for_and_hears_how_much_it_missed() {
        let folder = tempfile::tempdir().expect("a folder");
        let path = folder.path().join("socket");
        let reader = UnixDatagram::bind(&path).expect("binds");
        reader.set_nonblocking(true).expect("ours");
        let journal = Journal::open(&path).expect("opened");
        let say = |text: &str| {
            let mut record = Record::builder();
            journal
                .log(&record.level(Level::Info).target("t").args(format_args!("{text}")).build());
        };
        let read = || {
            let mut entry = [0; 4096];
            let len = reader.recv(&mut entry).ok()?;
            Some(String::from_utf8_lossy(entry.get(..len)?).into_owned())
        };
        say("two\nlines");
        assert!(read().expect("sent").contains("MESSAGE\n\u{9}\0\0\0\0\0\0\0two\nlines\n"));
        while journal.lost.load(Ordering::Relaxed) < 2 {
            say("flood");
        }
        while read().is_some() {}
        say("at last");
        assert!(read().expect("sent").contains("did not take 2 entries"));
        assert!(read().expect("sent").contains("at last"));
        assert_eq!(read(), None);
    }
}
