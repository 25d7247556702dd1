//! Docker and other firewalls as the operator sees them. Their own programs load their rules.

mod examination;
mod networks;
mod ports;
mod rules;

use std::io::PipeWriter;
use std::net::SocketAddr;
use std::os::fd::OwnedFd;
use std::os::unix::process::CommandExt as _;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::time::Duration;

use nfguard_lab::{Netns, Probe, Server, World};
use nfguard_tests::nft::nft;
use nfguard_tests::program::{TempFile, feed, nfguard};
use serde_json::Value;

const NOWHERE: &str = "/nowhere";

/// The firewall backend of Docker.
#[derive(Clone, Copy, Debug, PartialEq)]
enum Backend {
    IptablesNft,
    IptablesLegacy,
    Nftables,
}

const BACKENDS: [Backend; 3] = [Backend::IptablesNft, Backend::IptablesLegacy, Backend::Nftables];

impl Backend {
    fn word(self) -> &'static str {
        match self {
            Backend::IptablesNft => "iptables-nft",
            Backend::IptablesLegacy => "iptables-legacy",
            Backend::Nftables => "nftables",
        }
    }

    /// Loads the rules that Docker would load.
    fn load(self, netns: &Netns) {
        match self {
            Backend::IptablesNft => {
                iptables(netns, "iptables-nft-restore", rules::IPTABLES_V4);
                iptables(netns, "ip6tables-nft-restore", rules::IPTABLES_V6);
            }
            Backend::IptablesLegacy => {
                iptables(netns, "iptables-legacy-restore", rules::IPTABLES_V4);
                iptables(netns, "ip6tables-legacy-restore", rules::IPTABLES_V6);
            }
            Backend::Nftables => {
                for [family, subnet, loopback, container, to] in [
                    ["ip", "172.17.0.0/16", "127.0.0.0/8", "172.17.0.2", "172.17.0.2"],
                    ["ip6", "2001:db8:d0c::/64", "::1", "2001:db8:d0c::2", "[2001:db8:d0c::2]"],
                ] {
                    let text = rules::NFTABLES
                        .replace("FAMILY", family)
                        .replace("SUBNET", subnet)
                        .replace("LOOPBACK", loopback)
                        .replace("CONTAINER", container)
                        .replace("TO:", &format!("{to}:"));
                    nft(netns, &text);
                }
                nft(
                    netns,
                    "add rule ip docker-bridges nat-prerouting-and-output ip daddr 127.0.0.1 \
                     iifname != \"docker0\" tcp dport 8088 counter dnat to 172.17.0.2:8080\n",
                );
            }
        }
    }

    /// Adds a masquerade rule to the postrouting chain of Docker, which hides the clients.
    fn masquerade_all(self, netns: &Netns) {
        let rule = "*nat\n-A POSTROUTING -o docker0 -j MASQUERADE\nCOMMIT\n";
        match self {
            Backend::IptablesNft => iptables(netns, "iptables-nft-restore", rule),
            Backend::IptablesLegacy => iptables(netns, "iptables-legacy-restore", rule),
            Backend::Nftables => {
                let rule =
                    "add rule ip docker-bridges nat-POSTROUTING oifname docker0 masquerade\n";
                drop(nft(netns, rule));
            }
        }
    }
}

/// Adds rules with a program of iptables.
fn iptables(netns: &Netns, program: &str, rules: &str) {
    let lock = TempFile::new("xtables.lock", "");
    let mut command = Command::new(program);
    command.arg("--noflush").env("XTABLES_LOCKFILE", lock.path());
    let answer = feed(netns, command, rules.as_bytes());
    assert_eq!(answer.status, Some(0), "{program}: {answer:?}\n{rules}");
}

/// Loads a policy with these rules.
fn load(netns: &Netns, rules: &str) {
    let policy = TempFile::new("view.json", &format!(r#"{{ "version": 1, "rules": [{rules}] }}"#));
    let answer = nfguard(netns, &["load".as_ref(), policy.as_ref()]);
    assert_eq!(answer.status, Some(0), "{answer:?}");
}

/// Starts the servers of the container.
fn serve(world: &World) -> Vec<Server> {
    let container = world.container.as_ref().expect("made with one");
    let mut servers = Vec::new();
    for address in [World::CONTAINER_V4, World::CONTAINER_V6] {
        for port in [8080, 9000] {
            let server = container.serve_tcp(SocketAddr::new(address, port));
            servers.push(server.expect("a server"));
        }
    }
    servers
}

/// Reports whether a client on the internet reaches a port of the host.
fn reaches(world: &World, port: u16, is_v6: bool, timeout: Duration) -> bool {
    let (to, from) =
        if is_v6 { (World::HOST_V6, "2001:db8:7::7") } else { (World::HOST_V4, "203.0.113.7") };
    let from: std::net::IpAddr = from.parse().expect("an address");
    let probe = Probe::tcp(&world.internet, SocketAddr::new(to, port)).from(from);
    probe.timeout(timeout).connect().is_ok()
}

/// A process that listens like the relay of Docker, under the same name.
struct Relay {
    process: Child,
    /// The process ends when this pipe closes.
    _pipe: PipeWriter,
}

impl Relay {
    fn listen(netns: &Netns, at: &str, to: &str) -> Relay {
        let (address, port) = to.rsplit_once(':').expect("an address and a port");
        netns.run(|| {
            let listener = std::net::TcpListener::bind(at).expect("a listener");
            let (reader, pipe) = std::io::pipe().expect("a pipe");
            let mut command = Command::new("sh");
            command.arg0("docker-proxy").args(["-c", "read line <&1", "docker-proxy"]);
            command.args(["-container-ip", address, "-container-port", port]);
            command.stdin(OwnedFd::from(listener)).stdout(reader).stderr(Stdio::null());
            Relay { process: command.spawn().expect("a shell"), _pipe: pipe }
        })
    }
}

impl Drop for Relay {
    fn drop(&mut self) {
        // The process has ended if this fails.
        let _ = self.process.kill();
        let _ = self.process.wait();
    }
}

/// Runs a verb with `--json`, asserts its exit status, and returns the answer.
#[track_caller]
fn json(netns: &Netns, arguments: &[&str], status: i32) -> Value {
    let answer = nfguard(netns, &[arguments, &["--json"]].concat());
    assert_eq!(answer.status, Some(status), "{arguments:?}: {answer:#?}");
    let value: Value = serde_json::from_str(&answer.stdout).expect("JSON");
    assert_eq!(value["schema"], 1, "{arguments:?}");
    value
}

/// Returns a folder, which is removed on drop, and the path of a socket in it.
fn socket_path() -> (tempfile::TempDir, PathBuf) {
    let folder = tempfile::tempdir().expect("a folder");
    let path = Path::new(folder.path()).join("docker.sock");
    (folder, path)
}
