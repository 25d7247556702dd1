//! Packets that are sent to banned addresses. They pass where they need no answer, unless the
//! policy drops them.

use std::net::{IpAddr, SocketAddr};
use std::time::Duration;

use nfguard_lab::{Netns, Probe, World, packet};
use nfguard_tests::nft::{listed, nft};
use nfguard_tests::place::world_with_container;
use nfguard_tests::program::{Answer, TempFile, nfguard};
use nfguard_tests::wait::TIMEOUT;

const BANNED: [&str; 2] = ["203.0.113.66", "2001:db8:66::1"];
/// The destination of a control packet. When it arrives, earlier packets have arrived, too, or
/// never will.
const OTHER: [&str; 2] = ["203.0.113.67", "2001:db8:67::1"];

fn load(world: &World, keys: &str) {
    let text = format!(
        r#"{{ "version": 1, {keys}
            "rules": [{{ "action": "allow", "direction": "out", "proto": "udp", "port": 53 }}] }}"#
    );
    let policy = TempFile::new("outgoing.json", &text);
    assert_succeeded(&nfguard(&world.host, &["load".as_ref(), policy.as_ref()]));
}

fn assert_succeeded(answer: &Answer) {
    assert_eq!(answer.status, Some(0), "{answer:?}");
}

fn ban(world: &World, arguments: &[&str]) {
    assert_succeeded(&nfguard(&world.host, &[&["ban"], arguments].concat()));
}

/// Reports whether a datagram to this address leaves the host.
fn arrives(world: &World, from: &Netns, to: &str) -> bool {
    arrives_at(world, from, to, to)
}

/// Reports whether a datagram to this address leaves the host for another address.
fn arrives_at(world: &World, from: &Netns, to: &str, at: &str) -> bool {
    let to: IpAddr = to.parse().expect("an address");
    let at: IpAddr = at.parse().expect("an address");
    let other: IpAddr = OTHER[usize::from(to.is_ipv6())].parse().expect("an address");
    let mut arrivals = world.internet.capture().expect("captures");
    for to in [to, other] {
        let probe = Probe::udp(from, SocketAddr::new(to, 53)).timeout(Duration::from_millis(1));
        assert!(!probe.run().passed(), "nothing answers there");
    }
    let mut came = false;
    let last = arrivals.wait(TIMEOUT, |bytes| {
        let destination = packet::destination(bytes);
        came |= destination == Some(at);
        destination == Some(other)
    });
    assert!(last.expect("captures").is_some(), "nothing comes out at all");
    came
}

/// Reports whether datagrams arrive from the host and from its container.
fn all_arrive(world: &World, to: &str) -> [bool; 2] {
    [&world.host, world.container.as_ref().expect("made with one")]
        .map(|from| arrives(world, from, to))
}

#[test]
fn outgoing_packets_to_banned_addresses_are_dropped_where_the_policy_says_so() {
    let world = world_with_container();
    load(&world, "");
    ban(&world, &BANNED);
    for to in BANNED {
        assert_eq!(all_arrive(&world, to), [true; 2], "{to}: not asked for");
    }
    load(&world, r#""ban_outgoing": true,"#);
    for to in BANNED {
        assert_eq!(all_arrive(&world, to), [false; 2], "{to}");
    }
    // An address that is banned later, by a prefix of another length, and one that is not banned.
    assert_eq!(all_arrive(&world, "192.0.2.9"), [true; 2]);
    ban(&world, &["192.0.2.0/24"]);
    assert_eq!(all_arrive(&world, "192.0.2.9"), [false; 2]);
    load(&world, "");
    for to in BANNED {
        assert_eq!(all_arrive(&world, to), [true; 2], "{to}: no longer asked for");
    }
    let table = listed(&world.host, "nfguard_bans");
    assert!(!table.contains("outgoing") && !table.contains("hook postrouting"), "{table}");
}

/// DNAT leads to the banned what seemed to go elsewhere, and elsewhere what seemed to go to the banned.
#[test]
fn the_destination_that_counts_is_the_one_behind_nat() {
    let world = world_with_container();
    nft(
        &world.host,
        "table inet nat {
            chain led {
                ip daddr 10.43.0.1 udp dport 53 dnat ip to 203.0.113.66
                ip6 daddr 2001:db8:43::1 udp dport 53 dnat ip6 to 2001:db8:66::1
                ip daddr 203.0.113.68 udp dport 53 dnat ip to 203.0.113.69
            }
            chain out { type nat hook output priority -100; jump led; }
            chain pre { type nat hook prerouting priority dstnat; jump led; }
        }\n",
    );
    load(&world, r#""ban_outgoing": true,"#);
    let service = ["10.43.0.1", "2001:db8:43::1"];
    let from = [&world.host, world.container.as_ref().expect("made with one")];
    for from in from {
        for (to, at) in service.into_iter().zip(BANNED) {
            assert!(arrives_at(&world, from, to, at), "{to}: not banned yet");
        }
    }
    ban(&world, &BANNED);
    ban(&world, &["203.0.113.68"]);
    for from in from {
        for (to, at) in service.into_iter().zip(BANNED) {
            assert!(!arrives_at(&world, from, to, at), "{to}: leads to {at}");
        }
        assert!(
            arrives_at(&world, from, "203.0.113.68", "203.0.113.69"),
            "it does not go to the banned"
        );
    }
}

/// The table of an nfguard that looked at what this host sends before DNAT.
#[test]
fn an_older_table_of_bans_judges_where_packets_leave_after_a_load() {
    let world = world_with_container();
    load(&world, r#""ban_outgoing": true,"#);
    ban(&world, &BANNED);
    nft(
        &world.host,
        "delete chain inet nfguard_bans postrouting
         add chain inet nfguard_bans output { type filter hook output priority raw; }
         add chain inet nfguard_bans forward { type filter hook forward priority raw; }
         add rule inet nfguard_bans output goto outgoing
         add rule inet nfguard_bans forward goto outgoing\n",
    );
    load(&world, r#""ban_outgoing": true,"#);
    let table = listed(&world.host, "nfguard_bans");
    assert!(table.contains("hook postrouting"), "{table}");
    assert!(!table.contains("hook output") && !table.contains("hook forward"), "{table}");
    assert_eq!(all_arrive(&world, BANNED[0]), [false; 2]);
}

#[test]
fn a_ban_by_port_and_a_never_ban_entry_do_not_stop_outgoing_packets() {
    let world = world_with_container();
    load(&world, r#""ban_outgoing": true,"#);
    ban(&world, &["203.0.113.66", "--port", "53/udp"]);
    assert_eq!(all_arrive(&world, "203.0.113.66"), [true; 2]);
    ban(&world, &["203.0.113.68", "2001:db8:68::1"]);
    load(&world, r#""ban_outgoing": true, "never_ban": ["203.0.113.68", "2001:db8:68::/64"],"#);
    assert_eq!(all_arrive(&world, "203.0.113.68"), [true; 2]);
    assert_eq!(all_arrive(&world, "2001:db8:68::1"), [true; 2]);
}

#[test]
fn the_outgoing_switch_outlives_the_policy_as_bans_do() {
    let world = world_with_container();
    load(&world, r#""ban_outgoing": true,"#);
    ban(&world, &BANNED);
    assert_succeeded(&nfguard(&world.host, &["unload"]));
    assert_eq!(all_arrive(&world, BANNED[0]), [false; 2]);
    assert_succeeded(&nfguard(&world.host, &["unload", "--all"]));
    assert_eq!(all_arrive(&world, BANNED[0]), [true; 2]);
}
