//! What an open connection does not let in.

use std::fs;
use std::io::ErrorKind;
use std::net::SocketAddr;

use nfguard_lab::{Probe, packet};
use nfguard_netlink::{protocol, tcp_flag};
use nfguard_tests::nft::nft;
use nfguard_tests::place::world;
use nfguard_tests::wait::wait_until;
use socket2::{Domain, Socket, Type};

use super::pair::{First, Port, udp};
use super::{DENIED, HOST, SILENT, STRANGER, VISITOR, assert_tracked, load};

#[test]
fn nothing_new_gets_in_by_an_open_connection() {
    let world = world();
    let (host, internet) = (&world.host, &world.internet);
    // The other side of what is only being opened does not answer.
    nft(
        internet,
        "table inet silent {
            chain in {
                type filter hook input priority 0
                tcp dport { 7, 7777 } drop
            }
        }\n",
    );
    let mut pairs = Vec::new();
    let mut ports = Vec::new();
    for (ours, theirs) in HOST.into_iter().zip(VISITOR) {
        for kind in [protocol::TCP, protocol::UDP] {
            let at = SocketAddr::new(ours, DENIED);
            let port = Port::open(host, kind, at);
            pairs.push(port.connect(internet, theirs, host, at));
            ports.push(port);
            ports.push(Port::open(host, kind, SocketAddr::new(ours, DENIED + 1)));
        }
    }
    let syn = packet::tcp(STRANGER[0], HOST[0], 7, DENIED, tcp_flag::SYN);
    let syn = packet::ip(STRANGER[0], HOST[0], protocol::TCP, 64, &syn);
    internet.send_raw(None, &syn).expect("sent");
    let _opening = host.run(|| {
        let socket = Socket::new(Domain::IPV4, Type::STREAM, None).expect("a socket");
        socket.set_nonblocking(true).expect("a socket");
        let to = SocketAddr::new(VISITOR[0], SILENT);
        assert!(socket.connect(&to.into()).is_err(), "it waits");
        socket
    });
    wait_until("a connection is half open", || {
        let sockets = host.run(|| fs::read_to_string("/proc/thread-self/net/tcp"));
        // `TCP_SYN_RECV`
        sockets.expect("/proc is mounted").lines().any(|line| line.contains(" 03 "))
    });
    load(host);
    assert_tracked(host, &pairs);

    for (pair, ((ours, theirs), stranger)) in
        pairs.chunks(2).zip(HOST.into_iter().zip(VISITOR).zip(STRANGER))
    {
        let known = [pair[0].client.ends().0.port(), pair[1].client.ends().0.port()];
        let at = SocketAddr::new(ours, DENIED);
        // From another port, to another port, from another peer.
        let tries = [
            Probe::tcp(internet, at).from(theirs),
            Probe::tcp(internet, SocketAddr::new(ours, DENIED + 1)).from(theirs),
            Probe::tcp(internet, at).from(stranger).source_port(known[0]),
        ];
        for probe in tries {
            let outcome = probe.run();
            assert!(!outcome.passed(), "{outcome}");
        }
        let strangers = udp(internet, SocketAddr::new(stranger, known[1]));
        let another = udp(internet, SocketAddr::new(theirs, 0));
        for port in [DENIED, DENIED + 1] {
            for socket in [&strangers, &another] {
                socket.send_to(b"x", SocketAddr::new(ours, port)).expect("sent");
            }
        }
        for port in &ports {
            if let Port::Udp(socket) = port {
                let to = SocketAddr::new(stranger, known[1]);
                let same = socket.local_addr().is_ok_and(|it| it.is_ipv4() == to.is_ipv4());
                assert!(!same || socket.send_to(b"x", to).is_err(), "it gets out");
            }
        }
        // They come after what was sent before.
        pair.iter().for_each(|pair| pair.assert_open(First::Client));
    }
    for port in ports {
        if let Port::Udp(socket) = port {
            socket.set_nonblocking(true).expect("a socket");
            let heard = socket.recv(&mut [0; 8]);
            assert!(heard.is_err_and(|error| error.kind() == ErrorKind::WouldBlock));
        }
    }
}
