//! A rule in nft's words, from its expressions.
//!
//! The kernel's rule is "load, mask, compare", nft's is `ip saddr 192.0.2.0/24`. So the printer walks
//! over the expressions, and keeps for each register the words of what was loaded.

use std::collections::BTreeMap;

use super::{comment_line, duration, hex, leading_zeros, quoted, value};
use crate::ip_version::IpVersion;
use crate::model::{CmpOp, CtKey, Expr, Header, LogTo, MetaKey, Reg, Reject, Verdict};
use crate::model::{KeyType, Rule};
use crate::symbols::{
    NFPROTO_IPV4, NFPROTO_IPV6, PROTOCOLS, ct_state, ct_status, fib_type, protocol, tcp_flag,
};

/// Returns a rule in one line, with its comment.
#[must_use]
pub fn rule(rule: &Rule) -> String {
    let mut printer = Printer::default();
    let next = rule.exprs.iter().skip(1).map(Some).chain([None]);
    for (expr, next) in rule.exprs.iter().zip(next) {
        printer.expr(expr, next);
    }
    printer.flush();
    printer.words.extend(rule.comment.as_deref().map(comment_line));
    printer.words.join(" ")
}

#[derive(Default)]
struct Printer {
    words: Vec<String>,
    registers: BTreeMap<Reg, Field>,
    /// Registers loaded since the last match. More than one make a concatenation.
    fresh: Vec<Reg>,
    /// The registers of the keys that were looked up, by the first of each. They hold the keys until one of
    /// them is loaded again.
    keys: BTreeMap<Reg, Vec<Reg>>,
    family: Option<u8>,
    protocol: Option<u8>,
    /// Protocol matches that nft does not print if the next match implies them.
    implied: Vec<(Layer, String)>,
    /// Set by `>=`, so that a following `<=` of the same register makes a range.
    range_of: Option<Reg>,
}

#[derive(Clone, Copy, PartialEq, Eq)]
enum Layer {
    Network,
    Transport,
}

/// The words of what a register holds.
#[derive(Clone)]
struct Field {
    words: String,
    kind: Kind,
    mask: Option<Vec<u8>>,
}

#[derive(Clone, Copy)]
enum Kind {
    Key(KeyType),
    Family,
    Protocol,
    Name,
    Number,
    /// Eight hexadecimal digits.
    Mark,
    /// A number in the machine's byte order.
    Index,
    TcpFlags,
    Words(&'static [(&'static str, u32)]),
}

impl Printer {
    fn expr(&mut self, expr: &Expr, next: Option<&Expr>) {
        let range_of = self.range_of.take();
        match expr {
            Expr::Meta { key, reg } => self.load(*reg, meta(*key)),
            Expr::Payload { header, offset, len, reg } => {
                let is_compared =
                    matches!(next, Some(Expr::Cmp { reg: of, op: CmpOp::Eq, .. }) if of == reg);
                let len = if is_compared { self.whole(*header, *offset, *len) } else { *len };
                let loaded = self.payload(*header, *offset, len);
                self.load(*reg, loaded);
            }
            Expr::Exthdr { kind: 43, offset: 2, len: 1, reg } => {
                self.implied.retain(|(layer, _)| *layer != Layer::Network);
                self.load(*reg, ("rt type".to_owned(), Kind::Number));
            }
            Expr::Exthdr { kind, offset, len, reg } => {
                self.load(*reg, (format!("exthdr {kind} @{offset},{len}"), Kind::Number));
            }
            Expr::Ct { key, reg } => self.load(*reg, ct(*key)),
            Expr::FibDaddrType { reg } => {
                self.load(*reg, ("fib daddr type".to_owned(), Kind::Words(&fib_type::WORDS)));
            }
            Expr::FibSaddrType { reg } => {
                self.load(*reg, ("fib saddr type".to_owned(), Kind::Words(&fib_type::WORDS)));
            }
            Expr::FibReturnPath { reg } => {
                self.load(*reg, ("fib saddr . mark . iif oif".to_owned(), Kind::Words(&[])));
            }
            Expr::Bitwise { reg, mask, .. } => {
                if let Some(loaded) = self.registers.get_mut(reg) {
                    loaded.mask = Some(mask.clone());
                }
            }
            Expr::Cmp { reg, op, data } => self.cmp(*reg, *op, data, range_of == Some(*reg)),
            Expr::Lookup { reg, set, inverted } => {
                let not = if *inverted { "!= " } else { "" };
                let left = self.left(*reg);
                self.word(format!("{left} {not}@{set}"));
            }
            Expr::Count => self.word("counter".to_owned()),
            Expr::Counter(name) => self.word(format!("counter name {}", quoted(name))),
            Expr::Helper(name) => self.word(format!("ct helper set {}", quoted(name))),
            Expr::Limit(limit) => {
                let per = match limit.seconds {
                    1 => "second".to_owned(),
                    60 => "minute".to_owned(),
                    3600 => "hour".to_owned(),
                    86_400 => "day".to_owned(),
                    604_800 => "week".to_owned(),
                    other => duration(std::time::Duration::from_secs(other)),
                };
                let (packets, burst) = (limit.packets, limit.burst);
                self.word(format!("limit rate {packets}/{per} burst {burst} packets"));
            }
            Expr::Dynset(dynset) => {
                let verb = if dynset.update { "update" } else { "add" };
                let left = self.left(dynset.reg);
                let timeout = dynset.timeout.map(|it| format!(" timeout {}", duration(it)));
                let timeout = timeout.unwrap_or_default();
                self.word(format!("{verb} @{} {{ {left}{timeout} }}", dynset.set));
            }
            Expr::Log(log) => {
                let to = match log.to {
                    LogTo::Kernel => "flags tcp options flags ip options".to_owned(),
                    LogTo::Group(group) => format!("group {group}"),
                };
                self.word(format!("log prefix {} {to}", quoted(&log.prefix)));
            }
            Expr::Reject(Reject::TcpReset) => self.word("reject with tcp reset".to_owned()),
            // After a match of the family, nft takes the bare word as that family's own code.
            Expr::Reject(Reject::PortUnreachable) if self.family.is_some() => {
                self.word("reject with icmpx port-unreachable".to_owned());
            }
            Expr::Reject(Reject::PortUnreachable) => self.word("reject".to_owned()),
            Expr::Verdict(verdict) => self.word(match verdict {
                Verdict::Accept => "accept".to_owned(),
                Verdict::Drop => "drop".to_owned(),
                Verdict::Return => "return".to_owned(),
                Verdict::Jump(chain) => format!("jump {chain}"),
                Verdict::Goto(chain) => format!("goto {chain}"),
            }),
            Expr::Unknown { name, .. } => self.word(format!("[{name}: unknown]")),
        }
    }

