//! What the ban table is told of a policy.

use ipnetwork::IpNetwork;
use nfguard_ban::{Bans, NeverBan, NeverBanKind, Outgoing};
use nfguard_policy::Policy;

use crate::context::Context;
use crate::{Error, persistence};

/// Returns the addresses that are never banned, as far as this host tells.
///
/// # Errors
/// If this host cannot be asked.
pub fn never() -> Result<NeverBan, Error> {
    NeverBan::of_this_host().map_err(|error| Error::Kernel(error.into()))
}

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
            outgoing: if policy.ban_outgoing() { Outgoing::Drop } else { Outgoing::Pass },
            bans_scans: policy.bans_scans(),
        }
    }

    /// Tells the ban table. A host without bans gets no table for a policy that says nothing and
    /// bans nothing, unless an operator is logged in by SSH: no other program is to ban the peer.
    pub(crate) fn tell(self, bans: &mut Option<Bans>, context: &Context) -> Result<(), Error> {
        let BanRules::Set { never_ban, outgoing, bans_scans } = self else { return Ok(()) };
        let bans = match bans {
            Some(bans) => bans,
            None if never_ban.is_empty()
                && outgoing == Outgoing::Pass
                && !bans_scans
                && !context.has_login() =>
            {
                return Ok(());
            }
            none => none.insert(persistence::open(context)?),
        };
        bans.replace_never_ban(&NeverBanKind::Policy, never_ban)?;
        Ok(bans.set_outgoing(outgoing)?)
    }
}
