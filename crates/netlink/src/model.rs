//! A table as a plain value.
//!
//! Nothing here depends on the running system. Two equal values are the same ruleset, so a value
//! can be compared with the table that was read back, and printed as a golden file.

mod expr;

use std::time::Duration;

use crate::ip_version::IpVersion;

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
    /// The chains exist but see no packet. nfguard never sets it, but others can.
    pub dormant: bool,
    /// Named counters.
    pub counters: Vec<Counter>,
    /// Connection tracking helpers.
    pub helpers: Vec<CtHelper>,
    /// Named sets.
    pub sets: Vec<Set>,
    /// Chains. For `nft -f` a chain has to stand before the rules that jump to it.
    pub chains: Vec<Chain>,
}

impl Table {
    /// Returns the chain of this name.
    #[must_use]
    pub fn chain(&self, name: &str) -> Option<&Chain> {
        self.chains.iter().find(|chain| chain.name == name)
    }

    /// Returns the set of this name.
    #[must_use]
    pub fn set(&self, name: &str) -> Option<&Set> {
        self.sets.iter().find(|set| set.name == name)
    }

    /// Returns the table in the form in which two tables compare. Objects without an order of their
    /// own are sorted by name. Elements that are state are left out ([`Set::has_state`]). An
    /// element's timeout is left out if it is the set's, because the kernel does not report it.
    #[must_use]
    pub fn normalized(mut self) -> Table {
        self.counters.sort_by(|a, b| a.name.cmp(&b.name));
        self.helpers.sort_by(|a, b| a.name.cmp(&b.name));
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

/// A named counter without its numbers, which are state, see [`Counts`].
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Counter {
    /// Unique among the counters of its table.
    pub name: String,
    /// At most 127 bytes.
    pub comment: Option<String>,
}

/// The numbers of a counter.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Counts {
    /// Packets.
    pub packets: u64,
    /// Bytes, network header included.
    pub bytes: u64,
}

/// A connection tracking helper: kernel code that reads a connection for the other connections that
/// it announces, which are then `related`. A rule assigns it to a connection by its name. A kernel
/// without the helper's module refuses the table.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct CtHelper {
    /// Unique among the helpers of its table.
    pub name: String,
    /// The kernel's name of the helper, such as `ftp`.
    pub kind: String,
    /// The number of the transport protocol that the helper reads.
    pub protocol: u8,
    /// The IP version that the kernel has the helper for; `None`: both.
    pub version: Option<IpVersion>,
}

/// A named set of keys.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Set {
    /// Unique among the sets of its table.
    pub name: String,
    /// The types of a key: one, or several for a concatenation.
    pub key: Vec<KeyType>,
    /// Elements are ranges. Not to be combined with timeouts: each change costs the kernel a walk
    /// through the whole set.
    pub interval: bool,
    /// Rules may add elements.
    pub dynamic: bool,
    /// Elements expire after this time, unless they have a timeout of their own. `Some(ZERO)`:
    /// elements may have timeouts, but have none by default.
    pub timeout: Option<Duration>,
    /// The maximum number of elements. A multiple of 65,536 reserves no memory in advance, one
    /// less than a multiple reserves the most (measured, Linux 6.18).
    pub size: Option<u32>,
    /// At most 127 bytes.
    pub comment: Option<String>,
    /// The elements.
    pub elements: Vec<Element>,
}

impl Set {
    /// The comment of a set that programs, and no rules, add elements to while the table is loaded.
    pub const STATE: &str = "kept up to date by nfguard";

    /// Returns whether the elements are state. A set with state starts with the elements of its
    /// definition, and a load of the same definition leaves the elements as they are.
    #[must_use]
    pub fn has_state(&self) -> bool {
        self.dynamic || self.comment.as_deref() == Some(Set::STATE)
    }
}

/// The type of one part of a set's key. The numbers are those of nft (its `datatype.h`). The kernel
/// keeps them and does not use them.
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
    /// The name of an interface, 16 bytes.
    Ifname,
}

impl KeyType {
    pub(crate) const ALL: [KeyType; 7] = [
        KeyType::Ipv4Addr,
        KeyType::Ipv6Addr,
        KeyType::InetService,
        KeyType::InetProto,
        KeyType::IcmpType,
        KeyType::Icmpv6Type,
        KeyType::Ifname,
    ];

    pub(crate) fn number(self) -> u32 {
        match self {
            KeyType::Ipv4Addr => 7,
            KeyType::Ipv6Addr => 8,
            KeyType::InetProto => 12,
            KeyType::InetService => 13,
            KeyType::IcmpType => 14,
            KeyType::Icmpv6Type => 29,
            KeyType::Ifname => 41,
        }
    }

    /// Returns the length in bytes, without the padding to four bytes in a concatenation.
    pub(crate) fn bytes(self) -> usize {
        match self {
            KeyType::Ipv4Addr => 4,
            KeyType::Ipv6Addr | KeyType::Ifname => 16,
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
            KeyType::Ifname => "ifname",
        }
    }
}

/// An element of a set.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Element {
    /// The key that it matches.
    pub key: Key,
    /// The time from when it is added until it expires, in place of the set's timeout.
    pub timeout: Option<Duration>,
    /// At most 127 bytes.
    pub comment: Option<String>,
}

impl From<Key> for Element {
    fn from(key: Key) -> Element {
        Element { key, timeout: None, comment: None }
    }
}

/// An element as the kernel holds it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct LiveElement {
    /// The element as it was added.
    pub element: Element,
    /// The time until it expires; `None` if it does not expire.
    pub expires_in: Option<Duration>,
}

/// A key, as the bytes of a register.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Key {
    /// Exactly this key.
    Value(Vec<u8>),
    /// All keys from the first to the last, both included. Only in interval sets.
    Range(Vec<u8>, Vec<u8>),
}

/// A chain, with its rules in order.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Chain {
    /// Unique in its table.
    pub name: String,
    /// The hook that packets enter it from; `None` for a chain that rules jump to.
    pub base: Option<Base>,
    /// At most 127 bytes.
    pub comment: Option<String>,
    /// The rules, in the order in which the kernel tries them.
    pub rules: Vec<Rule>,
}

/// The hook and the priority at which the kernel runs a chain of type `filter`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Base {
    /// The hook.
    pub hook: Hook,
    /// A chain of a lower priority runs earlier.
    pub priority: i32,
    /// The verdict on a packet that reaches the chain's end.
    pub policy: ChainPolicy,
}

/// The hooks of the `inet` family that nfguard uses.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Hook {
    /// Every packet that comes in, before it is routed.
    Prerouting,
    /// Packets to this host.
    Input,
    /// Packets that this host forwards.
    Forward,
    /// Packets from this host.
    Output,
    /// Every packet that goes out, after it was routed.
    Postrouting,
}

/// A base chain's policy.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum ChainPolicy {
    /// The packet passes.
    Accept,
    /// The packet is dropped.
    Drop,
}

/// A rule: expressions that run from left to right until one does not match.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Rule {
    /// At least one expression.
    pub exprs: Vec<Expr>,
    /// At most 127 bytes.
    pub comment: Option<String>,
}
