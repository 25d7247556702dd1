//! The bans of one network namespace, as the kernel holds them.

mod bulk;
mod connections;
mod feeds;
mod known;
mod overlap;
mod owners;

use std::collections::{BTreeMap, BTreeSet};
use std::slice;
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use ipnetwork::IpNetwork;
use nfguard_netlink::{Chain, Nft, Op, Transaction};

use crate::ban::{ActiveBan, Ban, BanCounts, BanOutcome, outlasts};
use crate::comment::{self, Sharing};
use crate::day::Moment;
use crate::element;
use crate::error::Error;
use crate::layout::{self, BanSet, Outgoing, Place, SetKey, TABLE};
use crate::never_ban::{Admitted, NeverBan, NeverBanEntry, NeverBanKind, Refused};
use crate::never_sets;
use crate::plan;
use crate::scan;
use crate::table_state::TableState;
use crate::target::{Port, Target};

pub use feeds::ActiveFeed;

/// How often a change that needs a view of the whole table starts again because others changed the
/// ruleset meanwhile.
const MAX_ATTEMPTS: usize = 100;

/// The bans of one network namespace.
///
/// The kernel is the truth: it ends a ban by itself when its time is over, whichever program made
/// it, and what this process knew of the ban does not matter. Any number of processes may ban at
/// once.
pub struct Bans {
    nft: Nft,
    /// What this program has put on the never-ban list. It puts these entries back if others remove
    /// them.
    own: NeverBan,
    /// The own entries and those of others, by what the kernel held last.
    never_ban: NeverBan,
    /// The sets that the table had last. A new set is made before it is needed: the kernel takes
    /// some ten milliseconds for a transaction that it refuses.
    ban_sets: BTreeSet<BanSet>,
    /// The sets that were made when they were needed: those of owners, and [`layout::ENDED`].
    made_sets: BTreeSet<String>,
    /// Whether there was no table when this was opened.
    is_new: bool,
}

impl Bans {
    /// Opens the bans of this thread's network namespace. Makes the table if it is absent, and
    /// never clears one that exists.
    ///
    /// The list is merged with what other programs have put on theirs, and those entries count here
    /// too: what one program never bans no other bans.
    ///
    /// # Errors
    /// [`Error::OtherVersion`], or [`Error::Kernel`]: no privilege, no nf_tables, or a table of our
    /// name that is not ours.
    #[cfg(feature = "socket")]
    pub fn open(never_ban: NeverBan) -> Result<Bans, Error> {
        Bans::from_nft(Nft::open()?, never_ban)
    }

    /// Opens the bans of this thread's network namespace if there are any, and changes nothing.
    ///
    /// # Errors
    /// As [`Bans::open`].
    #[cfg(feature = "socket")]
    pub fn open_existing(never_ban: NeverBan) -> Result<Option<Bans>, Error> {
        let mut bans = Bans::new(Nft::open()?, never_ban);
        let read = bans.retried(|bans| crate::table_state::read_never_sets(&mut bans.nft))?;
        let Some(never_sets) = read else { return Ok(None) };
        let others = never_sets::read(&never_sets);
        bans.never_ban = bans.own.merged_with(others, Moment::now());
        Ok(Some(bans))
    }

    /// Opens the bans as [`Bans::open`] does, by way of this connection to nf_tables.
    ///
    /// # Errors
    /// As [`Bans::open`].
    pub fn from_nft(nft: Nft, never_ban: NeverBan) -> Result<Bans, Error> {
        let mut bans = Bans::new(nft, never_ban);
        bans.is_new = bans.complete(&BTreeSet::new())?;
        Ok(bans)
    }

    fn new(nft: Nft, never_ban: NeverBan) -> Bans {
        let own = never_ban.clone();
        Bans {
            nft,
            own,
            never_ban,
            ban_sets: BTreeSet::new(),
            made_sets: BTreeSet::new(),
            is_new: false,
        }
    }

    /// Tells whether there was no table when this was opened, so that nothing was banned.
    #[must_use]
    pub fn is_new(&self) -> bool {
        self.is_new
    }

    /// Adds entries to the never-ban list, here and in the kernel. A network that is on it keeps its
    /// kind. A ban in force that hits an entry does nothing from then on.
    ///
    /// # Errors
    /// [`Error::TooManyEntries`], or the kernel's refusal.
    pub fn add_never_ban(
        &mut self,
        entries: impl IntoIterator<Item = NeverBanEntry>,
    ) -> Result<(), Error> {
        let entries: Vec<NeverBanEntry> = entries.into_iter().collect();
        if entries.is_empty() {
            return Ok(());
        }
        self.complete_with(&BTreeSet::new(), |all| all.with_all(entries.iter().cloned()))?;
        Ok(())
    }

