//! The bans of this network namespace, as the kernel holds them.

use std::collections::{BTreeMap, BTreeSet};
use std::slice;
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use ipnetwork::IpNetwork;
use nfguard_netlink::{Chain, LiveElement, Nft, Op, Set, Transaction, diff};

use crate::edit::{self, BanCounts};
use crate::error::{Error, errno, refused};
use crate::layout::{self, BanSet, FAMILIES, MARK, Place, Shape, TABLE};
use crate::never::{Admitted, NeverBan, Refused};
use crate::note::{self, Note};
use crate::scan;
use crate::spared;
use crate::target::{Port, Target};

/// How often what needs a whole view of the table starts again because others changed the ruleset
/// meanwhile.
const ATTEMPTS: usize = 100;

/// The bans of one network namespace.
///
/// The kernel is the truth: it forgets a ban by itself when its time is over, whoever made it, and
/// what this process knew of it does not matter. Any number of processes may ban at once.
pub struct Bans {
    pub(crate) kernel: Nft,
    /// Whom this program has named. It puts them back if others take them off.
    own: NeverBan,
    /// And whom others have, by what the kernel held last.
    never: NeverBan,
    /// The sets that the table had last. One more is made before it is needed: a transaction that
    /// the kernel refuses takes it some ten milliseconds.
    pub(crate) present: BTreeSet<BanSet>,
}

/// A ban to be made.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Ban<'a> {
    /// Who is banned.
    pub target: Admitted,
    /// From what: one port, published ports of containers by the number they are published at;
    /// `None`: from everything. Each is a ban of its own.
    pub port: Option<Port>,
    /// For how long; `None`: until somebody unbans. Less than a millisecond is taken for one, and
    /// more than 584 years for these, the longest that the kernel can count.
    pub lasts: Option<Duration>,
    /// Who bans: the name of a tool or of one of its jails. Kept with the ban, at most 32 bytes;
    /// spaces and `@` become `_`.
    pub source: &'a str,
    /// Why. Kept with the ban as far as it fits, about 70 bytes.
    pub reason: &'a str,
    /// When it was first made, in seconds since 1970; `None`: now.
    pub since: Option<u64>,
}

/// A ban in force.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ActiveBan {
    /// Who is banned.
    pub target: Target,
    /// From which port; `None`: from everything.
    pub port: Option<Port>,
    /// How long it still lasts; `None`: until somebody unbans.
    pub expires_in: Option<Duration>,
    /// Who banned; empty if that is not known.
    pub source: String,
    /// Why; empty if that is not known.
    pub reason: String,
    /// When, in seconds since 1970; `None` if that is not known.
    pub since: Option<u64>,
}

/// What became of a ban.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum BanOutcome {
    /// It is in force.
    Added,
    /// It was in force and now lasts longer.
    Extended,
    /// It was in force for at least as long, and is as it was.
    Kept,
}

impl Bans {
    /// Opens the bans of this thread's network namespace. Makes the table if it is absent, and
    /// never clears one that is there.
    ///
    /// The allies are put beside those that other programs have named, and those count here too:
    /// what one program spares no other bans.
    ///
    /// # Errors
    /// [`Error::OtherVersion`], or [`Error::Kernel`]: no privilege, no nf_tables, or a table of our
    /// name that is not ours.
    #[cfg(feature = "socket")]
    pub fn open(never: NeverBan) -> Result<Bans, Error> {
        Bans::with(Nft::open()?, never)
    }

    /// Opens the bans of this thread's network namespace if there are any, and changes nothing.
    ///
    /// # Errors
    /// As [`Bans::open`].
    #[cfg(feature = "socket")]
    pub fn open_existing(never: NeverBan) -> Result<Option<Bans>, Error> {
        let mut bans = Bans::new(Nft::open()?, never);
        if !bans.is_there()? {
            return Ok(None);
        }
        bans.never = bans.never_of_all(true)?;
        Ok(Some(bans))
    }

