//! Expressions that load a register.

use super::Fields;
use crate::ip_version::IpVersion;
use crate::model::{CtKey, Expr, Header, MetaKey, Reg};
use crate::wire::attr::Writer;
use crate::wire::uapi::*;

impl MetaKey {
    const ALL: [MetaKey; 9] = [
        MetaKey::Nfproto,
        MetaKey::L4proto,
        MetaKey::Iifname,
        MetaKey::Oifname,
        MetaKey::Mark,
        MetaKey::Iifkind,
        MetaKey::Oifkind,
        MetaKey::Iif,
        MetaKey::Skuid,
    ];

    fn number(self) -> u32 {
        match self {
            MetaKey::Nfproto => NFT_META_NFPROTO,
            MetaKey::L4proto => NFT_META_L4PROTO,
            MetaKey::Iifname => NFT_META_IIFNAME,
            MetaKey::Oifname => NFT_META_OIFNAME,
            MetaKey::Mark => NFT_META_MARK,
            MetaKey::Iifkind => NFT_META_IIFKIND,
            MetaKey::Oifkind => NFT_META_OIFKIND,
            MetaKey::Iif => NFT_META_IIF,
            MetaKey::Skuid => NFT_META_SKUID,
        }
    }
}

pub(super) fn encode_meta(out: &mut Writer, key: MetaKey, reg: Reg) {
    out.u32(NFTA_META_DREG, reg.number());
    out.u32(NFTA_META_KEY, key.number());
}

pub(super) fn decode_meta(fields: &Fields<'_>) -> Option<Expr> {
    fields.only(&[NFTA_META_DREG, NFTA_META_KEY])?;
    let number = fields.u32(NFTA_META_KEY)?;
    let key = MetaKey::ALL.into_iter().find(|key| key.number() == number)?;
    Some(Expr::Meta { key, reg: fields.reg(NFTA_META_DREG)? })
}

impl Header {
    fn number(self) -> u32 {
        match self {
            Header::Network => NFT_PAYLOAD_NETWORK_HEADER,
            Header::Transport => NFT_PAYLOAD_TRANSPORT_HEADER,
            Header::Link => NFT_PAYLOAD_LL_HEADER,
        }
    }
}

pub(super) fn encode_payload(out: &mut Writer, header: Header, offset: u32, len: u32, reg: Reg) {
    out.u32(NFTA_PAYLOAD_DREG, reg.number());
    out.u32(NFTA_PAYLOAD_BASE, header.number());
    out.u32(NFTA_PAYLOAD_OFFSET, offset);
    out.u32(NFTA_PAYLOAD_LEN, len);
}

pub(super) fn decode_payload(fields: &Fields<'_>) -> Option<Expr> {
    fields.only(&[NFTA_PAYLOAD_DREG, NFTA_PAYLOAD_BASE, NFTA_PAYLOAD_OFFSET, NFTA_PAYLOAD_LEN])?;
    let number = fields.u32(NFTA_PAYLOAD_BASE)?;
    let mut headers = [Header::Network, Header::Transport, Header::Link].into_iter();
    let header = headers.find(|header| header.number() == number)?;
    Some(Expr::Payload {
        header,
        offset: fields.u32(NFTA_PAYLOAD_OFFSET)?,
        len: fields.u32(NFTA_PAYLOAD_LEN)?,
        reg: fields.reg(NFTA_PAYLOAD_DREG)?,
    })
}

pub(super) fn encode_exthdr(out: &mut Writer, kind: u8, offset: u32, len: u32, reg: Reg) {
    out.u32(NFTA_EXTHDR_DREG, reg.number());
    out.u8(NFTA_EXTHDR_TYPE, kind);
    out.u32(NFTA_EXTHDR_OFFSET, offset);
    out.u32(NFTA_EXTHDR_LEN, len);
}

