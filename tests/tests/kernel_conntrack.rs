//! Tracked connections: list and delete.

use std::io::{Read, Write};
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr, TcpStream, UdpSocket};
use std::time::{Duration, Instant};

use nfguard_lab::{Netns, Probe, Server, World};
use nfguard_netlink::{
    Connection, ConnectionPhase, ConnectionTuple, Error, Nft, OpenConnection, protocol,
};
use nfguard_tests::nft::nft;
use nfguard_tests::place::world_with_container;
use nfguard_tests::program::many;
use nfguard_tests::wait::TIMEOUT;
use rustix::thread::{CapabilitySet, capabilities, set_capabilities};

/// Two peers. They have the same interface identifier, so that only a comparison of the whole
/// address tells them apart.
const ATTACKER: [IpAddr; 2] = peer(66);
const VISITOR: [IpAddr; 2] = peer(67);

const fn peer(number: u8) -> [IpAddr; 2] {
    let v6 = Ipv6Addr::new(0x2001, 0xdb8, number as u16, 0, 0, 0, 0, 1);
    [IpAddr::V4(Ipv4Addr::new(203, 0, 113, number)), IpAddr::V6(v6)]
}

/// A NAT table that publishes a port of the container.
const PUBLISHES: &str = "table inet other {
    chain publishes {
        type nat hook prerouting priority dstnat
        tcp dport 8080 dnat ip to 172.17.0.2:80
        tcp dport 8080 dnat ip6 to [2001:db8:d0c::2]:80
    }
}\n";

/// A table that makes the kernel track connections.
const TRACKS: &str = "table inet other {
    chain tracks { type filter hook input priority 0; ct state new accept; }
}\n";

fn kernel(netns: &Netns) -> Nft {
    netns.run(|| Nft::open().expect("netlink is there"))
}

fn is_of(peer: [IpAddr; 2]) -> impl Fn(&Connection) -> bool {
    move |connection| connection.senders().iter().any(|sender| peer.contains(sender))
}

fn is_tcp(connection: &Connection) -> bool {
    connection.original.protocol == protocol::TCP
}

fn is_udp(connection: &Connection) -> bool {
    connection.original.protocol == protocol::UDP
}

fn open(from: &Netns, source: Option<IpAddr>, to: SocketAddr) -> TcpStream {
    let probe = Probe::tcp(from, to).timeout(TIMEOUT);
    let probe = source.map_or(probe, |source| probe.from(source));
    let mut stream = probe.connect().unwrap_or_else(|outcome| panic!("{to}: {outcome}"));
    let mut greeting = [0];
    while greeting != *b"\n" {
        stream.read_exact(&mut greeting).expect("a greeting");
    }
    stream
}

/// Reports whether the stream still echoes.
fn is_alive(stream: &mut TcpStream) -> bool {
    let mut answer = [0; 4];
    stream.write_all(b"ping").is_ok() && stream.read_exact(&mut answer).is_ok()
}

fn serve(netns: &Netns, addresses: [IpAddr; 2], port: u16) -> [Server; 2] {
    addresses.map(|ip| netns.serve_tcp(SocketAddr::new(ip, port)).expect("a server"))
}

#[test]
fn all_connections_of_one_peer_are_deleted_and_no_others() {
    const HOST: [IpAddr; 2] = [World::HOST_V4, World::HOST_V6];
    let world = world_with_container();
    let (host, internet) = (&world.host, &world.internet);
    let container = world.container.as_ref().expect("a container");
    nft(host, PUBLISHES);
    let _servers = [
        serve(host, HOST, 22),
        serve(container, [World::CONTAINER_V4, World::CONTAINER_V6], 80),
        serve(internet, ATTACKER, 7),
        serve(internet, VISITOR, 7),
    ];
    let streams_of = |peer: [IpAddr; 2]| -> Vec<TcpStream> {
        let families = HOST.into_iter().zip(peer);
        families
            .flat_map(|(host_address, source)| {
                let incoming =
                    |port| open(internet, Some(source), SocketAddr::new(host_address, port));
                [incoming(22), incoming(8080), open(host, None, SocketAddr::new(source, 7))]
            })
            .collect()
    };
    let (_attackers, mut visitors) = (streams_of(ATTACKER), streams_of(VISITOR));

    let mut kernel = kernel(host);
    let before = kernel.connections(is_tcp).expect("a list");
    assert_eq!(before.len(), 12, "{before:#?}");
    let published: Vec<_> =
        before.iter().filter(|one| one.original.destination_port == 8080).collect();
    assert_eq!(published.len(), 4);
    for connection in published {
        assert!(HOST.contains(&connection.original.destination), "as it was asked for");
        assert_eq!(connection.reply.source_port, 80, "as the container answers");
    }

    assert_eq!(kernel.forget_connections(is_of(ATTACKER)).expect("forgotten"), 6);
    assert_eq!(sorted(kernel.connections(is_tcp).expect("a list")), {
        let others = before.into_iter().filter(|connection| !is_of(ATTACKER)(connection));
        sorted(others.collect())
    });
    assert!(visitors.iter_mut().all(is_alive));
    assert_eq!(kernel.forget_connections(is_of(ATTACKER)).expect("none is left"), 0);
}

fn sorted(mut connections: Vec<Connection>) -> Vec<Connection> {
    connections.sort_by_key(|one| (one.original.source, one.original.source_port));
    connections
}

