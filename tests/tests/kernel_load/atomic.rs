//! A load is atomic: packets meet the old policy or the new one.

use std::net::{SocketAddr, UdpSocket};
use std::process::Child;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread;
use std::time::{Duration, Instant};

use nfguard_lab::{Netns, Probe, World};
use nfguard_netlink::load as load_table;
use nfguard_tests::nft::nft;
use nfguard_tests::program::{command, nfguard, time_box};
use nfguard_tests::wait::{TIMEOUT, wait_until};

use super::{POLICY_A, POLICY_B, compiled, held, kernel, load, netns, policy_file, world};

/// Counts the packets before and after the hooks of the policy, in both directions, by port.
const WATCH: &str = "table inet watch {
    counter in443came {}; counter in443got {}; counter in9999came {}; counter in9999got {};
    counter out443came {}; counter out443got {}; counter out9999came {}; counter out9999got {};
    chain a { type filter hook prerouting priority -400; iifname eth0 jump in1; }
    chain b { type filter hook input priority 400; iifname eth0 jump in2; }
    chain c { type filter hook output priority -400; oifname eth0 jump out1; }
    chain d { type filter hook postrouting priority 400; oifname eth0 jump out2; }
    chain in1 { udp dport 443 counter name in443came; udp dport 9999 counter name in9999came; }
    chain in2 { udp dport 443 counter name in443got; udp dport 9999 counter name in9999got; }
    chain out1 { udp dport 443 counter name out443came; udp dport 9999 counter name out9999came; }
    chain out2 { udp dport 443 counter name out443got; udp dport 9999 counter name out9999got; }
}
";

/// Sends datagrams until `stop` is set. They get no answer, so the rules decide on each of them,
/// and no connection state does.
fn send(from: &Netns, to: [SocketAddr; 2], stop: &AtomicBool) {
    let any = if to[0].is_ipv4() { "0.0.0.0:0" } else { "[::]:0" };
    let open = || UdpSocket::bind(any).expect("binds");
    let sockets: Vec<UdpSocket> = from.run(|| (0..16).map(|_| open()).collect());
    while !stop.load(Ordering::Relaxed) {
        for socket in &sockets {
            for to in to {
                // The firewall of the sender drops some datagrams. The counters show it.
                let _ = socket.send_to(b"x", to);
            }
        }
        // Each of four senders sends a few thousand datagrams a second.
        thread::sleep(Duration::from_millis(10));
    }
}

/// Returns the packets before and after the hooks, once both numbers are stable.
fn stable_counts(host: &Netns, name: &str) -> (u64, u64) {
    let count = || {
        let loaded = kernel(host).table("watch").expect("reads").loaded.expect("is there");
        let packets = |what: &str| loaded.counts[&format!("{name}{what}")].packets;
        (packets("came"), packets("got"))
    };
    let mut last = count();
    for _ in 0..200 {
        thread::sleep(Duration::from_millis(20));
        let now = count();
        if now == last {
            break;
        }
        last = now;
    }
    last
}

fn reload_under_traffic(host: &Netns, internet: &Netns, reload: impl FnOnce()) {
    nft(host, WATCH);
    let stop = AtomicBool::new(false);
    let targets = |v4, v6| [v4, v6].map(|ip| [443, 9999].map(|port| SocketAddr::new(ip, port)));
    thread::scope(|scope| {
        let stop = &stop;
        for to in targets(World::HOST_V4, World::HOST_V6) {
            scope.spawn(move || send(internet, to, stop));
        }
        for to in targets(World::INTERNET_V4, World::INTERNET_V6) {
            scope.spawn(move || send(host, to, stop));
        }
        let reloaded = std::panic::catch_unwind(std::panic::AssertUnwindSafe(reload));
        stop.store(true, Ordering::Relaxed);
        if let Err(panic) = reloaded {
            std::panic::resume_unwind(panic);
        }
    });
    for way in ["in", "out"] {
        let (came, got) = stable_counts(host, &format!("{way}443"));
        assert!(came > 500, "only {came} packets {way}");
        assert_eq!(came, got, "packets that both policies allow were lost on the way {way}");
        let (came, got) = stable_counts(host, &format!("{way}9999"));
        assert!(came > 500, "only {came} packets {way}");
        assert_eq!(got, 0, "of {came} packets that both policies deny, on the way {way}");
    }
}

#[test]
fn a_thousand_reloads_lose_no_allowed_packet_and_let_no_denied_one_through() {
    let world = world();
    let (a, b) = (compiled(POLICY_A), compiled(POLICY_B));
    let mut kernel = kernel(&world.host);
    load_table(&mut kernel, &a).expect("loads");
    // An open connection must continue, too.
    let server = world.host.serve_tcp((World::HOST_V4, 443)).expect("serves");
    let mut conversation = Conversation::open(&world.internet, server.address());
    let mut reloads = 0;
    reload_under_traffic(&world.host, &world.internet, || {
        let start = Instant::now();
        while reloads < 1000 && (reloads < 20 || start.elapsed() < time_box()) {
            let next = if reloads % 2 == 0 { &b } else { &a };
            let change = load_table(&mut kernel, next).expect("loads");
            assert!(change.verified && !change.transaction.is_empty());
            conversation.exchange_line();
            reloads += 1;
        }
    });
    eprintln!("{reloads} reloads");
    let last = if reloads % 2 == 0 { a } else { b };
    assert_eq!(held(&world.host), Some(last));
}

