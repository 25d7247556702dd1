//! The connections that the tests try after each change: source, destination, and expected answer.

use std::io::{Read as _, Write as _};
use std::net::{IpAddr, SocketAddr, TcpStream};
use std::sync::Mutex;
use std::thread;
use std::time::{Duration, Instant};

use nfguard_lab::{DEFAULT_TIMEOUT, Netns, Probe, World};
use nfguard_tests::wait::TIMEOUT;

use crate::docker::{Docker, Kind};

/// The addresses of an honest client on the internet.
pub(crate) const CLIENT: [IpAddr; 2] = [v4(203, 7), v6(0x67)];
/// The addresses of the client that the tests ban.
pub(crate) const ATTACKER: [IpAddr; 2] = [v4(203, 66), v6(0x66)];
/// The addresses of the host.
pub(crate) const HOST: [IpAddr; 2] = [World::HOST_V4, World::HOST_V6];

const fn v4(network: u8, host: u8) -> IpAddr {
    IpAddr::V4(std::net::Ipv4Addr::new(network, 0, 113, host))
}

const fn v6(network: u16) -> IpAddr {
    IpAddr::V6(std::net::Ipv6Addr::new(0x2001, 0xdb8, network, 0, 0, 0, 0, 1))
}

/// The source of a connection.
#[derive(Clone, Copy, Debug)]
pub(crate) enum From {
    Internet(IpAddr),
    Host,
    /// A machine on the bridge of the containers that is no container.
    Beside,
    Container(&'static str),
}

/// One connection, and its expected outcome.
#[derive(Clone, Debug)]
pub(crate) struct Cell {
    pub(crate) from: From,
    pub(crate) kind: Kind,
    pub(crate) to: String,
    /// Whether the connection passes with the policy.
    pub(crate) wanted: bool,
    /// Whether the connection passes with Docker alone. This is the control.
    pub(crate) open: bool,
}

/// The hosts of the connections.
pub(crate) struct Ground<'g> {
    pub(crate) world: &'g World,
    /// A machine on the bridge docker0.
    pub(crate) beside: &'g Netns,
    pub(crate) docker: &'g dyn Docker,
}

/// Returns the requests from the internet to the published ports of the host.
pub(crate) fn published(docker: &dyn Docker, from: [IpAddr; 2]) -> Vec<Cell> {
    let mut cells = Vec::new();
    for (from, host) in from.into_iter().zip(HOST) {
        let mut cell = |kind, port, wanted, open| {
            let to = SocketAddr::new(host, port).to_string();
            cells.push(Cell { from: From::Internet(from), kind, to, wanted, open });
        };
        cell(Kind::Tcp, 80, true, true);
        cell(Kind::Tcp, 443, true, true);
        cell(Kind::Udp, 443, true, true);
        cell(Kind::Tcp, 9000, false, true);
        cell(Kind::Udp, 9000, false, true);
        // The container has no IPv6: docker-proxy answers, or nothing does.
        let answered = host.is_ipv4() || docker.has_proxy();
        cell(Kind::Tcp, 4443, answered, answered);
        cell(Kind::Tcp, 9443, false, answered);
    }
    cells
}

/// Returns the requests straight to the addresses of the container.
pub(crate) fn routed(docker: &dyn Docker, from: [IpAddr; 2]) -> Vec<Cell> {
    let (web, web6) = docker.address("web");
    let (two, _) = docker.address("two");
    let mut cells = Vec::new();
    let mut cell = |from, to, port, open| {
        let to = SocketAddr::new(to, port).to_string();
        cells.push(Cell { from: From::Internet(from), kind: Kind::Tcp, to, wanted: false, open });
    };
    let open = docker.lets_neighbours_route_to_published_ports();
    for (from, web) in [(from[0], web), (from[1], web6.expect("it has one"))] {
        cell(from, web, 8443, open);
        cell(from, web, 9000, open);
        cell(from, web, 9100, false);
    }
    cell(from[0], two, 8443, open);
    cell(from[0], two, 9100, false);
    cells
}

/// Returns all connections.
pub(crate) fn all(docker: &dyn Docker) -> Vec<Cell> {
    let mut cells = published(docker, CLIENT);
    cells.extend(routed(docker, CLIENT));
    let (web, web6) = docker.address("web");
    let (two, _) = docker.address("two");
    let web6 = web6.expect("it has one");
    let mut cell = |from, kind, (to, port): (&str, u16), wanted, open| {
        let to = match to.parse::<IpAddr>() {
            Ok(address) => SocketAddr::new(address, port).to_string(),
            Err(_) => format!("{to}:{port}"),
        };
        cells.push(Cell { from, kind, to, wanted, open });
    };
    // From the bridge: without docker-proxy, the outcome depends on the version of Docker.
    let proxied = docker.has_proxy();
    let [host, _] = HOST.map(|address| address.to_string());
    if proxied {
        cell(From::Beside, Kind::Tcp, (&host, 443), true, true);
    }
    for gate in [host.as_str(), "172.17.0.1"] {
        cell(From::Beside, Kind::Tcp, (gate, 9000), false, proxied);
    }
    // Connections of containers and of the host.
    let [gate, gate6] = [World::INTERNET_V4, World::INTERNET_V6].map(|it| it.to_string());
    for from in [From::Container("web"), From::Container("two"), From::Host] {
        for (kind, port, wanted) in EGRESS {
            cell(from, kind, (&gate, port), wanted, true);
        }
    }
    for from in [From::Container("web"), From::Host] {
        cell(from, Kind::Tcp, (&gate6, 443), true, true);
        cell(from, Kind::Tcp, (&gate6, 6667), false, true);
    }
    // Connections that nfguard does not change.
    cell(From::Container("three"), Kind::Tcp, ("two", 8443), true, true);
    cell(From::Container("two"), Kind::Tcp, ("three", 8443), true, true);
    for address in [web, web6, two] {
        cell(From::Host, Kind::Tcp, (&address.to_string(), 9100), true, true);
    }
    cells
}

