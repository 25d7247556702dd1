//! Namespaces of a test.

use std::io;
use std::process::Command;

use crate::nft::nft;
use crate::wait::TIMEOUT;
use nfguard_lab::{Netns, Probe, World};

/// Makes a new network namespace.
///
/// # Panics
/// If this process may make none.
#[must_use]
pub fn netns() -> Netns {
    unwrap_namespace(Netns::new())
}

/// Makes a host and the internet.
///
/// # Panics
/// If this process may make no namespace.
#[must_use]
pub fn world() -> World {
    unwrap_namespace(World::new())
}

/// Makes a host with a container, and the internet.
///
/// # Panics
/// If this process may make no namespace.
#[must_use]
pub fn world_with_container() -> World {
    unwrap_namespace(World::with_container())
}

/// Runs `ip` with these words.
///
/// # Panics
/// If `ip` fails.
#[track_caller]
pub fn ip(netns: &Netns, arguments: &str) {
    let output = netns.run(|| Command::new("ip").args(arguments.split(' ')).output());
    let output = output.unwrap_or_else(|error| panic!("ip: {error}"));
    assert!(output.status.success(), "ip {arguments}: {output:?}");
}

/// Keeps what host and internet know of each other's links. A kernel that is slow fails to ask again, and
/// then loses the packet that it asked for.
///
/// # Panics
/// If they do not reach each other.
#[track_caller]
pub fn keep_neighbours(world: &World) {
    for address in [World::HOST_V4, World::HOST_V6] {
        let outcome = Probe::ping(&world.internet, address).timeout(TIMEOUT).run();
        assert!(outcome.passed(), "{address}: {outcome}");
    }
    for netns in [&world.host, &world.internet] {
        let known = netns.run(|| Command::new("ip").args(["neigh", "show"]).output());
        let known = String::from_utf8(known.expect("ip starts").stdout).expect("UTF-8");
        for line in known.lines() {
            let words: Vec<&str> = line.split(' ').collect();
            if let [address, "dev", interface, "lladdr", link, ..] = words[..] {
                ip(
                    netns,
                    &format!("neigh replace {address} dev {interface} lladdr {link} nud permanent"),
                );
            }
        }
    }
}

/// Sends the first packet of each TCP connection once. A slow kernel sends it again, and what counts
/// connections by their first packets counts that as well.
///
/// # Panics
/// If nft refuses it.
#[track_caller]
pub fn send_syn_once(netns: &Netns) {
    nft(
        netns,
        "table inet once {
            set v4 { type ipv4_addr . inet_service; flags dynamic; size 65535; }
            set v6 { type ipv6_addr . inet_service; flags dynamic; size 65535; }
            chain first {
                ip saddr . tcp sport @v4 drop
                ip6 saddr . tcp sport @v6 drop
                add @v4 { ip saddr . tcp sport }
                add @v6 { ip6 saddr . tcp sport }
            }
            chain out {
                type filter hook output priority -400
                tcp flags & (syn | ack | rst) == syn jump first
            }
        }\n",
    );
}

fn unwrap_namespace<T>(place: io::Result<T>) -> T {
    place.unwrap_or_else(|error| panic!("{error}\nrun me with `cargo xtask netns-test`"))
}
