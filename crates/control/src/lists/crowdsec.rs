//! Decisions of CrowdSec, whether they come in a table or in JSON.

use nfguard_ban::Addresses;

use super::{At, Details, Reader, cut};

/// A decision of CrowdSec.
pub(super) struct Decision<'a> {
    /// `Ip:192.0.2.1`, `Range:192.0.2.0/24`, or another scope; without one, it is an address.
    pub(super) target: &'a str,
    /// Empty: a ban.
    pub(super) action: &'a str,
    /// The time that is left, as Go writes it.
    pub(super) left: &'a str,
    pub(super) reason: &'a str,
    pub(super) is_simulated: bool,
}

impl Decision<'_> {
    pub(super) fn read(&self, reader: &mut Reader<'_>, at: At) {
        let is_word = |scope: &str| scope.bytes().all(|byte| byte.is_ascii_alphabetic());
        // The colons of an IPv6 address are none of a scope.
        let is_address = self.target.parse::<Addresses>().is_ok();
        let scoped = self.target.split_once(':').filter(|(scope, _)| is_word(scope) && !is_address);
        let (scope, value) = scoped.unwrap_or(("ip", self.target));
        if self.is_simulated {
            return reader.leave_out("simulated decisions");
        }
        if !["", "ban"].contains(&self.action) {
            return reader.leave_out("decisions other than bans");
        }
        if !["ip", "range"].contains(&scope.to_ascii_lowercase().as_str()) {
            return reader.leave_out("decisions about no addresses");
        }
        let Some(left) = go_milliseconds(self.left) else {
            return reader.bad(
                at,
                format!("{:?} is no time that is left; expected 3h59m30s", cut(self.left)),
            );
        };
        let details = Details {
            source: Some("crowdsec".to_owned()),
            reason: Some(self.reason.to_owned()),
            ..Details::default()
        };
        reader.timed(at, value, Some(left), details);
    }
}

/// Reads a time as Go writes it, `3h59m45.100387557s`, in milliseconds. It may be negative.
fn go_milliseconds(text: &str) -> Option<i128> {
    let (sign, mut rest) = match text.strip_prefix('-') {
        Some(rest) => (-1, rest),
        None => (1, text),
    };
    let mut all = 0.0;
    if rest.is_empty() {
        return None;
    }
    while !rest.is_empty() {
        let end = rest.find(|it: char| !it.is_ascii_digit() && it != '.')?;
        let (number, after) = rest.split_at(end);
        let units = [
            ("ms", 1.0),
            ("µs", 1e-3),
            ("us", 1e-3),
            ("ns", 1e-6),
            ("h", 3.6e6),
            ("m", 6e4),
            ("s", 1e3),
        ];
        let (unit, milliseconds) = units.into_iter().find(|(unit, _)| after.starts_with(unit))?;
        all += number.parse::<f64>().ok()? * milliseconds;
        rest = after.strip_prefix(unit)?;
    }
    // A ban that has less than a millisecond left is over.
    Some(sign * all as i128)
}
