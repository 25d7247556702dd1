//! Feeds in the real kernel: lists in their published formats, checked with packets.

use std::fmt::Write as _;
use std::net::{IpAddr, SocketAddr};
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::time::Duration;

use nfguard_ban::{Bans, Feed, NeverBan, TABLE};
use nfguard_lab::{Netns, Probe, World, packet};
use nfguard_tests::nft::nft;
use nfguard_tests::program::{Answer, TempFile, command, many, nfguard};
use nfguard_tests::wait::TIMEOUT;
use serde_json::Value;

const NETSET: &str = include_str!("../fixtures/feeds/firehol.netset");
const DROP: &str = include_str!("../fixtures/feeds/drop.txt");
const DROP_JSON: &str = include_str!("../fixtures/feeds/drop.json");
const PLAIN: &str = include_str!("../fixtures/feeds/plain.txt");
const TRAEFIK: &str = include_str!("../../policies/traefik.json");

/// Public addresses. Feeds drop no documentation addresses, because those are reserved.
const LISTED: &str = "45.9.20.66";
const LISTED_V6: &str = "2a0e:b107::66";
const UNLISTED: &str = "45.9.21.66";

fn address(text: &str) -> IpAddr {
    text.parse().expect("an address")
}

/// Makes a host, and an internet with public addresses.
fn world() -> World {
    let world = World::with_container().expect("run me with `cargo xtask netns-test`");
    for (network, bits) in [("45.9.0.0", 16), ("2a0e:b107::", 32)] {
        world.internet.own_prefix(address(network), bits).expect("a route");
    }
    world
}

fn add(netns: &Netns, name: &str, list: &str) -> Answer {
    let file = TempFile::new(name, list);
    nfguard(netns, &["feed".as_ref(), "add".as_ref(), name.as_ref(), file.as_ref()])
}

fn add_successfully(netns: &Netns, name: &str, list: &str) -> String {
    let answer = add(netns, name, list);
    assert_eq!(answer.status, Some(0), "{answer:?}");
    answer.stdout
}

fn passes(world: &World, from: &str, to: IpAddr) -> bool {
    Probe::tcp(&world.internet, SocketAddr::new(to, 443)).from(address(from)).run().passed()
}

fn must_pass(world: &World, from: &str, to: IpAddr) {
    let probe = Probe::tcp(&world.internet, SocketAddr::new(to, 443)).from(address(from));
    let outcome = probe.timeout(TIMEOUT).run();
    assert!(outcome.passed(), "{from} to {to}: {outcome}");
}

fn serve(netns: &Netns, address: IpAddr) -> nfguard_lab::Server {
    netns.serve_tcp(SocketAddr::new(address, 443)).expect("a server")
}

#[test]
fn a_list_in_every_published_format_drops_its_addresses_for_host_and_containers() {
    let world = world();
    let container = world.container.as_ref().expect("made with one");
    let _servers = [
        serve(&world.host, World::HOST_V4),
        serve(&world.host, World::HOST_V6),
        serve(container, World::CONTAINER_V4),
    ];
    for (name, list, has_v6) in [
        ("netset", NETSET, false),
        ("drop", DROP, false),
        ("drop-json", DROP_JSON, true),
        ("plain", PLAIN, true),
    ] {
        must_pass(&world, LISTED, World::HOST_V4);
        add_successfully(&world.host, name, list);
        assert!(!passes(&world, LISTED, World::HOST_V4), "{name}");
        assert!(!passes(&world, LISTED, World::CONTAINER_V4), "{name}");
        must_pass(&world, UNLISTED, World::HOST_V4);
        must_pass(&world, UNLISTED, World::CONTAINER_V4);
        if has_v6 {
            assert!(!passes(&world, LISTED_V6, World::HOST_V6), "{name}");
        } else {
            must_pass(&world, LISTED_V6, World::HOST_V6);
        }
        let removed = nfguard(&world.host, &["feed", "remove", name]);
        assert_eq!(removed.status, Some(0), "{removed:?}");
        must_pass(&world, LISTED, World::HOST_V4);
        must_pass(&world, LISTED_V6, World::HOST_V6);
    }
    assert_eq!(nfguard(&world.host, &["feed", "remove", "netset"]).status, Some(1));
    let table = nft(&world.host, &format!("list table inet {TABLE}\n"));
    assert!(!table.contains("set feed/") && !table.contains("counter feed/"), "{table}");
}

