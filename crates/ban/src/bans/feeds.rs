//! Feeds in the kernel: long lists that change as a whole.
//!
//! A feed is one interval set for each IP version. A new list is built aside, in as many
//! transactions as it takes, and then replaces the old one in a single transaction.

use std::collections::BTreeMap;

use nfguard_netlink::{
    Chain, Counter, Counts, Expr, IpVersion, Op, PerIpVersion, Rule, Set, Transaction,
};

use super::{Bans, now};
use crate::error::{Error, errno, is_refused_with};
use crate::feed::CleanFeed;
use crate::layout::{self, TABLE};
use crate::table_state::TableState;

/// Most bytes of one transaction, as for bans; and of one range in it.
const MAX_TRANSACTION_BYTES: usize = 400_000;
const MAX_RANGE_BYTES: usize = 64;

/// A feed in force.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ActiveFeed {
    /// The feed's name.
    pub name: String,
    /// How many ranges of addresses it has.
    pub ranges: u64,
    /// How many IPv4 addresses it has; `None` if that is not known.
    pub v4_addresses: Option<u64>,
    /// When the list was put in, in seconds since 1970; `None` if that is not known.
    pub created_at: Option<u64>,
    /// What it has dropped since a list of the name was first put in.
    pub dropped: Counts,
}

/// A feed's set: `feed/NAME/v4/3`, the third list of that name.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
struct FeedSet {
    name: String,
    version: IpVersion,
    edition: u32,
}

impl Bans {
    /// Makes this the feed of a name: packets from all of its addresses are dropped, as long as the
    /// feed exists. An older list of the name goes in the very moment in which the new one comes.
    ///
    /// # Errors
    /// [`Error::InvalidFeedName`], [`Error::FeedInUse`], or the kernel's refusal. The old list holds
    /// then.
    pub fn set_feed(&mut self, name: &str, feed: &CleanFeed) -> Result<(), Error> {
        if !is_name(name) {
            return Err(Error::InvalidFeedName { name: name.to_owned() });
        }
        let sets = self.build(name, feed)?;
        self.swap(name, Some(&sets))
    }

    /// Removes a feed; `false` if there is none of that name.
    ///
    /// # Errors
    /// The kernel's refusal.
    pub fn remove_feed(&mut self, name: &str) -> Result<bool, Error> {
        let sets = self.retried(|bans| Ok(feed_sets(&bans.nft.sets(TABLE)?)))?;
        let exists = sets.iter().any(|set| set.name == name);
        if exists {
            self.swap(name, None)?;
        }
        Ok(exists)
    }

    /// Returns the feeds in force, by name.
    ///
    /// # Errors
    /// The kernel's refusal.
    pub fn feeds(&mut self) -> Result<Vec<ActiveFeed>, Error> {
        self.retried(Bans::read_feeds)
    }

    fn read_feeds(&mut self) -> Result<Vec<ActiveFeed>, Error> {
        let mut in_force = Vec::new();
        for version in IpVersion::ALL {
            let rules = self.nft.rules(TABLE, layout::feed_chain(version))?;
            in_force.extend(rules.iter().filter_map(looked_up));
        }
        let counters: BTreeMap<String, Counts> = self
            .nft
            .counters(TABLE)?
            .into_iter()
            .map(|(counter, counts)| (counter.name, counts))
            .collect();
        let mut feeds: BTreeMap<String, ActiveFeed> = BTreeMap::new();
        for set in self.nft.sets(TABLE)? {
            let Some(feed_set) = FeedSet::from_name(&set.name) else { continue };
            if !in_force.contains(&feed_set) {
                continue;
            }
            let (name, version) = (feed_set.name, feed_set.version);
            let comment = set.comment.as_deref().unwrap_or_default();
            let (ranges, created_at, addresses) = parse_comment(comment);
            let feed = feeds.entry(name.clone()).or_insert_with(|| ActiveFeed {
                ranges: 0,
                v4_addresses: None,
                created_at,
                dropped: counters.get(&counter(&name)).copied().unwrap_or_default(),
                name,
            });
            feed.ranges += ranges;
            if version == IpVersion::V4 {
                feed.v4_addresses = addresses;
            }
        }
        Ok(feeds.into_values().collect())
    }

    /// Fills new sets that no rule looks at yet.
    fn build(&mut self, name: &str, feed: &CleanFeed) -> Result<PerIpVersion<FeedSet>, Error> {
        self.complete(&Default::default())?;
        let sets = self.make_sets(name, feed)?;
        for (version, set) in sets.iter() {
            for part in feed.ranges_of(version).chunks(MAX_TRANSACTION_BYTES / MAX_RANGE_BYTES) {
                let elements =
                    part.iter().map(|range| layout::range_element(version, *range)).collect();
                let op = Op::AddElements { set: set.to_string(), elements };
                let transaction = Transaction { table: TABLE.to_owned(), ops: vec![op] };
                let outcome = self.nft.commit(&transaction, None);
                // Another import of the name took the set for a leftover.
                if is_refused_with(&outcome, errno::ENOENT) {
                    return Err(Error::FeedInUse { name: name.to_owned() });
                }
                outcome?;
            }
        }
        Ok(sets)
    }

