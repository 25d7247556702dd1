//! Every packet that the policy of the write-up may decide on.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

use nfguard_lab::{World, packet};

use crate::shots::{MDNS_V4, MDNS_V6, Shot, Shots, Source, UPNP_V4, UPNP_V6, Way};

/// Returns all packets, each with its own name. Each world has another link-local address of the
/// host.
pub(crate) fn all(host_link_local: Ipv6Addr) -> Vec<Shot> {
    let mut shots = Shots::default();
    for host in [World::HOST_V4, World::HOST_V6] {
        incoming(&mut shots, host);
    }
    incoming_v4(&mut shots);
    incoming_v6(&mut shots, host_link_local.into());
    for internet in [World::INTERNET_V4, World::INTERNET_V6] {
        outgoing(&mut shots, internet);
    }
    outgoing_v4(&mut shots);
    outgoing_v6(&mut shots);
    shots.all
}

fn incoming(shots: &mut Shots, host: IpAddr) {
    for port in [1, 21, 22, 23, 25, 53, 79, 80, 81, 139, 442, 443, 444, 445, 3000, 8080, 65535] {
        tcp(shots, Way::In, host, port, "", packet::SYN);
    }
    for port in [22, 53, 67, 68, 80, 123, 137, 138, 443, 546, 547, 1900, 5353, 33434, 65535] {
        udp(shots, Way::In, host, "", (40_000, port));
    }
    for source in [53, 123, 443] {
        udp(shots, Way::In, host, &format!(" unsolicited answer from {source}"), (source, 50_000));
    }
    for (what, flags) in odd_flags() {
        for port in [22, 80, 8080] {
            tcp(shots, Way::In, host, port, what, flags);
        }
    }
    for port in [80, 8080] {
        let head = (Source::Routed, host);
        shots.add(
            Way::In,
            &format!("tcp {port} with a bad checksum"),
            head,
            (6, 64),
            |from, to| {
                let mut segment = packet::tcp(from, to, 40_000, port, packet::SYN);
                segment[16] ^= 0xff;
                segment
            },
        );
        shots.add(Way::In, &format!("tcp {port} cut short"), head, (6, 64), |from, to| {
            packet::tcp(from, to, 40_000, port, packet::SYN)[..12].to_vec()
        });
    }
    other_protocols(shots, Way::In, host);
}

fn incoming_v4(shots: &mut Shots) {
    let host = World::HOST_V4;
    icmp(shots, Way::In, host);
    for to in [[198, 51, 100, 2], [198, 51, 100, 255], [255, 255, 255, 255]] {
        udp(shots, Way::In, to.into(), &format!(" DHCP to {to:?}"), (67, 68));
        udp(shots, Way::In, to.into(), &format!(" to {to:?}"), (40_000, 137));
        udp(shots, Way::In, to.into(), &format!(" to {to:?}"), (40_000, 9999));
    }
    for (to, port) in [(MDNS_V4, 5353), (UPNP_V4, 1900)] {
        udp(shots, Way::In, to.into(), &format!(" to {to}"), (40_000, port));
        udp(shots, Way::In, to.into(), &format!(" to {to}"), (40_000, port + 1));
    }
    udp(shots, Way::In, MDNS_V4.into(), " to 224.0.0.251", (40_000, 1900));
    udp(shots, Way::In, Ipv4Addr::new(224, 0, 0, 1).into(), " to 224.0.0.1", (40_000, 9999));
    let all_hosts = Ipv4Addr::new(224, 0, 0, 1).into();
    shots.add(Way::In, "IGMP query", (Source::Routed, all_hosts), (2, 1), |_, _| {
        packet::icmp(0x11, 100, &[0; 4])
    });
}

fn incoming_v6(shots: &mut Shots, host_link_local: IpAddr) {
    icmpv6(shots, Way::In, World::HOST_V6);
    let all_nodes = IpAddr::from(Ipv6Addr::new(0xff02, 0, 0, 0, 0, 0, 0, 1));
    for (source, to, what) in [
        (Source::LinkLocal, host_link_local, "link-local to link-local"),
        (Source::LinkLocal, World::HOST_V6, "link-local to global"),
        (Source::LinkLocal, all_nodes, "link-local to all nodes"),
        (Source::Routed, host_link_local, "global to link-local"),
        (Source::Routed, World::HOST_V6, "global to global"),
    ] {
        let head = (source, to);
        let datagram =
            |ports: (u16, u16)| move |from, to| packet::udp(from, to, ports.0, ports.1, b"probe");
        let what = |ports: &str| format!("udp {ports}, {what}");
        shots.add(Way::In, &what("547 to 546"), head, (17, 64), datagram((547, 546)));
        shots.add(Way::In, &what("40000 to 546"), head, (17, 64), datagram((40_000, 546)));
    }
    for (to, port) in [(MDNS_V6, 5353), (UPNP_V6, 1900)] {
        udp(shots, Way::In, to.into(), &format!(" to {to}"), (40_000, port));
        udp(shots, Way::In, to.into(), &format!(" to {to}"), (40_000, port + 1));
    }
    udp(shots, Way::In, all_nodes, " to ff02::1", (40_000, 9999));
    for port in [80, 8080] {
        extension_headers(shots, Way::In, World::HOST_V6, port);
    }
}

