//! Many bans at once, and changes that depend on what is in force.

use std::collections::{BTreeMap, BTreeSet};
use std::ptr;
use std::time::Duration;

use nfguard_netlink::{Attached, Element, Elements, Key, Op, Transaction};

use crate::bans::{ActiveBan, Ban, BanOutcome, Bans, now};
use crate::error::{Error, errno, is_refusal, refused};
use crate::layout::{self, BanSet, Place, TABLE};
use crate::note::{self, Note};
use crate::scan;
use crate::target::Target;

/// Bytes of bans in one transaction. A socket without privilege sends at most twice
/// `net.core.wmem_max`, by default 425,952 bytes.
const AT_ONCE: usize = 400_000;

/// How many bans are looked at before a transaction that depends on what was seen.
const LOOKED_AT: usize = 256;

/// How often others may come in between while one ban is looked at and changed.
const INTERRUPTIONS: usize = 1000;

/// No time at all is a ban without end to the kernel.
const SHORTEST: Duration = Duration::from_millis(1);
/// The kernel counts nanoseconds in 64 bits for a moment, and refuses what does not fit.
const LONGEST: Duration = Duration::from_millis(u64::MAX / 1_000_000 - 1);

/// What became of many bans.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct BanCounts {
    /// They are in force.
    pub added: u64,
    /// They were in force and now last longer.
    pub extended: u64,
    /// They were in force for at least as long, or in the list twice.
    pub kept: u64,
}