#[test]
fn private_and_never_ban_addresses_are_removed_and_counted() {
    let world = world();
    let _server = serve(&world.host, World::HOST_V4);
    let exempt = nfguard(&world.host, &["never", "add", "45.9.20.66"]);
    assert_eq!(exempt.status, Some(0), "{exempt:?}");
    let told = add_successfully(&world.host, "level1", NETSET);
    // The list has 0/8, 10/8, 192.168/16 and 224/3. The never-ban entry is in one more prefix.
    assert!(told.contains("from 6 entries; 4 entries had private or reserved"), "{told}");
    // The name server of this machine may be in one more prefix.
    let exempt = [" 1 had never-ban addresses", " 2 had never-ban addresses"];
    assert!(exempt.iter().any(|words| told.contains(words)), "{told}");
    must_pass(&world, LISTED, World::HOST_V4);
    assert!(!passes(&world, "45.9.20.67", World::HOST_V4));

    let listed = nfguard(&world.host, &["feed", "list", "--json"]);
    let listed: Value = serde_json::from_str(&listed.stdout).expect("JSON");
    let feed = &listed["feeds"][0];
    assert_eq!((feed["feed"].as_str(), feed["ranges"].as_u64()), (Some("level1"), Some(3)));
    assert!(feed["dropped"]["packets"].as_u64() > Some(0), "{listed}");
}

#[test]
fn an_invalid_list_changes_nothing() {
    let world = world();
    let _server = serve(&world.host, World::HOST_V4);
    add_successfully(&world.host, "mine", PLAIN);
    for (list, why) in [
        ("<!DOCTYPE html>\n<h1>429 Too Many Requests</h1>\n", "web page"),
        ("# nothing any more\n", "no address"),
        ("10.0.0.0/8\n", "no address"),
        ("45.9.30.0/24\n45.9.31.300\n", "line 2"),
        ("45.9.30.9-45.9.30.1\n", "ends before it starts"),
        ("45.9.30.1 203.9.30.1\n", "two addresses"),
    ] {
        let refused = add(&world.host, "mine", list);
        assert_eq!(refused.status, Some(2), "{refused:?}");
        assert!(refused.stderr.contains(why), "{refused:?}");
        assert!(!passes(&world, LISTED, World::HOST_V4));
        must_pass(&world, "45.9.30.5", World::HOST_V4);
    }
    let refused = nfguard(&world.host, &["feed", "add", "no/name", "/dev/null"]);
    assert_eq!(refused.status, Some(2), "{refused:?}");
}

#[test]
fn a_list_is_judged_as_a_whole_and_nothing_of_a_refused_one_is_put_in() {
    let world = world();
    let _server = serve(&world.host, World::HOST_V4);
    let many_eights: String = (16..56).map(|first| format!("{first}.0.0.0/8\n")).collect();
    let hundred: String = (0..100).map(|at| format!("45.8.{at}.7\n")).collect();
    let ten: String = (0..10).map(|at| format!("45.8.{at}.7\n")).collect();
    for (list, why) in [
        ("45.9.30.1\n0.0.0.0/0\n", "one entry is 0.0.0.0-255.255.255.255: 100.0 percent"),
        ("45.9.30.1\n32.0.0.0/3\n", "one entry is 32.0.0.0-63.255.255.255: 14."),
        ("45.9.30.1\n0.0.0.0-127.255.255.255\n", "one entry is 0.0.0.0-127.255.255.255"),
        ("45.9.30.1\n2000::/3\n", "of all addresses of IPv6"),
        (&many_eights, "it shuts out 18."),
    ] {
        let refused = add(&world.host, "judged", list);
        assert_eq!(refused.status, Some(2), "{refused:?}");
        assert!(refused.stderr.contains(why) && refused.stderr.contains("--force"), "{refused:?}");
    }
    must_pass(&world, UNLISTED, World::HOST_V4);
    must_pass(&world, "45.9.30.1", World::HOST_V4);
    let list = |list: &str| nfguard(&world.host, &["feed", "list", list]).stdout;
    assert_eq!(list("--json").matches("judged").count(), 0);

    // What was cut on its way is smaller than the version before.
    add_successfully(&world.host, "judged", &format!("{hundred}{LISTED}\n"));
    for short in [ten.as_str(), "# moved\n", ""] {
        let refused = add(&world.host, "judged", short);
        assert_eq!(refused.status, Some(2), "{refused:?}");
        assert!(!passes(&world, LISTED, World::HOST_V4));
    }
    let refused = add(&world.host, "judged", &ten);
    assert!(
        refused.stderr.contains("it has 10 ranges, and the version before has 101"),
        "{refused:?}"
    );
    // A list that joined its entries is not smaller.
    let told = add_successfully(&world.host, "judged", "45.8.0.0/16\n45.9.20.0/24\n");
    assert!(told.contains("2 ranges (before: 101)"), "{told}");
    assert!(!passes(&world, LISTED, World::HOST_V4));
    let grown: String = (16..26).map(|first| format!("{first}.0.0.0/9\n")).collect();
    let refused = add(&world.host, "judged", &grown);
    assert!(
        refused.stderr.contains("IPv4 addresses, and the version before has 65792"),
        "{refused:?}"
    );

    // The operator may insist.
    let force = |list: &str| {
        let file = TempFile::new("list", list);
        let arguments =
            ["feed".as_ref(), "add".as_ref(), "judged".as_ref(), file.as_ref(), "--force".as_ref()];
        nfguard::<&std::ffi::OsStr>(&world.host, &arguments)
    };
    let forced = force("44.0.0.0/7\n");
    assert_eq!(forced.status, Some(0), "{forced:?}");
    assert!(forced.stderr.contains("one entry is 44.0.0.0-45.255.255.255"), "{forced:?}");
    assert!(!passes(&world, UNLISTED, World::HOST_V4));
    assert_eq!(force("# empty now\n").status, Some(0));
    must_pass(&world, LISTED, World::HOST_V4);
    assert_eq!(nfguard(&world.host, &["feed", "remove", "judged"]).status, Some(0));

    // Half of those who are connected.
    let peers = ["45.9.22.1", "45.9.22.2", "45.9.22.3", "45.9.22.4"];
    let to = SocketAddr::new(World::HOST_V4, 443);
    let connect = |from: &&str| {
        let probe = Probe::tcp(&world.internet, to).from(address(from)).timeout(TIMEOUT);
        probe.connect().expect("a connection")
    };
    let open: Vec<_> = peers.iter().map(connect).collect();
    let refused = add(&world.host, "judged", "45.9.22.0/24\n");
    assert!(
        refused.stderr.contains("of the 4 peers that are connected now, 45.9.22.1"),
        "{refused:?}"
    );
    let told = add(&world.host, "judged", "45.9.22.1\n");
    assert!(
        told.status == Some(0) && told.stderr.contains("1 peers that are connected"),
        "{told:?}"
    );
    drop(open);
}

