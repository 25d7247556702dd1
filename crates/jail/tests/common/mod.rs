//! What tests of jails share.

#![allow(dead_code, reason = "each test program uses a part")]

pub(crate) mod formats;

use std::collections::BTreeMap;

use nfguard_jail::{Ban, Config, Event, Jails, LogId, Taken};

/// Reads a config without filters.
pub(crate) fn config(text: impl AsRef<str>) -> Config {
    Config::parse(text.as_ref()).unwrap_or_else(|problems| panic!("{problems:#?}")).0
}

/// Returns jails that read one log, and that log.
pub(crate) fn jails(config: Config) -> (Jails, LogId) {
    let jails = Jails::new(config, Vec::new());
    let (log, _) = jails.logs().next().expect("a log");
    (jails, log)
}

/// Reads the bytes that follow what was read of a log.
pub(crate) fn read(jails: &mut Jails, log: LogId, bytes: impl AsRef<[u8]>) -> Vec<Event> {
    let mut events = Vec::new();
    jails.read(log, jails.position(log), bytes.as_ref(), &mut |event| events.push(event));
    events
}

/// Reads a whole log.
pub(crate) fn events(config: Config, bytes: impl AsRef<[u8]>) -> Vec<Event> {
    let (mut jails, log) = jails(config);
    let mut events = read(&mut jails, log, bytes);
    jails.finish(log, &mut |event| events.push(event));
    events
}

/// Returns the evidence among events.
pub(crate) fn evidence(events: Vec<Event>) -> impl Iterator<Item = Taken> {
    events.into_iter().filter_map(|event| match event {
        Event::Evidence(taken) => Some(taken),
        _ => None,
    })
}

/// Returns the bans among events.
pub(crate) fn bans(events: Vec<Event>) -> impl Iterator<Item = Ban> {
    events.into_iter().filter_map(|event| match event {
        Event::Ban(ban) => Some(ban),
        _ => None,
    })
}

/// Returns how often each client is evidence.
pub(crate) fn clients(events: Vec<Event>) -> BTreeMap<String, u32> {
    let mut clients = BTreeMap::new();
    evidence(events).for_each(|taken| *clients.entry(taken.client).or_default() += 1);
    clients
}
