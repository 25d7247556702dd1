//! The never-ban list, which the guard keeps up to date.

use std::collections::HashSet;
use std::time::Instant;

use nfguard_ban::{Bans, Moment, NeverBan};
use nfguard_host::{HostFacts, SshSession};
use nfguard_netlink::Error;

use super::{Firewall, NEVER_BAN_INTERVAL, or_note};

impl Firewall {
    pub(in crate::guard) fn is_never_ban_due(&self, now: Instant) -> bool {
        now >= self.next_never_ban
    }

    /// Reads the never-ban list, and writes it into both tables.
    pub(in crate::guard) fn refresh_never_ban(&mut self, now: Instant) {
        self.next_never_ban = now + NEVER_BAN_INTERVAL;
        // A table that was removed on purpose is not to come back for this.
        let mut looked = Ok(());
        let logins = or_note(self.logins.aged(now), &mut looked);
        self.logins_warning.log("not all SSH logins are known", looked);
        let (session, today) = (SshSession::of_this_process().ok().flatten(), Moment::now());
        let facts = HostFacts::read().map_err(|error| Error::Io(error).into());
        let opened = facts.and_then(|facts| {
            let never = NeverBan::of_host(&facts, session.as_ref());
            let never =
                logins.into_iter().fold(never, |never, peer| never.with_ssh_peer(peer, today));
            Bans::open_existing(never)
        });
        let written = opened.and_then(|bans| {
            if let Some(mut bans) = bans {
                bans.refresh_never_ban()?;
                self.bans = bans;
            }
            self.policy.write_never_ban(self.bans.never_ban())
        });
        // While the lease is held, the table has another owner.
        if self.lease.is_none() {
            self.never_ban_warning.log("the never-ban list cannot be read or written", written);
        }
    }

    /// Puts the peers of logins that are new on the never-ban list, before a client bans.
    pub(in crate::guard) fn see_logins(&mut self, now: Instant) -> Result<(), nfguard_ban::Error> {
        let today = Moment::now();
        let peers = self.logins.recorded(now).into_iter();
        let all = peers.fold(NeverBan::default(), |all, peer| all.with_ssh_peer(peer, today));
        let known: HashSet<_> =
            self.never_ban().entries().iter().map(|entry| entry.network).collect();
        let new = all.entries().iter().filter(|entry| !known.contains(&entry.network)).cloned();
        self.bans.add_never_ban(new.collect::<Vec<_>>())
    }

    /// Returns the never-ban list.
    pub(in crate::guard) fn never_ban(&self) -> &NeverBan {
        self.bans.never_ban()
    }
}