    fn load(&mut self, reg: Reg, (words, kind): (String, Kind)) {
        self.keys.retain(|_, parts| !parts.contains(&reg));
        self.registers.insert(reg, Field { words, kind, mask: None });
        self.fresh.push(reg);
    }

    /// Returns the length of the whole address if these bytes are its start. A prefix of whole bytes
    /// is compared without a mask.
    fn whole(&self, header: Header, offset: u32, len: u32) -> u32 {
        match (header, self.family, offset, len) {
            (Header::Network, Some(NFPROTO_IPV4), 12 | 16, 1..4) => 4,
            (Header::Network, Some(NFPROTO_IPV6), 8 | 24, 1..16) => 16,
            _ => len,
        }
    }

    /// Returns the name of a header's field, by its offset and the protocols that were matched
    /// before. The match of the field implies theirs.
    fn payload(&mut self, header: Header, offset: u32, len: u32) -> (String, Kind) {
        let address = |words: &str, kind| Some((words.to_owned(), Kind::Key(kind)));
        let known = match (header, self.family, self.protocol, offset, len) {
            (Header::Network, Some(NFPROTO_IPV4), _, 12, 4) => {
                address("ip saddr", KeyType::Ipv4Addr)
            }
            (Header::Network, Some(NFPROTO_IPV4), _, 16, 4) => {
                address("ip daddr", KeyType::Ipv4Addr)
            }
            (Header::Network, Some(NFPROTO_IPV6), _, 8, 16) => {
                address("ip6 saddr", KeyType::Ipv6Addr)
            }
            (Header::Network, Some(NFPROTO_IPV6), _, 24, 16) => {
                address("ip6 daddr", KeyType::Ipv6Addr)
            }
            (Header::Network, Some(NFPROTO_IPV6), _, 7, 1) => {
                Some(("ip6 hoplimit".to_owned(), Kind::Number))
            }
            (Header::Transport, _, None | Some(protocol::TCP | protocol::UDP), 0 | 2, 2) => {
                let name = match self.protocol {
                    Some(protocol::TCP) => "tcp",
                    Some(_) => "udp",
                    None => "th",
                };
                let field = if offset == 0 { "sport" } else { "dport" };
                address(&format!("{name} {field}"), KeyType::InetService)
            }
            (Header::Transport, _, Some(protocol::TCP), 13, 1) => {
                Some(("tcp flags".to_owned(), Kind::TcpFlags))
            }
            (Header::Transport, _, Some(protocol::ICMP), 0, 1) => {
                address("icmp type", KeyType::IcmpType)
            }
            (Header::Transport, _, Some(protocol::ICMPV6), 0, 1) => {
                address("icmpv6 type", KeyType::Icmpv6Type)
            }
            _ => None,
        };
        let Some(known) = known else {
            let base = match header {
                Header::Network => "nh",
                Header::Transport => "th",
                Header::Link => "ll",
            };
            let bits = |bytes: u32| u64::from(bytes) * 8;
            return (format!("@{base},{},{}", bits(offset), bits(len)), Kind::Number);
        };
        let is_icmp = matches!(known.1, Kind::Key(KeyType::IcmpType | KeyType::Icmpv6Type));
        self.implied.retain(|(layer, _)| match header {
            Header::Link => true,
            Header::Network => *layer != Layer::Network,
            Header::Transport => *layer != Layer::Transport && !is_icmp,
        });
        known
    }

