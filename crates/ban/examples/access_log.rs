//! Reads a web server's access log (the common log format, as Traefik and nginx write it) and bans
//! each source for ten minutes that got the answer 401 five times within a minute.
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

const MAX_FAILURES: usize = 5;
const WINDOW: Duration = Duration::from_secs(60);
const BAN_DURATION: Duration = Duration::from_secs(600);

fn main() -> Result<(), Box<dyn Error>> {
    let mut bans = Bans::open(NeverBan::of_this_host()?)?;
    let mut recent = Recent::default();
    // Not `lines()`: what clients put into a log need not be UTF-8.
    for line in io::stdin().lock().split(b'\n') {
        let line = line?;
        let Some(client) = unauthorized(&String::from_utf8_lossy(&line)) else { continue };
        // An IPv6 client can take any address of its network.
        let Ok(source) = bans.never_ban().admit_source(client, Target::V6_SOURCE) else { continue };
        if recent.failures(source, Instant::now()) < MAX_FAILURES {
            continue;
        }
        recent.forget(source);
        bans.ban(&Ban {
            target: source,
            port: None,
            duration: Some(BAN_DURATION),
            source: "access_log",
            reason: "too many answers of 401",
            created_at: None,
        })?;
        println!("banned {}", source.target());
    }
    Ok(())
}

/// Returns the client whose request was answered with 401:
/// `203.0.113.7 - anna [24/Nov/2026:13:55:36 +0000] "GET / HTTP/1.1" 401 17 …`.
///
/// A 401 counts in any place where it could be the status. User names and requests are the client's
/// words, and a `"` in them must not hide the status.
fn unauthorized(line: &str) -> Option<IpAddr> {
    let client = line.split(' ').next()?.parse().ok();
    client.filter(|_| line.contains("\" 401 "))
}

/// The failures of the last minute, oldest first.
#[derive(Default)]
struct Recent(VecDeque<(Instant, Admitted)>);

impl Recent {
    /// Adds a failure, and returns how many its source then has.
    fn failures(&mut self, source: Admitted, now: Instant) -> usize {
        let old = self.0.partition_point(|(then, _)| now.duration_since(*then) > WINDOW);
        self.0.drain(..old);
        self.0.push_back((now, source));
        self.0.iter().filter(|(_, other)| *other == source).count()
    }

    fn forget(&mut self, source: Admitted) {
        self.0.retain(|(_, other)| *other != source);
    }
}
