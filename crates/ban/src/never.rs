//! Who is never banned.

use ipnetwork::IpNetwork;

use crate::target::Target;

/// Addresses that no ban may touch, and why. Loopback is always among them.
///
/// They are kept safe twice: only an [`Admitted`] target becomes an element of a set, and the
/// kernel's rules spare them even if somebody else puts one into a set.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct NeverBan(Vec<(Target, String)>);

/// A target that has passed a [`NeverBan`].
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Admitted(Target);

/// A target that was refused because it is, contains or belongs to an ally.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("{target} is not banned: it would ban {ally} ({reason}), which is on the never-ban list")]
pub struct Refused {
    /// What was to be banned.
    pub target: Target,
    /// Who would have been hit.
    pub ally: Target,
    /// Why that one is on the list.
    pub reason: String,
}

impl Default for NeverBan {
    fn default() -> NeverBan {
        let loopback = ["127.0.0.0/8", "::1"].into_iter().filter_map(|text| text.parse().ok());
        NeverBan(loopback.map(|target| (target, "loopback".to_owned())).collect())
    }
}

impl NeverBan {
    /// The same list with one more ally.
    #[must_use]
    pub fn and(mut self, ally: Target, reason: &str) -> NeverBan {
        self.0.push((ally, reason.to_owned()));
        self
    }

    /// Lets the target pass unless it has an address in common with an ally.
    ///
    /// # Errors
    /// Names the ally.
    pub fn admit(&self, target: Target) -> Result<Admitted, Refused> {
        match self.0.iter().find(|(ally, _)| ally.overlaps(target)) {
            None => Ok(Admitted(target)),
            Some((ally, reason)) => Err(Refused { target, ally: *ally, reason: reason.clone() }),
        }
    }

    pub(crate) fn networks(&self) -> impl Iterator<Item = IpNetwork> {
        self.0.iter().map(|(ally, _)| ally.network())
    }
}

impl Admitted {
    /// What was admitted.
    #[must_use]
    pub fn target(self) -> Target {
        self.0
    }
}