#[test]
fn thousands_of_connections_are_listed_and_half_of_them_deleted() {
    // A virtual machine with one gigabyte of memory tracks at most 8192 connections.
    let each = u16::try_from(many(3000)).expect("few enough");
    let world = world_with_container();
    nft(&world.host, TRACKS);
    // The kernel forgets one without an answer after half a minute. A slow machine needs longer.
    world.host.sysctl("netfilter/nf_conntrack_udp_timeout", "600").expect("is set");
    world.internet.run(|| {
        for peer in [ATTACKER, VISITOR] {
            let socket = UdpSocket::bind((peer[0], 0)).expect("binds");
            for port in 1..=each {
                socket.send_to(b"x", (World::HOST_V4, port)).expect("sent");
            }
        }
    });
    let mut kernel = kernel(&world.host);
    let from =
        |peer: [IpAddr; 2]| move |connection: &Connection| connection.original.source == peer[0];
    let each = usize::from(each);
    let deadline = Instant::now() + TIMEOUT;
    while kernel.connections(is_udp).expect("a list").len() < 2 * each {
        assert!(Instant::now() < deadline, "not all packets came");
    }
    assert_eq!(kernel.forget_connections(from(ATTACKER)).expect("forgotten"), each);
    assert_eq!(kernel.connections(from(ATTACKER)).expect("a list").len(), 0);
    assert_eq!(kernel.connections(from(VISITOR)).expect("a list").len(), each);
}

#[test]
fn a_connection_in_a_zone_of_its_own_is_deleted_there() {
    for zone in ["ct zone set 7", "ct original zone set 7"] {
        let world = world_with_container();
        nft(&world.host, TRACKS);
        nft(
            &world.host,
            &format!(
                "table inet zones {{
                    chain in {{
                        type filter hook prerouting priority raw
                        ip saddr 203.0.113.0/24 {zone}
                    }}
                    chain out {{
                        type filter hook output priority raw
                        ip daddr 203.0.113.0/24 ct zone set 7
                    }}
                }}\n"
            ),
        );
        let to = SocketAddr::new(World::HOST_V4, 9);
        for peer in [ATTACKER, VISITOR] {
            world.internet.run(|| {
                let socket = UdpSocket::bind((peer[0], 0)).expect("binds");
                socket.send_to(b"x", to).expect("sent");
            });
        }
        let mut kernel = kernel(&world.host);
        let deadline = Instant::now() + TIMEOUT;
        while kernel.connections(is_udp).expect("a list").len() < 2 {
            assert!(Instant::now() < deadline, "{zone}: not all packets came");
        }
        assert_eq!(kernel.forget_connections(is_of(ATTACKER)).expect("forgotten"), 1, "{zone}");
        let left = kernel.connections(is_udp).expect("a list");
        assert!(left.iter().all(is_of(VISITOR)) && left.len() == 1, "{zone}: {left:#?}");
    }
}

#[test]
fn without_tracked_connections_nothing_is_deleted() {
    let netns = Netns::new().expect("run me with `cargo xtask netns-test`");
    assert_eq!(kernel(&netns).forget_connections(|_| true).expect("an answer"), 0);
}

#[test]
fn without_privilege_the_error_says_so() {
    let netns = Netns::new().expect("run me with `cargo xtask netns-test`");
    let outcome = netns.run(|| {
        let mut rights = capabilities(None).expect("rights can be read");
        rights.effective -= CapabilitySet::NET_ADMIN;
        set_capabilities(None, rights).expect("rights can be given up");
        Nft::open().expect("netlink is there").connections(|_| true)
    });
    assert!(matches!(outcome, Err(Error::Permission)), "{outcome:?}");
}

#[test]
fn an_untracked_connection_continues_after_its_entry_is_created() {
    let world = world_with_container();
    let (host, internet) = (&world.host, &world.internet);
    for (ip, rules) in [(World::HOST_V4, "other"), (World::HOST_V6, "else")] {
        let at = SocketAddr::new(ip, 22);
        let _server = host.serve_tcp(at).expect("a server");
        let [mut told, mut untold] = [(); 2].map(|()| open(internet, None, at));
        let peer = told.local_addr().expect("connected");
        let flow = ConnectionTuple {
            source: peer.ip(),
            destination: ip,
            protocol: protocol::TCP,
            source_port: peer.port(),
            destination_port: 22,
        };
        let mut kernel = kernel(host);
        let open = |original| OpenConnection { original, phase: ConnectionPhase::Established };
        assert_eq!(kernel.track_connections(&[open(flow)]).expect("told"), 1);
        let both = [flow, flow.reversed()].map(open);
        assert_eq!(kernel.track_connections(&both).expect("told"), 0, "both are known");
        nft(
            host,
            &format!(
                "table inet {rules} {{
                    chain in {{ type filter hook input priority 0; tcp dport 22 ct state new drop; }}
                    chain out {{ type filter hook output priority 0; tcp sport 22 ct state new drop; }}
                }}\n"
            ),
        );
        assert!(is_alive(&mut told));
        untold.set_read_timeout(Some(Duration::from_secs(1))).expect("a timeout");
        assert!(!is_alive(&mut untold));
        let known = kernel.connections(|it| it.original == flow).expect("a list");
        assert_eq!(known.len(), 1);
        nft(host, &format!("delete table inet {rules}\n"));
    }
}
