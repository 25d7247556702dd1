//! A request with many bans, carried out part by part.

use std::collections::{BTreeMap, BTreeSet};
use std::time::{Duration, Instant};
use std::{mem, vec};

use nfguard_api::message::{
    BanKey, BatchCounts, ErrorCode, MAX_BATCH, NewBan, RefusedEntry, Response, Time,
};
use nfguard_ban::{BanCounts, NeverBan, Port, Target};

use super::ban_input::{CheckedBan, Refusal, limit_source, parse_key, shortened};
use super::firewall::Firewall;

/// Most bans that are made or ended in one turn. The last entry of a turn may make some more.
const BANS_PER_TURN: usize = 1000;
/// Bans of the first turn. How long a ban takes depends on what is in force: some a microsecond, some
/// fifty.
const FIRST_BANS: usize = 100;
/// Time that the bans of one turn are to take. If they take longer, the next turn has half as many.
const PART: Duration = Duration::from_millis(2);

/// What a ban of the list has that names none of its own.
pub(super) struct Defaults {
    pub(super) source: Option<String>,
    pub(super) duration: Option<Time>,
    pub(super) until: Option<Time>,
    pub(super) reason: Option<String>,
}

pub(super) struct Batch {
    work: Work,
    /// Index of the next entry.
    next: u64,
    counts: BatchCounts,
    refused: Vec<RefusedEntry>,
    /// How many bans the entries have made so far: an entry may stand for many.
    made: usize,
    /// How many bans are made or ended in the next turn.
    part: usize,
}

enum Work {
    Ban {
        bans: vec::IntoIter<NewBan>,
        defaults: Defaults,
    },
    /// The list is checked as a whole before it takes effect.
    Replace {
        source: String,
        bans: vec::IntoIter<NewBan>,
        defaults: Defaults,
        checked: BTreeMap<(Target, Option<Port>), CheckedBan>,
    },
    /// The list takes effect: first its bans, then what is left of those before.
    Replacing {
        source: String,
        bans: vec::IntoIter<CheckedBan>,
        old: BTreeSet<(Target, Option<Port>)>,
    },
    Unban {
        keys: vec::IntoIter<BanKey>,
        /// Source of the keys that name none.
        source: Option<String>,
    },
}

impl Batch {
    pub(super) fn ban(bans: Vec<NewBan>, defaults: Defaults) -> Result<Batch, Refusal> {
        limit(bans.len())?;
        Ok(Batch::new(Work::Ban { bans: bans.into_iter(), defaults: defaults.limited()? }))
    }

    pub(super) fn replace(
        source: String,
        bans: Vec<NewBan>,
        defaults: Defaults,
    ) -> Result<Batch, Refusal> {
        limit(bans.len())?;
        if source.is_empty() {
            return Err(Refusal::bad_input("expected a source"));
        }
        limit_source(&source)?;
        let defaults = defaults.limited()?;
        let checked = BTreeMap::new();
        Ok(Batch::new(Work::Replace { source, bans: bans.into_iter(), defaults, checked }))
    }

    pub(super) fn unban(unbans: Vec<BanKey>, source: Option<String>) -> Result<Batch, Refusal> {
        limit(unbans.len())?;
        source.as_deref().map_or(Ok(()), limit_source)?;
        Ok(Batch::new(Work::Unban { keys: unbans.into_iter(), source }))
    }

    fn new(work: Work) -> Batch {
        let counts = BatchCounts::default();
        Batch { work, next: 0, counts, refused: Vec::new(), made: 0, part: FIRST_BANS }
    }

    /// Carries out the next part. Returns the answer once nothing is left to do.
    pub(super) fn run_part(&mut self, firewall: &mut Firewall) -> Option<Response> {
        let start = Instant::now();
        let done = match &mut self.work {
            Work::Ban { .. } => self.ban_part(firewall),
            Work::Replace { .. } => self.check_list(firewall),
            Work::Replacing { .. } => self.replace_part(firewall),
            Work::Unban { .. } => self.unban_part(firewall),
        };
        let took = start.elapsed();
        if took > PART {
            self.part = (self.part / 2).max(1);
        } else if took < PART / 4 {
            self.part = (self.part * 2).min(BANS_PER_TURN);
        }
        match done {
            Ok(false) => None,
            Ok(true) => Some(self.response(Response::done())),
            Err(Refusal { code, message }) => Some(self.response(Response::refused(code, message))),
        }
    }

    fn response(&mut self, response: Response) -> Response {
        let refused = mem::take(&mut self.refused);
        Response { counts: Some(self.counts), refused, ..response }
    }

    fn ban_part(&mut self, firewall: &mut Firewall) -> Result<bool, Refusal> {
        let (checked, is_last) = self.check_part(firewall.never_ban())?;
        let counts = firewall.ban(&checked)?;
        self.count(counts);
        Ok(is_last)
    }

    fn check_list(&mut self, firewall: &mut Firewall) -> Result<bool, Refusal> {
        let (new, is_last) = self.check_part(firewall.never_ban())?;
        let Work::Replace { source, checked, .. } = &mut self.work else { return Ok(true) };
        for ban in new {
            // One source: one ban of each target and port, the one that ends later.
            let key = (ban.target.target(), ban.port);
            match checked.get(&key) {
                Some(other) if !ban.outlasts(other) => self.counts.kept += 1,
                other => {
                    self.counts.kept += u64::from(other.is_some());
                    checked.insert(key, ban.of(source));
                }
            }
        }
        // Which bans the source has is known once all are read.
        if !is_last || !firewall.is_complete() {
            return Ok(false);
        }
        let is_bad =
            |entry: &&RefusedEntry| matches!(entry.code, ErrorCode::BadInput | ErrorCode::TooLong);
        if let Some(RefusedEntry { index, error, code, .. }) = self.refused.iter().find(is_bad) {
            let message = format!("entry {index}: {error}; nothing was changed");
            return Err(Refusal { code: *code, message });
        }
        let (source, checked) = (mem::take(source), mem::take(checked));
        let old = firewall.targets_of(&source);
        let bans = checked.into_values().collect::<Vec<_>>().into_iter();
        self.work = Work::Replacing { source, bans, old };
        Ok(false)
    }

