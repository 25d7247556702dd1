//! Feeds in the kernel: long lists that change as a whole.
//!
//! A feed is one interval set for each family. A new list is built aside, in as many transactions
//! as it takes, and then put in the place of the old one in a single transaction.

use std::collections::BTreeMap;

use nfguard_netlink::{Chain, Counter, Counts, Expr, Op, Rule, Transaction};

use crate::bans::{Bans, now};
use crate::error::{Error, errno, refused};
use crate::feed::Cleaned;
use crate::layout::{self, FAMILIES, TABLE};

/// Bytes of one transaction, as for bans; and of one range in it, at most.
const AT_ONCE: usize = 400_000;
const RANGE_BYTES: usize = 64;

/// A feed in force.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ActiveFeed {
    /// Its name.
    pub name: String,
    /// How many ranges of addresses it has.
    pub ranges: u64,
    /// When it was put in, in seconds since 1970; `None` if that is not known.
    pub since: Option<u64>,
    /// What it has dropped since it was first put in.
    pub dropped: Counts,
}

/// A feed's set: `feed/NAME/v4/3`, the third list of that name.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
struct FeedSet {
    name: String,
    is_v6: bool,
    edition: u32,
}

impl Bans {
    /// Makes this the feed of that name: everyone in it is dropped, as long as it is there. An
    /// older list of the name goes in the very moment in which the new one comes.
    ///
    /// # Errors
    /// The old list holds then. [`Error::FeedName`], [`Error::EmptyFeed`], [`Error::FeedInUse`], or
    /// the kernel's refusal.
    pub fn set_feed(&mut self, name: &str, feed: &Cleaned) -> Result<(), Error> {
        if !is_name(name) {
            return Err(Error::FeedName { name: name.to_owned() });
        }
        if feed.ranges() == 0 {
            return Err(Error::EmptyFeed { name: name.to_owned() });
        }
        let sets = self.build(name, feed)?;
        self.swap(name, Some(&sets))
    }

    /// Ends a feed; `false` if there is none of that name.
    ///
    /// # Errors
    /// The kernel's refusal.
    pub fn remove_feed(&mut self, name: &str) -> Result<bool, Error> {
        let sets = self.undisturbed(Bans::feed_sets)?;
        let is_there = sets.iter().any(|set| set.name == name);
        if is_there {
            self.swap(name, None)?;
        }
        Ok(is_there)
    }

    /// The feeds in force, by name.
    ///
    /// # Errors
    /// The kernel's refusal.
    pub fn feeds(&mut self) -> Result<Vec<ActiveFeed>, Error> {
        self.undisturbed(Bans::read_feeds)
    }

    fn read_feeds(&mut self) -> Result<Vec<ActiveFeed>, Error> {
        let in_force = self.feeds_in_force()?;
        let counters: BTreeMap<String, Counts> = self
            .kernel
            .counters(TABLE)?
            .into_iter()
            .map(|(counter, counts)| (counter.name, counts))
            .collect();
        let mut feeds: BTreeMap<String, ActiveFeed> = BTreeMap::new();
        for set in self.kernel.sets(TABLE)? {
            let Some(FeedSet { name, .. }) = FeedSet::named(&set.name) else { continue };
            if !in_force.iter().any(|used| used.to_string() == set.name) {
                continue;
            }
            let (ranges, since) = parse_note(set.comment.as_deref().unwrap_or_default());
            let feed = feeds.entry(name.clone()).or_insert_with(|| ActiveFeed {
                ranges: 0,
                since,
                dropped: counters.get(&counter(&name)).copied().unwrap_or_default(),
                name,
            });
            feed.ranges += ranges;
        }
        Ok(feeds.into_values().collect())
    }

    /// Fills new sets that no rule looks at yet.
    fn build(&mut self, name: &str, feed: &Cleaned) -> Result<[FeedSet; 2], Error> {
        self.prepare(&Default::default())?;
        let sets = self.begin(name, feed)?;
        for (set, spans) in sets.iter().zip(&feed.spans) {
            for part in spans.chunks(AT_ONCE / RANGE_BYTES) {
                let elements =
                    part.iter().map(|span| layout::feed_element(set.is_v6, *span)).collect();
                let op = Op::AddElements { set: set.to_string(), elements };
                let outcome = self
                    .kernel
                    .commit(&Transaction { table: TABLE.to_owned(), ops: vec![op] }, None);
                // Another import of the name took it for a leftover.
                if refused(&outcome, errno::ENOENT) {
                    return Err(Error::FeedInUse { name: name.to_owned() });
                }
                outcome?;
            }
        }
        Ok(sets)
    }

