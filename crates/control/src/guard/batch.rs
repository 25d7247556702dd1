//! A request with many bans, carried out part by part.

use std::vec;

use nfguard_api::message::{
    BanKey, BatchCounts, ErrorCode, MAX_BATCH, NewBan, RefusedEntry, Response, Time,
};
use nfguard_ban::{BanCounts, ReplacedBans};

use super::ban_input::{CheckedBan, Refusal, parse_key};
use super::firewall::Firewall;

/// Bans that are made in one turn.
const BANS_PER_TURN: usize = 1000;
/// Bans that are ended in one turn: each is a transaction of its own.
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
        Ok(Batch::new(Work::Ban { bans: bans.into_iter(), defaults }))
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
        let checked = Vec::with_capacity(bans.len());
        Ok(Batch::new(Work::Replace { source, bans: bans.into_iter(), defaults, checked }))
    }

    pub(super) fn unban(unbans: Vec<BanKey>, source: Option<String>) -> Result<Batch, Refusal> {
        limit(unbans.len())?;
        Ok(Batch::new(Work::Unban { keys: unbans.into_iter(), source }))
    }

    fn new(work: Work) -> Batch {
        Batch { work, next: 0, counts: BatchCounts::default(), refused: Vec::new() }
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
        let Work::Ban { bans, defaults } = &mut self.work else { return Ok(true) };
        let part: Vec<NewBan> = bans.take(BANS_PER_TURN).map(|ban| defaults.fill(ban)).collect();
        let is_last = bans.len() == 0;
        let checked = self.check(part, firewall);
        let counts = firewall.ban(&checked)?;
        self.count(counts);
        Ok(is_last)
    }

    fn replace_part(&mut self, firewall: &mut Firewall) -> Result<bool, Refusal> {
        let Work::Replace { source, bans, defaults, .. } = &mut self.work else { return Ok(true) };
        let part: Vec<NewBan> = bans.take(BANS_PER_TURN).map(|ban| defaults.fill(ban)).collect();
        let is_last = bans.len() == 0;
        let is_other = |ban: &NewBan| ban.source.as_ref().is_some_and(|other| other != source);
        if part.iter().any(is_other) {
            return Err(Refusal::bad_input("a ban names another source; nothing was changed"));
        }
        let new = self.check(part, firewall);
        let Work::Replace { source, checked, .. } = &mut self.work else { return Ok(true) };
        checked.extend(new);
        if !is_last {
            return Ok(false);
        }
        let bad = self.refused.iter().find(|entry| entry.code == ErrorCode::BadInput);
        if let Some(RefusedEntry { index, error, .. }) = bad {
            let message = format!("entry {index}: {error}; nothing was changed");
            return Err(Refusal::bad_input(message));
        }
        let ReplacedBans { counts, ended } = firewall.replace(source, checked)?;
        self.count(counts);
        self.counts.ended = ended;
        Ok(true)
    }

    fn unban_part(&mut self, firewall: &mut Firewall) -> Result<bool, Refusal> {
        let Work::Unban { keys, source } = &mut self.work else { return Ok(true) };
        for key in keys.take(UNBANS_PER_TURN) {
            let index = self.next;
            self.next += 1;
            let source = key.source.or_else(|| source.clone());
            match parse_key(BanKey { source, ..key }) {
                Ok(bans) => match firewall.unban(&bans)? {
                    true => self.counts.ended += 1,
                    false => self.counts.absent += 1,
                },
                Err(refusal) => self.refused.push(refused(index, refusal)),
            }
        }
        Ok(keys.len() == 0)
    }

    /// Checks bans. Those that are refused are noted.
    fn check(&mut self, bans: Vec<NewBan>, firewall: &mut Firewall) -> Vec<CheckedBan> {
        let mut all = Vec::with_capacity(bans.len());
        for ban in bans {
            let index = self.next;
            self.next += 1;
            match CheckedBan::check(ban, firewall.never_ban()) {
                Ok(bans) => all.extend(bans),
                Err(refusal) => self.refused.push(refused(index, refusal)),
            }
        }
        all
    }

    fn count(&mut self, BanCounts { added, extended, kept }: BanCounts) {
        self.counts.added += added;
        self.counts.extended += extended;
        self.counts.kept += kept;
    }
}

impl Defaults {
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

fn limit(entries: usize) -> Result<(), Refusal> {
    if entries <= MAX_BATCH {
        return Ok(());
    }
    let message = format!("{entries} entries; at most {MAX_BATCH} are taken at once");
    Err(Refusal { code: ErrorCode::TooLong, message })
}
