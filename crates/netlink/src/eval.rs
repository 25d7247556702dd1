//! Evaluates a table for a packet without a kernel.
//!
//! It runs the expressions that the kernel would run, on the bytes of the packet's headers and on
//! facts that the kernel would know. A [`Memory`] keeps the elements that rules add to sets, so a
//! sequence of packets can be evaluated.

mod port_index;

use std::collections::HashMap;
use std::net::IpAddr;
use std::time::Duration;

use crate::ip_version::IpVersion;
use crate::model::{Base, Chain, ChainPolicy, Hook, Key, Rule, Table};
use crate::model::{CmpOp, CtKey, Dynset, Expr, Header, MetaKey, Reject, Verdict};
use crate::symbols::{NFPROTO_IPV4, NFPROTO_IPV6, ct_state, ct_status, fib_type, tcp_flag};

pub(crate) use port_index::PortIndex;

/// A packet at a hook, with the facts that the kernel knows of it there.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Packet {
    /// The source address.
    pub source: IpAddr,
    /// The destination address at this hook, of the same IP version.
    pub destination: IpAddr,
    /// The hop limit, or the time to live.
    pub hop_limit: u8,
    /// The number of the transport protocol.
    pub protocol: u8,
    /// The start of the transport header: of TCP and UDP the ports, of ICMP type and code.
    pub transport: Vec<u8>,
    /// The interface that the packet came in by; empty for a packet of this host.
    pub in_interface: String,
    /// The interface that the packet leaves by; empty before it is routed.
    pub out_interface: String,
    /// One bit of [`ct_state`].
    pub ct_state: u32,
    /// The destination of the connection's first packet and its port, if DNAT has changed it.
    pub dnat_from: Option<(IpAddr, u16)>,
    /// The type of the destination address, one of [`fib_type`].
    pub fib_daddr_type: u32,
    /// The type of the source address, one of [`fib_type`].
    pub fib_saddr_type: u32,
    /// Whether the routing tables lead to the source by the interface that the packet came in by.
    pub has_return_path: bool,
    /// The mark of the packet.
    pub mark: u32,
}

impl Packet {
    /// Makes the first packet of a connection of this protocol, from port to port. Of TCP it has
    /// the flag SYN.
    #[must_use]
    pub fn new(source: IpAddr, destination: IpAddr, protocol: u8, ports: (u16, u16)) -> Packet {
        let mut transport = [ports.0.to_be_bytes(), ports.1.to_be_bytes()].concat();
        if protocol == crate::protocol::TCP {
            transport.extend([0, 0, 0, 1, 0, 0, 0, 0, 5 << 4, tcp_flag::SYN, 0, 0, 0, 0, 0, 0]);
        }
        Packet { transport, ..Packet::bare(source, destination, protocol) }
    }

    /// Makes a packet of ICMP or ICMPv6 of this type, with the state that connection tracking gives
    /// it if no other packet came before. A request begins a connection. Discovery is not tracked.
    /// An answer or an error without a request is invalid (`nf_conntrack_proto_icmp.c`,
    /// `nf_conntrack_proto_icmpv6.c`).
    #[must_use]
    pub fn icmp(source: IpAddr, destination: IpAddr, kind: u8) -> Packet {
        let (protocol, ct_state) = match (source, kind) {
            (IpAddr::V4(_), 8 | 13 | 15 | 17) => (crate::protocol::ICMP, ct_state::NEW),
            (IpAddr::V4(_), _) => (crate::protocol::ICMP, ct_state::INVALID),
            (IpAddr::V6(_), 128 | 139) => (crate::protocol::ICMPV6, ct_state::NEW),
            (IpAddr::V6(_), 130..=136 | 143) => (crate::protocol::ICMPV6, ct_state::UNTRACKED),
            (IpAddr::V6(_), _) => (crate::protocol::ICMPV6, ct_state::INVALID),
        };
        let transport = vec![kind, 0, 0, 0];
        let packet = Packet { transport, ct_state, ..Packet::bare(source, destination, protocol) };
        // Discovery that a router has passed on is forged.
        let is_discovery = source.is_ipv6() && matches!(kind, 133..=137 | 141 | 142);
        Packet { hop_limit: if is_discovery { 255 } else { packet.hop_limit }, ..packet }
    }

    fn bare(source: IpAddr, destination: IpAddr, protocol: u8) -> Packet {
        Packet {
            source,
            destination,
            hop_limit: 64,
            protocol,
            transport: Vec::new(),
            in_interface: String::new(),
            out_interface: String::new(),
            ct_state: ct_state::NEW,
            dnat_from: None,
            fib_daddr_type: fib_type::LOCAL,
            fib_saddr_type: fib_type::UNICAST,
            has_return_path: true,
            mark: 0,
        }
    }

