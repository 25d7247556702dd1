//! Connections from before the first rules: they continue, and nothing new gets in by them.

mod container;
mod pair;
mod strangers;

use std::collections::BTreeSet;
use std::io::Read as _;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, Shutdown, SocketAddr};
use std::thread;

use nfguard_lab::{Netns, World};
use nfguard_netlink::{Connection, Nft, protocol};
use nfguard_tests::guard::Guard;
use nfguard_tests::nft::nft;
use nfguard_tests::place::world;
use nfguard_tests::policies::GOOD;
use nfguard_tests::program::{policy_file, succeed};

use pair::{End, First, Pair, Port, name};

const VISITOR: [IpAddr; 2] = peer(67);
const STRANGER: [IpAddr; 2] = peer(68);
const HOST: [IpAddr; 2] = [World::HOST_V4, World::HOST_V6];

/// A port that the policy allows, and one that it denies.
const ALLOWED: u16 = 443;
const DENIED: u16 = 9000;

const fn peer(number: u8) -> [IpAddr; 2] {
    let v6 = Ipv6Addr::new(0x2001, 0xdb8, number as u16, 0, 0, 0, 0, 1);
    [IpAddr::V4(Ipv4Addr::new(203, 0, 113, number)), IpAddr::V6(v6)]
}

fn load(netns: &Netns) {
    succeed(netns, &["load".as_ref(), policy_file(GOOD).as_ref()]);
}

/// Returns the connections with ports that the kernel tracks.
fn tracked(netns: &Netns) -> Vec<Connection> {
    let mut kernel = netns.run(|| Nft::open().expect("netlink is there"));
    kernel.connections(|one| one.original.source_port != 0).expect("a list")
}

/// A port of the visitor that answers nothing.
const SILENT: u16 = 7777;

#[track_caller]
fn assert_tracked<'p>(netns: &Netns, pairs: impl IntoIterator<Item = &'p Pair>) {
    let found = tracked(netns);
    // The next SYN of what is being opened is new, and the kernel tracks it by itself.
    let found = found.iter().filter(|one| one.original.destination_port != SILENT);
    let found: BTreeSet<String> = found.map(|one| name(&one.original)).collect();
    assert_eq!(found, pairs.into_iter().map(|pair| pair.name.clone()).collect());
}

/// Opens connections of every kind between the host and a visitor: two of each, for each end to
/// speak first once. The ports stay open with the second value.
fn open_all(world: &World) -> (Vec<Pair>, Vec<Port>) {
    let (host, internet) = (&world.host, &world.internet);
    let (mut pairs, mut ports) = (Vec::new(), Vec::new());
    for kind in [protocol::TCP, protocol::UDP] {
        for (ours, theirs) in HOST.into_iter().zip(VISITOR) {
            for port in [ALLOWED, DENIED] {
                let at = SocketAddr::new(ours, port);
                let serving = Port::open(host, kind, at);
                pairs.extend([(); 2].map(|()| serving.connect(internet, theirs, host, at)));
                ports.push(serving);
            }
            let at = SocketAddr::new(theirs, DENIED);
            let serving = Port::open(internet, kind, at);
            pairs.extend([(); 2].map(|()| serving.connect(host, ours, internet, at)));
            ports.push(serving);
        }
    }
    // IPv4 connections of an IPv6 socket.
    let mapped =
        Port::open(host, protocol::TCP, SocketAddr::new(Ipv6Addr::UNSPECIFIED.into(), 9002));
    let at = SocketAddr::new(World::HOST_V4, 9002);
    pairs.extend([(); 2].map(|()| mapped.connect(internet, VISITOR[0], host, at)));
    ports.push(mapped);
    (pairs, ports)
}

#[track_caller]
fn assert_all_open(pairs: &[Pair]) {
    for (pair, first) in pairs.iter().zip([First::Client, First::Server].into_iter().cycle()) {
        pair.assert_open(first);
    }
}

#[test]
fn open_connections_continue_after_the_first_load_whoever_speaks_first() {
    let world = world();
    let (pairs, _ports) = open_all(&world);
    load(&world.host);
    assert_tracked(&world.host, &pairs);
    // A rule that comes later, and rewrites the source of every connection that is new to it.
    nft(
        &world.host,
        "table inet late {
            chain out {
                type nat hook postrouting priority srcnat
                oifname eth0 masquerade random
            }
        }\n",
    );
    assert_all_open(&pairs);
}