    /// As [`Bans::open`], by way of this kernel.
    ///
    /// # Errors
    /// As [`Bans::open`].
    pub fn with(kernel: Nft, never: NeverBan) -> Result<Bans, Error> {
        let mut bans = Bans::new(kernel, never);
        bans.prepare(&BTreeSet::new())?;
        Ok(bans)
    }

    fn new(kernel: Nft, never: NeverBan) -> Bans {
        Bans { kernel, own: never.clone(), never, present: BTreeSet::new() }
    }

    /// Who is never banned: the allies that this was opened with and, since then, the kernel's.
    #[must_use]
    pub fn never(&self) -> &NeverBan {
        &self.never
    }

    /// Makes these the allies with this reason, here and in the kernel; others that have it are
    /// spared no longer. A ban of one that is in force does nothing from then on.
    ///
    /// # Errors
    /// The kernel's refusal.
    pub fn spare(&mut self, reason: &str, networks: &[IpNetwork]) -> Result<(), Error> {
        let noted = note::clean(reason);
        let networks = normalised(networks);
        self.prepare_with(&BTreeSet::new(), |all| {
            let others =
                all.without(|ally| ally.reason == noted || networks.contains(&ally.network));
            others.and_all(networks.iter().map(|network| (*network, reason.to_owned())))
        })
    }

    /// Whether nothing is sent to the banned either, by this host or for its containers. Without
    /// it, which is how a new table is, no answer of theirs comes back, but what needs none goes
    /// out. Bans from one port, and feeds, are about what comes in alone.
    ///
    /// # Errors
    /// The kernel's refusal.
    pub fn drop_outgoing(&mut self, outgoing: bool) -> Result<(), Error> {
        self.undisturbed(|bans| {
            let generation = bans.kernel.generation()?;
            let mut shape = bans.shape()?;
            if shape.outgoing == outgoing {
                return Ok(());
            }
            shape.outgoing = outgoing;
            let mut transaction = Transaction::new(TABLE);
            let chains = layout::outgoing_chains();
            if outgoing {
                transaction.ops.extend(chains.iter().cloned().map(Op::AddChain));
                for Chain { name, rules, .. } in chains {
                    let add = |rule| Op::AddRule { chain: name.clone(), rule };
                    transaction.ops.extend(rules.into_iter().map(add));
                }
                transaction.ops.extend(bans.rewritten(&shape)?);
            } else {
                let names = || chains.iter().map(|chain| chain.name.clone());
                transaction.ops.extend(names().map(Op::FlushChain));
                transaction.ops.extend(names().map(Op::DeleteChain));
            }
            Ok(bans.kernel.commit(&transaction, Some(generation))?)
        })
    }

    /// Whether [`Bans::drop_outgoing`] has been asked for.
    ///
    /// # Errors
    /// The kernel's refusal.
    pub fn drops_outgoing(&mut self) -> Result<bool, Error> {
        Ok(!self.kernel.rules(TABLE, layout::OUTGOING)?.is_empty())
    }

    /// Takes allies off the list, here and in the kernel: those that are on it exactly so.
    ///
    /// # Errors
    /// The kernel's refusal.
    pub fn spare_no_longer(&mut self, networks: &[IpNetwork]) -> Result<(), Error> {
        let networks = normalised(networks);
        self.prepare_with(&BTreeSet::new(), |all| {
            all.without(|ally| networks.contains(&ally.network))
        })
    }

    /// Lets a target pass unless it has an address in common with somebody who is never banned.
    ///
    /// # Errors
    /// Names the one who would be hit.
    pub fn admit(&self, target: Target) -> Result<Admitted, Refused> {
        self.never.admit(target)
    }

