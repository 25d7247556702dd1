//! Namespaces, and their isolation from the process.

mod common;

use std::{
    fs,
    net::{IpAddr, TcpListener},
    os::unix::fs::MetadataExt,
    panic,
    process::Command,
    sync::mpsc,
    time::Duration,
};

use common::{needs_namespaces, nft, world};
use nfguard_lab::{Netns, Probe, World, enter_user_namespace};

fn netns() -> Netns {
    Netns::new().unwrap_or_else(|error| needs_namespaces(&error))
}

fn current() -> u64 {
    let file = fs::metadata("/proc/thread-self/ns/net").expect("the namespace has a file");
    file.ino()
}

/// Returns interfaces, addresses, routes and settings of the namespace of the
/// calling thread.
fn surroundings() -> Vec<String> {
    let lists = ["fib_trie", "route", "if_inet6"]
        .map(|name| fs::read_to_string(format!("/proc/thread-self/net/{name}")).expect(name));
    let settings = ["ipv4/ip_forward", "ipv4/icmp_ratemask", "ipv6/icmp/ratemask"]
        .map(|name| fs::read_to_string(format!("/proc/sys/net/{name}")).expect(name));
    let mut links: Vec<_> = fs::read_to_string("/proc/thread-self/net/dev")
        .expect("dev")
        .lines()
        .filter_map(|line| Some(line.split_once(':')?.0.trim().to_owned()))
        .collect();
    links.sort();
    lists.into_iter().chain(settings).chain(links).collect()
}

#[test]
fn the_callers_own_namespace_is_unchanged() {
    let (id, before) = (current(), surroundings());
    let world = World::with_container().unwrap_or_else(|error| needs_namespaces(&error));
    nft(&world.host, "input", "policy drop");
    assert_ne!(world.host.run(surroundings), before);
    assert_eq!((current(), surroundings()), (id, before));
}

#[test]
fn namespaces_differ_and_work_runs_inside_them() {
    let (a, b) = (netns(), netns());
    assert_ne!(a.id(), b.id());
    assert_ne!(a.id(), current());
    assert_eq!((a.run(current), b.run(current)), (a.id(), b.id()));
}

#[test]
fn child_processes_are_inside_the_namespace() {
    let netns = netns();
    let output = netns
        .run(|| Command::new("readlink").arg("/proc/self/ns/net").output())
        .expect("readlink runs");
    let link = String::from_utf8_lossy(&output.stdout);
    assert_eq!(link.trim(), format!("net:[{}]", netns.id()));
}

#[test]
fn sockets_stay_in_their_namespace_after_the_work() {
    let (a, b) = (netns(), netns());
    let bind = || TcpListener::bind("127.0.0.1:4433");
    let _held = a.run(bind).expect("free in a");
    b.run(bind).expect("free in b");
    a.run(bind).expect_err("taken in a");
}

#[test]
fn long_work_does_not_block_other_work() {
    let netns = netns();
    let (wake, asleep) = mpsc::channel::<()>();
    std::thread::scope(|scope| {
        let netns = &netns;
        scope.spawn(move || netns.run(move || asleep.recv()));
        assert_eq!(netns.run(current), netns.id());
        wake.send(()).expect("still asleep");
    });
}

#[test]
fn a_panic_in_the_namespace_reaches_the_caller() {
    let netns = netns();
    let payload = panic::catch_unwind(panic::AssertUnwindSafe(|| {
        netns.run(|| panic::resume_unwind(Box::new("mine")));
    }))
    .expect_err("it panics");
    assert_eq!(payload.downcast_ref(), Some(&"mine"));
}

#[test]
fn an_error_names_the_failed_operation() {
    let netns = netns();
    let address: IpAddr = [192, 0, 2, 1].into();
    let errors = [
        (netns.up("eth7"), "cannot bring eth7 up"),
        (netns.address("eth7", address, 24), "cannot give eth7 the address 192.0.2.1/24"),
        (netns.route(address, 32, address), "cannot route 192.0.2.1/32 by way of 192.0.2.1"),
        (netns.enslave("lo", "br0"), "cannot make lo a port of br0"),
        (netns.sysctl("ipv4/no_such", "1"), "cannot set net/ipv4/no_such to 1"),
        (netns.bridge("lo"), "cannot make the bridge lo"),
    ];
    for (result, expected) in errors {
        let message = result.expect_err(expected).to_string();
        assert!(message.starts_with(expected), "{message}");
        assert!(message.contains("os error"), "{message}");
    }
}

#[test]
fn a_setting_outside_the_network_is_refused() {
    let netns = netns();
    for name in ["../kernel/hostname", "ipv4/../../kernel/hostname", "/etc/x", ""] {
        let error = netns.sysctl(name, "x").expect_err(name);
        assert!(error.to_string().contains("no path"), "{error}");
    }
}

#[test]
fn a_bridge_without_ports_takes_addresses() {
    let world = world();
    let address: IpAddr = [10, 9, 8, 7].into();
    world.host.bridge("br0").expect("a bridge");
    world.host.address("br0", address, 32).expect("its address");
    let outcome = Probe::ping(&world.internet, address).run();
    assert!(!outcome.passed(), "no host has a route to it");
    world.internet.route(address, 32, World::HOST_V4).expect("a route");
    let timeout = Duration::from_secs(30);
    assert!(Probe::ping(&world.internet, address).timeout(timeout).run().passed());
}

#[test]
fn a_process_with_threads_gets_the_reason_why_it_cannot_enter() {
    let before = current();
    let error = enter_user_namespace().expect_err("the test runs on a thread");
    assert!(error.to_string().contains("several threads"), "{error}");
    assert_eq!(current(), before);
}
