//! Many bans at once, and changes that depend on what is in force.

use std::collections::{BTreeMap, BTreeSet};

use nfguard_netlink::{Op, Set, Transaction};

use super::{Bans, now};
use crate::ban::{ActiveBan, Ban, BanCounts, BanOutcome, ReplacedBans};
use crate::comment::{self, Sharing};
use crate::element;
use crate::error::{Error, errno, is_refusal, is_refused_with};
use crate::layout::{self, Place, SetKey, TABLE};
use crate::plan::{self, count};
use crate::scan;
use crate::target::{Port, Target};

/// Most bytes of bans in one transaction. A socket without privilege sends at most twice
/// `net.core.wmem_max`, by default 425,952 bytes.
const MAX_TRANSACTION_BYTES: usize = 400_000;

/// Most bans that are looked up before a transaction that depends on them.
const MAX_LOOKED_UP: usize = 256;

/// How often others may change the ruleset while one ban is looked up and changed.
const MAX_INTERRUPTIONS: usize = 1000;

/// How often a ban may end by itself while it is looked up and changed. The kernel takes some ten
/// milliseconds for a transaction that it refuses.
const MAX_LOSSES: usize = 20;

impl Bans {
    /// Bans all of them, at the kernel's own speed: about a microsecond each, whatever is in force
    /// already. Of several bans of one source, target and port, and of one in force, the one that
    /// ends later counts.
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
        let mut counts = BanCounts::default();
        self.add_in_parts(bans, &mut counts).map_err(|error| match counts.all() {
            0 => error,
            _ => Error::Partly { done: counts, error: Box::new(error) },
        })?;
        Ok(counts)
    }

    /// Replaces the bans of one source: its bans that are not in the list end, and each ban of the
    /// list ends when the list says, earlier than before too. Bans of the same targets by other
    /// sources stay as they are. The bans' own `source` is ignored. A ban whose end is within a
    /// second of what the list says is kept.
    ///
    /// New bans are added before old ones end, so a target in both lists is banned throughout.
    ///
    /// # Errors
    /// [`Error::Full`], or the kernel's refusal. What was done until then stays, and another call
    /// does the rest.
    pub fn replace<'a>(
        &mut self,
        source: &str,
        bans: impl IntoIterator<Item = Ban<'a>>,
    ) -> Result<ReplacedBans, Error> {
        let mut old: BTreeSet<SetKey> = self.keys_of(source)?.into_iter().collect();
        let mut given = 0;
        let bans = bans.into_iter().inspect(|_| given += 1);
        // One source: one ban of each target and port.
        let longest = plan::longest(bans.map(|ban| Ban { source, ..ban }));
        let wanted =
            longest.into_iter().filter_map(|(key, bans)| Some((key, bans.first().copied()?)));
        let (known, new): (Vec<_>, Vec<_>) = wanted.partition(|(key, _)| old.contains(key));
        let twice = given - known.len() - new.len();
        let mut counts = self.ban_all(new.into_iter().map(|(_, ban)| ban))?;
        counts.kept += count(twice);
        for (key, _) in &known {
            old.remove(key);
        }
        counts.add(self.renew_all(&known.into_iter().map(|(_, ban)| ban).collect::<Vec<_>>())?);
        let ended = self.end(source, &Vec::from_iter(old))?;
        Ok(ReplacedBans { counts, ended })
    }

    /// Makes each ban the one of its source, also if it ends earlier than the one in force. No two are
    /// of one target and port.
    ///
    /// # Errors
    /// The kernel's refusal. What was done until then stays.
    pub fn renew_all(&mut self, bans: &[Ban<'_>]) -> Result<BanCounts, Error> {
        let key = |ban: &Ban<'_>| SetKey::of(ban.target.target(), ban.port);
        let keys: Vec<SetKey> = bans.iter().map(key).collect();
        let now = now();
        let renewed = |at: usize, owners: &mut Vec<ActiveBan>| match bans.get(at) {
            Some(ban) => plan::put(owners, element::active(ban, now)),
            None => BanOutcome::Kept,
        };
        let mut counts = BanCounts::default();
        self.edit(&keys, renewed, |outcome| counts.count(outcome))?;
        Ok(counts)
    }

    /// Ends the bans of these targets by one source, and returns their number.
    ///
    /// # Errors
    /// The kernel's refusal. What was done until then stays.
    pub fn end_all(
        &mut self,
        source: &str,
        targets: &[(Target, Option<Port>)],
    ) -> Result<u64, Error> {
        let keys = targets.iter().map(|(target, port)| SetKey::of(*target, *port));
        self.end(source, &keys.collect::<Vec<_>>())
    }

    /// Ends all bans of one source, and returns their number. Reads all bans, see [`Bans::list`].
    ///
    /// # Errors
    /// The kernel's refusal.
    pub fn flush(&mut self, source: &str) -> Result<u64, Error> {
        let mut ended = 0;
        if source == scan::SOURCE {
            for ban in self.list_scans()? {
                ended += u64::from(scan::unban(&mut self.nft, ban.target)?);
            }
        }
        let keys = self.keys_of(source)?;
        Ok(ended + self.end(source, &keys)?)
    }

    /// Changes the bans of targets as they are at that moment: `change` gets the index of each key
    /// and the bans of all sources there, and returns its outcome; `done` gets the outcome once it is
    /// true. If others change the ruleset in between, or a ban ends, all is planned again, fewer keys
    /// at a time.
    pub(super) fn edit<O>(
        &mut self,
        keys: &[SetKey],
        mut change: impl FnMut(usize, &mut Vec<ActiveBan>) -> O,
        mut done: impl FnMut(O),
    ) -> Result<(), Error> {
        let (mut start, mut window) = (0, MAX_LOOKED_UP);
        let (mut interruptions, mut losses) = (0, 0);
        let now = now();
        while start < keys.len() {
            let generation = self.nft.generation()?;
            let mut transaction = Transaction::new(TABLE);
            let mut outcomes = Vec::new();
            let mut shared = BTreeSet::new();
            for (at, key) in keys.iter().enumerate().skip(start).take(window) {
                let mut held = self.owners(key)?;
                let mut owners = held.bans.clone();
                outcomes.push(change(at, &mut owners));
                if owners.len() > 1 {
                    shared.insert(key.set);
                    if held.sharing != Some(Sharing::Shared) {
                        held.stale = self.read_ranks(key)?.len();
                    }
                }
                transaction.ops.extend(plan::rewrite(key, &held, owners, now));
            }
            let sets = shared.into_iter().map(layout::owners_set);
            let missing: Vec<Set> =
                sets.filter(|set| !self.made_sets.contains(&set.name)).collect();
            if !transaction.is_empty() {
                transaction.ops.splice(0..0, missing.iter().cloned().map(Op::AddSet));
            }
            // What is left as it is must have been read whole, too.
            let committed = match transaction.is_empty() {
                true if self.nft.generation()? != generation => {
                    Err(nfguard_netlink::Error::Interrupted)
                }
                true => Ok(()),
                false => self.nft.commit(&transaction, Some(generation)),
            };
            match committed {
                Err(nfguard_netlink::Error::Interrupted) if interruptions < MAX_INTERRUPTIONS => {
                    interruptions += 1;
                    window = (window / 2).max(1);
                }
                Err(nfguard_netlink::Error::TooLarge { .. }) if window > 1 => window /= 2,
                // A ban has ended by itself, or another process has removed a set.
                outcome if is_refused_with(&outcome, errno::ENOENT) && losses < MAX_LOSSES => {
                    losses += 1;
                    window = (window / 2).max(1);
                    self.made_sets.clear();
                }
                outcome => {
                    outcome?;
                    if !transaction.is_empty() {
                        self.made_sets.extend(missing.into_iter().map(|set| set.name));
                    }
                    start += outcomes.len();
                    (interruptions, losses) = (0, 0);
                    outcomes.into_iter().for_each(&mut done);
                }
            }
        }
        Ok(())
    }

    fn add_in_parts<'a>(
        &mut self,
        bans: impl IntoIterator<Item = Ban<'a>>,
        counts: &mut BanCounts,
    ) -> Result<(), Error> {
        let (mut part, mut bytes) = (Vec::new(), 0);
        // A `for` would ask iterators within iterators, as a list comes out of, one ban at a time.
        bans.into_iter().try_for_each(|ban| -> Result<(), Error> {
            let len = plan::encoded_len(&ban);
            if bytes + len > MAX_TRANSACTION_BYTES {
                self.add(&part, counts)?;
                part.clear();
                bytes = 0;
            }
            bytes += len;
            part.push(ban);
            Ok(())
        })?;
        if part.is_empty() { Ok(()) } else { self.add(&part, counts) }
    }

    /// Adds bans as if none were in force, for that is how most bans are; the kernel tells if one
    /// is. To look first would take as long as to ban.
    pub(super) fn add(&mut self, part: &[Ban<'_>], counts: &mut BanCounts) -> Result<(), Error> {
        let (sets, transaction) = plan::create(part, now());
        if !sets.is_subset(&self.ban_sets) {
            self.complete(&sets)?;
        }
        let mut outcome = self.nft.commit(&transaction, None);
        // Another process has removed the table since.
        if is_refused_with(&outcome, errno::ENOENT) {
            self.complete(&sets)?;
            outcome = self.nft.commit(&transaction, None);
        }
        match outcome {
            Err(nfguard_netlink::Error::TooLarge { .. }) if part.len() > 1 => {
                let (first, second) = part.split_at(part.len() / 2);
                self.add(first, counts)?;
                self.add(second, counts)
            }
            outcome if is_refused_with(&outcome, errno::EEXIST) => self.add_to_others(part, counts),
            Err(error) if is_refusal(&error, errno::ENFILE) => Err(self.full(part, error)),
            outcome => {
                outcome?;
                counts.added += count(part.len());
                Ok(())
            }
        }
    }

    /// Adds bans of which some are in force, or twice in the list.
    fn add_to_others(&mut self, part: &[Ban<'_>], counts: &mut BanCounts) -> Result<(), Error> {
        let (keys, bans): (Vec<SetKey>, Vec<Vec<Ban<'_>>>) =
            plan::longest(part.iter().copied()).into_iter().unzip();
        let now = now();
        let add = |at: usize, owners: &mut Vec<ActiveBan>| {
            let bans = bans.get(at).into_iter().flatten();
            let mut counts = BanCounts::default();
            bans.for_each(|ban| counts.count(plan::add(owners, element::active(ban, now))));
            counts
        };
        let before = counts.all();
        match self.edit(&keys, add, |some| counts.add(some)) {
            Err(Error::Kernel(error)) if is_refusal(&error, errno::ENFILE) => {
                return Err(self.full(part, error));
            }
            edited => edited?,
        }
        counts.kept += count(part.len()) - (counts.all() - before);
        Ok(())
    }

    /// Returns which set has no room for those bans that are not in force, or the error as it is.
    fn full(&mut self, part: &[Ban<'_>], error: nfguard_netlink::Error) -> Error {
        let mut absent: BTreeMap<String, usize> = BTreeMap::new();
        for key in plan::longest(part.iter().copied()).into_keys() {
            let place = Place { rank: 0, key };
            if self.held(&place).is_ok_and(|held| held.is_none()) {
                *absent.entry(place.set_name()).or_default() += 1;
            }
        }
        let present = self.nft.sets(TABLE).unwrap_or_default();
        for set in present {
            let (Some(size), Some(&more)) = (set.size, absent.get(&set.name)) else { continue };
            let held = self.nft.count(TABLE, &set.name).unwrap_or_default();
            if held + count(more) > u64::from(size) {
                return Error::Full { set: set.name, held, size, more };
            }
        }
        error.into()
    }

    fn keys_of(&mut self, source: &str) -> Result<Vec<SetKey>, Error> {
        let source = comment::source_name(source);
        let all = self.list_without_scans()?.into_iter().filter(|ban| ban.source == source);
        Ok(all.map(|ban| SetKey::of(ban.target, ban.port)).collect())
    }

    /// Ends the bans of this source at these places, and returns their number.
    pub(super) fn end(&mut self, source: &str, keys: &[SetKey]) -> Result<u64, Error> {
        let source = comment::source_name(source);
        let mut ended = 0;
        let end = |_: usize, owners: &mut Vec<ActiveBan>| {
            let before = owners.len();
            owners.retain(|ban| ban.source != source);
            count(before - owners.len())
        };
        self.edit(keys, end, |some| ended += some)?;
        Ok(ended)
    }
}
