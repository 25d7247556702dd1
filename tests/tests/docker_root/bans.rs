//! Bans, on every path that a packet can take to a container.

use std::net::{IpAddr, SocketAddr, TcpStream};
use std::time::Duration;

use nfguard_lab::{DEFAULT_TIMEOUT, Probe, World, packet};
use nfguard_tests::program::nfguard;
use nfguard_tests::wait::TIMEOUT;

use crate::cells::{self, ATTACKER, CLIENT, Cell, From, Ground, HOST};
use crate::docker::{Docker, Kind};

/// The open TCP ports: two containers, and docker-proxy for IPv6.
const PORTS: [u16; 3] = [80, 443, 4443];

/// The open connections of one client.
struct Open {
    connections: Vec<(SocketAddr, TcpStream)>,
    /// The destinations that have answered datagrams. The same source port asks again.
    datagrams: Vec<(IpAddr, SocketAddr)>,
}

/// The source port of the datagrams.
const FLOW: u16 = 40_443;

impl Open {
    fn open_all(world: &World, docker: &dyn Docker, from: [IpAddr; 2]) -> Open {
        let mut open = Open { connections: Vec::new(), datagrams: Vec::new() };
        for (from, host) in from.into_iter().zip(HOST) {
            for port in PORTS {
                if port == 4443 && host.is_ipv6() && !docker.has_proxy() {
                    continue;
                }
                let to = SocketAddr::new(host, port);
                let stream = cells::open(&world.internet, Some(from), to, TIMEOUT);
                open.connections.push((to, stream.expect("it opens")));
            }
            open.datagrams.push((from, SocketAddr::new(host, 443)));
        }
        open.assert_alive(world, "before");
        open
    }

    fn assert_alive(&mut self, world: &World, when: &str) {
        for (to, stream) in &mut self.connections {
            assert!(cells::ask(stream, "/", TIMEOUT).is_some(), "{when}: {to}");
        }
        for (from, to) in &self.datagrams {
            let probe = Probe::udp(&world.internet, *to).from(*from).source_port(FLOW);
            assert!((0..20).any(|_| probe.timeout(TIMEOUT / 20).run().passed()), "{when}: {to}");
        }
    }

    fn assert_cut(&mut self, world: &World) {
        for (to, stream) in &mut self.connections {
            let answer = cells::ask(stream, "/", DEFAULT_TIMEOUT);
            assert_eq!(answer, None, "an open connection to {to} goes on");
        }
        for (from, to) in &self.datagrams {
            let probe = Probe::udp(&world.internet, *to).from(*from).source_port(FLOW);
            assert!(!probe.run().passed(), "a flow to {to} goes on");
        }
    }
}

/// Asserts that a ban cuts the attacker from every path, and no other client from any path.
pub(crate) fn assert_on_every_path(ground: &Ground<'_>) {
    let Ground { world, docker, .. } = *ground;
    let passing = |from| -> Vec<Cell> {
        cells::published(docker, from).into_iter().filter(|cell| cell.wanted).collect()
    };
    let (theirs, others) = (passing(ATTACKER), passing(CLIENT));
    ground.assert_policy("before the ban", &theirs);
    let mut their_open = Open::open_all(world, docker, ATTACKER);
    let mut others_open = Open::open_all(world, docker, CLIENT);

    ban(world, &ATTACKER);
    ground.assert_stopped("banned", &theirs);
    their_open.assert_cut(world);
    ground.assert_policy("another address is banned", &others);
    others_open.assert_alive(world, "another address is banned");

    unban(world, &ATTACKER);
    ground.assert_policy("unbanned", &theirs);
}

/// Asserts bans on a host without our policy. Where Docker lets a neighbour route straight to a
/// container, a ban does not.
pub(crate) fn assert_without_a_policy(ground: &Ground<'_>) {
    let routed = cells::routed(ground.docker, ATTACKER);
    let routed: Vec<Cell> = routed.into_iter().filter(|cell| cell.open).collect();
    ground.assert_docker_alone("before the ban", &routed);
    ban(ground.world, &ATTACKER);
    ground.assert_stopped("banned", &routed);
    ground.assert_docker_alone("another address is banned", &cells::routed(ground.docker, CLIENT));
    unban(ground.world, &ATTACKER);
    ground.assert_docker_alone("unbanned", &routed);
}

pub(crate) fn ban(world: &World, addresses: &[IpAddr]) {
    change(world, "ban", addresses);
}

pub(crate) fn unban(world: &World, addresses: &[IpAddr]) {
    change(world, "unban", addresses);
}

fn change(world: &World, verb: &str, addresses: &[IpAddr]) {
    for address in addresses {
        let answer = nfguard(&world.host, &[verb, &address.to_string()]);
        assert_eq!(answer.status, Some(0), "{answer:?}");
    }
}

/// Reports whether a datagram of a container arrives. It needs no answer.
pub(crate) fn is_sent_to(ground: &Ground<'_>, from: From, to: IpAddr) -> bool {
    let mut arrivals = ground.world.internet.capture().expect("captures");
    let cell = Cell {
        from,
        kind: Kind::Udp,
        to: SocketAddr::new(to, 53).to_string(),
        wanted: false,
        open: false,
    };
    ground.assert_stopped("nothing answers there", &[cell]);
    // On a busy machine it may still wait for its neighbour's address.
    let arrived = arrivals.wait(Duration::from_secs(2), |bytes| {
        packet::destination(bytes) == Some(to) && bytes.len() > 20
    });
    arrived.expect("captures").is_some()
}
