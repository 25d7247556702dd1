//! Connections that are open already when a ban comes.

use nfguard_netlink::{Connection, ConnectionTuple, IpVersion, PerIpVersion};

use super::Bans;
use crate::address;
use crate::error::Error;
use crate::layout;
use crate::target::{Port, Target};

impl Bans {
    /// Makes the kernel forget the connections of these targets, also those that this host opened
    /// to them, and returns their number. Call it after the ban, or the next packet makes the
    /// connection known again.
    ///
    /// A ban cuts an open connection without this: none of the peer's packets arrives any more, and
    /// a program that waits for one waits until its own time is over. A forgotten connection is
    /// also gone for address translation, so that a container's answers leave no more, and for a
    /// flowtable, which leads packets of open connections past every rule. Reads all tracked
    /// connections: 100,000 take 70 ms.
    ///
    /// # Errors
    /// The kernel's refusal. Without connection tracking there is nothing to forget.
    pub fn forget_connections(
        &mut self,
        targets: &[(Target, Option<Port>)],
    ) -> Result<usize, Error> {
        let (from_ports, from_all): (Vec<_>, Vec<_>) =
            targets.iter().partition(|(_, port)| port.is_some());
        let from_all = PerIpVersion::from_fn(|version| {
            let networks = from_all.iter().map(|(target, _)| target.network());
            let of_version = networks.filter(|network| IpVersion::of(network.ip()) == version);
            address::merged(of_version.map(address::range_of))
        });
        let is_meant = |connection: &Connection| {
            let ConnectionTuple { protocol, destination_port, .. } = connection.original;
            connection.senders().into_iter().any(|sender| {
                let number = address::number(sender);
                address::overlaps_any(&from_all[IpVersion::of(sender)], (number, number))
                    || from_ports.iter().any(|(target, port)| {
                        let is_port = |port: Port| {
                            layout::protocol_number(port.protocol) == protocol
                                && port.number == destination_port
                        };
                        target.contains(sender) && port.is_some_and(is_port)
                    })
            })
        };
        Ok(self.nft.forget_connections(is_meant)?)
    }
}
