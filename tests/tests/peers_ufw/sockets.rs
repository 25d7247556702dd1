//! Whole connections of programs, over every path of a server.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};
use std::thread;
use std::time::Duration;

use nfguard_lab::{Netns, Probe, ProbeOutcome, Refusal, Server, World, run_all};
use nfguard_tests::ufw::{WRITE_UP, ufw};

use crate::{needs_namespaces, nfguard_load, traefik};

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Place {
    Host,
    Internet,
    Container,
    /// The address of the place itself.
    Loopback,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum What {
    Tcp(u16),
    Udp(u16),
    Ping,
}

use Place::{Container, Host, Internet, Loopback};
use What::{Ping, Tcp, Udp};

/// The probes that both allow, over IPv4 and IPv6.
const PASSES: &[(Place, Place, &[What])] = &[
    (Host, Loopback, &[Tcp(80), Tcp(8080), Udp(53), Udp(9999), Ping]),
    (Host, Host, &[Tcp(80), Tcp(8080), Udp(53), Udp(9999), Ping]),
    (Internet, Host, &[Tcp(80), Tcp(443), Ping]),
    (Container, Host, &[Tcp(80), Tcp(443), Ping]),
    (Host, Internet, &[Tcp(53), Udp(53), Udp(123), Tcp(80), Tcp(443)]),
    (Host, Container, &[Tcp(80), Tcp(443), Udp(53)]),
];

/// The probes that both stop.
const STOPS: &[(Place, Place, &[What])] = &[
    (Internet, Host, &[Tcp(53), Tcp(8080), Udp(53), Udp(123), Udp(9999)]),
    (Container, Host, &[Tcp(8080), Udp(53)]),
    (Host, Internet, &[Tcp(8080), Udp(9999)]),
    (Internet, Container, &[Tcp(80), Tcp(443), Tcp(8080), Udp(53)]),
    (Container, Internet, &[Tcp(8080), Udp(9999)]),
];

/// The probes that only one of them allows: `true` for nfguard.
const DIFFERS: &[(Place, Place, &[What], bool, &str)] = &[
    (
        Container,
        Internet,
        &[Tcp(53), Udp(53), Udp(123), Tcp(80), Tcp(443)],
        true,
        "what the host may reach, its containers may; ufw leaves that to Docker's own rules",
    ),
    (
        Host,
        Container,
        &[Tcp(8080), Udp(9999)],
        true,
        "the host's own proxy must reach its containers on any port",
    ),
    (Internet, Container, &[Ping], false, "no rule says that containers may be pinged"),
];

#[test]
fn programs_reach_the_same_peers_as_under_ufw() {
    let [bare, judge, ours] = [(), (), ()]
        .map(|()| World::with_container().unwrap_or_else(|error| needs_namespaces(&error)));
    let _servers = [&bare, &judge, &ours].map(servers);
    ufw(&judge.host, &WRITE_UP);
    nfguard_load(&ours.host, traefik());
    let same = PASSES.iter().map(|(from, to, what)| (*from, *to, *what, true, true));
    let same = same.chain(STOPS.iter().map(|(from, to, what)| (*from, *to, *what, false, false)));
    let differs = DIFFERS.iter().map(|(from, to, what, us, _)| (*from, *to, *what, !us, *us));
    let rows: Vec<_> = same
        .chain(differs)
        .flat_map(|(from, to, what, by_ufw, by_us)| {
            what.iter().map(move |what| (from, to, *what, by_ufw, by_us))
        })
        .flat_map(|row| [(row, true), (row, false)])
        .collect();
    let (control, by_ufw, by_us) = thread::scope(|scope| {
        let ask = |world, passes: fn(&Row) -> bool| {
            let probe = |row| {
                // An expected silence has a shorter timeout.
                let patience = if passes(row) { 60 } else { 2 };
                probe(world, row).timeout(Duration::from_secs(patience))
            };
            let probes: Vec<_> = rows.iter().map(probe).collect();
            scope.spawn(move || run_all(&probes))
        };
        let asked = [
            ask(&bare, |_| true),
            ask(&judge, |((_, _, _, by_ufw, _), _)| *by_ufw),
            ask(&ours, |((_, _, _, _, by_us), _)| *by_us),
        ];
        asked.map(|asked| asked.join().unwrap()).into()
    });
    for (at, row) in rows.iter().enumerate() {
        let ((_, _, what, ufw_passes, we_pass), _) = row;
        let (control, by_ufw, by_us) = (&control[at], &by_ufw[at], &by_us[at]);
        assert!(control.passed(), "{row:?} without a firewall: {control}");
        assert_eq!(by_ufw.passed(), *ufw_passes, "{row:?} by ufw: {by_ufw}");
        assert_eq!(by_us.passed(), *we_pass, "{row:?} by nfguard: {by_us}");
        let is_silent = |outcome: &ProbeOutcome| {
            matches!(outcome, ProbeOutcome::TimedOut | ProbeOutcome::Refused(Refusal::NotPermitted))
        };
        assert!(*ufw_passes || is_silent(by_ufw), "{what:?} by ufw: {by_ufw}");
        assert!(*we_pass || is_silent(by_us), "{what:?} by nfguard: {by_us}");
    }
}

type Row = ((Place, Place, What, bool, bool), bool);

fn probe<'w>(world: &'w World, ((from, to, what, ..), is_v4): &Row) -> Probe<'w> {
    let to = address(*from, *to, *is_v4);
    let from = netns(world, *from);
    match what {
        Tcp(port) => Probe::tcp(from, (to, *port)),
        Udp(port) => Probe::udp(from, (to, *port)),
        Ping => Probe::ping(from, to),
    }
}

fn netns(world: &World, place: Place) -> &Netns {
    match place {
        Host => &world.host,
        Internet => &world.internet,
        Loopback => panic!("no host is only there"),
        Container => world.container.as_ref().expect("the world was made with one"),
    }
}

fn address(from: Place, to: Place, is_v4: bool) -> IpAddr {
    let (v4, v6) = match (from, to) {
        (Container, Host) => ([172, 17, 0, 1].into(), BRIDGE_V6),
        (_, Loopback) => (Ipv4Addr::LOCALHOST.into(), Ipv6Addr::LOCALHOST.into()),
        (_, Host) => (World::HOST_V4, World::HOST_V6),
        (_, Internet) => (World::INTERNET_V4, World::INTERNET_V6),
        (_, Container) => (World::CONTAINER_V4, World::CONTAINER_V6),
    };
    if is_v4 { v4 } else { v6 }
}

const BRIDGE_V6: IpAddr = IpAddr::V6(Ipv6Addr::new(0x2001, 0xdb8, 0xd0c, 0, 0, 0, 0, 1));

/// Starts a server on every port of the rows, in every place.
fn servers(world: &World) -> Vec<Server> {
    let mut servers = Vec::new();
    for place in [Host, Internet, Container] {
        let netns = netns(world, place);
        for port in [53, 80, 443, 8080] {
            let any = (Ipv6Addr::UNSPECIFIED, port);
            servers.push(netns.serve_tcp(any).expect("the port is free"));
        }
        for is_v4 in [true, false] {
            let mut addresses =
                vec![address(place, Loopback, is_v4), address(Internet, place, is_v4)];
            if place == Host {
                addresses.push(address(Container, Host, is_v4));
            }
            for address in addresses {
                for port in [53, 123, 9999] {
                    servers.push(netns.serve_udp((address, port)).expect("the port is free"));
                }
            }
        }
    }
    servers
}
