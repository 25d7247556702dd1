//! The expressions that rules are made of, as the kernel has them.
//!
//! A rule loads something of the packet into a register, compares it, and so on; the last
//! expression usually is a verdict. What this crate does not know is kept as
//! [`Expr::Unknown`] with its bytes, so that a rule made by somebody else never reads back as one
//! of ours.

use std::time::Duration;

/// One expression.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Expr {
    /// Loads a property of the packet that no header has. Any kernel.
    Meta {
        /// Which.
        key: MetaKey,
        /// To where.
        reg: Reg,
    },
    /// Loads bytes of a header.
    Payload {
        /// Which header.
        header: Header,
        /// From its start.
        offset: u32,
        /// 1 to 16.
        len: u32,
        /// To where.
        reg: Reg,
    },
    /// Loads bytes of an IPv6 extension header; does not match a packet without it.
    Exthdr {
        /// Its protocol number.
        kind: u8,
        /// From its start.
        offset: u32,
        /// 1 to 16.
        len: u32,
        /// To where.
        reg: Reg,
    },
    /// Loads what conntrack knows; does not match a packet that it does not track, except for
    /// [`CtKey::State`].
    Ct {
        /// Which.
        key: CtKey,
        /// To where.
        reg: Reg,
    },
    /// Loads the type of the destination address in this host's routing tables (`RTN_*`).
    FibDaddrType {
        /// To where.
        reg: Reg,
    },
    /// `reg = (reg & mask) ^ xor`.
    Bitwise {
        /// From and to where.
        reg: Reg,
        /// As long as the value.
        mask: Vec<u8>,
        /// As long as the value.
        xor: Vec<u8>,
    },
    /// Matches if the register compares so; byte by byte, hence big endian numbers for an order.
    Cmp {
        /// What to compare.
        reg: Reg,
        /// How.
        op: CmpOp,
        /// With what.
        data: Vec<u8>,
    },
    /// Matches if the register is in a set (or is not).
    Lookup {
        /// Where the key starts.
        reg: Reg,
        /// The set's name, in the same table.
        set: String,
        /// Match if it is not in the set.
        inverted: bool,
    },
    /// Adds to a named counter of the same table.
    Counter(String),
    /// Counts, in the rule itself. The numbers are state, start anew with the rule and are not read.
    Count,
    /// Matches as long as packets come more slowly than this.
    Limit(Limit),
    /// Adds to a set; does not match if the set is full.
    Dynset(Dynset),
    /// Writes a log line.
    Log(Log),
    /// Drops the packet and tells its sender. At prerouting since Linux 5.9.
    Reject(Reject),
    /// Ends the rule.
    Verdict(Verdict),
    /// One that nfguard never writes.
    Unknown {
        /// The kernel's name of it.
        name: String,
        /// Its attributes.
        data: Vec<u8>,
    },
}

impl Expr {
    /// The kernel's name of the expression.
    #[must_use]
    pub fn name(&self) -> &str {
        match self {
            Expr::Meta { .. } => "meta",
            Expr::Payload { .. } => "payload",
            Expr::Exthdr { .. } => "exthdr",
            Expr::Ct { .. } => "ct",
            Expr::FibDaddrType { .. } => "fib",
            Expr::Bitwise { .. } => "bitwise",
            Expr::Cmp { .. } => "cmp",
            Expr::Lookup { .. } => "lookup",
            Expr::Counter(_) => "objref",
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
    /// The register that a rule uses when one is enough.
    pub const FIRST: Reg = Reg(0);

    /// The register of this index, if there is one.
    #[must_use]
    pub fn new(index: u8) -> Option<Reg> {
        (index < 16).then_some(Reg(index))
    }

    /// 0 to 15.
    #[must_use]
    pub fn index(self) -> usize {
        usize::from(self.0)
    }
}

/// What `meta` loads.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum MetaKey {
    /// 2 for IPv4, 10 for IPv6; one byte.
    Nfproto,
    /// The transport protocol's number, extension headers skipped; one byte.
    L4proto,
    /// Name of the interface that the packet came in by, 16 bytes filled up with NUL.
    Iifname,
    /// Name of the interface that it will leave by.
    Oifname,
}

/// Which header `payload` reads.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Header {
    /// IPv4 or IPv6.
    Network,
    /// TCP, UDP, ICMP and so on; does not match a fragment that has none.
    Transport,
}

/// What `ct` loads.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum CtKey {
    /// A bit of [`ct_state`](crate::ct_state), native-endian u32.
    State,
    /// Bits of [`ct_status`](crate::ct_status), native-endian u32.
    Status,
    /// The destination port of the connection's first packet, before any DNAT; big endian, 2 bytes.
    /// Match the protocol first: nft does not print it otherwise.
    OriginalProtoDst,
}

/// How `cmp` compares.
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

/// A token bucket that counts packets: matches as long as it has a token.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct Limit {
    /// How many tokens come back per `seconds`.
    pub packets: u64,
    /// 1, 60, 3600, 86,400 or 604,800: what nft has words for.
    pub seconds: u64,
    /// How many tokens it has at first and at most.
    pub burst: u32,
}

/// Puts a register into a set.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Dynset {
    /// Where the key starts.
    pub reg: Reg,
    /// The set's name, in the same table.
    pub set: String,
    /// Start the timeout again if it is in the set already.
    pub update: bool,
    /// In place of the set's own timeout; milliseconds.
    pub timeout: Option<Duration>,
}

/// A log line, always with this prefix.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Log {
    /// At most 127 bytes. nft's text has no way to say a quote or a dollar sign in it.
    pub prefix: String,
    /// Where it goes.
    pub to: LogTo,
}

/// Where log lines go.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum LogTo {
    /// The kernel log at level `warning`, with TCP and IP options, which port scan detectors read.
    Kernel,
    /// An NFLOG group.
    Group(u16),
}

/// How a packet's sender is told.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Reject {
    /// A TCP reset; only after matching TCP.
    TcpReset,
    /// ICMP or ICMPv6 port unreachable, whichever fits.
    PortUnreachable,
}

/// What becomes of the packet, or which chain goes on.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Verdict {
    /// Goes on to the next base chain.
    Accept,
    /// Is gone.
    Drop,
    /// Goes back to where the chain was jumped from.
    Return,
    /// Tries another chain and comes back if that has no verdict.
    Jump(String),
    /// Tries another chain and does not come back to this one.
    Goto(String),
}