    /// Returns the never-ban list: what this was opened with and, since then, what the kernel held.
    #[must_use]
    pub fn never_ban(&self) -> &NeverBan {
        &self.never_ban
    }

    /// Makes these networks the never-ban entries of one kind, here and in the kernel; other
    /// entries of that kind are removed. Reasons tell the entries by hand of one program from those
    /// of another. A ban in force that hits an entry does nothing from then on.
    ///
    /// # Errors
    /// [`Error::TooManyEntries`], or the kernel's refusal.
    pub fn replace_never_ban(
        &mut self,
        kind: &NeverBanKind,
        networks: &[IpNetwork],
    ) -> Result<(), Error> {
        let kind = kind.clone().cleaned();
        let networks = normalised(networks);
        self.complete_with(&BTreeSet::new(), |all| {
            let others =
                all.without(|entry| entry.kind == kind || networks.contains(&entry.network));
            let entry = |network: &IpNetwork| NeverBanEntry::from((*network, kind.clone()));
            others.with_all(networks.iter().map(entry))
        })?;
        Ok(())
    }

    /// Lets these networks be banned although they are behind this host, by all programs, until this
    /// is called again. What is on the never-ban list for another reason stays on it. A network that
    /// may be banned no more is spared at once, in bans in force too.
    ///
    /// # Errors
    /// As [`Bans::replace_never_ban`].
    pub fn replace_may_ban(&mut self, networks: &[IpNetwork]) -> Result<(), Error> {
        let networks = NeverBan::default().with_may_ban(networks).may_ban().to_vec();
        if networks != self.never_ban.may_ban() {
            self.complete_with(&BTreeSet::new(), |all| all.with_may_ban(&networks))?;
        }
        Ok(())
    }

    /// Removes the never-ban entries of exactly these networks, here and in the kernel. A network
    /// behind this host stays spared as such; see [`Bans::replace_may_ban`].
    ///
    /// # Errors
    /// The kernel's refusal.
    pub fn remove_never_ban(&mut self, networks: &[IpNetwork]) -> Result<(), Error> {
        let networks = normalised(networks);
        self.complete_with(&BTreeSet::new(), |all| {
            all.without(|entry| networks.contains(&entry.network) && !entry.kind.is_behind())
        })?;
        // An entry that is gone may have stood for one behind this host.
        self.refresh_never_ban()
    }

    /// Writes the never-ban list into the kernel once more. Facts of the host are those of when
    /// this was opened.
    ///
    /// # Errors
    /// The kernel's refusal.
    pub fn refresh_never_ban(&mut self) -> Result<(), Error> {
        self.complete(&BTreeSet::new())?;
        Ok(())
    }

    /// Sets what becomes of packets that this host or its containers send to the banned. A new
    /// table lets them pass: no answer comes back, but what needs no answer leaves. Bans from one
    /// port, and feeds, are about what comes in alone.
    ///
    /// # Errors
    /// The kernel's refusal.
    pub fn set_outgoing(&mut self, outgoing: Outgoing) -> Result<(), Error> {
        self.retried(|bans| {
            let generation = bans.nft.generation()?;
            let state = TableState::read(&mut bans.nft)?;
            let mut layout = state.layout();
            let is_there = !bans.nft.rules(TABLE, layout::LEAVING)?.is_empty();
            let mut removed = Vec::new();
            for old in layout::OLD_LEAVING {
                if !bans.nft.rules(TABLE, old)?.is_empty() {
                    removed.push(old);
                }
            }
            if layout.outgoing == outgoing && removed.is_empty() {
                return Ok(());
            }
            layout.outgoing = outgoing;
            let mut transaction = Transaction::new(TABLE);
            match outgoing {
                Outgoing::Drop => {
                    let outgoing = Chain { name: layout::OUTGOING.to_owned(), ..Chain::default() };
                    transaction.ops.push(Op::AddChain(outgoing));
                    if !is_there {
                        let mut chain = layout::leaving_chain();
                        let rules = std::mem::take(&mut chain.rules).into_iter();
                        let add = |rule| Op::AddRule { chain: chain.name.clone(), rule };
                        let rules: Vec<Op> = rules.map(add).collect();
                        transaction.ops.push(Op::AddChain(chain));
                        transaction.ops.extend(rules);
                    }
                    transaction.ops.extend(state.rewritten(&layout));
                }
                Outgoing::Pass => {
                    removed.extend(is_there.then_some(layout::LEAVING));
                    removed.push(layout::OUTGOING);
                }
            }
            let names = || removed.iter().map(|name| (*name).to_owned());
            transaction.ops.extend(names().map(Op::FlushChain));
            transaction.ops.extend(names().map(Op::DeleteChain));
            Ok(bans.nft.commit(&transaction, Some(generation))?)
        })
    }

