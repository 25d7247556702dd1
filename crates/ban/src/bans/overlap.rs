//! Bans that have an address in common with others.

use std::collections::BTreeSet;

use ipnetwork::IpNetwork;
use nfguard_netlink::{IpVersion, PerIpVersion};

use super::{BanSets, Bans};
use crate::address;
use crate::ban::ActiveBan;
use crate::error::Error;
use crate::layout::Overlap;
use crate::target::Target;

impl Bans {
    /// Returns the bans in force, the kernel's own too, that have an address in common with one of these
    /// networks. Few single addresses are looked up; for others all bans are read, see [`Bans::list`].
    ///
    /// # Errors
    /// The kernel's refusal.
    pub fn overlapping(&mut self, networks: &[IpNetwork]) -> Result<Vec<ActiveBan>, Error> {
        if networks.is_empty() {
            return Ok(Vec::new());
        }
        let targets: Vec<Target> = networks.iter().map(|network| (*network).into()).collect();
        let ranges = PerIpVersion::from_fn(|version| {
            let networks = targets.iter().map(|target| target.network());
            let of_version = networks.filter(|network| IpVersion::of(network.ip()) == version);
            address::merged(of_version.map(address::range_of))
        });
        let is_meant = |ban: &ActiveBan| {
            let network = ban.target.network();
            let of_version = &ranges[IpVersion::of(network.ip())];
            address::overlaps_any(of_version, address::range_of(network))
        };
        let BanSets { sets, .. } = self.retried(Bans::read_ban_sets)?;
        let (mut keys, mut has_many) = (BTreeSet::new(), targets.len() > MAX_LOOKED_UP);
        for (set, target) in sets.iter().flat_map(|set| targets.iter().map(move |it| (set, it))) {
            match set.overlap(*target) {
                Overlap::None => {}
                Overlap::One(key) => {
                    keys.insert(key);
                }
                Overlap::Many => has_many = true,
            }
        }
        let mut found = Vec::new();
        if has_many {
            found = self.list_without_scans()?;
            found.retain(is_meant);
        } else {
            for key in keys {
                found.append(&mut self.owners(&key)?.bans);
            }
        }
        let is_known = |scan: &ActiveBan, found: &[ActiveBan]| {
            found.iter().any(|ban| (ban.target, &ban.source) == (scan.target, &scan.source))
        };
        for scan in self.list_scans()?.into_iter().filter(is_meant) {
            if !is_known(&scan, &found) {
                found.push(scan);
            }
        }
        Ok(found)
    }
}

/// Most targets that are looked up one by one.
const MAX_LOOKED_UP: usize = 256;
