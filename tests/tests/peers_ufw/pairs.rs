//! Each pair of commands and policy in two worlds, with the same packets.

use std::collections::BTreeSet;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::{Duration, Instant};
use std::{io, thread};

use nfguard_lab::{Netns, World, packet};
use nfguard_tests::judge::{self, Place};
use nfguard_tests::program::TempFile;
use nfguard_tests::ufw::ufw;

use crate::cases::{Fate, PAIRS, Pair};
use crate::{needs_namespaces, nfguard_load};

#[test]
fn policies_do_what_the_commands_that_they_translate_do() {
    let next = AtomicUsize::new(0);
    let failures: Vec<String> = thread::scope(|scope| {
        let workers = [(); 4].map(|()| {
            scope.spawn(|| {
                let mut failures = Vec::new();
                while let Some(pair) = PAIRS.get(next.fetch_add(1, Ordering::Relaxed)) {
                    failures.extend(wrong(pair));
                }
                failures
            })
        });
        workers.into_iter().flat_map(|worker| worker.join().unwrap()).collect()
    });
    assert!(PAIRS.len() >= 40);
    assert!(failures.is_empty(), "{}", failures.join("\n"));
}

/// What came otherwise than the pair says, from either peer.
fn wrong(pair: &Pair) -> Vec<String> {
    let shots: Vec<Shot> =
        pair.packets.iter().flat_map(|(fate, text)| shots(*fate, text)).collect();
    let shots: Vec<Shot> = shots.into_iter().zip(1..).map(|(shot, at)| shot.numbered(at)).collect();
    for shot in &shots {
        let same = shots.iter().filter(|other| other.from == shot.from).count();
        assert_eq!(same, 1, "{}: {} is the source of another packet too", shot.text, shot.from);
    }
    assert!(shots.iter().any(|shot| shot.fate == Fate::Pass), "{:?} has no control", pair.ufw);
    let has_container = pair
        .packets
        .iter()
        .any(|(_, text)| ["route", "container", "172.17."].iter().any(|word| text.contains(word)));
    let world = || {
        let made = if has_container { World::with_container() } else { World::new() };
        made.unwrap_or_else(|error| needs_namespaces(&error))
    };
    let policy = if pair.policy.contains("\"default\"") {
        pair.policy.to_owned()
    } else {
        format!(
            r#""default": {{"in": "drop", "out": "accept", "forward": "drop"}}, {}"#,
            pair.policy
        )
    };
    let policy = format!(
        r#"{{"version": 1, "builtin": {{"ping-out": true}}, "containers": {{"interfaces": []}}, {policy}}}"#
    );
    let (judge, ours) = (world(), world());
    ufw(&judge.host, pair.ufw);
    nfguard_load(&ours.host, TempFile::new("pair.json", &policy));
    let mut wrong = Vec::new();
    for (who, world) in [("ufw", &judge), ("nfguard", &ours)] {
        for (shot, fate) in shots.iter().zip(fates(world, &shots)) {
            if fate != shot.fate {
                wrong.push(format!("{:?}\n    {}: {who} {fate:?}", pair.ufw, shot.text));
            }
        }
    }
    wrong
}

#[derive(Clone, Copy, PartialEq, Eq)]
enum Way {
    In,
    Out,
    Route,
}

struct Shot {
    text: String,
    fate: Fate,
    way: Way,
    via_container: bool,
    protocol: u8,
    ports: (u16, u16),
    from: IpAddr,
    /// How much of `from` is given.
    prefix: u8,
    to: IpAddr,
}

/// One packet, or one for each family.
fn shots(fate: Fate, text: &str) -> Vec<Shot> {
    let families = if text.contains(" v6 ") || text.contains("::") {
        &[false][..]
    } else if text.contains(" v4 ") || text.contains('.') {
        &[true][..]
    } else {
        &[true, false][..]
    };
    families.iter().map(|is_v4| Shot::read(fate, text, *is_v4)).collect()
}

