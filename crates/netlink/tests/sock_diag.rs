//! What the kernel answers about sockets, and what is read of it.

use std::net::{IpAddr, SocketAddr};

use nfguard_netlink::{ConnectionPhase, Error, SockDiag, protocol};

#[test]
fn a_kernel_that_tells_nothing_of_sockets_does_not_say_that_there_are_none() {
    // `NLMSG_ERROR` with ENOENT, as where inet_diag is not built in.
    let mut sockets = SockDiag::from_exchange(|request| {
        let seq = &request[8..12];
        let error = [&(-2i32).to_ne_bytes()[..], &[0; 16]].concat();
        Ok([&36u32.to_ne_bytes()[..], &[2, 0, 0, 0], seq, &[0; 4], &error].concat())
    });
    assert!(matches!(sockets.listening(), Err(Error::Io(_))));
    let mut sockets = SockDiag::from_exchange(|request| {
        let seq = &request[8..12];
        Ok([&20u32.to_ne_bytes()[..], &[3, 0, 2, 0], seq, &[0; 8]].concat())
    });
    assert_eq!(sockets.listening().expect("a list"), []);
}

#[test]
fn a_kernel_that_can_list_one_protocol_alone_lists_that_and_names_the_other() {
    const LISTEN: u8 = 10;
    const CLOSE: u8 = 7;
    const ALL: &[(u8, u8, &str, &str)] = &[
        (protocol::TCP, LISTEN, "0.0.0.0:22", "0.0.0.0:0"),
        (protocol::UDP, CLOSE, "[::]:53", "[::]:0"),
    ];
    for (missing, port) in [(protocol::UDP, 22), (protocol::TCP, 53)] {
        let mut sockets = SockDiag::from_exchange(move |request| {
            if request[17] == missing {
                let error = [&(-2i32).to_ne_bytes()[..], &[0; 16]].concat();
                let head = [&36u32.to_ne_bytes()[..], &[2, 0, 0, 0], &request[8..12], &[0; 4]];
                return Ok([&head.concat()[..], &error].concat());
            }
            answer(ALL, request)
        });
        let listening = sockets.listening().expect("the other list");
        assert_eq!(listening.iter().map(|socket| socket.port).collect::<Vec<_>>(), [port]);
        assert_eq!(sockets.unlisted().iter().collect::<Vec<_>>(), [&missing]);
        assert_eq!(sockets.connections(|_| true).expect("the other list"), []);
        // Of TCP alone there is no other list.
        assert_eq!(sockets.established_at(22).is_err(), missing == protocol::TCP);
    }
}

/// `struct inet_diag_msg` of a socket, in a message. The cookie, the timers and the queues are zero.
fn socket(request: &[u8], state: u8, local: &str, peer: &str) -> Vec<u8> {
    let [local, peer]: [SocketAddr; 2] = [local, peer].map(|end| end.parse().expect("an end"));
    let address = |ip: IpAddr| match ip {
        IpAddr::V4(ip) => [&ip.octets()[..], &[0; 12]].concat(),
        IpAddr::V6(ip) => ip.octets().to_vec(),
    };
    let ports = [local.port().to_be_bytes(), peer.port().to_be_bytes()].concat();
    let addresses = [address(local.ip()), address(peer.ip())].concat();
    let head = [&88u32.to_ne_bytes()[..], &[20, 0, 2, 0], &request[8..12], &[0; 4]].concat();
    [&head[..], &[request[16], state, 0, 0], &ports, &addresses, &[0; 32]].concat()
}

/// A namespace with these sockets: the protocol, the state, and both ends. Those that are asked for
/// are told.
fn sockets(all: &'static [(u8, u8, &str, &str)]) -> SockDiag {
    SockDiag::from_exchange(move |request| answer(all, request))
}