impl Bans {
    /// Bans all of them, at the kernel's own speed: about a microsecond each, whatever is in force
    /// already. Of several bans of one target and port, and of one in force, the one that ends
    /// later counts.
    ///
    /// The list is taken as it comes, some thousand at a time; no more of it is held.
    ///
    /// # Errors
    /// [`Error::Partly`] if some thousand were banned before something went wrong; else nothing
    /// was changed. [`Error::Full`], or the kernel's refusal.
    pub fn ban_all<'a>(
        &mut self,
        bans: impl IntoIterator<Item = Ban<'a>>,
    ) -> Result<BanCounts, Error> {
        let mut tally = BanCounts::default();
        self.ban_parts(bans, &mut tally).map_err(|error| match tally.all() {
            0 => error,
            _ => Error::Partly { done: tally, error: Box::new(error) },
        })?;
        Ok(tally)
    }

    /// Makes these the bans of one source: those of it that are not among them end, and each of
    /// them ends when it says, earlier than before too. Where another source has banned the same
    /// target and port, the ban that ends later counts. What the bans themselves have as their source
    /// does not.
    ///
    /// New bans come first and old ones go last, so nobody is let in who is in both lists.
    ///
    /// # Errors
    /// [`Error::Full`], or the kernel's refusal. What was done until then stays, and another call does
    /// the rest.
    pub fn replace<'a>(
        &mut self,
        source: &str,
        bans: impl IntoIterator<Item = Ban<'a>>,
    ) -> Result<BanCounts, Error> {
        let mut old: BTreeSet<Place> = self.places_of(source)?.into_iter().collect();
        let mut given = 0;
        let bans = bans.into_iter().inspect(|_| given += 1);
        let wanted = longest(bans.map(|ban| Ban { source, ..ban }));
        let twice = given - wanted.len();
        let is_old = |(place, _): &(Place, Ban<'_>)| old.contains(place);
        let (known, new): (Vec<_>, Vec<_>) = wanted.into_iter().partition(is_old);
        let mut tally = self.ban_all(new.into_iter().map(|(_, ban)| ban))?;
        tally.kept += count(twice);

        let (places, bans): (Vec<Place>, Vec<Ban<'_>>) = known.into_iter().unzip();
        let now = now();
        let renewed = |at: usize, held: Option<ActiveBan>| {
            let (Some(place), Some(ban)) = (places.get(at), bans.get(at)) else {
                return (Vec::new(), BanOutcome::Kept);
            };
            match held.filter(|held| held.source != note::source(source)) {
                Some(others) => change(place, ban, Some(&others), now),
                None => (
                    renew(place, element(place.key.clone(), ban.lasts, note(ban, now))),
                    BanOutcome::Extended,
                ),
            }
        };
        self.edit(&places, renewed, |made| tally.count(made))?;
        places.iter().for_each(|place| {
            old.remove(place);
        });
        self.end(source, &Vec::from_iter(old))?;
        Ok(tally)
    }

    /// Ends all bans of one source, and says how many. Reads all bans, see [`Bans::list`].
    ///
    /// # Errors
    /// The kernel's refusal.
    pub fn flush(&mut self, source: &str) -> Result<u64, Error> {
        let mut ended = 0;
        if source == scan::SOURCE {
            for ban in self.scans()? {
                ended += u64::from(scan::unban(&mut self.kernel, ban.target)?);
            }
        }
        let places = self.places_of(source)?;
        Ok(ended + self.end(source, &places)?)
    }

    /// Changes bans as they are at that moment: `plan` gets the index of each place and what is
    /// held there, and says what to do and what comes of it; `done` hears of the latter once it is
    /// done. If others change the ruleset in between, it is all planned anew, less at a time.
    pub(crate) fn edit<O>(
        &mut self,
        places: &[Place],
        mut plan: impl FnMut(usize, Option<ActiveBan>) -> (Vec<Op>, O),
        mut done: impl FnMut(O),
    ) -> Result<(), Error> {
        let (mut start, mut window, mut interruptions) = (0, LOOKED_AT, 0);
        while start < places.len() {
            let generation = self.kernel.generation()?;
            let mut transaction = Transaction::new(TABLE);
            let mut outcomes = Vec::new();
            for (at, place) in places.iter().enumerate().skip(start).take(window) {
                let (ops, outcome) = plan(at, self.held(place)?);
                transaction.ops.extend(ops);
                outcomes.push(outcome);
            }
            match self.kernel.commit(&transaction, Some(generation)) {
                Err(nfguard_netlink::Error::Interrupted) if interruptions < INTERRUPTIONS => {
                    interruptions += 1;
                    window = (window / 2).max(1);
                }
                outcome => {
                    outcome?;
                    start += outcomes.len();
                    interruptions = 0;
                    outcomes.into_iter().for_each(&mut done);
                }
            }
        }
        Ok(())
    }

    fn ban_parts<'a>(
        &mut self,
        bans: impl IntoIterator<Item = Ban<'a>>,
        tally: &mut BanCounts,
    ) -> Result<(), Error> {
        let (mut part, mut bytes) = (Vec::new(), 0);
        // A `for` would ask iterators within iterators, as a list comes out of, one ban at a time.
        bans.into_iter().try_for_each(|ban| -> Result<(), Error> {
            let len = encoded_len(&ban);
            if bytes + len > AT_ONCE {
                self.add(&part, tally)?;
                part.clear();
                bytes = 0;
            }
            bytes += len;
            part.push(ban);
            Ok(())
        })?;
        if part.is_empty() { Ok(()) } else { self.add(&part, tally) }
    }

    /// As if none of them were in force, for that is how most bans are; the kernel says if one is.
    /// Looking first would take as long as banning.
    pub(crate) fn add(&mut self, part: &[Ban<'_>], tally: &mut BanCounts) -> Result<(), Error> {
        let (sets, transaction) = creation(part);
        if !sets.is_subset(&self.present) {
            self.prepare(&sets)?;
        }
        let mut outcome = self.kernel.commit(&transaction, None);
        // Somebody has removed the table since.
        if refused(&outcome, errno::ENOENT) {
            self.prepare(&sets)?;
            outcome = self.kernel.commit(&transaction, None);
        }
        match outcome {
            Err(nfguard_netlink::Error::TooLarge { .. }) if part.len() > 1 => {
                let (first, second) = part.split_at(part.len() / 2);
                self.add(first, tally)?;
                self.add(second, tally)
            }
            outcome if refused(&outcome, errno::EEXIST) => self.add_to_others(part, tally),
            Err(error) if is_refusal(&error, errno::ENFILE) => Err(self.full(part, error)),
            outcome => {
                outcome?;
                tally.added += count(part.len());
                Ok(())
            }
        }
    }

    /// Some of them are in force, or twice in the list.
    fn add_to_others(&mut self, part: &[Ban<'_>], tally: &mut BanCounts) -> Result<(), Error> {
        let (places, bans): (Vec<Place>, Vec<Ban<'_>>) =
            longest(part.iter().copied()).into_iter().unzip();
        let now = now();
        let plan = |at: usize, held: Option<ActiveBan>| match (places.get(at), bans.get(at)) {
            (Some(place), Some(ban)) => change(place, ban, held.as_ref(), now),
            _ => (Vec::new(), BanOutcome::Kept),
        };
        match self.edit(&places, plan, |made| tally.count(made)) {
            Err(Error::Kernel(error)) if is_refusal(&error, errno::ENFILE) => {
                return Err(self.full(part, error));
            }
            edited => edited?,
        }
        tally.kept += count(part.len() - places.len());
        Ok(())
    }

    /// The set that has no room for those of them that are not in force, or the error as it is.
    fn full(&mut self, part: &[Ban<'_>], error: nfguard_netlink::Error) -> Error {
        let mut absent: BTreeMap<String, usize> = BTreeMap::new();
        for place in longest(part.iter().copied()).into_keys() {
            if self.held(&place).is_ok_and(|held| held.is_none()) {
                *absent.entry(place.set.name()).or_default() += 1;
            }
        }
        let present = self.kernel.sets(TABLE).unwrap_or_default();
        for set in present {
            let (Some(size), Some(&more)) = (set.size, absent.get(&set.name)) else { continue };
            let held = self.kernel.count(TABLE, &set.name).unwrap_or_default();
            if held + count(more) > u64::from(size) {
                return Error::Full { set: set.name, held, size, more };
            }
        }
        error.into()
    }

    fn places_of(&mut self, source: &str) -> Result<Vec<Place>, Error> {
        let source = note::source(source);
        let all = self.list_made()?.into_iter().filter(|ban| ban.source == source);
        Ok(all.map(|ban| Place::of(ban.target, ban.port)).collect())
    }

    /// Ends those of them that still are this source's.
    fn end(&mut self, source: &str, places: &[Place]) -> Result<u64, Error> {
        let source = note::source(source);
        let mut ended = 0;
        let plan = |at: usize, held: Option<ActiveBan>| {
            let held = held.is_some_and(|held| held.source == source);
            match places.get(at).filter(|_| held) {
                Some(Place { set, key }) => {
                    let keys = vec![key.clone()];
                    (vec![Op::DeleteElements { set: set.name(), keys }], 1)
                }
                None => (Vec::new(), 0),
            }
        };
        self.edit(places, plan, |one| ended += one)?;
        Ok(ended)
    }
}

impl BanCounts {
    /// How many there were.
    #[must_use]
    pub fn all(&self) -> u64 {
        self.added + self.extended + self.kept
    }

    fn count(&mut self, made: BanOutcome) {
        match made {
            BanOutcome::Added => self.added += 1,
            BanOutcome::Extended => self.extended += 1,
            BanOutcome::Kept => self.kept += 1,
        }
    }
}

/// Adds them, an error if one is in force; and the sets that it needs.
fn creation(part: &[Ban<'_>]) -> (BTreeSet<BanSet>, Transaction) {
    let now = now();
    let mut by_set: Vec<(BanSet, Elements)> = Vec::new();
    // Most lists have one end and one reason for all.
    let mut last: Option<(&Ban<'_>, Attached)> = None;
    let mut key = Vec::new();
    for ban in part {
        let attached = match last.take() {
            Some((other, attached)) if are_alike(other, ban) => attached,
            _ => Attached::new(Some(timeout(ban.lasts)), Some(&note(ban, now))),
        };
        let target = ban.target.target();
        key.clear();
        layout::push_key(&mut key, target, ban.port);
        let set = BanSet::of(target, ban.port);
        // Few sets, and mostly the same one again.
        match by_set.iter_mut().rev().find(|(other, _)| *other == set) {
            Some((_, elements)) => elements.push(&key, &attached),
            None => {
                let mut elements = Elements::default();
                elements.push(&key, &attached);
                by_set.push((set, elements));
            }
        }
        last = Some((ban, attached));
    }
    let sets = by_set.iter().map(|(set, _)| *set).collect();
    let ops = by_set
        .into_iter()
        .map(|(set, elements)| Op::CreateElements { set: set.name(), elements })
        .collect();
    (sets, Transaction { table: TABLE.to_owned(), ops })
}

/// What a ban does to the one that is in force at its place.
fn change(
    place: &Place,
    ban: &Ban<'_>,
    held: Option<&ActiveBan>,
    now: u64,
) -> (Vec<Op>, BanOutcome) {
    let element = || element(place.key.clone(), ban.lasts, note(ban, now));
    match held {
        None => {
            let elements = vec![element()];
            (vec![Op::AddElements { set: place.set.name(), elements }], BanOutcome::Added)
        }
        Some(held) if outlasts(ban.lasts, held.expires_in) => {
            (renew(place, element()), BanOutcome::Extended)
        }
        Some(_) => (Vec::new(), BanOutcome::Kept),
    }
}

/// Puts the element in place of one that may be there. Before Linux 6.12 adding alone leaves the
/// old one as it is, and no kernel changes a comment. The first makes sure that there is one to
/// delete: it may expire until then.
pub(crate) fn renew(place: &Place, element: Element) -> Vec<Op> {
    let add = Op::AddElements { set: place.set.name(), elements: vec![element] };
    let delete = Op::DeleteElements { set: place.set.name(), keys: vec![place.key.clone()] };
    vec![add.clone(), delete, add]
}

pub(crate) fn element(key: Vec<u8>, lasts: Option<Duration>, note: String) -> Element {
    Element { key: Key::Value(key), timeout: Some(timeout(lasts)), comment: Some(note) }
}

/// A ban without an end in a set with timeouts is one with timeout zero.
fn timeout(lasts: Option<Duration>) -> Duration {
    lasts.map_or(Duration::ZERO, |lasts| lasts.clamp(SHORTEST, LONGEST))
}

fn note(ban: &Ban<'_>, now: u64) -> String {
    let Ban { source, reason, since, .. } = *ban;
    Note { source, reason, since: since.unwrap_or(now) }.text()
}

/// Whether nothing but their targets and ports differs.
fn are_alike(a: &Ban<'_>, b: &Ban<'_>) -> bool {
    // Mostly it is the very same text.
    let is_same = |a: &str, b: &str| ptr::eq(a, b) || a == b;
    a.lasts == b.lasts
        && a.since == b.since
        && is_same(a.source, b.source)
        && is_same(a.reason, b.reason)
}

/// Of each place the ban that ends last.
fn longest<'a>(bans: impl Iterator<Item = Ban<'a>>) -> BTreeMap<Place, Ban<'a>> {
    let mut longest: BTreeMap<Place, Ban<'a>> = BTreeMap::new();
    for ban in bans {
        let place = Place::of(ban.target.target(), ban.port);
        let known = longest.get(&place).map(|known| known.lasts);
        if known.is_none_or(|known| outlasts(ban.lasts, known)) {
            longest.insert(place, ban);
        }
    }
    longest
}

/// Whether the first goes on for longer than the second.
pub(crate) fn outlasts(first: Option<Duration>, second: Option<Duration>) -> bool {
    match (first, second) {
        (_, None) => false,
        (None, Some(_)) => true,
        (Some(first), Some(second)) => first > second,
    }
}

/// Bytes of a ban in a transaction, at most.
fn encoded_len(ban: &Ban<'_>) -> usize {
    let key = if Target::network(ban.target.target()).is_ipv4() { 4 } else { 16 };
    let port = if ban.port.is_some() { 8 } else { 0 };
    44 + key + port + note::encoded_len(ban.source, ban.reason)
}

pub(crate) fn count(number: usize) -> u64 {
    u64::try_from(number).unwrap_or(u64::MAX)
}
