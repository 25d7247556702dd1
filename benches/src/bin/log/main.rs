//! The cost of the log: the packets per second that `nfguard log` reads without loss, and the
//! processor time for each.

#![allow(clippy::print_stdout, reason = "a benchmark prints")]

#[path = "../path/bpf.rs"]
mod bpf;

use std::io::{BufRead as _, BufReader, Read as _};
use std::net::{IpAddr, Ipv4Addr};
use std::process::{Command, Stdio};
use std::thread::sleep;
use std::time::{Duration, Instant};
use std::{env, fs};

use nfguard_benches::{Result, children, enter, header, run, table};
use nfguard_lab::World;
use nix::ifaddrs::getifaddrs;
use nix::net::if_::if_nametoindex;
use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;

use crate::bpf::{Generator, Packets};

/// The default number of runs of each variant. The first argument overrides it.
const RUNS: usize = 3;
const RESULTS: &str = "benches/results/log.md";
/// The packets per second, and the seconds of a run.
const RATES: [u32; 4] = [50_000, 100_000, 200_000, 400_000];
const SECONDS: u32 = 3;
/// The bursts of packets per second. The kernel takes some hundredths of a second to begin a burst.
const BURSTS: u32 = 10;
/// The packets that psad 2.4.6 reads from the kernel log in one second of processor time.
const PSAD_PACKETS_PER_SECOND: f64 = 4800.0;

const POLICY: &str = r#"{ "version": 1, "rules": [],
    "log": { "to": { "group": 5 }, "rate": "unlimited", "unmatched": ["in"] } }"#;
const VARIANTS: [&[&str]; 3] = [&["log"], &["log", "--json"], &["log", "--keep"]];

/// The outcome of a run.
struct LogRun {
    read: u64,
    lost: u64,
    cpu: Duration,
    /// The largest memory in kB.
    memory: u64,
    /// The measured packets per second.
    rate: f64,
}

/// Runs the benchmark. The argument is `[RUNS]`.
fn main() -> Result<()> {
    enter()?;
    let runs = env::args().nth(1).map_or(Ok(RUNS), |runs| runs.parse())?;
    let dir = env::temp_dir().join(format!("nfguard-bench-{}", std::process::id()));
    fs::create_dir(&dir)?;
    let page = bench(runs, &dir);
    fs::remove_dir_all(&dir)?;
    let page = page?;
    print!("{page}");
    // A trial run writes no result.
    if runs >= RUNS {
        fs::write(RESULTS, page)?;
    }
    Ok(())
}

fn bench(runs: usize, dir: &std::path::Path) -> Result<String> {
    let head = header(&[]);
    let cases: Vec<_> =
        VARIANTS.iter().flat_map(|variant| RATES.map(|rate| (*variant, rate))).collect();
    let mut outcomes: Vec<Vec<LogRun>> = cases.iter().map(|_| Vec::new()).collect();
    for _ in 0..runs {
        for ((variant, rate), outcomes) in cases.iter().zip(&mut outcomes) {
            outcomes.push(one(variant, *rate, dir)?);
        }
    }
    let mut rows = Vec::new();
    for ((variant, _), outcomes) in cases.iter().zip(&mut outcomes) {
        outcomes.sort_by(|one, other| one.per_packet().total_cmp(&other.per_packet()));
        let middle = outcomes.get(outcomes.len() / 2).ok_or("no run")?;
        let lost: u64 = outcomes.iter().map(|outcome| outcome.lost).sum();
        let all: u64 = outcomes.iter().map(|outcome| outcome.lost + outcome.read).sum();
        rows.push(vec![
            format!("nfguard {}", variant.join(" ")),
            format!("{:.0}", middle.rate),
            format!("{:.2} %", 100.0 * lost as f64 / all as f64),
            format!("{:.2}", middle.per_packet() * 1e6),
            format!("{:.0}", 1.0 / middle.per_packet() / 1e3),
            format!("{:.0}", 1.0 / middle.per_packet() / PSAD_PACKETS_PER_SECOND),
            format!("{:.1} MB", middle.memory as f64 / 1e3),
        ]);
    }
    let names =
        ["", "packets a second", "lost", "µs each", "thousands a CPU second", "to psad", "memory"];
    Ok(format!(
        "# Packets that are logged, read\n\nMade by `cargo xtask bench log`: medians of {runs} runs \
         in turns, {SECONDS} s each in {BURSTS} bursts a second, of packets from 65,536 sources that a policy drops and logs to \
         an NFLOG group. They are made in the kernel by an XDP program. The time is the reader's own, \
         in user space and in the kernel; what it prints goes to /dev/null. psad takes {PSAD_PACKETS_PER_SECOND} a \
         second of the processor's time, measured elsewhere.\n\n{head}\n{}",
        table(&names, &rows),
    ))
}

