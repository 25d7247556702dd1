//! The log of the guard: the journal, with a field for each fact, if systemd started it; otherwise
//! standard error.

use log::kv::{Error, Key, Value, VisitSource};
use log::{LevelFilter, Log, Metadata, Record};
use nfguard_netlink::comment::one_line;

use crate::output;

pub(crate) fn open() {
    log::set_max_level(LevelFilter::Info);
    let to_journal = systemd_journal_logger::connected_to_journal()
        && systemd_journal_logger::JournalLog::new().is_ok_and(|journal| journal.install().is_ok());
    if !to_journal {
        let _ = log::set_logger(&StandardError);
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