#[test]
fn no_packet_of_an_address_in_both_lists_passes_during_the_swap() {
    let world = world();
    let host = &world.host;
    let mut bans = host.run(|| Bans::open(NeverBan::default()).expect("the table"));
    let list = |extra: u8| {
        let mut feed = Feed::default();
        feed.add("45.9.20.0/24".parse().expect("a network"));
        feed.add(format!("45.10.{extra}.0/24").parse().expect("a network"));
        feed.clean(bans.never_ban())
    };
    let lists = [list(1), list(2)];
    bans.set_feed("swapped", &lists[0]).expect("a feed");
    nft(host, "table inet seen { counter listed {}; counter others {};
        chain in { type filter hook input priority 0;
            ip saddr 45.9.20.66 counter name listed; ip saddr 45.9.21.66 counter name others; }; }\n");
    let datagram = |from: &str| {
        let (from, to) = (address(from), World::HOST_V4);
        packet::ip(from, to, 17, 64, &packet::udp(from, to, 40_000, 9, b"x"))
    };
    let (swapping, sent) = (AtomicBool::new(true), AtomicUsize::new(0));
    std::thread::scope(|scope| {
        scope.spawn(|| {
            while swapping.load(Ordering::Relaxed) {
                for from in [LISTED, UNLISTED] {
                    world.internet.send_raw(None, &datagram(from)).expect("sent");
                }
                sent.fetch_add(1, Ordering::Relaxed);
            }
        });
        for round in 0.. {
            bans.set_feed("swapped", &lists[round % 2]).expect("a feed");
            if round > 50 && sent.load(Ordering::Relaxed) > 1000 {
                break;
            }
        }
        swapping.store(false, Ordering::Relaxed);
    });
    let seen = nft(host, "list counters table inet seen\n");
    let packets = |name: &str| -> u64 {
        let rest = seen.split(&format!("counter {name} ")).nth(1).expect("a counter");
        let number = rest.split("packets ").nth(1).and_then(|rest| rest.split(' ').next());
        number.expect("a number").parse().expect("a number")
    };
    assert_eq!(packets("listed"), 0, "{seen}");
    assert!(packets("others") > 900, "{seen}");
}

/// Returns distinct public /28 prefixes in a shuffled order.
fn half_a_million_prefixes() -> String {
    let mut list = String::new();
    for at in 0..many(500_000) {
        let network = 0x1000_0000 + (at.wrapping_mul(0x9e37_79b1) >> 11 << 9 & 0x4fff_ffff);
        let [a, b, c, d] = network.to_be_bytes();
        writeln!(list, "{a}.{b}.{c}.{d}/28").expect("a string");
    }
    list
}

