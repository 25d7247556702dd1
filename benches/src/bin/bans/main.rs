//! The cost of bans: one, many, and compared with other tools.

#![allow(clippy::print_stdout, reason = "a benchmark prints")]

mod library;
mod processes;
mod raw;

use std::ffi::OsString;
use std::path::Path;
use std::{env, fs};

use nfguard_ban::{Bans, NeverBan};
use nfguard_benches::{Program, Result, child, enter, header};

use crate::processes::Processes;

const RESULTS: &str = "benches/results/bans";

/// The first argument of a process that bans with the library. The number of bans follows.
const BULK: &str = "bulk";

fn main() -> Result<()> {
    let arguments: Vec<OsString> = env::args_os().skip(1).collect();
    match arguments.split_first() {
        Some((verb, rest)) if verb == child::VERB => {
            println!("{}", child::measure(rest)?);
            return Ok(());
        }
        Some((verb, rest)) if verb == BULK => {
            let count = rest.first().and_then(|count| count.to_str()).ok_or("how many?")?;
            let mut bans = Bans::open(NeverBan::default())?;
            return library::many(&mut bans, 0x1400_0000, count.parse()?, 32);
        }
        _ => {}
    }
    enter()?;
    let is_trial = arguments.first().is_some_and(|argument| argument == "trial");
    let dir = env::temp_dir().join(format!("nfguard-bench-{}", std::process::id()));
    fs::create_dir(&dir)?;
    let done = bench(&dir, is_trial);
    fs::remove_dir_all(&dir)?;
    done
}

fn bench(dir: &Path, is_trial: bool) -> Result<()> {
    let nfguard = env::var_os("NFGUARD_BIN").ok_or("NFGUARD_BIN is not set")?;
    let programs = [
        Program(Path::new(&nfguard), &["--version"]),
        Program(Path::new("nft"), &["--version"]),
        Program(Path::new("ipset"), &["--version"]),
        Program(Path::new("iptables-nft"), &["--version"]),
        Program(Path::new("ufw"), &["--version"]),
    ];
    let mut page = format!(
        "# Bans\n\nMade by `cargo xtask bench bans`, all in one run, each in a new network \
         namespace. Single calls by criterion, medians; whole processes, medians of {} runs in \
         turns.\n\n{}\n",
        processes::RUNS,
        header(&programs),
    );
    let (small, large) = if is_trial { (1_000, 10_000) } else { (100_000, 1_000_000) };

    let singles: Vec<library::Single> = [0, small, large]
        .into_iter()
        .map(|present| library::single(dir, present))
        .collect::<Result<_>>()?;
    let prefix = library::prefix(dir, small)?;
    let processes = Processes { dir, nfguard: &nfguard, small, large };
    page += &processes::calls(&singles, &prefix);
    page += &processes.peers()?;
    page += &processes.single()?;
    let (text, series) = processes.bulk()?;
    page += &text;
    print!("{page}");
    // A trial run writes no result.
    if !is_trial {
        fs::write(format!("{RESULTS}.md"), page)?;
        processes::plot(Path::new(&format!("{RESULTS}.svg")), &series)?;
    }
    Ok(())
}
