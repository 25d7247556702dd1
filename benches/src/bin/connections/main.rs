//! The time of a first load on a host with many open connections.

#![allow(clippy::print_stdout, reason = "a benchmark prints")]

use std::net::{IpAddr, Ipv4Addr, SocketAddr, TcpListener, TcpStream};
use std::path::{Path, PathBuf};
use std::process::Command;
use std::{env, fs};

use nfguard_benches::{Program, Result, Samples, enter, header, millis, run, table, timed};
use nfguard_lab::World;
use nfguard_netlink::{Nft, SockDiag};
use nix::sys::resource::{Resource, getrlimit, setrlimit};
use socket2::{Domain, Socket, Type};

/// The numbers of connections. The first argument overrides the largest.
const COUNTS: [usize; 4] = [0, 1_000, 10_000, 100_000];
/// The number of runs of each variant.
const RUNS: usize = 7;
/// Files of this process besides the two ends of each connection.
const OTHER_FILES: u64 = 100;
const PORT: u16 = 443;
const RESULTS: &str = "benches/results/connections.md";
const POLICIES: [&str; 2] = ["policies/traefik.json", "policies/web-server.json"];

fn main() -> Result<()> {
    enter()?;
    let nfguard = PathBuf::from(env::var_os("NFGUARD_BIN").ok_or("NFGUARD_BIN is not set")?);
    let wanted = env::args().nth(1).map_or(Ok(COUNTS[3]), |most| most.parse())?;
    let most = wanted.min(most_connections(wanted)?);
    let mut page = format!(
        "# A first load with open connections\n\nMade by `cargo xtask bench connections`: TCP \
         connections over a veth pair, all ending at sockets of the host; {RUNS} runs of each, \
         medians. The two loads are whole processes. Before each first load, no rule of the \
         namespace needs connection tracking, and the kernel has forgotten all connections.\n\n{}\n",
        header(&[Program(&nfguard, &["--version"]), Program(Path::new("nft"), &["--version"])]),
    );
    if most < wanted {
        page += &format!("This machine lets a process hold {most} connections.\n\n");
    }
    let bench = Bench::new(nfguard)?;
    let (mut held, mut rows) = (Vec::new(), Vec::new());
    for count in COUNTS.into_iter().filter(|count| *count < most).chain([most]) {
        while held.len() < count {
            held.push(bench.connect(held.len())?);
        }
        rows.push(bench.measure(count)?);
    }
    let head =
        ["Open connections", "first load", "CPU", "next load", "list sockets", "tell the kernel"];
    page += &table(&head, &rows);
    print!("{page}");
    // A trial run writes no result.
    if wanted == COUNTS[3] {
        fs::write(RESULTS, page)?;
    }
    Ok(())
}

/// Returns how many connections this process can hold, of those wanted.
fn most_connections(wanted: usize) -> Result<usize> {
    let files = u64::try_from(wanted)? * 2 + OTHER_FILES;
    let (_, hard) = getrlimit(Resource::RLIMIT_NOFILE)?;
    if setrlimit(Resource::RLIMIT_NOFILE, files, hard.max(files)).is_err() {
        setrlimit(Resource::RLIMIT_NOFILE, hard, hard)?;
    }
    let (soft, _) = getrlimit(Resource::RLIMIT_NOFILE)?;
    Ok(usize::try_from(soft.saturating_sub(OTHER_FILES) / 2)?)
}

struct Bench {
    nfguard: PathBuf,
    world: World,
    listener: TcpListener,
}

impl Bench {
    fn new(nfguard: PathBuf) -> Result<Bench> {
        let world = World::new()?;
        let listener = world.host.run(|| TcpListener::bind((World::HOST_V4, PORT)))?;
        Ok(Bench { nfguard, world, listener })
    }

    /// Opens a connection from an address and a port of its own.
    fn connect(&self, number: usize) -> Result<[TcpStream; 2]> {
        const PORTS: usize = 10_000;
        let address = Ipv4Addr::new(203, 0, 113, u8::try_from(1 + number / PORTS)?);
        let from = SocketAddr::new(IpAddr::V4(address), u16::try_from(10_000 + number % PORTS)?);
        let client = self.world.internet.run(|| {
            let socket = Socket::new(Domain::IPV4, Type::STREAM, None)?;
            socket.bind(&from.into())?;
            socket.connect(&SocketAddr::new(World::HOST_V4, PORT).into())?;
            Ok::<TcpStream, std::io::Error>(socket.into())
        })?;
        Ok([client, self.listener.accept()?.0])
    }

    fn measure(&self, count: usize) -> Result<Vec<String>> {
        let host = &self.world.host;
        let mut samples = [(); 4].map(|()| Vec::new());
        for _ in 0..RUNS {
            let [first, next, list, tell] = &mut samples;
            first.push(self.nfguard(&["load", POLICIES[0]])?);
            next.push(self.nfguard(&["load", POLICIES[1]])?);
            self.nfguard(&["unload"])?;
            self.forget(count)?;
            let (open, sample) =
                host.run(|| timed(|| Ok(SockDiag::open()?.connections(|_| true)?)))?;
            list.push(sample);
            let mut nft = host.run(Nft::open)?;
            tell.push(timed(|| Ok(nft.track_connections(&open)?))?.1);
            self.forget(count)?;
        }
        let [first, next, list, tell] = samples.map(Samples::from_iter);
        let mut row = vec![count.to_string(), millis(first.median()), millis(first.median_cpu())];
        row.extend([next, list, tell].map(|samples| millis(samples.median())));
        Ok(row)
    }

    fn nfguard(&self, arguments: &[&str]) -> Result<nfguard_benches::Sample> {
        let mut command = Command::new(&self.nfguard);
        // The history is the same for every load, and slow.
        run(&self.world.host, command.args(arguments).env("NFGUARD_STATE_DIR", ""))
    }

    fn forget(&self, count: usize) -> Result<()> {
        let forgotten = self.world.host.run(|| Nft::open()?.forget_connections(|_| true))?;
        if forgotten < count {
            return Err(format!("{forgotten} of {count} connections were tracked").into());
        }
        Ok(())
    }
}
