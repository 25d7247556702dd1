//! What the ban table is told of a policy.

use nfguard_ban::{Bans, NeverBan, NeverBanKind, Outgoing};
use nfguard_policy::Policy;

use crate::Error;

/// Who is never banned, as far as this process can tell.
///
/// # Errors
/// If this host cannot be asked.
pub fn never() -> Result<NeverBan, Error> {
    NeverBan::of_this_host().map_err(|error| Error::Kernel(error.into()))
}

/// Tells the bans what the policy says of them. A host without bans gets no table for a policy that
/// says nothing and bans nobody.
pub(crate) fn tell_bans(policy: &Policy) -> Result<(), Error> {
    let never = never()?;
    let bans = match policy.never_ban() {
        [] if !policy.ban_outgoing() && !policy.bans_scans() => Bans::open_existing(never)?,
        _ => Some(Bans::open(never)?),
    };
    if let Some(mut bans) = bans {
        bans.replace_never_ban(&NeverBanKind::Policy, policy.never_ban())?;
        let outgoing = if policy.ban_outgoing() { Outgoing::Drop } else { Outgoing::Pass };
        bans.set_outgoing(outgoing)?;
    }
    Ok(())
}
