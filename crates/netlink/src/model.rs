//! A table as a plain value: what it is, not where the kernel keeps it.
//!
//! Nothing here depends on the running system. Two equal values are the same ruleset, so a value
//! can be compared with what was read back, and printed as a golden file.

mod expr;

use std::time::Duration;

pub use expr::{
    CmpOp, CtKey, Dynset, Expr, Header, Limit, Log, LogTo, MetaKey, Reg, Reject, Verdict,
};

/// One table of the `inet` family, whole.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Table {
    /// At most 255 bytes.
    pub name: String,
    /// At most 127 bytes. The kernel keeps the comment that a table was created with.
    pub comment: Option<String>,
    /// Its chains are there but see no packet. Never wanted, but anyone can switch it on.
    pub dormant: bool,
    /// Named counters.
    pub counters: Vec<Counter>,
    /// Named sets.
    pub sets: Vec<Set>,
    /// Chains; one must stand before any rule that jumps to it is read by `nft -f`.
    pub chains: Vec<Chain>,
}

impl Table {
    /// The chain of this name.
    #[must_use]
    pub fn chain(&self, name: &str) -> Option<&Chain> {
        self.chains.iter().find(|chain| chain.name == name)
    }

    /// The set of this name.
    #[must_use]
    pub fn set(&self, name: &str) -> Option<&Set> {
        self.sets.iter().find(|set| set.name == name)
    }

    /// The same table with everything that has no order of its own put in order of names, the
    /// elements left out that are state and not definition ([`Set::has_state`]), and no timeout
    /// said twice, for the kernel tells an element's own only if it is not the set's.
    #[must_use]
    pub fn normalized(mut self) -> Table {
        self.counters.sort_by(|a, b| a.name.cmp(&b.name));
        self.sets.sort_by(|a, b| a.name.cmp(&b.name));
        self.chains.sort_by(|a, b| a.name.cmp(&b.name));
        for set in &mut self.sets {
            set.elements.sort_by(|a, b| a.key.cmp(&b.key));
            if set.has_state() {
                set.elements.clear();
            }
            for element in &mut set.elements {
                element.timeout = element.timeout.filter(|own| Some(*own) != set.timeout);
            }
        }
        self
    }
}

/// A named counter. Its numbers are state, see [`Counts`].
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Counter {
    /// Unique among the counters of its table.
    pub name: String,
    /// At most 127 bytes.
    pub comment: Option<String>,
}

/// What a counter has counted.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Counts {
    /// Packets.
    pub packets: u64,
    /// Bytes, network header included.
    pub bytes: u64,
}

/// A named set of keys.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Set {
    /// Unique among the sets of its table.
    pub name: String,
    /// What a key is made of: one type, or several for a concatenation.
    pub key: Vec<KeyType>,
    /// Elements are ranges. Never together with timeouts here: the kernel pays for the whole set
    /// with each change.
    pub interval: bool,
    /// Rules may add elements.
    pub dynamic: bool,
    /// Elements expire; each after this long unless it says otherwise. `Some(ZERO)`: elements may
    /// have timeouts, but none by default.
    pub timeout: Option<Duration>,
    /// The most elements that it holds. A multiple of 65,536 reserves no memory in advance, one
    /// less than a multiple reserves the most (measured, Linux 6.18).
    pub size: Option<u32>,
    /// At most 127 bytes.
    pub comment: Option<String>,
    /// What is in it.
    pub elements: Vec<Element>,
}

impl Set {
    /// The comment of a set that no rule adds to, but programs do while the table is loaded.
    pub const STATE: &str = "kept up to date by nfguard";

    /// Whether its elements are state and not definition: those that it is defined with are what it
    /// begins with, and a load of the same definition leaves what it has.
    #[must_use]
    pub fn has_state(&self) -> bool {
        self.dynamic || self.comment.as_deref() == Some(Set::STATE)
    }
}

