//! Connections as the kernel tells of them, and what it is told to forget.

use std::net::IpAddr;
use std::sync::{Arc, Mutex};

use nfguard_netlink::{
    ConnectionPhase, ConnectionTuple, DecodeError, Error, Nft, OpenConnection, protocol,
};

/// Two messages of a dump of Linux 6.18: what `socket.send(struct.pack("=IHHIIBBH", 20, 0x101,
/// 0x301, 1, 0, 0, 0, 0))` on a netlink socket answers after a datagram from `[::1]:40001` to port
/// 53 in zone 5, and a connection from 127.0.0.1:40000 to 127.0.0.2:8080 that is led to
/// 127.0.0.1:8081.
const DUMP: [&str; 2] = [
    "dc0000000001020001000000165c0000 0a000000
     4c000180 2c000180 1400030000000000000000000000000000000001
     1400040000000000000000000000000000000001 1c000280 0500010011000000 060002009c410000
     0600030000350000
     4c000280 2c000180 1400030000000000000000000000000000000001
     1400040000000000000000000000000000000001 1c000280 0500010011000000 0600020000350000
     060003009c410000
     0600120000050000 0800030000000188 0800080000000000 08000c00bee51dcc 08000b0000000001
     080007000000001e",
    "d40000000001020001000000165c0000 02000000
     34000180 14000180 080001007f000001 080002007f000002 1c000280 0500010006000000
     060002009c400000 060003001f900000
     34000280 14000180 080001007f000001 080002007f000001 1c000280 0500010006000000
     060002001f910000 060003009c400000
     08000300000001ae 0800080000000000 08000c00b3052e1f 08000b0000000001 080007000006977f
     30000480 2c000180 0500010003000000 050002000a000000 050003000a000000 0600040023000000
     0600050023000000",
];

/// `NLMSG_ERROR` and `NLMSG_DONE`.
const ERROR: u16 = 2;
const DONE: u16 = 3;
/// `IPCTNL_MSG_CT_GET` and `IPCTNL_MSG_CT_DELETE` of `NFNL_SUBSYS_CTNETLINK`.
const GET: u16 = 0x101;
const DELETE: u16 = 0x102;

const ENOENT: i32 = 2;
const EBUSY: i32 = 16;
const EINVAL: i32 = 22;

fn bytes(digits: &str) -> Vec<u8> {
    let digits: Vec<char> = digits.chars().filter(|char| !char.is_whitespace()).collect();
    let byte = |pair: &[char]| {
        u8::from_str_radix(&pair.iter().collect::<String>(), 16).expect("hexadecimal")
    };
    digits.chunks(2).map(byte).collect()
}

fn kind(message: &[u8]) -> u16 {
    u16::from_ne_bytes([message[4], message[5]])
}

fn messages(mut bytes: &[u8]) -> Vec<&[u8]> {
    let mut messages = Vec::new();
    while let Some(len) = bytes.first_chunk() {
        let (message, rest) =
            bytes.split_at(usize::try_from(u32::from_ne_bytes(*len)).expect("small"));
        messages.push(message);
        bytes = rest;
    }
    messages
}

/// An error, or the end of a dump with 0.
fn told(kind: u16, request: &[u8], errno: i32) -> Vec<u8> {
    let body = [&(-errno).to_ne_bytes()[..], &request[..16]].concat();
    let len = u32::try_from(16 + body.len()).expect("short");
    [&len.to_ne_bytes()[..], &kind.to_ne_bytes(), &[0; 2], &request[8..12], &[0; 4], &body].concat()
}

/// A dump of these messages.
fn dumped(request: &[u8], dump: &[Vec<u8>]) -> Vec<u8> {
    let mut answer = Vec::new();
    for message in dump {
        answer.extend_from_slice(message);
        let at = answer.len() - message.len() + 8;
        answer[at..at + 4].copy_from_slice(&request[8..12]);
    }
    answer.extend(told(DONE, request, 0));
    answer
}

/// A kernel that tracks the two connections and answers each request to forget one with the next of
/// these numbers; and what it was asked.
fn kernel(errnos: &'static [i32]) -> (Nft, Arc<Mutex<Vec<u8>>>) {
    let asked = Arc::new(Mutex::new(Vec::new()));
    let record = Arc::clone(&asked);
    let kernel = Nft::from_exchange(move |request| {
        record.lock().expect("no panic").extend_from_slice(request);
        if kind(request) == GET {
            return Ok(dumped(request, &DUMP.map(bytes)));
        }
        let answers = messages(request).into_iter().zip(errnos);
        Ok(answers.flat_map(|(message, errno)| told(ERROR, message, *errno)).collect())
    });
    (kernel, asked)
}

#[test]
fn a_connection_has_the_addresses_of_both_directions() {
    let all = kernel(&[]).0.connections(|_| true).expect("a list");
    let ends = |text: &str| text.parse().expect("an address");
    let local: IpAddr = ends("::1");
    assert_eq!(all.len(), 2);
    assert_eq!(all[0].senders(), [local, local]);
    assert_eq!((all[0].original.protocol, all[0].original.destination_port), (17, 53));
    assert_eq!(all[1].senders(), [ends("127.0.0.1"), ends("127.0.0.1")]);
    assert_eq!(all[1].original.destination, ends("127.0.0.2"));
    assert_eq!(all[1].original.destination_port, 8080);
    assert_eq!((all[1].reply.protocol, all[1].reply.source_port), (6, 8081));
}