    /// Bans one. Of this ban and one of the same target and port that is in force, the one that
    /// ends later counts.
    ///
    /// # Errors
    /// [`Error::Full`], or the kernel's refusal.
    pub fn ban(&mut self, ban: &Ban<'_>) -> Result<BanOutcome, Error> {
        let mut tally = BanCounts::default();
        self.add(slice::from_ref(ban), &mut tally)?;
        Ok(match (tally.added, tally.extended) {
            (1, _) => BanOutcome::Added,
            (_, 1) => BanOutcome::Extended,
            _ => BanOutcome::Kept,
        })
    }

    /// Lets a ban in force last longer by this much. One without an end stays so.
    ///
    /// # Errors
    /// The kernel's refusal. `None` if there is no ban of exactly this target and port.
    pub fn extend(
        &mut self,
        target: Target,
        port: Option<Port>,
        by: Duration,
    ) -> Result<Option<ActiveBan>, Error> {
        let place = Place::of(target, port);
        let longer = |_: usize, held: Option<ActiveBan>| {
            let Some(mut held) = held else { return (Vec::new(), None) };
            let Some(left) = held.expires_in else { return (Vec::new(), Some(held)) };
            held.expires_in = Some(left.saturating_add(by));
            let element = edit::element(place.key.clone(), held.expires_in, held.note());
            (edit::renew(&place, element), Some(held))
        };
        let mut outcome = None;
        self.edit(slice::from_ref(&place), longer, |held| outcome = held)?;
        Ok(outcome)
    }

    /// Ends a ban, the kernel's own too; `false` if there is none of exactly this target and port.
    ///
    /// # Errors
    /// The kernel's refusal. See [`scan::unban`].
    pub fn unban(&mut self, target: Target, port: Option<Port>) -> Result<bool, Error> {
        // First what may be refused.
        let ended = port.is_none() && scan::unban(&mut self.kernel, target)?;
        Ok(self.unban_made(target, port)? || ended)
    }

    fn unban_made(&mut self, target: Target, port: Option<Port>) -> Result<bool, Error> {
        let Place { set, key } = Place::of(target, port);
        if self.kernel.element(TABLE, &set.name(), &key)?.is_none() {
            return Ok(false);
        }
        let transaction = Transaction {
            table: TABLE.to_owned(),
            ops: vec![Op::DeleteElements { set: set.name(), keys: vec![key] }],
        };
        let outcome = self.kernel.commit(&transaction, None);
        // It expired, or somebody else was faster.
        if refused(&outcome, errno::ENOENT) {
            return Ok(false);
        }
        outcome?;
        Ok(true)
    }

    /// The ban of exactly this target and port; the kernel's own are left out.
    ///
    /// # Errors
    /// The kernel's refusal.
    pub fn look_up(
        &mut self,
        target: Target,
        port: Option<Port>,
    ) -> Result<Option<ActiveBan>, Error> {
        self.held(&Place::of(target, port))
    }

    /// All bans, by prefix length and address, and then the kernel's own. Where there are two of one
    /// target, it is the one that ends later. Slow for very many, see [`Nft::live_elements`].
    ///
    /// # Errors
    /// The kernel's refusal.
    pub fn list(&mut self) -> Result<Vec<ActiveBan>, Error> {
        let mut all = self.list_made()?;
        let scans = self.scans()?;
        if scans.is_empty() {
            return Ok(all);
        }
        let whole = all.iter().enumerate().filter(|(_, ban)| ban.port.is_none());
        let known: BTreeMap<Target, usize> = whole.map(|(at, ban)| (ban.target, at)).collect();
        for ban in scans {
            match known.get(&ban.target).and_then(|at| all.get_mut(*at)) {
                None => all.push(ban),
                Some(other) if edit::outlasts(ban.expires_in, other.expires_in) => *other = ban,
                Some(_) => {}
            }
        }
        Ok(all)
    }

    pub(crate) fn list_made(&mut self) -> Result<Vec<ActiveBan>, Error> {
        let mut all = Vec::new();
        for set in self.undisturbed(Bans::sets)? {
            let elements = self.kernel.live_elements(TABLE, &set.name())?;
            all.extend(elements.into_iter().filter_map(|element| ActiveBan::read(set, element)));
        }
        Ok(all)
    }

