//! Reads a web server's access log (the common log format, as Traefik and nginx write it) and bans
//! for ten minutes whoever was refused with 401 five times within a minute.
//!
//! ```sh
//! cargo build --package nfguard-ban --example access_log
//! tail -n 0 -F access.log | sudo target/debug/examples/access_log
//! ```
#![allow(clippy::print_stdout, reason = "it talks to people")]

use std::collections::VecDeque;
use std::error::Error;
use std::io::{self, BufRead as _};
use std::net::IpAddr;
use std::time::{Duration, Instant};

use nfguard_ban::{Admitted, Ban, Bans, NeverBan, Target};

const FAILURES: usize = 5;
const WITHIN: Duration = Duration::from_secs(60);
const BANNED_FOR: Duration = Duration::from_secs(600);

fn main() -> Result<(), Box<dyn Error>> {
    let mut bans = Bans::open(NeverBan::of_this_host()?)?;
    let mut recent = Recent::default();
    // Not `lines()`: what clients put into a log need not be UTF-8.
    for line in io::stdin().lock().split(b'\n') {
        let line = line?;
        let Some(client) = unauthorized(&String::from_utf8_lossy(&line)) else { continue };
        // Who has one address of an IPv6 network has them all.
        let Ok(source) = bans.never().admit_source(client, Target::V6_SOURCE) else { continue };
        if recent.failures(source, Instant::now()) < FAILURES {
            continue;
        }
        recent.forget(source);
        bans.ban(&Ban {
            target: source,
            port: None,
            lasts: Some(BANNED_FOR),
            source: "access_log",
            reason: "too many answers of 401",
            since: None,
        })?;
        println!("banned {}", source.target());
    }
    Ok(())
}

/// Whose request was answered with 401:
/// `203.0.113.7 - anna [24/Nov/2026:13:55:36 +0000] "GET / HTTP/1.1" 401 17 …`.
///
/// A 401 counts in any place where it could be the status. User names and requests are the client's
/// words, and one with a `"` in it must not hide what came of it.
fn unauthorized(line: &str) -> Option<IpAddr> {
    let client = line.split(' ').next()?.parse().ok();
    client.filter(|_| line.contains("\" 401 "))
}

/// The failures of the last minute, oldest first.
#[derive(Default)]
struct Recent(VecDeque<(Instant, Admitted)>);

impl Recent {
    /// How many this one makes for its source.
    fn failures(&mut self, source: Admitted, now: Instant) -> usize {
        let old = self.0.partition_point(|(then, _)| now.duration_since(*then) > WITHIN);
        self.0.drain(..old);
        self.0.push_back((now, source));
        self.0.iter().filter(|(_, other)| *other == source).count()
    }

    fn forget(&mut self, source: Admitted) {
        self.0.retain(|(_, other)| *other != source);
    }
}
