//! Text of a ban: its target and its time.

use std::net::IpAddr;
use std::time::Duration;

use nfguard_ban::{Admitted, InvalidTarget, NeverBan, Refused, Target};

/// Who is to be banned, as it is written.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Who {
    /// An address alone: how much of it is one source is said elsewhere.
    Address(IpAddr),
    /// A prefix, of whatever length.
    Prefix(Target),
}

impl Who {
    /// Returns the target of a ban, unless the ban would hit a never-ban entry.
    ///
    /// # Errors
    /// The entry that would be hit.
    pub fn admit(self, never: &NeverBan, v6_prefix: u8) -> Result<Admitted, Refused> {
        match self {
            Who::Address(address) => never.admit_source(address, v6_prefix),
            Who::Prefix(target) => never.admit(target),
        }
    }
}

impl Who {
    /// What [`Who::admit`] may have made of it.
    pub fn may_be_banned_as(self, v6_prefix: u8) -> Vec<Target> {
        let mut targets = match self {
            Who::Address(address) => {
                vec![v6_prefix, 128].into_iter().map(|bits| Target::source(address, bits)).collect()
            }
            Who::Prefix(target) => vec![target],
        };
        targets.dedup();
        targets
    }
}

impl std::str::FromStr for Who {
    type Err = InvalidTarget;

    fn from_str(text: &str) -> Result<Who, InvalidTarget> {
        text.parse().map(Who::Address).or_else(|_| text.parse().map(Who::Prefix))
    }
}

/// Reads how long a ban lasts; `None`: without end. The kernel counts milliseconds, and takes no ban
/// without a length. A number alone is seconds, as Fail2Ban writes them, and a negative one a ban
/// without end.
///
/// # Errors
/// Why it is no such time.
pub fn parse_time(text: &str) -> Result<Option<Duration>, String> {
    let time = match text.parse::<f64>() {
        Ok(seconds) if seconds < 0.0 => return Ok(None),
        Ok(seconds) => Duration::try_from_secs_f64(seconds).map_err(|error| error.to_string())?,
        Err(_) => humantime::parse_duration(text).map_err(|error| error.to_string())?,
    };
    if time < Duration::from_millis(1) {
        return Err("expected at least 1ms; leave it out for a ban without end".to_owned());
    }
    Ok(Some(time))
}
