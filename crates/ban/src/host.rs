//! This host's own addresses, gateways and resolvers: banned by mistake, they take the host with
//! them.

use std::fs;
use std::io::{self, ErrorKind};
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

use nix::ifaddrs::getifaddrs;

use crate::never::{HOST, NeverBan};

impl NeverBan {
    /// The list of this thread's network namespace: loopback, the addresses of all interfaces, the
    /// gateways of the main routing table (for IPv6 of all tables), and the name servers of
    /// `/etc/resolv.conf`.
    ///
    /// # Errors
    /// The kernel does not tell. A file that is not there names nobody.
    pub fn of_this_host() -> io::Result<NeverBan> {
        let addresses = getifaddrs()?.filter_map(|interface| {
            let address = interface.address?;
            let v4 = address.as_sockaddr_in().map(|address| IpAddr::V4(address.ip()));
            let v6 = || address.as_sockaddr_in6().map(|address| IpAddr::V6(address.ip()));
            let reason = format!("{HOST}address on {}", interface.interface_name);
            Some((v4.or_else(v6)?, reason))
        });
        // The thread's: the process may be elsewhere.
        let routes_v4 = read("/proc/thread-self/net/route")?;
        let routes_v6 = read("/proc/thread-self/net/ipv6_route")?;
        let gateways = gateways_v4(&routes_v4).map(IpAddr::V4);
        let gateways = gateways.chain(gateways_v6(&routes_v6).map(IpAddr::V6));
        let resolvers = read("/etc/resolv.conf")?;
        let all = addresses
            .chain(gateways.map(|gateway| (gateway, format!("{HOST}gateway"))))
            .chain(name_servers(&resolvers).map(|server| (server, format!("{HOST}name server"))));
        let all = all.filter(|(address, _)| !address.is_loopback());
        Ok(NeverBan::default().and_all(all.map(|(address, reason)| (address.into(), reason))))
    }
}

fn read(path: &str) -> io::Result<String> {
    match fs::read_to_string(path) {
        Err(error) if error.kind() == ErrorKind::NotFound => Ok(String::new()),
        // Without IPv6 there is no such file; with another error it is unknown who to spare.
        result => result.map_err(|error| io::Error::new(error.kind(), format!("{path}: {error}"))),
    }
}

/// The third column of `/proc/net/route`: an address in the machine's byte order, in hexadecimal.
fn gateways_v4(routes: &str) -> impl Iterator<Item = Ipv4Addr> {
    routes.lines().skip(1).filter_map(|line| {
        let gateway = u32::from_str_radix(line.split_whitespace().nth(2)?, 16).ok()?;
        (gateway != 0).then(|| Ipv4Addr::from(gateway.to_ne_bytes()))
    })
}

/// The fifth column of `/proc/net/ipv6_route`: an address as it is sent, in hexadecimal.
fn gateways_v6(routes: &str) -> impl Iterator<Item = Ipv6Addr> {
    routes.lines().filter_map(|line| {
        let gateway = u128::from_str_radix(line.split_whitespace().nth(4)?, 16).ok()?;
        (gateway != 0).then(|| Ipv6Addr::from_bits(gateway))
    })
}

/// The `nameserver` lines of a resolver's configuration (resolv.conf(5)).
fn name_servers(text: &str) -> impl Iterator<Item = IpAddr> {
    text.lines().filter_map(|line| {
        let mut words = line.split_whitespace();
        let server =
            words.next().filter(|word| *word == "nameserver").and_then(|_| words.next())?;
        // A link-local one has its interface behind it.
        server.split('%').next()?.parse().ok()
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn gateways_and_name_servers_are_read_as_the_system_writes_them() {
        let v4 = "Iface\tDestination\tGateway \tFlags\tRefCnt\tUse\tMetric\tMask\t\tMTU\n\
                  eth0\t00000000\t010200C0\t0003\t0\t0\t0\t00000000\t0\n\
                  eth0\t000200C0\t00000000\t0001\t0\t0\t0\t00FFFFFF\t0\n";
        let gateway = if cfg!(target_endian = "little") { [192, 0, 2, 1] } else { [1, 2, 0, 192] };
        assert_eq!(gateways_v4(v4).collect::<Vec<_>>(), [Ipv4Addr::from(gateway)]);
        let v6 = "00000000000000000000000000000000 00 00000000000000000000000000000000 00 \
                  20010db8000100000000000000000001 00000400 00000001 00000000 00000003 eth0\n\
                  fe800000000000000000000000000000 40 00000000000000000000000000000000 00 \
                  00000000000000000000000000000000 00000100 00000001 00000000 00000001 eth0\n";
        let expected: Ipv6Addr = "2001:db8:1::1".parse().expect("an address");
        assert_eq!(gateways_v6(v6).collect::<Vec<_>>(), [expected]);
        let resolvers =
            "# mine\nsearch example.org\nnameserver 192.0.2.53\nnameserver fe80::1%eth0\n";
        let expected: [IpAddr; 2] = [[192, 0, 2, 53].into(), "fe80::1".parse().expect("one")];
        assert_eq!(name_servers(resolvers).collect::<Vec<_>>(), expected);
    }
}
