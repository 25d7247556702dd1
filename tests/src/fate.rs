//! The fate of packets at a host: accepted, dropped or rejected.

use std::collections::BTreeSet;
use std::io::ErrorKind;
use std::net::IpAddr;

use nfguard_lab::{Netns, World, packet};

use crate::judge::{self, Place};

/// The fate of a packet.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Fate {
    /// The packet reaches the end of its hook.
    Pass,
    /// The packet is dropped, and its sender gets no answer.
    Drop,
    /// The packet is rejected, and its sender gets an answer.
    Reject,
}

/// The direction of a packet, seen from the host.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Way {
    /// To the host.
    In,
    /// From the host.
    Out,
    /// Through the host.
    Route,
}

/// A new packet with a source address of its own.
#[derive(Clone, Debug)]
pub struct Shot {
    /// The name of the packet in messages.
    pub text: String,
    /// The direction, seen from the host.
    pub way: Way,
    /// Whether a container sends the packet, and not the internet.
    pub via_container: bool,
    /// The number of the IP protocol.
    pub protocol: u8,
    /// The source and destination ports.
    pub ports: (u16, u16),
    /// The source address, which no other packet has.
    pub from: IpAddr,
    /// The destination address.
    pub to: IpAddr,
    /// How often the packet is sent, each time from the next source port.
    pub times: u16,
}

impl Shot {
    fn packet(&self, number: u16) -> Vec<u8> {
        let (from, to, (source, port)) = (self.from, self.to, self.ports);
        let source = source + number;
        let payload = match self.protocol {
            6 => packet::tcp(from, to, source, port, packet::SYN),
            17 => packet::udp(from, to, source, port, b"probe"),
            47 => vec![0, 0, 8, 0, 0, 0, 0, 0],
            // An authentication header, and nothing after it.
            51 => [&[59, 4, 0, 0, 0, 0, 1, 0, 0, 0, 0, 1][..], &[0; 12]].concat(),
            _ => vec![0x16, 0, 0, 0, 0, 0, 1, 0, 0, 0, 0, 1, 0, 0, 0, 0],
        };
        packet::ip(from, to, self.protocol, 64, &payload)
    }
}

/// Sends all packets in a world whose rules are loaded.
///
/// # Panics
/// If a packet cannot be sent.
pub fn send(world: &World, shots: &[Shot]) {
    for netns in others(world).into_iter().chain([&world.host]) {
        judge::install(netns);
    }
    let sender = |netns: &Netns| netns.raw_sender().expect("raw sockets can be made");
    let (host, internet) = (sender(&world.host), sender(&world.internet));
    let container = world.container.as_ref().map(sender);
    for shot in shots {
        let sender = match (shot.way, &container) {
            (Way::Out, _) => &host,
            (_, Some(container)) if shot.via_container => container,
            _ => &internet,
        };
        for number in 0..shot.times {
            match sender.send(&shot.packet(number)) {
                Err(error) if error.kind() == ErrorKind::PermissionDenied => {}
                result => result.unwrap_or_else(|error| panic!("{}: {error}", shot.text)),
            }
        }
    }
}

/// Returns the fate of each packet and how often it passed. Returns `None` while a packet is still
/// on its way to the host.
///
/// # Panics
/// If nft is not installed.
pub fn fates(world: &World, shots: &[Shot]) -> Option<Vec<(Fate, u64)>> {
    let places = judge::counted(&world.host);
    let arrived = |shot: &Shot| places.get(&(Place::Arrived, shot.from)).copied().unwrap_or(0);
    let is_here = |shot: &Shot| shot.way == Way::Out || arrived(shot) >= u64::from(shot.times);
    if !shots.iter().all(is_here) {
        return None;
    }
    let answered: BTreeSet<IpAddr> =
        others(world).iter().flat_map(|netns| judge::seen(netns, Place::Answered)).collect();
    let fate = |shot: &Shot| {
        let end = match shot.way {
            Way::In => Place::LetIn,
            Way::Out => Place::LetOut,
            Way::Route => Place::LetThrough,
        };
        match places.get(&(end, shot.from)) {
            Some(packets) => (Fate::Pass, *packets),
            None if answered.contains(&shot.from) => (Fate::Reject, 0),
            None => (Fate::Drop, 0),
        }
    };
    Some(shots.iter().map(fate).collect())
}

fn others(world: &World) -> Vec<&Netns> {
    [&world.internet].into_iter().chain(&world.container).collect()
}
