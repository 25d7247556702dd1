//! Expressions that act: count, limit, add to a set, log, reject, decide.

use std::time::Duration;

use super::Fields;
use crate::model::{Dynset, Expr, Limit, Log, LogTo, Reject, Verdict};
use crate::wire::attr::{Attr, Writer};
use crate::wire::uapi::*;

pub(super) fn encode_objref(out: &mut Writer, kind: u32, name: &str) {
    out.u32(NFTA_OBJREF_IMM_TYPE, kind);
    out.string(NFTA_OBJREF_IMM_NAME, name);
}

pub(super) fn decode_objref(fields: &Fields<'_>) -> Option<Expr> {
    fields.only(&[NFTA_OBJREF_IMM_TYPE, NFTA_OBJREF_IMM_NAME])?;
    let name = fields.string(NFTA_OBJREF_IMM_NAME)?;
    match fields.u32(NFTA_OBJREF_IMM_TYPE)? {
        NFT_OBJECT_COUNTER => Some(Expr::Counter(name)),
        NFT_OBJECT_CT_HELPER => Some(Expr::Helper(name)),
        _ => None,
    }
}

pub(super) fn decode_count(fields: &Fields<'_>) -> Option<Expr> {
    fields.only(&[NFTA_COUNTER_BYTES, NFTA_COUNTER_PACKETS]).map(|()| Expr::Count)
}

impl Limit {
    pub(super) fn encode(self, out: &mut Writer) {
        out.u64(NFTA_LIMIT_RATE, self.packets);
        out.u64(NFTA_LIMIT_UNIT, self.seconds);
        out.u32(NFTA_LIMIT_BURST, self.burst);
    }

    pub(super) fn decode(fields: &Fields<'_>) -> Option<Expr> {
        // Type 0 counts packets, flag 0 is not inverted.
        fields.only_or_zero(
            &[NFTA_LIMIT_RATE, NFTA_LIMIT_UNIT, NFTA_LIMIT_BURST],
            &[NFTA_LIMIT_TYPE, NFTA_LIMIT_FLAGS],
        )?;
        Some(Expr::Limit(Limit {
            packets: fields.attr(NFTA_LIMIT_RATE)?.u64().ok()?,
            seconds: fields.attr(NFTA_LIMIT_UNIT)?.u64().ok()?,
            burst: fields.u32(NFTA_LIMIT_BURST)?,
        }))
    }
}

impl Dynset {
    pub(super) fn encode(&self, out: &mut Writer) {
        out.string(NFTA_DYNSET_SET_NAME, &self.set);
        out.u32(NFTA_DYNSET_OP, if self.update { NFT_DYNSET_OP_UPDATE } else { NFT_DYNSET_OP_ADD });
        out.u32(NFTA_DYNSET_SREG_KEY, self.reg.number());
        if let Some(timeout) = self.timeout {
            out.millis(NFTA_DYNSET_TIMEOUT, timeout);
        }
    }

    pub(super) fn decode(fields: &Fields<'_>) -> Option<Expr> {
        fields.only_or_zero(
            &[NFTA_DYNSET_SET_NAME, NFTA_DYNSET_OP, NFTA_DYNSET_SREG_KEY, NFTA_DYNSET_TIMEOUT],
            &[NFTA_DYNSET_FLAGS],
        )?;
        let timeout = match fields.attr(NFTA_DYNSET_TIMEOUT) {
            Some(timeout) => Some(timeout.u64().ok()?).filter(|millis| *millis > 0),
            None => None,
        };
        let update = match fields.u32(NFTA_DYNSET_OP)? {
            NFT_DYNSET_OP_ADD => false,
            NFT_DYNSET_OP_UPDATE => true,
            _ => return None,
        };
        Some(Expr::Dynset(Dynset {
            reg: fields.reg(NFTA_DYNSET_SREG_KEY)?,
            set: fields.string(NFTA_DYNSET_SET_NAME)?,
            update,
            timeout: timeout.map(Duration::from_millis),
        }))
    }
}

/// `NF_LOG_TCPOPT | NF_LOG_IPOPT` of `linux/netfilter/nf_log.h`.
const TCP_AND_IP_OPTIONS: u32 = 0x02 | 0x04;
/// `NFT_LOGLEVEL_WARNING`.
const WARNING: u32 = 4;

impl Log {
    pub(super) fn encode(&self, out: &mut Writer) {
        out.string(NFTA_LOG_PREFIX, &self.prefix);
        match self.to {
            LogTo::Kernel => {
                out.u32(NFTA_LOG_LEVEL, WARNING);
                out.u32(NFTA_LOG_FLAGS, TCP_AND_IP_OPTIONS);
            }
            LogTo::Group(group) => out.u16(NFTA_LOG_GROUP, group),
        }
    }

