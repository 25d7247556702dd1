//! Translation of iptables-nft's opaque bytes, and of nft's expressions that nfguard never writes,
//! into expressions of the model.
//!
//! The layouts are those of the kernel's `include/uapi/linux/netfilter/xt_*.h` and `nf_nat.h`, in
//! the machine's byte order where they are numbers.

use std::collections::BTreeMap;

use super::nat::{Nat, port};
use super::{Family, ForeignRule};
use crate::ip_version::address_from_bytes;
use crate::model::{CmpOp, CtKey, Expr, Header, MetaKey, Reg, Reject};
use crate::wire::attr::{Attr, Attrs};
use crate::wire::uapi::*;

pub(super) fn translate(family: Family, exprs: &[Expr]) -> Vec<ForeignRule> {
    let listed = exprs.iter().enumerate().find_map(|(at, expr)| Some((at, listed_ports(expr)?)));
    let Some((at, ports)) = listed else { return vec![translate_one(family, exprs)] };
    let with = |ports: Vec<Expr>| {
        let (before, after) = exprs.split_at_checked(at).unwrap_or_default();
        let after = after.iter().skip(1).cloned();
        translate_one(family, &before.iter().cloned().chain(ports).chain(after).collect::<Vec<_>>())
    };
    ports.into_iter().map(with).collect()
}

fn translate_one(family: Family, exprs: &[Expr]) -> ForeignRule {
    let mut rule = ForeignRule::default();
    let mut values = BTreeMap::new();
    let mut rest = exprs;
    while let Some((first, after)) = rest.split_first() {
        rest = after;
        let Expr::Unknown { name, data } = first else {
            rule.exprs.push(first.clone());
            continue;
        };
        let fields = Fields(data);
        let translated = match name.as_str() {
            "match" => matched(fields),
            "target" => target(family, fields, &mut rule.nat),
            "range" => range(fields),
            "meta" => loopback(fields, &mut rest),
            "immediate" => value(fields, &mut values),
            "nat" => rewrite(fields, &values, &mut rule.nat),
            "masq" => {
                rule.nat = Some(Nat::Source);
                Some(Vec::new())
            }
            _ => None,
        };
        rule.exprs.extend(translated.unwrap_or_else(|| vec![first.clone()]));
    }
    rule
}

/// The attributes of one expression.
#[derive(Clone, Copy)]
struct Fields<'a>(&'a [u8]);

impl<'a> Fields<'a> {
    fn attr(self, kind: u16) -> Option<Attr<'a>> {
        Attrs(self.0).filter_map(Result::ok).find(|attr| attr.kind == kind)
    }

    fn u32(self, kind: u16) -> Option<u32> {
        self.attr(kind)?.u32().ok()
    }

    fn data(self, kind: u16) -> Option<Vec<u8>> {
        let value = self.attr(kind)?.nested().next()?.ok()?;
        (value.kind == NFTA_DATA_VALUE).then(|| value.value.to_vec())
    }
}

/// A match of iptables.
fn matched(fields: Fields<'_>) -> Option<Vec<Expr>> {
    let info = fields.attr(NFTA_MATCH_INFO)?.value;
    match (fields.attr(NFTA_MATCH_NAME)?.string().as_str(), fields.u32(NFTA_MATCH_REV)?) {
        ("comment", _) => Some(Vec::new()),
        ("tcp" | "udp", 0) => ports(info),
        ("conntrack", 2..) => conntrack(info),
        ("addrtype", 1) => address_type(info),
        _ => None,
    }
}

/// `struct xt_tcp`, and `struct xt_udp`, which is its beginning: ports from and to, then what is
/// wanted of options and flags, then which of all that is inverted.
fn ports(info: &[u8]) -> Option<Vec<Expr>> {
    let (ports, more) = info.split_first_chunk::<8>()?;
    if more.iter().any(|byte| *byte != 0) {
        return None;
    }
    let numbers = ports.as_chunks::<2>().0.iter().map(|two| u16::from_ne_bytes(*two));
    let numbers: Vec<u16> = numbers.collect();
    let [first_from, last_from, first_to, last_to] = numbers[..] else { return None };
    let all = [(0, first_from, last_from), (2, first_to, last_to)];
    let wanted = all.into_iter().filter(|(_, first, last)| (*first, *last) != (0, u16::MAX));
    Some(wanted.flat_map(|(offset, first, last)| between(offset, first, last)).collect())
}