impl Shot {
    fn read(fate: Fate, text: &str, is_v4: bool) -> Shot {
        let mut words = text.split(' ').filter(|word| !matches!(*word, "v4" | "v6"));
        let mut word = || words.next().unwrap_or_else(|| panic!("{text:?} is cut short"));
        let way = match word() {
            "in" => Way::In,
            "out" => Way::Out,
            "route" => Way::Route,
            other => panic!("{text:?}: {other}"),
        };
        let name = word();
        let number = |text: &str| text.parse::<u16>().expect("a port");
        let (protocol, port) = match name {
            "tcp" => (6, number(word())),
            "udp" => (17, number(word())),
            "igmp" => (2, 0),
            "ipv6" => (41, 0),
            "gre" => (47, 0),
            "esp" => (50, 0),
            "ah" => (51, 0),
            other => panic!("{text:?}: {other}"),
        };
        let via_container = text.ends_with(" via container");
        let of_family = |v4: IpAddr, v6: IpAddr| if is_v4 { v4 } else { v6 };
        let to = match (way, via_container) {
            (Way::In, false) => of_family(World::HOST_V4, World::HOST_V6),
            (Way::In, true) => of_family([172, 17, 0, 1].into(), v6(0xd0c, 1)),
            (Way::Route, false) => of_family(World::CONTAINER_V4, World::CONTAINER_V6),
            (Way::Out, _) | (Way::Route, true) => of_family(World::INTERNET_V4, World::INTERNET_V6),
        };
        let (from, prefix) = if via_container {
            (of_family([172, 17, 0, 0].into(), v6(0xd0c, 0)), if is_v4 { 16 } else { 64 })
        } else {
            (of_family([203, 0, 113, 0].into(), v6(0x99, 0)), if is_v4 { 24 } else { 64 })
        };
        let ports = (40_000, port);
        let text_of = format!("{} ({})", text, if is_v4 { "v4" } else { "v6" });
        let mut shot =
            Shot { text: text_of, fate, way, via_container, protocol, ports, from, prefix, to };
        while let Some(word) = words.next() {
            let value = words.next().unwrap_or_else(|| panic!("{text:?} is cut short"));
            match word {
                "from" => {
                    let whole = if is_v4 { 32 } else { 128 };
                    let (address, prefix) = value.split_once('/').unwrap_or((value, ""));
                    shot.from = address.parse().expect("an address");
                    shot.prefix = prefix.parse().unwrap_or(whole);
                }
                "to" => shot.to = value.parse().expect("an address"),
                "sport" => shot.ports.0 = number(value),
                "via" => assert_eq!(value, "container"),
                other => panic!("{text:?}: {other}"),
            }
        }
        shot
    }

    /// Takes the `number`th address of the prefix for its source.
    fn numbered(mut self, number: u8) -> Shot {
        self.from = match self.from {
            IpAddr::V4(from) if self.prefix < 32 => {
                assert!(self.prefix <= 24 || u32::from(number) < 1 << (32 - self.prefix));
                Ipv4Addr::from_bits(from.to_bits() | (u32::from(number) + 1)).into()
            }
            IpAddr::V6(from) if self.prefix < 128 => {
                Ipv6Addr::from_bits(from.to_bits() | (u128::from(number) + 0x100)).into()
            }
            exact => exact,
        };
        self
    }

    fn packet(&self) -> Vec<u8> {
        let (from, to, (source, port)) = (self.from, self.to, self.ports);
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

fn v6(network: u16, host: u16) -> IpAddr {
    Ipv6Addr::new(0x2001, 0xdb8, network, 0, 0, 0, 0, host).into()
}

/// What becomes of each packet in a world whose rules are loaded.
fn fates(world: &World, shots: &[Shot]) -> Vec<Fate> {
    let others: Vec<&Netns> = [&world.internet].into_iter().chain(&world.container).collect();
    for netns in others.iter().chain([&&world.host]) {
        judge::install(netns);
    }
    for shot in shots {
        let sender = match (shot.way, &world.container) {
            (Way::Out, _) => &world.host,
            (_, Some(container)) if shot.via_container => container,
            _ => &world.internet,
        };
        match sender.send_raw(None, &shot.packet()) {
            Err(error) if error.kind() == io::ErrorKind::PermissionDenied => {}
            result => result.unwrap_or_else(|error| panic!("{}: {error}", shot.text)),
        }
    }
    let deadline = Instant::now() + Duration::from_secs(20);
    loop {
        let at_host = |place| judge::seen(&world.host, place);
        let arrived = at_host(Place::Arrived);
        let (let_in, let_out) = (at_host(Place::LetIn), at_host(Place::LetOut));
        let let_through = at_host(Place::LetThrough);
        let answered: BTreeSet<IpAddr> =
            others.iter().flat_map(|netns| judge::seen(netns, Place::Answered)).collect();
        let fate = |shot: &Shot| {
            let end = match shot.way {
                Way::In => &let_in,
                Way::Out => &let_out,
                Way::Route => &let_through,
            };
            if end.contains(&shot.from) {
                Fate::Pass
            } else if answered.contains(&shot.from) {
                Fate::Reject
            } else {
                Fate::Drop
            }
        };
        let fates: Vec<Fate> = shots.iter().map(fate).collect();
        let arrived = shots.iter().all(|shot| shot.way == Way::Out || arrived.contains(&shot.from));
        let as_expected = fates.iter().zip(shots).all(|(fate, shot)| *fate == shot.fate);
        // An answer may still be on its way.
        if arrived && as_expected || Instant::now() > deadline {
            assert!(arrived, "a packet was lost on its way: {:?}", shots[0].text);
            return fates;
        }
        thread::sleep(Duration::from_millis(20));
    }
}
