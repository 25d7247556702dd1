//! Other netlink libraries. Each adds addresses to a set and measures itself.
//!
//! `list` prints their names, `NAME one COUNT` the median nanoseconds of a transaction with one
//! address, `NAME bulk COUNT` the nanoseconds of all. An error is printed in place of the
//! number.
//!
//! The whole program is under the GNU General Public License, version 3 or later, as it links
//! `rustables`.
#![allow(clippy::print_stdout, reason = "the numbers are what it is for")]

mod by_mnl;
mod by_neli;
mod by_packets;
mod by_rustables;

use std::error::Error;
use std::io::Write as _;
use std::net::Ipv4Addr;
use std::process::{Command, ExitCode, Stdio};
use std::time::Instant;

type Result<T, E = Box<dyn Error>> = std::result::Result<T, E>;

/// Adds these addresses in one transaction, and returns when the kernel has acknowledged it.
type Add = Box<dyn FnMut(&[Ipv4Addr]) -> Result<()>>;

/// The room for a transaction in bytes. It must fit the send buffer of a socket, which none of the
/// libraries enlarges.
const ROOM: usize = 210_000;

/// The timeout of an element in milliseconds.
const TIMEOUT: u64 = 3_600_000;

/// The bytes of an element with a timeout of its own.
const TIMED: usize = 28;

/// The bytes of an element with the timeout of the set.
const UNTIMED: usize = 16;

struct Peer {
    name: &'static str,
    open: fn() -> Result<Add>,
    /// The bytes of an element in a message.
    element: usize,
}

const PEERS: [Peer; 4] = [
    Peer { name: "nftnl-timeout-of-the-set", open: by_mnl::open, element: UNTIMED },
    Peer { name: "neli", open: by_neli::open, element: TIMED },
    Peer { name: "rustables-timeout-of-the-set", open: by_rustables::open, element: UNTIMED },
    Peer { name: "netlink-packet-netfilter", open: by_packets::open, element: TIMED },
];

fn main() -> ExitCode {
    let arguments: Vec<String> = std::env::args().skip(1).collect();
    let words: Vec<&str> = arguments.iter().map(String::as_str).collect();
    match answer(&words) {
        Ok(answer) => {
            println!("{answer}");
            ExitCode::SUCCESS
        }
        // The caller reads the error on standard output.
        Err(error) => {
            println!("error: {error}");
            ExitCode::FAILURE
        }
    }
}

fn answer(words: &[&str]) -> Result<String> {
    match words {
        ["list"] => Ok(PEERS.map(|peer| peer.name).join("\n")),
        [name, "one", count] => Ok(peer(name)?.one(count.parse()?)?.to_string()),
        [name, "bulk", count] => Ok(peer(name)?.bulk(count.parse()?)?.to_string()),
        _ => Err("usage: list | NAME one COUNT | NAME bulk COUNT".into()),
    }
}

fn peer(name: &str) -> Result<&'static Peer> {
    PEERS.iter().find(|peer| peer.name == name).ok_or_else(|| format!("no peer {name}").into())
}

impl Peer {
    fn one(&self, count: u32) -> Result<u128> {
        self.create_set()?;
        let mut add = (self.open)()?;
        let mut times = Vec::new();
        for address in addresses(count) {
            let start = Instant::now();
            add(&[address])?;
            times.push(start.elapsed().as_nanos());
        }
        check(count)?;
        times.sort_unstable();
        times.get(times.len() / 2).copied().ok_or_else(|| "none is no measurement".into())
    }

    fn bulk(&self, count: u32) -> Result<u128> {
        self.create_set()?;
        let addresses = addresses(count);
        let start = Instant::now();
        let mut add = (self.open)()?;
        for part in addresses.chunks(ROOM / self.element) {
            add(part)?;
        }
        let took = start.elapsed().as_nanos();
        check(count)?;
        Ok(took)
    }

    fn create_set(&self) -> Result<()> {
        let timeout = if self.element == UNTIMED { "timeout 1h;" } else { "" };
        let set = format!("b {{ type ipv4_addr; flags timeout; {timeout} size 4194303; }}");
        nft(&["-f", "-"], &format!("add table inet peers\nadd set inet peers {set}\n"))?;
        Ok(())
    }
}

fn addresses(count: u32) -> Vec<Ipv4Addr> {
    (0..count).map(|at| Ipv4Addr::from_bits(0x1400_0000 + at)).collect()
}

/// Asserts that all elements are in the set, each with a timeout.
fn check(count: u32) -> Result<()> {
    let found = nft(&["-j", "list", "set", "inet", "peers", "b"], "")?;
    match found.matches("\"expires\"").count() {
        found if found == usize::try_from(count)? => Ok(()),
        found => Err(format!("{found} of {count} are in the set").into()),
    }
}

fn nft(arguments: &[&str], input: &str) -> Result<String> {
    let piped = || Stdio::piped();
    let mut nft = Command::new("nft");
    let mut child = nft.args(arguments).stdin(piped()).stdout(piped()).stderr(piped()).spawn()?;
    child.stdin.take().ok_or("nft has no input")?.write_all(input.as_bytes())?;
    let output = child.wait_with_output()?;
    if output.status.success() {
        Ok(String::from_utf8(output.stdout)?)
    } else {
        Err(String::from_utf8_lossy(&output.stderr).trim().into())
    }
}
