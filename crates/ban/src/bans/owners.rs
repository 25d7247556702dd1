//! Bans of one target by several sources.

use std::collections::{BTreeMap, BTreeSet};
use std::slice;

use nfguard_netlink::{Op, Transaction};

use super::{BanSets, Bans};
use crate::ban::ActiveBan;
use crate::comment::{self, Sharing};
use crate::element;
use crate::error::{Error, errno, is_refused_with};
use crate::layout::{self, BanSet, Place, SetKey, TABLE};
use crate::plan::{self, Owners};
use crate::scan;
use crate::target::{Port, Target};

/// How often a note is tried: with the present set, and with a new one.
const MAX_NOTES: usize = 2;

impl Bans {
    /// Ends the bans of a target by all sources, also one that the kernel made by itself for a scan;
    /// `false` if there is none of exactly this target and port. This is the operator's word: the
    /// sources can see it, see [`Bans::is_ended`].
    ///
    /// # Errors
    /// The kernel's refusal. See [`scan::unban`].
    pub fn unban(&mut self, target: Target, port: Option<Port>) -> Result<bool, Error> {
        // First what may be refused.
        let ended = port.is_none() && scan::unban(&mut self.nft, target)?;
        let key = SetKey::of(target, port);
        let owners = self.owners(&key)?.bans;
        if owners.is_empty() {
            return Ok(ended);
        }
        self.note_ended(&owners)?;
        let all = |_: usize, owners: &mut Vec<ActiveBan>| !std::mem::take(owners).is_empty();
        let mut was_banned = false;
        self.edit(slice::from_ref(&key), all, |outcome| was_banned = outcome)?;
        Ok(ended || was_banned)
    }

    /// Ends the ban of a target by one source; `false` if that source has none of exactly this
    /// target and port. The target stays shut out for as long as another source wants.
    ///
    /// # Errors
    /// As [`Bans::unban`].
    pub fn unban_of(
        &mut self,
        source: &str,
        target: Target,
        port: Option<Port>,
    ) -> Result<bool, Error> {
        let is_scan = source == scan::SOURCE && port.is_none();
        let ended = is_scan && scan::unban(&mut self.nft, target)?;
        Ok(self.end(source, slice::from_ref(&SetKey::of(target, port)))? > 0 || ended)
    }

    /// Tells whether the operator has ended a ban of this source, within 30 days and since
    /// [`Bans::forget_ended`].
    ///
    /// # Errors
    /// The kernel's refusal.
    pub fn is_ended(&mut self, source: &str) -> Result<bool, Error> {
        let key = plan::ended_key(&comment::source_name(source));
        Ok(self.nft.element(TABLE, layout::ENDED, &key)?.is_some())
    }

    /// Forgets that the operator has ended bans of this source.
    ///
    /// # Errors
    /// The kernel's refusal.
    pub fn forget_ended(&mut self, source: &str) -> Result<(), Error> {
        if !self.is_ended(source)? {
            return Ok(());
        }
        let keys = vec![plan::ended_key(&comment::source_name(source))];
        let delete = Op::DeleteElements { set: layout::ENDED.to_owned(), keys };
        match self.nft.commit(&Transaction { table: TABLE.to_owned(), ops: vec![delete] }, None) {
            outcome if is_refused_with(&outcome, errno::ENOENT) => Ok(()),
            outcome => Ok(outcome?),
        }
    }

    fn note_ended(&mut self, owners: &[ActiveBan]) -> Result<(), Error> {
        let mut sources = Vec::new();
        for ActiveBan { source, .. } in owners {
            if !self.is_ended(source)? {
                sources.push(source.as_str());
            }
        }
        if sources.is_empty() {
            return Ok(());
        }
        // The set may be gone with the table, which another process has made again.
        for _ in 0..MAX_NOTES {
            let notes = plan::note_ended(&sources);
            let mut transaction = Transaction { table: TABLE.to_owned(), ops: notes };
            if !self.made_sets.contains(layout::ENDED) {
                transaction.ops.insert(0, Op::AddSet(layout::ended_set()));
            }
            match self.nft.commit(&transaction, None) {
                outcome if is_refused_with(&outcome, errno::ENOENT) => self.made_sets.clear(),
                outcome => {
                    outcome?;
                    self.made_sets.insert(layout::ENDED.to_owned());
                    break;
                }
            }
        }
        // Without a table there is nothing to note.
        Ok(())
    }

    /// Returns the ban of exactly this target and port by one source. The kernel's own bans are left
    /// out.
    ///
    /// # Errors
    /// The kernel's refusal.
    pub fn look_up_of(
        &mut self,
        source: &str,
        target: Target,
        port: Option<Port>,
    ) -> Result<Option<ActiveBan>, Error> {
        let (key, source) = (SetKey::of(target, port), comment::source_name(source));
        let mut found = None;
        let find = |_: usize, owners: &mut Vec<ActiveBan>| {
            owners.iter().find(|ban| ban.source == source).cloned()
        };
        self.edit(slice::from_ref(&key), find, |held| found = held)?;
        Ok(found)
    }

