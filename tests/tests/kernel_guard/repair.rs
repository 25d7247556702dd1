//! What others do to the tables.

use std::net::{IpAddr, SocketAddr, UdpSocket};
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread;
use std::time::{Duration, Instant};

use nfguard_lab::{Netns, World};
use nfguard_tests::guard::Guard;
use nfguard_tests::nft::{nft, try_nft};
use rustix::process::{Pid, Signal, kill_process};

use super::{
    POLICY_A, banned, can_be_owned, json, netns, policy, policy_file, succeed, wait_until, world,
};

#[test]
fn changes_by_others_are_refused_or_repaired() {
    let netns = netns();
    let a = policy_file(POLICY_A);
    succeed(&netns, &["load", a.path().to_str().expect("plain letters")]);
    let guard = Guard::start(&netns, Some(a.path()), &[]);
    let kept = if can_be_owned() { "owned" } else { "watched" };
    assert_eq!(json(&guard.status())["status"]["policy"], kept);
    let meant = policy(&netns);
    assert!(meant.contains("dport"), "{meant}");
    let mut subscriber = guard.connect();
    subscriber.request(r#"{"op":"subscribe"}"#);
    for change in [
        "flush ruleset",
        "delete table inet nfguard",
        "add rule inet nfguard ingress accept",
        "flush chain inet nfguard egress",
        "add table inet nfguard { flags dormant; }",
        "add chain inet nfguard more { type filter hook input priority 0; policy drop; }",
        "add map inet nfguard m { type ipv4_addr : verdict; }",
        "add element inet nfguard group/friends/v4 { 198.51.100.0/24 }",
    ] {
        let refused = !try_nft(&netns, &format!("{change}\n")).status.success();
        assert_eq!(refused, can_be_owned() && change != "flush ruleset", "{change}");
        wait_until(change, &guard, || policy(&netns) == meant);
        if !refused && !can_be_owned() {
            let event = loop {
                let event = json(&subscriber.read_line().expect("an event"));
                if event["event"] == "repaired" {
                    break event;
                }
            };
            assert_ne!(event["changes"].as_array().map(Vec::len), Some(0), "{change}: {event}");
        }
        succeed(&netns, &["status"]);
    }
    let repairs = json(&guard.status())["status"]["repairs"].as_u64().expect("a number");
    assert_eq!(repairs, if can_be_owned() { 0 } else { 8 }, "{}", guard.log());
}

/// The guard gets the event of the new set together with the event of its removal.
#[test]
fn the_first_ban_of_its_kind_comes_back_even_if_it_is_flushed_at_once() {
    let netns = netns();
    let a = policy_file(POLICY_A);
    let guard = Guard::start(&netns, Some(a.path()), &[]);
    let process = Pid::from_raw(guard.process().try_into().expect("a number")).expect("it runs");
    for (at, target) in ["203.0.113.7", "203.0.113.0/25"].into_iter().enumerate() {
        kill_process(process, Signal::STOP).expect("it is ours");
        succeed(&netns, &["ban", target, "--for", "1h", "--source", "one"]);
        nft(&netns, "flush ruleset\n");
        kill_process(process, Signal::CONT).expect("it is ours");
        wait_until(target, &guard, || banned(&netns).len() == at + 1);
    }
    let bans = banned(&netns);
    assert!(bans.iter().all(|ban| ban.ends_with(" one")), "{bans:?}");
}

#[test]
fn flushed_bans_come_back_with_their_remaining_time() {
    let netns = netns();
    let a = policy_file(POLICY_A);
    let guard = Guard::start(&netns, Some(a.path()), &[]);
    succeed(&netns, &["ban", "203.0.113.7", "--for", "1h", "--source", "one"]);
    succeed(&netns, &["ban", "203.0.113.0/25", "2001:db8:7::/48", "--source", "for-ever"]);
    succeed(&netns, &["ban", "203.0.113.8", "--port", "443", "--for", "2h", "--source", "by-port"]);
    succeed(&netns, &["ban", "203.0.113.9", "--for", "1h"]);
    succeed(&netns, &["unban", "203.0.113.9"]);
    let list = netns.run(|| {
        nfguard_tests::program::feed(
            &netns,
            nfguard_tests::program::command(&["feed", "add", "drop", "-"]),
            b"45.9.20.0/24\n",
        )
    });
    assert_eq!(list.status, Some(0), "{list:?}");
    let before = banned(&netns);
    assert_eq!(before.len(), 5, "{before:?}");
    for _ in 0..3 {
        flush_and_wait(&netns, &guard, "flush ruleset\n");
        assert_eq!(banned(&netns), before);
        assert!(succeed(&netns, &["feed", "list"]).stdout.contains("drop"));
    }
    let left = succeed(&netns, &["bans", "--json", "--source", "one"]);
    let left = json(&left.stdout)["bans"][0]["expires_in_seconds"].as_f64().expect("a time");
    assert!((1.0..3600.0).contains(&left), "{left}");
    // Bans of others return in the notation of their authors, not in that of the guard.
    succeed(&netns, &["ban", "203.0.113.10", "--for", "1h"]);
    assert_eq!(banned(&netns).len(), 6);
}

/// Flushes the bans, and waits until they are back. A guard that verifies at that moment may
/// restore them twice.
fn flush_and_wait(netns: &Netns, guard: &Guard, script: &str) {
    let restores = || json(&guard.status())["status"]["restores"].as_u64().expect("a number");
    let before = restores();
    nft(netns, script);
    wait_until("the bans are back", guard, || restores() > before);
}

/// Counts the packets before and after our tables. The table is in the `ip` family, so that a flush
/// of the `inet` family does not touch it.
const WATCH: &str = "table ip watch {
    counter banned_came {}; counter banned_got {}; counter closed_came {}; counter closed_got {};
    chain a { type filter hook prerouting priority -400;
        ip saddr 203.0.113.66 counter name banned_came;
        ip saddr != 203.0.113.66 udp dport 9999 counter name closed_came; }
    chain b { type filter hook input priority 400;
        ip saddr 203.0.113.66 counter name banned_got;
        ip saddr != 203.0.113.66 udp dport 9999 counter name closed_got; }
}
";

