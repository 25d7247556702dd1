//! What is done part by part: bans are read, recorded, and forgotten when their time is over.

use std::time::{Duration, Instant};

use super::Firewall;

/// Pause before bans that cannot be read are read again.
const READ_PAUSE: Duration = Duration::from_secs(1);

impl Firewall {
    /// Returns when [`Firewall::work`] has more to do.
    pub(in crate::guard) fn next_work(&self) -> Option<Instant> {
        self.next_work
    }

    /// Does a part of what takes long.
    pub(in crate::guard) fn work(&mut self, now: Instant) {
        let is_more = self.mirror.expire(now);
        let next_part_at = |firewall: &Firewall| {
            firewall.mirror.next_part_at().map(|at| at.max(firewall.reads_from))
        };
        if next_part_at(self).is_some_and(|at| at <= now) && !self.read_part() {
            self.reads_from = now + READ_PAUSE;
        }
        self.next_work = if is_more { Some(now) } else { next_part_at(self) };
        if let Some(record) = &mut self.record {
            let written = record.write(&mut self.mirror);
            self.record_warning.log("the bans cannot be recorded", written);
        }
    }

    /// Reads a part of the bans; `false` if that fails.
    pub(in crate::guard) fn read_part(&mut self) -> bool {
        let read = self.mirror.read_part();
        let is_read = read.is_ok();
        self.read_warning.log("the bans cannot be read", read);
        is_read
    }

    /// Whether all bans are read.
    pub(in crate::guard) fn is_complete(&self) -> bool {
        self.mirror.is_complete()
    }
}