/// A table of an nfguard whose output hook judged. The chain at postrouting is new, and hooks do not
/// change at one moment.
#[test]
fn a_table_that_judged_at_output_is_replaced_without_a_gap() {
    let world = world();
    nft(&world.host, include_str!("../../fixtures/output-judges.nft"));
    let server = world.host.serve_tcp((World::HOST_V4, 443)).expect("serves");
    let mut conversation = Conversation::open(&world.internet, server.address());
    let policy = policy_file(POLICY_A);
    reload_under_traffic(&world.host, &world.internet, || {
        let came = || {
            let loaded = kernel(&world.host).table("watch").expect("reads").loaded;
            let counts = loaded.expect("is there").counts;
            ["in443came", "in9999came", "out443came", "out9999came"]
                .iter()
                .map(|name| counts[*name].packets)
                .min()
        };
        wait_until("traffic", || came() > Some(600));
        load(&world.host, &policy);
        conversation.exchange_line();
        wait_until("traffic", || came() > Some(1200));
    });
    assert_eq!(held(&world.host), Some(compiled(POLICY_A)));
}

struct Conversation(std::io::BufReader<std::net::TcpStream>);

impl Conversation {
    fn open(netns: &Netns, to: SocketAddr) -> Conversation {
        let probe = Probe::tcp(netns, to).timeout(TIMEOUT);
        let mut conversation =
            Conversation(std::io::BufReader::new(probe.connect().expect("connects")));
        conversation.read_line();
        conversation
    }

    fn exchange_line(&mut self) {
        std::io::Write::write_all(self.0.get_mut(), b"still there?\n").expect("sends");
        assert_eq!(self.read_line(), "still there?\n");
    }

    fn read_line(&mut self) -> String {
        let mut line = String::new();
        std::io::BufRead::read_line(&mut self.0, &mut line).expect("is answered");
        line
    }
}

#[test]
fn reloads_by_the_program_lose_no_packet() {
    let world = world();
    let files = [policy_file(POLICY_A), policy_file(POLICY_B)];
    load(&world.host, &files[0]);
    reload_under_traffic(&world.host, &world.internet, || {
        let start = Instant::now();
        for round in 1..=200 {
            let answer = nfguard(&world.host, &["load".as_ref(), files[round % 2].path()]);
            assert_eq!(answer.status, Some(0), "{answer:?}");
            assert!(answer.stdout.contains("loaded into table inet nfguard"), "{answer:?}");
            if round >= 10 && start.elapsed() > time_box() {
                break;
            }
        }
    });
}

fn start_load(netns: &Netns, file: &std::path::Path) -> Child {
    netns.run(|| {
        let mut command = command(&["load".as_ref(), file]);
        command.stdout(std::process::Stdio::null()).stderr(std::process::Stdio::piped());
        command.spawn().expect("nfguard starts")
    })
}

#[test]
fn a_load_that_is_killed_leaves_the_old_policy_or_the_new_one() {
    let netns = netns();
    let files = [policy_file(POLICY_A), policy_file(POLICY_B)];
    let tables = [compiled(POLICY_A), compiled(POLICY_B)];
    load(&netns, &files[1]);
    let start = Instant::now();
    load(&netns, &files[0]);
    let mut usual = start.elapsed();

    let start = Instant::now();
    let (mut current, mut killed, mut ended, mut changed) = (0, 0, 0, 0);
    for round in 0..2000_u32 {
        let enough = if start.elapsed() > time_box() { 20 } else { 200 };
        if killed >= enough && changed >= 5 {
            break;
        }
        let next = 1 - current;
        let mut child = start_load(&netns, files[next].path());
        // Every moment from the first instruction to the end, in a scattered order.
        thread::sleep(usual.mul_f64(f64::from(round * 377 % 300) / 300.0));
        child.kill().expect("can be killed, or has ended");
        let was_killed = child.wait().expect("ends").code().is_none();
        if was_killed {
            killed += 1;
            usual = usual.mul_f64(1.02);
        } else {
            ended += 1;
            usual = usual.mul_f64(0.95);
        }
        let held = held(&netns).expect("a policy stays loaded");
        let found = tables.iter().position(|table| *table == held);
        let found = found.unwrap_or_else(|| panic!("neither policy, but {held:#?}"));
        assert!(found == next || was_killed, "a load that ended well did nothing");
        changed += u32::from(found == next);
        current = found;
        // The digest was loaded together with its policy.
        if round % 10 == 0 {
            let status = nfguard(&netns, &["status"]);
            assert_eq!(status.status, Some(0), "{status:?}");
        }
    }
    eprintln!("{killed} killed, {ended} ended before, {changed} loaded");
    assert!(killed >= 20 && changed >= 5, "{killed} were killed, {changed} loaded");
}

#[test]
fn two_loads_at_once_both_succeed_and_one_policy_holds() {
    let netns = netns();
    let files = [policy_file(POLICY_A), policy_file(POLICY_B)];
    let tables = [compiled(POLICY_A), compiled(POLICY_B)].map(Some);
    let start = Instant::now();
    for round in 0..100 {
        let children = [0, 1].map(|which| start_load(&netns, files[(round + which) % 2].path()));
        for child in children {
            let output = child.wait_with_output().expect("ends");
            let words = String::from_utf8_lossy(&output.stderr).into_owned();
            assert_eq!(output.status.code(), Some(0), "{words}");
        }
        assert!(tables.contains(&held(&netns)), "neither policy");
        let status = nfguard(&netns, &["status"]);
        assert_eq!(status.status, Some(0), "{status:?}");
        if round % 3 == 0 {
            assert_eq!(nfguard(&netns, &["unload"]).status, Some(0));
        }
        if round >= 10 && start.elapsed() > time_box() {
            break;
        }
    }
}
