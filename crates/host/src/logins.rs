//! SSH logins that are open on this host: whose peers are operators, not attackers.
//!
//! A connection to sshd alone proves nothing: an attacker has one too while it guesses. So these count:
//! what systemd-logind and utmp record, which is written after a login; a process of a session; and a connection that is open for longer than sshd waits for a login, see
//! [`ssh_connections`].

use std::collections::BTreeSet;
use std::fs;
use std::io;
use std::net::{IpAddr, SocketAddr};
use std::time::Duration;

use nfguard_netlink::SockDiag;

use crate::bounded;
use crate::ssh::{SshSession, in_environment};
use crate::tcp::{TcpConnection, parse_address};
use crate::to_io;

const LOGIND: &str = "/run/systemd/sessions";
const UTMP: &str = "/run/utmp";
const SSHD_CONFIG: &str = "/etc/ssh/sshd_config";
const SSHD_CONFIG_PARTS: &str = "/etc/ssh/sshd_config.d";

/// Length of a record of utmp, and of its fields (utmp(5)), where the program is a 64-bit one of x86.
const UTMP_BYTES: usize = 384;
const UTMP_HOST: std::ops::Range<usize> = 76..332;
/// Type of a record of a login.
const USER_PROCESS: [u8; 2] = 7_u16.to_le_bytes();

/// How long sshd waits for a login, unless its configuration says otherwise.
const LOGIN_GRACE: Duration = Duration::from_secs(120);
/// A connection that sshd closes may be there for a moment longer.
const GRACE_MARGIN: Duration = Duration::from_secs(10);

/// Returns the peers of the SSH logins that are open. A session of `mosh` has the address that its
/// client has now. An absent record names no peer. Why the kernel did not tell the connections goes to
/// `problems`.
pub(crate) fn ssh_peers(problems: &mut Vec<String>) -> BTreeSet<IpAddr> {
    let mut peers = recorded_ssh_peers();
    // A login without PAM and without a terminal is in no record.
    let mut unrecorded = ssh_connections().unwrap_or_else(|error| {
        problems.push(format!("the connections to sshd cannot be listed: {error}"));
        Vec::new()
    });
    unrecorded.retain(|connection| !peers.contains(&connection.peer.ip()));
    if !unrecorded.is_empty() {
        let of_processes = connections_in_environments();
        let logins = unrecorded.iter().filter(|connection| of_processes.contains(connection));
        peers.extend(logins.map(|connection| connection.peer.ip()));
    }
    peers
}

/// Returns those of `ssh_peers` that logind or utmp knows. It reads few files.
#[must_use]
pub fn recorded_ssh_peers() -> BTreeSet<IpAddr> {
    let sessions = fs::read_dir(LOGIND).into_iter().flatten().flatten();
    let texts = sessions.filter_map(|session| bounded::read(session.path()).ok());
    let peer = |text: Vec<u8>| peer_of_session(&String::from_utf8_lossy(&text));
    let mut peers: BTreeSet<IpAddr> = texts.filter_map(peer).collect();
    peers.extend(peers_in_utmp(&bounded::read(UTMP).unwrap_or_default()));
    peers.retain(|peer| !peer.is_loopback() && !peer.is_unspecified());
    peers
}

/// Returns the established connections to the ports of sshd. One that is older than
/// [`login_grace`] belongs to a login: sshd has closed the others.
///
/// # Errors
/// The kernel does not list them.
pub fn ssh_connections() -> io::Result<Vec<TcpConnection>> {
    let mut sockets = SockDiag::open().map_err(to_io)?;
    let mut all = Vec::new();
    for port in ssh_ports() {
        all.extend(sockets.established_at(port).map_err(to_io)?);
    }
    let connection = |(local, peer): (SocketAddr, SocketAddr)| TcpConnection { peer, local };
    let all = all.into_iter().map(connection);
    Ok(all.filter(|connection| !connection.peer.ip().is_loopback()).collect())
}

/// Returns the time after which a connection to sshd belongs to a login; `None` if sshd waits without
/// end.
#[must_use]
pub fn login_grace() -> Option<Duration> {
    let grace =
        configuration().lines().find_map(|line| setting(line, "logingracetime").map(seconds));
    match grace.flatten() {
        Some(0) => None,
        Some(seconds) => Some(Duration::from_secs(seconds) + GRACE_MARGIN),
        None => Some(LOGIN_GRACE + GRACE_MARGIN),
    }
}

/// Returns the ports of sshd: 22, and what its configuration says.
fn ssh_ports() -> BTreeSet<u16> {
    let mut ports = BTreeSet::from([22]);
    for line in configuration().lines() {
        ports.extend(setting(line, "port").and_then(|port| port.parse::<u16>().ok()));
        let address = setting(line, "listenaddress").and_then(|text| text.rsplit_once(':'));
        let is_bare_v6 = |host: &str| host.contains(':') && !host.ends_with(']');
        let port = address.filter(|(host, _)| !is_bare_v6(host));
        ports.extend(port.and_then(|(_, port)| port.parse::<u16>().ok()));
    }
    ports
}

