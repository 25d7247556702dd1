//! The expressions of rules, as the kernel has them.
//!
//! A rule loads a field of the packet into a register, compares it, and so on. The last expression
//! usually is a verdict. An expression that this crate does not know is kept as [`Expr::Unknown`]
//! with its bytes, so a rule that others made never reads back as one of nfguard.

use std::time::Duration;

use crate::ip_version::IpVersion;

/// An expression.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Expr {
    /// Loads a property of the packet that no header has.
    Meta {
        /// The property.
        key: MetaKey,
        /// The register that it goes to.
        reg: Reg,
    },
    /// Loads bytes of a header.
    Payload {
        /// The header.
        header: Header,
        /// The offset from the header's start, in bytes.
        offset: u32,
        /// The length in bytes, 1 to 16.
        len: u32,
        /// The register that it goes to.
        reg: Reg,
    },
    /// Loads bytes of an IPv6 extension header. Does not match a packet without that header.
    Exthdr {
        /// The header's protocol number.
        kind: u8,
        /// The offset from the header's start, in bytes.
        offset: u32,
        /// The length in bytes, 1 to 16.
        len: u32,
        /// The register that it goes to.
        reg: Reg,
    },
    /// Loads a property of the packet's connection. Does not match a packet that is not tracked,
    /// except for [`CtKey::State`].
    Ct {
        /// The property.
        key: CtKey,
        /// The register that it goes to.
        reg: Reg,
    },
    /// Loads the type of the destination address in this host's routing tables (`RTN_*`).
    FibDaddrType {
        /// The register that it goes to.
        reg: Reg,
    },
    /// Loads the type of the source address in this host's routing tables (`RTN_*`).
    FibSaddrType {
        /// The register that it goes to.
        reg: Reg,
    },
    /// Loads the index of the interface that the packet came in by, if the routing tables lead back to
    /// its source by that interface, and else 0. Packets of `lo` and of discovery always lead back.
    FibReturnPath {
        /// The register that it goes to.
        reg: Reg,
    },
    /// `reg = (reg & mask) ^ xor`.
    Bitwise {
        /// The register.
        reg: Reg,
        /// As many bytes as the value has.
        mask: Vec<u8>,
        /// As many bytes as the value has.
        xor: Vec<u8>,
    },
    /// Compares the register byte by byte. So only big endian numbers compare by their order.
    Cmp {
        /// The register.
        reg: Reg,
        /// The comparison.
        op: CmpOp,
        /// The bytes that the register is compared with.
        data: Vec<u8>,
    },
    /// Matches if the key in the register is in a set, or if it is not.
    Lookup {
        /// The register that the key starts at.
        reg: Reg,
        /// The set's name, in the same table.
        set: String,
        /// Matches if the key is not in the set.
        inverted: bool,
    },
    /// Adds to a named counter of the same table.
    Counter(String),
    /// Assigns a connection tracking helper of the same table to a new connection of the helper's
    /// protocol. It always matches.
    Helper(String),
    /// Counts in the rule itself. The numbers are state: they start at zero with the rule, and are
    /// not read.
    Count,
    /// Matches while packets come more slowly than the limit.
    Limit(Limit),
    /// Adds the register to a set. Does not match if the set is full.
    Dynset(Dynset),
    /// Writes a log line.
    Log(Log),
    /// Drops the packet and tells its sender. In prerouting since Linux 5.9.
    Reject(Reject),
    /// Ends the rule.
    Verdict(Verdict),
    /// An expression that nfguard never writes.
    Unknown {
        /// The kernel's name of the expression.
        name: String,
        /// The bytes of its attributes.
        data: Vec<u8>,
    },
}

impl Expr {
    /// Returns the kernel's name of the expression.
    #[must_use]
    pub fn name(&self) -> &str {
        match self {
            Expr::Meta { .. } => "meta",
            Expr::Payload { .. } => "payload",
            Expr::Exthdr { .. } => "exthdr",
            Expr::Ct { .. } => "ct",
            Expr::FibDaddrType { .. } | Expr::FibSaddrType { .. } | Expr::FibReturnPath { .. } => {
                "fib"
            }
            Expr::Bitwise { .. } => "bitwise",
            Expr::Cmp { .. } => "cmp",
            Expr::Lookup { .. } => "lookup",
            Expr::Counter(_) | Expr::Helper(_) => "objref",
            Expr::Count => "counter",
            Expr::Limit(_) => "limit",
            Expr::Dynset(_) => "dynset",
            Expr::Log(_) => "log",
            Expr::Reject(_) => "reject",
            Expr::Verdict(_) => "immediate",
            Expr::Unknown { name, .. } => name,
        }
    }
}

