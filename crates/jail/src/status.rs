//! Sets of HTTP statuses.

/// A set of statuses from 0 to 999.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct StatusSet([u64; 16]);

impl StatusSet {
    /// Contains no status.
    pub(crate) const NONE: StatusSet = StatusSet([0; 16]);

    /// Contains every status.
    pub(crate) const ALL: StatusSet = StatusSet([u64::MAX; 16]);

    /// Adds a status.
    pub(crate) fn insert(&mut self, status: u16) {
        if let Some(word) = self.0.get_mut(usize::from(status / 64)) {
            *word |= 1 << (status % 64);
        }
    }

    /// Adds all of another set.
    pub(crate) fn extend(&mut self, other: &StatusSet) {
        for (word, more) in self.0.iter_mut().zip(other.0) {
            *word |= more;
        }
    }

    /// Returns whether the set has a status.
    pub(crate) fn contains(&self, status: u16) -> bool {
        self.0.get(usize::from(status / 64)).is_some_and(|word| word >> (status % 64) & 1 == 1)
    }
}
