//! Real scanners against nfguard, and against UFW with PSAD.
//!
//! `UPDATE_GOLDEN=1` writes the table in `docs/scans.md`.

mod cases;
mod side;
mod table;
mod zombie;

use std::collections::BTreeMap;
use std::io::{Read, Write};
use std::net::IpAddr;
use std::path::Path;
use std::process::Command;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread::{self, ScopedJoinHandle};
use std::time::Duration;

use nfguard_lab::{Netns, Probe};
use nfguard_tests::processor;
use nfguard_tests::wait::TIMEOUT;

use crate::cases::{AFTER_A_VISIT, Banned, CASES, Case, DECOYS, FORGED, flood};
use crate::side::{Seen, Side, address, source};

const POLICY: &str = concat!(env!("CARGO_MANIFEST_DIR"), "/../policies/traefik.json");
const CLIENT: &str = "192.0.2.7";
/// The numbers of special scanners.
const ZOMBIE: u8 = 99;
const FLOODER: u8 = 98;

/// The outcome of a scan.
#[derive(Debug)]
struct ScanOutcome {
    seen: Seen,
    learned: String,
}

/// The outcome of all simultaneous scans of a host.
struct Attack {
    outcomes: Vec<ScanOutcome>,
    /// The banned sources, and the number of packets that PSAD has dropped of each.
    banned: BTreeMap<IpAddr, u64>,
    /// How often the honest client was served, and how often it tried.
    served: (u32, u32),
    /// The number of new bans after each flood of forged packets.
    forged: [usize; 2],
}

#[test]
fn nfguard_stops_scans_and_serves_others_and_ufw_with_psad_is_scanned() {
    let (ours, write_up, level_3) = thread::scope(|scope| {
        let ours = scope.spawn(|| attack(&Side::nfguard(Path::new(POLICY)), &CASES, TIMEOUT));
        let [write_up, level_3] = [5, 3].map(|level| {
            let brief = Duration::from_secs(2);
            scope.spawn(move || attack(&Side::psad(level), &CASES, brief))
        });
        let joined = |attack: ScopedJoinHandle<'_, Attack>| attack.join().expect("ends");
        (joined(ours), joined(write_up), joined(level_3))
    });

    for (case, outcome) in CASES.iter().zip(&ours.outcomes) {
        let ScanOutcome { seen, learned } = outcome;
        let what = format!("{} {}: {outcome:?}", case.name, case.note);
        match case.banned {
            Banned::At(packets) => {
                assert!(seen.is_banned && seen.packets == packets, "{what}");
                assert!(!learned.contains("open;") && !learned.contains("closed"), "{what}");
            }
            Banned::AtSixthClosed => {
                assert!(seen.is_banned && (6..=30).contains(&seen.packets), "{what}");
            }
            Banned::Never => assert!(!seen.is_banned && seen.packets > 5, "{what}"),
        }
    }
    assert_eq!(ours.served.0, ours.served.1, "the honest client is served");
    assert!(!ours.banned.contains_key(&address(CLIENT)));
    // At most a hundred bans in each minute. The flood may have taken some minutes.
    assert!((90..500).contains(&ours.forged[0]) && ours.forged[1] == 0, "{:?}", ours.forged);
    // A forged source is banned, too, unless it is a never-ban entry.
    let banned = |who| ours.banned.contains_key(&address(who));
    assert_eq!(DECOYS.map(banned), [true, true, true, true, false]);

    // The bans of PSAD vary. But UFW answers, and PSAD stops nmap too late.
    for theirs in [&write_up, &level_3] {
        let first = &theirs.outcomes[0];
        assert!(first.learned.starts_with("80"), "{first:?}");
        assert!(first.seen.packets > 100, "{first:?}");
    }
    assert!(write_up.banned.is_empty(), "{:?}", write_up.banned);
    table::check(&ours, [&write_up, &level_3]);
}

