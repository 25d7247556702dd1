//! The scans: commands and expected bans.

use crate::side::{Side, source};

#[derive(Clone, Copy)]
pub(crate) struct Case {
    /// The command line.
    pub(crate) name: &'static str,
    pub(crate) note: &'static str,
    pub(crate) ports: &'static str,
    pub(crate) banned: Banned,
}

/// The expected ban.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Banned {
    /// At this packet, before nmap gets any answer.
    At(u64),
    /// At the sixth closed port. The scan may have tried open ports before.
    AtSixthClosed,
    Never,
}

use Banned::{At, AtSixthClosed, Never};

const fn case(name: &'static str, banned: Banned) -> Case {
    Case { name, note: "", ports: "1-200,443", banned }
}

/// The condition of cases whose source has sent data before. nfguard knows such a source.
pub(crate) const AFTER_A_VISIT: &str = "after a visit to port 80";

/// The cases. With `-r`, nmap tries ports in their order, so the sixth port is known.
pub(crate) const CASES: [Case; 23] = [
    case("nmap -sS -r", At(6)),
    Case { note: "popular ports first", ..case("nmap -sS", AtSixthClosed) },
    case("nmap -sT -r", At(6)),
    case("nmap -sU -r", At(6)),
    case("nmap -sF -r", At(1)),
    case("nmap -sX -r", At(1)),
    case("nmap -sN -r", At(1)),
    case("nmap -sA -r", At(6)),
    case("nmap -sM -r", Never),
    Case { ports: "1-6", note: "15 s for each port", ..case("nmap -sS -r -T1", At(6)) },
    Case { ports: "1-12", note: "twice each", ..case("nmap -sS -r -T2", At(11)) },
    case("nmap -sS -r -T4", At(6)),
    case("nmap -sS -r -T5", At(6)),
    case("nmap -6 -sS -r", At(6)),
    case("nmap -sS -r -f", At(6)),
    case("nmap -sS -r -g 53", At(6)),
    case("nmap -sU -r -g 53", At(6)),
    Case { ports: "40000-40100", note: "as late answers", ..case("nmap -sU -r -g 53", Never) },
    Case { note: AFTER_A_VISIT, ..case("nmap -sS -r", Never) },
    Case { note: "four more senders", ..case("nmap -sS -r -D", At(6)) },
    Case { ports: "75-84,443", note: "counted: the zombie", ..case("nmap -r -sI", AtSixthClosed) },
    Case { ports: "++1", note: "1,000 ports", ..case("hping3 -S -i u100", At(6)) },
    Case { ports: "443", note: "1,000 times port 443", ..case("hping3 -S -i u100", Never) },
];

/// Floods with a forged source for each packet. The first flood would ban each source at once, the
/// second bans none.
pub(crate) const FORGED: [&str; 2] =
    ["hping3 -F --rand-source -i u100", "hping3 -S --rand-source -i u100"];
/// The number of packets of hping3.
pub(crate) const MANY: usize = 1000;

/// The forged decoys. The last one is the gateway of the host.
pub(crate) const DECOYS: [&str; 5] =
    ["198.18.200.1", "198.18.200.2", "198.18.200.3", "198.18.200.4", "198.51.100.1"];

impl Case {
    pub(crate) fn is_v6(&self) -> bool {
        self.name.contains("-6")
    }

    pub(crate) fn is_nmap(&self) -> bool {
        self.name.starts_with("nmap")
    }

    /// Reports whether the scan uses a zombie.
    pub(crate) fn is_idle(&self) -> bool {
        self.name.ends_with("-sI")
    }

    /// Returns the command line. It has few retries, so that a scan of silent ports ends.
    pub(crate) fn command(&self, zombie: u8) -> String {
        let Case { name, ports, .. } = self;
        if !self.is_nmap() {
            return flood(name, ports);
        }
        let senders = match name.rsplit_once(' ') {
            Some((_, "-D")) => DECOYS.join(","),
            Some((_, "-sI")) => source(zombie, false).to_string(),
            _ => String::new(),
        };
        let retries = if name.ends_with("-T1") { 0 } else { 1 };
        let host = Side::host(self.is_v6());
        format!(
            "{name} {senders} -p {ports} -n -Pn --max-retries {retries} --host-timeout 170s -oG - {host}"
        )
    }
}

pub(crate) fn flood(name: &str, ports: &str) -> String {
    format!("{name} -p {ports} -c {MANY} -n -q {}", Side::host(false))
}