#[test]
fn to_be_forgotten_a_connection_is_named_by_direction_number_and_zone() {
    let (mut kernel, asked) = kernel(&[0, 0]);
    assert_eq!(kernel.forget_connections(|_| true).expect("forgotten"), 2);
    let asked = asked.lock().expect("no panic");
    let [_, first, second] = messages(&asked)[..] else { panic!("{} bytes", asked.len()) };
    let body = |dump: &str, zone: &str| {
        let dump = bytes(dump);
        let original = 20..20 + usize::from(dump[20]);
        let at = dump.windows(4).position(|bytes| bytes == [8, 0, 12, 0]).expect("a number");
        [&dump[16..20], &dump[original], &dump[at..at + 8], &bytes(zone)].concat()
    };
    assert_eq!((kind(first), kind(second)), (DELETE, DELETE));
    assert_eq!(first[16..], body(DUMP[0], "0600120000050000"));
    assert_eq!(second[16..], body(DUMP[1], ""));
}

#[test]
fn a_connection_that_has_ended_meanwhile_is_not_counted() {
    let (mut kernel, _) = kernel(&[ENOENT, 0]);
    assert_eq!(kernel.forget_connections(|_| true).expect("forgotten"), 1);
}

#[test]
fn a_refusal_and_a_lost_answer_are_errors() {
    let outcome = kernel(&[0, EBUSY]).0.forget_connections(|_| true);
    assert!(matches!(outcome, Err(Error::Io(_))), "{outcome:?}");
    let outcome = kernel(&[0]).0.forget_connections(|_| true);
    assert!(matches!(outcome, Err(Error::AnswerLost)), "{outcome:?}");
}

/// Open connections with these ports of their first end.
fn open(ports: std::ops::Range<u16>) -> Vec<OpenConnection> {
    let one = |port| OpenConnection {
        original: ConnectionTuple {
            source: "192.0.2.1".parse().expect("an address"),
            destination: "198.51.100.2".parse().expect("an address"),
            protocol: protocol::TCP,
            source_port: port,
            destination_port: 443,
        },
        phase: ConnectionPhase::Established,
    };
    ports.map(one).collect()
}

#[test]
fn of_many_connections_the_kernel_acknowledges_few_and_those_that_it_knows_do_not_count() {
    const ACK: u16 = 4;
    const EEXIST: i32 = 17;
    let sends = Arc::new(Mutex::new(Vec::new()));
    let record = Arc::clone(&sends);
    let mut kernel = Nft::from_exchange(move |request| {
        let messages = messages(request);
        record.lock().expect("no panic").push(messages.len());
        let answer = |(index, message): (usize, &[u8])| {
            let wants = u16::from_ne_bytes([message[6], message[7]]) & ACK != 0;
            match index {
                0 => told(ERROR, message, EEXIST),
                _ if wants => told(ERROR, message, 0),
                _ => Vec::new(),
            }
        };
        Ok(messages.into_iter().enumerate().flat_map(answer).collect())
    });
    assert_eq!(kernel.track_connections(&open(1..251)).expect("tracked"), 247);
    assert_eq!(*sends.lock().expect("no panic"), [100, 100, 50]);
    assert_eq!(kernel.track_connections(&[]).expect("nothing"), 0);
}

#[test]
fn connections_that_cannot_be_tracked_are_an_error() {
    let refused = |errno: i32| {
        let mut kernel = Nft::from_exchange(move |request| {
            Ok(messages(request).into_iter().flat_map(|one| told(ERROR, one, errno)).collect())
        });
        kernel.track_connections(&open(1..3))
    };
    assert!(matches!(refused(1), Err(Error::Permission)));
    for errno in [12, EINVAL] {
        assert!(matches!(refused(errno), Err(Error::Io(_))), "{errno}");
    }
    let outcome = Nft::from_exchange(|_| Ok(Vec::new())).track_connections(&open(1..3));
    assert!(matches!(outcome, Err(Error::AnswerLost)), "{outcome:?}");
}

#[test]
fn without_the_module_nothing_is_tracked() {
    let mut kernel = Nft::from_exchange(|request| Ok(told(ERROR, request, EINVAL)));
    assert_eq!(kernel.forget_connections(|_| true).expect("an answer"), 0);
}

#[test]
fn a_damaged_connection_is_a_value_or_an_error() {
    let listed = |dump: Vec<u8>| {
        Nft::from_exchange(move |request| Ok(dumped(request, std::slice::from_ref(&dump))))
            .connections(|_| true)
    };
    for dump in DUMP.map(bytes) {
        for at in 16..dump.len() {
            for byte in [0, 1, 3, 4, 5, 0x7f, 0x80, 0xff] {
                let mut damaged = dump.clone();
                damaged[at] = byte;
                let _ = listed(damaged);
            }
        }
        // The netlink header and the family, and no attribute behind them.
        let mut bare = dump[..20].to_vec();
        bare[0] = 20;
        let outcome = listed(bare);
        assert!(matches!(outcome, Err(Error::Decode(DecodeError::Missing { .. }))), "{outcome:?}");
    }
}
