//! The ban library with many bans, with existing bans, and with other programs on the same table.

use std::net::{IpAddr, SocketAddr};
use std::time::{Duration, Instant};

use nfguard_ban::{
    ActiveBan, Ban, BanCounts, BanOutcome, Bans, Error, NeverBan, NeverBanKind, Port, ReplacedBans,
    TABLE, Target,
};
use nfguard_lab::{Netns, Probe, World};
use nfguard_tests::nft::nft;
use nfguard_tests::place::netns;
use nfguard_tests::wait::TIMEOUT;

const HOUR: Option<Duration> = Some(Duration::from_secs(3600));

fn bans(netns: &Netns) -> Bans {
    netns.run(|| Bans::open(NeverBan::default()).expect("the table"))
}

fn target(text: &str) -> Target {
    text.parse().expect("a target")
}

fn ban(bans: &Bans, text: &str, lasts: Option<Duration>) -> Ban<'static> {
    let target = bans.admit(target(text)).expect("not on the never-ban list");
    Ban { target, port: None, duration: lasts, source: "one", reason: "", created_at: None }
}

fn seconds(seconds: u64) -> Option<Duration> {
    Some(Duration::from_secs(seconds))
}

/// Returns `count` addresses from `first` on.
fn addresses(bans: &Bans, first: [u8; 4], count: u32) -> Vec<Ban<'static>> {
    let first = u32::from_be_bytes(first);
    let address = |at: u32| Target::source(IpAddr::from((first + at).to_be_bytes()), 64);
    let admitted = (0..count).map(|at| bans.admit(address(at)).expect("not on the never-ban list"));
    let ban = |target| Ban {
        target,
        port: None,
        duration: HOUR,
        source: "one",
        reason: "r",
        created_at: None,
    };
    admitted.map(ban).collect()
}

fn left(bans: &mut Bans, text: &str) -> Option<Duration> {
    let held = bans.look_up(target(text), None).expect("an answer").expect("banned");
    held.expires_in
}

#[test]
fn a_ban_by_port_leaves_other_ports_and_protocols_open() {
    let world = World::new().expect("run me with `cargo xtask netns-test`");
    let mut bans = bans(&world.host);
    for (host, attacker, prefix) in [
        (World::HOST_V4, "203.0.113.66", "203.0.113.0/24"),
        (World::HOST_V6, "2001:db8:66::1", "2001:db8:66::/48"),
    ] {
        let to = |port| SocketAddr::new(host, port);
        let _servers = [80, 443].map(|port| world.host.serve_tcp(to(port)).expect("a server"));
        let _udp = world.host.serve_udp(to(443)).expect("a server");
        let from: IpAddr = attacker.parse().expect("an address");
        let tcp = |port| Probe::tcp(&world.internet, to(port)).from(from);
        let udp = || Probe::udp(&world.internet, to(443)).from(from);
        for text in [attacker, prefix] {
            let port: Port = "443/tcp".parse().expect("a port");
            let made = bans.ban(&Ban { port: Some(port), ..ban(&bans, text, HOUR) });
            assert_eq!(made.expect("banned"), BanOutcome::Added);
            assert!(!tcp(443).run().passed(), "{text}");
            assert!(tcp(80).timeout(TIMEOUT).run().passed(), "{text}");
            assert!(udp().timeout(TIMEOUT).run().passed(), "{text}");
            assert_eq!(bans.look_up(target(text), None).expect("an answer"), None);
            let listed = bans.list().expect("a list");
            assert_eq!(listed.len(), 1);
            assert_eq!((listed[0].target, listed[0].port), (target(text), Some(port)));
            assert!(bans.unban(target(text), Some(port)).expect("unbanned"));
            assert!(tcp(443).timeout(TIMEOUT).run().passed(), "{text}");
        }
    }
}

#[test]
fn nft_loads_its_own_listing_of_bans_by_port() {
    let netns = netns();
    let mut bans = bans(&netns);
    for text in ["192.0.2.1", "198.51.100.0/24", "2001:db8::/64", "2001:db8::1/128"] {
        for port in ["80/tcp", "443/udp"] {
            let port = port.parse().ok();
            bans.ban(&Ban { port, ..ban(&bans, text, None) }).expect("banned");
        }
    }
    let before = nft(&netns, "list ruleset\n");
    nft(&netns, &format!("flush ruleset\n{before}"));
    assert_eq!(nft(&netns, "list ruleset\n"), before);
    assert_eq!(bans.list().expect("a list").len(), 8);
}