fn one(variant: &[&str], rate: u32, dir: &std::path::Path) -> Result<LogRun> {
    let world = World::new()?;
    let nfguard = env::var_os("NFGUARD_BIN").ok_or("run me with `cargo xtask bench`")?;
    let policy = dir.join("policy.json");
    fs::write(&policy, POLICY)?;
    let nfguard = |arguments: &[&str]| {
        let mut command = Command::new(&nfguard);
        command.args(arguments).env("NFGUARD_STATE_DIR", dir);
        command
    };
    run(&world.host, nfguard(&["load"]).arg(&policy))?;
    let IpAddr::V4(to) = World::HOST_V4 else { return Err("not IPv4".into()) };
    let packets = Packets {
        first: Ipv4Addr::new(10, 0, 0, 0),
        sources: 1 << 16,
        to,
        ports: (53, 443),
        scattered: false,
    };
    let generator =
        world.host.run(|| Generator::new(if_nametoindex("eth0")?, mac("eth0")?, packets))?;

    let before = children()?;
    let mut command = nfguard(variant);
    command.stdin(Stdio::null()).stdout(Stdio::null()).stderr(Stdio::piped());
    let mut reader = world.host.run(|| command.spawn())?;
    let mut notes = BufReader::new(reader.stderr.take().ok_or("no pipe")?);
    let mut text = String::new();
    while !text.contains("reading NFLOG group") {
        if notes.read_line(&mut text)? == 0 {
            return Err(text.into());
        }
    }
    let took = world.host.run(|| {
        let start = Instant::now();
        for burst in 1..=BURSTS * SECONDS {
            generator.run(rate / BURSTS)?;
            let due = Duration::from_secs(1) / BURSTS * burst;
            sleep(due.saturating_sub(start.elapsed()));
        }
        Ok::<_, Box<dyn std::error::Error + Send + Sync>>(start.elapsed())
    })?;
    // The kernel collects packets for a tenth of a second.
    sleep(Duration::from_secs(1));
    let memory = memory(reader.id())?;
    kill(Pid::from_raw(reader.id().cast_signed()), Signal::SIGTERM)?;
    notes.read_to_string(&mut text)?;
    reader.wait()?;
    let cpu = children()?.saturating_sub(before);
    let end = text.lines().rev().find_map(|line| line.split_once(" packets, "));
    let (read, lost) = end.ok_or_else(|| text.clone())?;
    let number = |text: &str| text.rsplit(' ').next().unwrap_or_default().parse::<u64>();
    let lost = lost.split(' ').next().unwrap_or_default();
    let (read, lost) = (number(read)?, number(lost)?);
    Ok(LogRun { read, lost, cpu, memory, rate: (read + lost) as f64 / took.as_secs_f64() })
}

impl LogRun {
    /// Returns the processor time per packet in seconds.
    fn per_packet(&self) -> f64 {
        self.cpu.as_secs_f64() / self.read.max(1) as f64
    }
}

/// Returns the largest memory of a process so far, in kB.
fn memory(process: u32) -> Result<u64> {
    let status = fs::read_to_string(format!("/proc/{process}/status"))?;
    let most = status.lines().find_map(|line| line.strip_prefix("VmHWM:")?.strip_suffix("kB"));
    Ok(most.ok_or("no VmHWM")?.trim().parse()?)
}

fn mac(name: &str) -> Result<[u8; 6]> {
    let address = getifaddrs()?
        .filter(|interface| interface.interface_name == name)
        .find_map(|interface| interface.address?.as_link_addr()?.addr());
    Ok(address.ok_or("the interface has no address")?)
}
