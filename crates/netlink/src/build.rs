//! Short words for the expressions that rules are put together from.
//!
//! Every function that returns several expressions is one match: it loads into [`REG`] and compares
//! at once, so matches can stand one behind the other in any order.

use crate::ip_version::IpVersion;
use crate::model::{CmpOp, CtKey, Expr, Header, MetaKey, Reg, Verdict};
use crate::symbols::{ct_state, protocol as number};

/// The register that all of these load into.
pub const REG: Reg = Reg::FIRST;

/// One end of a packet's way.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum End {
    /// Where the packet comes from.
    Source,
    /// Where the packet goes.
    Destination,
}

/// The bytes that the kernel keeps of an interface's name.
const INTERFACE_NAME_BYTES: usize = 16;

/// An interface as rules name it.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum InterfaceName<'a> {
    /// The interface of this name.
    Exact(&'a str),
    /// Every interface whose name starts so.
    Prefix(&'a str),
}

impl InterfaceName<'_> {
    /// Returns what a rule compares with: a name in full with the NULs behind it, the start of one
    /// without. The kernel holds other names so too, such as the kinds of interfaces.
    #[must_use]
    pub fn bytes(self) -> Vec<u8> {
        match self {
            InterfaceName::Exact(name) => {
                let mut bytes = name.as_bytes().to_vec();
                bytes.resize(INTERFACE_NAME_BYTES, 0);
                bytes
            }
            InterfaceName::Prefix(name) => name.as_bytes().to_vec(),
        }
    }
}

/// Matches packets of an IP version.
#[must_use]
pub fn ip_version(version: IpVersion) -> Vec<Expr> {
    equals(meta(MetaKey::Nfproto), vec![version.family()])
}

/// Matches packets of a transport protocol, by its number.
#[must_use]
pub fn protocol(number: u8) -> Vec<Expr> {
    equals(meta(MetaKey::L4proto), vec![number])
}

/// Matches packets of the version's ICMP: ICMP or ICMPv6.
#[must_use]
pub fn icmp(version: IpVersion) -> Vec<Expr> {
    let number = match version {
        IpVersion::V4 => number::ICMP,
        IpVersion::V6 => number::ICMPV6,
    };
    [ip_version(version), protocol(number)].concat()
}

/// Matches packets that came in by an interface (or, with [`CmpOp::Neq`], by any other).
#[must_use]
pub fn iifname(op: CmpOp, interface: InterfaceName<'_>) -> Vec<Expr> {
    compare(meta(MetaKey::Iifname), op, interface.bytes())
}

/// Matches packets that leave by an interface (or, with [`CmpOp::Neq`], by any other).
#[must_use]
pub fn oifname(op: CmpOp, interface: InterfaceName<'_>) -> Vec<Expr> {
    compare(meta(MetaKey::Oifname), op, interface.bytes())
}

/// Matches packets of connections that have seen packets both ways, and of those related to them.
#[must_use]
pub fn established() -> Vec<Expr> {
    any_bit(CtKey::State, ct_state::ESTABLISHED | ct_state::RELATED)
}

/// Matches packets that connection tracking can make nothing of.
#[must_use]
pub fn invalid() -> Vec<Expr> {
    any_bit(CtKey::State, ct_state::INVALID)
}

/// Matches packets that connection tracking does not look at.
#[must_use]
pub fn untracked() -> Vec<Expr> {
    any_bit(CtKey::State, ct_state::UNTRACKED)
}

/// Matches packets whose connection has any of these bits of [`ct_status`](crate::ct_status).
#[must_use]
pub fn ct_status(bits: u32) -> Vec<Expr> {
    any_bit(CtKey::Status, bits)
}

fn any_bit(key: CtKey, bits: u32) -> Vec<Expr> {
    let zero = vec![0; 4];
    vec![
        Expr::Ct { key, reg: REG },
        Expr::Bitwise { reg: REG, mask: bits.to_ne_bytes().to_vec(), xor: zero.clone() },
        Expr::Cmp { reg: REG, op: CmpOp::Neq, data: zero },
    ]
}

/// Matches packets whose destination address is of a type of [`fib_type`](crate::fib_type).
#[must_use]
pub fn fib_type(kind: u32) -> Vec<Expr> {
    destination_type(CmpOp::Eq, kind)
}

/// Matches packets whose destination address is of a type of [`fib_type`](crate::fib_type), or of any
/// other with [`CmpOp::Neq`].
#[must_use]
pub fn destination_type(op: CmpOp, kind: u32) -> Vec<Expr> {
    compare(Expr::FibDaddrType { reg: REG }, op, kind.to_ne_bytes().to_vec())
}