    /// Makes new sets, and removes what an import left behind that was killed.
    fn begin(&mut self, name: &str, feed: &Cleaned) -> Result<[FeedSet; 2], Error> {
        self.undisturbed(|bans| {
            let generation = bans.kernel.generation()?;
            let of_name: Vec<FeedSet> =
                bans.feed_sets()?.into_iter().filter(|set| set.name == name).collect();
            let in_force = bans.feeds_in_force()?;
            let edition = of_name.iter().map(|set| set.edition).max().unwrap_or_default() + 1;
            let sets = FAMILIES.map(|is_v6| FeedSet { name: name.to_owned(), is_v6, edition });

            let mut transaction = Transaction::new(TABLE);
            let leftover = of_name.into_iter().filter(|set| !in_force.contains(set));
            transaction.ops.extend(leftover.map(|set| Op::DeleteSet(set.to_string())));
            for (set, spans) in sets.iter().zip(&feed.spans) {
                let note = format!("{} ranges @{}", spans.len(), now());
                let set = layout::feed_set(set.is_v6, set.to_string(), note);
                transaction.ops.push(Op::AddSet(set));
            }
            bans.kernel.commit(&transaction, Some(generation))?;
            Ok(sets)
        })
    }

    /// Has the rules look at these sets for the name, or at none, and removes the name's others.
    fn swap(&mut self, name: &str, sets: Option<&[FeedSet; 2]>) -> Result<(), Error> {
        self.undisturbed(|bans| {
            let generation = bans.kernel.generation()?;
            let present = bans.feed_sets()?;
            let new = sets.map_or(&[][..], <[FeedSet; 2]>::as_slice);
            if !new.iter().all(|set| present.contains(set)) {
                return Err(Error::FeedInUse { name: name.to_owned() });
            }
            let mut in_force = bans.feeds_in_force()?;
            in_force.retain(|set| set.name != name);
            in_force.extend_from_slice(new);
            in_force.sort();

            let mut transaction = Transaction::new(TABLE);
            // An import that was killed has left none behind that could be deleted.
            let counted = Counter { name: counter(name), comment: None };
            transaction.ops.push(Op::AddCounter(counted));
            for is_v6 in FAMILIES {
                transaction.ops.extend(rewritten(is_v6, &in_force));
            }
            let mut shape = bans.shape()?;
            shape.has_feeds = FAMILIES.map(|is_v6| in_force.iter().any(|set| set.is_v6 == is_v6));
            transaction.ops.extend(bans.rewritten(&shape)?);
            let old = present.into_iter().filter(|set| set.name == name && !new.contains(set));
            transaction.ops.extend(old.map(|set| Op::DeleteSet(set.to_string())));
            if sets.is_none() {
                transaction.ops.push(Op::DeleteCounter(counter(name)));
            }
            Ok(bans.kernel.commit(&transaction, Some(generation))?)
        })
    }

    /// All sets of feeds, also those that no rule looks at.
    fn feed_sets(&mut self) -> Result<Vec<FeedSet>, Error> {
        let sets = self.kernel.sets(TABLE)?;
        Ok(sets.iter().filter_map(|set| FeedSet::named(&set.name)).collect())
    }

    fn feeds_in_force(&mut self) -> Result<Vec<FeedSet>, Error> {
        let mut sets = Vec::new();
        for is_v6 in FAMILIES {
            let rules = self.kernel.rules(TABLE, layout::feed_chain(is_v6))?;
            sets.extend(rules.iter().filter_map(looked_at));
        }
        Ok(sets)
    }
}

impl FeedSet {
    fn named(name: &str) -> Option<FeedSet> {
        let (rest, edition) = name.strip_prefix("feed/")?.rsplit_once('/')?;
        let (name, family) = rest.rsplit_once('/')?;
        let is_v6 = match family {
            "v4" => false,
            "v6" => true,
            _ => return None,
        };
        Some(FeedSet { name: name.to_owned(), is_v6, edition: edition.parse().ok()? })
    }
}

impl std::fmt::Display for FeedSet {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let family = if self.is_v6 { "v6" } else { "v4" };
        write!(f, "feed/{}/{family}/{}", self.name, self.edition)
    }
}

/// The chain of feeds of one family, anew. A host that never had a feed has none.
fn rewritten(is_v6: bool, feeds: &[FeedSet]) -> Vec<Op> {
    let chain = layout::feed_chain(is_v6).to_owned();
    let mut ops = vec![
        Op::AddChain(Chain { name: chain.clone(), ..Chain::default() }),
        Op::FlushChain(chain.clone()),
    ];
    for set in feeds.iter().filter(|set| set.is_v6 == is_v6) {
        let rule = layout::feed_rule(is_v6, &set.to_string(), &counter(&set.name));
        ops.push(Op::AddRule { chain: chain.clone(), rule });
    }
    ops
}

fn looked_at(rule: &Rule) -> Option<FeedSet> {
    rule.exprs.iter().find_map(|expr| match expr {
        Expr::Lookup { set, inverted: false, .. } => FeedSet::named(set),
        _ => None,
    })
}

fn counter(name: &str) -> String {
    format!("feed/{name}")
}

fn is_name(name: &str) -> bool {
    let is_fit = |byte: u8| byte.is_ascii_alphanumeric() || b"-_.".contains(&byte);
    (1..=32).contains(&name.len()) && name.bytes().all(is_fit)
}

/// What [`Bans::build`] notes of a set: how many ranges, and when.
fn parse_note(comment: &str) -> (u64, Option<u64>) {
    let (ranges, since) = comment.split_once(" ranges @").unwrap_or_default();
    (ranges.parse().unwrap_or_default(), since.parse().ok())
}
