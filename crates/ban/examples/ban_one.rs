//! Bans an address or a prefix for an hour, lists the bans, and ends the ban again.
//!
//! ```sh
//! cargo build --package nfguard-ban --example ban_one
//! sudo target/debug/examples/ban_one 203.0.113.7
//! ```
#![allow(clippy::print_stdout, clippy::print_stderr, reason = "it talks to people")]

use std::error::Error;
use std::process::ExitCode;
use std::time::Duration;
use std::{env, io};

use nfguard_ban::{Ban, Bans, NeverBan, Target};

fn main() -> ExitCode {
    match run() {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("ban_one: {error}");
            ExitCode::FAILURE
        }
    }
}

fn run() -> Result<(), Box<dyn Error>> {
    let target: Target = env::args().nth(1).ok_or("name an address")?.parse()?;
    let mut bans = Bans::open(NeverBan::of_this_host()?)?;
    bans.ban(&Ban {
        target: bans.admit(target)?,
        port: None,
        duration: Some(Duration::from_secs(3600)),
        source: "ban_one",
        reason: "to see how it is done",
        created_at: None,
    })?;
    for ban in bans.list()? {
        println!("{} is banned by {}: {}", ban.target, ban.source, ban.reason);
    }
    println!("Press Enter to end the ban of {target}.");
    io::stdin().read_line(&mut String::new())?;
    bans.unban(target, None)?;
    Ok(())
}
