//! What one source has tried, and how dangerous that is, as PSAD has it.

use std::net::IpAddr;

use nfguard_netlink::ParsedPacket;
use serde::{Deserialize, Serialize};
use smallvec::SmallVec;

/// Packets to one address of this host, and addresses, from which on a scan is of level 1 to 5:
/// `DANGER_LEVEL1` to `5` and `DL1_UNIQUE_HOSTS` to `DL5_UNIQUE_HOSTS` as PSAD comes.
const PACKETS: [u64; 5] = [5, 15, 150, 1500, 10_000];
const TARGETS: [usize; 5] = [10, 20, 50, 100, 500];
/// `PROTOCOL_SCAN_THRESHOLD`: this number of protocols is a scan even without ports. Two ports always are
/// (`PORT_RANGE_SCAN_THRESHOLD`).
const PROTOCOLS: usize = 5;
/// `SCAN_TIMEOUT`: seconds of silence after which what comes is another scan.
const SILENCE: f64 = 3600.0;

/// How many ports of one source are remembered one by one; its packets are all counted.
const PORTS: usize = 1000;

/// SYN alone of all flags.
const SYN: u8 = 2;

/// Each once. A few take no memory elsewhere, as sources that are forged have few of all and are
/// many.
type Numbers = SmallVec<[u8; 16]>;

/// What one source has tried.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Source {
    /// Seconds since 1970.
    pub first_seen: f64,
    /// Seconds since 1970.
    pub last_seen: f64,
    /// How many it has sent.
    pub packets: u64,
    /// The highest level that one of its scans has reached.
    pub level: u8,
    /// Protocol and port in their order, at most 1,000.
    pub ports: SmallVec<[(u8, u16); 4]>,
    /// Each protocol that it has used.
    pub protocols: Numbers,
    /// Each set of TCP flags that it has sent.
    pub tcp_flags: Numbers,
    /// Of its first SYN.
    pub tcp_options: Option<String>,
    scan: Scan,
    /// Whether there is anything of it in the file.
    #[serde(skip, default = "from_the_file")]
    pub(crate) is_written: bool,
    /// Whether the file lacks what it did last.
    #[serde(skip)]
    pub(crate) is_changed: bool,
}

fn from_the_file() -> bool {
    true
}

/// The scan that goes on.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
struct Scan {
    /// Packets to each address, in their order: as many as make the highest level.
    targets: SmallVec<[(IpAddr, u64); 1]>,
    /// The most packets that one of them got.
    most: u64,
    protocols: Numbers,
    /// The lowest and the highest port.
    ports: Option<(u16, u16)>,
}

impl Source {
    pub(crate) fn new(time: f64) -> Source {
        Source {
            first_seen: time,
            last_seen: time,
            packets: 0,
            level: 0,
            ports: SmallVec::new(),
            protocols: SmallVec::new(),
            tcp_flags: SmallVec::new(),
            tcp_options: None,
            scan: Scan::default(),
            is_written: false,
            is_changed: false,
        }
    }

    /// Adds a packet that was not let in.
    pub fn add(&mut self, packet: &ParsedPacket<'_>, time: f64) {
        if time - self.last_seen > SILENCE {
            self.scan = Scan::default();
        }
        // The clock may go back.
        self.last_seen = self.last_seen.max(time);
        self.packets += 1;
        self.is_changed = true;
        note(&mut self.protocols, packet.protocol);
        let port = packet.ports.map(|(_, port)| (packet.protocol, port));
        if let Some(port) = port
            && self.ports.len() < PORTS
            && let Err(at) = self.ports.binary_search(&port)
        {
            self.ports.insert(at, port);
        }
        if let Some(flags) = packet.tcp_flags {
            note(&mut self.tcp_flags, flags);
            if flags == SYN && self.tcp_options.is_none() {
                self.tcp_options = packet.tcp_options();
            }
        }
        self.scan.add(packet);
        self.level = self.level.max(self.scan.level());
    }

    /// The addresses of this host, or behind it, that its last scan was for.
    pub fn targets(&self) -> impl Iterator<Item = &IpAddr> {
        self.scan.targets.iter().map(|(address, _)| address)
    }

    /// The higher, the worse.
    pub fn rank(&self) -> f64 {
        // No time is as long as the step from one level to the next.
        f64::from(self.level) * 1e12 + self.last_seen
    }

