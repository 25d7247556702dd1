//! Bans an address for a minute, and prints what the guard says until that time is over.
//!
//! `cargo run -p nfguard-api --example follow -- /run/nfguard/guard.sock 203.0.113.7`
#![allow(clippy::print_stdout, reason = "an example prints what it sees")]

use std::env;
use std::error::Error as StdError;
use std::time::{Duration, Instant};

use nfguard_api::message::{Event, NewBan};
use nfguard_api::{Error, GuardClient};

const MINUTE: Duration = Duration::from_secs(60);

fn main() -> Result<(), Box<dyn StdError>> {
    let mut arguments = env::args().skip(1);
    let (Some(socket), Some(target)) = (arguments.next(), arguments.next()) else {
        return Err("expected the path of the guard's socket, and an address".into());
    };
    let mut events = GuardClient::connect(&socket)?.subscribe()?;
    let mut client = GuardClient::connect(&socket)?;
    let status = client.status()?;
    println!("nfguard {}, {} bans in force", status.nfguard_version, status.bans);
    let ban = NewBan::of(&target).lasting(MINUTE).source("follow").reason("an example");
    println!("{target}: {:?}", client.ban(ban)?);
    let start = Instant::now();
    loop {
        match events.next_event(Some(MINUTE.saturating_sub(start.elapsed()))) {
            Ok(Event::Banned { ban }) => println!("banned {} ({})", ban.target, ban.source),
            Ok(Event::Unbanned { ban }) => println!("unbanned {} ({})", ban.target, ban.source),
            Ok(other) => println!("{other:?}"),
            Err(Error::TimedOut(_)) => return Ok(()),
            Err(error) => return Err(error.into()),
        }
    }
}
