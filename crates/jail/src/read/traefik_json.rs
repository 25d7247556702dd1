//! Traefik's access log in JSON.

use std::borrow::Cow;

use ipnetwork::IpNetwork;
use memchr::memmem;

use crate::address;
use crate::json::{self, Value};
use crate::read::client::client;
use crate::record::{Http, Origin};
use crate::status::StatusSet;
use crate::time::{Zone, rfc3339};

/// The key of the status, which the look at the raw bytes goes by.
pub(crate) const STATUS_KEY: &[u8] = b"\"DownstreamStatus\"";

/// What a look at the raw bytes of a line finds.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Look {
    /// No status of a record.
    Nothing,
    /// A record, with a status that no jail watches.
    Unwatched,
    /// What may be a record with a status that a jail watches.
    Watched,
}

/// Looks for a watched status behind its key in a line without reading it. A line that is not `Watched` is no
/// record with a watched status: the strict reader takes the status from where this looks.
pub(crate) fn look(line: &[u8], finder: &memmem::Finder<'_>, watched: &StatusSet) -> Look {
    let is_object = line.first() == Some(&b'{') && line.last() == Some(&b'}');
    let mut found = Look::Nothing;
    let mut rest = line;
    while let Some(at) = finder.find(rest) {
        rest = rest.get(at + finder.needle().len()..).unwrap_or_default();
        if let Some(status) = number_after_colon(rest) {
            match status {
                status if watched.contains(status) => return Look::Watched,
                _ if is_object => found = Look::Unwatched,
                _ => {}
            }
        }
    }
    found
}

fn number_after_colon(text: &[u8]) -> Option<u16> {
    let number = text.trim_ascii_start().strip_prefix(b":")?.trim_ascii_start();
    let end = number.iter().position(|byte| !byte.is_ascii_digit()).unwrap_or(number.len());
    status(number.get(..end)?)
}

/// Reads a line. Everything in it must be as Traefik writes it.
pub(crate) fn read<'a>(line: &'a [u8], zone: &Zone, trusted: &[IpNetwork]) -> Option<Http<'a>> {
    let mut keys = Keys::default();
    json::object(line, |key, value| {
        let slot = match key {
            b"ClientAddr" => &mut keys.client_addr,
            b"ClientHost" => &mut keys.client_host,
            b"ClientUsername" => &mut keys.user,
            b"DownstreamStatus" => &mut keys.status,
            b"OriginStatus" => &mut keys.origin_status,
            b"RequestMethod" => &mut keys.method,
            b"RequestPath" => &mut keys.target,
            b"RequestHost" => &mut keys.host,
            b"time" => &mut keys.time,
            b"StartUTC" => &mut keys.start,
            _ => return Some(()),
        };
        // Traefik writes each key once.
        slot.replace(value).is_none().then_some(())
    })?;
    let status = match keys.status? {
        Value::Number(number) => status(number)?,
        _ => return None,
    };
    let claimed = text(keys.client_host)?;
    // With X-Forwarded-For, ClientHost is what that says, and ClientAddr the peer.
    let peer = match text(keys.client_addr) {
        Some(socket) => socket_address(&socket)?,
        None => address::parse(&claimed)?,
    };
    let stamp = text(keys.time).or_else(|| text(keys.start))?;
    Some(Http {
        time: rfc3339(&stamp, zone)?,
        client: client(peer, Some(&claimed), trusted),
        status,
        method: text(keys.method),
        target: text(keys.target),
        host: text(keys.host),
        user: text(keys.user).filter(|user| !user.is_empty() && **user != b"-"[..]),
        origin: Some(match keys.origin_status {
            Some(_) => Origin::Application,
            None => Origin::Proxy,
        }),
    })
}

#[derive(Default)]
struct Keys<'a> {
    client_addr: Option<Value<'a>>,
    client_host: Option<Value<'a>>,
    user: Option<Value<'a>>,
    status: Option<Value<'a>>,
    origin_status: Option<Value<'a>>,
    method: Option<Value<'a>>,
    target: Option<Value<'a>>,
    host: Option<Value<'a>>,
    time: Option<Value<'a>>,
    start: Option<Value<'a>>,
}