fn configuration() -> String {
    let parts = fs::read_dir(SSHD_CONFIG_PARTS).into_iter().flatten().flatten();
    let parts = parts
        .map(|part| part.path())
        .filter(|path| path.extension().is_some_and(|it| it == "conf"));
    let mut all: Vec<_> = parts.collect();
    all.sort();
    all.push(SSHD_CONFIG.into());
    let texts = all.into_iter().map(|path| bounded::read(path).unwrap_or_default());
    let texts: Vec<String> =
        texts.map(|text| String::from_utf8_lossy(&text).into_owned()).collect();
    texts.join("\n")
}

/// Returns the value of a setting of this name, in small letters (sshd_config(5)).
fn setting<'l>(line: &'l str, name: &str) -> Option<&'l str> {
    let (key, value) = line.trim().split_once([' ', '\t', '='])?;
    let value = value.trim_matches([' ', '\t', '=', '"']);
    key.eq_ignore_ascii_case(name).then_some(value)
}

/// Reads a time of sshd: `120`, `2m`, `1h30m`.
fn seconds(text: &str) -> Option<u64> {
    let (mut total, mut number) = (0_u64, String::new());
    for letter in text.chars() {
        let unit = match letter.to_ascii_lowercase() {
            digit if digit.is_ascii_digit() => {
                number.push(digit);
                continue;
            }
            's' => 1,
            'm' => 60,
            'h' => 3600,
            'd' => 86_400,
            'w' => 604_800,
            _ => return None,
        };
        total = total.checked_add(number.parse::<u64>().ok()?.checked_mul(unit)?)?;
        number.clear();
    }
    if number.is_empty() { Some(total) } else { total.checked_add(number.parse().ok()?) }
}

/// Reads a file of logind; `None` for a login that did not come from another host, or is closing.
fn peer_of_session(text: &str) -> Option<IpAddr> {
    let value =
        |name: &str| text.lines().find_map(|line| line.strip_prefix(name)?.strip_prefix('='));
    if value("STATE") == Some("closing") {
        return None;
    }
    parse_address(value("REMOTE_HOST")?)
}

/// Reads the addresses in records of logins. `mosh` writes `203.0.113.9 via mosh [42]`.
fn peers_in_utmp(bytes: &[u8]) -> Vec<IpAddr> {
    let peer = |record: &[u8]| {
        let host = record.get(UTMP_HOST).filter(|_| record.starts_with(&USER_PROCESS))?;
        let end = host.iter().position(|byte| *byte == 0).unwrap_or(host.len());
        let host = str::from_utf8(host.get(..end)?).ok()?;
        parse_address(host.split(' ').next()?)
    };
    bytes.chunks_exact(UTMP_BYTES).filter_map(peer).collect()
}

/// Returns the connections that processes have in their environment as that of their session.
fn connections_in_environments() -> BTreeSet<TcpConnection> {
    let processes = fs::read_dir("/proc").into_iter().flatten().flatten();
    let is_process = |name: &str| name.bytes().all(|byte| byte.is_ascii_digit());
    let environments = processes.filter(|it| it.file_name().to_str().is_some_and(is_process));
    let texts = environments.filter_map(|process| fs::read(process.path().join("environ")).ok());
    let sessions = texts.filter_map(|text| in_environment(&text)?.parse::<SshSession>().ok());
    sessions.filter_map(|session| session.connection).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_login_is_read_as_logind_and_utmp_record_it() {
        let session = "# This is private data. Do not parse.\nUID=0\nUSER=root\nACTIVE=1\nREMOTE=1\n\
                       STATE=active\nREMOTE_HOST=203.0.113.9\nSERVICE=sshd\n";
        let peer: IpAddr = [203, 0, 113, 9].into();
        assert_eq!(peer_of_session(session), Some(peer));
        assert_eq!(peer_of_session(&session.replace("active", "closing")), None);
        assert_eq!(peer_of_session("USER=root\nSTATE=active\nTTY=tty1\n"), None);

        let record = |kind: u8, host: &str| {
            let mut record = vec![0; UTMP_BYTES];
            record[0] = kind;
            record[UTMP_HOST.start..][..host.len()].copy_from_slice(host.as_bytes());
            record
        };
        let records = [
            record(7, "203.0.113.9"),
            record(8, "203.0.113.10"),
            record(7, "2001:db8::9 via mosh [42]"),
            record(7, ":0"),
            record(7, "client.example.org"),
        ];
        let peers = peers_in_utmp(&records.concat());
        assert_eq!(peers, [peer, "2001:db8::9".parse().expect("an address")]);
        assert!(peers_in_utmp(&records.concat()[..UTMP_BYTES - 1]).is_empty());
    }

    #[test]
    fn settings_of_sshd_are_read_as_it_reads_them() {
        assert_eq!(setting("  Port 2222", "port"), Some("2222"));
        assert_eq!(setting("port=2222", "port"), Some("2222"));
        assert_eq!(setting("LoginGraceTime\t\"2m\"", "logingracetime"), Some("2m"));
        assert_eq!(setting("#Port 2222", "port"), None);
        for (text, expected) in [("120", 120), ("2m", 120), ("1h30m", 5400), ("1m30", 90), ("0", 0)]
        {
            assert_eq!(seconds(text), Some(expected), "{text}");
        }
        assert_eq!(seconds("soon"), None);
    }
}