    fn replace_part(&mut self, firewall: &mut Firewall) -> Result<bool, Refusal> {
        let Work::Replacing { source, bans, old } = &mut self.work else { return Ok(true) };
        let next = bans.by_ref().take(self.part);
        let (known, new): (Vec<_>, Vec<_>) =
            next.partition(|ban| old.remove(&(ban.target.target(), ban.port)));
        if !known.is_empty() || !new.is_empty() {
            let made = firewall.make(&new)?;
            let renewed = firewall.renew(&known)?;
            self.count(made);
            self.count(renewed);
            return Ok(false);
        }
        let ended: Vec<_> = (0..self.part).map_while(|_| old.pop_first()).collect();
        self.counts.ended += firewall.end(source, &ended)?;
        Ok(old.is_empty())
    }

    fn unban_part(&mut self, firewall: &mut Firewall) -> Result<bool, Refusal> {
        let Work::Unban { keys, source } = &mut self.work else { return Ok(true) };
        let mut work = 0;
        while work < self.part
            && let Some(key) = keys.next()
        {
            let index = self.next;
            self.next += 1;
            let source = key.source.or_else(|| source.clone());
            let key = parse_key(BanKey { source, ..key });
            work += key.as_ref().map_or(1, |bans| bans.count().max(1));
            match key {
                Ok(bans) => match firewall.unban(&bans)? {
                    true => self.counts.ended += 1,
                    false => self.counts.absent += 1,
                },
                Err(refusal) => self.refused.push(refused(index, refusal)),
            }
        }
        firewall.write_down();
        Ok(keys.len() == 0)
    }

    /// Checks the bans of the next entries, and tells whether these are the last. Those that are refused
    /// are noted.
    fn check_part(&mut self, never_ban: &NeverBan) -> Result<(Vec<CheckedBan>, bool), Refusal> {
        let (bans, defaults, only) = match &mut self.work {
            Work::Ban { bans, defaults } => (bans, defaults, None),
            Work::Replace { bans, defaults, source, .. } => (bans, defaults, Some(&*source)),
            Work::Replacing { .. } | Work::Unban { .. } => return Ok((Vec::new(), true)),
        };
        let (mut all, mut work) = (Vec::new(), 0);
        while work < self.part
            && let Some(ban) = bans.next()
        {
            let index = self.next;
            self.next += 1;
            let is_other = |only: &String| ban.source.as_ref().is_some_and(|it| it != only);
            if only.is_some_and(is_other) {
                return Err(Refusal::bad_input("a ban names another source; nothing was changed"));
            }
            let checked = CheckedBan::check(defaults.fill(ban), never_ban);
            work += checked.as_ref().map_or(1, |bans| bans.len().max(1));
            match checked.and_then(|bans| limit(self.made + bans.len()).map(|()| bans)) {
                Ok(bans) => {
                    self.made += bans.len();
                    all.extend(bans);
                }
                Err(refusal) => self.refused.push(refused(index, refusal)),
            }
        }
        Ok((all, bans.len() == 0))
    }

    fn count(&mut self, BanCounts { added, extended, kept }: BanCounts) {
        self.counts.added += added;
        self.counts.extended += extended;
        self.counts.kept += kept;
    }
}

impl Defaults {
    /// Returns them with texts that can be copied for each ban.
    fn limited(self) -> Result<Defaults, Refusal> {
        self.source.as_deref().map_or(Ok(()), limit_source)?;
        Ok(Defaults { reason: self.reason.map(shortened), ..self })
    }

    fn fill(&self, ban: NewBan) -> NewBan {
        let mut ban = ban;
        if ban.duration.is_none() && ban.until.is_none() {
            (ban.duration, ban.until) = (self.duration.clone(), self.until.clone());
        }
        ban.source = ban.source.or_else(|| self.source.clone());
        ban.reason = ban.reason.or_else(|| self.reason.clone());
        ban
    }
}

fn refused(index: u64, Refusal { code, message }: Refusal) -> RefusedEntry {
    RefusedEntry { index, code, error: message }
}

fn limit(count: usize) -> Result<(), Refusal> {
    if count <= MAX_BATCH {
        return Ok(());
    }
    let message = format!("{count} bans; at most {MAX_BATCH} are taken at once");
    Err(Refusal { code: ErrorCode::TooLong, message })
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn bans_are_counted_and_not_the_entries_that_they_come_from() {
        let entry = json!({ "target": "192.0.2.7", "port": "8000-8063" });
        let bans = vec![serde_json::from_value(entry).expect("a ban"); 500];
        let defaults = Defaults { source: None, duration: None, until: None, reason: None };
        let mut batch = Batch::ban(bans, defaults).expect("few entries");
        let (mut all, mut is_last) = (0, false);
        while !is_last {
            let part;
            (part, is_last) = batch.check_part(&NeverBan::default()).expect("checked");
            assert!(part.len() < BANS_PER_TURN + 128, "{}", part.len());
            all += part.len();
        }
        assert_eq!(all, MAX_BATCH / 128 * 128);
        assert_eq!(batch.refused.len(), 500 - MAX_BATCH / 128);
        assert!(batch.refused.iter().all(|entry| entry.code == ErrorCode::TooLong));
    }
}
