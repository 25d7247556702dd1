//! Any bytes are read as a log of filters of Fail2Ban, in one piece or in two, with the same events.

use std::sync::OnceLock;

use nfguard_jail::{Config, Event, Jails};

/// Filters with sessions, with several lines, with dates of their own, and one that goes back.
const FILTERS: [&str; 4] = [
    "[Definition]\nprefregex = ^ <F-MLFID>d\\[\\d+\\]</F-MLFID>: <F-CONTENT>.+</F-CONTENT>$\n\
     failregex = ^<F-NOFAIL>open</F-NOFAIL> <HOST>$\n ^bad <F-USER>\\S*</F-USER>$\n \
     ^<F-NOFAIL><F-MLFFORGET>end</F-MLFFORGET></F-NOFAIL>$\n ^<F-MLFGAINED>in</F-MLFGAINED>$\n",
    "[Definition]\nmaxlines = 4\nfailregex = (?P<n>\\d) from <HOST>$<SKIPLINES>(?P=n) failed\n",
    "[Definition]\ndatepattern = {^LN-BEG}%%d/%%b/%%Y:%%H:%%M:%%S(?: %%z)?\n  LEPOCH\n  TAI64N\n\
     failregex = from <SUBNET>\n",
    "[Definition]\nfailregex = ^.*(?<!x)failed (?=.*\\bfrom <ADDR>)(?:a|aa)*\nignoreregex = ok\n",
];

fn config() -> Config {
    static CONFIG: OnceLock<Config> = OnceLock::new();
    let make = || {
        let jail = |at: usize| {
            format!(r#"{{"name":"f{at}","use":{{"fail2ban":"{at}"}},"log":"/log","after":2}}"#)
        };
        let jails: Vec<String> = (0..FILTERS.len()).map(jail).collect();
        let text = format!(r#"{{"version":1,"jails":[{}]}}"#, jails.join(","));
        let mut read = |name: &str| name.parse::<usize>().ok().map(|at| FILTERS[at].to_owned());
        Config::parse_with(&text, &mut read).expect("a config").0
    };
    CONFIG.get_or_init(make).clone()
}

fn events(pieces: &[&[u8]]) -> Vec<Event> {
    let mut jails = Jails::new(config(), Vec::new());
    let (log, _) = jails.logs().next().expect("a log");
    let (mut position, mut events) = (0, Vec::new());
    for piece in pieces {
        jails.read(log, position, piece, &mut |event| events.push(event));
        position += piece.len() as u64;
        let state = jails.state();
        jails = Jails::new(config(), Vec::new()).with_state(state);
    }
    jails.finish(log, &mut |event| events.push(event));
    events
}

/// Reads one log. The first byte says where it is cut.
pub(crate) fn run(input: &[u8]) {
    let Some((first, log)) = input.split_first() else { return };
    let (before, after) = log.split_at(log.len() * usize::from(*first) / 256);
    assert_eq!(events(&[log]), events(&[before, after]));
}
