//! This host's own addresses, gateways and resolvers: banned by mistake, they take the host with
//! them. And where the session comes from that says whom to ban.

use std::fs;
use std::io::{self, ErrorKind};
use std::net::IpAddr;
use std::time::SystemTime;

use ipnetwork::IpNetwork;
use nix::ifaddrs::getifaddrs;

use crate::never::{ADDRESS, GATEWAY, NAME_SERVER, NeverBan};
use crate::routes::gateways;

/// Where name servers are listed. Where a resolver runs on this host, the first names only that
/// one, and a further file those that it asks.
const RESOLVERS: [&str; 3] = [
    "/etc/resolv.conf",
    "/run/systemd/resolve/resolv.conf",
    "/run/NetworkManager/no-stub-resolv.conf",
];

/// So many processes stand between a session and this one, at most.
const DEPTH: usize = 64;

impl NeverBan {
    /// The list of this thread's network namespace: loopback, the addresses of all interfaces, the
    /// gateways of all routing tables, and the name servers of `/etc/resolv.conf`, of
    /// systemd-resolved and of NetworkManager. Beside these, the peer of the SSH session that this
    /// process was started from, through `sudo` too.
    ///
    /// All routes are read for it: on a router, a million take about 0.2 s.
    ///
    /// # Errors
    /// The kernel does not tell, or a file cannot be read. One that is not there names nobody.
    pub fn of_this_host() -> io::Result<NeverBan> {
        let mut never = NeverBan::default().and_all(facts()?);
        never.knows_host = true;
        Ok(match ssh_connection() {
            Some(connection) => never.and_ssh_peer(&connection, SystemTime::now()),
            None => never,
        })
    }
}

/// What the system says, and what each is to this host.
pub(crate) fn facts() -> io::Result<Vec<(IpNetwork, String)>> {
    let addresses = getifaddrs()?.filter_map(|interface| {
        let address = interface.address?;
        let v4 = address.as_sockaddr_in().map(|address| IpAddr::V4(address.ip()));
        let v6 = || address.as_sockaddr_in6().map(|address| IpAddr::V6(address.ip()));
        let reason = format!("{ADDRESS}{}", interface.interface_name);
        Some((v4.or_else(v6)?, reason))
    });
    let gateways = gateways()?;
    let mut resolvers = Vec::new();
    for path in RESOLVERS {
        resolvers.extend(name_servers(&read(path)?));
    }
    let all = addresses
        .chain(gateways.into_iter().map(|gateway| (gateway, GATEWAY.to_owned())))
        .chain(resolvers.into_iter().map(|server| (server, NAME_SERVER.to_owned())));
    let all = all.filter(|(address, _)| !address.is_loopback());
    Ok(all.map(|(address, reason)| (address.into(), reason)).collect())
}

fn read(path: &str) -> io::Result<String> {
    match fs::read(path) {
        // Comments may be in any encoding.
        Ok(bytes) => Ok(String::from_utf8_lossy(&bytes).into_owned()),
        Err(error) if error.kind() == ErrorKind::NotFound => Ok(String::new()),
        Err(error) => Err(io::Error::new(error.kind(), format!("{path}: {error}"))),
    }
}

/// The `nameserver` lines of a resolver's configuration (resolv.conf(5)).
fn name_servers(text: &str) -> Vec<IpAddr> {
    let server = |line: &str| {
        let line = line.split(['#', ';']).next()?;
        let mut words = line.split_whitespace();
        let server =
            words.next().filter(|word| *word == "nameserver").and_then(|_| words.next())?;
        // A link-local one has its interface behind it.
        server.split('%').next()?.parse().ok()
    };
    text.lines().filter_map(server).collect()
}

/// The SSH session that this process was started from, as `SSH_CONNECTION` has it: the peer's
/// address and port and the host's. It is looked for in the environment of this process and then of
/// each that it was started by: `sudo` keeps the variable to itself. From a very old server it is
/// `SSH_CLIENT`: address and port of the peer, and the host's port.
#[must_use]
pub fn ssh_connection() -> Option<String> {
    let mut process = "self".to_owned();
    for _ in 0..DEPTH {
        // Another user's cannot be read; its parent may be ours again.
        let environment = fs::read(format!("/proc/{process}/environ")).unwrap_or_default();
        if let Some(connection) = in_environment(&environment) {
            return Some(connection);
        }
        let status = fs::read_to_string(format!("/proc/{process}/status")).ok()?;
        process = status.lines().find_map(|line| line.strip_prefix("PPid:"))?.trim().to_owned();
    }
    None
}

/// What sshd has left there; in both variables the peer's address stands first.
fn in_environment(environment: &[u8]) -> Option<String> {
    let environment = String::from_utf8_lossy(environment);
    let value = |name| environment.split('\0').find_map(|variable| variable.strip_prefix(name));
    let found = value("SSH_CONNECTION=").or_else(|| value("SSH_CLIENT="))?;
    Some(found).filter(|found| !found.is_empty()).map(str::to_owned)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn name_servers_are_read_as_the_system_writes_them() {
        let text = "# mine\nsearch example.org\n; nameserver 192.0.2.1\nnameserver 192.0.2.53;mine\n\
                    nameserver\tfe80::1%eth0 # by the router\nnameserver\nnameserver example.org\n";
        let expected: [IpAddr; 2] = [[192, 0, 2, 53].into(), "fe80::1".parse().expect("one")];
        assert_eq!(name_servers(text), expected);
    }

    #[test]
    fn an_ssh_session_is_found_in_the_environment_that_sshd_made() {
        let both = b"HOME=/root\0SSH_CLIENT=192.0.2.9 50000 22\0\
                     SSH_CONNECTION=192.0.2.9 50000 192.0.2.1 22\0";
        assert_eq!(in_environment(both).as_deref(), Some("192.0.2.9 50000 192.0.2.1 22"));
        let old = b"SSH_CLIENT=2001:db8::9 50000 22\0MY_SSH_CONNECTION=192.0.2.7 1 1 1\0";
        assert_eq!(in_environment(old).as_deref(), Some("2001:db8::9 50000 22"));
        assert_eq!(in_environment(b"HOME=/root\0SSH_CONNECTION=\0"), None);
    }
}