pub(crate) fn text(value: Option<Value<'_>>) -> Option<Cow<'_, [u8]>> {
    match value? {
        Value::Text(text) => Some(text.decode()),
        _ => None,
    }
}

/// Returns the address of `203.0.113.5:40001` or `[2001:db8::1]:40001`.
pub(crate) fn socket_address(text: &[u8]) -> Option<std::net::IpAddr> {
    let host = match memchr::memrchr(b':', text) {
        Some(at) if text.first() == Some(&b'[') => text.get(1..at)?.strip_suffix(b"]")?,
        // Some write an IPv6 address without its brackets.
        Some(at) => text.get(..at)?,
        None => text,
    };
    address::parse(host).or_else(|| address::parse(text))
}

/// Reads a status of three digits.
pub(crate) fn status(text: &[u8]) -> Option<u16> {
    let [a @ b'1'..=b'9', b @ b'0'..=b'9', c @ b'0'..=b'9'] = text else { return None };
    Some(u16::from(a - b'0') * 100 + u16::from(b - b'0') * 10 + u16::from(c - b'0'))
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;
    use crate::read::caddy;

    fn watched() -> StatusSet {
        let mut set = StatusSet::NONE;
        [401, 403, 429].into_iter().for_each(|status| set.insert(status));
        set
    }

    /// A piece of text that makes trouble, or none.
    fn piece() -> impl Strategy<Value = String> {
        let special = [
            "\"DownstreamStatus\"",
            "DownstreamStatus",
            ":",
            "401",
            "200",
            "\\\"",
            "\"",
            ",",
            "{",
            "}",
            " ",
            "\t",
            "\\u0053",
            "[",
            "]",
            "4011",
            "401.0",
            "4.01e2",
            "-401",
            "0401",
            "\n",
            "null",
        ];
        prop_oneof![
            8 => proptest::sample::select(special.to_vec()).prop_map(ToOwned::to_owned),
            2 => "[a-zA-Z0-9 ]{0,8}",
        ]
    }

    fn line() -> impl Strategy<Value = String> {
        let pieces = || proptest::collection::vec(piece(), 0..6).prop_map(|it| it.concat());
        let blank = || proptest::sample::select(vec!["", " ", "  ", "\t"]);
        let status = proptest::sample::select(vec!["401", "200", "403", "429", "4011", "401.5"]);
        let parts = (pieces(), pieces(), blank(), blank(), status, any::<(bool, bool)>());
        parts.prop_map(|(user, more, before, after, status, (is_escaped, is_first))| {
            let user = if is_escaped { serde_json::Value::from(user).to_string() } else { user };
            let known = format!("\"DownstreamStatus\"{before}:{after}{status}");
            let rest = format!(
                "\"ClientHost\":\"203.0.113.5\",\"ClientUsername\":{user},\
                 \"time\":\"2026-11-18T21:00:00Z\",\"x\":{{\"y\":[{more}]}}"
            );
            match is_first {
                true => format!("{{{known},{rest}}}"),
                false => format!("{{{rest}{before},{known}}}{after}"),
            }
        })
    }

    /// Returns a line as Caddy would write it.
    fn as_caddy(line: &str) -> String {
        let request = r#""msg":"handled request","request":{"remote_ip":"203.0.113.5"}"#;
        let line = line.replace("DownstreamStatus", "status").replace("\"time\"", "\"ts\"");
        line.replace(r#""ClientHost":"203.0.113.5""#, request)
    }

    proptest! {
        #![proptest_config(ProptestConfig::with_cases(4000))]

        #[test]
        fn a_look_at_the_raw_bytes_rejects_only_what_the_strict_reader_would(line in line()) {
            let (finder, watched) = (memmem::Finder::new(STATUS_KEY), watched());
            let read = read(line.as_bytes(), &Zone::UTC, &[]);
            let is_evidence = read.is_some_and(|http| watched.contains(http.status));
            let look = look(line.as_bytes(), &finder, &watched);
            prop_assert!(!is_evidence || look == Look::Watched, "{:?}: {}", look, line);
            let line = as_caddy(&line);
            let (finder, watched) = (memmem::Finder::new(caddy::STATUS_KEY), self::watched());
            let read = caddy::read(line.as_bytes(), &Zone::UTC, &[]);
            let is_evidence = read.is_some_and(|http| watched.contains(http.status));
            let look = self::look(line.as_bytes(), &finder, &watched);
            prop_assert!(!is_evidence || look == Look::Watched, "{:?}: {}", look, line);
        }
    }

    #[test]
    fn a_record_is_read_and_its_look_finds_it() {
        let line = br#"{"ClientAddr":"[2001:db8::1]:1","ClientHost":"2001:db8::1","ClientUsername":"a","DownstreamStatus":401,"OriginStatus":401,"RequestPath":"/","time":"2026-11-18T21:00:00Z"}"#;
        let http = read(line, &Zone::UTC, &[]).unwrap();
        assert_eq!((http.status, http.origin), (401, Some(Origin::Application)));
        assert_eq!(http.client.address.to_string(), "2001:db8::1");
        assert_eq!(look(line, &memmem::Finder::new(STATUS_KEY), &watched()), Look::Watched);
    }
}
