//! Expressions that compare a register.

use super::{Fields, write_data};
use crate::model::{CmpOp, Expr, Reg};
use crate::wire::attr::Writer;
use crate::wire::uapi::*;

impl CmpOp {
    const ALL: [CmpOp; 6] = [CmpOp::Eq, CmpOp::Neq, CmpOp::Lt, CmpOp::Lte, CmpOp::Gt, CmpOp::Gte];

    fn number(self) -> u32 {
        match self {
            CmpOp::Eq => NFT_CMP_EQ,
            CmpOp::Neq => NFT_CMP_NEQ,
            CmpOp::Lt => NFT_CMP_LT,
            CmpOp::Lte => NFT_CMP_LTE,
            CmpOp::Gt => NFT_CMP_GT,
            CmpOp::Gte => NFT_CMP_GTE,
        }
    }
}

pub(super) fn encode_cmp(out: &mut Writer, reg: Reg, op: CmpOp, data: &[u8]) {
    out.u32(NFTA_CMP_SREG, reg.number());
    out.u32(NFTA_CMP_OP, op.number());
    write_data(out, NFTA_CMP_DATA, data);
}

pub(super) fn decode_cmp(fields: &Fields<'_>) -> Option<Expr> {
    fields.only(&[NFTA_CMP_SREG, NFTA_CMP_OP, NFTA_CMP_DATA])?;
    let number = fields.u32(NFTA_CMP_OP)?;
    Some(Expr::Cmp {
        reg: fields.reg(NFTA_CMP_SREG)?,
        op: CmpOp::ALL.into_iter().find(|op| op.number() == number)?,
        data: fields.data(NFTA_CMP_DATA)?,
    })
}

pub(super) fn encode_bitwise(out: &mut Writer, reg: Reg, mask: &[u8], xor: &[u8]) {
    out.u32(NFTA_BITWISE_SREG, reg.number());
    out.u32(NFTA_BITWISE_DREG, reg.number());
    out.u32(NFTA_BITWISE_LEN, u32::try_from(mask.len()).unwrap_or(u32::MAX));
    write_data(out, NFTA_BITWISE_MASK, mask);
    write_data(out, NFTA_BITWISE_XOR, xor);
}

pub(super) fn decode_bitwise(fields: &Fields<'_>) -> Option<Expr> {
    // Operator 0 is mask and xor, which the kernel adds since 5.7.
    fields.only_or_zero(
        &[
            NFTA_BITWISE_SREG,
            NFTA_BITWISE_DREG,
            NFTA_BITWISE_LEN,
            NFTA_BITWISE_MASK,
            NFTA_BITWISE_XOR,
        ],
        &[NFTA_BITWISE_OP],
    )?;
    let (from, reg) = (fields.reg(NFTA_BITWISE_SREG)?, fields.reg(NFTA_BITWISE_DREG)?);
    let (mask, xor) = (fields.data(NFTA_BITWISE_MASK)?, fields.data(NFTA_BITWISE_XOR)?);
    let len = usize::try_from(fields.u32(NFTA_BITWISE_LEN)?).ok()?;
    (from == reg && mask.len() == len && xor.len() == len).then_some(Expr::Bitwise {
        reg,
        mask,
        xor,
    })
}

pub(super) fn encode_lookup(out: &mut Writer, reg: Reg, set: &str, inverted: bool) {
    out.string(NFTA_LOOKUP_SET, set);
    out.u32(NFTA_LOOKUP_SREG, reg.number());
    if inverted {
        out.u32(NFTA_LOOKUP_FLAGS, NFT_LOOKUP_F_INV);
    }
}

pub(super) fn decode_lookup(fields: &Fields<'_>) -> Option<Expr> {
    fields.only(&[NFTA_LOOKUP_SET, NFTA_LOOKUP_SREG, NFTA_LOOKUP_FLAGS])?;
    let inverted = match fields.u32(NFTA_LOOKUP_FLAGS) {
        None | Some(0) => false,
        Some(NFT_LOOKUP_F_INV) => true,
        Some(_) => return None,
    };
    Some(Expr::Lookup {
        reg: fields.reg(NFTA_LOOKUP_SREG)?,
        set: fields.string(NFTA_LOOKUP_SET)?,
        inverted,
    })
}
