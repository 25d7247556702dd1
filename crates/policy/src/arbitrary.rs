//! Random policies for tests. Every one of them is valid.
//!
//! A property test or a fuzzer gives the numbers that make the choices. Fewer and smaller numbers give
//! a simpler policy, so that such a tool can shrink a failing case.

use core::net::{IpAddr, Ipv4Addr, Ipv6Addr};

use nfguard_netlink::{IpVersion, PerIpVersion};
use serde_json::{Map, Value, json};

/// The addresses, ports and interfaces that policies use, so that a test can send packets that match.
/// No list may be empty.
#[derive(Clone, Debug)]
pub struct Pool {
    /// Addresses of both IP versions. Policies use them and prefixes around them.
    pub addresses: Vec<IpAddr>,
    /// Ports. Policies use them and ranges that begin with them.
    pub ports: Vec<u16>,
    /// Interfaces, of at most 15 bytes each.
    pub interfaces: Vec<String>,
}

impl Default for Pool {
    fn default() -> Self {
        let v4 = [(192, 0, 2, 7), (198, 51, 100, 1), (203, 0, 113, 200), (10, 1, 2, 3)];
        let v4 = v4.map(|(a, b, c, d)| IpAddr::V4(Ipv4Addr::new(a, b, c, d)));
        let v6 = [(0x2001, 0xdb8, 7), (0xfd00, 0x20, 1), (0xfe80, 0, 0x99)];
        let v6 = v6.map(|(a, b, c)| IpAddr::V6(Ipv6Addr::new(a, b, 0, 0, 0, 0, 0, c)));
        Self {
            addresses: v4.into_iter().chain(v6).collect(),
            ports: vec![22, 53, 80, 123, 443, 8080, 65_535, 1],
            interfaces: ["eth0", "eth1", "wg0", "lo"].map(str::to_owned).to_vec(),
        }
    }
}

/// Returns a policy file that [`Policy::parse`](crate::Policy::parse) accepts, with or without warnings.
pub fn policy_text(choices: &[u16], pool: &Pool) -> String {
    let mut maker = Maker { choices: choices.iter(), pool, groups: Vec::new(), bridges: &BRIDGES };
    let policy = maker.policy();
    if maker.one_in(2) { format!("{policy:#}") } else { policy.to_string() }
}

struct Maker<'c> {
    choices: std::slice::Iter<'c, u16>,
    pool: &'c Pool,
    groups: Vec<NamedGroup>,
    /// Input interfaces for rules for `out`. Empty if the policy names its own bridges.
    bridges: &'static [&'static str],
}

/// A group, and the IP versions that it has addresses of.
#[derive(Clone)]
struct NamedGroup {
    name: String,
    has: PerIpVersion<bool>,
}

/// Bridges that belong to containers by default.
const BRIDGES: [&str; 3] = ["docker0", "br-*", "br-backend"];

