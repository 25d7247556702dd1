//! `nfguard scans`: its list, compared with the report of the scanner.

use std::fs;
use std::net::{IpAddr, SocketAddr};
use std::os::unix::fs::PermissionsExt as _;
use std::process::{Command, Stdio};
use std::time::Duration;

use nfguard_lab::{Probe, World};
use nfguard_tests::program::{Answer, TempFile, nfguard};
use nfguard_tests::reader::Reader;
use nix::sys::signal::Signal;
use serde_json::Value;

const POLICY: &str = r#"{
  "version": 1,
  "log": { "to": { "group": 5 }, "rate": "unlimited", "unmatched": ["in"] },
  "rules": [{ "name": "web", "action": "allow", "port": 443, "log": true }]
}"#;

/// The people of each IP version: the scanner, its target in the list, the address of the host, and
/// a visitor of the web with a wrong bookmark.
const PEOPLE: [(&str, &str, IpAddr, &str); 2] = [
    ("203.0.113.66", "203.0.113.66", World::HOST_V4, "203.0.113.67"),
    ("2001:db8:66::1", "2001:db8:66::/64", World::HOST_V6, "2001:db8:67::1"),
];

struct Stage {
    world: World,
    state: tempfile::TempDir,
}

impl Stage {
    fn nfguard(&self, arguments: &[&str]) -> Answer {
        let state = self.state.path().to_str().expect("plain letters");
        nfguard(&self.world.host, &[&["--state-dir", state], arguments].concat())
    }

    fn json(&self, arguments: &[&str]) -> Value {
        let answer = self.nfguard(&[&["scans", "--json"], arguments].concat());
        assert_eq!(answer.status, Some(0), "{answer:?}");
        serde_json::from_str(&answer.stdout).expect("JSON")
    }

    /// Runs `nfguard log --keep` during `meanwhile`.
    fn run_log_keep(&self, meanwhile: impl FnOnce()) {
        let state = self.state.path().to_str().expect("plain letters");
        let arguments = ["--keep", "--state-dir", state];
        // The output is not needed.
        let reader = Reader::printing_to(&self.world.host, &arguments, Stdio::null());
        let second = self.nfguard(&["log", "--keep", "--group", "9"]);
        assert_eq!(second.status, Some(2), "{second:?}");
        assert!(second.stderr.contains("another `nfguard log --keep`"), "{second:?}");
        meanwhile();
        // The kernel collects packets for a tenth of a second.
        std::thread::sleep(Duration::from_secs(1));
        reader.signal(Signal::SIGTERM);
        reader.end();
    }

    fn connects(&self, from: &str, to: IpAddr, port: u16, timeout: Duration) -> bool {
        let probe = Probe::tcp(&self.world.internet, SocketAddr::new(to, port)).timeout(timeout);
        probe.from(from.parse::<IpAddr>().expect("an address")).run().passed()
    }

    fn nmap(&self, from: &str, to: IpAddr, ports: &str) {
        let family = if to.is_ipv6() { "-6" } else { "-4" };
        let mut nmap = Command::new("nmap");
        nmap.args([family, "-n", "-Pn", "-sS", "-T5", "--max-retries", "0", "-e", "eth0"]);
        nmap.args(["-S", from, "-p", ports]).arg(to.to_string()).stdin(Stdio::null());
        let output = self.world.internet.run(|| nmap.output().expect("nmap is installed"));
        assert!(output.status.success(), "{output:?}");
    }
}

#[test]
fn nmap_is_listed_as_a_scan_and_a_visitor_is_not() {
    let world = World::new().expect("run me with `cargo xtask netns-test`");
    let stage = Stage { world, state: tempfile::tempdir().expect("a folder") };
    let policy = TempFile::new("policy.json", POLICY);
    let loaded = nfguard(&stage.world.host, &["load".as_ref(), policy.as_ref()]);
    assert_eq!(loaded.status, Some(0), "{loaded:?}");
    let serve = |at| stage.world.host.serve_tcp(SocketAddr::new(at, 443)).expect("a server");
    let _web = [World::HOST_V4, World::HOST_V6].map(serve);
    assert_eq!(stage.json(&[])["sources"], serde_json::json!([]));

    stage.run_log_keep(|| {
        for (scanner, _, host, visitor) in PEOPLE {
            stage.nmap(scanner, host, "1-100");
            assert!(stage.connects(visitor, host, 443, Duration::from_secs(30)));
            assert!(!stage.connects(visitor, host, 80, Duration::from_secs(1)));
        }
    });
    for (scanner, written, host, visitor) in PEOPLE {
        let source = &stage.json(&[scanner])["source"];
        assert_eq!(source["source"], written);
        assert_eq!((&source["level"], &source["ports"]), (&2.into(), &["1-100/tcp"][..].into()));
        assert_eq!(source["packets"], 100, "{source}");
        assert_eq!(source["tcp_flags"], serde_json::json!([["syn"]]));
        assert_eq!(source["tcp_options"], "maxseg 1460", "nmap sends no other");
        assert_eq!(source["targets"], serde_json::json!([host]));
        let visitor = &stage.json(&[visitor])["source"];
        assert_eq!((&visitor["level"], &visitor["ports"]), (&0.into(), &["80/tcp"][..].into()));
    }

    // Kept records add up, and the worst scanner comes first.
    stage.run_log_keep(|| stage.nmap(PEOPLE[1].0, World::HOST_V6, "101-200"));
    let listed = stage.nfguard(&["scans"]);
    let lines: Vec<Vec<&str>> =
        listed.stdout.lines().map(|line| line.split_whitespace().collect()).collect();
    let [head, first, second, end] = lines.as_slice() else { panic!("{listed:?}") };
    assert_eq!(head[..4], ["level", "source", "packets", "ports"]);
    assert_eq!(first[..4], ["3", "2001:db8:66::/64", "200", "200"]);
    assert_eq!(second[..4], ["2", "203.0.113.66", "100", "100"]);
    assert_eq!(end.join(" "), "2 scans, and 2 other sources");
    let one = stage.nfguard(&["scans", "2001:db8:66::5"]);
    assert!(one.stdout.contains("\nports      1-200/tcp\n"), "{one:?}");
    let unknown = stage.nfguard(&["scans", "192.0.2.1"]);
    assert_eq!((unknown.status, unknown.stdout.as_str()), (Some(1), "192.0.2.1 was not seen\n"));

    let file = stage.state.path().join("scans");
    assert_eq!(fs::metadata(file).expect("a file").permissions().mode() & 0o777, 0o600);
}
