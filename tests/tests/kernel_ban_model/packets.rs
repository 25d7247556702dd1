//! Volleys of packets, and the packets that pass.

use std::collections::BTreeSet;
use std::io::{ErrorKind, Read};
use std::net::{IpAddr, Ipv4Addr, SocketAddr};
use std::time::Duration;

use nfguard_ban::{Port, Protocol};
use nfguard_lab::{Netns, Probe, World, packet};
use nfguard_tests::wait::TIMEOUT;
use socket2::{Domain, Socket, Type};

/// The source port of the last packet of a volley, which no ban stops.
const LAST: u16 = 1;
/// The source port of the first packet of the first volley.
const FIRST: u16 = 1024;

/// A packet: source address and destination port of the host.
pub(crate) type Packet = (IpAddr, Port);

/// Raw sockets. Those of the internet send from any address. Those of the host receive all packets
/// that pass the firewall, even if no program listens.
pub(crate) struct Ground {
    pub(crate) host: Netns,
    _internet: Netns,
    senders: [Socket; 2],
    to_itself: Socket,
    /// The receivers: IPv4 (with the IP header) and IPv6.
    receivers: [[Socket; 2]; 2],
    next: u16,
    /// The usual time of a step and of the comparison after it.
    pub(crate) pace: Duration,
}

impl Ground {
    pub(crate) fn new() -> Ground {
        let World { host, internet, .. } = World::new()
            .unwrap_or_else(|error| panic!("{error}\nrun me with `cargo xtask netns-test`"));
        let socket = |netns: &Netns, domain, protocol: i32| {
            let raw = || Socket::new(domain, Type::RAW, Some(protocol.into()));
            netns.run(|| raw().expect("a raw socket"))
        };
        let families = [Domain::IPV4, Domain::IPV6];
        let receivers = families.map(|domain| {
            [TCP, UDP].map(|protocol| {
                let socket = socket(&host, domain, protocol.into());
                socket.set_read_timeout(Some(TIMEOUT)).expect("can be set");
                socket
            })
        });
        let senders = families.map(|domain| socket(&internet, domain, WITH_HEADER));
        let to_itself = socket(&host, Domain::IPV4, WITH_HEADER);
        // Other packets would overtake a packet that waits for neighbour discovery.
        for (family, peer) in [("ipv4", World::HOST_V4), ("ipv6", World::HOST_V6)] {
            let setting = format!("{family}/neigh/eth0/base_reachable_time_ms");
            internet.sysctl(&setting, "86400000").expect("can be set");
            let probe = Probe::ping(&internet, peer).timeout(TIMEOUT);
            assert!(probe.run().passed(), "{peer} is out of reach");
        }
        Ground {
            host,
            _internet: internet,
            senders,
            to_itself,
            receivers,
            next: FIRST,
            pace: Duration::ZERO,
        }
    }

    /// Sends the packets and a last one that no ban stops. Returns the packets that have arrived
    /// before the last one. All run on one processor, so none overtakes another.
    pub(crate) fn send_volley(&mut self, packets: &[Packet]) -> BTreeSet<Packet> {
        let count = u16::try_from(packets.len()).expect("few");
        let first = self.next.checked_add(count).map_or(FIRST, |_| self.next);
        self.next = first + count;
        for (number, (from, port)) in (first..).zip(packets) {
            let [v4, v6] = &self.senders;
            let (socket, to) = match from {
                IpAddr::V4(_) => (v4, World::HOST_V4),
                IpAddr::V6(_) => (v6, World::HOST_V6),
            };
            send(socket, *from, to, number, *port);
        }
        let discard = Port { protocol: Protocol::Udp, number: 9 };
        let itself = Ipv4Addr::LOCALHOST.into();
        send(&self.to_itself, itself, itself, LAST, discard);

        let [[tcp4, udp4], [tcp6, udp6]] = &self.receivers;
        let mut came = BTreeSet::new();
        let mut note = |header: &[u8]| {
            let number = header.first_chunk().map(|bytes| u16::from_be_bytes(*bytes));
            let at = number.and_then(|number| number.checked_sub(first));
            came.extend(at.and_then(|at| packets.get(usize::from(at))));
            number == Some(LAST)
        };
        let mut buffer = [0; 2048];
        loop {
            let len = (&*udp4).read(&mut buffer).expect("the last packet has come");
            if note(&buffer[IPV4_HEADER..len]) {
                break;
            }
        }
        for (socket, header) in [(udp4, IPV4_HEADER), (tcp4, IPV4_HEADER), (tcp6, 0), (udp6, 0)] {
            socket.set_nonblocking(true).expect("can be set");
            loop {
                match (&*socket).read(&mut buffer) {
                    Ok(len) => note(&buffer[header..len]),
                    Err(error) if error.kind() == ErrorKind::WouldBlock => break,
                    Err(error) => panic!("{error}"),
                };
            }
            socket.set_nonblocking(false).expect("can be set");
        }
        came
    }
}

const TCP: u8 = 6;
const UDP: u8 = 17;
/// The protocol number of a raw socket whose packets include their IP header.
const WITH_HEADER: i32 = 255;
const IPV4_HEADER: usize = 20;

fn send(socket: &Socket, from: IpAddr, to: IpAddr, from_port: u16, port: Port) {
    let (protocol, payload) = match port.protocol {
        // The kernel does not answer a reset.
        Protocol::Tcp => (TCP, packet::tcp(from, to, from_port, port.number, packet::RST)),
        Protocol::Udp => (UDP, packet::udp(from, to, from_port, port.number, b"")),
    };
    let bytes = packet::ip(from, to, protocol, 64, &payload);
    socket.send_to(&bytes, &SocketAddr::new(to, 0).into()).expect("is sent");
}