fn answer(all: &[(u8, u8, &str, &str)], request: &[u8]) -> Result<Vec<u8>, Error> {
    let (family, asked) = (request[16], request[17]);
    let states = u32::from_ne_bytes(request[20..24].try_into().expect("four bytes"));
    let is_asked = |(protocol, state, local, _): &&(u8, u8, &str, &str)| {
        let is_v6 = local.starts_with('[');
        *protocol == asked && (family == 10) == is_v6 && states & (1 << state) != 0
    };
    let told = all.iter().filter(is_asked);
    let mut answer: Vec<u8> =
        told.flat_map(|(_, state, local, peer)| socket(request, *state, local, peer)).collect();
    answer.extend([&20u32.to_ne_bytes()[..], &[3, 0, 2, 0], &request[8..12], &[0; 8]].concat());
    Ok(answer)
}

#[test]
fn a_connection_has_a_direction_and_what_is_none_is_left_out() {
    const ESTABLISHED: u8 = 1;
    const SYN_SENT: u8 = 2;
    const SYN_RECV: u8 = 3;
    const TIME_WAIT: u8 = 6;
    const CLOSE: u8 = 7;
    const CLOSE_WAIT: u8 = 8;
    const LISTEN: u8 = 10;
    const ALL: &[(u8, u8, &str, &str)] = &[
        (protocol::TCP, LISTEN, "[::]:22", "[::]:0"),
        (protocol::TCP, ESTABLISHED, "[::ffff:192.0.2.1]:22", "[::ffff:192.0.2.7]:1000"),
        (protocol::TCP, CLOSE_WAIT, "192.0.2.1:1001", "192.0.2.7:22"),
        (protocol::TCP, SYN_SENT, "192.0.2.1:1002", "192.0.2.7:22"),
        (protocol::TCP, SYN_RECV, "192.0.2.1:22", "192.0.2.7:1003"),
        (protocol::TCP, TIME_WAIT, "192.0.2.1:22", "192.0.2.7:1004"),
        (protocol::TCP, ESTABLISHED, "127.0.0.1:22", "127.0.0.1:1005"),
        (protocol::TCP, ESTABLISHED, "192.0.2.1:22", "192.0.2.1:1006"),
        (protocol::UDP, CLOSE, "[2001:db8::1]:53", "[::]:0"),
        (protocol::UDP, ESTABLISHED, "[2001:db8::1]:53", "[fe80::7]:1007"),
        (protocol::UDP, ESTABLISHED, "192.0.2.1:1008", "239.1.2.3:9"),
        (protocol::UDP, ESTABLISHED, "192.0.2.1:1009", "255.255.255.255:9"),
        (protocol::UDP, ESTABLISHED, "192.0.2.2:1010", "192.0.2.7:9"),
    ];
    let connections = |wanted: fn(IpAddr) -> bool| -> Vec<String> {
        let found = sockets(ALL).connections(wanted).expect("a list");
        let mut found: Vec<String> = found
            .iter()
            .map(|one| {
                let it = &one.original;
                let phase = match one.phase {
                    ConnectionPhase::Established => "open",
                    ConnectionPhase::Closing => "closing",
                };
                let (from, to) = (it.source_port, it.destination_port);
                format!("{} {} {from} {} {to} {phase}", it.protocol, it.source, it.destination)
            })
            .collect();
        found.sort();
        found
    };
    assert_eq!(
        connections(|_| true),
        [
            "17 192.0.2.2 1010 192.0.2.7 9 open",
            "17 fe80::7 1007 2001:db8::1 53 open",
            "6 192.0.2.1 1001 192.0.2.7 22 closing",
            "6 192.0.2.7 1000 192.0.2.1 22 open",
        ]
    );
    let of_one = connections(|local| local == IpAddr::from([192, 0, 2, 2]));
    assert_eq!(of_one, ["17 192.0.2.2 1010 192.0.2.7 9 open"]);
    let listening = sockets(ALL).listening().expect("a list");
    assert_eq!(listening.iter().map(|one| one.port).collect::<Vec<_>>(), [22, 53]);
}