    /// Returns what [`Bans::set_outgoing`] was last asked for, by any program.
    ///
    /// # Errors
    /// The kernel's refusal.
    pub fn outgoing(&mut self) -> Result<Outgoing, Error> {
        let rules = self.nft.rules(TABLE, layout::OUTGOING)?;
        Ok(if rules.is_empty() { Outgoing::Pass } else { Outgoing::Drop })
    }

    /// Admits a target unless it has an address in common with a never-ban entry.
    ///
    /// # Errors
    /// [`Refused`] names the entry.
    pub fn admit(&self, target: Target) -> Result<Admitted, Refused> {
        self.never_ban.admit(target)
    }

    /// Bans one target. Of this ban and the ban in force of the same source, target and port, the
    /// one that ends later counts. What other sources have banned stays as it is.
    ///
    /// # Errors
    /// [`Error::Full`], or the kernel's refusal.
    pub fn ban(&mut self, ban: &Ban<'_>) -> Result<BanOutcome, Error> {
        let mut counts = BanCounts::default();
        self.add(slice::from_ref(ban), &mut counts)?;
        Ok(match (counts.added, counts.extended) {
            (1, _) => BanOutcome::Added,
            (_, 1) => BanOutcome::Extended,
            _ => BanOutcome::Kept,
        })
    }

    /// Extends a ban in force of one source by this much. A ban without end stays so.
    ///
    /// # Errors
    /// The kernel's refusal. `None` if the source has no ban of exactly this target and port.
    pub fn extend(
        &mut self,
        source: &str,
        target: Target,
        port: Option<Port>,
        by: Duration,
    ) -> Result<Option<ActiveBan>, Error> {
        let (key, source) = (SetKey::of(target, port), comment::source_name(source));
        let longer = |_: usize, owners: &mut Vec<ActiveBan>| {
            let own = owners.iter_mut().find(|ban| ban.source == source)?;
            own.expires_in = own.expires_in.map(|left| left.saturating_add(by));
            Some(own.clone())
        };
        let mut outcome = None;
        self.edit(slice::from_ref(&key), longer, |held| outcome = held)?;
        Ok(outcome)
    }

    /// Returns the ban of exactly this target and port; of bans by several sources, the one that
    /// ends last. The kernel's own bans are left out.
    ///
    /// # Errors
    /// The kernel's refusal.
    pub fn look_up(
        &mut self,
        target: Target,
        port: Option<Port>,
    ) -> Result<Option<ActiveBan>, Error> {
        let place = Place { rank: 0, key: SetKey::of(target, port) };
        Ok(self.held(&place)?.map(|(ban, _)| ban))
    }

    /// Returns all bans, by prefix length and address, and then the kernel's own. Bans of one target
    /// by several sources stand behind each other, later ends first. Slow for very many, see
    /// [`Nft::live_elements`].
    ///
    /// # Errors
    /// The kernel's refusal.
    pub fn list(&mut self) -> Result<Vec<ActiveBan>, Error> {
        let all = self.list_without_scans()?;
        self.with_scans(all)
    }

    fn with_scans(&mut self, mut all: Vec<ActiveBan>) -> Result<Vec<ActiveBan>, Error> {
        let scans = self.list_scans()?;
        if scans.is_empty() {
            return Ok(all);
        }
        // A ban for a scan that outlived its policy, or a boot, lies among the others.
        let is_scan = |ban: &ActiveBan| ban.port.is_none() && ban.source == scan::SOURCE;
        let copies = all.iter().enumerate().filter(|(_, ban)| is_scan(ban));
        let copies: BTreeMap<Target, usize> = copies.map(|(at, ban)| (ban.target, at)).collect();
        for ban in scans {
            match copies.get(&ban.target).and_then(|at| all.get_mut(*at)) {
                None => all.push(ban),
                Some(other) if outlasts(ban.expires_in, other.expires_in) => *other = ban,
                Some(_) => {}
            }
        }
        Ok(all)
    }

    /// Returns all bans of one source, named as in [`Ban::source`]. Reads all bans, as
    /// [`Bans::list`].
    ///
    /// # Errors
    /// The kernel's refusal.
    pub fn list_of(&mut self, source: &str) -> Result<Vec<ActiveBan>, Error> {
        let source = comment::source_name(source);
        let mut all =
            if source == scan::SOURCE { self.list()? } else { self.list_without_scans()? };
        all.retain(|ban| ban.source == source);
        Ok(all)
    }

