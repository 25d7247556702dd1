//! Bans in the real kernel, checked with packets.

use std::io::{BufRead as _, BufReader, Write as _};
use std::net::{IpAddr, SocketAddr, TcpStream};
use std::time::{Duration, Instant};

use nfguard_ban::{Ban, BanMirror, BanOutcome, Bans, NeverBan, NeverBanKind, TABLE, Target};
use nfguard_lab::{Netns, Probe, World, packet};
use nfguard_netlink::{Nft, RulesetEvent};
use nfguard_tests::nft::nft;
use nfguard_tests::place::{netns, world};
use nfguard_tests::program::{TempFile, nfguard, nfguard_fed};
use nfguard_tests::wait::TIMEOUT;

const TRAEFIK: &str = include_str!("../../policies/traefik.json");
const HOUR: Option<Duration> = Some(Duration::from_secs(3600));

fn bans(netns: &Netns) -> Bans {
    netns.run(|| Bans::open(NeverBan::default()).expect("run me with `cargo xtask netns-test`"))
}

fn target(text: &str) -> Target {
    text.parse().expect("a target")
}

fn ban(bans: &mut Bans, text: &str, lasts: Option<Duration>) -> BanOutcome {
    let target = bans.admit(target(text)).expect("not on the never-ban list");
    let (source, reason) = ("a-test", "5 \"failures\"");
    let ban = Ban { target, port: None, duration: lasts, source, reason, created_at: None };
    bans.ban(&ban).expect("the kernel takes it")
}

fn attackers() -> [(IpAddr, IpAddr, IpAddr); 2] {
    let address = |text: &str| text.parse::<IpAddr>().expect("an address");
    [
        (World::HOST_V4, address("203.0.113.66"), address("203.0.113.67")),
        (World::HOST_V6, address("2001:db8:66::1"), address("2001:db8:67::1")),
    ]
}

fn passes(world: &World, from: IpAddr, to: IpAddr) -> bool {
    let probe = Probe::tcp(&world.internet, SocketAddr::new(to, 443)).from(from);
    // `must_pass` has the long timeout.
    probe.run().passed()
}

fn must_pass(world: &World, from: IpAddr, to: IpAddr) {
    let probe = Probe::tcp(&world.internet, SocketAddr::new(to, 443)).from(from);
    let outcome = probe.timeout(TIMEOUT).run();
    assert!(outcome.passed(), "{from} to {to}: {outcome}");
}

/// An open connection.
struct Session(BufReader<TcpStream>);

impl Session {
    fn open(world: &World, from: IpAddr, to: SocketAddr) -> Session {
        let probe = Probe::tcp(&world.internet, to).from(from).timeout(TIMEOUT);
        let mut session =
            Session(BufReader::new(probe.connect().expect("no address is banned yet")));
        // The server sends the first line.
        assert!(session.gets_greeting(TIMEOUT));
        session
    }

    fn gets_greeting(&mut self, wait: Duration) -> bool {
        self.0.get_ref().set_read_timeout(Some(wait)).expect("a timeout");
        self.0.read_line(&mut String::new()).is_ok_and(|len| len > 0)
    }

    fn echoes(&mut self, wait: Duration) -> bool {
        self.0.get_mut().write_all(b"ping\n").is_ok() && self.gets_greeting(wait)
    }
}

#[test]
fn a_ban_cuts_open_connections_and_no_others_and_an_unban_lets_new_ones_in() {
    let world = world();
    let mut bans = bans(&world.host);
    for (host, attacker, neighbour) in attackers() {
        let _server = world.host.serve_tcp(SocketAddr::new(host, 443)).expect("a server");
        let to = SocketAddr::new(host, 443);
        let mut bad = Session::open(&world, attacker, to);
        let mut good = Session::open(&world, neighbour, to);
        assert!(bad.echoes(TIMEOUT) && good.echoes(TIMEOUT));

        assert_eq!(ban(&mut bans, &attacker.to_string(), HOUR), BanOutcome::Added);
        assert!(!bad.echoes(Duration::from_millis(500)), "{attacker} goes on");
        assert!(!passes(&world, attacker, host), "{attacker} gets in");
        assert!(good.echoes(TIMEOUT), "{neighbour} is disturbed");
        must_pass(&world, neighbour, host);

        let banned = target(&attacker.to_string());
        assert!(bans.unban(banned, None).expect("unbanned"));
        assert!(!bans.unban(banned, None).expect("absent is no error"));
        must_pass(&world, attacker, host);
    }
}

