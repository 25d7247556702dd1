//! Connections that are open when the first rules come.
//!
//! The kernel tracks no connection until a rule asks about one. To the first rules, the next packet
//! of a connection from before would be new, whichever end sends it, and a policy that does not
//! allow new ones would cut it. So the kernel is told of each connection that is open:
//!
//! - before the first table comes, because then no packet meets the rules without its connection;
//! - and once more right after, of those of this host that were opened meanwhile. From then on the
//!   kernel tracks by itself.
//!
//! A socket of this host, or of a container that is routed without address translation, is the proof
//! that a connection is open. What the kernel knows already stays as it is. A load is done as well
//! where all this cannot be.

use std::collections::HashSet;
use std::fs;
use std::net::IpAddr;

use nfguard_host::{TcpConnection, connections_of_containers};
use nfguard_netlink::{
    ConnectionPhase, ConnectionTuple, Error, IpVersion, Nft, OpenConnection, SockDiag, protocol,
};

use crate::context::Context;
use crate::table::ours;

/// Number of connections in one message to the kernel. Before each, its room for more is read again.
const BATCH: usize = 1000;

/// The connections that the kernel was told of.
pub(crate) struct OpenConnections<'c> {
    context: &'c Context,
    known: HashSet<ConnectionTuple>,
    /// Whether the rules hold by now.
    is_loaded: bool,
}

impl<'c> OpenConnections<'c> {
    /// Tells the kernel of all open connections if it holds no policy; else there is nothing to do.
    pub(crate) fn before_first_table(nft: &mut Nft, context: &'c Context) -> Option<Self> {
        if !matches!(nfguard_netlink::read_own_head(nft, &ours()), Ok(None)) {
            return None;
        }
        let mut open = OpenConnections { context, known: HashSet::new(), is_loaded: false };
        let all_tracked = open.track_new(nft);
        open.is_loaded = true;
        all_tracked.then_some(open)
    }

    /// Tells the kernel of those that were opened since it was last told. Returns whether it tracks
    /// all of them.
    pub(crate) fn track_new(&mut self, nft: &mut Nft) -> bool {
        let tracked = self.track(nft);
        if let Err(why) = &tracked {
            (self.context.warn)(&format!("connections that are open now may be cut: {why}"));
        }
        tracked.is_ok()
    }

    fn track(&mut self, nft: &mut Nft) -> Result<(), String> {
        let session = self.context.connection().map(session_tuple);
        let listed = SockDiag::open().and_then(|mut sockets| {
            let open = sockets.connections(|_| true)?;
            Ok((open, sockets.unlisted().clone()))
        });
        let (mut open, read) = match listed {
            Ok((open, unlisted)) if unlisted.is_empty() => (open, Ok(())),
            Ok((open, unlisted)) => {
                let names = [(protocol::TCP, "TCP"), (protocol::UDP, "UDP")];
                let names = names.iter().filter(|(number, _)| unlisted.contains(number));
                let names: Vec<&str> = names.map(|(_, name)| *name).collect();
                (open, Err(format!("the kernel cannot list the sockets of {}", names.join(", "))))
            }
            Err(error) => (Vec::new(), Err(format!("the sockets cannot be read: {error}"))),
        };
        // The operator's own is known without it.
        if let (Some(original), Err(_)) = (session, &read) {
            open.push(OpenConnection { original, phase: ConnectionPhase::Established });
        }
        // Once is enough: it takes long.
        if !self.is_loaded {
            // Where addresses are translated, connections are tracked already. One that is not known
            // there any more would be forwarded without its translation.
            let has_nat = [IpVersion::V4, IpVersion::V6].map(|version| has_nat(nft, version));
            open.extend(connections_of_containers(|local| match local {
                IpAddr::V4(_) => !has_nat[0],
                IpAddr::V6(_) => !has_nat[1],
            }));
        }
        // If there is no room for all, the operator's comes first.
        open.sort_by_key(|it| Some(it.original) != session);
        // What a program connects once the rules hold is theirs to judge. A TCP connection proves that
        // packets went both ways; a UDP socket does not.
        open.retain(|it| !self.is_loaded || it.original.protocol == protocol::TCP);
        open.retain(|it| self.known.insert(it.original));
        let (mut rest, mut tracked) = (open.as_slice(), Ok(()));
        while !rest.is_empty() {
            let count = free_entries().min(BATCH).min(rest.len());
            let (batch, later) = rest.split_at(count);
            if batch.is_empty() {
                let rest = rest.len();
                return Err(format!(
                    "the kernel has too little room to track the last {rest} of them; raise \
                     net.netfilter.nf_conntrack_max"
                ));
            }
            // One that the kernel refuses does not hold up the others.
            if let Err(error) = nft.track_connections(batch) {
                tracked = Err(match error {
                    Error::Io(error) => format!("the kernel does not track all of them: {error}"),
                    error => error.to_string(),
                });
            }
            rest = later;
        }
        read.and(tracked)
    }
}

fn session_tuple(ends: TcpConnection) -> ConnectionTuple {
    ConnectionTuple {
        source: ends.peer.ip(),
        destination: ends.local.ip(),
        protocol: protocol::TCP,
        source_port: ends.peer.port(),
        destination_port: ends.local.port(),
    }
}

/// Whether rules translate addresses, of nf_tables or of the older iptables. What cannot be read may.
fn has_nat(nft: &mut Nft, version: IpVersion) -> bool {
    let legacy = match version {
        IpVersion::V4 => "ip_tables_names",
        IpVersion::V6 => "ip6_tables_names",
    };
    // Without the module there is no such file.
    let legacy = fs::read_to_string(format!("/proc/thread-self/net/{legacy}")).unwrap_or_default();
    legacy.lines().any(|table| table == "nat") || nft.has_nat(version).unwrap_or(true)
}

/// Returns how many more connections the kernel can track with a quarter of its room left for new
/// ones.
fn free_entries() -> usize {
    let setting = |name: &str| {
        let text = fs::read_to_string(format!("/proc/sys/net/netfilter/{name}")).ok()?;
        text.trim().parse().ok()
    };
    free_in(setting("nf_conntrack_max"), setting("nf_conntrack_count"))
}

/// Without the module, nothing is tracked yet. It comes with the first connection. A limit of 0 is
/// none.
fn free_in(max: Option<usize>, count: Option<usize>) -> usize {
    match max {
        None | Some(0) => usize::MAX,
        Some(max) => (max - max / 4).saturating_sub(count.unwrap_or(0)),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_quarter_of_the_table_stays_free() {
        assert_eq!(free_in(Some(262_144), Some(10)), 196_598);
        assert_eq!(free_in(Some(1024), Some(768)), 0);
        assert_eq!(free_in(Some(1024), Some(2000)), 0);
        assert_eq!(free_in(Some(0), Some(2000)), usize::MAX);
        assert_eq!(free_in(None, None), usize::MAX);
    }
}
