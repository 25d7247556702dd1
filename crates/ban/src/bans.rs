//! The bans of this network namespace, as the kernel holds them.

use std::collections::{BTreeMap, BTreeSet};
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use nfguard_netlink::{Element, Kernel, Key, LiveElement, Op, Table, Transaction, diff};

use crate::layout::{self, Length, MARK, TABLE};
use crate::never::{Admitted, NeverBan, Refused};
use crate::note::Note;
use crate::target::Target;

/// How often a change of the table's shape starts again because others changed the ruleset
/// meanwhile.
const ATTEMPTS: usize = 10;

/// How many bans go into one transaction: as many as surely fit a socket's default send buffer.
const AT_ONCE: usize = 400;

/// `ENOENT`.
const ABSENT: i32 = 2;

/// The bans of one network namespace.
///
/// The kernel is the truth: it forgets a ban by itself when its time is over, whoever made it, and
/// what this process knew of it does not matter. Any number of processes may ban at once.
pub struct Bans {
    kernel: Kernel,
    never: NeverBan,
    lengths: BTreeSet<Length>,
}

/// A ban to be made.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Ban {
    /// Who is banned.
    pub target: Admitted,
    /// For how long; `None`: until somebody unbans.
    pub lasts: Option<Duration>,
    /// Who bans: the name of a tool or of one of its jails. Kept with the ban, at most 32 bytes.
    pub source: String,
    /// Why. Kept with the ban as far as it fits, about 70 bytes.
    pub reason: String,
    /// When it was first made, in seconds since 1970; `None`: now.
    pub since: Option<u64>,
}

/// A ban in force.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Active {
    /// Who is banned.
    pub target: Target,
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
pub enum Made {
    /// It is in force.
    Added,
    /// It was in force and now lasts longer.
    Extended,
    /// It was in force for at least as long, and is as it was.
    Kept,
}