#[test]
fn a_ban_cuts_connections_that_nat_forwards_to_a_container() {
    let world = World::with_container().expect("run me with `cargo xtask netns-test`");
    let container = world.container.as_ref().expect("made with one");
    nft(
        &world.host,
        "table inet docker {
            chain published {
                type nat hook prerouting priority -100;
                fib daddr type local tcp dport 443 dnat ip to 172.17.0.2:8443
                fib daddr type local tcp dport 443 dnat ip6 to [2001:db8:d0c::2]:8443
            }
        }\n",
    );
    let mut bans = bans(&world.host);
    for ((host, attacker, neighbour), inside) in
        attackers().into_iter().zip([World::CONTAINER_V4, World::CONTAINER_V6])
    {
        let _server = container.serve_tcp(SocketAddr::new(inside, 8443)).expect("a server");
        let to = SocketAddr::new(host, 443);
        let mut bad = Session::open(&world, attacker, to);
        let mut good = Session::open(&world, neighbour, to);
        assert!(bad.echoes(TIMEOUT) && good.echoes(TIMEOUT));

        ban(&mut bans, &attacker.to_string(), HOUR);
        let mut capture = container.capture().expect("a capture");
        assert!(!bad.echoes(Duration::from_millis(500)), "{attacker} goes on");
        assert!(!passes(&world, attacker, host), "{attacker} gets in");
        assert!(good.echoes(TIMEOUT), "{neighbour} is disturbed");
        must_pass(&world, neighbour, host);
        let is_bad = |packet: &[u8]| packet::source(packet) == Some(attacker);
        let arrived = capture.wait(Duration::from_millis(300), is_bad).expect("a capture");
        assert_eq!(arrived, None, "a packet of {attacker} reaches the container");

        assert!(bans.unban(target(&attacker.to_string()), None).expect("unbanned"));
        must_pass(&world, attacker, host);
    }
}

#[test]
fn a_prefix_and_an_address_in_it_are_two_bans_with_ends_of_their_own() {
    let world = world();
    let mut bans = bans(&world.host);
    for (host, attacker, neighbour) in attackers() {
        let _server = world.host.serve_tcp(SocketAddr::new(host, 443)).expect("a server");
        let prefix = if host.is_ipv4() { "203.0.113.0/24" } else { "2001:db8:60::/44" };
        ban(&mut bans, prefix, HOUR);
        ban(&mut bans, &attacker.to_string(), None);
        assert!(!passes(&world, attacker, host) && !passes(&world, neighbour, host));
        bans.unban(target(prefix), None).expect("unbanned");
        assert!(!passes(&world, attacker, host));
        must_pass(&world, neighbour, host);
    }
}

#[test]
fn a_ban_expires() {
    let world = world();
    let mut bans = bans(&world.host);
    let (host, attacker, _) = attackers()[0];
    let _server = world.host.serve_tcp(SocketAddr::new(host, 443)).expect("a server");
    ban(&mut bans, &attacker.to_string(), Some(Duration::from_secs(2)));
    assert!(!passes(&world, attacker, host));
    let deadline = Instant::now() + TIMEOUT;
    while !passes(&world, attacker, host) {
        assert!(Instant::now() < deadline, "still banned");
    }
    assert_eq!(bans.list().expect("a list"), []);
}

#[test]
fn the_longer_of_two_bans_counts_and_permanent_is_longest() {
    let netns = Netns::new().expect("run me with `cargo xtask netns-test`");
    let mut bans = bans(&netns);
    let seconds = |seconds| Some(Duration::from_secs(seconds));
    for (lasts, made, at_least) in [
        (seconds(1000), BanOutcome::Added, seconds(900)),
        (seconds(500), BanOutcome::Kept, seconds(900)),
        (seconds(5000), BanOutcome::Extended, seconds(4900)),
        (None, BanOutcome::Extended, None),
        (seconds(5000), BanOutcome::Kept, None),
    ] {
        assert_eq!(ban(&mut bans, "192.0.2.1", lasts), made, "{lasts:?}");
        let found = bans.look_up(target("192.0.2.1"), None).expect("an answer").expect("banned");
        match at_least {
            None => assert_eq!(found.expires_in, None),
            Some(_) => assert!(found.expires_in >= at_least, "{found:?}"),
        }
        assert_eq!((found.source.as_str(), found.reason.as_str()), ("a-test", "5 'failures'"));
    }
}

