//! Lists bans whose targets are known: the kernel finds a key in no time, and lists a large set in
//! quadratic time.

use std::collections::BTreeMap;
use std::time::Duration;

use super::{BanSets, Bans};
use crate::ban::ActiveBan;
use crate::comment::Sharing;
use crate::element;
use crate::error::Error;
use crate::layout::{Place, SetKey, TABLE};
use crate::plan;
use crate::target::{Port, Target};

/// The kernel may count a ban for this time after its end.
const COUNTED_AFTER_END: Duration = Duration::from_secs(5);

impl Bans {
    /// Returns the number of targets that are banned, one for each port, as the kernel reports it at once;
    /// `None` if it reports none (6.12 does not, 6.18 does). A ban whose time is just over may still be
    /// counted. The kernel's own bans are left out.
    ///
    /// # Errors
    /// The kernel's refusal.
    pub fn reported_count(&mut self) -> Result<Option<u64>, Error> {
        let mut all = 0;
        let BanSets { sets, .. } = self.retried(Bans::read_ban_sets)?;
        for set in sets {
            match self.nft.reported_count(TABLE, &set.name())? {
                Some(count) => all += count,
                None => return Ok(None),
            }
        }
        Ok(Some(all))
    }

    /// Returns the same list as [`Bans::list`] without reading all bans, if `known` has each target and
    /// port that is banned, and in what time its ban ends, as far as that is known: it may have others too.
    /// `None` if it has fewer than `reported`, which is what [`Bans::reported_count`] returned before.
    /// About a microsecond for each.
    ///
    /// # Errors
    /// The kernel's refusal.
    pub fn list_known(
        &mut self,
        reported: u64,
        known: impl IntoIterator<Item = (Target, Option<Port>, Option<Duration>)>,
    ) -> Result<Option<Vec<ActiveBan>>, Error> {
        let mut by_set: BTreeMap<_, BTreeMap<_, bool>> = BTreeMap::new();
        for (target, port, left) in known {
            let SetKey { set, key } = SetKey::of(target, port);
            let ends_now = left.is_some_and(|left| left < COUNTED_AFTER_END);
            *by_set.entry(set).or_default().entry(key).or_default() |= ends_now;
        }
        let (mut all, mut found, mut over) = (Vec::new(), 0, 0);
        for (set, known) in by_set {
            let keys: Vec<Vec<u8>> = known.keys().map(|key| key.to_vec()).collect();
            let elements = self.nft.find_elements(TABLE, &set.name(), &keys)?;
            for ((key, ends_now), element) in known.into_iter().zip(elements) {
                let Some(live) = element else {
                    over += u64::from(ends_now);
                    continue;
                };
                found += 1;
                let sharing = element::sharing(&live);
                let place = Place { rank: 0, key: SetKey { set, key } };
                let Some(ban) = element::read(&place, live) else { continue };
                let others = match sharing {
                    Sharing::Alone => Vec::new(),
                    Sharing::Shared => self.read_ranks(&place.key)?,
                };
                let others = others.into_iter().filter(|other| other.source != ban.source);
                let mut others: Vec<ActiveBan> = others.collect();
                plan::sort(&mut others);
                all.push(ban);
                all.append(&mut others);
            }
        }
        if found + over < reported { Ok(None) } else { self.with_scans(all).map(Some) }
    }
}