/// Matches packets whose source address is of a type of [`fib_type`](crate::fib_type), or of any other
/// with [`CmpOp::Neq`].
#[must_use]
pub fn source_type(op: CmpOp, kind: u32) -> Vec<Expr> {
    compare(Expr::FibSaddrType { reg: REG }, op, kind.to_ne_bytes().to_vec())
}

/// Matches packets to whose source the routing tables do not lead by the interface that they came in
/// by.
#[must_use]
pub fn no_return_path() -> Vec<Expr> {
    equals(Expr::FibReturnPath { reg: REG }, vec![0; 4])
}

/// Matches packets with this mark, or with any other with [`CmpOp::Neq`].
#[must_use]
pub fn mark(op: CmpOp, mark: u32) -> Vec<Expr> {
    compare(meta(MetaKey::Mark), op, mark.to_ne_bytes().to_vec())
}

/// Matches IPv6 packets with a routing header of type 0.
#[must_use]
pub fn routing_header_0() -> Vec<Expr> {
    let kind = Expr::Exthdr { kind: 43, offset: 2, len: 1, reg: REG };
    [ip_version(IpVersion::V6), equals(kind, vec![0])].concat()
}

/// Loads the address; its version must have been matched.
#[must_use]
pub fn address(version: IpVersion, end: End) -> Expr {
    address_start(version, end, version.address_bytes())
}

fn address_start(version: IpVersion, end: End, len: usize) -> Expr {
    let offset = match (version, end) {
        (IpVersion::V4, End::Source) => 12,
        (IpVersion::V4, End::Destination) => 16,
        (IpVersion::V6, End::Source) => 8,
        (IpVersion::V6, End::Destination) => 24,
    };
    let len = u32::try_from(len).unwrap_or(u32::MAX);
    Expr::Payload { header: Header::Network, offset, len, reg: REG }
}

/// Matches an address within a prefix, given as its network's bytes and its length. Its version
/// must have been matched.
#[must_use]
pub fn in_prefix(version: IpVersion, end: End, network: &[u8], len: u8) -> Vec<Expr> {
    let cmp = |data: &[u8]| Expr::Cmp { reg: REG, op: CmpOp::Eq, data: data.to_vec() };
    let bytes = usize::from(len / 8);
    // Whole bytes need no mask, which is less work for each packet and each load.
    match network.get(..bytes) {
        Some(start) if len > 0 && len.is_multiple_of(8) => {
            vec![address_start(version, end, bytes), cmp(start)]
        }
        _ => vec![address(version, end), keep_prefix(network.len(), len), cmp(network)],
    }
}

/// Keeps the first `len` bits of the register's `bytes`, and clears the rest.
#[must_use]
pub fn keep_prefix(bytes: usize, len: u8) -> Expr {
    Expr::Bitwise { reg: REG, mask: prefix_mask(bytes, len), xor: vec![0; bytes] }
}

/// Returns the mask of a prefix: its first `len` bits are set.
#[must_use]
pub fn prefix_mask(bytes: usize, len: u8) -> Vec<u8> {
    (0..bytes)
        .map(|at| {
            let ones = usize::from(len).saturating_sub(at * 8).min(8);
            u8::try_from(0xff00 >> ones & 0xff).unwrap_or(0)
        })
        .collect()
}

/// Matches TCP packets of whose flags in `mask` exactly `flags` are set. TCP must have been matched.
#[must_use]
pub fn tcp_flags(mask: u8, flags: u8) -> Vec<Expr> {
    vec![
        Expr::Payload { header: Header::Transport, offset: 13, len: 1, reg: REG },
        Expr::Bitwise { reg: REG, mask: vec![mask], xor: vec![0] },
        Expr::Cmp { reg: REG, op: CmpOp::Eq, data: vec![flags] },
    ]
}

/// Matches IPv6 packets that no router has passed on: their hop limit is 255. IPv6 must have been
/// matched.
#[must_use]
pub fn hop_limit_255() -> Vec<Expr> {
    let field = Expr::Payload { header: Header::Network, offset: 7, len: 1, reg: REG };
    equals(field, vec![255])
}

/// Loads the port of TCP or UDP; the protocol must have been matched.
#[must_use]
pub fn port(end: End) -> Expr {
    let offset = match end {
        End::Source => 0,
        End::Destination => 2,
    };
    Expr::Payload { header: Header::Transport, offset, len: 2, reg: REG }
}

