//! The real psad, which bans through nfguard: the configuration of Debian and the packaged files.

use std::fs::{self, File};
use std::net::{IpAddr, SocketAddr};
use std::process::{Child, Command, Stdio};
use std::thread;
use std::time::{Duration, Instant};

use nfguard_lab::{Probe, Server, World};
use nfguard_tests::nft::nft;
use nfguard_tests::program::{TempFile, nfguard};
use nfguard_tests::wait::TIMEOUT;
use serde_json::Value;

const FILES: &str = concat!(env!("CARGO_MANIFEST_DIR"), "/../packaging/psad");
/// Starts ulogd and psad with folders of their own. Neither mail nor a line for the system log gets
/// out. The end of the first process ends all of them.
const STAGE: &str = r#"
set -e
for folder in /run /var/log /var/lib/psad; do mount -t tmpfs none $folder; done
mkdir /run/psad-etc /var/log/ulog
cp -r /etc/psad/. "$FILES"/* /run/psad-etc
mount --bind /run/psad-etc /etc/psad
echo "ALERTING_METHODS noemail;" > /etc/psad/quiet.conf
[ ! -e /dev/log ] || mount --bind /dev/null /dev/log
ulogd --configfile /etc/psad/ulogd.conf &
"#;

/// The packaged psad reads the log of the kernel from /var/log/messages. The kernel logs nothing in
/// a namespace, so ulogd fills that file here.
const FROM_THE_KERNELS_LOG: &str = r"
/etc/psad/nflog-lines > /var/log/messages &
psad --Override-config /etc/psad/nfguard.conf,/etc/psad/quiet.conf
wait
";

const FROM_NFLOG: &str = r"
psad --Override-config /etc/psad/nfguard.conf,/etc/psad/nflog.conf,/etc/psad/quiet.conf
wait
";

const POLICY: &str = r#"{
  "version": 1,
  "log": {
    "to": { "group": 5 }, "unmatched": ["in"],
    "rate": { "packets": 10, "per": "second", "burst": 300 }
  },
  "rules": [{ "action": "allow", "port": "https" }]
}"#;

/// For each line that comes from a command, psad looks whether the command still runs. So it needs
/// time for the lines of a scan.
const PAUSE: Duration = Duration::from_secs(10);

/// A scanner and a bystander of each IP version, and the address of the host.
const PEOPLE: [(&str, &str, IpAddr); 2] = [
    ("203.0.113.66", "203.0.113.67", World::HOST_V4),
    ("2001:db8:66::1", "2001:db8:67::1", World::HOST_V6),
];

struct Stage {
    world: World,
    folder: tempfile::TempDir,
    programs: Child,
    _web: [Server; 2],
}

impl Stage {
    fn new(reader: &str) -> Stage {
        let world = World::new().expect("run me with `cargo xtask netns-test`");
        let policy = TempFile::new("psad.json", POLICY);
        let loaded = nfguard(&world.host, &["load".as_ref(), policy.as_ref()]);
        assert_eq!(loaded.status, Some(0), "{loaded:?}");
        let serve = |at| world.host.serve_tcp(SocketAddr::new(at, 443)).expect("a server");
        let web = [World::HOST_V4, World::HOST_V6].map(serve);

        let folder = tempfile::tempdir().expect("a folder");
        let program = std::env::var_os("NFGUARD_BIN").expect("set by `cargo xtask netns-test`");
        std::os::unix::fs::symlink(program, folder.path().join("nfguard")).expect("a link");
        let path = std::env::var("PATH").expect("a path");
        let output = File::create(folder.path().join("output")).expect("a file");
        let mut command = Command::new("unshare");
        command.args(["--mount", "--pid", "--fork", "--kill-child", "--mount-proc", "sh", "-c"]);
        command.arg(STAGE.to_owned() + reader).env("FILES", FILES);
        command.env("PATH", format!("{}:{path}", folder.path().display()));
        command.env("NFGUARD_STATE_DIR", folder.path().join("state"));
        command.stdin(Stdio::null()).stdout(output.try_clone().expect("a file")).stderr(output);
        let programs = world.host.run(|| command.spawn().expect("unshare starts"));
        Stage { world, folder, programs, _web: web }
    }

    fn reaches(&self, from: &str, to: (IpAddr, u16), timeout: Duration) -> bool {
        let from: IpAddr = from.parse().expect("an address");
        let probe = Probe::tcp(&self.world.internet, SocketAddr::new(to.0, to.1));
        probe.from(from).timeout(timeout).run().passed()
    }

    /// Waits for the ban of a target and returns it. Calls `meanwhile` now and then until it is there.
    fn ban_of(&self, target: &str, meanwhile: impl Fn()) -> Value {
        let deadline = Instant::now() + TIMEOUT;
        let mut next = Instant::now();
        loop {
            if Instant::now() >= next {
                meanwhile();
                next = Instant::now() + PAUSE;
            }
            if let Some(ban) = self.bans().into_iter().find(|ban| ban["target"] == target) {
                return ban;
            }
            let output = fs::read_to_string(self.folder.path().join("output"));
            assert!(Instant::now() < deadline, "{target} is not banned: {output:?}");
            thread::sleep(Duration::from_millis(500));
        }
    }

    /// Ends the ban for good. psad may ban again while it reads older lines, so the unban is
    /// repeated.
    fn unban(&self, scanner: &str, host: IpAddr) {
        let deadline = Instant::now() + TIMEOUT;
        nfguard(&self.world.host, &["unban", scanner]);
        while !self.reaches(scanner, (host, 443), Duration::from_millis(500)) {
            assert!(Instant::now() < deadline, "{scanner} stays banned");
            nfguard(&self.world.host, &["unban", scanner]);
        }
    }

    fn bans(&self) -> Vec<Value> {
        let answer = nfguard(&self.world.host, &["bans", "--json"]);
        assert_eq!(answer.status, Some(0), "{answer:?}");
        let answer: Value = serde_json::from_str(&answer.stdout).expect("JSON");
        answer["bans"].as_array().expect("a list").clone()
    }

    /// Scans the hundred ports of `nmap -F`.
    fn scan(&self, from: &str, host: IpAddr) {
        let family = if host.is_ipv6() { "-6" } else { "-4" };
        let mut nmap = Command::new("nmap");
        nmap.args([family, "-n", "-Pn", "-sS", "-F", "--max-retries", "0", "-e", "eth0"]);
        nmap.args(["-S", from]).arg(host.to_string()).stdin(Stdio::null());
        let output = self.world.internet.run(|| nmap.output().expect("nmap is installed"));
        assert!(output.status.success(), "{output:?}");
    }
}

impl Drop for Stage {
    fn drop(&mut self) {
        let _ = self.programs.kill();
        let _ = self.programs.wait();
    }
}

fn assert_only_scanners_are_banned(reader: &str) {
    let stage = Stage::new(reader);
    for (scanner, bystander, host) in PEOPLE {
        let knock = |who| stage.reaches(who, (host, 443), TIMEOUT);
        assert!(knock(scanner) && knock(bystander));
        let target = if host.is_ipv6() { "2001:db8:66::/64" } else { scanner };

        let ban = stage.ban_of(target, || stage.scan(scanner, host));
        assert_eq!((&ban["source"], &ban["reason"]), (&"psad".into(), &"port scan".into()));
        let left = ban["expires_in_seconds"].as_f64().expect("an end");
        assert!(left <= 3600.0 && left > 3500.0, "{ban}");
        assert!(!stage.reaches(scanner, (host, 443), Duration::from_millis(500)));
        assert!(knock(bystander));

        // A scanner that continues after its ban is banned again.
        stage.unban(scanner, host);
        stage.ban_of(target, || {
            stage.reaches(scanner, (host, 9), Duration::from_millis(100));
        });
        assert!(!stage.reaches(scanner, (host, 443), Duration::from_millis(500)));
        assert!(knock(bystander));
    }
    assert_eq!(stage.bans().len(), 2);
    // psad adds no firewall rule.
    let tables = nft(&stage.world.host, "list tables\n");
    assert!(tables.lines().all(|table| table.starts_with("table inet nfguard")), "{tables}");
}

#[test]
fn only_scanners_in_the_kernel_log_are_banned() {
    assert_only_scanners_are_banned(FROM_THE_KERNELS_LOG);
}

#[test]
fn only_scanners_in_an_nflog_group_are_banned() {
    assert_only_scanners_are_banned(FROM_NFLOG);
}