    pub(super) fn decode(fields: &Fields<'_>) -> Option<Expr> {
        let prefix = fields.string(NFTA_LOG_PREFIX)?;
        let to = if let Some(group) = fields.attr(NFTA_LOG_GROUP) {
            fields.only_or_zero(&[NFTA_LOG_PREFIX, NFTA_LOG_GROUP], &[NFTA_LOG_SNAPLEN])?;
            LogTo::Group(group.u16().ok()?)
        } else {
            fields.only(&[NFTA_LOG_PREFIX, NFTA_LOG_LEVEL, NFTA_LOG_FLAGS])?;
            let ours = fields.u32(NFTA_LOG_LEVEL)? == WARNING
                && fields.u32(NFTA_LOG_FLAGS)? == TCP_AND_IP_OPTIONS;
            ours.then_some(LogTo::Kernel)?
        };
        Some(Expr::Log(Log { prefix, to }))
    }
}

impl Reject {
    pub(super) fn encode(self, out: &mut Writer) {
        match self {
            Reject::TcpReset => out.u32(NFTA_REJECT_TYPE, NFT_REJECT_TCP_RST),
            Reject::PortUnreachable => {
                out.u32(NFTA_REJECT_TYPE, NFT_REJECT_ICMPX_UNREACH);
                out.bytes(NFTA_REJECT_ICMP_CODE, &[PORT_UNREACHABLE]);
            }
        }
    }

    pub(super) fn decode(fields: &Fields<'_>) -> Option<Expr> {
        fields.only(&[NFTA_REJECT_TYPE, NFTA_REJECT_ICMP_CODE])?;
        let code = fields.attr(NFTA_REJECT_ICMP_CODE).and_then(|attr| attr.u8().ok());
        match (fields.u32(NFTA_REJECT_TYPE)?, code) {
            // A kernel may dump the code that a reset does not use.
            (NFT_REJECT_TCP_RST, None | Some(0)) => Some(Expr::Reject(Reject::TcpReset)),
            (NFT_REJECT_ICMPX_UNREACH, Some(PORT_UNREACHABLE)) => {
                Some(Expr::Reject(Reject::PortUnreachable))
            }
            _ => None,
        }
    }
}

/// `NFT_REJECT_ICMPX_PORT_UNREACH`, which the attribute carries in one byte.
const PORT_UNREACHABLE: u8 = 1;

/// `NF_DROP` and `NF_ACCEPT` of `linux/netfilter.h`.
const DROP: i32 = 0;
const ACCEPT: i32 = 1;
/// The register of verdicts.
const VERDICT_REGISTER: u32 = 0;

impl Verdict {
    pub(super) fn encode(&self, out: &mut Writer) {
        let (code, chain) = match self {
            Verdict::Accept => (ACCEPT, None),
            Verdict::Drop => (DROP, None),
            Verdict::Return => (NFT_RETURN, None),
            Verdict::Jump(chain) => (NFT_JUMP, Some(chain)),
            Verdict::Goto(chain) => (NFT_GOTO, Some(chain)),
        };
        out.u32(NFTA_IMMEDIATE_DREG, VERDICT_REGISTER);
        out.nest(NFTA_IMMEDIATE_DATA, |out| {
            out.nest(NFTA_DATA_VERDICT, |out| {
                out.bytes(NFTA_VERDICT_CODE, &code.to_be_bytes());
                if let Some(chain) = chain {
                    out.string(NFTA_VERDICT_CHAIN, chain);
                }
            });
        });
    }

    pub(super) fn decode(fields: &Fields<'_>) -> Option<Expr> {
        fields.only(&[NFTA_IMMEDIATE_DREG, NFTA_IMMEDIATE_DATA])?;
        if fields.u32(NFTA_IMMEDIATE_DREG)? != VERDICT_REGISTER {
            return None;
        }
        let verdict = fields.attr(NFTA_IMMEDIATE_DATA)?.nested().next()?.ok()?;
        let mut code = None;
        let mut chain = None;
        for attr in verdict.nested() {
            let attr = attr.ok()?;
            match attr.kind {
                NFTA_VERDICT_CODE => code = attr.u32().ok().map(u32::cast_signed),
                NFTA_VERDICT_CHAIN => chain = Some(Attr::string(&attr)),
                _ => return None,
            }
        }
        let verdict = match (verdict.kind, code?, chain) {
            (NFTA_DATA_VERDICT, ACCEPT, None) => Verdict::Accept,
            (NFTA_DATA_VERDICT, DROP, None) => Verdict::Drop,
            (NFTA_DATA_VERDICT, NFT_RETURN, None) => Verdict::Return,
            (NFTA_DATA_VERDICT, NFT_JUMP, Some(chain)) => Verdict::Jump(chain),
            (NFTA_DATA_VERDICT, NFT_GOTO, Some(chain)) => Verdict::Goto(chain),
            _ => return None,
        };
        Some(Expr::Verdict(verdict))
    }
}
