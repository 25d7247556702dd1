//! Namespaces of a test.

use std::io;
use std::process::Command;

use nfguard_lab::{Netns, World};

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

fn unwrap_namespace<T>(place: io::Result<T>) -> T {
    place.unwrap_or_else(|error| panic!("{error}\nrun me with `cargo xtask netns-test`"))
}