    /// Makes new sets, and removes what a killed import has left behind.
    fn make_sets(&mut self, name: &str, feed: &CleanFeed) -> Result<PerIpVersion<FeedSet>, Error> {
        self.retried(|bans| {
            let generation = bans.nft.generation()?;
            let state = TableState::read(&mut bans.nft)?;
            let of_name: Vec<FeedSet> =
                feed_sets(&state.sets).into_iter().filter(|set| set.name == name).collect();
            let in_force = in_force(&state);
            let edition = of_name.iter().map(|set| set.edition).max().unwrap_or_default() + 1;
            let sets = PerIpVersion::from_fn(|version| FeedSet {
                name: name.to_owned(),
                version,
                edition,
            });

            let mut transaction = Transaction::new(TABLE);
            let leftover = of_name.into_iter().filter(|set| !in_force.contains(set));
            transaction.ops.extend(leftover.map(|set| Op::DeleteSet(set.to_string())));
            for (version, set) in sets.iter() {
                let (ranges, addresses) = (feed.ranges_of(version).len(), feed.addresses(version));
                let comment = format!("{ranges} ranges @{} {addresses} addresses", now());
                let set = layout::feed_set(version, set.to_string(), comment);
                transaction.ops.push(Op::AddSet(set));
            }
            bans.nft.commit(&transaction, Some(generation))?;
            Ok(sets)
        })
    }

    /// Has the rules look at these sets for the name, or at none, and removes the name's other sets.
    fn swap(&mut self, name: &str, sets: Option<&PerIpVersion<FeedSet>>) -> Result<(), Error> {
        self.retried(|bans| {
            let generation = bans.nft.generation()?;
            let state = TableState::read(&mut bans.nft)?;
            let present = feed_sets(&state.sets);
            let new: Vec<FeedSet> =
                sets.iter().flat_map(|sets| sets.iter()).map(|(_, set)| set.clone()).collect();
            if !new.iter().all(|set| present.contains(set)) {
                return Err(Error::FeedInUse { name: name.to_owned() });
            }
            let mut in_force = in_force(&state);
            in_force.retain(|set| set.name != name);
            in_force.extend_from_slice(&new);
            in_force.sort();

            let mut transaction = Transaction::new(TABLE);
            // A killed import may have left no counter that could be deleted.
            let counted = Counter { name: counter(name), comment: None };
            transaction.ops.push(Op::AddCounter(counted));
            for version in IpVersion::ALL {
                transaction.ops.extend(chain_of_feeds(version, &in_force));
            }
            let mut layout = state.layout();
            layout.has_feeds =
                PerIpVersion::from_fn(|version| in_force.iter().any(|set| set.version == version));
            transaction.ops.extend(state.rewritten(&layout));
            let old = present.into_iter().filter(|set| set.name == name && !new.contains(set));
            transaction.ops.extend(old.map(|set| Op::DeleteSet(set.to_string())));
            if sets.is_none() {
                transaction.ops.push(Op::DeleteCounter(counter(name)));
            }
            Ok(bans.nft.commit(&transaction, Some(generation))?)
        })
    }
}

/// Returns all sets of feeds, also those that no rule looks at.
fn feed_sets(sets: &[Set]) -> Vec<FeedSet> {
    sets.iter().filter_map(|set| FeedSet::from_name(&set.name)).collect()
}

/// Returns the sets that rules look at.
fn in_force(state: &TableState) -> Vec<FeedSet> {
    let rules = IpVersion::ALL.into_iter().flat_map(|it| state.rules(layout::feed_chain(it)));
    rules.filter_map(looked_up).collect()
}

impl FeedSet {
    fn from_name(name: &str) -> Option<FeedSet> {
        let (rest, edition) = name.strip_prefix("feed/")?.rsplit_once('/')?;
        let (name, suffix) = rest.rsplit_once('/')?;
        let version = IpVersion::ALL.into_iter().find(|version| version.suffix() == suffix)?;
        Some(FeedSet { name: name.to_owned(), version, edition: edition.parse().ok()? })
    }
}

impl std::fmt::Display for FeedSet {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "feed/{}/{}/{}", self.name, self.version.suffix(), self.edition)
    }
}

/// Plans the chain of feeds of one IP version. A host that never had a feed has no such chain.
fn chain_of_feeds(version: IpVersion, feeds: &[FeedSet]) -> Vec<Op> {
    let chain = layout::feed_chain(version).to_owned();
    let mut ops = vec![
        Op::AddChain(Chain { name: chain.clone(), ..Chain::default() }),
        Op::FlushChain(chain.clone()),
    ];
    for set in feeds.iter().filter(|set| set.version == version) {
        let rule = layout::feed_rule(version, &set.to_string(), &counter(&set.name));
        ops.push(Op::AddRule { chain: chain.clone(), rule });
    }
    ops
}

fn looked_up(rule: &Rule) -> Option<FeedSet> {
    rule.exprs.iter().find_map(|expr| match expr {
        Expr::Lookup { set, inverted: false, .. } => FeedSet::from_name(set),
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

/// Parses the comment of a feed's set: how many ranges, when, and how many addresses.
fn parse_comment(comment: &str) -> (u64, Option<u64>, Option<u64>) {
    let (ranges, rest) = comment.split_once(" ranges @").unwrap_or_default();
    let mut words = rest.split(' ');
    let mut number = || words.next().and_then(|word| word.parse().ok());
    (ranges.parse().unwrap_or_default(), number(), number())
}