/// A 32-bit register, 0 to 15. The kernel's four 128-bit registers are 0, 4, 8 and 12.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct Reg(pub(crate) u8);

impl Reg {
    /// The register of rules that need only one.
    pub const FIRST: Reg = Reg(0);

    /// Returns the register of this index; `None` above 15.
    #[must_use]
    pub fn new(index: u8) -> Option<Reg> {
        (index < 16).then_some(Reg(index))
    }

    /// Returns the index, 0 to 15.
    #[must_use]
    pub fn index(self) -> usize {
        usize::from(self.0)
    }
}

/// The property that `meta` loads.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum MetaKey {
    /// The IP version: 2 for IPv4, 10 for IPv6; one byte.
    Nfproto,
    /// The number of the transport protocol, behind all extension headers; one byte.
    L4proto,
    /// The name of the interface that the packet came in by, 16 bytes filled up with NUL.
    Iifname,
    /// The name of the interface that the packet leaves by, 16 bytes filled up with NUL.
    Oifname,
    /// The packet's mark, a u32 in the machine's byte order.
    Mark,
    /// The kind of the interface that the packet came in by, such as `bridge`; 16 bytes filled up with
    /// NUL. Does not match an interface without a kind.
    Iifkind,
    /// The kind of the interface that the packet leaves by; 16 bytes filled up with NUL. Does not match
    /// an interface without a kind.
    Oifkind,
    /// The index of the interface that the packet came in by, a u32 in the machine's byte order. 0 for a
    /// packet without one.
    Iif,
    /// The user of the socket that sent the packet, a u32 in the machine's byte order. Does not match a
    /// packet without a program's socket.
    Skuid,
}

/// The header that `payload` reads.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Header {
    /// The header of IPv4 or IPv6.
    Network,
    /// The header of TCP, UDP, ICMP and so on. Does not match a later fragment, which has none.
    Transport,
    /// The header of the link that the packet came by. Does not match a packet of this host.
    Link,
}

/// The property of a connection that `ct` loads.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum CtKey {
    /// A bit of [`ct_state`](crate::ct_state); a u32 in the machine's byte order.
    State,
    /// Bits of [`ct_status`](crate::ct_status); a u32 in the machine's byte order.
    Status,
    /// The destination port of the connection's first packet before any DNAT; two bytes, big
    /// endian. Match the protocol first, otherwise nft does not print the expression.
    OriginalProtoDst,
    /// The destination address of the connection's first packet before any DNAT. Does not match a
    /// connection of another IP version.
    OriginalDaddr(IpVersion),
}

/// The comparison of `cmp`.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum CmpOp {
    /// Equal.
    Eq,
    /// Not equal.
    Neq,
    /// Less.
    Lt,
    /// Less or equal.
    Lte,
    /// Greater.
    Gt,
    /// Greater or equal.
    Gte,
}

/// A token bucket that counts packets. It matches while it has a token.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct Limit {
    /// The number of tokens that come back per `seconds`.
    pub packets: u64,
    /// 1, 60, 3600, 86,400 or 604,800, which nft has words for.
    pub seconds: u64,
    /// The number of tokens at first and at most.
    pub burst: u32,
}

/// Adds the key in a register to a set.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Dynset {
    /// The register that the key starts at.
    pub reg: Reg,
    /// The set's name, in the same table.
    pub set: String,
    /// Starts the timeout again if the key is in the set already.
    pub update: bool,
    /// The element's timeout, in place of the set's, in whole milliseconds.
    pub timeout: Option<Duration>,
}

/// Logs the packet with a prefix.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Log {
    /// At most 127 bytes. nft's text cannot hold a quote or a dollar sign in it.
    pub prefix: String,
    /// The destination of the log line.
    pub to: LogTo,
}

/// The destination of log lines.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum LogTo {
    /// The kernel log at level `warning`, with TCP and IP options, which port scan detectors read.
    Kernel,
    /// An NFLOG group.
    Group(u16),
}

/// The answer to the sender of a rejected packet.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Reject {
    /// A TCP reset; only after matching TCP.
    TcpReset,
    /// Port unreachable of ICMP or ICMPv6, by the packet's version.
    PortUnreachable,
}

/// What happens to the packet, or the chain that goes on.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Verdict {
    /// The packet goes on to the next base chain.
    Accept,
    /// The packet is dropped.
    Drop,
    /// The packet goes back to the rule behind the jump.
    Return,
    /// The packet goes through another chain, and comes back if that has no verdict.
    Jump(String),
    /// The packet goes through another chain, and does not come back to this one.
    Goto(String),
}
