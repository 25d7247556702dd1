//! The path that packets to a peer take, and those from it come in by.

use std::fs;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, UdpSocket};

use crate::facts::addresses;

/// Any port: nothing is sent to it.
const DISCARD_PORT: u16 = 9;

/// Returns the address that this host sends from to a peer; `None` if no route leads there. Nothing
/// is sent.
#[must_use]
pub fn source_address(peer: IpAddr) -> Option<IpAddr> {
    let any: IpAddr = match peer {
        IpAddr::V4(_) => Ipv4Addr::UNSPECIFIED.into(),
        IpAddr::V6(_) => Ipv6Addr::UNSPECIFIED.into(),
    };
    let socket = UdpSocket::bind((any, 0)).ok()?;
    socket.connect((peer, DISCARD_PORT)).ok()?;
    socket.local_addr().ok().map(|address| address.ip())
}

/// Returns the interface that has an address of this host, without the label that an address may
/// have (`eth0:1`). All loopback addresses are the loopback interface's.
#[must_use]
pub fn interface_of(address: IpAddr) -> Option<String> {
    let is_same = |own: IpAddr| own == address || own.is_loopback() && address.is_loopback();
    let found = addresses().ok()?.into_iter().find(|own| is_same(own.address))?;
    found.interface.split(':').next().map(str::to_owned)
}

/// Returns the interfaces of default routes, IPv4 first. Reads the main table's routes, and of each
/// route the first next hop.
#[must_use]
pub fn default_interfaces() -> Vec<String> {
    let read = |path| fs::read_to_string(path).unwrap_or_default();
    let (v4, v6) = (read("/proc/net/route"), read("/proc/net/ipv6_route"));
    let mut interfaces = Vec::new();
    for interface in default_routes_v4(&v4).chain(default_routes_v6(&v6)) {
        if !interfaces.contains(&interface) {
            interfaces.push(interface);
        }
    }
    interfaces
}

/// Parses `/proc/net/route`: interface, destination, gateway, flags, three counts, mask.
fn default_routes_v4(text: &str) -> impl Iterator<Item = String> {
    text.lines().filter_map(|line| {
        let fields: Vec<&str> = line.split_whitespace().collect();
        let [interface, destination, _, _, _, _, _, mask, ..] = fields[..] else { return None };
        ([destination, mask] == ["00000000"; 2]).then(|| interface.to_owned())
    })
}

/// Parses `/proc/net/ipv6_route`: destination and its length, source and its length, gateway,
/// metric, two counts, flags, interface. The kernel has a route of its own, on `lo`, that refuses.
fn default_routes_v6(text: &str) -> impl Iterator<Item = String> {
    text.lines().filter_map(|line| {
        let fields: Vec<&str> = line.split_whitespace().collect();
        let [destination, "00", _, "00", _, _, _, _, _, interface] = fields[..] else {
            return None;
        };
        let any = destination.bytes().all(|byte| byte == b'0');
        (any && interface != "lo").then(|| interface.to_owned())
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_default_interface_is_where_the_default_route_leads() {
        let v4 = "Iface\tDestination\tGateway \tFlags\tRefCnt\tUse\tMetric\tMask\t\tMTU\tWindow\tIRTT\n\
                  docker0\t000011AC\t00000000\t0001\t0\t0\t0\t0000FFFF\t0\t0\t0\n\
                  br-lan\t00000000\t016433C6\t0003\t0\t0\t0\t00000000\t0\t0\t0\n";
        assert_eq!(default_routes_v4(v4).collect::<Vec<_>>(), ["br-lan"]);
        let zero = "0".repeat(32);
        let v6 = format!(
            "{zero} 00 {zero} 00 fe800000000000000000000000000001 00000400 00000001 00000000 00000003     eth1\n\
             {zero} 00 {zero} 00 {zero} ffffffff 00000001 00000000 00200200       lo\n\
             20010db8000000000000000000000000 20 {zero} 00 {zero} 00000100 00000001 00000000 00000001     eth2\n"
        );
        assert_eq!(default_routes_v6(&v6).collect::<Vec<_>>(), ["eth1"]);
    }

    #[test]
    fn a_host_reaches_itself_by_its_loopback_interface() {
        let loopback = IpAddr::V4(Ipv4Addr::LOCALHOST);
        assert_eq!(source_address(loopback), Some(loopback));
        assert_eq!(interface_of([127, 0, 0, 9].into()).as_deref(), Some("lo"));
    }
}
