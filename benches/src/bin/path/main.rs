//! The cost of a packet in nanoseconds: from a banned source, or of an established flow, against
//! the number of bans and compared with other firewalls; and of a flood of scans.

#![allow(clippy::print_stdout, reason = "a benchmark prints")]

mod bpf;
mod firewalls;

use std::net::{IpAddr, Ipv4Addr, SocketAddr, UdpSocket};
use std::path::Path;
use std::time::Duration;
use std::{env, fs};

use nfguard_benches::{Plot, Program, Result, Series, Ufw, enter, header, table};
use nfguard_lab::{Netns, World};
use nix::ifaddrs::getifaddrs;
use nix::net::if_::if_nametoindex;

use crate::bpf::{Generator, Packets};
use crate::firewalls::{FIRST, Firewall, INSIDE, PUBLISHED, docker};

/// The default number of runs of each variant. The first argument overrides it.
const RUNS: usize = 3;
/// The packets of one run. A chain of 10,000 rules gets fewer.
const PACKETS: u32 = 2_000_000;
const SLOW_PACKETS: u32 = 20_000;
const RESULTS: &str = "benches/results/path";

/// The peer, which is not banned, outside the network of the bans.
const PEER: Ipv4Addr = Ipv4Addr::new(203, 0, 113, 7);
/// The ports of the flow: one that policies let a host use, and one that the chain of the write-up
/// matches.
const PEER_PORT: u16 = 53;
const PORT: u16 = 443;
/// The source port of the scanners.
const SCANNER_PORT: u16 = 40_000;

/// The packets of a measurement.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Traffic {
    /// Packets from banned sources to the host.
    Banned,
    /// Answers of a flow that the host has opened.
    Established,
    /// Packets of a client to a port that Docker publishes for a container.
    Published,
    /// Packets from this number of scanners to random ports of the host.
    Scan,
}

const ALL: [Traffic; 4] =
    [Traffic::Banned, Traffic::Established, Traffic::Published, Traffic::Scan];

/// A line of the result.
struct Case {
    firewall: Firewall,
    /// The number of bans, or of scanners.
    bans: u32,
    traffic: Traffic,
    /// The nanoseconds per packet of each run.
    times: Vec<f64>,
}

/// Runs the benchmark. The arguments are `[RUNS] [banned|established|published|scan]`.
fn main() -> Result<()> {
    enter()?;
    let runs = env::args().nth(1).map_or(Ok(RUNS), |runs| runs.parse())?;
    let only = env::args().nth(2);
    let dir = env::temp_dir().join(format!("nfguard-bench-{}", std::process::id()));
    fs::create_dir(&dir)?;
    let done = Ufw::configured(&dir).and_then(|ufw| {
        for traffic in ALL {
            if only.as_ref().is_none_or(|only| only == traffic.word()) {
                bench(traffic, runs, &ufw)?;
            }
        }
        Ok(())
    });
    fs::remove_dir_all(&dir)?;
    done
}

fn bench(traffic: Traffic, runs: usize, ufw: &Ufw) -> Result<()> {
    let programs = [
        Program(Path::new("nft"), &["--version"]),
        Program(Path::new("ufw"), &["--version"]),
        Program(Path::new("ipset"), &["--version"]),
        Program(Path::new("iptables-nft"), &["--version"]),
    ];
    let head = header(&programs);
    let mut cases = cases();
    cases.retain(|case| case.traffic == traffic);
    for _ in 0..runs {
        for case in &mut cases {
            case.run(ufw)?;
        }
    }
    let page = format!(
        "# {}\n\nMade by `cargo xtask bench path`: nanoseconds a packet, medians of {runs} runs in \
         turns, {PACKETS} packets a run (chains of a rule a ban: {SLOW_PACKETS}). The packets are \
         made in the kernel by an XDP program, which is about 95 ns of every number, and come in at \
         the host's interface as if received; the time is the processor's, so neighbours do not count.\n\n{head}\n{}",
        traffic.title(),
        report(traffic, &cases),
    );
    print!("{page}");
    // A trial run writes no result.
    if runs >= RUNS {
        let path = format!("{RESULTS}-{}", traffic.word());
        fs::write(format!("{path}.md"), page)?;
        let plot = Plot { title: traffic.title(), x: traffic.number(), y: "nanoseconds a packet" };
        plot.write(Path::new(&format!("{path}.svg")), &series(&cases))?;
    }
    Ok(())
}