#[test]
fn a_list_of_bans_takes_no_never_ban_entry() {
    let world = world();
    let (_, attacker, _) = attackers()[0];
    let never = NeverBan::default().with(attacker, NeverBanKind::by_hand("the operator"));
    let bans = world.host.run(|| Bans::open(never).expect("bans"));
    let refused = bans.admit(target("203.0.113.0/24")).expect_err("contains the operator");
    assert!(refused.to_string().contains("203.0.113.66 (the operator)"), "{refused}");
    assert!(bans.admit(target("127.0.0.1")).is_err());
}

/// A short never-ban list stands in the rules themselves, a long one in a set.
#[test]
fn an_exempt_address_among_the_bans_passes_however_long_the_never_ban_list() {
    let world = world();
    for (host, attacker, neighbour) in attackers() {
        let _server = world.host.serve_tcp(SocketAddr::new(host, 443)).expect("a server");
        let mut bans = bans(&world.host);
        bans.replace_never_ban(&NeverBanKind::by_hand("ours"), &[attacker.into()])
            .expect("it is added");
        let source = |of| Target::source(of, Target::V6_SOURCE);
        ban(&mut bans, &source(neighbour).to_string(), HOUR);
        let (set, net) =
            if attacker.is_ipv4() { ("v4/32", "192.0.2.") } else { ("v6/64", "fd00::") };
        let key = source(attacker).network().network();
        nft(&world.host, &format!("add element inet {TABLE} {set} {{ {key} timeout 1h }}\n"));
        for others in [0, 20, 0] {
            let address = |number| format!("{net}{number}").parse::<IpAddr>().expect("an address");
            let others: Vec<_> = (0..others).map(|number| address(number).into()).collect();
            bans.replace_never_ban(&NeverBanKind::by_hand("others"), &others)
                .expect("they are added");
            must_pass(&world, attacker, host);
            assert!(!passes(&world, neighbour, host), "beside {} others", others.len());
        }
        bans.remove_never_ban(&[attacker.into()]).expect("the list is changed");
        assert!(!passes(&world, attacker, host), "{attacker} is exempt no more");
    }
}

#[test]
fn bans_outlive_the_policy_and_come_back_after_a_flush_of_everything() {
    let world = world();
    let (host, attacker, neighbour) = attackers()[0];
    let _server = world.host.serve_tcp(SocketAddr::new(host, 443)).expect("a server");
    let mut bans = bans(&world.host);
    ban(&mut bans, &attacker.to_string(), HOUR);
    let policy = TempFile::new("traefik.json", TRAEFIK);
    for arguments in [["load".as_ref(), policy.as_ref()].as_slice(), &["unload".as_ref()]] {
        assert_eq!(nfguard(&world.host, arguments).status, Some(0));
        assert!(!passes(&world, attacker, host), "after {arguments:?}");
        must_pass(&world, neighbour, host);
    }
    nft(&world.host, "flush ruleset\n");
    must_pass(&world, attacker, host);
    assert_eq!(ban(&mut bans, &attacker.to_string(), HOUR), BanOutcome::Added);
    assert!(!passes(&world, attacker, host));
}

#[test]
fn opening_twice_changes_nothing_and_nft_loads_its_own_listing_of_the_bans() {
    let netns = Netns::new().expect("run me with `cargo xtask netns-test`");
    let mut first = bans(&netns);
    for text in ["192.0.2.1", "198.51.100.0/24", "2001:db8::1", "2001:db8:1::/64"] {
        ban(&mut first, text, None);
    }
    let before = nft(&netns, "list ruleset\n");
    let mut second = bans(&netns);
    assert_eq!(second.list().expect("a list").len(), 4);
    assert_eq!(nft(&netns, "list ruleset\n"), before);
    nft(&netns, &format!("flush ruleset\n{before}"));
    assert_eq!(nft(&netns, "list ruleset\n"), before);
}

