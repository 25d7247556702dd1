//! Single calls, measured by criterion: the ban library, and raw netlink as the floor.

use std::fs;
use std::net::Ipv4Addr;
use std::path::Path;
use std::time::{Duration, Instant};

use criterion::{Bencher, Criterion};
use nfguard_ban::{Ban, Bans, NeverBan, TABLE, Target};
use nfguard_benches::Result;
use nfguard_lab::Netns;
use nfguard_netlink::{Element, ElementOptions, Elements, Key, Op, Transaction};

use crate::raw::Raw;

/// The first address of the present bans, and that of the bans that are made and ended.
const PRESENT: u32 = 0x1400_0000;
const FRESH: u32 = 0x2800_0000;
/// A key that occurs nowhere else in a message.
const MARK: [u8; 4] = [0xde, 0xad, 0xbe, 0xef];
const BAN_DURATION: Duration = Duration::from_secs(3600);
const REASON: &str = "5 failures in 60 s";
const SOURCE: &str = "bench";

/// Returns the nanoseconds of one call, by the number of bans present.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Single {
    pub(crate) present: u32,
    pub(crate) floor: f64,
    pub(crate) ban: f64,
    pub(crate) unban: f64,
    pub(crate) look_up: f64,
}

/// The nanoseconds of a ban of one /24 among many.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Prefix {
    pub(crate) present: u32,
    pub(crate) nfguard: f64,
    pub(crate) interval_set: f64,
}

/// Adds many bans of one hour.
pub(crate) fn many(bans: &mut Bans, first: u32, count: u32, bits: u8) -> Result<()> {
    let never = bans.never_ban().clone();
    let step = 1_u32 << (32 - bits);
    let ban = |at: u32| {
        let address = Ipv4Addr::from_bits(first + at * step);
        let target: Target = ipnetwork::IpNetwork::new(address.into(), bits).ok()?.into();
        let target = never.admit(target).ok()?;
        let lasts = Some(BAN_DURATION);
        Some(Ban {
            target,
            port: None,
            duration: lasts,
            source: SOURCE,
            reason: REASON,
            created_at: None,
        })
    };
    bans.ban_all((0..count).filter_map(ban))?;
    Ok(())
}

pub(crate) fn single(dir: &Path, present: u32) -> Result<Single> {
    let netns = Netns::new()?;
    netns.run(|| {
        let mut bans = Bans::open(NeverBan::default())?;
        many(&mut bans, PRESENT, present.max(1), 32)?;
        let never = bans.never_ban().clone();
        let fresh = |at: u32| {
            let target = Target::source(Ipv4Addr::from_bits(FRESH + at % 0x00ff_ffff).into(), 64);
            let target = never.admit(target).expect("not on the never-ban list");
            let lasts = Some(BAN_DURATION);
            Ban {
                target,
                port: None,
                duration: lasts,
                source: SOURCE,
                reason: REASON,
                created_at: None,
            }
        };

        // The same message as that of the library, made in advance.
        let mut add = Raw::new(&message(true), MARK)?;
        let mut delete = Raw::new(&message(false), MARK)?;
        let floor = measure(dir, "floor", |at| {
            let key = (FRESH + at % 0x00ff_ffff).to_be_bytes();
            let start = Instant::now();
            add.send(key).expect("added");
            let took = start.elapsed();
            delete.send(key).expect("deleted");
            took
        })?;
        let ban = measure(dir, "ban", |at| {
            let ban = fresh(at);
            let start = Instant::now();
            bans.ban(&ban).expect("banned");
            let took = start.elapsed();
            bans.unban(ban.target.target(), None).expect("unbanned");
            took
        })?;
        let unban = measure(dir, "unban", |at| {
            let ban = fresh(at);
            bans.ban(&ban).expect("banned");
            let start = Instant::now();
            bans.unban(ban.target.target(), None).expect("unbanned");
            start.elapsed()
        })?;
        let look_up = measure(dir, "look-up", |at| {
            let address = Ipv4Addr::from_bits(PRESENT + at % present.max(1));
            let target = Target::source(address.into(), 64);
            let start = Instant::now();
            let found = bans.look_up(target, None).expect("an answer");
            let took = start.elapsed();
            assert!(found.is_some());
            took
        })?;
        Ok(Single { present, floor, ban, unban, look_up })
    })
}