fn outgoing(shots: &mut Shots, internet: IpAddr) {
    for port in [22, 25, 52, 53, 54, 79, 80, 81, 123, 443, 444, 465, 853, 6667, 8080, 65535] {
        tcp(shots, Way::Out, internet, port, "", packet::SYN);
    }
    for port in [22, 52, 53, 54, 67, 68, 80, 122, 123, 124, 443, 547, 1900, 5353, 51820, 65535] {
        udp(shots, Way::Out, internet, "", (40_000, port));
    }
    for source in [22, 53, 80, 443] {
        udp(shots, Way::Out, internet, &format!(" from {source}"), (source, 50_000));
        tcp(shots, Way::Out, internet, 50_000, &format!(" from {source}"), packet::SYN);
    }
    for (what, flags) in odd_flags() {
        for port in [443, 8080] {
            tcp(shots, Way::Out, internet, port, what, flags);
        }
    }
    other_protocols(shots, Way::Out, internet);
}

fn outgoing_v4(shots: &mut Shots) {
    icmp(shots, Way::Out, World::INTERNET_V4);
    for to in [[198, 51, 100, 1], [198, 51, 100, 255], [255, 255, 255, 255]] {
        udp(shots, Way::Out, to.into(), &format!(" DHCP to {to:?}"), (68, 67));
        udp(shots, Way::Out, to.into(), &format!(" DHCP as a server to {to:?}"), (67, 68));
        udp(shots, Way::Out, to.into(), &format!(" to {to:?}"), (40_000, 9999));
    }
    for (to, port) in [(MDNS_V4, 5353), (UPNP_V4, 1900)] {
        udp(shots, Way::Out, to.into(), &format!(" to {to}"), (port, port));
    }
}

fn outgoing_v6(shots: &mut Shots) {
    icmpv6(shots, Way::Out, World::INTERNET_V6);
    let servers = IpAddr::from(Ipv6Addr::new(0xff02, 0, 0, 0, 0, 0, 1, 2));
    for (to, what) in [(servers, "all servers"), (World::INTERNET_V6, "one server")] {
        for ports in [(546, 547), (547, 546)] {
            let what = format!("udp {} to {} of {what}", ports.0, ports.1);
            shots.add(Way::Out, &what, (Source::LinkLocal, to), (17, 64), |from, to| {
                packet::udp(from, to, ports.0, ports.1, b"probe")
            });
        }
    }
    for (to, port) in [(MDNS_V6, 5353), (UPNP_V6, 1900)] {
        udp(shots, Way::Out, to.into(), &format!(" to {to}"), (port, port));
    }
    for port in [443, 8080] {
        extension_headers(shots, Way::Out, World::INTERNET_V6, port);
    }
}