/// Loads the destination port from before DNAT; the protocol must have been matched.
#[must_use]
pub fn original_port() -> Expr {
    Expr::Ct { key: CtKey::OriginalProtoDst, reg: REG }
}

/// Loads the destination address from before DNAT; its version must have been matched.
#[must_use]
pub fn original_address(version: IpVersion) -> Expr {
    Expr::Ct { key: CtKey::OriginalDaddr(version), reg: REG }
}

/// Matches connections that were opened to an address within a prefix, before any DNAT. The version must
/// have been matched.
#[must_use]
pub fn original_in_prefix(version: IpVersion, network: &[u8], len: u8) -> Vec<Expr> {
    let cmp = |data: &[u8]| Expr::Cmp { reg: REG, op: CmpOp::Eq, data: data.to_vec() };
    match network.get(..usize::from(len / 8)) {
        Some(start) if len > 0 && len.is_multiple_of(8) => {
            vec![original_address(version), cmp(start)]
        }
        _ => vec![original_address(version), keep_prefix(network.len(), len), cmp(network)],
    }
}

/// Matches packets that no interface brought.
#[must_use]
pub fn no_iif() -> Vec<Expr> {
    equals(meta(MetaKey::Iif), vec![0; 4])
}

/// Matches packets that a program of this network namespace sends.
#[must_use]
pub fn of_a_program() -> Vec<Expr> {
    // `(uid_t) -1` is no user.
    compare(meta(MetaKey::Skuid), CmpOp::Neq, vec![0xff; 4])
}

/// Matches packets that have the header of the link which they came by. The bytes are the high half of the
/// EtherType, which 0xff does not begin, so every such header matches.
#[must_use]
pub fn has_link_header() -> Vec<Expr> {
    let field = Expr::Payload { header: Header::Link, offset: 12, len: 1, reg: REG };
    compare(field, CmpOp::Neq, vec![0xff])
}

/// Matches a port from the first to the last. `load` is [`port`] or [`original_port`].
#[must_use]
pub fn in_range(load: Expr, (first, last): (u16, u16)) -> Vec<Expr> {
    let cmp = |op, port: u16| Expr::Cmp { reg: REG, op, data: port.to_be_bytes().to_vec() };
    if first == last {
        vec![load, cmp(CmpOp::Eq, first)]
    } else {
        vec![load, cmp(CmpOp::Gte, first), cmp(CmpOp::Lte, last)]
    }
}

/// Loads the type of ICMP or ICMPv6; the protocol must have been matched.
#[must_use]
pub fn icmp_type() -> Expr {
    Expr::Payload { header: Header::Transport, offset: 0, len: 1, reg: REG }
}

/// Loads a property of the packet.
#[must_use]
pub fn meta(key: MetaKey) -> Expr {
    Expr::Meta { key, reg: REG }
}

/// Matches if what `load` loads is these bytes.
#[must_use]
pub fn equals(load: Expr, data: Vec<u8>) -> Vec<Expr> {
    compare(load, CmpOp::Eq, data)
}

/// Matches if what `load` loads compares so with these bytes.
#[must_use]
pub fn compare(load: Expr, op: CmpOp, data: Vec<u8>) -> Vec<Expr> {
    vec![load, Expr::Cmp { reg: REG, op, data }]
}

/// Matches if the key that was loaded is in a set.
#[must_use]
pub fn in_set(set: &str) -> Expr {
    Expr::Lookup { reg: REG, set: set.to_owned(), inverted: false }
}

/// Matches if the key that was loaded is not in a set.
#[must_use]
pub fn not_in_set(set: &str) -> Expr {
    Expr::Lookup { reg: REG, set: set.to_owned(), inverted: true }
}

/// Lets the packet pass this base chain.
#[must_use]
pub fn accept() -> Expr {
    Expr::Verdict(Verdict::Accept)
}

/// Drops the packet.
#[must_use]
pub fn discard() -> Expr {
    Expr::Verdict(Verdict::Drop)
}

/// Goes on in another chain, and comes back if that has no verdict.
#[must_use]
pub fn jump(chain: &str) -> Expr {
    Expr::Verdict(Verdict::Jump(chain.to_owned()))
}

/// Goes on in another chain, and does not come back to this one.
#[must_use]
pub fn goto(chain: &str) -> Expr {
    Expr::Verdict(Verdict::Goto(chain.to_owned()))
}
