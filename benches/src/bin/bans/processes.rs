//! Whole processes that ban one address or many, and the report.

use std::ffi::OsStr;
use std::fmt::Write as _;
use std::fs;
use std::net::Ipv4Addr;
use std::path::{Path, PathBuf};
use std::time::Duration;

use nfguard_ban::{Bans, NeverBan};
use nfguard_benches::child::{self, Usage};
use nfguard_benches::{Plot, Result, Series, Ufw, millis, table};
use nfguard_lab::Netns;

use crate::library::{self, Prefix, Single};

/// The number of runs of each program.
pub(crate) const RUNS: usize = 7;
/// The number of runs of a program that bans many addresses.
const BULK_RUNS: usize = 3;

const FIRST: u32 = 0x1400_0000;
const FRESH: u32 = 0x2800_0000;

/// The comment of nfguard on each ban: source, time and reason.
const NOTE: &str = " comment \"cli @1795500000 5 failures in 60 s\"";

const SETS: &str = "table inet peers {
    set b { type ipv4_addr; flags timeout; size 4194303; }
    set intervals { type ipv4_addr; flags interval; }
    chain c { type filter hook prerouting priority raw; ip saddr @b drop; ip saddr @intervals drop; }
}
";

pub(crate) struct Processes<'a> {
    pub(crate) dir: &'a Path,
    pub(crate) nfguard: &'a OsStr,
    pub(crate) small: u32,
    pub(crate) large: u32,
}

/// Returns the table of single calls of the library.
pub(crate) fn calls(singles: &[Single], prefix: &Prefix) -> String {
    let micros = |nanos: f64| format!("{:.2} µs", nanos / 1e3);
    let rows: Vec<Vec<String>> = singles
        .iter()
        .map(|Single { present, floor, ban, unban, look_up }| {
            vec![
                present.to_string(),
                micros(*floor),
                micros(*ban),
                format!("{:.2}", ban / floor),
                micros(*unban),
                micros(*look_up),
            ]
        })
        .collect();
    let head = ["bans present", "the floor", "Bans::ban", "to the floor", "unban", "look_up"];
    let Prefix { present, nfguard, interval_set } = prefix;
    let rows_prefix = [
        vec!["nfguard, a hash set a length".to_owned(), micros(*nfguard), "1".to_owned()],
        vec![
            "one interval set, the same library".to_owned(),
            micros(*interval_set),
            format!("{:.0}", interval_set / nfguard),
        ],
    ];
    format!(
        "## One call of the library\n\nThe floor is the same message, made in advance: sent, done \
         by the kernel, acknowledged. The goal is at most 1.3 times the floor, however many there \
         are.\n\n{}\n## One prefix more, with {present} of them there\n\nThe goal is to be 100 times \
         faster.\n\n{}\n",
        table(&head, &rows),
        table(&["", "one /24", "to nfguard"], &rows_prefix),
    )
}