    /// Whether there were more ports than are remembered.
    pub fn has_more_ports(&self) -> bool {
        self.ports.len() >= PORTS
    }
}

impl Scan {
    fn add(&mut self, packet: &ParsedPacket<'_>) {
        note(&mut self.protocols, packet.protocol);
        if let Some((_, port)) = packet.ports {
            let (low, high) = self.ports.unwrap_or((port, port));
            self.ports = Some((low.min(port), high.max(port)));
        }
        self.count(packet.destination);
    }

    fn count(&mut self, address: IpAddr) {
        let [.., all] = TARGETS;
        let at = match self.targets.binary_search_by_key(&address, |(known, _)| *known) {
            Ok(at) => at,
            Err(_) if self.targets.len() == all => return,
            Err(at) => {
                self.targets.insert(at, (address, 0));
                at
            }
        };
        let packets = &mut self.targets[at].1;
        *packets += 1;
        self.most = self.most.max(*packets);
    }

    fn level(&self) -> u8 {
        let targets = self.targets.len();
        let ports = self.ports.is_none_or(|(low, high)| low < high);
        if !ports && self.protocols.len() < PROTOCOLS && targets < TARGETS[0] {
            return 0;
        }
        let by_packets = PACKETS.iter().filter(|least| self.most >= **least).count();
        let by_targets = TARGETS.iter().filter(|least| targets >= **least).count();
        // Neither has more than five.
        by_packets.max(by_targets) as u8
    }
}

fn note(known: &mut Numbers, number: u8) {
    if !known.contains(&number) {
        known.push(number);
    }
}

#[cfg(test)]
mod tests {
    use std::net::Ipv4Addr;

    use super::*;

    fn packet(target: u32, port: Option<u16>) -> ParsedPacket<'static> {
        ParsedPacket {
            source: Ipv4Addr::new(203, 0, 113, 7).into(),
            destination: Ipv4Addr::from_bits(target).into(),
            protocol: if port.is_some() { 6 } else { 1 },
            length: 40,
            fragment: None,
            ports: port.map(|port| (40000, port)),
            tcp_flags: port.map(|_| SYN),
            icmp: None,
            payload: &[],
        }
    }

    fn level(packets: impl IntoIterator<Item = ParsedPacket<'static>>) -> u8 {
        let mut source = Source::new(0.0);
        packets.into_iter().for_each(|packet| source.add(&packet, 1.0));
        source.level
    }

    #[test]
    fn levels_begin_where_psad_has_them_begin() {
        let ports = |count: u32| (0..count).map(|port| packet(1, Some((port % 60_000) as u16)));
        for (packets, expected) in [
            (4, 0),
            (5, 1),
            (14, 1),
            (15, 2),
            (149, 2),
            (150, 3),
            (1499, 3),
            (1500, 4),
            (9999, 4),
            (10_000, 5),
        ] {
            assert_eq!(level(ports(packets)), expected, "{packets} packets");
        }
        for (targets, expected) in [(9, 0), (10, 1), (20, 2), (50, 3), (100, 4), (499, 4), (500, 5)]
        {
            let sweep = (0..targets).map(|target| packet(target, Some(22)));
            assert_eq!(level(sweep), expected, "{targets} targets");
        }
    }

    #[test]
    fn one_port_is_no_scan_however_often() {
        assert_eq!(level((0..20_000).map(|_| packet(1, Some(22)))), 0);
    }

    #[test]
    fn after_an_hour_of_silence_a_scan_begins_anew_and_the_level_stays() {
        let mut source = Source::new(0.0);
        (0..15).for_each(|port| source.add(&packet(1, Some(port)), 1.0));
        assert_eq!(source.level, 2);
        (0..140).for_each(|port| source.add(&packet(1, Some(port)), 4000.0));
        assert_eq!((source.level, source.packets), (2, 155));
        (0..10).for_each(|port| source.add(&packet(1, Some(port)), 4001.0));
        assert_eq!(source.level, 3);
    }

    #[test]
    fn what_is_remembered_has_bounds() {
        let mut source = Source::new(0.0);
        for number in 0..70_000_u32 {
            source.add(&packet(number, Some((number % 65_536) as u16)), 1.0);
        }
        assert_eq!(
            (source.packets, source.ports.len(), source.targets().count()),
            (70_000, PORTS, 500)
        );
    }
}
