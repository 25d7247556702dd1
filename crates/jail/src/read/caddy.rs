//! Caddy's access log, which is JSON.

use std::borrow::Cow;

use ipnetwork::IpNetwork;

use crate::address;
use crate::json::{self, Value};
use crate::read::client::client;
use crate::read::traefik_json::{socket_address, status, text};
use crate::record::Http;
use crate::time::{Time, Zone, clf, epoch, rfc3339};

/// The key of the status.
pub(crate) const STATUS_KEY: &[u8] = b"\"status\"";

/// What Caddy says of each request in its access log. Its log of errors has requests too.
const MESSAGE: &[u8] = b"handled request";

/// Reads a line.
pub(crate) fn read<'a>(line: &'a [u8], zone: &Zone, trusted: &[IpNetwork]) -> Option<Http<'a>> {
    let (mut time, mut message, mut user, mut code, mut request) = (None, None, None, None, None);
    json::object(line, |key, value| {
        let slot = match key {
            b"ts" => &mut time,
            b"msg" => &mut message,
            b"user_id" => &mut user,
            b"status" => &mut code,
            b"request" => &mut request,
            _ => return Some(()),
        };
        slot.replace(value).is_none().then_some(())
    })?;
    if *text(message)? != *MESSAGE {
        return None;
    }
    let Value::Number(code) = code? else { return None };
    let Value::Object(request) = request? else { return None };
    let (mut remote, mut socket, mut headers) = (None, None, None);
    let (mut method, mut target, mut host) = (None, None, None);
    json::object(request, |key, value| {
        let slot = match key {
            b"remote_ip" => &mut remote,
            b"remote_addr" => &mut socket,
            b"headers" => &mut headers,
            b"method" => &mut method,
            b"uri" => &mut target,
            b"host" => &mut host,
            _ => return Some(()),
        };
        slot.replace(value).is_none().then_some(())
    })?;
    let peer = match text(remote) {
        Some(remote) => address::parse(&remote)?,
        // Caddy before 2.5.
        None => socket_address(&text(socket)?)?,
    };
    let (mut forwarded, mut credentials): (Option<Vec<Cow<'a, [u8]>>>, _) = (None, None);
    if let Some(Value::Object(headers)) = headers {
        json::object(headers, |key, value| {
            match (key, value) {
                (b"X-Forwarded-For", Value::Array(array)) => forwarded = Some(json::texts(array)?),
                // Caddy before 2.8 leaves out its value.
                (b"Authorization", Value::Array(array)) => {
                    credentials = Some(json::texts(array)?.pop().unwrap_or_default());
                }
                _ => {}
            }
            Some(())
        })?;
    }
    // Caddy knows the user only if the password is right. Of another one it has the header, made
    // unreadable: who sends one has a user.
    let user = text(user).filter(|user| !user.is_empty()).or(credentials);
    Some(Http {
        time: self::time(time?, zone)?,
        client: client(peer, forwarded.map(|lists| lists.join(&b',')).as_deref(), trusted),
        status: status(code)?,
        method: text(method),
        target: text(target),
        host: text(host),
        user,
        origin: None,
    })
}

/// Reads a time in the forms that Caddy's encoder has.
fn time(value: Value<'_>, zone: &Zone) -> Option<Time> {
    match value {
        Value::Number(number) => {
            let digits = number.iter().take_while(|byte| byte.is_ascii_digit()).count();
            let whole = number.get(..digits).and_then(|it| std::str::from_utf8(it).ok())?;
            match digits {
                // Milliseconds, nanoseconds.
                13 => Time::from_micros(whole.parse::<i64>().ok()?.checked_mul(1000)?),
                19 => Time::from_micros(whole.parse::<i64>().ok()? / 1000),
                _ => epoch(number),
            }
        }
        Value::Text(text) => {
            let text = text.decode();
            rfc3339(&text, zone).or_else(|| clf(&text))
        }
        _ => None,
    }
}