    /// Returns the header with the fields that rules can load. The rest is zero.
    fn network_header(&self) -> Vec<u8> {
        match (self.source, self.destination) {
            (IpAddr::V4(source), IpAddr::V4(destination)) => [
                &[0x45, 0, 0, 0, 0, 0, 0, 0, self.hop_limit, self.protocol, 0, 0][..],
                &source.octets(),
                &destination.octets(),
            ]
            .concat(),
            (IpAddr::V6(source), IpAddr::V6(destination)) => [
                &[0x60, 0, 0, 0, 0, 0, self.protocol, self.hop_limit][..],
                &source.octets(),
                &destination.octets(),
            ]
            .concat(),
            _ => Vec::new(),
        }
    }
}

/// Elements that rules have added to sets, with the times at which they expire.
#[derive(Clone, Debug, Default)]
pub struct Memory {
    /// The time since an epoch of the caller's choice.
    pub now: Duration,
    sets: HashMap<String, HashMap<Vec<u8>, Option<Duration>>>,
}

/// What happens to a packet at a hook, and why.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Decision<'a> {
    /// What happens to the packet.
    pub fate: Fate,
    /// The chain that decided.
    pub chain: &'a str,
    /// The rule that decided, and its index in the chain; `None` for the chain's policy.
    pub rule: Option<(usize, &'a Rule)>,
    /// All rules that matched, the deciding one included.
    pub matched: Vec<(&'a str, usize, &'a Rule)>,
}

/// What happens to a packet.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Fate {
    /// The packet passes.
    Accept,
    /// The packet is dropped.
    Drop,
    /// The packet is dropped, and its sender is told.
    Reject(Reject),
}

/// Returns what the table's base chains at this hook do with the packet; `None` if there are none.
///
/// The chains run in the order of their priorities until one drops the packet. A rate limit always
/// has a token.
#[must_use]
pub fn evaluate<'a>(
    table: &'a Table,
    hook: Hook,
    packet: &Packet,
    memory: &mut Memory,
) -> Option<Decision<'a>> {
    evaluate_indexed(table, None, hook, packet, memory)
}

/// Does what [`evaluate`] does, and skips rules for other ports by the index of the table.
pub(crate) fn evaluate_indexed<'a>(
    table: &'a Table,
    index: Option<&PortIndex>,
    hook: Hook,
    packet: &Packet,
    memory: &mut Memory,
) -> Option<Decision<'a>> {
    let at_hook = |chain: &'a Chain| Some((chain.base.filter(|base| base.hook == hook)?, chain));
    let mut chains: Vec<(Base, &Chain)> = table.chains.iter().filter_map(at_hook).collect();
    chains.sort_by_key(|(base, _)| base.priority);
    let mut run = Run {
        table,
        index,
        packet,
        memory,
        network: packet.network_header(),
        matched: Vec::new(),
        registers: [0; REGISTER_BYTES],
    };
    let mut last = None;
    for (base, chain) in chains {
        let (fate, chain, rule) = match run.chain(chain, 0) {
            Some((fate, chain, index, rule)) => (fate, chain, Some((index, rule))),
            None if base.policy == ChainPolicy::Drop => (Fate::Drop, chain.name.as_str(), None),
            None => (Fate::Accept, chain.name.as_str(), None),
        };
        last = Some((fate, chain, rule));
        if fate != Fate::Accept {
            break;
        }
    }
    let (fate, chain, rule) = last?;
    Some(Decision { fate, chain, rule, matched: run.matched })
}

/// The kernel's limit of nested jumps (`NFT_JUMP_STACK_SIZE`).
const MAX_JUMPS: usize = 16;
/// All registers together.
const REGISTER_BYTES: usize = 64;

struct Run<'a, 'p> {
    table: &'a Table,
    index: Option<&'p PortIndex>,
    packet: &'p Packet,
    memory: &'p mut Memory,
    network: Vec<u8>,
    matched: Vec<(&'a str, usize, &'a Rule)>,
    registers: [u8; REGISTER_BYTES],
}