/// What one part of a set's key is. The numbers are nft's own (its `datatype.h`), which the kernel
/// carries without looking at them.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum KeyType {
    /// 4 bytes.
    Ipv4Addr,
    /// 16 bytes.
    Ipv6Addr,
    /// A port, 2 bytes, big endian.
    InetService,
    /// A protocol number, 1 byte.
    InetProto,
    /// An ICMP type, 1 byte.
    IcmpType,
    /// An ICMPv6 type, 1 byte.
    Icmpv6Type,
}

impl KeyType {
    pub(crate) const ALL: [KeyType; 6] = [
        KeyType::Ipv4Addr,
        KeyType::Ipv6Addr,
        KeyType::InetService,
        KeyType::InetProto,
        KeyType::IcmpType,
        KeyType::Icmpv6Type,
    ];

    pub(crate) fn number(self) -> u32 {
        match self {
            KeyType::Ipv4Addr => 7,
            KeyType::Ipv6Addr => 8,
            KeyType::InetProto => 12,
            KeyType::InetService => 13,
            KeyType::IcmpType => 14,
            KeyType::Icmpv6Type => 29,
        }
    }

    /// Bytes, before the padding to four that each part of a concatenation has.
    pub(crate) fn bytes(self) -> usize {
        match self {
            KeyType::Ipv4Addr => 4,
            KeyType::Ipv6Addr => 16,
            KeyType::InetService => 2,
            KeyType::InetProto | KeyType::IcmpType | KeyType::Icmpv6Type => 1,
        }
    }

    pub(crate) fn word(self) -> &'static str {
        match self {
            KeyType::Ipv4Addr => "ipv4_addr",
            KeyType::Ipv6Addr => "ipv6_addr",
            KeyType::InetService => "inet_service",
            KeyType::InetProto => "inet_proto",
            KeyType::IcmpType => "icmp_type",
            KeyType::Icmpv6Type => "icmpv6_type",
        }
    }
}

/// One member of a set.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Element {
    /// What it matches.
    pub key: Key,
    /// How long it lives from when it is added, in place of the set's own timeout.
    pub timeout: Option<Duration>,
    /// At most 127 bytes.
    pub comment: Option<String>,
}

impl From<Key> for Element {
    fn from(key: Key) -> Element {
        Element { key, timeout: None, comment: None }
    }
}

/// An element as the kernel holds it at this moment.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct LiveElement {
    /// What was added.
    pub element: Element,
    /// How long it goes on living; `None`: it does not expire.
    pub expires_in: Option<Duration>,
}

/// A key as the kernel has it: the bytes of a register.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Key {
    /// Exactly this.
    Value(Vec<u8>),
    /// From the first to the last, both included; only in interval sets.
    Range(Vec<u8>, Vec<u8>),
}

/// A chain, with its rules in order.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Chain {
    /// Unique in its table.
    pub name: String,
    /// Where packets enter it; `None` for a chain that is only jumped to.
    pub base: Option<Base>,
    /// At most 127 bytes.
    pub comment: Option<String>,
    /// Tried from the first to the last.
    pub rules: Vec<Rule>,
}

/// Where and when the kernel runs a chain of type `filter`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Base {
    /// The hook.
    pub hook: Hook,
    /// Lower runs earlier.
    pub priority: i32,
    /// What happens to a packet that reaches the chain's end.
    pub policy: ChainPolicy,
}

/// The hooks of the `inet` family that nfguard uses.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Hook {
    /// Every packet that comes in, before routing.
    Prerouting,
    /// To this host.
    Input,
    /// Through this host.
    Forward,
    /// From this host.
    Output,
    /// Every packet that goes out, after routing.
    Postrouting,
}

/// A base chain's policy.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum ChainPolicy {
    /// Let it go on.
    Accept,
    /// Drop it.
    Drop,
}

/// One rule: expressions run from left to right until one does not match.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Rule {
    /// At least one.
    pub exprs: Vec<Expr>,
    /// At most 127 bytes.
    pub comment: Option<String>,
}