fn odd_flags() -> [(&'static str, u8); 8] {
    use packet::{ACK, FIN, PSH, RST, SYN, URG};
    [
        (" NULL", 0),
        (" FIN", FIN),
        (" SYN+FIN", SYN | FIN),
        (" SYN+RST", SYN | RST),
        (" SYN+ACK", SYN | ACK),
        (" ACK", ACK),
        (" RST", RST),
        (" FIN+PSH+URG", FIN | PSH | URG),
    ]
}

fn tcp(shots: &mut Shots, way: Way, to: IpAddr, port: u16, what: &str, flags: u8) {
    let source = what.strip_prefix(" from ").map_or(40_000, |port| port.parse().expect("a port"));
    let head = (Source::Routed, to);
    shots.add(way, &format!("tcp {port}{what}"), head, (6, 64), |from, to| {
        packet::tcp(from, to, source, port, flags)
    });
}

fn udp(shots: &mut Shots, way: Way, to: IpAddr, what: &str, (source, port): (u16, u16)) {
    let head = (Source::Routed, to);
    shots.add(way, &format!("udp {port}{what}"), head, (17, 64), |from, to| {
        packet::udp(from, to, source, port, b"probe")
    });
}

/// Adds every ICMP type in use, unsolicited.
fn icmp(shots: &mut Shots, way: Way, to: IpAddr) {
    for (kind, code) in
        [(0, 0), (3, 1), (3, 3), (3, 4), (4, 0), (5, 1), (8, 0), (9, 0), (10, 0), (11, 0), (12, 0)]
            .into_iter()
            .chain([(13, 0), (15, 0), (17, 0), (42, 0)])
    {
        let head = (Source::Routed, to);
        shots.add(way, &format!("icmp {kind}/{code}"), head, (1, 64), |from, to| {
            packet::icmp(kind, code, &quoted(to, from, 17))
        });
    }
}

/// Adds every ICMPv6 type in use, with valid and wrong hop limits, and with sources on and outside
/// the link.
fn icmpv6(shots: &mut Shots, way: Way, to: IpAddr) {
    for kind in (1..=4).chain(128..=149).chain(151..=155).chain([160, 200]) {
        for (source, word) in [(Source::LinkLocal, "link-local"), (Source::Routed, "global")] {
            for hop_limit in [1, 64, 255] {
                let what = format!("icmpv6 {kind} {word} {hop_limit}");
                shots.add(way, &what, (source, to), (58, hop_limit), |from, to| {
                    // An advertised router with a lifetime would become the gateway of the host.
                    let body = match kind {
                        1..=4 => quoted(to, from, 17),
                        _ => vec![0; 24],
                    };
                    packet::icmpv6(from, to, kind, 0, &body)
                });
            }
        }
    }
}

/// Returns the body of an ICMP error: four bytes and the start of the packet in error.
fn quoted(from: IpAddr, to: IpAddr, protocol: u8) -> Vec<u8> {
    let datagram = packet::udp(from, to, 50_000, 50_001, b"lost");
    [vec![0; 4], packet::ip(from, to, protocol, 64, &datagram)].concat()
}

fn other_protocols(shots: &mut Shots, way: Way, to: IpAddr) {
    let gre = vec![0, 0, 8, 0, 0, 0, 0, 0];
    let esp = vec![0, 0, 1, 0, 0, 0, 0, 1, 1, 2, 3, 4, 5, 6, 7, 8];
    let ah = vec![59, 4, 0, 0, 0, 0, 1, 0, 0, 0, 0, 1, 1, 2, 3, 4, 5, 6, 7, 8, 9, 10, 11, 12];
    let sctp_init = vec![0; 32];
    for (name, number, payload) in [
        ("igmp", 2, vec![0x16, 0, 0, 0, 224, 0, 0, 251]),
        ("ipip", 4, vec![0; 20]),
        ("ipv6", 41, vec![0; 40]),
        ("gre", 47, gre),
        ("esp", 50, esp),
        ("ah", 51, ah),
        ("ospf", 89, vec![0; 24]),
        ("sctp", 132, sctp_init),
        ("udplite", 136, vec![0x9c, 0x40, 0, 80, 0, 8, 0, 0]),
        ("253", 253, vec![0; 16]),
    ] {
        shots.add(way, name, (Source::Routed, to), (number, 64), |_, _| payload);
    }
}

/// Adds TCP behind each extension header that a firewall must parse or drop.
fn extension_headers(shots: &mut Shots, way: Way, to: IpAddr, port: u16) {
    let padding = [6, 0, 1, 4, 0, 0, 0, 0];
    let routing = |kind: u8, left: u8| {
        let mut header = vec![6, 2, kind, left, 0, 0, 0, 0];
        header.extend([0x20, 0x01, 0x0d, 0xb8, 0, 9, 0, 0, 0, 0, 0, 0, 0, 0, 0, 9]);
        header
    };
    for (name, number, header) in [
        ("hop-by-hop options", 0, padding.to_vec()),
        ("destination options", 60, padding.to_vec()),
        ("routing header 0", 43, routing(0, 1)),
        ("spent routing header 0", 43, routing(0, 0)),
        ("routing header 2", 43, routing(2, 0)),
        ("routing header 4", 43, routing(4, 0)),
    ] {
        let what = format!("tcp {port} behind {name}");
        shots.add(way, &what, (Source::Routed, to), (number, 64), |from, to| {
            [header, packet::tcp(from, to, 40_000, port, packet::SYN)].concat()
        });
    }
}
