//! Lists of bans, from the command line, from a file or from standard input.

use std::collections::BTreeMap;
use std::time::Duration;

use nfguard_ban::{Addresses, Admitted, Ban, Feed, NeverBan, Port};
use nfguard_control::lists::review::is_judged;
use nfguard_control::lists::{self, At, Details, Entry, Summary};

use crate::output;
use crate::output::failure::Failure;

/// The targets, and the details of those that have some. Most lists have none, and a long list
/// should not take much memory.
#[derive(Default)]
pub(crate) struct BanList {
    admitted: Vec<Admitted>,
    details: BTreeMap<usize, Box<Details>>,
    /// The problem of each bad entry, with its place.
    pub(crate) bad: Vec<String>,
    pub(crate) summary: Summary,
    /// The same targets, by which the list is judged as a whole.
    pub(crate) feed: Feed,
}

/// What the bans have that say nothing themselves.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Defaults<'a> {
    pub(crate) ports: &'a [Option<Port>],
    pub(crate) duration: Option<Duration>,
    pub(crate) source: &'a str,
    pub(crate) reason: &'a str,
    /// The source of all bans, whatever they say themselves.
    pub(crate) only_source: Option<&'a str>,
}

impl BanList {
    /// Reads a list in any form.
    pub(crate) fn read(
        bytes: &[u8],
        options: &lists::Options<'_>,
        never_ban: &NeverBan,
        v6_prefix: u8,
    ) -> Result<BanList, Failure> {
        let mut list = BanList::default();
        let summary = lists::read(bytes, options, &mut |at, entry| {
            list.take(Some(at), entry, never_ban, v6_prefix);
        });
        list.summary =
            summary.map_err(|why| Failure::Usage(format!("no address was banned: {why}")))?;
        Ok(list)
    }

    /// Reads the arguments of a command: each is one address, prefix or range.
    pub(crate) fn of_arguments(targets: &[String], never_ban: &NeverBan, v6_prefix: u8) -> BanList {
        let mut list = BanList::default();
        for target in targets {
            let addresses = target.parse::<Addresses>().map_err(|error| error.to_string());
            let entry = addresses.map(|addresses| Entry { addresses, details: None });
            list.take(None, entry, never_ban, v6_prefix);
        }
        list
    }

    fn take(
        &mut self,
        at: Option<At>,
        entry: Result<Entry, String>,
        never_ban: &NeverBan,
        v6_prefix: u8,
    ) {
        let admitted = entry.and_then(|Entry { addresses, details }| {
            let admitted = never_ban.admit_all(addresses, v6_prefix);
            Ok((admitted.map_err(|refused| refused.to_string())?, details))
        });
        match admitted {
            Ok((targets, details)) => {
                for target in targets {
                    self.details.extend(details.clone().map(|it| (self.admitted.len(), it)));
                    self.admitted.push(target);
                    self.feed.add(target.target().network());
                }
            }
            Err(problem) => {
                let place = at.map_or(String::new(), |at| format!("{at}: "));
                self.bad.push(format!("{place}{problem}"));
            }
        }
    }

    /// Tells whether one of the targets is so wide that it is judged as a list is.
    pub(crate) fn is_judged(&self) -> bool {
        self.admitted.iter().any(|it| is_judged(Addresses::Prefix(it.target().network())))
    }

    /// Returns the bans to make. The ports of an entry go before those of the command.
    pub(crate) fn bans<'a>(&'a self, defaults: Defaults<'a>) -> impl Iterator<Item = Ban<'a>> {
        self.admitted.iter().enumerate().flat_map(move |(at, target)| {
            let details = self.details.get(&at).map(Box::as_ref);
            let own = details.map(|details| details.ports.as_slice());
            let ports = own.filter(|ports| !ports.is_empty()).unwrap_or(defaults.ports);
            ports.iter().map(move |port| to_ban(*target, *port, details, defaults))
        })
    }

    /// Tells of bad entries. Unless they are skipped, they stop everything: the operator has to check
    /// the list.
    pub(crate) fn check(&self, skip_bad_lines: bool) -> Result<(), Failure> {
        if !self.bad.is_empty() && !skip_bad_lines {
            let problems = output::some_of(&self.bad);
            return Err(Failure::Usage(format!("no address was banned:\n{problems}")));
        }
        self.bad.iter().for_each(|problem| output::warning(problem));
        Ok(())
    }

    /// Returns how many bans these are, if no entry has ports.
    pub(crate) fn count(&self, ports: usize) -> usize {
        self.admitted.len() * ports
    }
}

fn to_ban<'a>(
    target: Admitted,
    port: Option<Port>,
    details: Option<&'a Details>,
    defaults: Defaults<'a>,
) -> Ban<'a> {
    let or = |own: Option<&'a String>, general: &'a str| own.map_or(general, String::as_str);
    let own_source = or(details.and_then(|details| details.source.as_ref()), defaults.source);
    Ban {
        target,
        port,
        duration: details.and_then(|details| details.duration).unwrap_or(defaults.duration),
        source: defaults.only_source.unwrap_or(own_source),
        reason: or(details.and_then(|details| details.reason.as_ref()), defaults.reason),
        created_at: details.and_then(|details| details.created_at),
    }
}