#[test]
fn a_long_list_with_duplicates_and_existing_bans_is_counted_right() {
    let netns = netns();
    let mut bans = bans(&netns);
    let first = addresses(&bans, [10, 0, 0, 0], 30_000);
    let all = |added, extended, kept| BanCounts { added, extended, kept };
    assert_eq!(bans.ban_all(first.clone()).expect("banned"), all(30_000, 0, 0));
    assert_eq!(bans.count().expect("a number"), 30_000);

    // The second half of the first list, as many new bans, and some of these twice.
    let mut second = addresses(&bans, [10, 0, 58, 152], 30_000);
    second.extend_from_within(29_000..);
    for (lasts, made) in [
        (seconds(1800), all(15_000, 0, 16_000)),
        (HOUR, all(0, 30_000, 1000)),
        (None, all(0, 30_000, 1000)),
        (HOUR, all(0, 0, 31_000)),
    ] {
        second.iter_mut().for_each(|ban| ban.duration = lasts);
        assert_eq!(bans.ban_all(second.clone()).expect("banned"), made, "{lasts:?}");
    }
    assert_eq!(bans.count().expect("a number"), 45_000);
    assert_eq!(left(&mut bans, "10.0.58.152"), None);
    assert!(left(&mut bans, "10.0.58.151").is_some());
}

#[test]
fn a_ban_can_be_extended_and_an_absent_one_cannot() {
    let netns = netns();
    let mut bans = bans(&netns);
    bans.ban(&ban(&bans, "192.0.2.1", seconds(100))).expect("banned");
    let extended = bans.extend("one", target("192.0.2.1"), None, Duration::from_secs(1000));
    assert!(extended.expect("an answer").expect("banned").expires_in > seconds(1000));
    let left = left(&mut bans, "192.0.2.1");
    assert!(left > seconds(1000) && left <= seconds(1100), "{left:?}");
    let absent = bans.extend("one", target("192.0.2.2"), None, Duration::from_secs(1));
    assert_eq!(absent.expect("an answer"), None);
}

#[test]
fn a_ban_of_zero_duration_ends_and_one_of_maximum_duration_lasts() {
    let netns = netns();
    let mut bans = bans(&netns);
    let all = [("192.0.2.1", Duration::ZERO), ("192.0.2.2", Duration::MAX)]
        .map(|(text, lasts)| ban(&bans, text, Some(lasts)));
    bans.ban_all(all).expect("banned");
    let extended = bans.extend("one", target("192.0.2.2"), None, Duration::MAX);
    extended.expect("an answer").expect("extended");
    let deadline = Instant::now() + TIMEOUT;
    while bans.look_up(target("192.0.2.1"), None).expect("an answer").is_some() {
        assert!(Instant::now() < deadline, "a ban of no time holds on");
        std::thread::sleep(Duration::from_millis(10));
    }
    let centuries = Duration::from_secs(500 * 365 * 24 * 3600);
    assert!(left(&mut bans, "192.0.2.2") > Some(centuries));
    assert!(nft(&netns, &format!("list table inet {TABLE}\n")).contains("192.0.2.2 timeout"));
}

#[test]
fn a_source_ends_its_own_bans_and_no_others() {
    let netns = netns();
    let mut bans = bans(&netns);
    let mut list = addresses(&bans, [10, 0, 0, 0], 1000);
    for (at, ban) in list.iter_mut().enumerate() {
        ban.source = if at % 2 == 0 { "fail2ban/web site" } else { "psad" };
    }
    bans.ban_all(list).expect("banned");
    assert_eq!(bans.flush("fail2ban/web site").expect("flushed"), 500);
    assert_eq!(bans.flush("fail2ban/web site").expect("flushed"), 0);
    assert_eq!(bans.count().expect("a number"), 500);
}

