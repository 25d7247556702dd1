//! SSH logins that the guard has seen, so that no client bans the peer of one.

use std::collections::{BTreeMap, BTreeSet};
use std::io;
use std::net::IpAddr;
use std::time::{Duration, Instant};

use nfguard_host::{TcpConnection, login_grace, recorded_ssh_peers, ssh_connections};

/// Records of logins are read again after this time: a client may ban all the time.
const RECORDS_INTERVAL: Duration = Duration::from_secs(1);

/// The connections to sshd, and since when each is known. The kernel does not tell how old one is.
#[derive(Default)]
pub(super) struct LoginWatch {
    since: BTreeMap<TcpConnection, Instant>,
    next_records: Option<Instant>,
}

impl LoginWatch {
    /// Returns the peers that logind and utmp have; none if they were read a moment ago.
    pub(super) fn recorded(&mut self, now: Instant) -> BTreeSet<IpAddr> {
        if self.next_records.is_some_and(|next| now < next) {
            return BTreeSet::new();
        }
        self.next_records = Some(now + RECORDS_INTERVAL);
        recorded_ssh_peers()
    }

    /// Looks which connections to sshd are open, and returns the peers of those that are logins by
    /// their age. An attacker's is closed before it is that old. If the kernel does not tell, what is
    /// known of them stays.
    pub(super) fn aged(&mut self, now: Instant) -> io::Result<BTreeSet<IpAddr>> {
        Ok(self.see(ssh_connections()?, login_grace(), now))
    }

    fn see(
        &mut self,
        open: Vec<TcpConnection>,
        grace: Option<Duration>,
        now: Instant,
    ) -> BTreeSet<IpAddr> {
        let before = std::mem::take(&mut self.since);
        let since = |connection: &TcpConnection| before.get(connection).copied().unwrap_or(now);
        self.since = open.into_iter().map(|connection| (connection, since(&connection))).collect();
        let is_old = |since: Instant| {
            grace.is_some_and(|grace| now.saturating_duration_since(since) > grace)
        };
        let old = self.since.iter().filter(|(_, since)| is_old(**since));
        old.map(|(connection, _)| connection.peer.ip()).collect()
    }
}

#[cfg(test)]
mod tests {
    use nfguard_host::HostFacts;
    use seccompiler::{
        BpfProgram, SeccompAction, SeccompCmpArgLen, SeccompCmpOp, SeccompCondition, SeccompFilter,
        SeccompRule,
    };

    use super::*;

    /// Has the kernel refuse this thread the sockets that list connections, as one built without them.
    fn deny_listing() {
        let protocol = u64::try_from(libc::NETLINK_SOCK_DIAG).expect("small");
        let (dword, equal) = (SeccompCmpArgLen::Dword, SeccompCmpOp::Eq);
        let condition = SeccompCondition::new(2, dword, equal, protocol).expect("a condition");
        let rule = SeccompRule::new(vec![condition]).expect("a rule");
        let errno = SeccompAction::Errno(libc::EPROTONOSUPPORT.unsigned_abs());
        let arch = std::env::consts::ARCH.try_into().expect("a known machine");
        let rules = [(libc::SYS_socket, vec![rule])].into();
        let filter = SeccompFilter::new(rules, SeccompAction::Allow, errno, arch);
        let filter: BpfProgram = filter.expect("a filter").try_into().expect("a program");
        seccompiler::apply_filter(&filter).expect("applied");
    }

    #[test]
    fn that_the_kernel_does_not_list_connections_is_told_and_no_login_is_forgotten() {
        let (mut watch, now) = (LoginWatch::default(), Instant::now());
        let connection = "203.0.113.9 50000 192.0.2.1 22".parse().expect("a connection");
        watch.see(vec![connection], None, now);
        let problems = std::thread::scope(|scope| {
            let denied = scope.spawn(|| {
                deny_listing();
                watch.aged(now).expect_err("told");
                HostFacts::read().expect("the rest is read").problems
            });
            denied.join().expect("no panic")
        });
        assert_eq!(watch.since.len(), 1);
        assert!(problems.len() == 1 && problems[0].contains("sshd"), "{problems:?}");
        assert_eq!(HostFacts::read().expect("facts").problems, [""; 0], "the control");
    }

    #[test]
    fn only_a_connection_that_stays_open_for_longer_than_sshd_waits_is_a_login() {
        let connection = |port: u16| {
            let text = format!("203.0.113.9 {port} 192.0.2.1 22");
            text.parse::<TcpConnection>().expect("a connection")
        };
        let (mut watch, start) = (LoginWatch::default(), Instant::now());
        let (grace, minute) = (Duration::from_secs(130), Duration::from_secs(60));
        let mut see = |ports: &[u16], grace: Option<Duration>, minutes: u32| {
            let open = ports.iter().map(|port| connection(*port)).collect();
            watch.see(open, grace, start + minute * minutes).len()
        };
        // Each guess has a connection of its own.
        for minutes in 0..9 {
            assert_eq!(see(&[1000 + minutes as u16], Some(grace), minutes), 0);
        }
        assert_eq!(see(&[1], Some(grace), 10), 0);
        assert_eq!(see(&[1, 2], Some(grace), 12), 0);
        assert_eq!(see(&[1, 2], None, 13), 0, "sshd waits without end");
        assert_eq!(see(&[1, 2], Some(grace), 13), 1);
        assert_eq!(see(&[], Some(grace), 20), 0);
    }
}