/// Why bans could not be read or changed.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum Error {
    /// It would hit somebody on the never-ban list.
    #[error(transparent)]
    NeverBanned(#[from] Refused),
    /// The kernel, or the way to it.
    #[error(transparent)]
    Kernel(#[from] nfguard_netlink::Error),
}

impl Bans {
    /// Opens the bans of this thread's network namespace. Makes the table if it is absent, and
    /// never clears one that is there.
    ///
    /// # Errors
    /// No privilege, no nf_tables, or a table of our name that is not ours.
    #[cfg(feature = "socket")]
    pub fn open(never: NeverBan) -> Result<Bans, Error> {
        Bans::with(Kernel::open()?, never)
    }

    /// As [`Bans::open`], by way of this kernel.
    ///
    /// # Errors
    /// As [`Bans::open`].
    pub fn with(kernel: Kernel, never: NeverBan) -> Result<Bans, Error> {
        let mut bans = Bans { kernel, never, lengths: BTreeSet::new() };
        bans.prepare(&BTreeSet::new())?;
        Ok(bans)
    }

    /// Lets a target pass unless it has an address in common with somebody who is never banned.
    ///
    /// # Errors
    /// Names the one who would be hit.
    pub fn admit(&self, target: Target) -> Result<Admitted, Refused> {
        self.never.admit(target)
    }

    /// Bans one.
    ///
    /// # Errors
    /// As [`Bans::ban_all`].
    pub fn ban(&mut self, ban: Ban) -> Result<Made, Error> {
        let made = self.ban_all(vec![ban])?;
        Ok(made.first().map_or(Made::Kept, |(_, made)| *made))
    }

    /// Bans all of them. Of several bans of one target, and of one in force, the one that lasts
    /// longest counts.
    ///
    /// # Errors
    /// Bans of one target are all or nothing; of a long list, those before the failure are in
    /// force.
    pub fn ban_all(&mut self, bans: Vec<Ban>) -> Result<Vec<(Target, Made)>, Error> {
        let mut longest: BTreeMap<Target, Ban> = BTreeMap::new();
        for ban in bans {
            let target = ban.target.target();
            let known = longest.get(&target).map(|known| known.lasts);
            if known.is_none_or(|known| outlasts(ban.lasts, known)) {
                longest.insert(target, ban);
            }
        }
        let lengths = longest.keys().map(|target| Length::of(*target)).collect();
        let mut made = Vec::new();
        let longest: Vec<(Target, Ban)> = longest.into_iter().collect();
        for part in longest.chunks(AT_ONCE) {
            made.extend(self.retry(&lengths, |bans| bans.ban_part(part))?);
        }
        Ok(made)
    }

    /// Ends a ban; `false` if there is none of exactly this target.
    ///
    /// # Errors
    /// The kernel's refusal.
    pub fn unban(&mut self, target: Target) -> Result<bool, Error> {
        let (set, key) = (Length::of(target).set_name(), layout::key(target));
        if self.kernel.element(TABLE, &set, &key)?.is_none() {
            return Ok(false);
        }
        let transaction = Transaction {
            table: TABLE.to_owned(),
            ops: vec![Op::DeleteElements { set, keys: vec![key] }],
        };
        match self.kernel.commit(&transaction, None) {
            // It expired, or somebody else was faster.
            Err(error) if is_absent(&error) => Ok(false),
            result => Ok(result.map(|()| true)?),
        }
    }

    /// The ban of exactly this target.
    ///
    /// # Errors
    /// The kernel's refusal.
    pub fn look_up(&mut self, target: Target) -> Result<Option<Active>, Error> {
        let length = Length::of(target);
        let found = self.kernel.element(TABLE, &length.set_name(), &layout::key(target))?;
        Ok(found.and_then(|element| active(length, element)))
    }

    /// All bans, by prefix length and address. Slow for very many, see
    /// [`Kernel::live_elements`].
    ///
    /// # Errors
    /// The kernel's refusal.
    pub fn list(&mut self) -> Result<Vec<Active>, Error> {
        let mut all = Vec::new();
        for length in self.lengths_in_kernel()? {
            let elements = self.kernel.live_elements(TABLE, &length.set_name())?;
            all.extend(elements.into_iter().filter_map(|element| active(length, element)));
        }
        Ok(all)
    }

    fn ban_part(&mut self, part: &[(Target, Ban)]) -> Result<Vec<(Target, Made)>, Error> {
        let now = SystemTime::now().duration_since(UNIX_EPOCH).map_or(0, |now| now.as_secs());
        let mut made = Vec::new();
        let mut transaction = Transaction::new(TABLE);
        for (target, ban) in part {
            let (set, key) = (Length::of(*target).set_name(), layout::key(*target));
            let comment =
                Note { source: &ban.source, reason: &ban.reason, since: ban.since.unwrap_or(now) }
                    .to_string();
            let element = Element {
                key: Key::Value(key.clone()),
                // A ban without an end in a set with timeouts is one with timeout zero.
                timeout: Some(ban.lasts.unwrap_or_default()),
                comment: Some(comment),
            };
            let add = Op::AddElements { set: set.clone(), elements: vec![element] };
            let outcome = match self.kernel.element(TABLE, &set, &key)? {
                None => Made::Added,
                Some(known) if !outlasts(ban.lasts, known.expires_in) => Made::Kept,
                Some(_) => Made::Extended,
            };
            match outcome {
                Made::Added => transaction.ops.push(add),
                Made::Kept => {}
                // The first makes sure that there is one to delete: it may expire until then.
                Made::Extended => transaction.ops.extend([
                    add.clone(),
                    Op::DeleteElements { set, keys: vec![key] },
                    add,
                ]),
            }
            made.push((*target, outcome));
        }
        self.kernel.commit(&transaction, None)?;
        Ok(made)
    }

    /// Tries; if a set or the whole table has gone since it was last seen, makes it and tries once
    /// more.
    fn retry<T>(
        &mut self,
        lengths: &BTreeSet<Length>,
        mut attempt: impl FnMut(&mut Bans) -> Result<T, Error>,
    ) -> Result<T, Error> {
        if !lengths.is_subset(&self.lengths) {
            self.prepare(lengths)?;
        }
        match attempt(self) {
            Err(Error::Kernel(error)) if is_absent(&error) => {
                self.prepare(lengths)?;
                attempt(self)
            }
            result => result,
        }
    }

    /// Makes what is missing of the table: all of it, or sets and rules for these lengths.
    fn prepare(&mut self, lengths: &BTreeSet<Length>) -> Result<(), Error> {
        let ours =
            Table { name: TABLE.to_owned(), comment: Some(MARK.to_owned()), ..Table::default() };
        for _ in 0..ATTEMPTS {
            let generation = self.kernel.generation()?;
            let mut transaction = match nfguard_netlink::own_head(&mut self.kernel, &ours)? {
                Some(_) => Transaction::new(TABLE),
                None => diff(None, &layout::empty_table()),
            };
            for set in layout::spared(&self.never) {
                if self.kernel.elements(TABLE, &set)? != set.elements {
                    transaction.ops.push(Op::FlushElements(set.name.clone()));
                    transaction.ops.push(Op::AddElements { set: set.name, elements: set.elements });
                }
            }
            let present = self.lengths_in_kernel()?;
            let missing = lengths.difference(&present);
            transaction.ops.extend(missing.flat_map(|length| length.install()));
            match self.kernel.commit(&transaction, Some(generation)) {
                Err(nfguard_netlink::Error::Interrupted) => {}
                result => {
                    result?;
                    self.lengths = present.union(lengths).copied().collect();
                    return Ok(());
                }
            }
        }
        Err(nfguard_netlink::Error::Interrupted.into())
    }

    fn lengths_in_kernel(&mut self) -> Result<BTreeSet<Length>, Error> {
        let sets = self.kernel.sets(TABLE)?;
        Ok(sets.iter().filter_map(|set| Length::of_set(&set.name)).collect())
    }
}

/// Whether the first goes on for longer than the second.
fn outlasts(first: Option<Duration>, second: Option<Duration>) -> bool {
    match (first, second) {
        (_, None) => false,
        (None, Some(_)) => true,
        (Some(first), Some(second)) => first > second,
    }
}

fn is_absent(error: &nfguard_netlink::Error) -> bool {
    let nfguard_netlink::Error::Refused(refusals) = error else { return false };
    refusals.iter().all(|refusal| refusal.errno == ABSENT)
}

fn active(length: Length, live: LiveElement) -> Option<Active> {
    let target = layout::target(length, &live.element.key)?;
    let comment = live.element.comment.unwrap_or_default();
    let (source, reason, since) = Note::parse(&comment);
    Some(Active { target, expires_in: live.expires_in, source, reason, since })
}