#[test]
fn replace_sets_the_bans_of_one_source_and_leaves_the_others() {
    let netns = netns();
    let mut bans = bans(&netns);
    bans.ban_all([
        ban(&bans, "192.0.2.1", HOUR),
        ban(&bans, "192.0.2.2", HOUR),
        Ban { source: "other", ..ban(&bans, "192.0.2.3", HOUR) },
        Ban { source: "other", ..ban(&bans, "192.0.2.4", HOUR) },
    ])
    .expect("banned");
    let new = [
        ban(&bans, "192.0.2.2", seconds(60)),
        ban(&bans, "192.0.2.3", seconds(60)),
        ban(&bans, "192.0.2.5", seconds(60)),
        ban(&bans, "192.0.2.5", seconds(30)),
    ];
    let tally = bans.replace("one", new).expect("replaced");
    let counts = BanCounts { added: 2, extended: 1, kept: 1 };
    assert_eq!(tally, ReplacedBans { counts, ended: 1 });
    let source = |ActiveBan { target, source, .. }: ActiveBan| (target.to_string(), source);
    let listed: Vec<_> = bans.list().expect("a list").into_iter().map(source).collect();
    let expected = [
        ("192.0.2.2", "one"),
        ("192.0.2.3", "other"),
        ("192.0.2.3", "one"),
        ("192.0.2.4", "other"),
        ("192.0.2.5", "one"),
    ];
    assert_eq!(listed, expected.map(|(target, source)| (target.to_owned(), source.to_owned())));
    assert!(left(&mut bans, "192.0.2.2") <= seconds(60));
    assert!(left(&mut bans, "192.0.2.3") > seconds(60));
}

#[test]
fn a_second_replace_with_the_same_list_keeps_every_ban_and_writes_nothing() {
    let netns = netns();
    let mut bans = bans(&netns);
    let list = [
        ban(&bans, "192.0.2.1", HOUR),
        ban(&bans, "192.0.2.2", None),
        ban(&bans, "2001:db8::/48", HOUR),
    ];
    bans.ban(&Ban { source: "other", ..list[0] }).expect("banned");
    let start = Instant::now();
    let first = bans.replace("one", list).expect("replaced");
    let added = BanCounts { added: 3, ..BanCounts::default() };
    assert_eq!(first, ReplacedBans { counts: added, ended: 0 });
    let nft_handle = || nft(&netns, "list ruleset\n");
    let before = nft_handle();
    // The same ends, however long the first one took.
    let list = list.map(|ban| Ban {
        duration: ban.duration.map(|duration| duration.saturating_sub(start.elapsed())),
        ..ban
    });
    let second = bans.replace("one", list).expect("replaced");
    let kept = BanCounts { kept: 3, ..BanCounts::default() };
    assert_eq!(second, ReplacedBans { counts: kept, ended: 0 });
    // nft prints what is left of each time, and what was given; the latter changes with a new ban.
    let given = |text: &str| {
        let words: Vec<_> = text.split_whitespace().collect();
        let after = |pair: &[&str]| (pair[0] != "expires").then(|| pair[1].to_owned());
        words.windows(2).filter_map(after).collect::<Vec<_>>()
    };
    assert_eq!(given(&before), given(&nft_handle()));

    let less = bans.replace("one", [list[1], Ban { duration: seconds(60), ..list[2] }]);
    let counts = BanCounts { extended: 1, kept: 1, ..BanCounts::default() };
    assert_eq!(less.expect("replaced"), ReplacedBans { counts, ended: 1 });
    let none = bans.replace("one", []).expect("replaced");
    assert_eq!(none, ReplacedBans { ended: 2, ..ReplacedBans::default() });
    assert_eq!(bans.count().expect("a number"), 1, "the other source's");
}

#[test]
fn two_extensions_at_once_leave_the_longest_ban() {
    let netns = netns();
    const ROUNDS: u64 = 100;
    std::thread::scope(|scope| {
        for half in 0..2 {
            let netns = &netns;
            scope.spawn(move || {
                let mut bans = bans(netns);
                for round in (half..2 * ROUNDS).step_by(2) {
                    let lasts = seconds(1000 * (round + 1));
                    bans.ban(&ban(&bans, "192.0.2.1", lasts)).expect("banned");
                    let held = left(&mut bans, "192.0.2.1");
                    assert!(held > seconds(1000 * (round + 1) - 100), "{round}: {held:?}");
                }
            });
        }
    });
}

#[test]
fn a_never_ban_entry_of_one_program_binds_all_programs_until_removed() {
    let netns = netns();
    let exempt: IpAddr = "192.0.2.10".parse().expect("an address");
    let first = netns.run(|| {
        Bans::open(NeverBan::default().with(exempt, NeverBanKind::by_hand("the operator")))
    });
    drop(first.expect("the table"));
    let mut second = bans(&netns);
    let refused = second.admit(target("192.0.2.0/24")).expect_err("contains the operator");
    assert_eq!(refused.entry.kind, NeverBanKind::by_hand("the operator"));
    second
        .replace_never_ban(
            &NeverBanKind::by_hand("the policy"),
            &[target("198.51.100.0/24").network()],
        )
        .expect("added");
    second
        .replace_never_ban(
            &NeverBanKind::by_hand("the policy"),
            &[target("203.0.113.0/24").network()],
        )
        .expect("added");
    let third = bans(&netns);
    assert!(third.admit(target("203.0.113.9")).is_err());
    assert!(third.admit(target("198.51.100.9")).is_ok());
    second.remove_never_ban(&[exempt.into()]).expect("removed");
    assert!(second.admit(target("192.0.2.0/24")).is_ok());
    assert!(bans(&netns).admit(target("192.0.2.10")).is_ok());
}

