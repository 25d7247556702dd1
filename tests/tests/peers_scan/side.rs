//! A host under attack: with nfguard, or with UFW and PSAD.

use std::collections::BTreeMap;
use std::fs::{self, File};
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::thread;
use std::time::{Duration, Instant};

use nfguard_lab::{Netns, Probe, Server, World, veth};
use nfguard_netlink::Nft;
use nfguard_tests::nft::nft;
use nfguard_tests::program::nfguard;
use nfguard_tests::ufw::{WRITE_UP, ufw_with_rule};
use nfguard_tests::wait::TIMEOUT;
use serde_json::Value;
use tempfile::TempDir;

/// The lines for PSAD in `before.rules`. They use NFLOG, because LOG is silent in a namespace.
const LOG: &str = "-A INPUT -j NFLOG --nflog-group 5 --nflog-prefix \"[IPTABLES] \"";

/// Starts ulogd and psad with folders of their own. The end of the first process ends both.
const PSAD: &str = r#"
set -e
for folder in /run /var/log /var/lib/psad; do mount -t tmpfs none $folder; done
mkdir /run/psad-etc /var/log/ulog
cp -r /etc/psad/. "$FILES"/ulogd.conf "$FILES"/nflog-lines /run/psad-etc
mount --bind /run/psad-etc /etc/psad
cat > /etc/psad/write-up.conf <<END
ENABLE_AUTO_IDS Y;
AUTO_IDS_DANGER_LEVEL $LEVEL;
ALERTING_METHODS noemail;
ENABLE_WHOIS_LOOKUPS N;
ENABLE_DNS_LOOKUPS N;
ENABLE_FW_LOGGING_CHECK N;
END
[ ! -e /dev/log ] || mount --bind /dev/null /dev/log
ulogd --configfile /etc/psad/ulogd.conf &
/etc/psad/nflog-lines > /var/log/messages &
psad --Override-config /etc/psad/write-up.conf
wait
"#;

/// A source whose ban proves that PSAD reads the log.
const CANARY: &str = "203.0.113.250";

pub(crate) struct Side {
    pub(crate) world: World,
    psad: Option<Psad>,
    _servers: Vec<Server>,
}

struct Psad {
    programs: Child,
    folder: TempDir,
}

impl Side {
    pub(crate) fn nfguard(policy: &Path) -> Side {
        let side = Side::bare();
        let answer = nfguard(&side.world.host, &["load".as_ref(), policy.as_os_str()]);
        assert_eq!(answer.status, Some(0), "{answer:?}");
        side
    }

    /// Makes a host with UFW and PSAD, which blocks from this danger level on.
    pub(crate) fn psad(level: u8) -> Side {
        let mut side = Side::bare();
        ufw_with_rule(&side.world.host, LOG, &WRITE_UP);
        let folder = tempfile::tempdir().expect("a folder");
        let output = File::create(folder.path().join("output")).expect("a file");
        let mut command = Command::new("unshare");
        command.args(["--mount", "--pid", "--fork", "--kill-child", "--mount-proc", "sh", "-c"]);
        command.arg(PSAD).env("LEVEL", level.to_string());
        command.env("FILES", concat!(env!("CARGO_MANIFEST_DIR"), "/../packaging/psad"));
        command.stdin(Stdio::null()).stdout(output.try_clone().expect("a file")).stderr(output);
        let programs = side.world.host.run(|| command.spawn().expect("unshare starts"));
        side.psad = Some(Psad { programs, folder });
        side.await_psad();
        side
    }

    fn bare() -> Side {
        let world = World::new()
            .unwrap_or_else(|error| panic!("{error}\nrun me with `cargo xtask netns-test`"));
        let internet = &world.internet;
        for setting in ["ipv4/ip_forward", "ipv6/conf/all/forwarding", "ipv4/conf/all/accept_local"]
        {
            internet.sysctl(setting, "1").expect("can be set");
        }
        for setting in ["all", "default", "eth0"] {
            for netns in [internet, &world.host] {
                let setting = format!("ipv4/conf/{setting}/rp_filter");
                netns.sysctl(&setting, "0").expect("can be set");
            }
        }
        let all = [World::HOST_V4, World::HOST_V6].into_iter().flat_map(|to| [(to, 80), (to, 443)]);
        let servers = all.map(|to| world.host.serve_tcp(to).expect("serves")).collect();
        Side { world, psad: None, _servers: servers }
    }

    pub(crate) fn host(is_v6: bool) -> IpAddr {
        if is_v6 { World::HOST_V6 } else { World::HOST_V4 }
    }

    /// Makes a scanner in a network behind the internet. A scanner at the gateway would be exempt.
    pub(crate) fn scanner(&self, number: u8) -> Netns {
        let scanner = Netns::new().expect("another namespace");
        let internet = &self.world.internet;
        let link = format!("to{number}");
        veth(internet, &link, &scanner, "eth0").expect("a cable");
        let gateways = [
            IpAddr::from([198, 18, number, 1]),
            Ipv6Addr::from([0xfd66, 0, 0, u16::from(number), 0, 0, 0, 1]).into(),
        ];
        let any = [Ipv4Addr::UNSPECIFIED.into(), Ipv6Addr::UNSPECIFIED.into()];
        for (gateway, any) in gateways.into_iter().zip(any) {
            let bits = if gateway.is_ipv4() { 24 } else { 64 };
            let own = source(number, gateway.is_ipv6());
            internet.address(&link, gateway, bits).expect("an address");
            scanner.address("eth0", own, bits).expect("an address");
            scanner.route(any, 0, gateway).expect("a route");
        }
        scanner
    }

