//! Connections with both of their ends.

use std::io::{Read as _, Write as _};
use std::net::{IpAddr, SocketAddr, TcpListener, TcpStream, UdpSocket};

use nfguard_lab::Netns;
use nfguard_netlink::{ConnectionTuple, protocol};
use nfguard_tests::wait::TIMEOUT;
use socket2::{Domain, Socket, Type};

/// One end of a connection.
pub(crate) enum End {
    Tcp(TcpStream),
    Udp(UdpSocket),
}

impl End {
    pub(crate) fn ends(&self) -> (SocketAddr, SocketAddr) {
        let ends = match self {
            End::Tcp(stream) => stream.local_addr().and_then(|it| Ok((it, stream.peer_addr()?))),
            End::Udp(socket) => socket.local_addr().and_then(|it| Ok((it, socket.peer_addr()?))),
        };
        ends.expect("it is connected")
    }

    pub(crate) fn tcp(&self) -> &TcpStream {
        match self {
            End::Tcp(stream) => stream,
            End::Udp(_) => panic!("UDP"),
        }
    }

    #[track_caller]
    pub(crate) fn send(&self, word: &[u8], what: &str) {
        let sent = match self {
            End::Tcp(stream) => { stream }.write_all(word),
            End::Udp(socket) => socket.send(word).map(drop),
        };
        sent.unwrap_or_else(|error| panic!("{what}: {error}"));
    }

    #[track_caller]
    pub(crate) fn hear(&self, word: &[u8], what: &str) {
        let mut heard = vec![0; word.len()];
        let received = match self {
            End::Tcp(stream) => { stream }.read_exact(&mut heard),
            End::Udp(socket) => socket.recv(&mut heard).map(drop),
        };
        received.unwrap_or_else(|error| panic!("{what}: {error}"));
        assert_eq!(heard, word, "{what}");
    }
}

/// A connection.
pub(crate) struct Pair {
    pub(crate) client: End,
    pub(crate) server: End,
    pub(crate) name: String,
}

/// The order in which the ends of a connection speak.
#[derive(Clone, Copy)]
pub(crate) enum First {
    Client,
    Server,
}

impl Pair {
    fn new(client: End, server: End) -> Pair {
        let (local, remote) = client.ends();
        let tuple = ConnectionTuple {
            source: local.ip(),
            destination: remote.ip(),
            protocol: if matches!(client, End::Tcp(_)) { protocol::TCP } else { protocol::UDP },
            source_port: local.port(),
            destination_port: remote.port(),
        };
        Pair { client, server, name: name(&tuple) }
    }

    #[track_caller]
    pub(crate) fn assert_open(&self, first: First) {
        let (one, other) = match first {
            First::Client => (&self.client, &self.server),
            First::Server => (&self.server, &self.client),
        };
        one.send(b"first", &self.name);
        other.hear(b"first", &self.name);
        other.send(b"second", &self.name);
        one.hear(b"second", &self.name);
    }
}

/// A port that serves. As servers do, it takes a socket of its own for each client.
pub(crate) enum Port {
    Tcp(TcpListener),
    Udp(UdpSocket),
}

impl Port {
    pub(crate) fn open(netns: &Netns, kind: u8, at: SocketAddr) -> Port {
        match kind {
            protocol::TCP => Port::Tcp({
                let socket = netns.run(|| bound(Type::STREAM, at)).expect("a port");
                socket.listen(16).expect("it listens");
                socket.into()
            }),
            _ => Port::Udp(udp(netns, at)),
        }
    }

    /// Connects to this port at one of its addresses.
    pub(crate) fn connect(
        &self,
        client: &Netns,
        from: IpAddr,
        server: &Netns,
        at: SocketAddr,
    ) -> Pair {
        let from = SocketAddr::new(from, 0);
        let (client, server) = match self {
            Port::Tcp(listener) => {
                let stream = client.run(|| {
                    let socket = bound(Type::STREAM, from)?;
                    socket.connect(&at.into())?;
                    Ok::<TcpStream, std::io::Error>(socket.into())
                });
                let accepted = listener.accept().expect("a connection").0;
                (End::Tcp(stream.expect("connects")), End::Tcp(accepted))
            }
            Port::Udp(_) => {
                let (ours, theirs) = (udp(client, from), udp(server, at));
                ours.connect(at).expect("connects");
                theirs.connect(ours.local_addr().expect("bound")).expect("connects");
                (End::Udp(ours), End::Udp(theirs))
            }
        };
        for end in [&client, &server] {
            let set = match end {
                End::Tcp(stream) => stream.set_read_timeout(Some(TIMEOUT)),
                End::Udp(socket) => socket.set_read_timeout(Some(TIMEOUT)),
            };
            set.expect("a timeout");
        }
        Pair::new(client, server)
    }
}

pub(crate) fn udp(netns: &Netns, at: SocketAddr) -> UdpSocket {
    netns.run(|| bound(Type::DGRAM, at)).expect("a port").into()
}

/// Returns a socket that is bound to this address, which may only be routed to the namespace.
fn bound(kind: Type, at: SocketAddr) -> std::io::Result<Socket> {
    let socket = Socket::new(Domain::for_address(at), kind, None)?;
    socket.set_reuse_address(at.port() != 0)?;
    if at.is_ipv6() {
        socket.set_freebind_v6(true)?;
    }
    socket.bind(&at.into())?;
    Ok(socket)
}

/// Returns a name that tells connections apart.
pub(crate) fn name(tuple: &ConnectionTuple) -> String {
    let ConnectionTuple { source, destination, protocol, source_port, destination_port } = tuple;
    format!("{protocol} {source} {source_port} {destination} {destination_port}")
}
