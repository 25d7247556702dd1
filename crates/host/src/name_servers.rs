//! The name servers that this host asks.

use std::io::{self, ErrorKind};
use std::net::IpAddr;

use crate::bounded;

/// Files that list name servers. Where a resolver runs on this host, the first file names only that
/// resolver, and a further file names the servers that it asks.
const RESOLV_CONF: [&str; 3] = [
    "/etc/resolv.conf",
    "/run/systemd/resolve/resolv.conf",
    "/run/NetworkManager/no-stub-resolv.conf",
];

/// Returns the name servers of `/etc/resolv.conf`, of systemd-resolved and of NetworkManager, in
/// the order of the files. A server may occur twice, and a resolver on this host is among them.
///
/// # Errors
/// A file exists and cannot be read. The error names the file.
pub(crate) fn name_servers() -> io::Result<Vec<IpAddr>> {
    let mut servers = Vec::new();
    for path in RESOLV_CONF {
        match bounded::read(path) {
            // Comments may be in any encoding.
            Ok(bytes) => servers.extend(parse(&String::from_utf8_lossy(&bytes))),
            Err(error) if error.kind() == ErrorKind::NotFound => {}
            Err(error) => return Err(io::Error::new(error.kind(), format!("{path}: {error}"))),
        }
    }
    Ok(servers)
}

/// Parses the `nameserver` lines of a resolver's configuration (resolv.conf(5)).
fn parse(text: &str) -> impl Iterator<Item = IpAddr> + '_ {
    let server = |line: &str| {
        let line = line.split(['#', ';']).next()?;
        let mut words = line.split_whitespace();
        let server =
            words.next().filter(|word| *word == "nameserver").and_then(|_| words.next())?;
        // A link-local address has its interface behind it.
        server.split('%').next()?.parse().ok()
    };
    text.lines().filter_map(server)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn name_servers_are_read_as_the_system_writes_them() {
        let text = "# mine\nsearch example.org\n; nameserver 192.0.2.1\nnameserver 192.0.2.53;mine\n\
                    nameserver\tfe80::1%eth0 # by the router\nnameserver\nnameserver example.org\n";
        let expected: [IpAddr; 2] = [[192, 0, 2, 53].into(), "fe80::1".parse().expect("one")];
        assert_eq!(parse(text).collect::<Vec<_>>(), expected);
    }
}
