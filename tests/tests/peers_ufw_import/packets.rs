//! The packets for each rule set. There are no pings and no multicast, where the policy of nfguard
//! decides. No two packets come from one IPv6 /64, which a limit of nfguard counts as one source.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

use nfguard_lab::World;
use nfguard_tests::fate::{Shot, Way};

use crate::generate::{Dice, PORTS, RuleSet};

/// The number of packets for each rule set.
const COUNT: u8 = 60;

pub(crate) fn shots(set: &RuleSet) -> Vec<Shot> {
    // Other random numbers than those of the rules.
    let mut dice = Dice(!set.seed);
    (1..=COUNT).map(|number| shot(&mut dice, number)).collect()
}

fn shot(dice: &mut Dice, number: u8) -> Shot {
    let way = dice.of(&[Way::In, Way::In, Way::In, Way::In, Way::Out, Way::Out, Way::Route]);
    let is_v4 = dice.once_in(2);
    let via_container = match way {
        // All IPv6 sources are in one /64, and a limit of ufw passes five packets of each.
        Way::In => dice.once_in(4) && (is_v4 || number.is_multiple_of(15)),
        Way::Out => false,
        Way::Route => dice.once_in(2),
    };
    let of_family = |v4: IpAddr, v6: IpAddr| if is_v4 { v4 } else { v6 };
    let from = match (via_container, is_v4) {
        (true, true) => Ipv4Addr::new(172, 17, 1, number).into(),
        (true, false) => v6([0xd0c, 0, 0, u16::from(number) + 0x100]),
        // Rules name only these two protocols.
        (false, true) if number == 1 => Ipv4Addr::new(192, 0, 2, 7).into(),
        (false, false) if number == 1 => v6([0xb, 5, 0, 5]),
        (false, true) => {
            let network = dice.of(&[[203, 0, 113], [203, 0, 113], [192, 0, 2]]);
            let [a, b, c] = network;
            // In either half, inside and outside of the narrower prefix of a rule.
            let last = number + 8 + dice.of(&[0, 64, 128]);
            Ipv4Addr::new(a, b, c, last).into()
        }
        (false, false) => {
            let network = dice.of(&[0xa, 0xa, 0xb]);
            let half = dice.of(&[0x100, 0x180]);
            v6([network, half + u16::from(number), 0, 1])
        }
    };
    let to = match (way, via_container) {
        (Way::In, false) => of_family(World::HOST_V4, World::HOST_V6),
        (Way::In, true) => of_family([172, 17, 0, 1].into(), v6([0xd0c, 0, 0, 1])),
        (Way::Route, false) => of_family(World::CONTAINER_V4, World::CONTAINER_V6),
        (Way::Out, _) | (Way::Route, true) => match dice.below(4) {
            0 => of_family([192, 0, 2, 200].into(), v6([7, 0, 0, 1])),
            1 if way == Way::Out => of_family(World::CONTAINER_V4, World::CONTAINER_V6),
            _ => of_family(World::INTERNET_V4, World::INTERNET_V6),
        },
    };
    let protocol = dice.of(&[6, 6, 6, 6, 17, 17, 17, 17, 47, 50]);
    let port = dice.of(&PORTS);
    let source = if dice.once_in(12) { 4000 } else { 40_000 };
    // Enough packets that a limit of ufw refuses the last ones.
    let is_burst =
        way == Way::In && !via_container && matches!(protocol, 6 | 17) && dice.once_in(4);
    let times = if is_burst { 7 } else { 1 };
    let text = format!(
        "{way:?}{} {protocol} port {port} from {from} port {source} to {to}, {times} times",
        if via_container { " via container" } else { "" }
    );
    Shot { text, way, via_container, protocol, ports: (source, port), from, to, times }
}

fn v6([network, more, high, low]: [u16; 4]) -> IpAddr {
    Ipv6Addr::new(0x2001, 0xdb8, network, more, 0, 0, high, low).into()
}
