//! Packets that the test follows to the end of the hook. Each has a source address of its own.

use std::collections::BTreeSet;
use std::io::ErrorKind;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, UdpSocket};
use std::time::{Duration, Instant};
use std::{fs, thread};

use nfguard_lab::{Netns, World, packet};
use nfguard_tests::judge::{self, Place};
use nfguard_tests::wait::TIMEOUT;

/// The direction of a packet, seen from the host.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Way {
    In,
    Out,
}

/// A packet.
pub(crate) struct Shot {
    /// The name in the table of differences.
    pub(crate) name: String,
    pub(crate) way: Way,
    pub(crate) from: IpAddr,
    pub(crate) packet: Vec<u8>,
}

/// The multicast groups of the host. Only packets to joined groups reach the rules.
pub(crate) const MDNS_V4: Ipv4Addr = Ipv4Addr::new(224, 0, 0, 251);
pub(crate) const UPNP_V4: Ipv4Addr = Ipv4Addr::new(239, 255, 255, 250);
pub(crate) const MDNS_V6: Ipv6Addr = Ipv6Addr::new(0xff02, 0, 0, 0, 0, 0, 0, 0xfb);
pub(crate) const UPNP_V6: Ipv6Addr = Ipv6Addr::new(0xff02, 0, 0, 0, 0, 0, 0, 0xf);

/// A world whose host is a member of the multicast groups.
pub(crate) struct Range {
    pub(crate) world: World,
    _members: (UdpSocket, UdpSocket),
}

impl Range {
    pub(crate) fn new() -> Self {
        let world = crate::world();
        for netns in [&world.host, &world.internet] {
            judge::install(netns);
        }
        let (index, _) = link(&world.host);
        let members = world.host.run(|| {
            let v4 = UdpSocket::bind("0.0.0.0:0").expect("a port is free");
            for group in [MDNS_V4, UPNP_V4] {
                v4.join_multicast_v4(&group, &Ipv4Addr::UNSPECIFIED).expect("eth0 does multicast");
            }
            let v6 = UdpSocket::bind("[::]:0").expect("a port is free");
            for group in [MDNS_V6, UPNP_V6] {
                v6.join_multicast_v6(&group, index).expect("eth0 does multicast");
            }
            (v4, v6)
        });
        Self { world, _members: members }
    }

    /// Sends all packets and returns the names of those that pass the rules of the host.
    pub(crate) fn passed<'s>(&self, shots: &'s [Shot]) -> BTreeSet<&'s str> {
        let World { host, internet, .. } = &self.world;
        for shot in shots {
            let netns = if shot.way == Way::In { internet } else { host };
            match netns.send_raw(Some("eth0"), &shot.packet) {
                Err(error) if error.kind() == ErrorKind::PermissionDenied => {}
                result => result.unwrap_or_else(|error| panic!("{}: {error}", shot.name)),
            }
        }
        let incoming: Vec<_> = shots.iter().filter(|shot| shot.way == Way::In).collect();
        wait(|| {
            let arrived = judge::seen(host, Place::Arrived);
            let missing = incoming.iter().filter(|shot| !arrived.contains(&shot.from));
            missing.map(|shot| shot.name.clone()).collect()
        });
        let (let_in, let_out) = (judge::seen(host, Place::LetIn), judge::seen(host, Place::LetOut));
        let passed = shots.iter().filter(|shot| match shot.way {
            Way::In => let_in.contains(&shot.from),
            Way::Out => let_out.contains(&shot.from),
        });
        passed.map(|shot| shot.name.as_str()).collect()
    }
}

/// Waits until no packet is missing.
fn wait(missing: impl Fn() -> Vec<String>) {
    let deadline = Instant::now() + TIMEOUT;
    loop {
        let missing = missing();
        if missing.is_empty() {
            return;
        }
        assert!(Instant::now() < deadline, "never arrived: {missing:?}");
        thread::sleep(Duration::from_millis(20));
    }
}

/// Returns the index and the link-local address of `eth0`.
pub(crate) fn link(netns: &Netns) -> (u32, Ipv6Addr) {
    let addresses = netns.run(|| fs::read_to_string("/proc/thread-self/net/if_inet6"));
    let addresses = addresses.expect("IPv6 is there");
    let line = addresses.lines().find(|line| line.starts_with("fe80") && line.ends_with(" eth0"));
    let mut words = line.expect("eth0 is up").split_whitespace();
    let mut number = || {
        let word = words.next().expect("a line has six words");
        u128::from_str_radix(word, 16).expect("hexadecimal")
    };
    let address = Ipv6Addr::from_bits(number());
    (u32::try_from(number()).expect("an index"), address)
}

/// Makes packets, each with the next source address.
#[derive(Default)]
pub(crate) struct Shots {
    pub(crate) all: Vec<Shot>,
}

/// The source address of a packet.
#[derive(Clone, Copy, PartialEq, Eq)]
pub(crate) enum Source {
    Routed,
    LinkLocal,
}

impl Shots {
    /// Adds a packet. `make` gets source and destination, and returns the payload after the IP
    /// header.
    pub(crate) fn add(
        &mut self,
        way: Way,
        what: &str,
        (source, to): (Source, IpAddr),
        (protocol, hop_limit): (u8, u8),
        make: impl FnOnce(IpAddr, IpAddr) -> Vec<u8>,
    ) {
        let others = self.all.iter().filter(|shot| shot.from.is_ipv4() == to.is_ipv4()).count();
        let number = u16::try_from(others).expect("a handful of packets") + 1;
        let from = match to {
            IpAddr::V4(_) => {
                let [high, low] = number.to_be_bytes();
                let networks = [[203, 0, 113], [192, 0, 2]];
                let [a, b, c] = networks[usize::from(high)];
                [a, b, c, low].into()
            }
            IpAddr::V6(_) if source == Source::LinkLocal => {
                Ipv6Addr::new(0xfe80, 0, 0, 0, 0, 0, 0x99, number).into()
            }
            IpAddr::V6(_) => Ipv6Addr::new(0x2001, 0xdb8, 0x99, number, 0, 0, 0, 1).into(),
        };
        let payload = make(from, to);
        let direction = if way == Way::In { "in" } else { "out" };
        let family = if to.is_ipv4() { "v4" } else { "v6" };
        let name = format!("{direction} {family} {what}");
        assert!(self.all.iter().all(|shot| shot.name != name), "{name} is there twice");
        let packet = packet::ip(from, to, protocol, hop_limit, &payload);
        self.all.push(Shot { name, way, from, packet });
    }
}