    fn cmp(&mut self, reg: Reg, op: CmpOp, data: &[u8], closes_range: bool) {
        self.fresh.clear();
        let Some(loaded) = self.registers.get(&reg).cloned() else {
            return self.word(format!("[register {}] {}", reg.index(), hex(data)));
        };
        match (loaded.kind, op, data, &loaded.mask) {
            (Kind::Family, CmpOp::Eq, [family], None) => {
                self.family = Some(*family);
                self.imply(Layer::Network, family_words(*family));
            }
            (Kind::Protocol, CmpOp::Eq, [number], None) => {
                self.protocol = Some(*number);
                let words = format!("meta l4proto {}", protocol_word(*number));
                self.imply(Layer::Transport, words);
            }
            (Kind::Words(words), CmpOp::Neq, [0, 0, 0, 0], Some(mask)) => {
                let bits = mask.as_slice().try_into().map_or(0, u32::from_ne_bytes);
                let names: Vec<&str> = words
                    .iter()
                    .filter(|(_, bit)| bits & bit != 0)
                    .map(|(name, _)| *name)
                    .collect();
                self.word(format!("{} {}", loaded.words, names.join(",")));
            }
            (Kind::TcpFlags, _, [flags], Some(mask)) if matches!(op, CmpOp::Eq | CmpOp::Neq) => {
                let sign = if op == CmpOp::Eq { "==" } else { "!=" };
                let mask = mask.first().copied().unwrap_or_default();
                let (mask, flags) = (tcp_flags(mask), tcp_flags(*flags));
                self.word(format!("{} & {mask} {sign} {flags}", loaded.words));
            }
            (kind, CmpOp::Lte, _, None) if closes_range => {
                if let Some(first) = self.words.last_mut() {
                    *first = format!("{}-{}", first.replacen(">= ", "", 1), right(kind, data));
                }
            }
            (kind, ..) => {
                let op_words = match op {
                    CmpOp::Eq => "",
                    CmpOp::Neq => "!= ",
                    CmpOp::Lt => "< ",
                    CmpOp::Lte => "<= ",
                    CmpOp::Gt => "> ",
                    CmpOp::Gte => ">= ",
                };
                let mut data = data.to_vec();
                let prefix = match (&loaded.mask, kind) {
                    (Some(mask), _) => format!("/{}", prefix_of(mask)),
                    (None, Kind::Key(key @ (KeyType::Ipv4Addr | KeyType::Ipv6Addr)))
                        if data.len() < key.bytes() =>
                    {
                        let bits = data.len() * 8;
                        data.resize(key.bytes(), 0);
                        format!("/{bits}")
                    }
                    (None, _) => String::new(),
                };
                self.word(format!("{} {op_words}{}{prefix}", loaded.words, right(kind, &data)));
                self.range_of = (op == CmpOp::Gte).then_some(reg);
            }
        }
    }

    /// Returns the left side of a lookup: all fields of its key with their masks.
    fn left(&mut self, reg: Reg) -> String {
        let fresh: Vec<Reg> = self.fresh.iter().filter(|fresh| **fresh >= reg).copied().collect();
        if !fresh.is_empty() {
            self.keys.insert(reg, fresh);
        }
        match self.keys.get(&reg) {
            None => self.loaded(reg),
            Some(parts) => {
                parts.iter().map(|reg| self.loaded(*reg)).collect::<Vec<_>>().join(" . ")
            }
        }
    }

    fn loaded(&self, reg: Reg) -> String {
        let Some(loaded) = self.registers.get(&reg) else {
            return format!("[register {}]", reg.index());
        };
        match (&loaded.mask, loaded.kind) {
            (Some(mask), Kind::Key(kind)) => format!("{} & {}", loaded.words, value(kind, mask)),
            (Some(mask), _) => format!("{} & {}", loaded.words, hex(mask)),
            (None, _) => loaded.words.clone(),
        }
    }