    /// All bans of one source, named as in [`Ban::source`]. Reads all bans, as [`Bans::list`].
    ///
    /// # Errors
    /// The kernel's refusal.
    pub fn list_of(&mut self, source: &str) -> Result<Vec<ActiveBan>, Error> {
        let source = note::source(source);
        let mut all = if source == scan::SOURCE { self.list()? } else { self.list_made()? };
        all.retain(|ban| ban.source == source);
        Ok(all)
    }

    /// How many bans there are. One whose time is just over may still be counted.
    ///
    /// # Errors
    /// The kernel's refusal.
    pub fn count(&mut self) -> Result<u64, Error> {
        let mut all = 0;
        for set in self.undisturbed(Bans::sets)? {
            all += self.kernel.count(TABLE, &set.name())?;
        }
        Ok(all + self.count_scans()?)
    }

    pub(crate) fn held(&mut self, place: &Place) -> Result<Option<ActiveBan>, Error> {
        let found = self.kernel.element(TABLE, &place.set.name(), &place.key)?;
        Ok(found.and_then(|element| ActiveBan::read(place.set, element)))
    }

    /// Makes what is missing of the table: all of it, or these sets and their rules.
    pub(crate) fn prepare(&mut self, sets: &BTreeSet<BanSet>) -> Result<(), Error> {
        self.prepare_with(sets, |all| all)
    }

    fn prepare_with(
        &mut self,
        sets: &BTreeSet<BanSet>,
        change: impl Fn(NeverBan) -> NeverBan,
    ) -> Result<(), Error> {
        self.undisturbed(|bans| {
            let generation = bans.kernel.generation()?;
            let is_there = bans.is_there()?;
            let mut transaction = match is_there {
                true => Transaction::new(TABLE),
                false => diff(None, &layout::empty_table()),
            };
            let own = change(bans.own.clone());
            let never = change(bans.never_of_all(is_there)?);
            let mut shape = bans.shape()?;
            let allied = spared::spared(&never);
            shape.spared = spared::in_rules(&allied);
            for set in allied {
                let allies = set.elements.len();
                if let Some(size) = set.size.filter(|size| edit::count(allies) > u64::from(*size)) {
                    return Err(Error::ManyAllies { allies, size });
                }
                if bans.kernel.elements(TABLE, &set)? != set.elements {
                    transaction.ops.push(Op::AddSet(set.clone()));
                    transaction.ops.push(Op::FlushElements(set.name.clone()));
                    transaction.ops.push(Op::AddElements { set: set.name, elements: set.elements });
                }
            }
            for set in sets.difference(&shape.sets.clone()) {
                transaction.ops.push(Op::AddSet(set.set()));
                shape.sets.insert(*set);
            }
            transaction.ops.extend(bans.rewritten(&shape)?);
            bans.kernel.commit(&transaction, Some(generation))?;
            (bans.own, bans.never, bans.present) = (own, never, shape.sets);
            Ok(())
        })?;
        match scan::spare(&mut self.kernel, &self.never) {
            // Who owns the policy's table sees to it.
            Err(Error::Kernel(error)) if scan::is_owned(&error) => Ok(()),
            outcome => outcome,
        }
    }

    /// What decides which rules there are, as it is.
    pub(crate) fn shape(&mut self) -> Result<Shape, Error> {
        let mut has_feeds = [false; 2];
        for (is_v6, has) in FAMILIES.into_iter().zip(&mut has_feeds) {
            *has = !self.kernel.rules(TABLE, layout::feed_chain(is_v6))?.is_empty();
        }
        let spared = spared::in_rules(&self.never_sets()?);
        let outgoing = self.drops_outgoing()?;
        Ok(Shape { sets: self.sets()?, spared, has_feeds, outgoing })
    }