#[test]
fn a_program_keeps_its_own_never_ban_entries_and_not_those_that_others_removed() {
    let netns = netns();
    let all = ["192.0.2.10", "198.51.100.0/24"].map(|text| target(text).network());
    let mut first = bans(&netns);
    first.replace_never_ban(&NeverBanKind::by_hand("the office"), &all).expect("added");
    let exempt: IpAddr = "203.0.113.9".parse().expect("an address");
    let second = netns
        .run(|| Bans::open(NeverBan::default().with(exempt, NeverBanKind::by_hand("the monitor"))));
    let mut second = second.expect("the table");
    assert!(second.admit(target("192.0.2.10")).is_err());
    first.replace_never_ban(&NeverBanKind::by_hand("the office"), &[]).expect("removed");
    first.remove_never_ban(&[exempt.into()]).expect("removed");
    // The first ban of its prefix length makes the library read the table again.
    second.ban(&ban(&second, "10.0.0.0/9", HOUR)).expect("banned");
    for mut bans in [second, bans(&netns)] {
        assert!(bans.admit(target("192.0.2.10")).is_ok());
        assert!(bans.admit(target("198.51.100.1")).is_ok());
        assert!(bans.admit(target("203.0.113.9")).is_err());
        assert_eq!(bans.count().expect("a number"), 1);
    }
}

#[test]
fn never_ban_entries_beyond_the_capacity_are_refused_and_earlier_ones_stay() {
    let netns = netns();
    let mut bans = bans(&netns);
    let exempt = |at: u32| IpAddr::from((0x0a00_0000 + at).to_be_bytes()).into();
    bans.replace_never_ban(&NeverBanKind::by_hand("the office"), &[exempt(0)]).expect("added");
    let all: Vec<_> = (0..16_385).map(exempt).collect();
    let error = bans
        .replace_never_ban(&NeverBanKind::by_hand("the office"), &all)
        .expect_err("too many")
        .to_string();
    assert!(error.contains("no room for 16386 single addresses"), "{error}");
    assert!(bans.admit(target("10.0.0.0")).is_err());
    assert!(bans.admit(target("10.0.0.1")).is_ok());
    // The largest list that fits the send buffer of a plain user.
    bans.replace_never_ban(&NeverBanKind::by_hand("the office"), &all[..8_000]).expect("added");
    assert!(bans.admit(target("10.0.0.1")).is_err());
}

#[test]
fn never_ban_entries_survive_the_removal_of_the_table_by_others() {
    let netns = netns();
    bans(&netns)
        .replace_never_ban(&NeverBanKind::by_hand("the office"), &[target("192.0.2.10").network()])
        .expect("added");
    let mut bans = bans(&netns);
    nft(&netns, "flush ruleset\n");
    bans.ban(&ban(&bans, "203.0.113.9", HOUR)).expect("banned");
    assert!(self::bans(&netns).admit(target("192.0.2.10")).is_err());
}

#[test]
fn a_never_ban_entry_outlives_the_removal_of_a_prefix_around_it() {
    let netns = netns();
    let mut bans = bans(&netns);
    for (reason, text) in
        [("a \"monitor\"", "192.0.2.10"), ("a v6 monitor", "2001:db8::5/128"), ("all", "0.0.0.0/0")]
    {
        bans.replace_never_ban(&NeverBanKind::by_hand(reason), &[target(text).network()])
            .expect("added");
    }
    bans.replace_never_ban(&NeverBanKind::by_hand("all"), &[target("2001:db8::/32").network()])
        .expect("added");
    bans.replace_never_ban(&NeverBanKind::by_hand("all"), &[]).expect("removed");
    let mut other = self::bans(&netns);
    assert!(other.admit(target("192.0.2.0/24")).is_err());
    assert!(other.admit(target("2001:db8::/32")).is_err());
    assert!(other.admit(target("198.51.100.1")).is_ok());
    other.replace_never_ban(&NeverBanKind::by_hand("a \"monitor\""), &[]).expect("removed");
    assert!(self::bans(&netns).admit(target("192.0.2.10")).is_ok());
}