#[test]
fn open_connections_continue_after_a_load_that_follows_an_unload() {
    let world = world();
    load(&world.host);
    let at = SocketAddr::new(World::HOST_V4, ALLOWED);
    let port = Port::open(&world.host, protocol::TCP, at);
    let old = port.connect(&world.internet, VISITOR[0], &world.host, at);
    old.assert_open(First::Client);
    succeed(&world.host, &["unload"]);
    old.assert_open(First::Server);
    // Now it looks as if the host had opened the connection. The kernel knows better.
    drop(port);
    let at = SocketAddr::new(World::HOST_V6, DENIED);
    let ports = [protocol::TCP, protocol::UDP].map(|kind| Port::open(&world.host, kind, at));
    let connect = |port: &Port| port.connect(&world.internet, VISITOR[1], &world.host, at);
    let mut pairs: Vec<Pair> =
        ports.iter().flat_map(|port| [connect(port), connect(port)]).collect();
    load(&world.host);
    pairs.push(old);
    assert_tracked(&world.host, &pairs);
    assert_all_open(&pairs);
}

#[test]
fn open_connections_continue_after_a_boot() {
    let world = world();
    let (pairs, _ports) = open_all(&world);
    succeed(&world.host, &["boot".as_ref(), policy_file(GOOD).as_ref()]);
    assert_tracked(&world.host, &pairs);
    assert_all_open(&pairs);
}

#[test]
fn open_connections_continue_after_the_start_of_a_guard() {
    let world = world();
    let (pairs, _ports) = open_all(&world);
    let _guard = Guard::start(&world.host, Some(policy_file(GOOD).path()), &[]);
    assert_tracked(&world.host, &pairs);
    assert_all_open(&pairs);
}

#[test]
fn large_windows_and_connections_that_one_end_has_closed_continue() {
    const BYTES: usize = 1 << 20;
    let world = world();
    for (ours, theirs) in HOST.into_iter().zip(VISITOR) {
        let at = SocketAddr::new(ours, DENIED);
        let port = Port::open(&world.host, protocol::TCP, at);
        let pairs = [(); 4].map(|()| port.connect(&world.internet, theirs, &world.host, at));
        // The window is open wide before the kernel tracks the connection, and its scale is unknown.
        let transfer = |from: &End, to: &End| {
            thread::scope(|scope| {
                scope.spawn(|| from.send(&vec![7; BYTES], "a transfer"));
                to.hear(&vec![7; BYTES], "a transfer");
            });
        };
        let [wide, wide_too, by_peer, by_host] = &pairs;
        transfer(&wide.server, &wide.client);
        transfer(&wide_too.client, &wide_too.server);
        by_peer.client.tcp().shutdown(Shutdown::Write).expect("closed");
        by_host.server.tcp().shutdown(Shutdown::Write).expect("closed");
        let mut end = [0];
        assert_eq!(by_peer.server.tcp().read(&mut end).expect("the end"), 0);
        assert_eq!(by_host.client.tcp().read(&mut end).expect("the end"), 0);
        load(&world.host);
        assert_tracked(&world.host, &pairs);
        transfer(&wide.server, &wide.client);
        transfer(&wide_too.client, &wide_too.server);
        transfer(&by_peer.server, &by_peer.client);
        transfer(&by_host.client, &by_host.server);
        for half in [&by_peer.server, &by_host.client] {
            half.tcp().shutdown(Shutdown::Write).expect("closed");
        }
        assert_eq!(by_peer.client.tcp().read(&mut end).expect("the end"), 0);
        assert_eq!(by_host.server.tcp().read(&mut end).expect("the end"), 0);
        succeed(&world.host, &["unload"]);
        let all = |_: &Connection| true;
        let mut kernel = world.host.run(|| Nft::open().expect("netlink is there"));
        kernel.forget_connections(all).expect("forgotten");
    }
}

/// A client of a port that leads to another one. The host's socket has that other port.
#[test]
fn what_the_kernel_tracks_already_stays_as_it_is() {
    let world = world();
    nft(
        &world.host,
        "table inet other {
            chain to {
                type nat hook prerouting priority dstnat
                tcp dport 8080 redirect to :9000
            }
        }\n",
    );
    let mut pairs = Vec::new();
    let mut ports = Vec::new();
    for (ours, theirs) in HOST.into_iter().zip(VISITOR) {
        let port = Port::open(&world.host, protocol::TCP, SocketAddr::new(ours, DENIED));
        let asked = SocketAddr::new(ours, 8080);
        pairs.extend([(); 2].map(|()| port.connect(&world.internet, theirs, &world.host, asked)));
        ports.push(port);
    }
    let sorted = || {
        let mut all = tracked(&world.host);
        all.sort_by_key(|one| (one.original.source, one.original.source_port));
        all
    };
    let before = sorted();
    assert_eq!(before.len(), pairs.len());
    load(&world.host);
    assert_eq!(sorted(), before);
    assert_all_open(&pairs);
}