#[test]
fn ban_reads_the_listing_of_bans_with_the_remaining_time() {
    let (here, there) = (Netns::new().expect("a namespace"), Netns::new().expect("a namespace"));
    let mut made = bans(&here);
    ban(&mut made, "192.0.2.1", HOUR);
    ban(&mut made, "2001:db8::/32", None);
    let printed = nfguard(&here, &["bans", "--json"]);
    assert_eq!(printed.status, Some(0), "{printed:?}");
    let taken = nfguard_fed(&there, &["ban", "-"], &printed.stdout);
    assert_eq!(taken.status, Some(0), "{taken:?}");
    let restored = bans(&there).list().expect("a list");
    for (old, new) in made.list().expect("a list").into_iter().zip(restored) {
        assert_eq!(
            (&old.target, &old.source, &old.created_at),
            (&new.target, &new.source, &new.created_at)
        );
        assert_eq!(old.reason, new.reason);
        assert_eq!(old.expires_in.is_some(), new.expires_in.is_some());
        assert!(new.expires_in <= HOUR);
    }
}

#[test]
fn a_list_with_a_bad_line_bans_nothing_or_all_other_lines() {
    let netns = Netns::new().expect("a namespace");
    let list = "# mine\n203.0.113.7\n300.1.1.1\n127.0.0.1\n2001:db8::/32 # why\n";
    let refused = nfguard_fed(&netns, &["ban", "-"], list);
    assert_eq!(refused.status, Some(2), "{refused:?}");
    assert!(refused.stderr.contains("line 3: "), "{refused:?}");
    assert!(refused.stderr.contains("line 4: 127.0.0.1 is not banned"), "{refused:?}");
    assert_eq!(bans(&netns).list().expect("a list"), []);
    let skipped = nfguard_fed(&netns, &["ban", "-", "--skip-bad-lines", "--for", "1h"], list);
    assert_eq!(skipped.status, Some(1), "{skipped:?}");
    assert_eq!(bans(&netns).list().expect("a list").len(), 2);
}

#[test]
fn two_programs_that_ban_at_once_lose_no_ban() {
    let netns = Netns::new().expect("run me with `cargo xtask netns-test`");
    std::thread::scope(|scope| {
        for half in 0..2u8 {
            let netns = &netns;
            scope.spawn(move || {
                let mut bans = bans(netns);
                for (at, bits) in (16..=32).chain(16..=32).enumerate() {
                    ban(&mut bans, &format!("10.{half}.{at}.0/{bits}"), HOUR);
                }
            });
        }
    });
    let listed = nft(&netns, &format!("list table inet {TABLE}\n"));
    let rules = listed.lines().filter(|line| line.contains("ip saddr != ")).count();
    assert_eq!(rules, 17, "one rule for each length\n{listed}");
    let mut expected: Vec<Target> = (0..2u8)
        .flat_map(|half| {
            let each = (16..=32).chain(16..=32).enumerate();
            each.map(move |(at, bits)| target(&format!("10.{half}.{at}.0/{bits}")))
        })
        .collect();
    expected.sort();
    expected.dedup();
    let mut found: Vec<Target> =
        bans(&netns).list().expect("a list").into_iter().map(|ban| ban.target).collect();
    found.sort();
    assert_eq!(found, expected);
}

/// The event of a removal may come late. The table that was restored meanwhile is not restored again:
/// that would bring back what was ended since.
#[test]
fn a_table_is_restored_once_for_each_removal() {
    let netns = netns();
    let mut bans = bans(&netns);
    for address in ["203.0.113.7", "203.0.113.8"] {
        ban(&mut bans, address, HOUR);
    }
    let nft_of = || netns.run(|| Nft::open().expect("netlink is there"));
    let mut mirror = BanMirror::open(nft_of()).expect("the kernel tells");
    netns.run(|| {
        while !mirror.is_complete() {
            mirror.read_part().expect("the kernel tells");
        }
    });
    let mut restored = |removed: bool| {
        let now = Instant::now();
        if removed {
            mirror.apply(&RulesetEvent::TableRemoved(TABLE.to_owned()), now);
        }
        mirror.reconcile(now).expect("the kernel takes it").map(|restored| restored.bans)
    };
    let delete = || nft(&netns, &format!("delete table inet {TABLE}\n"));
    delete();
    assert_eq!(restored(false), Some(2));
    assert!(bans.unban(target("203.0.113.7"), None).expect("the kernel takes it"));
    assert_eq!(restored(true), None, "of the first removal");
    let left = bans.list().expect("the kernel tells");
    assert_eq!(left.len(), 1, "{left:?}");
    // The next removal, after which another program has made the table again.
    delete();
    nft(&netns, &format!("add table inet {TABLE}\n"));
    assert!(restored(true).is_some());
    assert_eq!(restored(true), None, "its own removal");
}
