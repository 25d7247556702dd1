//! The operations that the tests need of Docker: from a real engine, or from its replayed ruleset.

use nfguard_tests::wait::TIMEOUT;
use std::env;
use std::fs;
use std::net::IpAddr;
use std::path::PathBuf;
use std::thread;
use std::time::{Duration, Instant};

/// A host with three containers.
///
/// | Container | Network | Publishes |
/// |---|---|---|
/// | `web` | docker0, IPv4 and IPv6 | 80 → 8080, 443 → 8443, 443/udp → 8444, 9000, 9000/udp |
/// | `two` | br-backend, IPv4 only | 4443 → 8443, 9443 → 8443 |
/// | `three` | br-backend | nothing |
pub(crate) trait Docker: Sync {
    /// Reports whether docker-proxy answers where no NAT rule does.
    fn has_proxy(&self) -> bool;
    /// Reports whether a container sees the addresses of its IPv6 clients.
    fn translates_ipv6(&self) -> bool;
    /// Reports whether neighbours can route to published ports. Newer engines prevent it.
    fn lets_neighbours_route_to_published_ports(&self) -> bool;
    fn address(&self, container: &str) -> (IpAddr, Option<IpAddr>);
    /// Reports whether a container reaches this address or name, and port.
    fn reaches(&self, container: &str, kind: Kind, to: &str, milliseconds: u32) -> bool;
    /// Makes the network and the containers.
    fn set_up(&self);
    fn restart(&self);
    /// Makes `web` again, with new addresses.
    fn move_web(&self);
    /// Makes a network with a container that publishes 9444.
    fn add_network(&self);
    fn remove_network(&self);
    /// Returns the rules of Docker that nft does not list.
    fn rules(&self) -> String;
    fn check_health(&self);
}

/// The protocol of a connection.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Kind {
    Tcp,
    Udp,
}

impl Kind {
    /// Returns the argument of the responder.
    pub(crate) fn word(self) -> &'static str {
        match self {
            Kind::Tcp => "tcp",
            Kind::Udp => "udp",
        }
    }
}

/// Returns the path of the program in the image.
pub(crate) fn responder() -> PathBuf {
    let place = env::var_os("NFGUARD_RESPONDER").filter(|place| !place.is_empty());
    place.expect("run me with `cargo xtask netns-test`").into()
}

pub(crate) fn poll(what: &str, mut is_so: impl FnMut() -> bool) {
    let deadline = Instant::now() + TIMEOUT;
    while !is_so() {
        assert!(Instant::now() < deadline, "never: {what}");
        thread::sleep(Duration::from_millis(30));
    }
}

/// Returns the control groups of this name, one in each hierarchy.
pub(crate) fn cgroups(name: &str) -> Vec<PathBuf> {
    let top = PathBuf::from("/sys/fs/cgroup");
    let hierarchies = fs::read_dir(&top).into_iter().flatten().flatten();
    let all = hierarchies.map(|entry| entry.path()).chain([top]);
    all.map(|hierarchy| hierarchy.join(name)).filter(|group| group.is_dir()).collect()
}
