//! Builders of the expressions that rules consist of.

use nfguard_netlink::{
    CmpOp, CtKey, Expr, Header, IpVersion, MetaKey, Reg, ct_state, protocol as number,
};

use crate::policy::Interface;

/// The register of every match here. A match loads a value and compares it at once.
const REG: Reg = Reg::FIRST;

/// Source or destination of a packet.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum End {
    Source,
    Destination,
}

pub(super) fn ip_version(version: IpVersion) -> Vec<Expr> {
    // AF_INET and AF_INET6.
    let number = if version == IpVersion::V4 { 2 } else { 10 };
    compare(meta(MetaKey::Nfproto), CmpOp::Eq, vec![number])
}

pub(super) fn protocol(number: u8) -> Vec<Expr> {
    compare(meta(MetaKey::L4proto), CmpOp::Eq, vec![number])
}

pub(super) fn iifname(interface: &Interface) -> Vec<Expr> {
    compare(meta(MetaKey::Iifname), CmpOp::Eq, name(interface))
}

pub(super) fn oifname(interface: &Interface) -> Vec<Expr> {
    compare(meta(MetaKey::Oifname), CmpOp::Eq, name(interface))
}

/// Returns the bytes to compare. A full name includes the NULs behind it; the start of a name does
/// not.
fn name(interface: &Interface) -> Vec<u8> {
    let mut bytes = interface.name.clone().into_bytes();
    if !interface.wildcard {
        bytes.resize(16, 0);
    }
    bytes
}

pub(super) fn established() -> Vec<Expr> {
    bits(CtKey::State, ct_state::ESTABLISHED | ct_state::RELATED)
}

pub(super) fn invalid() -> Vec<Expr> {
    bits(CtKey::State, ct_state::INVALID)
}

pub(super) fn ct_status(status: u32) -> Vec<Expr> {
    bits(CtKey::Status, status)
}

fn bits(key: CtKey, bits: u32) -> Vec<Expr> {
    let zero = vec![0; 4];
    vec![
        Expr::Ct { key, reg: REG },
        Expr::Bitwise { reg: REG, mask: bits.to_ne_bytes().to_vec(), xor: zero.clone() },
        Expr::Cmp { reg: REG, op: CmpOp::Neq, data: zero },
    ]
}

pub(super) fn fib_type(kind: u32) -> Vec<Expr> {
    compare(Expr::FibDaddrType { reg: REG }, CmpOp::Eq, kind.to_ne_bytes().to_vec())
}

/// Matches an IPv6 routing header of type 0.
pub(super) fn rh0() -> Vec<Expr> {
    let kind = Expr::Exthdr { kind: 43, offset: 2, len: 1, reg: REG };
    [ip_version(IpVersion::V6), compare(kind, CmpOp::Eq, vec![0])].concat()
}

/// Loads an address. The rule must have matched its IP version.
pub(super) fn address(of: IpVersion, end: End) -> Expr {
    let len = if of == IpVersion::V4 { 4 } else { 16 };
    start_of_address(of, end, len)
}

/// Loads the first `len` bytes of an address.
fn start_of_address(of: IpVersion, end: End, len: u8) -> Expr {
    let offset = match (of, end) {
        (IpVersion::V4, End::Source) => 12,
        (IpVersion::V4, End::Destination) => 16,
        (IpVersion::V6, End::Source) => 8,
        (IpVersion::V6, End::Destination) => 24,
    };
    Expr::Payload { header: Header::Network, offset, len: len.into(), reg: REG }
}

/// Matches an address within a prefix, given by the bytes of its network and its length.
pub(super) fn in_prefix(of: IpVersion, end: End, network: &[u8], len: u8) -> Vec<Expr> {
    let equals = |data: &[u8]| Expr::Cmp { reg: REG, op: CmpOp::Eq, data: data.to_vec() };
    // A prefix of whole bytes needs no mask, which saves work for each packet and each load.
    match network.get(..usize::from(len / 8)) {
        Some(start) if len > 0 && len.is_multiple_of(8) => {
            vec![start_of_address(of, end, len / 8), equals(start)]
        }
        _ => vec![address(of, end), mask(network.len(), len), equals(network)],
    }
}

/// Keeps the first `len` bits of the register's `bytes`.
pub(super) fn mask(bytes: usize, len: u8) -> Expr {
    let mask = (0..bytes)
        .map(|at| {
            let ones = usize::from(len).saturating_sub(at * 8).min(8);
            u8::try_from(0xff00 >> ones & 0xff).unwrap_or(0)
        })
        .collect();
    Expr::Bitwise { reg: REG, mask, xor: vec![0; bytes] }
}

/// Matches packets whose flags within `mask` are exactly `flags`. The rule must have matched TCP.
pub(super) fn tcp_flags(mask: u8, flags: u8) -> Vec<Expr> {
    vec![
        Expr::Payload { header: Header::Transport, offset: 13, len: 1, reg: REG },
        Expr::Bitwise { reg: REG, mask: vec![mask], xor: vec![0] },
        Expr::Cmp { reg: REG, op: CmpOp::Eq, data: vec![flags] },
    ]
}

pub(super) fn hop_limit_255() -> Vec<Expr> {
    let field = Expr::Payload { header: Header::Network, offset: 7, len: 1, reg: REG };
    compare(field, CmpOp::Eq, vec![255])
}

/// Loads a port of the packet. The rule must have matched the protocol.
pub(super) fn port(end: End) -> Expr {
    let offset = if end == End::Source { 0 } else { 2 };
    Expr::Payload { header: Header::Transport, offset, len: 2, reg: REG }
}

/// Loads the destination port before DNAT. The rule must have matched the protocol.
pub(super) fn original_port() -> Expr {
    Expr::Ct { key: CtKey::OriginalProtoDst, reg: REG }
}

/// Matches a loaded port within a range.
pub(super) fn in_range(field: Expr, (first, last): (u16, u16)) -> Vec<Expr> {
    let cmp = |op, port: u16| Expr::Cmp { reg: REG, op, data: port.to_be_bytes().to_vec() };
    if first == last {
        vec![field, cmp(CmpOp::Eq, first)]
    } else {
        vec![field, cmp(CmpOp::Gte, first), cmp(CmpOp::Lte, last)]
    }
}

/// Matches the IP version and its ICMP protocol.
pub(super) fn icmp(of: IpVersion) -> Vec<Expr> {
    let number = if of == IpVersion::V4 { number::ICMP } else { number::ICMPV6 };
    [ip_version(of), protocol(number)].concat()
}

/// Loads the ICMP type. The rule must have matched the protocol.
pub(super) fn icmp_type() -> Expr {
    Expr::Payload { header: Header::Transport, offset: 0, len: 1, reg: REG }
}

pub(super) fn equals(field: Expr, data: Vec<u8>) -> Vec<Expr> {
    compare(field, CmpOp::Eq, data)
}

pub(super) fn lookup(set: &str, inverted: bool) -> Expr {
    Expr::Lookup { reg: REG, set: set.to_owned(), inverted }
}

fn meta(key: MetaKey) -> Expr {
    Expr::Meta { key, reg: REG }
}

fn compare(load: Expr, op: CmpOp, data: Vec<u8>) -> Vec<Expr> {
    vec![load, Expr::Cmp { reg: REG, op, data }]
}