impl Processes<'_> {
    /// Returns the table of other libraries, which measure themselves.
    pub(crate) fn peers(&self) -> Result<String> {
        let peers = std::env::var("NFGUARD_PEERS").map_err(|_| "NFGUARD_PEERS is not set")?;
        let netns = Netns::new()?;
        let output = |arguments: &[&str]| -> Result<String> {
            let netns = Netns::new()?;
            let output =
                netns.run(|| std::process::Command::new(&peers).args(arguments).output())?;
            Ok(String::from_utf8_lossy(&output.stdout).trim().to_owned())
        };
        let bulk = self.small.to_string();
        let mut rows = Vec::new();
        let ours = netns.run(|| self.own_times())?;
        rows.push(vec!["nfguard-ban".to_owned(), ours.0, ours.1]);
        for name in output(&["list"])?.split_whitespace() {
            let time = |text: String| match text.parse::<f64>() {
                Ok(nanos) if nanos < 1e6 => format!("{:.1} µs", nanos / 1e3),
                Ok(nanos) => millis(Duration::from_secs_f64(nanos / 1e9)),
                Err(_) => text,
            };
            let one = time(output(&[name, "one", "2000"])?);
            rows.push(vec![name.to_owned(), one, time(output(&[name, "bulk", &bulk])?)]);
        }
        let many = format!("{} at once", self.small);
        Ok(format!(
            "## Other libraries\n\nEach measures itself: a set element in a transaction of its \
             own, and many at once.\n\n{}\n",
            table(&["", "one", &many], &rows)
        ))
    }

    fn own_times(&self) -> Result<(String, String)> {
        let mut bans = Bans::open(NeverBan::default())?;
        let mut times = Vec::new();
        for at in 0..2_000 {
            let start = std::time::Instant::now();
            library::many(&mut bans, FRESH + at, 1, 32)?;
            times.push(start.elapsed());
        }
        times.sort();
        let one = times.get(1_000).copied().unwrap_or_default();
        let start = std::time::Instant::now();
        library::many(&mut bans, FIRST, self.small, 32)?;
        Ok((format!("{:.1} µs", one.as_secs_f64() * 1e6), millis(start.elapsed())))
    }

    /// Returns the table of one ban by a whole process.
    pub(crate) fn single(&self) -> Result<String> {
        let nfguard = self.nfguard.to_str().ok_or("NFGUARD_BIN is no text")?;
        let mut rows = Vec::new();
        let mut add = |name: &str, present: u32, took: Duration, ours: Duration| {
            let ratio = took.as_secs_f64() / ours.as_secs_f64();
            rows.push(vec![
                name.to_owned(),
                present.to_string(),
                millis(took),
                format!("{ratio:.2}"),
            ]);
        };
        let mut ours = Duration::ZERO;
        for present in [0, self.small, self.large] {
            let netns = Netns::new()?;
            netns.run(|| {
                let mut bans = Bans::open(NeverBan::default())?;
                library::many(&mut bans, FIRST, present, 32)
            })?;
            let list = self.nft_list("present", present, "")?;
            child::run(&netns, Some(&self.write("sets", SETS)?), &["nft", "-f", "-"])?;
            child::run(&netns, Some(&list), &["nft", "-f", "-"])?;
            let (mut by_us, mut by_nft) = ([Vec::new(), Vec::new()], [Vec::new(), Vec::new()]);
            for run in 0..RUNS {
                let address = Ipv4Addr::from_bits(FRESH + u32::try_from(run)?).to_string();
                let ban = [nfguard, "ban", &address, "--for", "1h"];
                by_us[0].push(child::run(&netns, None, &ban)?.wall);
                by_us[1].push(child::run(&netns, None, &[nfguard, "unban", &address])?.wall);
                let element = format!("add element inet peers b {{ {address} timeout 1h }}");
                by_nft[0].push(child::run(&netns, None, &["nft", &element])?.wall);
                let element = format!("delete element inet peers b {{ {address} }}");
                by_nft[1].push(child::run(&netns, None, &["nft", &element])?.wall);
            }
            let [bans, unbans] = by_us.map(median);
            ours = bans;
            add("nfguard ban", present, bans, ours);
            add("nfguard unban", present, unbans, ours);
            let [adds, deletes] = by_nft.map(median);
            add("nft add element", present, adds, ours);
            add("nft delete element", present, deletes, ours);
        }
        add("ipset add", self.small, self.ipset_add()?, ours);
        add("nft add element, one /24 in an interval set", self.small, self.nft_interval()?, ours);
        for present in [0, 1_000, 10_000] {
            add("iptables -I", present, self.iptables(present)?, ours);
        }
        add("ufw insert 1 deny from", 0, self.ufw()?, ours);
        let head = ["", "bans present", "one ban", "to nfguard"];
        Ok(format!(
            "## One ban, whole processes\n\nWho deletes an element waits at the end of the process: \
             the kernel lets go of what was deleted before it closes the socket, after all \
             processors are done with it.\n\n{}\n",
            table(&head, &rows)
        ))
    }

    fn ipset_add(&self) -> Result<Duration> {
        let netns = Netns::new()?;
        child::run(&netns, Some(&self.ipset_list(self.small)?), &["ipset", "restore"])?;
        repeat(&netns, |address| vec!["ipset".into(), "add".into(), "b".into(), address])
    }

    fn nft_interval(&self) -> Result<Duration> {
        let netns = Netns::new()?;
        let mut text = SETS.to_owned();
        for first in (0..self.small).step_by(10_000) {
            let part: Vec<String> = (first..(first + 10_000).min(self.small))
                .map(|at| format!("{}/24", Ipv4Addr::from_bits(FIRST + at * 512)))
                .collect();
            writeln!(text, "add element inet peers intervals {{ {} }}", part.join(", "))?;
        }
        child::run(&netns, Some(&self.write("intervals", &text)?), &["nft", "-f", "-"])?;
        let element = "add element inet peers intervals { 200.0.0.0/24 }";
        Ok(child::run(&netns, None, &["nft", element])?.wall)
    }

    fn iptables(&self, present: u32) -> Result<Duration> {
        let netns = Netns::new()?;
        let mut rules = String::from("*filter\n:bans - [0:0]\n-A INPUT -j bans\n");
        for at in 0..present {
            writeln!(rules, "-A bans -s {}/32 -j DROP", Ipv4Addr::from_bits(FIRST + at))?;
        }
        let rules = self.write("rules", &(rules + "COMMIT\n"))?;
        child::run(&netns, Some(&rules), &["iptables-nft-restore"])?;
        let words = ["iptables-nft", "-I", "bans", "-s"].map(str::to_owned);
        repeat(&netns, |address| {
            [words.as_slice(), &[address, "-j".into(), "DROP".into()]].concat()
        })
    }

    fn ufw(&self) -> Result<Duration> {
        let ufw = Ufw::configured(self.dir)?;
        let netns = Netns::new()?;
        ufw.enable(&netns)?;
        let words = ["ufw", "insert", "1", "deny", "from"].map(str::to_owned);
        repeat(&netns, |address| [words.as_slice(), &[address]].concat())
    }

    /// Returns the table and the plot of many bans at once.
    pub(crate) fn bulk(&self) -> Result<(String, Vec<Series>)> {
        let nfguard = self.nfguard.to_str().ok_or("NFGUARD_BIN is no text")?;
        let us = std::env::current_exe()?;
        let us = us.to_str().ok_or("our path is no text")?;
        let sets = self.write("sets", SETS)?;
        let mut text = String::new();
        let mut series: Vec<Series> = Vec::new();
        for count in [self.small, self.large] {
            let number = count.to_string();
            let list = self.plain_list(count)?;
            let jobs: [(&str, Option<PathBuf>, Vec<&str>); 5] = [
                ("the library", None, vec![us, crate::BULK, &number]),
                (
                    "nfguard ban -",
                    Some(list),
                    vec![nfguard, "ban", "-", "--for", "1h", "--reason", "5 failures in 60 s"],
                ),
                ("nft -f", Some(self.nft_list("bulk", count, NOTE)?), vec!["nft", "-f", "-"]),
                (
                    "nft -f, no comments",
                    Some(self.nft_list("bare", count, "")?),
                    vec!["nft", "-f", "-"],
                ),
                (
                    "ipset restore, no comments",
                    Some(self.ipset_list(count)?),
                    vec!["ipset", "restore"],
                ),
            ];
            let mut took: Vec<Vec<Usage>> = vec![Vec::new(); jobs.len()];
            let mut memory: Vec<Vec<f64>> = vec![Vec::new(); jobs.len()];
            for _ in 0..BULK_RUNS {
                for (at, (name, input, command)) in jobs.iter().enumerate() {
                    let netns = Netns::new()?;
                    if name.starts_with("nft") {
                        child::run(&netns, Some(&sets), &["nft", "-f", "-"])?;
                    }
                    let before = kernel_memory()?;
                    let one = child::run(&netns, input.as_deref(), command)?;
                    let grown = kernel_memory()?.saturating_sub(before);
                    took.get_mut(at).ok_or("no job")?.push(one);
                    memory.get_mut(at).ok_or("no job")?.push(grown as f64 / f64::from(count));
                }
            }
            let wall = |took: &[Usage]| median(took.iter().map(|one| one.wall).collect());
            let ours = took.get(1).map(|took| wall(took)).unwrap_or_default();
            let mut rows = Vec::new();
            for (((name, ..), took), memory) in jobs.iter().zip(&took).zip(&mut memory) {
                let user = median(took.iter().map(|one| one.user).collect());
                let system = median(took.iter().map(|one| one.system).collect());
                let share = user.as_secs_f64() / (user + system).as_secs_f64();
                let peak = took.iter().map(|one| one.memory).max().unwrap_or_default();
                memory.sort_by(f64::total_cmp);
                let wall = wall(took);
                rows.push(vec![
                    (*name).to_owned(),
                    millis(wall),
                    format!("{:.2}", wall.as_secs_f64() / ours.as_secs_f64()),
                    format!("{:.0} %", share * 100.0),
                    format!("{:.1} MB", peak as f64 / 1e6),
                    format!("{:.0} bytes", memory.get(memory.len() / 2).copied().unwrap_or(0.0)),
                ]);
                let point = (f64::from(count), wall.as_secs_f64() * 1e3);
                match series.iter_mut().find(|series| series.name == *name) {
                    Some(series) => series.points.push(point),
                    None => series.push(Series { name: (*name).to_owned(), points: vec![point] }),
                }
            }
            let head = ["", "time", "to nfguard ban -", "in user", "memory", "kernel, for each"];
            write!(text, "## {count} at once\n\n{}\n", table(&head, &rows))?;
        }
        text += "Goals for a million: at most 15 % of the processors' time in user, 64 MB, a third \
                 of nft's time. The kernel's memory is what its slabs, its large and its per-CPU \
                 allocations grew by; others on the machine are in it too.\n";
        Ok((text, series))
    }

    fn write(&self, name: &str, text: &str) -> Result<PathBuf> {
        let path = self.dir.join(name);
        fs::write(&path, text)?;
        Ok(path)
    }

    fn plain_list(&self, count: u32) -> Result<PathBuf> {
        let lines: String =
            (0..count).map(|at| format!("{}\n", Ipv4Addr::from_bits(FIRST + at))).collect();
        self.write(&format!("list-{count}"), &lines)
    }

    fn ipset_list(&self, count: u32) -> Result<PathBuf> {
        let mut text =
            String::from("create b hash:ip family inet timeout 0 hashsize 65536 maxelem 4000000\n");
        for at in 0..count {
            writeln!(text, "add b {} timeout 3600", Ipv4Addr::from_bits(FIRST + at))?;
        }
        self.write(&format!("ipset-{count}"), &text)
    }

    fn nft_list(&self, name: &str, count: u32, comment: &str) -> Result<PathBuf> {
        let mut text = String::new();
        for first in (0..count).step_by(10_000) {
            let part: Vec<String> = (first..(first + 10_000).min(count))
                .map(|at| format!("{} timeout 1h{comment}", Ipv4Addr::from_bits(FIRST + at)))
                .collect();
            writeln!(text, "add element inet peers b {{ {} }}", part.join(", "))?;
        }
        self.write(&format!("{name}-{count}.nft"), &text)
    }
}