impl Traffic {
    fn word(self) -> &'static str {
        match self {
            Traffic::Banned => "banned",
            Traffic::Established => "established",
            Traffic::Published => "published",
            Traffic::Scan => "scan",
        }
    }

    /// Returns the unit of the number.
    fn number(self) -> &'static str {
        if self == Traffic::Scan { "scanners" } else { "bans" }
    }

    fn title(self) -> &'static str {
        match self {
            Traffic::Banned => "A packet of a banned source, dropped",
            Traffic::Established => "A packet of an established flow to the host",
            Traffic::Published => "A packet of an established flow to a port that Docker publishes",
            Traffic::Scan => "A packet of a flood of scans, dropped",
        }
    }
}

fn cases() -> Vec<Case> {
    use Firewall::*;
    use Traffic::*;
    const SIZES: [u32; 4] = [1, 1_000, 100_000, 1_000_000];
    let mut cases = Vec::new();
    let mut add = |traffic, firewall, sizes: &[u32]| {
        cases.extend(sizes.iter().map(|bans| Case {
            firewall,
            bans: *bans,
            traffic,
            times: Vec::new(),
        }));
    };
    add(Banned, None, &[0]);
    add(Banned, HandWritten, &SIZES);
    add(Banned, HandWrittenInterval, &[100_000]);
    add(Banned, Nfguard(1), &SIZES);
    add(Banned, Nfguard(4), &[100_000]);
    add(Banned, Nfguard(8), &[100_000]);
    add(Banned, UfwIpset, &SIZES);
    add(Banned, Chain, &[1, 1_000, 10_000]);
    const WITH_NONE: [u32; 5] = [0, 1, 1_000, 100_000, 1_000_000];
    add(Established, None, &[0]);
    add(Established, HandWritten, &WITH_NONE);
    add(Established, Nfguard(1), &WITH_NONE);
    add(Established, HandWrittenInterval, &[100_000]);
    add(Established, Nfguard(4), &[100_000]);
    add(Established, Nfguard(8), &[100_000]);
    add(Established, HandWrittenStateful, &[0, 100_000]);
    add(Established, NfguardPolicy, &[0, 100_000]);
    add(Established, NfguardNoScan, &[0, 100_000]);
    add(Established, UfwIpset, &SIZES);
    add(Established, Chain, &[1, 1_000, 10_000]);
    add(Published, None, &[0]);
    add(Published, HandWritten, &WITH_NONE);
    add(Published, NfguardPolicy, &WITH_NONE);
    add(Published, NfguardNoScan, &[0, 100_000]);
    add(Published, UfwDocker, &[0]);
    add(Published, Chain, &[1, 1_000, 10_000]);
    for firewall in [None, NfguardPolicy, NfguardNoScan, UfwIpset] {
        add(Scan, firewall, &[1, 1_000, 60_000]);
    }
    cases
}

impl Case {
    fn run(&mut self, ufw: &Ufw) -> Result<()> {
        let world = World::with_container()?;
        let container = world.container.as_ref().ok_or("the world has no container")?;
        if self.traffic == Traffic::Published {
            docker(&world.host)?;
        }
        let bans = if self.traffic == Traffic::Scan { 0 } else { self.bans };
        self.firewall.install(&world.host, bans, ufw)?;
        let (v4, any) = (
            |address: IpAddr| match address {
                IpAddr::V4(address) => Ok(address),
                IpAddr::V6(_) => Err("not IPv4"),
            },
            Ipv4Addr::UNSPECIFIED,
        );
        let from = |first, sources, to| Packets {
            first,
            sources,
            to,
            ports: (PEER_PORT, PORT),
            scattered: false,
        };
        let (host, peer) = (v4(World::HOST_V4)?, SocketAddr::new(PEER.into(), PEER_PORT));
        let (packets, _sockets) = match self.traffic {
            Traffic::Banned => (from(FIRST, self.bans.max(1), host), Vec::new()),
            Traffic::Scan => {
                let packets = from(FIRST, self.bans, host);
                // The packet must not look like a late answer.
                (Packets { ports: (SCANNER_PORT, PORT), scattered: true, ..packets }, Vec::new())
            }
            Traffic::Established => {
                let socket = udp(&world.host, (any, PORT))?;
                // This packet makes the flow known to a firewall. A policy may refuse it.
                let _ = socket.send_to(b"hello", peer);
                (from(PEER, 1, host), vec![socket])
            }
            Traffic::Published => {
                let server = udp(container, (any, INSIDE))?;
                let client = udp(&world.internet, (PEER, PEER_PORT))?;
                client.send_to(b"hello", (host, PUBLISHED))?;
                let (_, source) = server.recv_from(&mut [0; 16])?;
                server.send_to(b"hello", source)?;
                client.recv_from(&mut [0; 16])?;
                (from(PEER, 1, host), vec![server, client])
            }
        };
        let generator = world.host.run(|| {
            let ifindex = if_nametoindex("eth0")?;
            Generator::new(ifindex, mac("eth0")?, packets)
        })?;
        let is_slow = self.firewall == Firewall::Chain && self.bans > 1;
        let count = if is_slow { SLOW_PACKETS } else { PACKETS };
        let time = world.host.run(|| {
            // A warm-up fills caches and resolves the neighbour.
            generator.run(1_000)?;
            generator.run(count)
        })?;
        if self.traffic == Traffic::Published {
            // Otherwise the run has measured another path.
            let forwarded = world.host.run(forwarded)?;
            if forwarded < u64::from(count) {
                return Err(format!("{forwarded} of {count} packets were sent on").into());
            }
        }
        self.times.push(time.as_nanos() as f64 / f64::from(count));
        Ok(())
    }