    /// Returns the bans that the kernel made by itself, for a scan. None if no policy that looks
    /// for scans is loaded.
    ///
    /// # Errors
    /// The kernel's refusal.
    pub fn list_scans(&mut self) -> Result<Vec<ActiveBan>, Error> {
        self.retried(|bans| scan::list(&mut bans.nft, now()))
    }

    /// Returns the number of bans, the kernel's own too. A ban whose time is just over may still be
    /// counted.
    ///
    /// # Errors
    /// The kernel's refusal.
    pub fn count(&mut self) -> Result<u64, Error> {
        let mut all = 0;
        let BanSets { sets, shared } = self.retried(Bans::read_ban_sets)?;
        for set in sets {
            all += self.nft.count(TABLE, &set.name())?;
        }
        Ok(all + self.count_owners(&shared)? + self.count_scans()?)
    }

    /// Returns the number of bans that the kernel made by itself. A ban whose time is just over may
    /// still be counted.
    ///
    /// # Errors
    /// The kernel's refusal.
    pub fn count_scans(&mut self) -> Result<u64, Error> {
        self.retried(|bans| scan::count(&mut bans.nft))
    }

    /// Returns the ban at a place, and whether other owners count beside it.
    fn held(&mut self, place: &Place) -> Result<Option<(ActiveBan, Sharing)>, Error> {
        let found = self.nft.element(TABLE, &place.set_name(), &place.element_key())?;
        Ok(found.and_then(|live| {
            let sharing = element::sharing(&live);
            Some((element::read(place, live)?, sharing))
        }))
    }

    /// Completes the table: makes all of it, or these sets and their rules, as far as it is missing.
    /// Returns whether there was no table.
    fn complete(&mut self, sets: &BTreeSet<BanSet>) -> Result<bool, Error> {
        self.complete_with(sets, |all| all)
    }

    /// Completes the table with a changed never-ban list.
    fn complete_with(
        &mut self,
        sets: &BTreeSet<BanSet>,
        change: impl Fn(NeverBan) -> NeverBan,
    ) -> Result<bool, Error> {
        let was_absent = self.retried(|bans| {
            let generation = bans.nft.generation()?;
            let state = TableState::read(&mut bans.nft)?;
            // If another program has removed the table, the entries of others are those that it
            // held last.
            let known = if state.exists { &bans.own } else { &bans.never_ban };
            let others = never_sets::read(&state.never_sets);
            let never_ban = change(known.merged_with(others, Moment::now()));
            // What may be banned is in the kernel, for all programs.
            let own = change(bans.own.clone()).with_may_ban(&[]);
            let (transaction, ban_sets) = plan::complete(&state, sets, &never_ban)?;
            bans.nft.commit(&transaction, Some(generation))?;
            (bans.own, bans.never_ban, bans.ban_sets) = (own, never_ban, ban_sets);
            Ok(!state.exists)
        })?;
        match scan::write_never_ban(&mut self.nft, &self.never_ban) {
            // The owner of the policy's table sees to it.
            Err(Error::Kernel(error)) if scan::is_owned(&error) => Ok(was_absent),
            outcome => outcome.map(|()| was_absent),
        }
    }

    fn read_ban_sets(&mut self) -> Result<BanSets, Error> {
        let all = self.nft.sets(TABLE)?;
        let names = || all.iter().map(|set| set.name.as_str());
        Ok(BanSets {
            sets: names().filter_map(BanSet::from_name).collect(),
            shared: names().filter_map(BanSet::from_owners_name).collect(),
        })
    }

    /// Makes an attempt again if others change the ruleset in between.
    fn retried<T>(
        &mut self,
        mut attempt: impl FnMut(&mut Bans) -> Result<T, Error>,
    ) -> Result<T, Error> {
        for _ in 0..MAX_ATTEMPTS {
            match attempt(self) {
                Err(Error::Kernel(nfguard_netlink::Error::Interrupted)) => {}
                outcome => return outcome,
            }
        }
        Err(nfguard_netlink::Error::Interrupted.into())
    }
}

/// The sets of bans in the kernel.
struct BanSets {
    sets: BTreeSet<BanSet>,
    /// Those beside which there is a set of owners.
    shared: BTreeSet<BanSet>,
}

/// Returns networks as they are on a never-ban list.
fn normalised(networks: &[IpNetwork]) -> Vec<IpNetwork> {
    networks.iter().map(|network| Target::from(*network).network()).collect()
}

/// Returns the seconds since 1970.
fn now() -> u64 {
    SystemTime::now().duration_since(UNIX_EPOCH).map_or(0, |now| now.as_secs())
}