pub(crate) fn plot(path: &Path, series: &[Series]) -> Result<()> {
    let plot = Plot { title: "Many bans at once", x: "bans", y: "milliseconds" };
    plot.write(path, series)
}

/// Runs one program for each address, one after the other.
fn repeat(netns: &Netns, command: impl Fn(String) -> Vec<String>) -> Result<Duration> {
    let mut times = Vec::new();
    for run in 0..RUNS {
        let words = command(Ipv4Addr::from_bits(FRESH + u32::try_from(run)?).to_string());
        let words: Vec<&str> = words.iter().map(String::as_str).collect();
        times.push(child::run(netns, None, &words)?.wall);
    }
    Ok(median(times))
}

fn median(mut times: Vec<Duration>) -> Duration {
    times.sort_unstable();
    times.get(times.len() / 2).copied().unwrap_or_default()
}

/// Returns the memory of the kernel in bytes.
fn kernel_memory() -> Result<u64> {
    let text = fs::read_to_string("/proc/meminfo")?;
    let of = |name: &str| -> u64 {
        let line = text.lines().find_map(|line| line.strip_prefix(name));
        let number = line.and_then(|rest| rest.split_whitespace().next());
        number.and_then(|number| number.parse().ok()).unwrap_or_default()
    };
    Ok(1024 * (of("Slab:") + of("VmallocUsed:") + of("Percpu:")))
}
