//! Imported ufw configurations pass and stop the same packets as the real `ufw`.

mod answers;
mod generate;
mod original;
mod packets;
mod without_ipv6;

use std::collections::BTreeMap;
use std::path::Path;
use std::sync::Mutex;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::{Duration, Instant};
use std::{env, thread};

use nfguard_lab::{Netns, World};
use nfguard_tests::fate::{self, Fate, Shot};
use nfguard_tests::program::{TempFile, nfguard};

use crate::generate::RuleSet;
use crate::original::{Base, Folder};

/// The number of parallel workers. They mostly wait for programs to start.
const WORKERS: usize = 4;

#[test]
fn an_imported_configuration_passes_and_stops_the_same_packets_as_ufw() {
    let number = |name, default| -> usize {
        env::var(name).map_or(default, |text| text.parse().expect("a number"))
    };
    let (count, seed) = (number("IMPORT_CASES", 200), number("IMPORT_SEED", 1));
    let (next, bases) = (AtomicUsize::new(0), Mutex::new(BTreeMap::new()));
    let tallies: Vec<Tally> = thread::scope(|scope| {
        let workers = [(); WORKERS].map(|()| {
            scope.spawn(|| {
                let mut tally = Tally::default();
                loop {
                    let at = next.fetch_add(2, Ordering::Relaxed);
                    if at >= count {
                        return tally;
                    }
                    let number = u64::try_from(seed * 1_000_000 + at).expect("small numbers");
                    let folder = Folder::new_installation();
                    for set in RuleSet::generate_two(number) {
                        tally.add(compare(&set, &folder, &bases));
                    }
                }
            })
        });
        workers.into_iter().map(|worker| worker.join().unwrap()).collect()
    });
    let mut all = Tally::default();
    tallies.into_iter().for_each(|tally| all.add(tally));
    assert!(all.wrong.is_empty(), "{} differ:\n{}", all.wrong.len(), all.wrong.join("\n"));
    // A comparison without cases would prove nothing.
    assert!(all.sets >= count, "{all:?}");
    assert!(all.rules >= 3 * count, "{all:?}");
    assert!(all.refused * 5 < all.commands, "ufw refused too many commands: {all:?}");
    let stopped = all.packets - all.passed;
    assert!(all.passed * 5 > all.packets && stopped * 5 > all.packets, "{all:?}");
    assert!(all.rejected * 20 > all.packets, "{all:?}");
    assert!(all.limited >= count / 5, "{all:?}");
    eprintln!("{all:?}");
}

/// Counts of the compared rule sets and packets.
#[derive(Debug, Default)]
struct Tally {
    sets: usize,
    commands: usize,
    /// Commands that ufw refused.
    refused: usize,
    rules: usize,
    packets: usize,
    passed: usize,
    rejected: usize,
    /// Bursts whose first packets passed a limit.
    limited: usize,
    wrong: Vec<String>,
}

impl Tally {
    fn add(&mut self, other: Tally) {
        self.sets += other.sets;
        self.commands += other.commands;
        self.refused += other.refused;
        self.rules += other.rules;
        self.packets += other.packets;
        self.passed += other.passed;
        self.rejected += other.rejected;
        self.limited += other.limited;
        self.wrong.extend(other.wrong);
    }
}

/// Compares one rule set in two worlds. The folder is that of the previous rule set.
fn compare(
    set: &RuleSet,
    folder: &Folder,
    bases: &Mutex<BTreeMap<[&'static str; 3], Base>>,
) -> Tally {
    let commands = &set.commands[set.given..];
    let refused = folder.ufw(commands);
    let [judge, ours] =
        [(); 2].map(|()| World::with_container().unwrap_or_else(|error| needs_namespaces(&error)));
    // The lock prevents that another test makes the same base at the same time.
    let base = bases
        .lock()
        .expect("no other test panicked")
        .entry(set.defaults)
        .or_insert_with(|| Base::of(set.defaults))
        .clone();
    base.load(&judge.host, folder);
    let policy = TempFile::new("imported.json", "");
    import(&ours.host, folder.path(), policy.path());
    let arguments = ["load".as_ref(), policy.path().as_os_str()];
    let answer = nfguard(&ours.host, &arguments);
    assert_eq!(answer.status, Some(0), "{set:#?}{answer:#?}");
    let shots = packets::shots(set);
    fate::send(&judge, &shots);
    fate::send(&ours, &shots);
    let (by_ufw, by_us) = wait_for_same_fates(&judge, &ours, &shots, set);
    let mut tally = Tally {
        sets: 1,
        commands: commands.len(),
        refused,
        rules: folder.rules(),
        packets: shots.len(),
        ..Tally::default()
    };
    for ((shot, by_ufw), by_us) in shots.iter().zip(by_ufw).zip(by_us) {
        match by_ufw {
            (Fate::Pass, packets) => {
                tally.passed += 1;
                tally.limited += usize::from(packets < u64::from(shot.times));
            }
            (Fate::Reject, _) => tally.rejected += 1,
            (Fate::Drop, _) => {}
        }
        if !is_same(set, shot, by_ufw, by_us) {
            tally.wrong.push(format!(
                "{}: ufw {by_ufw:?}, nfguard {by_us:?}\n    defaults {:?}\n    ufw {}",
                shot.text,
                set.defaults,
                set.commands.join("\n    ufw ")
            ));
        }
    }
    tally
}

type Fates = Vec<(Fate, u64)>;

/// Returns the fates once both worlds agree, or at the timeout.
fn wait_for_same_fates(
    judge: &World,
    ours: &World,
    shots: &[Shot],
    set: &RuleSet,
) -> (Fates, Fates) {
    let deadline = Instant::now() + Duration::from_secs(30);
    loop {
        let both = fate::fates(judge, shots).zip(fate::fates(ours, shots));
        let agree = |(by_ufw, by_us): &(Fates, Fates)| {
            shots
                .iter()
                .zip(by_ufw)
                .zip(by_us)
                .all(|((shot, one), other)| is_same(set, shot, *one, *other))
        };
        if both.as_ref().is_some_and(agree) || Instant::now() > deadline {
            return both.expect("every packet arrives");
        }
        thread::sleep(Duration::from_millis(50));
    }
}

/// Reports whether two fates are equal. "Drop" and "reject" differ only where the sender can get an
/// ICMP error, which the default of ufw sends for TCP, too. The forged addresses of the container
/// get none. Where outgoing packets are refused, ufw also refuses its own errors over IPv4, while
/// the errors of nfguard always leave.
fn is_same(set: &RuleSet, shot: &Shot, by_ufw: (Fate, u64), by_us: (Fate, u64)) -> bool {
    let is_heard = set.errors_leave() && !shot.via_container;
    let heard = |(fate, packets)| match fate {
        Fate::Reject if !is_heard => (Fate::Drop, packets),
        fate => (fate, packets),
    };
    heard(by_ufw) == heard(by_us)
}

fn import(netns: &Netns, folder: &Path, policy: &Path) {
    let folder = folder.join("etc/ufw");
    let arguments = ["import", "ufw", "--no-containers"].map(AsRef::as_ref);
    let arguments = [&arguments[..], &[folder.as_os_str(), "-o".as_ref(), policy.as_os_str()]];
    let answer = nfguard(netns, &arguments.concat());
    assert_eq!(answer.status, Some(0), "{answer:#?}");
}

fn needs_namespaces(error: &std::io::Error) -> ! {
    panic!("{error}\nrun me with `cargo xtask netns-test`")
}
