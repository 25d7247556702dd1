//! What stands in the packets' way.

use std::fmt::Write as _;
use std::io::Write as _;
use std::net::Ipv4Addr;
use std::process::{Command, Stdio};
use std::time::Duration;

use nfguard_ban::{Ban, Bans, NeverBan, Target};
use nfguard_benches::{Result, Ufw};
use nfguard_lab::Netns;

/// A firewall with bans in it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Firewall {
    /// None at all: what the stack itself costs.
    None,
    /// One hash set at prerouting, raw, and nothing else.
    HandWritten,
    /// The same with an interval set.
    HandWrittenInterval,
    /// The hash set, and a chain that lets in what is established.
    HandWrittenStateful,
    /// `nfguard ban`, with bans of so many prefix lengths.
    Nfguard(u8),
    /// The same with `policies/traefik.json` loaded.
    NfguardPolicy,
    /// UFW with the policy's nine rules, and an ipset ahead of it.
    UfwIpset,
    /// The write-up's: a chain in FORWARD with a rule for each ban, and as much in INPUT.
    Chain,
}

/// Where bans begin: they are for this address and those after it.
pub(crate) const FIRST: Ipv4Addr = Ipv4Addr::new(20, 0, 0, 0);

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
            Firewall::UfwIpset => "UFW with ipset".to_owned(),
            Firewall::Chain => "iptables chain, a rule a ban".to_owned(),
        }
    }

    /// Puts it into the namespace with so many bans.
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
            Firewall::NfguardPolicy => {
                let nfguard_bin =
                    std::env::var_os("NFGUARD_BIN").ok_or("NFGUARD_BIN is not set")?;
                let nfguard_bin = nfguard_bin.to_str().ok_or("NFGUARD_BIN is no text")?;
                let load = ["NFGUARD_STATE_DIR=", nfguard_bin, "load", "policies/traefik.json"];
                feed(netns, "env", &load, "")?;
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
            Firewall::Chain => {
                let mut rules = String::from("*filter\n:bans - [0:0]\n");
                for hook in ["INPUT", "FORWARD"] {
                    writeln!(rules, "-A {hook} -p udp -m multiport --dports 80,443 -j bans")?;
                }
                for address in addresses(bans) {
                    writeln!(rules, "-A bans -s {address}/32 -j DROP")?;
                }
                feed(netns, "iptables-nft-restore", &[], &(rules + "COMMIT\n"))
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

/// The lengths besides /32 stand ahead of it, so that each packet is looked up in all of them.
fn nfguard(netns: &Netns, bans: u32, lengths: u8) -> Result<()> {
    netns.run(|| {
        let mut kernel = Bans::open(NeverBan::default())?;
        let never = kernel.never().clone();
        let ban = |target: Target| {
            let lasts = Some(Duration::from_secs(24 * 3600));
            let target = never.admit(target)?;
            Ok::<_, nfguard_ban::Refused>(Ban {
                target,
                port: None,
                lasts,
                source: "bench",
                reason: "",
                since: None,
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

/// Runs a program in the namespace with this on its standard input.
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
