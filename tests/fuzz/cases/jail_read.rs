//! Any bytes are read as a log of each format, in one piece or in two, with the same events.

use std::sync::OnceLock;

use nfguard_jail::{Config, Event, Jails};

use formats::{FORMATS, looks};

#[path = "../../../crates/jail/tests/common/formats.rs"]
mod formats;

fn config(at: usize) -> Config {
    static CONFIGS: OnceLock<Vec<Config>> = OnceLock::new();
    let make = |format: &&str| {
        let looks = looks(format);
        let jail = format!(r#"{{"name":"a","log":{{{format}}},{looks},"after":2}}"#);
        let text = format!(r#"{{"version":1,"jails":[{jail},{{"use":"recidive"}}]}}"#);
        Config::parse(&text).expect("a config").0
    };
    CONFIGS.get_or_init(|| FORMATS.iter().map(make).collect())[at].clone()
}

fn events(at: usize, pieces: &[&[u8]]) -> Vec<Event> {
    let mut jails = Jails::new(config(at), Vec::new());
    let (log, _) = jails.logs().next().expect("a log");
    let (mut position, mut events) = (0, Vec::new());
    for piece in pieces {
        jails.read(log, position, piece, &mut |event| events.push(event));
        position += piece.len() as u64;
    }
    jails.finish(log, &mut |event| events.push(event));
    events
}

/// Reads one log. The first byte says where it is cut, and which format it has.
pub(crate) fn run(input: &[u8]) {
    let Some((first, log)) = input.split_first() else { return };
    let at = usize::from(*first) % FORMATS.len();
    let (before, after) = log.split_at(log.len() * usize::from(*first) / 256);
    assert_eq!(events(at, &[log]), events(at, &[before, after]));
}
