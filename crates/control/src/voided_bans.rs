//! Bans in force that do nothing any more, because an address of theirs came onto the never-ban list.

use std::collections::BTreeSet;

use ipnetwork::IpNetwork;
use nfguard_ban::{ActiveBan, Bans};

/// Changes the never-ban list, and returns the bans in force that have an address of a new entry: for
/// that address they do nothing from then on.
///
/// # Errors
/// If the list cannot be changed, or the bans cannot be read.
pub fn spare(
    bans: &mut Bans,
    change: impl FnOnce(&mut Bans) -> Result<(), nfguard_ban::Error>,
) -> Result<Vec<ActiveBan>, nfguard_ban::Error> {
    let networks = |bans: &Bans| -> BTreeSet<IpNetwork> {
        bans.never_ban().entries().iter().map(|entry| entry.network).collect()
    };
    let before = networks(bans);
    change(bans)?;
    let new: Vec<IpNetwork> = networks(bans).difference(&before).copied().collect();
    bans.overlapping(&new)
}

/// Returns in words which bans do nothing any more; `None` without any.
pub fn voided_text(voided: &[ActiveBan]) -> Option<String> {
    let shown: Vec<String> = voided.iter().take(MAX_NAMED).map(ban_name).collect();
    let more = if voided.len() > MAX_NAMED { ", …" } else { "" };
    let count = match voided.len() {
        0 => return None,
        1 => "1 ban in force lets".to_owned(),
        count => format!("{count} bans in force let"),
    };
    let shown = shown.join(", ");
    Some(format!("{count} pass from now on what is never banned: {shown}{more}"))
}

fn ban_name(ban: &ActiveBan) -> String {
    let port = ban.port.map_or(String::new(), |port| format!(" port {port}"));
    format!("{}{port} ({})", ban.target, ban.source)
}

/// Most bans that a warning names.
const MAX_NAMED: usize = 5;