/// The servers of the internet, and whether the policy allows each.
pub(crate) const EGRESS: [(Kind, u16, bool); 7] = [
    (Kind::Udp, 53, true),
    (Kind::Tcp, 53, true),
    (Kind::Udp, 123, true),
    (Kind::Tcp, 80, true),
    (Kind::Tcp, 443, true),
    (Kind::Tcp, 6667, false),
    (Kind::Udp, 6667, false),
];

impl Ground<'_> {
    /// Asserts the outcomes that the policy wants.
    pub(crate) fn assert_policy(&self, when: &str, cells: &[Cell]) {
        self.assert_outcomes(when, cells.iter().map(|cell| (cell, cell.wanted)).collect());
    }

    /// Asserts the outcomes of Docker alone.
    pub(crate) fn assert_docker_alone(&self, when: &str, cells: &[Cell]) {
        self.assert_outcomes(
            when,
            cells.iter().filter(|cell| cell.open).map(|cell| (cell, true)).collect(),
        );
    }

    /// Asserts that no connection passes.
    pub(crate) fn assert_stopped(&self, when: &str, cells: &[Cell]) {
        self.assert_outcomes(when, cells.iter().map(|cell| (cell, false)).collect());
    }

    fn assert_outcomes(&self, when: &str, cells: Vec<(&Cell, bool)>) {
        const MAX_PARALLEL_CELLS: usize = 12;
        let wrong = Mutex::new(Vec::new());
        let next = Mutex::new(cells.iter());
        thread::scope(|scope| {
            for _ in 0..MAX_PARALLEL_CELLS {
                scope.spawn(|| {
                    loop {
                        let Some((cell, passes)) = next.lock().expect("no panic").next() else {
                            return;
                        };
                        if self.passes(cell, *passes) != *passes {
                            wrong.lock().expect("no panic").push(format!("{cell:?}"));
                        }
                    }
                });
            }
        });
        let wrong = wrong.into_inner().expect("no panic");
        assert!(wrong.is_empty(), "{when}: wrong answers to\n{}", wrong.join("\n"));
    }

    /// Reports whether a connection passes. It is tried once where it should not pass, and again
    /// where it should.
    fn passes(&self, cell: &Cell, expected: bool) -> bool {
        let deadline = Instant::now() + TIMEOUT;
        loop {
            let passed = self.try_once(cell, if expected { TIMEOUT / 12 } else { DEFAULT_TIMEOUT });
            if passed || !expected || Instant::now() > deadline {
                return passed;
            }
            thread::sleep(Duration::from_millis(30));
        }
    }

    fn try_once(&self, cell: &Cell, timeout: Duration) -> bool {
        let (netns, source) = match cell.from {
            From::Container(name) => {
                let milliseconds = u32::try_from(timeout.as_millis()).expect("short");
                return self.docker.reaches(name, cell.kind, &cell.to, milliseconds);
            }
            From::Internet(source) => (&self.world.internet, Some(source)),
            From::Host => (&self.world.host, None),
            From::Beside => (self.beside, None),
        };
        let to: SocketAddr = cell.to.parse().expect("an address");
        match cell.kind {
            Kind::Tcp => open(netns, source, to, timeout)
                .is_some_and(|mut stream| ask(&mut stream, "/", timeout).is_some()),
            Kind::Udp => {
                let probe = Probe::udp(netns, to).timeout(timeout);
                source.map_or(probe, |source| probe.from(source)).run().passed()
            }
        }
    }
}

/// Opens a connection.
pub(crate) fn open(
    netns: &Netns,
    source: Option<IpAddr>,
    to: SocketAddr,
    timeout: Duration,
) -> Option<TcpStream> {
    let probe = Probe::tcp(netns, to).timeout(timeout);
    source.map_or(probe, |source| probe.from(source)).connect().ok()
}

/// Sends a request and returns the answer, if there is one. docker-proxy accepts a connection
/// before it knows whether a server listens.
pub(crate) fn ask(stream: &mut TcpStream, path: &str, timeout: Duration) -> Option<String> {
    stream.set_read_timeout(Some(timeout)).ok()?;
    stream.write_all(format!("GET {path} HTTP/1.1\r\n\r\n").as_bytes()).ok()?;
    let mut answer = [0; 1024];
    let length = stream.read(&mut answer).ok().filter(|length| *length > 0)?;
    Some(String::from_utf8_lossy(&answer[..length]).into_owned())
}
