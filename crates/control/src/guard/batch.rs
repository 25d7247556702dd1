//! A request with many bans, carried out part by part.

use std::vec;

use nfguard_api::message::{
    BanKey, BatchCounts, ErrorCode, MAX_BATCH, NewBan, RefusedEntry, Response, Time,
};
use nfguard_ban::{BanCounts, NeverBan, ReplacedBans};

use super::ban_input::{CheckedBan, Refusal, limit_source, parse_key, shortened};
use super::firewall::Firewall;

/// Bans that are made in one turn. The last entry of a turn may make some more.
const BANS_PER_TURN: usize = 1000;
/// Bans that are ended in one turn: each is a transaction of its own. The last entry of a turn may end
/// some more.
const UNBANS_PER_TURN: usize = 200;

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
        checked: Vec<CheckedBan>,
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
        let checked = Vec::with_capacity(bans.len());
        Ok(Batch::new(Work::Replace { source, bans: bans.into_iter(), defaults, checked }))
    }

    pub(super) fn unban(unbans: Vec<BanKey>, source: Option<String>) -> Result<Batch, Refusal> {
        limit(unbans.len())?;
        source.as_deref().map_or(Ok(()), limit_source)?;
        Ok(Batch::new(Work::Unban { keys: unbans.into_iter(), source }))
    }

    fn new(work: Work) -> Batch {
        Batch { work, next: 0, counts: BatchCounts::default(), refused: Vec::new(), made: 0 }
    }

    /// Carries out the next part. Returns the answer once nothing is left to do.
    pub(super) fn run_part(&mut self, firewall: &mut Firewall) -> Option<Response> {
        let done = match &mut self.work {
            Work::Ban { .. } => self.ban_part(firewall),
            Work::Replace { .. } => self.replace_part(firewall),
            Work::Unban { .. } => self.unban_part(firewall),
        };
        match done {
            Ok(false) => None,
            Ok(true) => Some(self.response(Response::done())),
            Err(Refusal { code, message }) => Some(self.response(Response::refused(code, message))),
        }
    }

    fn response(&mut self, response: Response) -> Response {
        let refused = std::mem::take(&mut self.refused);
        Response { counts: Some(self.counts), refused, ..response }
    }

    fn ban_part(&mut self, firewall: &mut Firewall) -> Result<bool, Refusal> {
        let (checked, is_last) = self.check_part(firewall.never_ban())?;
        let counts = firewall.ban(&checked)?;
        self.count(counts);
        Ok(is_last)
    }

    fn replace_part(&mut self, firewall: &mut Firewall) -> Result<bool, Refusal> {
        let (new, is_last) = self.check_part(firewall.never_ban())?;
        let Work::Replace { source, checked, .. } = &mut self.work else { return Ok(true) };
        checked.extend(new);
        if !is_last {
            return Ok(false);
        }
        let is_bad =
            |entry: &&RefusedEntry| matches!(entry.code, ErrorCode::BadInput | ErrorCode::TooLong);
        if let Some(RefusedEntry { index, error, code, .. }) = self.refused.iter().find(is_bad) {
            let message = format!("entry {index}: {error}; nothing was changed");
            return Err(Refusal { code: *code, message });
        }
        let ReplacedBans { counts, ended } = firewall.replace(source, checked)?;
        self.count(counts);
        self.counts.ended = ended;
        Ok(true)
    }

    fn unban_part(&mut self, firewall: &mut Firewall) -> Result<bool, Refusal> {
        let Work::Unban { keys, source } = &mut self.work else { return Ok(true) };
        let mut work = 0;
        while work < UNBANS_PER_TURN
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
            Work::Unban { .. } => return Ok((Vec::new(), true)),
        };
        let (mut all, mut work) = (Vec::new(), 0);
        while work < BANS_PER_TURN
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