pub(crate) fn prefix(dir: &Path, present: u32) -> Result<Prefix> {
    let netns = Netns::new()?;
    netns.run(|| {
        let mut bans = Bans::open(NeverBan::default())?;
        many(&mut bans, PRESENT, present, 24)?;
        let never = bans.never_ban().clone();
        let fresh = |at: u32| [130 + (at >> 8 & 31).to_be_bytes()[3], at.to_be_bytes()[3], 0, 0];
        let nfguard = measure(dir, "prefix", |at| {
            let address = Ipv4Addr::from(fresh(at));
            let network = ipnetwork::IpNetwork::new(address.into(), 24).expect("a network");
            let target = never.admit(network.into()).expect("not on the never-ban list");
            let lasts = Some(BAN_DURATION);
            let ban = Ban {
                target,
                port: None,
                duration: lasts,
                source: SOURCE,
                reason: "",
                created_at: None,
            };
            let start = Instant::now();
            bans.ban(&ban).expect("banned");
            let took = start.elapsed();
            bans.unban(target.target(), None).expect("unbanned");
            took
        })?;
        // The same prefixes in one interval set, by the same library.
        let mut kernel = nfguard_netlink::Nft::open()?;
        let set = nfguard_netlink::Set {
            name: "interval".to_owned(),
            key: vec![nfguard_netlink::KeyType::Ipv4Addr],
            interval: true,
            ..nfguard_netlink::Set::default()
        };
        let range = |first: [u8; 4]| {
            let [a, b, c, _] = first;
            Element::from(Key::Range(first.to_vec(), vec![a, b, c, 255]))
        };
        let op = |op| Transaction { table: TABLE.to_owned(), ops: vec![op] };
        kernel.commit(&op(Op::AddSet(set)), None)?;
        let all: Vec<Element> = (0..present)
            // Every second prefix, because adjacent ones would merge.
            .map(|at| range((PRESENT + at * 512).to_be_bytes()))
            .collect();
        for part in all.chunks(8_000) {
            let elements = part.to_vec();
            kernel.commit(&op(Op::AddElements { set: "interval".to_owned(), elements }), None)?;
        }
        let interval_set = measure(dir, "interval", |at| {
            let elements = vec![range(fresh(at))];
            let add = op(Op::AddElements { set: "interval".to_owned(), elements });
            let start = Instant::now();
            kernel.commit(&add, None).expect("added");
            start.elapsed()
        })?;
        Ok(Prefix { present, nfguard, interval_set })
    })
}

/// Returns a transaction that adds or deletes [`MARK`], as the library does.
fn message(add: bool) -> Transaction {
    let (set, key) = ("v4/32".to_owned(), MARK.to_vec());
    let op = if add {
        let comment = format!("{SOURCE} @1795500000 {REASON}");
        let mut elements = Elements::default();
        elements.push(&key, &ElementOptions::new(Some(BAN_DURATION), Some(&comment)));
        Op::CreateElements { set, elements }
    } else {
        Op::DeleteElements { set, keys: vec![key] }
    };
    Transaction { table: TABLE.to_owned(), ops: vec![op] }
}

/// Returns the median of criterion. `one` runs the operation once and returns its time.
fn measure(dir: &Path, name: &str, mut one: impl FnMut(u32) -> Duration) -> Result<f64> {
    let mut criterion = Criterion::default()
        .without_plots()
        .output_directory(dir)
        .sample_size(30)
        .warm_up_time(Duration::from_millis(300))
        .measurement_time(Duration::from_secs(2));
    let mut at = 0_u32;
    criterion.bench_function(name, |bencher: &mut Bencher<'_>| {
        bencher.iter_custom(|count| {
            (0..count)
                .map(|_| {
                    at = at.wrapping_add(1);
                    one(at)
                })
                .sum()
        });
    });
    let estimates = fs::read_to_string(dir.join(name).join("new/estimates.json"))?;
    let estimates: serde_json::Value = serde_json::from_str(&estimates)?;
    Ok(estimates["median"]["point_estimate"].as_f64().ok_or("criterion says nothing")?)
}