    /// Returns the ban of each target and port by one source, in the order of the list, as
    /// [`Bans::look_up_of`] does, and in a tenth of its time for those that one source alone has banned.
    ///
    /// # Errors
    /// The kernel's refusal.
    pub fn look_up_all_of<'a>(
        &mut self,
        bans: impl IntoIterator<Item = (&'a str, Target, Option<Port>)>,
    ) -> Result<Vec<Option<ActiveBan>>, Error> {
        let mut by_set: BTreeMap<BanSet, (Vec<_>, Vec<_>)> = BTreeMap::new();
        let mut all = Vec::new();
        for (source, target, port) in bans {
            let SetKey { set, key } = SetKey::of(target, port);
            let (asked, keys) = by_set.entry(set).or_default();
            asked.push((all.len(), source, target, port));
            keys.push(key.to_vec());
            all.push(None);
        }
        for (set, (asked, keys)) in by_set {
            let found = self.nft.find_elements(TABLE, &set.name(), &keys)?;
            for ((at, source, target, port), live) in asked.into_iter().zip(found) {
                let Some(live) = live else { continue };
                let ban = match element::sharing(&live) {
                    Sharing::Shared => self.look_up_of(source, target, port)?,
                    Sharing::Alone => {
                        let place = Place { rank: 0, key: SetKey::of(target, port) };
                        let ban = element::read(&place, live);
                        ban.filter(|ban| ban.source == comment::source_name(source))
                    }
                };
                if let Some(slot) = all.get_mut(at) {
                    *slot = ban;
                }
            }
        }
        Ok(all)
    }

    pub(super) fn list_without_scans(&mut self) -> Result<Vec<ActiveBan>, Error> {
        let BanSets { sets, shared } = self.retried(Bans::read_ban_sets)?;
        // A ban that ends can bring another one of its target from the owners to the set that drops,
        // and a new ban the other way. So the owners are read before and after that set.
        let mut others = BTreeMap::new();
        self.read_owners(&shared, &mut others)?;
        let mut bans = Vec::new();
        for set in sets {
            let name = set.name();
            for live in self.nft.live_elements(TABLE, &name)? {
                let Some(place) = element::place(&name, &live) else { continue };
                let sharing = element::sharing(&live);
                bans.extend(element::read(&place, live).map(|ban| (place.key, ban, sharing)));
            }
        }
        self.read_owners(&shared, &mut others)?;
        let mut all = Vec::with_capacity(bans.len());
        for (key, ban, sharing) in bans {
            if sharing == Sharing::Alone {
                all.push(ban);
                continue;
            }
            let others = others.remove(&key).unwrap_or_default();
            let others = others.into_values().filter(|other| other.source != ban.source);
            let mut others: Vec<ActiveBan> = others.collect();
            plan::sort(&mut others);
            all.push(ban);
            all.append(&mut others);
        }
        Ok(all)
    }

    /// Reads the owners in these sets, by target and port and by source.
    fn read_owners(
        &mut self,
        sets: &BTreeSet<BanSet>,
        owners: &mut BTreeMap<SetKey, BTreeMap<String, ActiveBan>>,
    ) -> Result<(), Error> {
        for set in sets {
            let name = layout::owners_set(*set).name;
            for live in self.nft.live_elements(TABLE, &name)? {
                let Some(place) = element::place(&name, &live) else { continue };
                let Some(ban) = element::read(&place, live) else { continue };
                owners.entry(place.key).or_default().insert(ban.source.clone(), ban);
            }
        }
        Ok(())
    }

    /// Returns the number of bans in these sets of owners.
    pub(super) fn count_owners(&mut self, sets: &BTreeSet<BanSet>) -> Result<u64, Error> {
        let mut owners = BTreeMap::new();
        self.read_owners(sets, &mut owners)?;
        let mut all = 0;
        for (key, bans) in owners {
            if let Some((_, Sharing::Shared)) = self.held(&Place { rank: 0, key })? {
                all += plan::count(bans.len());
            }
        }
        Ok(all)
    }

    /// Returns the bans of a target by all sources.
    pub(super) fn owners(&mut self, key: &SetKey) -> Result<Owners, Error> {
        let mut owners = Owners::default();
        let Some((ban, sharing)) = self.held(&Place { rank: 0, key: key.clone() })? else {
            return Ok(owners);
        };
        owners.sharing = Some(sharing);
        owners.bans.push(ban);
        if sharing == Sharing::Shared {
            owners.bans.append(&mut self.read_ranks(key)?);
        }
        Ok(owners)
    }

    /// Returns what lies in the set of owners for a target, whether it counts or not.
    pub(super) fn read_ranks(&mut self, key: &SetKey) -> Result<Vec<ActiveBan>, Error> {
        let mut bans = Vec::new();
        for rank in 1..=u16::MAX {
            match self.held(&Place { rank, key: key.clone() })? {
                Some((ban, _)) => bans.push(ban),
                None => break,
            }
        }
        Ok(bans)
    }
}
