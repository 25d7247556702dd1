//! The never-ban list of a host, from its facts.

use std::io;
use std::time::SystemTime;

use ipnetwork::IpNetwork;
use nfguard_host::{HostFacts, NetworkBehind, SshSession};

use crate::day::Moment;
use crate::never_ban::{NeverBan, NeverBanEntry, NeverBanKind};

impl NeverBan {
    /// Returns the list of this thread's network namespace: loopback, the addresses of all
    /// interfaces, the gateways of all routing tables, and the name servers of `/etc/resolv.conf`,
    /// of systemd-resolved and of NetworkManager, and the networks behind this host: of containers,
    /// guests and peers of tunnels. Beside these, the peer of the SSH session that this process was
    /// started from, through `sudo` too, and the peers of the other SSH logins that are open.
    ///
    /// All routes are read for it: on a router, a million take about 0.2 s. To hear of what could not be
    /// read, as [`HostFacts::problems`], read the facts and give them to [`NeverBan::of_host`].
    ///
    /// # Errors
    /// The kernel does not answer, or a file cannot be read. An absent file names no server.
    pub fn of_this_host() -> io::Result<NeverBan> {
        let session = SshSession::of_this_process().ok().flatten();
        Ok(NeverBan::of_host(&HostFacts::read()?, session.as_ref()))
    }

    /// Returns the list of a host with these facts, for who has read them already. A session's peer
    /// stays on the list of other programs for a week.
    #[must_use]
    pub fn of_host(facts: &HostFacts, session: Option<&SshSession>) -> NeverBan {
        let HostFacts { addresses, gateways, name_servers, behind, ssh_peers, problems: _ } = facts;
        let own = |interface: &String| NeverBanKind::OwnAddress { interface: interface.clone() };
        let addresses = addresses.iter().map(|it| (it.address, own(&it.interface)));
        let gateways = gateways.iter().map(|address| (*address, NeverBanKind::Gateway));
        let servers = name_servers.iter().map(|address| (*address, NeverBanKind::NameServer));
        let all = addresses.chain(gateways).chain(servers);
        let entries = all
            .filter(|(address, _)| !address.is_loopback())
            .map(|(address, kind)| NeverBanEntry { network: address.into(), kind });
        let behind =
            behind.iter().filter_map(|NetworkBehind { address, prefix_len, interface }| {
                let network = IpNetwork::new(*address, *prefix_len).ok()?;
                let kind = NeverBanKind::Behind { interface: interface.clone() };
                Some(NeverBanEntry { network, kind })
            });
        let mut never_ban = NeverBan::default().with_all(entries.chain(behind));
        never_ban.knows_host = true;
        let peers =
            session.map(|session| session.peer).into_iter().chain(ssh_peers.iter().copied());
        let now = Moment::now();
        peers.fold(never_ban, |never_ban, peer| never_ban.with_ssh_peer(peer, now))
    }
}

impl Moment {
    /// Returns this moment.
    #[must_use]
    pub fn now() -> Moment {
        Moment { calendar: SystemTime::now(), since_boot: nfguard_host::since_boot() }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_fact_of_the_host_is_on_its_list() {
        let address = |text: &str| text.parse().expect("an address");
        let facts = HostFacts {
            addresses: Vec::new(),
            gateways: [address("192.0.2.1"), address("fe80::1")].into(),
            name_servers: vec![address("127.0.0.53"), address("192.0.2.53"), address("192.0.2.1")],
            behind: vec![NetworkBehind {
                address: address("172.17.0.0"),
                prefix_len: 16,
                interface: "docker0".to_owned(),
            }],
            ssh_peers: [address("2001:db8:9::9"), address("fe80::9")].into(),
            problems: Vec::new(),
        };
        let session = "203.0.113.9 50000 192.0.2.2 22".parse().expect("a session");
        let never_ban = NeverBan::of_host(&facts, Some(&session));
        let kinds = |text: &str| {
            let entries = never_ban.entries().iter();
            let of_network = entries.filter(|it| it.network.ip() == address(text));
            of_network.map(|it| it.kind.word()).collect::<Vec<_>>()
        };
        assert_eq!(kinds("192.0.2.1"), ["gateway"], "what it was found as first");
        assert_eq!(kinds("fe80::1"), ["gateway"]);
        assert_eq!(kinds("192.0.2.53"), ["name-server"]);
        assert_eq!(kinds("203.0.113.9"), ["ssh-peer"]);
        assert_eq!(kinds("172.17.0.0"), ["behind"]);
        assert_eq!(kinds("2001:db8:9::"), ["ssh-peer"], "the /64 of the peer");
        assert_eq!(kinds("fe80::9"), ["ssh-peer"]);
        assert_eq!(kinds("127.0.0.53"), [""; 0], "loopback is on the list as a whole");
    }
}