    fn median(&self) -> f64 {
        let mut times = self.times.clone();
        times.sort_by(f64::total_cmp);
        times.get(times.len() / 2).copied().unwrap_or_default()
    }
}

/// Returns the number of IPv4 packets that the namespace of this thread has forwarded.
fn forwarded() -> Result<u64> {
    let text = fs::read_to_string("/proc/thread-self/net/snmp")?;
    let mut lines = text.lines().filter_map(|line| line.strip_prefix("Ip: "));
    let (names, numbers) = (lines.next().unwrap_or_default(), lines.next().unwrap_or_default());
    let mut both = names.split(' ').zip(numbers.split(' '));
    let (_, number) = both.find(|(name, _)| *name == "ForwDatagrams").ok_or("no such count")?;
    Ok(number.parse()?)
}

/// Returns a socket in the namespace. Its timeout of seconds means that a packet was dropped.
fn udp(netns: &Netns, at: (Ipv4Addr, u16)) -> Result<UdpSocket> {
    let socket = netns.run(|| UdpSocket::bind(at))?;
    socket.set_read_timeout(Some(Duration::from_secs(10)))?;
    Ok(socket)
}

fn mac(name: &str) -> Result<[u8; 6]> {
    let address = getifaddrs()?
        .filter(|interface| interface.interface_name == name)
        .find_map(|interface| interface.address?.as_link_addr()?.addr());
    Ok(address.ok_or("the interface has no address")?)
}

fn report(traffic: Traffic, cases: &[Case]) -> String {
    let of = |firewall: Firewall, bans: u32| {
        let found = cases.iter().find(|case| case.firewall == firewall && case.bans == bans);
        found.map(Case::median)
    };
    let none = |case: &Case| {
        let bans = if traffic == Traffic::Scan { case.bans } else { 0 };
        of(Firewall::None, bans).unwrap_or_default()
    };
    let rows: Vec<Vec<String>> = cases
        .iter()
        .map(|case| {
            let by_hand = match case.firewall {
                _ if traffic == Traffic::Scan => of(Firewall::NfguardNoScan, case.bans),
                // Without nfguard, prefixes of several lengths need an interval set.
                Firewall::Nfguard(2..) => of(Firewall::HandWrittenInterval, case.bans),
                Firewall::NfguardPolicy | Firewall::NfguardNoScan
                    if traffic == Traffic::Established =>
                {
                    of(Firewall::HandWrittenStateful, case.bans)
                }
                _ => of(Firewall::HandWritten, case.bans),
            };
            vec![
                case.firewall.name(),
                case.bans.to_string(),
                format!("{:.0}", case.median()),
                format!("{:.2}", case.median() / none(case)),
                by_hand.map_or("–".to_owned(), |hand| format!("{:.2}", case.median() / hand)),
            ]
        })
        .collect();
    let peer = if traffic == Traffic::Scan { "to the plain drop" } else { "to nft by hand" };
    let head = ["", traffic.number(), "ns a packet", "to no firewall", peer];
    table(&head, &rows)
}

fn series(cases: &[Case]) -> Vec<Series> {
    let mut all: Vec<Series> = Vec::new();
    for case in cases.iter().filter(|case| case.bans > 0) {
        let point = (f64::from(case.bans), case.median());
        match all.iter_mut().find(|series| series.name == case.firewall.name()) {
            Some(series) => series.points.push(point),
            None => all.push(Series { name: case.firewall.name(), points: vec![point] }),
        }
    }
    all.retain(|series| series.points.len() > 1);
    all
}
