//! What is open already when a ban comes.

use nfguard_netlink::{Connection, ConnectionTuple};

use crate::bans::Bans;
use crate::error::Error;
use crate::layout::{self, FAMILIES};
use crate::never;
use crate::target::{Port, Target};

impl Bans {
    /// Makes the kernel forget the connections of these targets, those that this host opened to
    /// them too, and says how many there were. Call it after the ban, or the next packet makes the
    /// connection known again.
    ///
    /// A ban cuts an open connection without this: none of the peer's packets arrives any more,
    /// and what waits for one waits until its own time is over. Forgotten, the connection is also
    /// gone for address translation, so that a container's answers leave no more, and for a
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
        let from_all = FAMILIES.map(|is_v6| {
            let networks = from_all.iter().map(|(target, _)| target.network());
            let of_family = networks.filter(|network| network.is_ipv6() == is_v6);
            never::merged(of_family.map(never::bounds))
        });
        let is_meant = |connection: &Connection| {
            let ConnectionTuple { protocol, destination_port, .. } = connection.original;
            connection.senders().into_iter().any(|sender| {
                let [v4, v6] = &from_all;
                let number = never::number(sender);
                let spans = if sender.is_ipv6() { v6 } else { v4 };
                never::hit(spans, (number, number))
                    || from_ports.iter().any(|(target, port)| {
                        let is_port = |port: Port| {
                            layout::protocol_number(port.protocol) == protocol
                                && port.number == destination_port
                        };
                        target.contains(sender) && port.is_some_and(is_port)
                    })
            })
        };
        Ok(self.kernel.forget_connections(is_meant)?)
    }
}
