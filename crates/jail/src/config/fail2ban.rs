//! A jail that is made of a filter of Fail2Ban.

use std::collections::BTreeMap;
use std::sync::Arc;

use nfguard_json::document::Problems;

use crate::config::file::{Fail2banFile, JailFile, LogOrPath};
use crate::config::{Config, log, read_limits, usual_limits};
use crate::evidence::{FilterRule, Looks};
use crate::fail2ban::{Filter, Stamp, journal_units};
use crate::jail::{Jail, Log, Mode, Place};
use crate::read::{Format, LineFormat, Vouched};
use crate::time::Zone;

impl Config {
    /// Returns a jail made of a filter of Fail2Ban. It is named after the file. No line of its log is
    /// more than a day after the [time](crate::Jails::with_time) of that.
    pub fn of_filter(path: &str, filter: Filter, stamp: Stamp, zone: Zone) -> Self {
        let log = Log {
            place: Place::Unsaid,
            format: Format::Lines(LineFormat::Raw),
            zone,
            trusted_proxies: Vec::new(),
            vouched: Vouched::default(),
        };
        let looks = Looks::Filter(FilterRule { filter: Arc::new(filter), stamp, has_clock: true });
        let (name, limits, mode) = (Arc::from(stem(path)), usual_limits(), Mode::Enforce);
        Config { jails: vec![Jail { name, log: Some(log), looks, limits, mode }] }
    }
}

/// Returns the jail of a file, and reports what is wrong with its filter.
pub(super) fn jail(
    file: &JailFile,
    base: &Fail2banFile,
    all: Option<Mode>,
    pointer: &str,
    read_file: &mut dyn FnMut(&str) -> Option<String>,
    problems: &mut Problems,
) -> Option<Jail> {
    let given =
        [(file.evidence.given().is_some(), "evidence"), (file.matches.given().is_some(), "match")];
    for (_, key) in given.iter().filter(|(is_given, _)| *is_given) {
        let message = "the filter of Fail2Ban says what is evidence; leave this key out";
        problems.error(format!("{pointer}/{key}"), message, None);
    }
    let path = &base.path.given()?.0;
    let place = format!("{pointer}/use/fail2ban");
    let mut log = match file.log.given() {
        Some(given) => log::log(Some(given), None, true, &format!("{pointer}/log"), problems)?,
        None if file.log.is_bad() => return None,
        // Without a log, it is what the filter reads in the journal.
        None => Log {
            place: Place::Journal,
            format: Format::Journal,
            zone: Zone::UTC,
            trusted_proxies: Vec::new(),
            vouched: Vouched::default(),
        },
    };
    log.format = match log.format {
        Format::Lines(LineFormat::Text) => Format::Lines(LineFormat::Raw),
        Format::DockerJson(LineFormat::Text) => Format::DockerJson(LineFormat::Raw),
        Format::Journal => Format::Journal,
        _ => {
            let message = "a filter of Fail2Ban reads the formats \"text\" and \"journal\", and \
                           \"text\" within \"docker-json\"";
            problems.error(format!("{pointer}/log"), message, None);
            return None;
        }
    };
    let is_journal = log.format == Format::Journal;
    let kind = is_journal.then(|| ("logtype".to_owned(), "journal".to_owned()));
    let set = base.set.given().into_iter().flat_map(|set| set.0.clone());
    let mode = base.mode.given().map(|mode| ("mode".to_owned(), mode.0.clone()));
    let options: BTreeMap<String, String> = kind.into_iter().chain(set).chain(mode).collect();
    let filter = Filter::read(path, &options, read_file)
        .map_err(|wrong| wrong.iter().for_each(|it| problems.error(&place, it.to_string(), None)))
        .ok()?;
    for note in filter.notes().iter().chain(filter.backtracking()) {
        problems.warn(&place, note.to_string());
    }
    let says_units = matches!(file.log.given(), Some(LogOrPath::Log(log)) if log.journal.given()
        .is_some_and(|journal| journal.unit.given().is_some()));
    let mut mode = file.mode.given().copied().or(all).unwrap_or(Mode::Enforce);
    if is_journal && !says_units {
        let own = vouched(&filter);
        log.vouched.units = own.units;
        log.vouched.uid = log.vouched.uid.or(own.uid);
        if log.vouched == Vouched::default() {
            let message = "the filter names no unit, so any process can write what it reads, and the \
                           jail only observes; give the journal's `unit` in `log`";
            problems.warn(&place, message);
            mode = Mode::Observe;
        }
    }
    let name = file.name.given().map_or_else(|| stem(path), |name| &name.0);
    Some(Jail {
        name: Arc::from(name),
        log: Some(log),
        looks: Looks::Filter(FilterRule {
            filter: Arc::new(filter),
            stamp: Stamp::InLine,
            has_clock: false,
        }),
        limits: read_limits(file, None),
        mode,
    })
}

/// Returns what the filter names that the journal itself vouches for: units, or without one a user.
fn vouched(filter: &Filter) -> Vouched {
    let matches = filter.journal_match().join(" ");
    let units = journal_units(&matches);
    let words: Vec<&str> = matches.split_whitespace().collect();
    let uids: Vec<&str> = words.iter().filter_map(|word| word.strip_prefix("_UID=")).collect();
    let uid = match uids.as_slice() {
        [uid] if units.is_empty() && !words.contains(&"+") => uid.parse().ok(),
        _ => None,
    };
    Vouched { units, uid }
}

/// Returns the name of a file without its folder and its ending.
fn stem(path: &str) -> &str {
    let name = path.rsplit('/').next().unwrap_or(path);
    name.split('.').next().filter(|stem| !stem.is_empty()).unwrap_or("fail2ban")
}