impl Maker<'_> {
    /// Returns a number below `bound`; 0 after the last choice.
    fn below(&mut self, bound: usize) -> usize {
        self.choices.next().map_or(0, |choice| usize::from(*choice) % bound.max(1))
    }

    /// Returns true once in `times` choices, and false after the last choice.
    fn one_in(&mut self, times: usize) -> bool {
        self.below(times) == times - 1
    }

    fn pick<T: Clone>(&mut self, of: &[T]) -> T {
        let at = self.below(of.len());
        of[at].clone()
    }

    fn policy(&mut self) -> Value {
        let mut policy = Map::new();
        policy.insert("version".to_owned(), json!(1));
        if self.one_in(4) {
            policy.insert("$schema".to_owned(), json!("policy.schema.json"));
        }
        if self.one_in(3) {
            policy.insert("comment".to_owned(), json!("größer \"als\"\nnötig"));
        }
        if self.one_in(2) {
            let keys = ["in", "out", "forward"];
            policy.insert(
                "default".to_owned(),
                self.some(&keys, |it, _| json!(it.pick(&["drop", "accept", "reject"]))),
            );
        }
        if self.one_in(2) {
            policy.insert("groups".to_owned(), self.named_groups());
        }
        if self.one_in(3) {
            let keys = crate::policy::Builtin::ALL.map(crate::policy::Builtin::name);
            policy.insert("builtin".to_owned(), self.some(&keys, |it, _| json!(it.one_in(2))));
        }
        if self.one_in(2) {
            let mut log = self.log(&["to", "prefix", "rate"]);
            if self.one_in(2) {
                log["unmatched"] = self.list(0, 3, |it| json!(it.pick(&["in", "out", "forward"])));
            }
            policy.insert("log".to_owned(), log);
        }
        if self.one_in(3) {
            self.bridges = &[];
            policy.insert(
                "containers".to_owned(),
                self.some(&["interfaces", "egress"], |it, key| match key {
                    "egress" => json!(it.pick(&["policy", "open"])),
                    _ => it.list(0, 3, Self::interface),
                }),
            );
        }
        if self.one_in(3) {
            policy.insert("scan".to_owned(), self.scan());
            policy.insert("ban_outgoing".to_owned(), json!(self.one_in(2)));
        }
        let count = self.below(12);
        let rules: Vec<Value> = (0..count).map(|number| self.rule(number)).collect();
        if count > 0 {
            policy.insert("rules".to_owned(), rules.into());
        }
        policy.into()
    }

    /// Returns an object with some of the keys.
    fn some(&mut self, keys: &[&str], make: impl Fn(&mut Self, &str) -> Value) -> Value {
        let mut object = Map::new();
        for key in keys {
            if self.one_in(2) {
                object.insert((*key).to_owned(), make(self, key));
            }
        }
        object.into()
    }

    fn list(&mut self, least: usize, most: usize, make: impl Fn(&mut Self) -> Value) -> Value {
        let count = least + self.below(most - least + 1);
        (0..count).map(|_| make(self)).collect()
    }

    /// Returns a value, or a list of one or more.
    fn one_or_many(&mut self, make: impl Fn(&mut Self) -> Value) -> Value {
        if self.one_in(2) { self.list(1, 4, make) } else { make(self) }
    }

    fn named_groups(&mut self) -> Value {
        let mut groups = Map::new();
        for name in ["admins", "web-servers", "a", "x9_-y"] {
            if self.one_in(2) {
                let (v4, v6) = self.pick(&[(true, true), (true, false), (false, true)]);
                let has = PerIpVersion { v4, v6 };
                let mut nets = Vec::new();
                for version in IpVersion::ALL.into_iter().filter(|version| has[*version]) {
                    nets.extend((0..=self.below(3)).map(|_| self.net(version)).collect::<Vec<_>>());
                }
                groups.insert(name.to_owned(), nets.into());
                self.groups.push(NamedGroup { name: name.to_owned(), has });
            }
        }
        groups.into()
    }

    fn net(&mut self, version: IpVersion) -> Value {
        let addresses = self.pool.addresses.iter().copied();
        let own: Vec<IpAddr> = addresses.filter(|it| IpVersion::of(*it) == version).collect();
        if version == IpVersion::V4 {
            let bits = match (own.is_empty() || self.one_in(5), own.as_slice()) {
                (false, own) => match self.pick(own) {
                    IpAddr::V4(address) => address.to_bits(),
                    IpAddr::V6(_) => 0,
                },
                // Not 0, because a policy refuses it as a destination.
                (true, _) => ((self.word() << 16) | self.word()).max(1),
            };
            let length = self.pick(&[32_u32, 24, 16, 8, 31, 25, 1, 0]);
            let network =
                Ipv4Addr::from_bits(bits & u32::MAX.checked_shl(32 - length).unwrap_or(0));
            return if length == 32 {
                json!(network.to_string())
            } else {
                json!(format!("{network}/{length}"))
            };
        }
        let bits = match (own.is_empty() || self.one_in(5), own.as_slice()) {
            (false, own) => match self.pick(own) {
                IpAddr::V6(address) => address.to_bits(),
                IpAddr::V4(_) => 0,
            },
            // The top is not 0, because a policy refuses IPv4-mapped addresses.
            (true, _) => (u128::from(self.word() | 0x2000) << 112) | u128::from(self.word()),
        };
        let length = self.pick(&[128_u32, 64, 48, 32, 127, 10, 1, 0]);
        let network = Ipv6Addr::from_bits(bits & u128::MAX.checked_shl(128 - length).unwrap_or(0));
        if length == 128 {
            json!(network.to_string())
        } else {
            json!(format!("{network}/{length}"))
        }
    }

    fn word(&mut self) -> u32 {
        self.choices.next().copied().unwrap_or(0).into()
    }

    /// Returns `from` or `to` with at least one address of the IP version.
    fn peers(&mut self, version: IpVersion) -> Value {
        let fitting: Vec<String> = self
            .groups
            .iter()
            .filter(|group| group.has[version])
            .map(|group| group.name.clone())
            .collect();
        let first = match (self.one_in(2), fitting.is_empty()) {
            (true, false) => json!(self.pick(&fitting)),
            _ => self.net(version),
        };
        if !self.one_in(2) {
            return if self.one_in(6) { json!("any") } else { first };
        }
        let mut all = vec![first];
        for _ in 0..self.below(4) {
            let version = if self.one_in(2) { IpVersion::V4 } else { IpVersion::V6 };
            all.push(self.net(version));
        }
        all.into()
    }

    fn interface(&mut self) -> Value {
        let interfaces = &self.pool.interfaces;
        let name = self.pick(interfaces);
        let stem = name.trim_end_matches(|last: char| last.is_ascii_digit());
        if self.one_in(3) && !stem.is_empty() { json!(format!("{stem}*")) } else { json!(name) }
    }

    fn log(&mut self, keys: &[&str]) -> Value {
        self.some(keys, |it, key| match key {
            "to" if it.one_in(2) => json!({ "group": it.below(65_536) }),
            "to" => json!("kernel"),
            "prefix" => json!(it.pick(&["[NF] ", "", "größer: ", "a b c"])),
            _ if it.one_in(4) => json!("unlimited"),
            _ => it.some(&["packets", "per", "burst"], |it, key| match key {
                "per" => json!(it.pick(&["second", "minute", "hour", "day"])),
                _ => json!(1 + it.below(1000)),
            }),
        })
    }

    fn scan(&mut self) -> Value {
        let keys = ["ports", "ban_seconds", "known_seconds", "sources", "in_interface"];
        let mut scan = self.some(&keys, |it, key| match key {
            "ports" => json!(2 + it.below(7)),
            "ban_seconds" => json!(3600 + it.below(80_000)),
            "known_seconds" => json!(it.below(86_401)),
            "sources" => json!(1 + it.below(65_535)),
            _ => it.one_or_many(Self::interface),
        });
        scan["illegal_flags"] = json!(self.one_in(2));
        // The window outlasts a test, and a test makes fewer bans.
        (scan["seconds"], scan["bans_per_minute"]) = (json!(3600), json!(1000));
        scan
    }

    fn rule(&mut self, number: usize) -> Value {
        let mut rule = Map::new();
        let action = self.pick(&["allow", "deny", "reject", "limit"]);
        rule.insert("action".to_owned(), json!(action));
        if action == "limit" && self.one_in(2) {
            let keys = ["connections", "seconds", "v6_prefix", "over", "sources"];
            rule.insert(
                "limit".to_owned(),
                self.some(&keys, |it, key| match key {
                    "connections" => json!(2 + it.below(31)),
                    "seconds" => json!(1 + it.below(3600)),
                    "v6_prefix" => json!(it.pick(&[64, 128])),
                    "over" => json!(it.pick(&["reject", "drop"])),
                    _ => json!(1 + it.below(65_535)),
                }),
            );
        }
        let direction = self.pick(&["in", "out", "forward"]);
        if direction != "in" || self.one_in(3) {
            rule.insert("direction".to_owned(), json!(direction));
        }
        for (key, excluded) in [("in_interface", "out"), ("out_interface", "in")] {
            if direction != excluded && self.one_in(4) {
                rule.insert(key.to_owned(), self.one_or_many(Self::interface));
            }
        }
        if direction == "out" && !self.bridges.is_empty() && self.one_in(4) {
            let bridges = self.bridges;
            rule.insert("in_interface".to_owned(), self.one_or_many(|it| json!(it.pick(bridges))));
        }
        if self.one_in(4) {
            rule.insert("name".to_owned(), json!(format!("r{number}._-")));
        }
        if self.one_in(3) {
            rule.insert("comment".to_owned(), json!(format!("Nr. {number}: größer 日本")));
        }
        let version = if self.one_in(2) { IpVersion::V6 } else { IpVersion::V4 };
        for key in ["from", "to"] {
            if self.one_in(3) {
                rule.insert(key.to_owned(), self.peers(version));
            }
        }
        self.traffic(&mut rule, version);
        let is_of_container = direction == "out" && rule.contains_key("in_interface");
        if rule.contains_key("port") && ["allow", "limit"].contains(&action) {
            if self.one_in(6) {
                let helper = match rule.get("proto").and_then(Value::as_str) {
                    Some("tcp") => "ftp",
                    Some(_) => "tftp",
                    None => "sip",
                };
                rule.insert("helper".to_owned(), json!(helper));
            } else if action == "allow" && !is_of_container && self.one_in(6) {
                rule.insert("untracked".to_owned(), json!(true));
            }
        }
        if self.one_in(4) {
            let log = match self.below(3) {
                0 => json!(true),
                1 => json!(false),
                _ => self.log(&["to", "prefix", "rate"]),
            };
            rule.insert("log".to_owned(), log);
        }
        rule.into()
    }

    fn traffic(&mut self, rule: &mut Map<String, Value>, version: IpVersion) {
        let mut set = |key: &str, value: Value| rule.insert(key.to_owned(), value);
        match self.below(8) {
            0 => {}
            1 => {
                set("proto", json!("any"));
            }
            2 => {
                let names = ["esp", "ah", "gre", "ipv6", "igmp", "sctp"];
                set(
                    "proto",
                    self.one_or_many(|it| {
                        if it.one_in(3) {
                            json!(it.pick(&[4, 89, 255]))
                        } else {
                            json!(it.pick(&names))
                        }
                    }),
                );
            }
            3 => {
                let (protocol, names) = if version == IpVersion::V4 {
                    ("icmp", ["echo-request", "redirect", "time-exceeded", "timestamp-reply"])
                } else {
                    ("icmpv6", ["echo-request", "packet-too-big", "time-exceeded", "nd-redirect"])
                };
                set("proto", json!(protocol));
                if self.one_in(2) {
                    set(
                        "icmp_type",
                        self.one_or_many(|it| {
                            if it.one_in(3) { json!(it.below(256)) } else { json!(it.pick(&names)) }
                        }),
                    );
                }
            }
            4 => {
                set("proto", json!(["icmpv6", "icmp"]));
                if self.one_in(2) {
                    let names = ["echo-request", "echo-reply", "time-exceeded"];
                    set("icmp_type", self.one_or_many(|it| json!(it.pick(&names))));
                }
            }
            _ => {
                let both = json!(["tcp", "udp"]);
                let protocol =
                    self.pick(&[None, Some(json!("tcp")), Some(json!("udp")), Some(both)]);
                let services: &[&str] = match protocol.as_ref().and_then(Value::as_str) {
                    Some("tcp") => &["ssh", "http", "www", "domain"],
                    Some(_) => &["ntp", "domain", "mdns"],
                    None => &["domain", "dns", "https"],
                };
                if self.one_in(3) {
                    set("from_port", self.one_or_many(|it| it.port(&["domain"])));
                }
                set("port", self.one_or_many(|it| it.port(services)));
                if let Some(protocol) = protocol {
                    set("proto", protocol);
                }
            }
        }
    }

    fn port(&mut self, services: &[&str]) -> Value {
        let ports = &self.pool.ports;
        let port = self.pick(ports).max(1);
        match self.below(4) {
            0 | 1 => json!(port),
            2 => json!(format!(
                "{port}-{}",
                port.saturating_add(u16::try_from(self.below(200)).unwrap_or(0))
            )),
            _ => json!(self.pick(services)),
        }
    }
}
