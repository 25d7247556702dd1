//! Any bytes are a list, an entry of a list or an error, and the texts of a ban are values or errors.

use std::time::{Duration, SystemTime};

use nfguard_ban::{Addresses, Port};
use nfguard_control::ban_text;
use nfguard_control::lists::{self, Options};

/// Reads one list. It must not panic.
pub(crate) fn run(bytes: &[u8]) {
    let now = SystemTime::UNIX_EPOCH + Duration::from_secs(1_800_000_000);
    for (column, set) in [(None, None), (Some("2"), None), (Some("ip"), Some("a"))] {
        let _ = lists::read(bytes, &Options { column, set, now }, &mut |_, entry| {
            if let Ok(entry) = entry {
                let _ = ban_text::may_be_banned_as(entry.addresses, 64);
            }
        });
    }
    let Ok(text) = str::from_utf8(bytes) else { return };
    for word in text.split_whitespace().take(64) {
        let _ = (word.parse::<Addresses>().is_ok(), word.parse::<Port>().is_ok());
        let _ = (ban_text::parse_ports(word), ban_text::parse_duration(word));
        let _ = ban_text::parse_end(word, now);
    }
}