/// Reads `struct xt_multiport_v1` if it matches one of several destination ports. Returns the match
/// of each port or range.
fn listed_ports(expr: &Expr) -> Option<Vec<Vec<Expr>>> {
    let Expr::Unknown { name, data } = expr else { return None };
    let fields = Fields(data);
    let is_it = name == "match" && fields.attr(NFTA_MATCH_NAME)?.string() == "multiport";
    let info = fields.attr(NFTA_MATCH_INFO).filter(|_| is_it)?.value;
    // The mode and the number of ports; fifteen ports; for each whether the next one ends a range; the
    // inversion.
    let ([1, count], rest) = info.split_first_chunk::<2>()? else { return None };
    let (ports, rest) = rest.split_first_chunk::<30>()?;
    let (opens_range, rest) = rest.split_first_chunk::<15>()?;
    let numbers = ports.as_chunks::<2>().0.iter().map(|two| u16::from_ne_bytes(*two));
    let mut ports = numbers.zip(opens_range).take(usize::from(*count));
    let mut listed = Vec::new();
    while let Some((first, opens_range)) = ports.next() {
        let last = if *opens_range == 0 { first } else { ports.next()?.0 };
        listed.push(between(2, first, last));
    }
    (fields.u32(NFTA_MATCH_REV)? == 1 && rest.first() == Some(&0)).then_some(listed)
}

/// Matches a port of the transport header from the first to the last.
fn between(offset: u32, first: u16, last: u16) -> Vec<Expr> {
    let reg = Reg::FIRST;
    let ends = [(CmpOp::Gte, first), (CmpOp::Lte, last)];
    let ends = ends.map(|(op, end)| Expr::Cmp { reg, op, data: end.to_be_bytes().to_vec() });
    let load = Expr::Payload { header: Header::Transport, offset, len: 2, reg };
    [load].into_iter().chain(ends).collect()
}

/// Reads `struct xt_conntrack_mtinfo2` and its longer successor if they match nothing but states.
fn conntrack(info: &[u8]) -> Option<Vec<Expr>> {
    let two = |at: usize| info.get(at..)?.first_chunk().copied().map(u16::from_ne_bytes);
    let (wanted, inverted, states) = (two(146)?, two(148)?, two(150)?);
    // `XT_CONNTRACK_STATE`; the bits of address translation are not among nft's.
    if wanted != 1 || inverted > 1 || states == 0 || states >= 1 << 6 {
        return None;
    }
    let reg = Reg::FIRST;
    Some(vec![
        Expr::Ct { key: CtKey::State, reg },
        Expr::Bitwise { reg, mask: u32::from(states).to_ne_bytes().to_vec(), xor: vec![0; 4] },
        Expr::Cmp { reg, op: if inverted == 0 { CmpOp::Neq } else { CmpOp::Eq }, data: vec![0; 4] },
    ])
}

/// Reads `struct xt_addrtype_info_v1` if it matches one type of the destination.
fn address_type(info: &[u8]) -> Option<Vec<Expr>> {
    let (source, rest) = info.split_first_chunk::<2>()?;
    let (destination, rest) = rest.split_first_chunk::<2>()?;
    let destination = u16::from_ne_bytes(*destination);
    let op = match u32::from_ne_bytes(*rest.first_chunk()?) {
        0 => CmpOp::Eq,
        // `XT_ADDRTYPE_INVERT_DEST`
        2 => CmpOp::Neq,
        _ => return None,
    };
    (*source == [0; 2] && destination.is_power_of_two()).then(|| {
        let reg = Reg::FIRST;
        let kind = destination.trailing_zeros();
        vec![Expr::FibDaddrType { reg }, Expr::Cmp { reg, op, data: kind.to_ne_bytes().to_vec() }]
    })
}

