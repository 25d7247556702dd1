//! Each pair of ufw commands and policy in two worlds, with the same packets.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};
use std::sync::atomic::{AtomicUsize, Ordering};
use std::thread;
use std::time::{Duration, Instant};

use nfguard_lab::World;
use nfguard_tests::fate::{self, Fate, Shot, Way};
use nfguard_tests::program::TempFile;
use nfguard_tests::ufw::ufw;

use crate::cases::{PAIRS, Pair};
use crate::{needs_namespaces, nfguard_load};

#[test]
fn policies_do_what_the_commands_that_they_translate_do() {
    let next = AtomicUsize::new(0);
    let failures: Vec<String> = thread::scope(|scope| {
        let workers = [(); 4].map(|()| {
            scope.spawn(|| {
                let mut failures = Vec::new();
                while let Some(pair) = PAIRS.get(next.fetch_add(1, Ordering::Relaxed)) {
                    failures.extend(find_deviations(pair));
                }
                failures
            })
        });
        workers.into_iter().flat_map(|worker| worker.join().unwrap()).collect()
    });
    assert!(PAIRS.len() >= 40);
    assert!(failures.is_empty(), "{}", failures.join("\n"));
}

/// Returns the deviations of ufw and of nfguard from the pair.
fn find_deviations(pair: &Pair) -> Vec<String> {
    let shots: Vec<Meant> =
        pair.packets.iter().flat_map(|(fate, text)| shots(*fate, text)).collect();
    let shots: Vec<Meant> =
        shots.into_iter().zip(1..).map(|(shot, at)| shot.numbered(at)).collect();
    for Meant { shot, .. } in &shots {
        let same = shots.iter().filter(|other| other.shot.from == shot.from).count();
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
        for (meant, fate) in shots.iter().zip(fates(world, &shots)) {
            if fate != meant.fate {
                wrong.push(format!("{:?}\n    {}: {who} {fate:?}", pair.ufw, meant.shot.text));
            }
        }
    }
    wrong
}

/// A packet, and its expected fate.
struct Meant {
    fate: Fate,
    shot: Shot,
    /// The given prefix of the source address.
    prefix: u8,
}

/// Returns one packet, or one for each IP version.
fn shots(fate: Fate, text: &str) -> Vec<Meant> {
    let families = if text.contains(" v6 ") || text.contains("::") {
        &[false][..]
    } else if text.contains(" v4 ") || text.contains('.') {
        &[true][..]
    } else {
        &[true, false][..]
    };
    families.iter().map(|is_v4| Meant::read(fate, text, *is_v4)).collect()
}

impl Meant {
    fn read(fate: Fate, text: &str, is_v4: bool) -> Meant {
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
        let (from, mut prefix) = if via_container {
            (of_family([172, 17, 0, 0].into(), v6(0xd0c, 0)), if is_v4 { 16 } else { 64 })
        } else {
            (of_family([203, 0, 113, 0].into(), v6(0x99, 0)), if is_v4 { 24 } else { 64 })
        };
        let ports = (40_000, port);
        let text_of = format!("{} ({})", text, if is_v4 { "v4" } else { "v6" });
        let mut shot =
            Shot { text: text_of, way, via_container, protocol, ports, from, to, times: 1 };
        while let Some(word) = words.next() {
            let value = words.next().unwrap_or_else(|| panic!("{text:?} is cut short"));
            match word {
                "from" => {
                    let whole = if is_v4 { 32 } else { 128 };
                    let (address, length) = value.split_once('/').unwrap_or((value, ""));
                    shot.from = address.parse().expect("an address");
                    prefix = length.parse().unwrap_or(whole);
                }
                "to" => shot.to = value.parse().expect("an address"),
                "sport" => shot.ports.0 = number(value),
                "via" => assert_eq!(value, "container"),
                other => panic!("{text:?}: {other}"),
            }
        }
        Meant { fate, shot, prefix }
    }

    /// Sets the source to the address with this number in the prefix.
    fn numbered(mut self, number: u8) -> Meant {
        self.shot.from = match self.shot.from {
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
}

fn v6(network: u16, host: u16) -> IpAddr {
    Ipv6Addr::new(0x2001, 0xdb8, network, 0, 0, 0, 0, host).into()
}

/// Returns the fate of each packet in a world with loaded rules.
fn fates(world: &World, meant: &[Meant]) -> Vec<Fate> {
    let shots: Vec<Shot> = meant.iter().map(|meant| meant.shot.clone()).collect();
    let expected: Vec<Fate> = meant.iter().map(|meant| meant.fate).collect();
    fate::send(world, &shots);
    let deadline = Instant::now() + Duration::from_secs(20);
    loop {
        let fates: Option<Vec<Fate>> = fate::fates(world, &shots)
            .map(|fates| fates.into_iter().map(|(fate, _)| fate).collect());
        // An answer may still be in flight.
        if fates.as_ref() == Some(&expected) {
            return expected;
        }
        if Instant::now() > deadline {
            return fates
                .unwrap_or_else(|| panic!("a packet was lost on its way: {:?}", shots[0].text));
        }
        thread::sleep(Duration::from_millis(20));
    }
}