#[test]
fn half_a_million_prefixes_are_imported() {
    let world = world();
    let list = half_a_million_prefixes() + "45.9.20.0/24\n";
    add_successfully(&world.host, "large", &list);
    let _server = serve(&world.host, World::HOST_V4);
    assert!(!passes(&world, LISTED, World::HOST_V4));
    must_pass(&world, "203.0.113.7", World::HOST_V4);
    let listed = nfguard(&world.host, &["feed", "list", "--json"]);
    let listed: Value = serde_json::from_str(&listed.stdout).expect("JSON");
    assert!(listed["feeds"][0]["ranges"].as_u64() > Some(many(200_000).into()), "{listed}");
}

#[test]
fn an_import_that_is_killed_leaves_the_old_list_or_the_new_one() {
    let world = world();
    let _server = serve(&world.host, World::HOST_V4);
    let list =
        TempFile::new("large", &(half_a_million_prefixes() + "45.9.20.0/24\n45.9.30.0/24\n"));
    add_successfully(&world.host, "large", "45.9.20.0/24\n");
    for round in 0..20_u64 {
        let mut import = world.host.run(|| {
            let arguments = ["feed".as_ref(), "add".as_ref(), "large".as_ref(), list.as_ref()];
            command(&arguments).spawn().expect("nfguard starts")
        });
        std::thread::sleep(Duration::from_millis(40 * round));
        import.kill().expect("killed");
        import.wait().expect("it was running");
        assert!(!passes(&world, LISTED, World::HOST_V4), "round {round}");
    }
    // The next import removes the remains. The whole list may be in force, which is much larger.
    let small = TempFile::new("small", "45.9.20.0/24\n");
    let arguments =
        ["feed".as_ref(), "add".as_ref(), "large".as_ref(), small.as_ref(), "--force".as_ref()];
    let added = nfguard::<&std::ffi::OsStr>(&world.host, &arguments);
    assert_eq!(added.status, Some(0), "{added:?}");
    let listed = nft(&world.host, "list sets\n");
    assert_eq!(listed.matches("set feed/").count(), 2, "{listed}");
    assert!(!passes(&world, LISTED, World::HOST_V4));
    must_pass(&world, "45.9.30.1", World::HOST_V4);
}

#[test]
fn the_remains_of_a_killed_first_import_can_be_removed() {
    let netns = Netns::new().expect("run me with `cargo xtask netns-test`");
    let mut bans = netns.run(|| Bans::open(NeverBan::default()).expect("the table"));
    let mut feed = Feed::default();
    feed.add(LISTED.parse().expect("a network"));
    bans.set_feed("other", &feed.clean(bans.never_ban())).expect("put in");
    // The sets exist, but no rule uses them yet.
    for family in [4, 6] {
        let set = format!("feed/drop/v{family}/1 {{ type ipv{family}_addr; flags interval; }}");
        nft(&netns, &format!("add set inet {TABLE} {set}\n"));
    }
    assert!(bans.remove_feed("drop").expect("removed"));
    let left = nft(&netns, "list ruleset\n");
    assert!(!left.contains("feed/drop") && left.contains("feed/other"), "{left}");
}

#[test]
fn feeds_are_independent_and_outlive_the_policy() {
    let world = world();
    let _server = serve(&world.host, World::HOST_V4);
    add_successfully(&world.host, "one", "45.9.20.0/24\n");
    add_successfully(&world.host, "two", "45.9.21.0/24\n");
    let policy = TempFile::new("traefik.json", TRAEFIK);
    for arguments in [["load".as_ref(), policy.as_ref()].as_slice(), &["unload".as_ref()]] {
        assert_eq!(nfguard(&world.host, arguments).status, Some(0));
        for from in [LISTED, UNLISTED] {
            assert!(!passes(&world, from, World::HOST_V4), "{from}");
        }
    }
    assert_eq!(nfguard(&world.host, &["feed", "remove", "one"]).status, Some(0));
    must_pass(&world, LISTED, World::HOST_V4);
    assert!(!passes(&world, UNLISTED, World::HOST_V4));
}

#[test]
fn two_imports_of_one_feed_at_once_leave_a_whole_list() {
    let world = world();
    let _server = serve(&world.host, World::HOST_V4);
    std::thread::scope(|scope| {
        for half in 0..2 {
            let host = &world.host;
            scope.spawn(move || {
                for round in 0..20 {
                    let list = format!("45.9.20.0/24\n45.{}.{round}.0/24\n", 10 + half);
                    let answer = add(host, "both", &list);
                    let beaten = answer.stderr.contains("another process changed feed both");
                    assert!(answer.status == Some(0) || beaten, "{answer:?}");
                }
            });
        }
    });
    assert!(!passes(&world, LISTED, World::HOST_V4));
    let listed = nfguard(&world.host, &["feed", "list", "--json"]);
    let listed: Value = serde_json::from_str(&listed.stdout).expect("JSON");
    assert_eq!(listed["feeds"][0]["ranges"], 2, "{listed}");
}