/// The end of a rule of which every expression matched.
enum Ending<'a> {
    Decided(Fate),
    Jump(&'a str),
    Goto(&'a str),
    Return,
    NoVerdict,
}

type Decided<'a> = (Fate, &'a str, usize, &'a Rule);

impl<'a> Run<'a, '_> {
    fn chain(&mut self, chain: &'a Chain, depth: usize) -> Option<Decided<'a>> {
        if depth > MAX_JUMPS {
            return None;
        }
        let indices = match self.index {
            Some(ports) => ports.candidates(chain, self.packet),
            None => (0..chain.rules.len()).collect(),
        };
        for index in indices {
            let rule = chain.rules.get(index)?;
            let Some(ending) = self.rule(rule) else { continue };
            self.matched.push((&chain.name, index, rule));
            match ending {
                Ending::Decided(fate) => return Some((fate, &chain.name, index, rule)),
                Ending::Jump(to) => {
                    let next = self.table.chain(to)?;
                    if let Some(decided) = self.chain(next, depth + 1) {
                        return Some(decided);
                    }
                }
                Ending::Goto(to) => return self.chain(self.table.chain(to)?, depth + 1),
                Ending::Return => return None,
                Ending::NoVerdict => {}
            }
        }
        None
    }

    /// Returns the end of the rule; `None` if the rule does not match.
    fn rule(&mut self, rule: &'a Rule) -> Option<Ending<'a>> {
        for expr in &rule.exprs {
            match expr {
                Expr::Verdict(verdict) => {
                    return Some(match verdict {
                        Verdict::Accept => Ending::Decided(Fate::Accept),
                        Verdict::Drop => Ending::Decided(Fate::Drop),
                        Verdict::Return => Ending::Return,
                        Verdict::Jump(chain) => Ending::Jump(chain),
                        Verdict::Goto(chain) => Ending::Goto(chain),
                    });
                }
                Expr::Reject(how) => return Some(Ending::Decided(Fate::Reject(*how))),
                other => self.expr(other)?,
            }
        }
        Some(Ending::NoVerdict)
    }

    /// Runs an expression; `None` if it does not match.
    fn expr(&mut self, expr: &Expr) -> Option<()> {
        match expr {
            Expr::Meta { key, reg } => {
                let packet = self.packet;
                match key {
                    MetaKey::Nfproto if packet.source.is_ipv4() => {
                        self.store(reg.index(), &[NFPROTO_IPV4])
                    }
                    MetaKey::Nfproto => self.store(reg.index(), &[NFPROTO_IPV6]),
                    MetaKey::L4proto => self.store(reg.index(), &[packet.protocol]),
                    MetaKey::Iifname => self.store(reg.index(), &name(&packet.in_interface)?),
                    MetaKey::Oifname => self.store(reg.index(), &name(&packet.out_interface)?),
                    MetaKey::Mark => self.store(reg.index(), &packet.mark.to_ne_bytes()),
                    // An interface here has no kind.
                    MetaKey::Iifkind | MetaKey::Oifkind => None,
                    // A packet of this host is one of a program here.
                    MetaKey::Skuid if packet.in_interface.is_empty() => {
                        self.store(reg.index(), &[0; 4])
                    }
                    MetaKey::Skuid => None,
                    MetaKey::Iif => {
                        let index = u32::from(!packet.in_interface.is_empty());
                        self.store(reg.index(), &index.to_ne_bytes())
                    }
                }
            }
            Expr::Payload { header, offset, len, reg } => {
                let bytes = match header {
                    Header::Network => &self.network,
                    Header::Transport => &self.packet.transport,
                    // Only a packet that a bridge passes on has one where rules look for it.
                    Header::Link => return None,
                };
                let (start, len) = (usize::try_from(*offset).ok()?, usize::try_from(*len).ok()?);
                let value = bytes.get(start..start.checked_add(len)?)?;
                store(&mut self.registers, reg.index(), value)
            }
            Expr::Ct { key, reg } => {
                let packet = self.packet;
                let tracked = packet.ct_state & (ct_state::INVALID | ct_state::UNTRACKED) == 0;
                match key {
                    CtKey::Status | CtKey::OriginalProtoDst | CtKey::OriginalDaddr(_)
                        if !tracked =>
                    {
                        None
                    }
                    CtKey::State => self.store(reg.index(), &packet.ct_state.to_ne_bytes()),
                    CtKey::Status => {
                        let dnat = packet.dnat_from.map_or(0, |_| ct_status::DNAT);
                        self.store(reg.index(), &dnat.to_ne_bytes())
                    }
                    CtKey::OriginalProtoDst => match packet.dnat_from {
                        Some((_, port)) => self.store(reg.index(), &port.to_be_bytes()),
                        None => self.store(reg.index(), packet.transport.get(2..4)?),
                    },
                    CtKey::OriginalDaddr(version) => {
                        let first = packet.dnat_from.map_or(packet.destination, |(to, _)| to);
                        match (first, version) {
                            (IpAddr::V4(to), IpVersion::V4) => {
                                self.store(reg.index(), &to.octets())
                            }
                            (IpAddr::V6(to), IpVersion::V6) => {
                                self.store(reg.index(), &to.octets())
                            }
                            _ => None,
                        }
                    }
                }
            }
            Expr::FibDaddrType { reg } => {
                let value = self.packet.fib_daddr_type.to_ne_bytes();
                self.store(reg.index(), &value)
            }
            Expr::FibSaddrType { reg } => {
                let value = self.packet.fib_saddr_type.to_ne_bytes();
                self.store(reg.index(), &value)
            }
            Expr::FibReturnPath { reg } => {
                let index = u32::from(self.packet.has_return_path);
                self.store(reg.index(), &index.to_ne_bytes())
            }
            Expr::Bitwise { reg, mask, xor } => {
                let mut value = [0; REGISTER_BYTES];
                let value = value.get_mut(..mask.len())?;
                value.copy_from_slice(self.register(reg.index(), mask.len())?);
                for (byte, (mask, xor)) in value.iter_mut().zip(mask.iter().zip(xor)) {
                    *byte = (*byte & mask) ^ xor;
                }
                self.store(reg.index(), value)
            }
            Expr::Cmp { reg, op, data } => {
                let value = self.register(reg.index(), data.len())?;
                let order = value.cmp(data.as_slice());
                let matches = match op {
                    CmpOp::Eq => order.is_eq(),
                    CmpOp::Neq => order.is_ne(),
                    CmpOp::Lt => order.is_lt(),
                    CmpOp::Lte => order.is_le(),
                    CmpOp::Gt => order.is_gt(),
                    CmpOp::Gte => order.is_ge(),
                };
                matches.then_some(())
            }
            Expr::Lookup { reg, set, inverted } => {
                let found = self.is_in(set, reg.index())?;
                (found != *inverted).then_some(())
            }
            Expr::Dynset(dynset) => self.add(dynset),
            Expr::Counter(_) | Expr::Helper(_) | Expr::Count | Expr::Limit(_) | Expr::Log(_) => {
                Some(())
            }
            // A packet here has no extension headers.
            Expr::Exthdr { .. } | Expr::Unknown { .. } => None,
            Expr::Reject(_) | Expr::Verdict(_) => Some(()),
        }
    }

    fn key(&self, set: &crate::model::Set, reg: usize) -> Option<Vec<u8>> {
        let len = match set.key.as_slice() {
            [one] => one.bytes(),
            parts => parts.iter().map(|part| part.bytes().next_multiple_of(4)).sum(),
        };
        self.register(reg, len).map(<[u8]>::to_vec)
    }

    fn is_in(&self, name: &str, reg: usize) -> Option<bool> {
        let set = self.table.set(name)?;
        let key = self.key(set, reg)?;
        let fixed = set.elements.iter().any(|element| match &element.key {
            Key::Value(value) => *value == key,
            Key::Range(first, last) => (first..=last).contains(&&key),
        });
        let added = self.memory.sets.get(name).and_then(|added| added.get(&key));
        let alive = added.is_some_and(|expiry| expiry.is_none_or(|at| at > self.memory.now));
        Some(fixed || alive)
    }

    fn add(&mut self, dynset: &Dynset) -> Option<()> {
        let Dynset { reg, set: name, update, timeout } = dynset;
        let set = self.table.set(name)?;
        let key = self.key(set, reg.index())?;
        let now = self.memory.now;
        let timeout = timeout.or(set.timeout).filter(|timeout| !timeout.is_zero());
        let expiry = timeout.map(|timeout| now + timeout);
        let added = self.memory.sets.entry(name.clone()).or_default();
        added.retain(|_, expiry| expiry.is_none_or(|at| at > now));
        let bound = set.size.and_then(|size| usize::try_from(size).ok()).unwrap_or(usize::MAX);
        if added.len() >= bound && !added.contains_key(&key) {
            return None;
        }
        let entry = added.entry(key).or_insert(expiry);
        if *update {
            *entry = expiry;
        }
        Some(())
    }

    fn register(&self, index: usize, len: usize) -> Option<&[u8]> {
        self.registers.get(index * 4..(index * 4).checked_add(len)?)
    }

    fn store(&mut self, index: usize, value: &[u8]) -> Option<()> {
        store(&mut self.registers, index, value)
    }
}

/// Stores a value, with zeros up to the next register as in the kernel.
fn store(registers: &mut [u8], index: usize, value: &[u8]) -> Option<()> {
    let padded = value.len().next_multiple_of(4);
    let slot = registers.get_mut(index * 4..(index * 4).checked_add(padded)?)?;
    slot.fill(0);
    slot.get_mut(..value.len())?.copy_from_slice(value);
    Some(())
}

/// Returns an interface's name as the kernel holds it. A packet without interface does not match.
fn name(name: &str) -> Option<[u8; 16]> {
    let mut bytes = [0; 16];
    bytes.get_mut(..name.len())?.copy_from_slice(name.as_bytes());
    (!name.is_empty()).then_some(bytes)
}