    /// Keeps a match that the next one may imply. Only the last match of a layer can be implied.
    fn imply(&mut self, layer: Layer, words: String) {
        if self.implied.iter().any(|(implied, _)| *implied == layer) {
            self.flush();
        }
        self.implied.push((layer, words));
    }

    fn word(&mut self, word: String) {
        self.flush();
        self.fresh.clear();
        self.words.push(word);
    }

    fn flush(&mut self) {
        self.words.extend(self.implied.drain(..).map(|(_, words)| words));
    }
}

fn meta(key: MetaKey) -> (String, Kind) {
    let (words, kind) = match key {
        MetaKey::Nfproto => ("meta nfproto", Kind::Family),
        MetaKey::L4proto => ("meta l4proto", Kind::Protocol),
        MetaKey::Iifname => ("iifname", Kind::Name),
        MetaKey::Oifname => ("oifname", Kind::Name),
        MetaKey::Mark => ("meta mark", Kind::Mark),
        MetaKey::Iifkind => ("meta iifkind", Kind::Name),
        MetaKey::Oifkind => ("meta oifkind", Kind::Name),
        MetaKey::Iif => ("iif", Kind::Index),
        MetaKey::Skuid => ("meta skuid", Kind::Index),
    };
    (words.to_owned(), kind)
}

fn ct(key: CtKey) -> (String, Kind) {
    let (words, kind) = match key {
        CtKey::State => ("ct state", Kind::Words(&ct_state::WORDS)),
        CtKey::Status => ("ct status", Kind::Words(&ct_status::WORDS)),
        CtKey::OriginalProtoDst => ("ct original proto-dst", Kind::Key(KeyType::InetService)),
        CtKey::OriginalDaddr(IpVersion::V4) => {
            ("ct original ip daddr", Kind::Key(KeyType::Ipv4Addr))
        }
        CtKey::OriginalDaddr(IpVersion::V6) => {
            ("ct original ip6 daddr", Kind::Key(KeyType::Ipv6Addr))
        }
    };
    (words.to_owned(), kind)
}

fn right(kind: Kind, data: &[u8]) -> String {
    match (kind, data) {
        (Kind::Key(kind), _) => value(kind, data),
        (Kind::Family, [family]) => {
            family_words(*family).trim_start_matches("meta nfproto ").to_owned()
        }
        (Kind::Protocol, [number]) => protocol_word(*number),
        // A name without NULs at its end is the start of a name.
        (Kind::Name, _) => {
            let text = String::from_utf8_lossy(data);
            let name = text.trim_end_matches('\0');
            quoted(&if data.len() < 16 { format!("{name}*") } else { name.to_owned() })
        }
        (Kind::Number, [byte]) => byte.to_string(),
        (Kind::Index, _) => data.try_into().map_or(0, u32::from_ne_bytes).to_string(),
        (Kind::Mark, _) => format!("0x{:08x}", data.try_into().map_or(0, u32::from_ne_bytes)),
        (Kind::TcpFlags, [flags]) => tcp_flags(*flags),
        (Kind::Words(words), _) => {
            let number = data.try_into().map_or(0, u32::from_ne_bytes);
            let word = words.iter().find(|(_, value)| *value == number);
            word.map_or_else(|| number.to_string(), |(word, _)| (*word).to_owned())
        }
        _ => hex(data),
    }
}

fn tcp_flags(flags: u8) -> String {
    let set = tcp_flag::WORDS.iter().filter(|(_, flag)| flags & flag != 0);
    let names: Vec<&str> = set.clone().map(|(name, _)| *name).collect();
    let known = set.fold(0, |all, (_, flag)| all | flag);
    if names.is_empty() || known != flags {
        format!("0x{flags:x}")
    } else {
        format!("({})", names.join(" | "))
    }
}

fn family_words(family: u8) -> String {
    let name = match family {
        NFPROTO_IPV4 => "ipv4".to_owned(),
        NFPROTO_IPV6 => "ipv6".to_owned(),
        other => other.to_string(),
    };
    format!("meta nfproto {name}")
}

fn protocol_word(number: u8) -> String {
    let known = PROTOCOLS.iter().find(|(_, protocol)| *protocol == number);
    known.map_or_else(|| number.to_string(), |(name, _)| (*name).to_owned())
}

fn prefix_of(mask: &[u8]) -> usize {
    let inverted: Vec<u8> = mask.iter().map(|byte| !byte).collect();
    leading_zeros(&inverted)
}
