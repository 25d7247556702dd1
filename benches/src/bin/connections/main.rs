//! The time of a first load on a host with many open connections.

#![allow(clippy::print_stdout, reason = "a benchmark prints")]

use std::io::{BufRead as _, BufReader, Read as _, Write as _};
use std::net::{Ipv4Addr, SocketAddr, TcpListener, TcpStream};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::{env, fs, io};

use nfguard_benches::{Program, Result, Sample, Samples, enter, header, millis, run, table};
use nfguard_lab::{Netns, World};
use nfguard_netlink::Nft;
use socket2::{Domain, Socket, Type};

/// The numbers of connections. The first argument overrides the largest.
const COUNTS: [usize; 4] = [0, 1_000, 10_000, 100_000];
/// The number of runs of each variant.
const RUNS: usize = 7;
/// Connections of a process, which may not hold more files than 20,000 on many machines.
const PER_PROCESS: usize = 10_000;
const FIRST_PORT: u16 = 10_000;
const RESULTS: &str = "benches/results/connections.md";
const POLICIES: [&str; 2] = ["policies/traefik.json", "policies/web-server.json"];

fn main() -> Result<()> {
    let arguments: Vec<String> = env::args().skip(1).collect();
    if let [end, number, count] = &arguments[..] {
        return hold(end, number.parse()?, count.parse()?);
    }
    enter()?;
    let nfguard = PathBuf::from(env::var_os("NFGUARD_BIN").ok_or("NFGUARD_BIN is not set")?);
    let most = arguments.first().map_or(Ok(COUNTS[3]), |most| most.parse())?;
    let mut page = format!(
        "# A first load with open connections\n\nMade by `cargo xtask bench connections`: TCP \
         connections over a veth pair, all ending at sockets of the host; {RUNS} runs of each, whole \
         processes, medians. Before each first load, no rule of the namespace needs connection \
         tracking, and the kernel has forgotten all connections.\n\n{}\n",
        header(&[Program(&nfguard, &["--version"]), Program(Path::new("nft"), &["--version"])]),
    );
    let world = World::new()?;
    let (mut held, mut rows, mut open) = (Vec::new(), Vec::new(), 0);
    for count in COUNTS.into_iter().filter(|count| *count < most).chain([most]) {
        while open < count {
            let part = (count - open).min(PER_PROCESS);
            held.push(Held::open(&world, held.len(), part)?);
            open += part;
        }
        rows.push(measure(&nfguard, &world.host, count)?);
    }
    page += &table(&["Open connections", "first load", "CPU", "next load", "CPU"], &rows);
    print!("{page}");
    // A trial run writes no result.
    if most == COUNTS[3] {
        fs::write(RESULTS, page)?;
    }
    Ok(())
}

/// Loads a first and another policy, and removes it, several times.
fn measure(program: &Path, host: &Netns, count: usize) -> Result<Vec<String>> {
    let nfguard = |arguments: &[&str]| -> Result<Sample> {
        // The history is the same for every load, and slow.
        run(host, Command::new(program).args(arguments).env("NFGUARD_STATE_DIR", ""))
    };
    let mut samples = [Vec::new(), Vec::new()];
    for _ in 0..RUNS {
        for (policy, samples) in POLICIES.into_iter().zip(&mut samples) {
            samples.push(nfguard(&["load", policy])?);
        }
        nfguard(&["unload"])?;
        let forgotten = host.run(|| Nft::open()?.forget_connections(|_| true))?;
        if forgotten < count {
            return Err(format!("{forgotten} of {count} connections were tracked").into());
        }
    }
    let mut row = vec![count.to_string()];
    for samples in samples.map(Samples::from_iter) {
        row.extend([millis(samples.median()), millis(samples.median_cpu())]);
    }
    Ok(row)
}

/// Two processes that hold the two ends of connections.
struct Held([Child; 2]);

impl Held {
    fn open(world: &World, number: usize, count: usize) -> Result<Held> {
        let start = |netns: &Netns, end: &str| -> Result<Child> {
            let mut command = Command::new(env::current_exe()?);
            command.args([end, &number.to_string(), &count.to_string()]);
            command.stdin(Stdio::piped()).stdout(Stdio::piped());
            let mut child = netns.run(|| command.spawn())?;
            let mut line = String::new();
            BufReader::new(child.stdout.take().ok_or("no output")?).read_line(&mut line)?;
            if line.is_empty() { Err(format!("no {end}").into()) } else { Ok(child) }
        };
        Ok(Held([start(&world.host, "server")?, start(&world.internet, "client")?]))
    }
}

impl Drop for Held {
    fn drop(&mut self) {
        for child in &mut self.0 {
            let _ = child.kill();
            let _ = child.wait();
        }
    }
}

/// Holds one end of the connections, until the input ends.
fn hold(end: &str, number: u16, count: u16) -> Result<()> {
    let at = SocketAddr::new(World::HOST_V4, FIRST_PORT + number);
    let mut held = Vec::new();
    if end == "server" {
        let listener = TcpListener::bind(at)?;
        println!("listens");
        for _ in 0..count {
            held.push(listener.accept()?.0);
        }
    } else {
        let address = Ipv4Addr::new(203, 0, 113, u8::try_from(number + 1)?);
        for port in 0..count {
            let socket = Socket::new(Domain::IPV4, Type::STREAM, None)?;
            socket.bind(&SocketAddr::new(address.into(), FIRST_PORT + port).into())?;
            socket.connect(&at.into())?;
            held.push(TcpStream::from(socket));
        }
        println!("holds {}", held.len());
    }
    io::stdout().flush()?;
    io::stdin().read_to_end(&mut Vec::new())?;
    Ok(())
}