fn count(world: &World, counter: &str) -> u64 {
    let text = nft(&world.host, &format!("list counter ip watch {counter}\n"));
    let mut words = text.split_whitespace().skip_while(|word| *word != "packets").skip(1);
    words.next().and_then(|word| word.parse().ok()).unwrap_or_else(|| panic!("{text}"))
}

#[test]
fn no_denied_packet_passes_while_others_flush_our_tables() {
    let world = world();
    let a = policy_file(POLICY_A);
    let guard = Guard::start(&world.host, Some(a.path()), &[]);
    succeed(&world.host, &["ban", "203.0.113.66", "--for", "1h"]);
    nft(&world.host, WATCH);
    let stop = AtomicBool::new(false);
    let send = |from: [u8; 4], port: u16| {
        let bind = || UdpSocket::bind(SocketAddr::from((from, 0))).expect("binds");
        let socket = world.internet.run(bind);
        while !stop.load(Ordering::Relaxed) {
            for _ in 0..20 {
                let _ = socket.send_to(b"x", (World::HOST_V4, port));
            }
            thread::sleep(Duration::from_millis(2));
        }
    };
    let mut flushes = 0;
    thread::scope(|scope| {
        scope.spawn(|| send([203, 0, 113, 66], 443));
        scope.spawn(|| send([203, 0, 113, 7], 9999));
        // Constant changes, as UFW, Docker and an operator make them.
        let throw = || {
            let start = Instant::now();
            while flushes < 50 && (flushes < 3 || start.elapsed() < Duration::from_secs(20)) {
                flush_and_wait(&world.host, &guard, "flush ruleset inet\n");
                flushes += 1;
            }
        };
        let thrown = std::panic::catch_unwind(std::panic::AssertUnwindSafe(throw));
        stop.store(true, Ordering::Relaxed);
        if let Err(panic) = thrown {
            std::panic::resume_unwind(panic);
        }
    });
    thread::sleep(Duration::from_millis(200));
    let [came, got] = ["closed_came", "closed_got"].map(|counter| count(&world, counter));
    let [banned_came, banned_got] = ["banned_came", "banned_got"].map(|it| count(&world, it));
    eprintln!(
        "{flushes} flushes: of {came} packets to a closed port {got} got through, of {banned_came} \
         from a banned source {banned_got}"
    );
    assert!(came > 500 && banned_came > 500, "{came} {banned_came}");
    if can_be_owned() {
        assert_eq!(got, 0, "of {came}");
    }
    // The repair times that the guard has measured, from the event on.
    let log = guard.log();
    let gaps = log.lines().filter_map(|line| {
        let (_, rest) = line.split_once("microseconds=\"")?;
        rest.split('"').next()?.parse::<u64>().ok()
    });
    let mut gaps: Vec<u64> = gaps.collect();
    gaps.sort_unstable();
    let of = |part: usize| gaps.get((gaps.len() - 1) * part / 100);
    eprintln!("put right in {:?} µs, half of them in {:?}, all in {:?}", of(0), of(50), of(100));
    // The control: without the guard, packets pass.
    guard.kill();
    nft(&world.host, "flush ruleset inet\n");
    let before = count(&world, "closed_got");
    let socket = world.internet.run(|| {
        UdpSocket::bind(SocketAddr::from((IpAddr::from([203, 0, 113, 7]), 0))).expect("binds")
    });
    for _ in 0..100 {
        socket.send_to(b"x", (World::HOST_V4, 9999)).expect("sent");
        thread::sleep(Duration::from_millis(10));
        if count(&world, "closed_got") > before {
            return;
        }
    }
    panic!("nothing gets through without any rules");
}
