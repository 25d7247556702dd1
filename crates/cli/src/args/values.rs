//! Parsers of values: one for each kind.

use std::net::{IpAddr, SocketAddr};
use std::time::Duration;

use nfguard_ban::{Addresses, InvalidTarget, Port};
use nfguard_control::guard::MetricsAddress;
use nix::unistd::Group;

/// The ports of one `--port`; `None` is every port.
#[derive(Clone, Debug)]
pub(crate) struct Ports(pub(crate) Vec<Option<Port>>);

/// How long a ban lasts; `None` is a ban without an end.
#[derive(Clone, Copy, Debug)]
pub(crate) struct BanDuration(pub(crate) Option<Duration>);

pub(super) fn ban_duration(text: &str) -> Result<BanDuration, String> {
    nfguard_control::ban_text::parse_duration(text).map(BanDuration)
}

/// Long enough to act, and short enough to remember the load.
pub(super) fn confirm_time(text: &str) -> Result<Duration, String> {
    let range = Duration::from_secs(1)..=Duration::from_secs(24 * 3600);
    let time = nfguard_control::ban_text::parse_duration(text)?;
    time.filter(|time| range.contains(time)).ok_or_else(|| "expected from 1s to 24h".to_owned())
}

pub(super) fn address_and_port(text: &str) -> Result<(IpAddr, Option<u16>), String> {
    if let Ok(address) = text.parse::<IpAddr>() {
        return Ok((address, None));
    }
    text.parse::<SocketAddr>()
        .map(|both| (both.ip(), Some(both.port())))
        .map_err(|_| "expected an address, ADDR:PORT or [ADDR]:PORT".to_owned())
}

pub(super) fn ports(text: &str) -> Result<Ports, String> {
    nfguard_control::ban_text::parse_ports(text).map(Ports)
}

pub(super) fn addresses(text: &str) -> Result<Addresses, String> {
    text.parse().map_err(|error: InvalidTarget| error.to_string())
}

pub(super) fn file_mode(text: &str) -> Result<u32, String> {
    let mode = u32::from_str_radix(text, 8).ok().filter(|mode| *mode <= 0o777);
    mode.ok_or_else(|| "expected three octal digits, such as 660".to_owned())
}

pub(super) fn group(text: &str) -> Result<u32, String> {
    if let Ok(number) = text.parse() {
        return Ok(number);
    }
    let group = Group::from_name(text).map_err(|error| error.to_string())?;
    Ok(group.ok_or_else(|| "there is no such group".to_owned())?.gid.as_raw())
}

/// Only this host may read the metrics over TCP.
pub(super) fn metrics_address(text: &str) -> Result<MetricsAddress, String> {
    if text.contains('/') {
        return Ok(MetricsAddress::File(text.into()));
    }
    let address: SocketAddr = text.parse().map_err(|_| "expected 127.0.0.1:9477, or a path")?;
    match address.ip().is_loopback() {
        true => Ok(MetricsAddress::Tcp(address)),
        false => Err("expected a loopback address: other hosts could read any other".to_owned()),
    }
}
