//! Lines of any text, with their time at their beginning.

use std::borrow::Cow;

use crate::record::Text;
use crate::time::{Time, Zone, leading};

/// A line with its time.
pub(crate) struct Stamped<'a> {
    pub(crate) text: Text<'a>,
    /// The time has its year from the line or from its envelope.
    pub(crate) has_year: bool,
}

/// Reads a line. `written` is the time that an envelope of the line gives; the line's own time is not
/// looked for then, unless it has one. `known` is a time near which the line was written.
pub(crate) fn read<'a>(
    line: &'a [u8],
    zone: &Zone,
    written: Option<Time>,
    known: Option<Time>,
) -> Option<Stamped<'a>> {
    let own = leading(line, zone, written.or(known));
    let has_year = written.is_some() || own.as_ref().is_none_or(|own| own.has_year);
    let (time, text) = match own {
        Some(own) => (written.unwrap_or(own.time), own.rest),
        None => (written?, line),
    };
    Some(Stamped { text: Text { time, text: Cow::Borrowed(text), sender: None }, has_year })
}

/// Returns the message of a syslog line, `host sshd[123]: message`, if one of the programs wrote it, and
/// who did: `sshd[123]`.
pub(crate) fn syslog_message<'a>(
    text: &'a [u8],
    programs: &[&str],
) -> Option<(&'a [u8], Option<&'a [u8]>)> {
    let host_end = memchr::memchr(b' ', text)?;
    let rest = text.get(host_end + 1..)?;
    let end = rest.iter().position(|byte| matches!(byte, b'[' | b':' | b' '))?;
    let program = rest.get(..end)?;
    programs.iter().any(|known| known.as_bytes() == program).then_some(())?;
    let after = rest.get(end..)?;
    let Some(inside) = after.strip_prefix(b"[") else {
        return Some((once(after.strip_prefix(b": ")?), None));
    };
    let digits = inside.iter().take_while(|byte| byte.is_ascii_digit()).count();
    let message = inside.get(digits..)?.strip_prefix(b"]: ")?;
    Some((once(message), rest.get(..end + digits + 2)))
}

/// Returns the message of `message repeated 2 times: [ … ]`, as rsyslog writes messages that are the same.
fn once(message: &[u8]) -> &[u8] {
    let repeated = message.strip_prefix(b"message repeated ").and_then(|rest| {
        let digits = rest.iter().take_while(|byte| byte.is_ascii_digit()).count();
        rest.get(digits..)?.strip_prefix(b" times: [ ")?.strip_suffix(b"]")
    });
    repeated.unwrap_or(message)
}
