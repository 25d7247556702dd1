//! A table of tracked connections that is full.
//!
//! Its size is a setting of the whole machine, so this runs in the virtual machines of
//! `cargo xtask kernels` alone.

use std::env;
use std::io::{Read as _, Write as _};
use std::net::{IpAddr, Ipv4Addr, SocketAddr, TcpStream, UdpSocket};
use std::process::Command;
use std::time::Duration;

use nfguard_lab::{Netns, Probe, World};
use nfguard_netlink::Nft;
use nfguard_tests::place::world;
use nfguard_tests::program::{nfguard, policy_file};
use nfguard_tests::wait::TIMEOUT;

const ATTACKER: IpAddr = IpAddr::V4(Ipv4Addr::new(203, 0, 113, 66));
const VISITOR: IpAddr = IpAddr::V4(Ipv4Addr::new(203, 0, 113, 67));
const WEB: SocketAddr = SocketAddr::new(World::HOST_V4, 7000);
const DENIED: SocketAddr = SocketAddr::new(World::HOST_V4, 9);
/// How many connections the kernel tracks at most.
const ROOM: usize = 32;

/// Sets the size of the table, for all namespaces.
fn set_room(room: usize) {
    let emulated = env::var_os("NFGUARD_EMULATED").is_some();
    assert!(emulated, "this changes the machine: run me with `cargo xtask kernels --only full`");
    let script = format!("echo {room} > /proc/sys/net/netfilter/nf_conntrack_max");
    let status = Command::new("nsenter").args(["-t", "1", "-n", "sh", "-c", &script]).status();
    assert!(status.expect("nsenter starts").success());
}

/// Opens a connection that stays; `None` if none comes within this time.
fn open(from: &Netns, source: IpAddr, patience: Duration) -> Option<TcpStream> {
    Probe::tcp(from, WEB).from(source).timeout(patience).connect().ok()
}

fn tracked(host: &Netns) -> usize {
    let list = || Nft::open()?.connections(|_| true);
    host.run(list).expect("a list").len()
}

#[test]
fn a_full_table_of_connections_stops_new_ones_alone_and_a_ban_makes_room() {
    let world = world();
    let (host, internet) = (&world.host, &world.internet);
    let policy = policy_file(
        r#"{ "version": 1, "rules": [
            { "name": "web", "action": "allow", "proto": "tcp", "port": 7000 }] }"#,
    );
    assert_eq!(nfguard(host, &["load".as_ref(), policy.path()]).status, Some(0));
    let _server = host.serve_tcp(WEB).expect("a server");
    let mut first = open(internet, VISITOR, TIMEOUT).expect("there is room");
    set_room(ROOM);

    // What is denied and what is banned takes no room.
    assert_eq!(nfguard(host, &["ban", "203.0.113.99"]).status, Some(0));
    internet.run(|| {
        for last in [66, 99] {
            let socket = UdpSocket::bind((Ipv4Addr::new(203, 0, 113, last), 0)).expect("binds");
            for port in 0..200 {
                let to = if last == 66 { DENIED } else { WEB };
                let to = SocketAddr::new(to.ip(), to.port() + port);
                socket.send_to(b"x", to).expect("sent");
            }
        }
    });
    assert!(tracked(host) < ROOM / 2, "{} tracked", tracked(host));
    drop(open(internet, VISITOR, TIMEOUT).expect("there is room"));

    // What is allowed takes room, and has an end.
    let mut taken = Vec::new();
    while let Some(stream) = open(internet, ATTACKER, Duration::from_secs(10)) {
        taken.push(stream);
        assert!(taken.len() <= ROOM, "the table has an end");
    }
    assert!(taken.len() > ROOM / 2, "{} opened", taken.len());
    assert!(open(internet, VISITOR, Duration::from_secs(10)).is_none(), "no room");
    // What was open goes on, and rules can be changed.
    first.write_all(b"ping").expect("is open");
    let mut seen = Vec::new();
    while !seen.ends_with(b"ping") {
        let mut byte = [0];
        first.read_exact(&mut byte).expect("an echo");
        seen.push(byte[0]);
    }
    let ban = nfguard(host, &["ban", "--cut", "203.0.113.66"]);
    assert_eq!(ban.status, Some(0), "{ban:?}");
    assert!(open(internet, VISITOR, TIMEOUT).is_some(), "there is room again");
    set_room(8192);
}