    /// What gives the chains the rules that they should have; nothing if they have them.
    pub(crate) fn rewritten(&mut self, shape: &Shape) -> Result<Vec<Op>, Error> {
        let mut ops = Vec::new();
        for (chain, rules) in shape.chains() {
            if self.kernel.rules(TABLE, chain)? != rules {
                ops.push(Op::FlushChain(chain.to_owned()));
                let add = |rule| Op::AddRule { chain: chain.to_owned(), rule };
                ops.extend(rules.into_iter().map(add));
            }
        }
        Ok(ops)
    }

    /// Tries again if others change the ruleset in between.
    pub(crate) fn undisturbed<T>(
        &mut self,
        mut attempt: impl FnMut(&mut Bans) -> Result<T, Error>,
    ) -> Result<T, Error> {
        for _ in 0..ATTEMPTS {
            match attempt(self) {
                Err(Error::Kernel(nfguard_netlink::Error::Interrupted)) => {}
                outcome => return outcome,
            }
        }
        Err(nfguard_netlink::Error::Interrupted.into())
    }

    /// Whether there is a table, and it is one that this version can work with.
    fn is_there(&mut self) -> Result<bool, Error> {
        let Some(head) = self.kernel.table_head(TABLE)? else { return Ok(false) };
        match head.comment {
            Some(found) if found != MARK && found.starts_with(layout::ANY_MARK) => {
                Err(Error::OtherVersion { found })
            }
            _ => Ok(nfguard_netlink::own_head(&mut self.kernel, &layout::known_by())?.is_some()),
        }
    }

    /// Our allies and the kernel's, as far as these still hold. If somebody has removed the table,
    /// the others' are those that it held last.
    fn never_of_all(&mut self, is_there: bool) -> Result<NeverBan, Error> {
        let sets = self.never_sets()?;
        let others = sets.iter().flat_map(|set| {
            set.elements.iter().filter_map(|element| spared::ally(set, element.clone()))
        });
        let others = others.collect();
        let known = if is_there { &self.own } else { &self.never };
        Ok(known.beside(others, SystemTime::now()))
    }

    /// The sets of those who are spared, as the kernel holds them.
    fn never_sets(&mut self) -> Result<Vec<Set>, Error> {
        let mut sets = spared::spared(&NeverBan::default());
        for set in &mut sets {
            set.elements = self.kernel.elements(TABLE, set)?;
        }
        Ok(sets)
    }

    pub(crate) fn sets(&mut self) -> Result<BTreeSet<BanSet>, Error> {
        let sets = self.kernel.sets(TABLE)?;
        Ok(sets.iter().filter_map(|set| BanSet::named(&set.name)).collect())
    }
}

impl ActiveBan {
    fn note(&self) -> String {
        let since = self.since.unwrap_or_else(now);
        Note { source: &self.source, reason: &self.reason, since }.text()
    }

    /// The ban that this element of a set of [`TABLE`] is; `None` if that set has none.
    #[must_use]
    pub fn of(set: &str, element: LiveElement) -> Option<ActiveBan> {
        ActiveBan::read(BanSet::named(set)?, element)
    }

    fn read(set: BanSet, live: LiveElement) -> Option<ActiveBan> {
        let (target, port) = Place::read(set, &live.element.key)?;
        let comment = live.element.comment.unwrap_or_default();
        let (source, reason, since) = Note::parse(&comment);
        Some(ActiveBan { target, port, expires_in: live.expires_in, source, reason, since })
    }
}

/// As they are on the never-ban list.
fn normalised(networks: &[IpNetwork]) -> Vec<IpNetwork> {
    networks.iter().map(|network| Target::from(*network).network()).collect()
}

/// Seconds since 1970.
pub(crate) fn now() -> u64 {
    SystemTime::now().duration_since(UNIX_EPOCH).map_or(0, |now| now.as_secs())
}
