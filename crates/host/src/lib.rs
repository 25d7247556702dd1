//! Facts of a host that a firewall needs: what it must not cut.
//!
//! ```text
//!  rtnetlink         resolv.conf        /proc
//!      │                  │               │
//!      └────────┬─────────┘               ├── SshSession::of_this_process()
//!               ▼                         ├── ssh_connections(), tcp_connections()
//!       HostFacts::read()                 ├── connections_of_containers()
//!                                         └── path_to()
//!   addresses, gateways, name servers, networks behind the host, SSH logins
//! ```
//!
//! Each function reads when it is called, and changes nothing. What it returns is about the network
//! namespace of the calling thread, but for [`connections_of_containers`] and [`NetworkNamespace`]. Read
//! once, and hand the value around.
//!
//! ```
//! use nfguard_host::{HostFacts, SshSession};
//!
//! let facts = HostFacts::read()?;
//! for gateway in &facts.gateways {
//!     println!("the host needs its gateway {gateway}");
//! }
//! if let Ok(Some(session)) = SshSession::of_this_process() {
//!     println!("an operator works from {}", session.peer);
//! }
//! # Ok::<(), std::io::Error>(())
//! ```

use std::time::Duration;

mod bounded;
mod connections;
mod facts;
mod inner_networks;
mod logins;
mod name_servers;
mod namespaces;
mod path;
mod ssh;
mod tcp;

pub use connections::connections_of_containers;
pub use facts::{HostFacts, addresses};
pub use inner_networks::NetworkBehind;
pub use logins::{login_grace, recorded_ssh_peers, ssh_connections};
pub use namespaces::{NetworkNamespace, is_in_other_namespace_than_ancestors};
pub use nfguard_netlink::InterfaceAddress;
pub use path::{Arrival, Path, arrival, path_to};
pub use ssh::{InvalidSession, SshSession};
pub use tcp::{TcpConnection, tcp_connections};

/// Returns the error of a netlink socket as one of files.
fn to_io(error: nfguard_netlink::Error) -> std::io::Error {
    match error {
        nfguard_netlink::Error::Io(error) => error,
        error => std::io::Error::other(error),
    }
}

/// Returns the time since the kernel booted, with the time in which it slept. Who sets the clock does not
/// change it; a time namespace may.
#[must_use]
pub fn since_boot() -> Duration {
    let now = rustix::time::clock_gettime(rustix::time::ClockId::Boottime);
    Duration::try_from(now).unwrap_or_default()
}
