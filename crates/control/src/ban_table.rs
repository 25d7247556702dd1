//! What the ban table is told of a policy.

use ipnetwork::IpNetwork;
use nfguard_ban::{Bans, NeverBanKind, Outgoing};
use nfguard_policy::Policy;

use crate::context::Context;
use crate::voided_bans::{spare, voided_text};
use crate::{Error, persistence};

/// Puts the peer of the SSH session on the never-ban list. Nothing is done without one.
///
/// # Errors
/// If the bans cannot be opened.
pub fn note_login(context: &Context) -> Result<(), Error> {
    if context.has_login() {
        persistence::open(context)?;
    }
    Ok(())
}

/// What a policy says of bans.
#[derive(Clone, Copy, Debug)]
pub enum BanRules<'p> {
    /// It is as it was.
    Unchanged,
    /// This is what holds from now on.
    Set {
        /// The policy's never-ban entries.
        never_ban: &'p [IpNetwork],
        /// What may be banned although it is behind this host.
        may_ban: &'p [IpNetwork],
        /// What becomes of packets to the banned.
        outgoing: Outgoing,
        /// Whether there has to be a ban table: rules of the policy ban by themselves.
        bans_scans: bool,
    },
}

impl<'p> BanRules<'p> {
    /// Returns what this policy says.
    pub fn of(policy: &'p Policy) -> BanRules<'p> {
        BanRules::Set {
            never_ban: policy.never_ban(),
            may_ban: policy.may_ban(),
            outgoing: if policy.ban_outgoing() { Outgoing::Drop } else { Outgoing::Pass },
            bans_scans: policy.bans_scans(),
        }
    }

    /// Tells the ban table. A host without bans gets no table for a policy that says nothing and
    /// bans nothing, unless an operator is logged in by SSH: no other program is to ban the peer.
    pub(crate) fn tell(self, bans: &mut Option<Bans>, context: &Context) -> Result<(), Error> {
        let BanRules::Set { never_ban, may_ban, outgoing, bans_scans } = self else {
            return Ok(());
        };
        let bans = match bans {
            Some(bans) => bans,
            None if never_ban.is_empty()
                && may_ban.is_empty()
                && outgoing == Outgoing::Pass
                && !bans_scans
                && !context.has_login() =>
            {
                return Ok(());
            }
            none => none.insert(persistence::open(context)?),
        };
        let voided = spare(bans, |bans| {
            bans.replace_never_ban(&NeverBanKind::Policy, never_ban)?;
            bans.replace_may_ban(may_ban)
        })?;
        voided_text(&voided).iter().for_each(|text| (context.warn)(text));
        Ok(bans.set_outgoing(outgoing)?)
    }
}