/// Translates a target of iptables.
fn target(family: Family, fields: Fields<'_>, nat: &mut Option<Nat>) -> Option<Vec<Expr>> {
    let info = fields.attr(NFTA_TARGET_INFO)?.value;
    match (fields.attr(NFTA_TARGET_NAME)?.string().as_str(), fields.u32(NFTA_TARGET_REV)?) {
        // The packet goes on to the next rule.
        ("LOG" | "NFLOG" | "MARK" | "CONNMARK" | "TRACE" | "TCPMSS" | "CT" | "SET", _) => {}
        ("REJECT", _) => return Some(vec![Expr::Reject(Reject::PortUnreachable)]),
        ("MASQUERADE" | "SNAT", _) => *nat = Some(Nat::Source),
        ("DNAT", revision) => *nat = Some(destination(family, revision, info)?),
        _ => return None,
    }
    Some(Vec::new())
}

/// Reads `struct nf_nat_ipv4_multi_range_compat` of revision 0, and `struct nf_nat_range` or its
/// longer successor of later revisions.
fn destination(family: Family, revision: u32, info: &[u8]) -> Option<Nat> {
    let (flags, first, ports) = if revision == 0 { (4, 8, 16) } else { (0, 4, 36) };
    let flags = u32::from_ne_bytes(*info.get(flags..)?.first_chunk()?);
    let length = if family == Family::Ip6 { 16 } else { 4 };
    // `NF_NAT_RANGE_MAP_IPS` and `NF_NAT_RANGE_PROTO_SPECIFIED`
    let to = (flags & 1 != 0).then(|| info.get(first..first + length).and_then(address_from_bytes));
    let to_port = (flags & 2 != 0).then(|| info.get(ports..ports + 2).and_then(port));
    Some(Nat::Destination { address: to.flatten(), port: to_port.flatten() })
}

/// Translates nft's expression of a value between two others.
fn range(fields: Fields<'_>) -> Option<Vec<Expr>> {
    if fields.u32(NFTA_RANGE_OP)? != NFT_RANGE_EQ {
        return None;
    }
    let reg = Reg::from_number(fields.u32(NFTA_RANGE_SREG)?)?;
    let between = |op, kind| Some(Expr::Cmp { reg, op, data: fields.data(kind)? });
    Some(vec![between(CmpOp::Gte, NFTA_RANGE_FROM_DATA)?, between(CmpOp::Lte, NFTA_RANGE_TO_DATA)?])
}

/// Translates `meta iif "lo"`, an interface by its index. The loopback interface has index 1 in every
/// namespace.
fn loopback(fields: Fields<'_>, rest: &mut &[Expr]) -> Option<Vec<Expr>> {
    let reg = Reg::from_number(fields.u32(NFTA_META_DREG)?)?;
    let is_index = fields.u32(NFTA_META_KEY)? == NFT_META_IIF;
    let (next, after) = rest.split_first()?;
    let Expr::Cmp { reg: compared, op, data } = next else { return None };
    if !is_index || *compared != reg || *data != 1u32.to_ne_bytes() {
        return None;
    }
    *rest = after;
    let name = Expr::Cmp { reg, op: *op, data: b"lo\0".to_vec() };
    Some(vec![Expr::Meta { key: MetaKey::Iifname, reg }, name])
}

/// Keeps the value that a register gets for a later expression.
fn value(fields: Fields<'_>, values: &mut BTreeMap<u32, Vec<u8>>) -> Option<Vec<Expr>> {
    values.insert(fields.u32(NFTA_IMMEDIATE_DREG)?, fields.data(NFTA_IMMEDIATE_DATA)?);
    Some(Vec::new())
}

/// Translates nft's `dnat` and `snat`.
fn rewrite(
    fields: Fields<'_>,
    values: &BTreeMap<u32, Vec<u8>>,
    nat: &mut Option<Nat>,
) -> Option<Vec<Expr>> {
    let held = |kind| fields.u32(kind).and_then(|reg| values.get(&reg));
    *nat = Some(match fields.u32(NFTA_NAT_TYPE)? {
        NFT_NAT_SNAT => Nat::Source,
        NFT_NAT_DNAT => Nat::Destination {
            address: held(NFTA_NAT_REG_ADDR_MIN).and_then(|data| address_from_bytes(data)),
            port: held(NFTA_NAT_REG_PROTO_MIN).and_then(|data| port(data)),
        },
        _ => return None,
    });
    Some(Vec::new())
}
