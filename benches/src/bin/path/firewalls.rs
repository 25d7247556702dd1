//! The firewalls on the path of the packets.

use std::fmt::Write as _;
use std::io::Write as _;
use std::net::Ipv4Addr;
use std::process::{Command, Stdio};
use std::time::Duration;

use nfguard_ban::{Ban, Bans, NeverBan, Target};
use nfguard_benches::{Result, Ufw};
use nfguard_lab::Netns;

/// A firewall with bans.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Firewall {
    /// No firewall: the cost of the stack.
    None,
    /// One hash set at prerouting, priority raw, and nothing else.
    HandWritten,
    /// The same with an interval set.
    HandWrittenInterval,
    /// The hash set, and a chain that accepts established connections.
    HandWrittenStateful,
    /// `nfguard ban`, with this number of prefix lengths.
    Nfguard(u8),
    /// The same with `policies/traefik.json` loaded.
    NfguardPolicy,
    /// The same without `scan`.
    NfguardNoScan,
    /// UFW with the nine rules of the policy, and an ipset before it.
    UfwIpset,
    /// UFW with the nine rules of the policy, and the rules of ufw-docker in the DOCKER-USER chain.
    UfwDocker,
    /// The chain of the write-up: a rule for each ban, in FORWARD and in INPUT.
    Chain,
}

/// The first banned address.
pub(crate) const FIRST: Ipv4Addr = Ipv4Addr::new(20, 0, 0, 0);

/// The published port, and the port of the container.
pub(crate) const PUBLISHED: u16 = 443;
pub(crate) const INSIDE: u16 = 8443;

/// `ufw route allow` of the port of the container, and the rules in the README of ufw-docker.
/// Answers and private sources pass. New connections to private addresses do not.
const UFW_DOCKER: &str = "*filter
:DOCKER-USER - [0:0]
:refused - [0:0]
-A ufw-user-forward -p udp --dport 8443 -j ACCEPT
-A DOCKER-USER -j ufw-user-forward
-A DOCKER-USER -m conntrack --ctstate RELATED,ESTABLISHED -j RETURN
-A DOCKER-USER -m conntrack --ctstate INVALID -j DROP
-A DOCKER-USER -i docker0 -o docker0 -j ACCEPT
-A DOCKER-USER -s 10.0.0.0/8 -j RETURN
-A DOCKER-USER -s 172.16.0.0/12 -j RETURN
-A DOCKER-USER -s 192.168.0.0/16 -j RETURN
-A DOCKER-USER -d 10.0.0.0/8 -m conntrack --ctstate NEW -j refused
-A DOCKER-USER -d 172.16.0.0/12 -m conntrack --ctstate NEW -j refused
-A DOCKER-USER -d 192.168.0.0/16 -m conntrack --ctstate NEW -j refused
-A DOCKER-USER -j RETURN
-A refused -j DROP
COMMIT
";

/// The rules of Docker 28 for one published UDP port.
const DOCKER: &str = "*nat
:DOCKER - [0:0]
-A PREROUTING -m addrtype --dst-type LOCAL -j DOCKER
-A POSTROUTING -s 172.17.0.0/16 ! -o docker0 -j MASQUERADE
-A DOCKER -i docker0 -j RETURN
-A DOCKER ! -i docker0 -p udp --dport 443 -j DNAT --to-destination 172.17.0.2:8443
COMMIT
*filter
:DOCKER - [0:0]
:DOCKER-USER - [0:0]
:DOCKER-FORWARD - [0:0]
-A FORWARD -j DOCKER-USER
-A FORWARD -j DOCKER-FORWARD
-A DOCKER -d 172.17.0.2/32 ! -i docker0 -o docker0 -p udp --dport 8443 -j ACCEPT
-A DOCKER ! -i docker0 -o docker0 -j DROP
-A DOCKER-FORWARD -o docker0 -m conntrack --ctstate RELATED,ESTABLISHED -j ACCEPT
-A DOCKER-FORWARD -o docker0 -j DOCKER
-A DOCKER-FORWARD -i docker0 -j ACCEPT
COMMIT
";

/// Loads the rules of Docker. The firewall comes later, so that it can insert rules before them.
pub(crate) fn docker(netns: &Netns) -> Result<()> {
    feed(netns, "iptables-nft-restore", &[], DOCKER)
}

/// Returns `policies/traefik.json` with HTTP/3.
fn policy(looks_for_scans: bool) -> Result<String> {
    let text = std::fs::read_to_string("policies/traefik.json")?;
    let mut policy: serde_json::Value = serde_json::from_str(&text)?;
    let rule =
        serde_json::json!({ "name": "http3", "action": "allow", "proto": "udp", "port": 443 });
    policy["rules"].as_array_mut().ok_or("the policy has no rules")?.push(rule);
    if !looks_for_scans {
        let policy = policy.as_object_mut().ok_or("the policy is no object")?;
        policy.remove("scan").ok_or("the policy does not look for scans")?;
    }
    Ok(policy.to_string())
}

impl Firewall {
    pub(crate) fn name(self) -> String {
        match self {
            Firewall::None => "no firewall".to_owned(),
            Firewall::HandWritten => "nft by hand: one hash set".to_owned(),
            Firewall::HandWrittenInterval => "nft by hand: one interval set".to_owned(),
            Firewall::HandWrittenStateful => "nft by hand: hash set, ct established".to_owned(),
            Firewall::Nfguard(1) => "nfguard".to_owned(),
            Firewall::Nfguard(lengths) => format!("nfguard, {lengths} prefix lengths"),
            Firewall::NfguardPolicy => "nfguard with policies/traefik.json".to_owned(),
            Firewall::NfguardNoScan => "the same without its `scan`".to_owned(),
            Firewall::UfwIpset => "UFW with ipset".to_owned(),
            Firewall::UfwDocker => "UFW with ufw-docker's rules".to_owned(),
            Firewall::Chain => "iptables chain, a rule a ban".to_owned(),
        }
    }

