//! The time of a load: `nfguard load` against `ufw enable` with the same rules and `nft -f` with
//! the same text, and against the number of rules.

#![allow(clippy::print_stdout, reason = "a benchmark prints")]

mod policies;

use std::fmt::Write as _;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::Duration;
use std::{env, fs};

use nfguard_benches::{
    Program, Result, Sample, Samples, Ufw, enter, header, in_turns, millis, run, table, timed,
};
use nfguard_lab::Netns;
use nfguard_netlink::{Nft, diff};
use nfguard_policy::Policy;

use crate::policies::Kind;

/// The default number of runs of each variant. The first argument overrides it.
const RUNS: usize = 15;
const RESULTS: &str = "benches/results/load.md";

fn main() -> Result<()> {
    enter()?;
    let runs = env::args().nth(1).map_or(Ok(RUNS), |runs| runs.parse())?;
    let nfguard = PathBuf::from(env::var_os("NFGUARD_BIN").ok_or("NFGUARD_BIN is not set")?);
    let dir = env::temp_dir().join(format!("nfguard-bench-{}", std::process::id()));
    fs::create_dir(&dir)?;
    let done = Bench { nfguard, runs, dir: dir.clone() }.all();
    fs::remove_dir_all(&dir)?;
    done
}

struct Bench {
    nfguard: PathBuf,
    runs: usize,
    /// The folder of policies and texts.
    dir: PathBuf,
}

/// A policy file and the nft text of it.
struct Files {
    policy: PathBuf,
    text: PathBuf,
}

impl Bench {
    fn all(&self) -> Result<()> {
        let programs = [
            Program(&self.nfguard, &["--version"]),
            Program(Path::new("nft"), &["--version"]),
            Program(Path::new("ufw"), &["--version"]),
        ];
        let mut page = format!(
            "# Loading a policy\n\nMade by `cargo xtask bench load`: {} runs of each, in turns, \
             each in a new network namespace; whole processes, medians. CPU is the processors' \
             time in user and kernel, which neighbours on the machine change least. `nfguard \
             load` also reads back what the kernel holds, and compares.\n\n{}\n",
            self.runs,
            header(&programs),
        );
        print!("{page}");
        let mut add = |part: String| {
            print!("{part}");
            page += &part;
        };
        add(self.against_ufw()?);
        for kind in Kind::ALL {
            add(self.by_size(kind)?);
        }
        // A trial run writes no result.
        if self.runs >= RUNS {
            fs::write(RESULTS, page)?;
        }
        Ok(())
    }

    fn against_ufw(&self) -> Result<String> {
        let files = self.files(&fs::read_to_string("policies/traefik.json")?, "traefik")?;
        let ufw = Ufw::configured(&self.dir)?;
        let samples = in_turns(self.runs, 3, |variant, netns| match variant {
            0 => self.load(netns, &files),
            1 => nft(netns, &files),
            _ => ufw.enable(netns),
        })?;
        let names = ["nfguard load policies/traefik.json", "nft -f, the same text", "ufw enable"];
        let ours = samples.first().map(Samples::median).unwrap_or_default();
        let rows: Vec<Vec<String>> = names
            .iter()
            .zip(&samples)
            .map(|(name, samples)| {
                vec![
                    (*name).to_owned(),
                    millis(samples.median()),
                    millis(samples.min()),
                    millis(samples.median_cpu()),
                    times(samples.median(), ours),
                ]
            })
            .collect();
        let head = ["The write-up's nine rules", "median", "fastest", "CPU", "to nfguard"];
        Ok(table(&head, &rows) + "\n")
    }

    fn by_size(&self, kind: Kind) -> Result<String> {
        let mut out = format!("## {}\n\n", kind.words());
        let mut rows = Vec::new();
        for &size in kind.sizes() {
            let policy = kind.policy(size);
            let files = self.files(&policy, "sized")?;
            let samples = in_turns(self.runs, 4, |variant, netns| match variant {
                0 => self.load(netns, &files),
                1 => nft(netns, &files),
                2 => read(&policy),
                _ => commit(netns, &policy),
            });
            match samples {
                Ok(samples) => rows.push(row(size, &samples)),
                // In a user namespace the send buffer has a limit, and nfguard reports it.
                Err(error) => {
                    let _ = write!(out, "N = {size} is left out: {error}\n\n");
                }
            }
        }
        let head = [
            "N",
            "nfguard load",
            "nft -f",
            "nft to nfguard",
            "nfguard CPU",
            "nft CPU",
            "nfguard CPU for each",
            "library: read and compile",
            "library: commit",
        ];
        Ok(out + &table(&head, &rows) + "\n")
    }

    fn files(&self, policy: &str, name: &str) -> Result<Files> {
        let files = Files {
            policy: self.dir.join(format!("{name}.json")),
            text: self.dir.join(format!("{name}.nft")),
        };
        fs::write(&files.policy, policy)?;
        let shown = Command::new(&self.nfguard).arg("show").arg(&files.policy).output()?;
        if !shown.status.success() {
            return Err(String::from_utf8_lossy(&shown.stderr).into());
        }
        fs::write(&files.text, shown.stdout)?;
        Ok(files)
    }

    fn load(&self, netns: &Netns, files: &Files) -> Result<Sample> {
        // Each load goes into the history, as on a real host.
        let mut load = Command::new(&self.nfguard);
        load.arg("load").arg(&files.policy).env("NFGUARD_STATE_DIR", self.dir.join("state"));
        run(netns, &mut load)
    }
}

fn nft(netns: &Netns, files: &Files) -> Result<Sample> {
    run(netns, Command::new("nft").arg("-f").arg(&files.text))
}

/// Measures parser and compiler in this process.
fn read(policy: &str) -> Result<Sample> {
    let (_, sample) = timed(|| parsed(policy).map(|policy| policy.compile()))?;
    Ok(sample)
}

/// Measures the transaction: encoding, kernel and acknowledgement.
fn commit(netns: &Netns, policy: &str) -> Result<Sample> {
    let transaction = diff(None, &parsed(policy)?.compile());
    netns.run(|| {
        let mut kernel = Nft::open()?;
        let ((), sample) = timed(|| Ok(kernel.commit(&transaction, None)?))?;
        Ok(sample)
    })
}

fn parsed(policy: &str) -> Result<Policy> {
    let (policy, _) = Policy::parse(policy).map_err(|problems| format!("{problems:?}"))?;
    Ok(policy)
}

fn row(size: usize, samples: &[Samples]) -> Vec<String> {
    let [nfguard, nft, read, commit] = samples else { return Vec::new() };
    vec![
        size.to_string(),
        millis(nfguard.median()),
        millis(nft.median()),
        times(nft.median(), nfguard.median()),
        millis(nfguard.median_cpu()),
        millis(nft.median_cpu()),
        format!("{} ns", nfguard.median_cpu().as_nanos() / size as u128),
        millis(read.median()),
        millis(commit.median()),
    ]
}

fn times(time: Duration, ours: Duration) -> String {
    let ratio = time.as_secs_f64() / ours.as_secs_f64();
    if ratio < 20.0 { format!("{ratio:.2}") } else { format!("{ratio:.0}") }
}