#[test]
fn nested_never_ban_prefixes_hold_in_any_order_of_removal() {
    let netns = netns();
    let nested =
        ["192.0.2.0/24", "192.0.2.16/28", "192.0.2.20/30", "2001:db8::/32", "2001:db8::/48"];
    let admits = |text: &str| bans(&netns).admit(target(text)).is_ok();
    for text in nested {
        bans(&netns)
            .replace_never_ban(&NeverBanKind::by_hand(text), &[target(text).network()])
            .expect("added");
    }
    let named: Vec<_> =
        bans(&netns).never_ban().entries().iter().map(|entry| entry.kind.to_string()).collect();
    assert!(nested.iter().all(|text| named.iter().any(|reason| reason == text)), "{named:?}");
    let before = nft(&netns, "list ruleset\n");
    nft(&netns, &format!("flush ruleset\n{before}"));

    bans(&netns).replace_never_ban(&NeverBanKind::by_hand("2001:db8::/32"), &[]).expect("removed");
    assert!(!admits("2001:db8::1") && admits("2001:db8:1::1"));
    bans(&netns).replace_never_ban(&NeverBanKind::by_hand("192.0.2.16/28"), &[]).expect("removed");
    assert!(!admits("192.0.2.17"));
    bans(&netns).replace_never_ban(&NeverBanKind::by_hand("192.0.2.0/24"), &[]).expect("removed");
    assert!(!admits("192.0.2.21") && admits("192.0.2.17"));
    bans(&netns).replace_never_ban(&NeverBanKind::by_hand("192.0.2.20/30"), &[]).expect("removed");
    assert!(admits("192.0.2.21"));
}

#[test]
fn listing_bans_creates_no_table_and_another_versions_table_is_left_alone() {
    let netns = netns();
    let found = netns.run(|| Bans::open_existing(NeverBan::default()).expect("an answer"));
    assert!(found.is_none());
    assert_eq!(nft(&netns, "list ruleset\n"), "");
    nft(&netns, &format!("add table inet {TABLE} {{ comment \"nfguard bans, format 9\"; }}\n"));
    for open in [
        || Bans::open(NeverBan::default()).map(|_| ()),
        || Bans::open_existing(NeverBan::default()).map(|_| ()),
    ] {
        let error = netns.run(open).expect_err("another format");
        assert!(matches!(error, Error::OtherVersion { .. }), "{error}");
        assert!(error.to_string().contains("format 9"), "{error}");
    }
}

#[test]
fn a_full_set_is_an_error_and_nothing_of_its_batch_is_banned() {
    let netns = netns();
    drop(bans(&netns));
    // The same set, but small. At the next opening, no rule uses it.
    let small = "{ type ipv4_addr; flags timeout; size 3; }";
    nft(&netns, &format!("add set inet {TABLE} v4/24 {small}\n"));
    let mut bans = bans(&netns);
    let listed = nft(&netns, "list ruleset\n");
    assert!(listed.contains("@v4/24 ip saddr != "), "{listed}");
    let list =
        |from: u8, to: u8| (from..to).map(|at| format!("10.0.{at}.0/24")).collect::<Vec<_>>();
    let mut add = |list: &[String]| {
        let wanted: Vec<_> = list.iter().map(|text| ban(&bans, text, HOUR)).collect();
        bans.ban_all(wanted)
    };
    add(&list(0, 2)).expect("two of three");
    let error = add(&list(2, 5)).expect_err("five of three");
    assert!(matches!(&error, Error::Full { held: 2, more: 3, .. }), "{error}");
    let error = add(&list(1, 5)).expect_err("one is there, three are too many");
    assert!(matches!(&error, Error::Full { held: 2, more: 3, .. }), "{error}");
    assert_eq!(
        add(&list(1, 3)).expect("one is there"),
        BanCounts { added: 1, extended: 1, kept: 0 }
    );
    assert_eq!(bans.count().expect("a number"), 3);
}

#[test]
fn a_list_in_batches_fits_a_small_send_buffer() {
    let netns = netns();
    // More bytes than an unprivileged socket sends at once, with reasons of maximum length.
    let mut bans = bans(&netns);
    let long = "x".repeat(100);
    let mut list = addresses(&bans, [10, 0, 0, 0], 8000);
    list.iter_mut().for_each(|ban| ban.reason = &long);
    assert_eq!(bans.ban_all(list).expect("banned").added, 8000);
}