    /// Installs the firewall in a namespace with this number of bans.
    pub(crate) fn install(self, netns: &Netns, bans: u32, ufw: &Ufw) -> Result<()> {
        match self {
            Firewall::None => Ok(()),
            Firewall::HandWritten => feed(netns, "nft", &["-f", "-"], &hash_set(bans)),
            Firewall::HandWrittenInterval => {
                let text = hash_set(bans).replace("flags timeout", "flags interval");
                feed(netns, "nft", &["-f", "-"], &text)
            }
            Firewall::HandWrittenStateful => {
                let text = hash_set(bans)
                    + "table inet rules { chain in { type filter hook input priority 0; \
                       policy drop; ct state established,related accept; }; }\n";
                feed(netns, "nft", &["-f", "-"], &text)
            }
            Firewall::Nfguard(lengths) => nfguard(netns, bans, lengths),
            Firewall::NfguardPolicy | Firewall::NfguardNoScan => {
                let nfguard_bin =
                    std::env::var_os("NFGUARD_BIN").ok_or("NFGUARD_BIN is not set")?;
                let nfguard_bin = nfguard_bin.to_str().ok_or("NFGUARD_BIN is no text")?;
                let load = ["NFGUARD_STATE_DIR=", nfguard_bin, "load", "-"];
                feed(netns, "env", &load, &policy(self == Firewall::NfguardPolicy)?)?;
                nfguard(netns, bans, 1)
            }
            Firewall::UfwIpset => {
                ufw.enable(netns)?;
                let mut list = String::from(
                    "create bans hash:ip family inet hashsize 65536 maxelem 2000000\n",
                );
                for address in addresses(bans) {
                    writeln!(list, "add bans {address}")?;
                }
                feed(netns, "ipset", &["restore"], &list)?;
                let rule = ["-I", "INPUT", "-m", "set", "--match-set", "bans", "src", "-j", "DROP"];
                feed(netns, "iptables-nft", &rule, "")
            }
            Firewall::UfwDocker => {
                ufw.enable(netns)?;
                feed(netns, "iptables-nft-restore", &["--noflush"], UFW_DOCKER)
            }
            Firewall::Chain => {
                let mut rules = String::from("*filter\n:bans - [0:0]\n");
                // The rule needs the port of the container, or its packets would be dropped.
                let ports = format!("80,443,{INSIDE}");
                for hook in ["INPUT", "FORWARD"] {
                    writeln!(rules, "-I {hook} -p udp -m multiport --dports {ports} -j bans")?;
                }
                for address in addresses(bans) {
                    writeln!(rules, "-A bans -s {address}/32 -j DROP")?;
                }
                feed(netns, "iptables-nft-restore", &["--noflush"], &(rules + "COMMIT\n"))
            }
        }
    }
}

fn addresses(count: u32) -> impl Iterator<Item = Ipv4Addr> {
    (0..count).map(|at| Ipv4Addr::from_bits(FIRST.to_bits() + at))
}

fn hash_set(bans: u32) -> String {
    let mut text = String::from(
        "table inet bans {\n set b { type ipv4_addr; flags timeout; size 4194303; }\n \
         chain c { type filter hook prerouting priority raw; ip saddr @b drop; }\n}\n",
    );
    let all: Vec<Ipv4Addr> = addresses(bans).collect();
    for part in all.chunks(10_000) {
        let part: Vec<String> = part.iter().map(Ipv4Addr::to_string).collect();
        text += &format!("add element inet bans b {{ {} }}\n", part.join(", "));
    }
    text
}

/// Adds nfguard with bans. The lengths besides /32 come before it, so that each packet is looked up
/// in all.
fn nfguard(netns: &Netns, bans: u32, lengths: u8) -> Result<()> {
    netns.run(|| {
        let mut kernel = Bans::open(NeverBan::default())?;
        let never = kernel.never_ban().clone();
        let ban = |target: Target| {
            let lasts = Some(Duration::from_secs(24 * 3600));
            let target = never.admit(target)?;
            Ok::<_, nfguard_ban::Refused>(Ban {
                target,
                port: None,
                duration: lasts,
                source: "bench",
                reason: "",
                created_at: None,
            })
        };
        for bits in 1..lengths {
            kernel.ban(&ban(format!("192.0.2.0/{}", 32 - bits).parse()?)?)?;
        }
        let all = addresses(bans).map(|address| ban(Target::source(address.into(), 64)));
        kernel.ban_all(all.collect::<std::result::Result<Vec<_>, _>>()?)?;
        Ok(())
    })
}

/// Runs a program in the namespace with this text on its standard input.
pub(crate) fn feed(netns: &Netns, program: &str, arguments: &[&str], text: &str) -> Result<()> {
    netns.run(|| {
        let mut command = Command::new(program);
        command.args(arguments).stdin(Stdio::piped()).stdout(Stdio::null()).stderr(Stdio::piped());
        let mut child = command.spawn().map_err(|error| format!("{program}: {error}"))?;
        if let Some(mut input) = child.stdin.take() {
            input.write_all(text.as_bytes())?;
        }
        let output = child.wait_with_output()?;
        match output.status.success() {
            true => Ok(()),
            false => Err(format!("{program}: {}", String::from_utf8_lossy(&output.stderr)).into()),
        }
    })
}
