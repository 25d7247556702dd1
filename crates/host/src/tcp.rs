//! TCP connections of a network namespace.

use std::collections::HashSet;
use std::fmt;
use std::fs;
use std::io::{self, ErrorKind};
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};
use std::str::FromStr;

/// A TCP connection, by its two ends. Its text is what sshd writes into `SSH_CONNECTION`: address
/// and port of the peer, address and port of this host.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct TcpConnection {
    /// The far end.
    pub peer: SocketAddr,
    /// The end at this host.
    pub local: SocketAddr,
}

impl FromStr for TcpConnection {
    type Err = ();

    fn from_str(text: &str) -> Result<TcpConnection, ()> {
        let words: Vec<&str> = text.split_whitespace().collect();
        let [peer, peer_port, local, local_port] = words[..] else { return Err(()) };
        let end = |address, port: &str| {
            Some(SocketAddr::new(parse_address(address)?, port.parse().ok()?))
        };
        let (peer, local) = (end(peer, peer_port).ok_or(())?, end(local, local_port).ok_or(())?);
        Ok(TcpConnection { peer, local })
    }
}

impl fmt::Display for TcpConnection {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let TcpConnection { peer, local } = self;
        write!(f, "{} {} {} {}", peer.ip(), peer.port(), local.ip(), local.port())
    }
}

/// Parses an address. A link-local address may have its interface behind it, which is left out.
pub(crate) fn parse_address(text: &str) -> Option<IpAddr> {
    let address: IpAddr = text.split('%').next()?.parse().ok()?;
    Some(address.to_canonical())
}

/// Returns every TCP connection of this thread's network namespace, also those that are only being
/// opened or closed.
///
/// # Errors
/// `/proc` cannot be read.
pub fn tcp_connections() -> io::Result<HashSet<TcpConnection>> {
    let mut all = HashSet::new();
    for file in ["tcp", "tcp6"] {
        match fs::read_to_string(format!("/proc/thread-self/net/{file}")) {
            Ok(text) => all.extend(text.lines().filter_map(connection)),
            // A kernel without IPv6.
            Err(error) if error.kind() == ErrorKind::NotFound && file == "tcp6" => {}
            Err(error) => return Err(error),
        }
    }
    Ok(all)
}

/// Parses a line of `/proc/net/tcp`; `None` for the heading and for a socket that listens.
fn connection(line: &str) -> Option<TcpConnection> {
    const LISTEN: &str = "0A";
    let mut words = line.split_whitespace().skip(1);
    let (local, peer, state) = (words.next()?, words.next()?, words.next()?);
    (state != LISTEN).then_some(TcpConnection { peer: end(peer)?, local: end(local)? })
}

/// Parses `0100007F:0016`: each four bytes of the address as a number in the machine's byte order.
fn end(text: &str) -> Option<SocketAddr> {
    let (address, port) = text.split_once(':')?;
    let mut bytes = Vec::new();
    for start in (0..address.len()).step_by(8) {
        let number = u32::from_str_radix(address.get(start..start + 8)?, 16).ok()?;
        bytes.extend(number.to_ne_bytes());
    }
    let address = match <[u8; 4]>::try_from(bytes.as_slice()) {
        Ok(v4) => IpAddr::V4(Ipv4Addr::from(v4)),
        Err(_) => IpAddr::V6(Ipv6Addr::from(<[u8; 16]>::try_from(bytes.as_slice()).ok()?)),
    };
    Some(SocketAddr::new(address.to_canonical(), u16::from_str_radix(port, 16).ok()?))
}

#[cfg(test)]
mod tests {
    use std::net::{TcpListener, TcpStream};

    use super::*;

    #[test]
    fn an_open_connection_is_seen_from_both_ends() {
        for address in ["127.0.0.1:0", "[::]:0"] {
            let listener = TcpListener::bind(address).expect("binds");
            let port = listener.local_addr().expect("bound").port();
            let stream = TcpStream::connect(("127.0.0.1", port)).expect("connects");
            let near = stream.local_addr().expect("connected");
            let far = stream.peer_addr().expect("connected");
            let open = tcp_connections().expect("/proc tells");
            assert!(open.contains(&TcpConnection { peer: near, local: far }), "{address}");
            assert!(open.contains(&TcpConnection { peer: far, local: near }), "{address}");
            assert!(!open.iter().any(|it| it.peer.port() == 0), "a socket that listens");
        }
    }

    #[test]
    fn a_connection_is_read_as_sshd_writes_it_and_written_so() {
        let text = "2001:db8::9 50000 2001:db8:1::2 22";
        let parsed = text.parse::<TcpConnection>().map(|connection| connection.to_string());
        assert_eq!(parsed.as_deref(), Ok(text));
        let local: TcpConnection = "fe80::9%eth0 50000 fe80::2%eth0 22".parse().expect("two ends");
        assert_eq!(local.to_string(), "fe80::9 50000 fe80::2 22");
        assert!("2001:db8::9 50000 22".parse::<TcpConnection>().is_err());
    }
}