pub(super) fn decode_exthdr(fields: &Fields<'_>) -> Option<Expr> {
    // Flags 0 and operator 0 (an IPv6 extension header) are what the kernel adds.
    fields.only_or_zero(
        &[NFTA_EXTHDR_DREG, NFTA_EXTHDR_TYPE, NFTA_EXTHDR_OFFSET, NFTA_EXTHDR_LEN],
        &[NFTA_EXTHDR_FLAGS, NFTA_EXTHDR_OP],
    )?;
    Some(Expr::Exthdr {
        kind: fields.attr(NFTA_EXTHDR_TYPE)?.u8().ok()?,
        offset: fields.u32(NFTA_EXTHDR_OFFSET)?,
        len: fields.u32(NFTA_EXTHDR_LEN)?,
        reg: fields.reg(NFTA_EXTHDR_DREG)?,
    })
}

/// `IP_CT_DIR_ORIGINAL`.
const ORIGINAL: u8 = 0;

pub(super) fn encode_ct(out: &mut Writer, key: CtKey, reg: Reg) {
    let (number, direction) = match key {
        CtKey::State => (NFT_CT_STATE, None),
        CtKey::Status => (NFT_CT_STATUS, None),
        CtKey::OriginalProtoDst => (NFT_CT_PROTO_DST, Some(ORIGINAL)),
        CtKey::OriginalDaddr(IpVersion::V4) => (NFT_CT_DST_IP, Some(ORIGINAL)),
        CtKey::OriginalDaddr(IpVersion::V6) => (NFT_CT_DST_IP6, Some(ORIGINAL)),
    };
    out.u32(NFTA_CT_DREG, reg.number());
    out.u32(NFTA_CT_KEY, number);
    if let Some(direction) = direction {
        out.u8(NFTA_CT_DIRECTION, direction);
    }
}

pub(super) fn decode_ct(fields: &Fields<'_>) -> Option<Expr> {
    fields.only(&[NFTA_CT_DREG, NFTA_CT_KEY, NFTA_CT_DIRECTION])?;
    let direction = fields.attr(NFTA_CT_DIRECTION).and_then(|attr| attr.u8().ok());
    let key = match (fields.u32(NFTA_CT_KEY)?, direction) {
        (NFT_CT_STATE, None) => CtKey::State,
        (NFT_CT_STATUS, None) => CtKey::Status,
        (NFT_CT_PROTO_DST, Some(ORIGINAL)) => CtKey::OriginalProtoDst,
        (NFT_CT_DST_IP, Some(ORIGINAL)) => CtKey::OriginalDaddr(IpVersion::V4),
        (NFT_CT_DST_IP6, Some(ORIGINAL)) => CtKey::OriginalDaddr(IpVersion::V6),
        _ => return None,
    };
    Some(Expr::Ct { key, reg: fields.reg(NFTA_CT_DREG)? })
}

/// What `fib` looks up: the kernel's result and flags.
pub(super) type FibQuestion = (u32, u32);

pub(super) const DADDR_TYPE: FibQuestion = (NFT_FIB_RESULT_ADDRTYPE, NFTA_FIB_F_DADDR);
pub(super) const SADDR_TYPE: FibQuestion = (NFT_FIB_RESULT_ADDRTYPE, NFTA_FIB_F_SADDR);
pub(super) const RETURN_PATH: FibQuestion =
    (NFT_FIB_RESULT_OIF, NFTA_FIB_F_SADDR | NFTA_FIB_F_MARK | NFTA_FIB_F_IIF);

pub(super) fn encode_fib(out: &mut Writer, (result, flags): FibQuestion, reg: Reg) {
    out.u32(NFTA_FIB_DREG, reg.number());
    out.u32(NFTA_FIB_RESULT, result);
    out.u32(NFTA_FIB_FLAGS, flags);
}

pub(super) fn decode_fib(fields: &Fields<'_>) -> Option<Expr> {
    fields.only(&[NFTA_FIB_DREG, NFTA_FIB_RESULT, NFTA_FIB_FLAGS])?;
    let reg = fields.reg(NFTA_FIB_DREG)?;
    match (fields.u32(NFTA_FIB_RESULT)?, fields.u32(NFTA_FIB_FLAGS)?) {
        DADDR_TYPE => Some(Expr::FibDaddrType { reg }),
        SADDR_TYPE => Some(Expr::FibSaddrType { reg }),
        RETURN_PATH => Some(Expr::FibReturnPath { reg }),
        _ => None,
    }
}