    /// Counts the packets of these sources from now on, after the hook where nfguard drops banned
    /// sources. Fragments are reassembled there, and the kernel of a scanner resets unknown
    /// connections.
    pub(crate) fn watch(&self, sources: &[IpAddr]) {
        let mut script = "table inet watch { chain from {
            type filter hook prerouting priority -299; tcp flags & rst == rst return;
            meta l4proto != { tcp, udp } return;\n"
            .to_owned();
        let mut counters = String::new();
        for source in sources {
            let family = if source.is_ipv4() { "ip" } else { "ip6" };
            script += &format!("{family} saddr {source} counter name \"{}\"\n", counter(*source));
            counters += &format!("add counter inet watch {}\n", counter(*source));
        }
        nft(&self.world.host, &format!("add table inet watch\n{counters}{script}}}\n}}\n"));
    }

    /// Returns the packets of each source that the firewall has seen, and whether the source is
    /// banned.
    pub(crate) fn seen(&self, sources: &[IpAddr]) -> BTreeMap<IpAddr, Seen> {
        let mut kernel = self.world.host.run(|| Nft::open().expect("netlink is there"));
        let counters = kernel.counters("watch").expect("reads");
        let banned = self.banned();
        let look = |source: &IpAddr| {
            let name = counter(*source);
            let found = counters.iter().find(|(counter, _)| counter.name == name);
            let packets = found.expect("is watched").1.packets;
            let after = banned.get(source).copied().unwrap_or(0);
            let (packets, is_banned) = (packets.saturating_sub(after), banned.contains_key(source));
            (*source, Seen { packets, is_banned, after })
        };
        sources.iter().map(look).collect()
    }

    /// Returns the banned sources, and the number of packets that the rule of PSAD has dropped.
    /// nfguard drops packets before the counters.
    pub(crate) fn banned(&self) -> BTreeMap<IpAddr, u64> {
        if self.psad.is_none() {
            let answer = nfguard(&self.world.host, &["bans", "--json"]);
            assert_eq!(answer.status, Some(0), "{answer:?}");
            let answer: Value = serde_json::from_str(&answer.stdout).expect("JSON");
            let bans = answer["bans"].as_array().expect("a list").iter();
            let target = |ban: &Value| ban["target"].as_str().expect("a target").to_owned();
            // A banned /64 stands for its scanner.
            let one = |target: String| match target.strip_suffix("::/64") {
                Some(network) => address(&format!("{network}::66")),
                None => address(&target),
            };
            return bans.map(|ban| (one(target(ban)), 0)).collect();
        }
        let mut banned = BTreeMap::new();
        for program in ["iptables", "ip6tables"] {
            let output = self.world.host.run(|| {
                let mut command = Command::new(program);
                command.args(["-w", "-nvxL", "PSAD_BLOCK_INPUT"]).output().expect("is installed")
            });
            // Without the chain of PSAD, no source is banned.
            for line in String::from_utf8_lossy(&output.stdout).lines() {
                let mut words = line.split_whitespace();
                let packets = words.next().and_then(|word| word.parse::<u64>().ok());
                let source = words.find_map(|word| word.parse().ok());
                banned.extend(source.zip(packets));
            }
        }
        banned
    }

    /// Reports whether the host still serves this source.
    pub(crate) fn serves(&self, from: &str, timeout: Duration) -> bool {
        let probe = Probe::tcp(&self.world.internet, (World::HOST_V4, 80)).from(address(from));
        probe.timeout(timeout).run().passed()
    }

    /// Waits until PSAD, which reads every five seconds, has read the log.
    pub(crate) fn let_psad_read(&self) {
        if self.psad.is_some() {
            thread::sleep(Duration::from_secs(12));
        }
    }

    fn await_psad(&self) {
        let psad = self.psad.as_ref().expect("it was started");
        let root = PathBuf::from(format!("/proc/{}/root", psad.programs.id()));
        let seen = root.join("var/log/psad").join(CANARY);
        let deadline = Instant::now() + TIMEOUT;
        while !seen.exists() {
            for port in 1..=20 {
                let probe = Probe::tcp(&self.world.internet, (World::HOST_V4, port));
                probe.from(address(CANARY)).timeout(Duration::from_millis(10)).run();
            }
            let output = fs::read_to_string(psad.folder.path().join("output"));
            assert!(Instant::now() < deadline, "psad does not see a scan: {output:?}");
            thread::sleep(Duration::from_millis(500));
        }
    }
}

impl Drop for Side {
    fn drop(&mut self) {
        if let Some(psad) = &mut self.psad {
            let _ = psad.programs.kill();
            let _ = psad.programs.wait();
        }
    }
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Seen {
    pub(crate) packets: u64,
    pub(crate) is_banned: bool,
    /// The packets that the rule of PSAD has dropped: none if the scan had ended before.
    pub(crate) after: u64,
}

pub(crate) fn source(number: u8, is_v6: bool) -> IpAddr {
    if is_v6 {
        Ipv6Addr::from([0xfd66, 0, 0, u16::from(number), 0, 0, 0, 0x66]).into()
    } else {
        [198, 18, number, 66].into()
    }
}

pub(crate) fn address(text: &str) -> IpAddr {
    text.parse().expect("an address")
}

fn counter(source: IpAddr) -> String {
    format!("of_{}", source.to_string().replace(['.', ':'], "_"))
}
