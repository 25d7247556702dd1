//! The common and the combined format of nginx and Apache, which escape what clients say.

use std::borrow::Cow;

use ipnetwork::IpNetwork;
use memchr::memmem;

use crate::address;
use crate::read::client::client;
use crate::read::traefik_json::status;
use crate::record::Http;
use crate::time::clf as read_time;

/// Bytes of `[18/Nov/2026:21:00:00 +0000]`.
const STAMP_BYTES: usize = 28;

/// Reads a line.
pub(crate) fn read<'a>(line: &'a [u8], trusted: &[IpNetwork]) -> Option<Http<'a>> {
    let host_end = memchr::memchr(b' ', line)?;
    let peer = address::parse(line.get(..host_end)?)?;
    let ident = line.get(host_end + 1..)?;
    let user_start = host_end + 1 + memchr::memchr(b' ', ident)? + 1;
    let bracket = memmem::find(line, b"] \"")?;
    let stamp_start = (bracket + 1).checked_sub(STAMP_BYTES)?;
    let stamp = line.get(stamp_start..=bracket)?;
    let time = read_time(stamp.strip_prefix(b"[")?.strip_suffix(b"]")?)?;
    let user = line.get(user_start..stamp_start.checked_sub(1)?)?;
    let (request, rest) = quoted(line.get(bracket + 2..)?)?;
    let (code, rest) = rest.strip_prefix(b" ")?.split_at_checked(3)?;
    let status = status(code)?;
    let (size, mut rest) = word(rest.strip_prefix(b" ")?);
    if !(size == b"-" || !size.is_empty() && size.iter().all(u8::is_ascii_digit)) {
        return None;
    }
    // Fields that the administrator has added may follow. A field that does not end is half a line.
    // The first two in quotes are Referer and User-Agent, which are the client's own word. The third is
    // X-Forwarded-For; those after it may be a cookie.
    let (mut forwarded, mut count) = (None, 0);
    while let Some(next) = rest.strip_prefix(b" ") {
        if next.first() == Some(&b'"') {
            let (text, after) = quoted(next)?;
            count += 1;
            if count == 3 {
                forwarded = Some(text);
            }
            rest = after;
        } else {
            let (field, after) = word(next);
            if field.is_empty() {
                return None;
            }
            rest = after;
        }
    }
    let mut parts = request.splitn(3, |byte| *byte == b' ');
    let (method, target) = (parts.next(), parts.next());
    let is_request = method.is_some_and(|it| !it.is_empty() && it.iter().all(|b| is_token(*b)));
    let target = target.filter(|_| is_request);
    Some(Http {
        time,
        client: client(peer, forwarded, trusted),
        status,
        method: method.filter(|_| target.is_some()).map(Cow::Borrowed),
        target: target.map(unescape),
        host: None,
        user: Some(unescape(user)).filter(|user| !user.is_empty() && **user != b"-"[..]),
        origin: None,
    })
}

/// Splits a text after its first quoted string, and returns what is between the quotes.
fn quoted(text: &[u8]) -> Option<(&[u8], &[u8])> {
    let inner = text.strip_prefix(b"\"")?;
    let mut from = 0;
    loop {
        let at = from + memchr::memchr2(b'"', b'\\', inner.get(from..)?)?;
        if inner.get(at) == Some(&b'"') {
            return Some((inner.get(..at)?, inner.get(at + 1..)?));
        }
        from = at + 2;
    }
}

fn word(text: &[u8]) -> (&[u8], &[u8]) {
    text.split_at(memchr::memchr(b' ', text).unwrap_or(text.len()))
}

/// Undoes `\x22`, `\"` and `\\`.
fn unescape(text: &[u8]) -> Cow<'_, [u8]> {
    if memchr::memchr(b'\\', text).is_none() {
        return Cow::Borrowed(text);
    }
    let hex = |byte: u8| char::from(byte).to_digit(16).and_then(|it| u8::try_from(it).ok());
    let (mut out, mut rest) = (Vec::with_capacity(text.len()), text);
    while let Some((first, after)) = rest.split_first() {
        let escaped = match (first, after) {
            (b'\\', [b'x', high, low, after @ ..]) => {
                hex(*high).zip(hex(*low)).map(|(high, low)| (high * 16 + low, after))
            }
            (b'\\', [b'n', after @ ..]) => Some((b'\n', after)),
            (b'\\', [b'r', after @ ..]) => Some((b'\r', after)),
            (b'\\', [b't', after @ ..]) => Some((b'\t', after)),
            (b'\\', [other @ (b'"' | b'\\'), after @ ..]) => Some((*other, after)),
            _ => None,
        };
        let (byte, after) = escaped.unwrap_or((*first, after));
        out.push(byte);
        rest = after;
    }
    Cow::Owned(out)
}

pub(crate) fn is_token(byte: u8) -> bool {
    let is_sign = |byte| matches!(byte, b'!' | b'#'..=b'\'' | b'*' | b'+' | b'-' | b'.' | b'^'..=b'`' | b'|' | b'~');
    byte.is_ascii_alphanumeric() || is_sign(byte)
}
