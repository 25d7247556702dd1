//! TCP connections of this network namespace, and the one that an SSH session came by.

use std::collections::HashSet;
use std::fmt;
use std::fs;
use std::io::{self, ErrorKind};
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};
use std::str::FromStr;

use nfguard_host::SshSession;

/// A TCP connection, by its ends. As text it is what sshd puts into `SSH_CONNECTION`.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct Ends {
    /// The far end.
    pub peer: SocketAddr,
    /// The near end.
    pub local: SocketAddr,
}

impl Ends {
    /// Those of the SSH session that this process was started from, through `sudo` too.
    pub fn of_session() -> Option<Ends> {
        let connection = SshSession::of_this_process()?.connection?;
        Some(Ends { peer: connection.peer, local: connection.local })
    }
}

impl FromStr for Ends {
    type Err = ();

    fn from_str(text: &str) -> Result<Ends, ()> {
        let words: Vec<&str> = text.split_whitespace().collect();
        let end = |address: &str, port: &str| {
            // A link-local one has its interface behind it.
            let address: IpAddr = address.split('%').next()?.parse().ok()?;
            Some(SocketAddr::new(address.to_canonical(), port.parse().ok()?))
        };
        let [peer, peer_port, local, local_port] = words[..] else { return Err(()) };
        let (peer, local) = (end(peer, peer_port).ok_or(())?, end(local, local_port).ok_or(())?);
        Ok(Ends { peer, local })
    }
}

impl fmt::Display for Ends {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Ends { peer, local } = self;
        write!(f, "{} {} {} {}", peer.ip(), peer.port(), local.ip(), local.port())
    }
}

/// Every TCP connection of this thread's network namespace, those that are only being opened or
/// closed too.
pub fn open_now() -> io::Result<HashSet<Ends>> {
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

/// A line of `/proc/net/tcp`; `None` for the heading and for a socket that listens.
fn connection(line: &str) -> Option<Ends> {
    const LISTEN: &str = "0A";
    let mut words = line.split_whitespace().skip(1);
    let (local, peer, state) = (words.next()?, words.next()?, words.next()?);
    (state != LISTEN).then_some(Ends { peer: end(peer)?, local: end(local)? })
}

/// `0100007F:0016`: each four bytes of the address as a number in the machine's byte order.
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
            let open = open_now().expect("/proc tells");
            assert!(open.contains(&Ends { peer: near, local: far }), "{address}");
            assert!(open.contains(&Ends { peer: far, local: near }), "{address}");
            assert!(!open.iter().any(|ends| ends.peer.port() == 0), "one that listens");
        }
    }

    #[test]
    fn ends_are_read_as_sshd_writes_them_and_written_so() {
        let text = "2001:db8::9 50000 2001:db8:1::2 22";
        assert_eq!(text.parse::<Ends>().map(|ends| ends.to_string()).as_deref(), Ok(text));
        let local: Ends = "fe80::9%eth0 50000 fe80::2%eth0 22".parse().expect("two ends");
        assert_eq!(local.to_string(), "fe80::9 50000 fe80::2 22");
        assert!("2001:db8::9 50000 22".parse::<Ends>().is_err());
    }
}