/// Runs all scans at once, each from its own source, while a client connects with timeout
/// `timeout`.
fn attack(side: &Side, cases: &[Case], timeout: Duration) -> Attack {
    let numbered = || (1_u8..).zip(cases);
    let counted = |(number, case): (u8, &Case)| {
        source(if case.is_idle() { ZOMBIE } else { number }, case.is_v6())
    };
    let sources: Vec<IpAddr> = numbered().map(counted).collect();
    side.watch(&sources);
    let over = AtomicBool::new(false);
    let (learned, served) = thread::scope(|scope| {
        let zombie = side.scanner(ZOMBIE);
        let over = &over;
        scope.spawn(move || zombie::answer(&zombie, source(ZOMBIE, false), over));
        let client = scope.spawn(move || {
            let (mut served, mut tried) = (0, 0);
            while !over.load(Ordering::Relaxed) {
                tried += 1;
                served += u32::from(side.serves(CLIENT, timeout));
                thread::sleep(Duration::from_millis(100));
            }
            (served, tried)
        });
        let scan = |(number, case): (u8, &Case)| {
            let (scanner, case) = (side.scanner(number), *case);
            scope.spawn(move || scan(&scanner, number, &case))
        };
        let scans: Vec<_> = numbered().map(scan).collect();
        // After a failure, the other threads must end.
        let learned: Vec<_> = scans.into_iter().map(ScopedJoinHandle::join).collect();
        over.store(true, Ordering::Relaxed);
        let learned = learned.into_iter().map(|learned| learned.expect("ends"));
        (learned.collect::<Vec<_>>(), client.join().expect("ends"))
    });
    side.let_psad_read();
    let seen = side.seen(&sources);
    let outcome = |(learned, source)| ScanOutcome { seen: seen[source], learned };
    let outcomes = learned.into_iter().zip(&sources).map(outcome).collect();
    let banned = side.banned();
    let scanner = side.scanner(FLOODER);
    let mut known = banned.len();
    let forged = FORGED.map(|name| {
        scanner.run(|| run(&flood(name, "9")));
        side.let_psad_read();
        let before = std::mem::replace(&mut known, side.banned().len());
        known - before
    });
    Attack { outcomes, banned, served, forged }
}

/// Runs a scan and returns the report of the scanner. It runs on one processor, so that packets
/// arrive in order.
fn scan(scanner: &Netns, number: u8, case: &Case) -> String {
    if case.note == AFTER_A_VISIT {
        let probe = Probe::tcp(scanner, (Side::host(case.is_v6()), 80)).timeout(TIMEOUT);
        let mut visit = probe.connect().expect("is let in");
        visit.write_all(b"GET / HTTP/1.1\r\n\r\n").expect("sends");
        visit.read_exact(&mut [0; 16]).expect("is answered");
    }
    let said = scanner.run(|| {
        processor::stay_on_one(number.into());
        run(&case.command(ZOMBIE))
    });
    if case.is_nmap() { learned(&said) } else { "–".to_owned() }
}

fn run(words: &str) -> String {
    let mut command = Command::new("timeout");
    command.args(["--kill-after=5", "200"]).args(words.split_whitespace());
    let output = command.output().expect("is installed; `cargo xtask setup` does it");
    // hping3 fails without an answer.
    let is_done = |status| status == 0 || (status == 1 && words.starts_with("hping3"));
    assert!(output.status.code().is_some_and(is_done), "{words}: {output:?}");
    String::from_utf8_lossy(&output.stdout).into_owned()
}

/// Returns the open ports and the number of ports in each other state, from the greppable output of
/// nmap.
fn learned(said: &str) -> String {
    let mut open = Vec::new();
    let mut others = BTreeMap::<&str, u32>::new();
    for field in said.lines().flat_map(|line| line.split('\t')) {
        let ports = field.strip_prefix("Ports: ").unwrap_or_default();
        for port in ports.split(", ").filter(|port| !port.is_empty()) {
            match port.split('/').collect::<Vec<_>>()[..] {
                [number, "open", ..] => open.push(number),
                [_, state, ..] => *others.entry(state).or_default() += 1,
                _ => panic!("{said}"),
            }
        }
        if let Some((state, count)) =
            field.strip_prefix("Ignored State: ").and_then(|rest| rest.split_once(" ("))
        {
            let count = count.trim().trim_end_matches(')').parse::<u32>().expect("a number");
            *others.entry(state).or_default() += count;
        }
    }
    let open = (!open.is_empty()).then(|| format!("{} open", open.join(", ")));
    let others = others.into_iter().map(|(state, count)| format!("{count} {state}"));
    open.into_iter().chain(others).collect::<Vec<_>>().join("; ")
}
