//! What clients ask for: answered from memory, as far as it is there.

use std::collections::BTreeMap;
use std::time::{Duration, Instant};

use nfguard_api::message::{ListedBan, PROTOCOL_VERSION, PolicyState, Status};
use nfguard_ban::scan;
use nfguard_policy::TABLE;

use super::{Firewall, listed, or_note};

/// Reading the metrics takes at most one part in this many of the time, as far as the times below allow.
const METRICS_REST: u32 = 20;
const MIN_METRICS_REST: Duration = Duration::from_secs(1);
const MAX_METRICS_REST: Duration = Duration::from_secs(10);

impl Firewall {
    /// Returns a page of bans, and where the next page begins. The last page has all bans for scans.
    pub(in crate::guard) fn page(
        &mut self,
        source: Option<&str>,
        after: Option<&str>,
        now: Instant,
    ) -> (Vec<ListedBan>, Option<String>) {
        let (mut bans, next) = self.mirror.page(source, after, now);
        if next.is_none() && source.is_none_or(|source| source == scan::SOURCE) {
            self.see_scans(now);
            bans.extend(self.scan_watch.bans(now));
        }
        (bans.into_iter().map(listed).collect(), next)
    }

    pub(in crate::guard) fn status(&mut self, clients: usize, now: Instant) -> Status {
        self.see_scans(now);
        let bans_by_source = self.bans_by_source(now);
        Status {
            version: PROTOCOL_VERSION,
            nfguard_version: env!("CARGO_PKG_VERSION").to_owned(),
            policy: self.policy.state(),
            file: self.policy.file(),
            repairs: self.metrics.repairs,
            restores: self.metrics.restores,
            loads: self.metrics.loads,
            bans: bans_by_source.values().sum(),
            bans_by_source,
            complete: self.is_complete(),
            clients: u64::try_from(clients).unwrap_or(u64::MAX),
        }
    }

    fn bans_by_source(&self, now: Instant) -> BTreeMap<String, u64> {
        let mut counts = self.mirror.by_source();
        let scans = self.scan_watch.bans(now).count();
        if scans > 0 {
            let scans = u64::try_from(scans).unwrap_or(u64::MAX);
            *counts.entry(scan::SOURCE.to_owned()).or_default() += scans;
        }
        counts
    }

    /// Returns all metrics as OpenMetrics text. To read them all takes some milliseconds, so they may be
    /// a second old.
    pub(in crate::guard) fn metrics_text(&mut self, clients: usize, now: Instant) -> String {
        if let Some((_, text)) = self.metrics_text.as_ref().filter(|(until, _)| now < *until) {
            return text.clone();
        }
        let mut looked = Ok(());
        let policy = or_note(self.policy.counters(), &mut looked);
        let bans = or_note(self.mirror.counters(nfguard_ban::TABLE), &mut looked);
        let feeds = or_note(self.bans.feeds(), &mut looked);
        self.metrics_warning.log("not all metrics can be read", looked);
        self.see_scans(now);
        let counters = [(TABLE, policy), (nfguard_ban::TABLE, bans)];
        let sources = self.bans_by_source(now);
        let is_guarded = matches!(self.policy.state(), PolicyState::Owned | PolicyState::Watched);
        let text = self.metrics.text(&counters, &sources, &feeds, clients, is_guarded);
        let rest = (now.elapsed() * METRICS_REST).clamp(MIN_METRICS_REST, MAX_METRICS_REST);
        self.metrics_text = Some((Instant::now() + rest, text.clone()));
        text
    }
}
