//! Expressions as netlink attributes, both ways: one file for what loads, one for what compares,
//! one for what acts.

mod action;
mod compare;
mod load;

use crate::error::DecodeError;
use crate::model::{Dynset, Expr, Limit, Log, Reg, Reject, Verdict};
use crate::wire::attr::{Attr, Attrs, Writer};
use crate::wire::uapi::*;

impl Reg {
    /// Returns the kernel's number. The kernel prints an aligned register by its 128-bit name, so this
    /// is that name.
    fn number(self) -> u32 {
        let index = u32::from(self.0);
        if index % 4 == 0 { NFT_REG_1 + index / 4 } else { NFT_REG32_00 + index }
    }

    pub(crate) fn from_number(number: u32) -> Option<Reg> {
        let index = match number {
            1..=4 => (number - NFT_REG_1) * 4,
            _ => number.checked_sub(NFT_REG32_00)?,
        };
        Reg::new(u8::try_from(index).ok()?)
    }
}

impl Expr {
    pub(crate) fn encode(&self, out: &mut Writer) {
        out.string(NFTA_EXPR_NAME, self.name());
        out.nest(NFTA_EXPR_DATA, |out| match self {
            Expr::Meta { key, reg } => load::encode_meta(out, *key, *reg),
            Expr::Payload { header, offset, len, reg } => {
                load::encode_payload(out, *header, *offset, *len, *reg);
            }
            Expr::Exthdr { kind, offset, len, reg } => {
                load::encode_exthdr(out, *kind, *offset, *len, *reg);
            }
            Expr::Ct { key, reg } => load::encode_ct(out, *key, *reg),
            Expr::FibDaddrType { reg } => load::encode_fib(out, load::DADDR_TYPE, *reg),
            Expr::FibSaddrType { reg } => load::encode_fib(out, load::SADDR_TYPE, *reg),
            Expr::FibReturnPath { reg } => load::encode_fib(out, load::RETURN_PATH, *reg),
            Expr::Bitwise { reg, mask, xor } => compare::encode_bitwise(out, *reg, mask, xor),
            Expr::Cmp { reg, op, data } => compare::encode_cmp(out, *reg, *op, data),
            Expr::Lookup { reg, set, inverted } => {
                compare::encode_lookup(out, *reg, set, *inverted);
            }
            Expr::Counter(name) => action::encode_objref(out, NFT_OBJECT_COUNTER, name),
            Expr::Helper(name) => action::encode_objref(out, NFT_OBJECT_CT_HELPER, name),
            // Without attributes the counter starts at zero.
            Expr::Count => {}
            Expr::Limit(limit) => limit.encode(out),
            Expr::Dynset(dynset) => dynset.encode(out),
            Expr::Log(log) => log.encode(out),
            Expr::Reject(reject) => reject.encode(out),
            Expr::Verdict(verdict) => verdict.encode(out),
            Expr::Unknown { data, .. } => out.raw(data),
        });
    }

    pub(crate) fn decode(attrs: Attrs<'_>) -> Result<Expr, DecodeError> {
        let mut name = String::new();
        let mut data: &[u8] = &[];
        for attr in attrs {
            let attr = attr?;
            match attr.kind {
                NFTA_EXPR_NAME => name = attr.string(),
                NFTA_EXPR_DATA => data = attr.value,
                _ => {}
            }
        }
        let known = Fields::read(data)?.and_then(|fields| match name.as_str() {
            "meta" => load::decode_meta(&fields),
            "payload" => load::decode_payload(&fields),
            "exthdr" => load::decode_exthdr(&fields),
            "ct" => load::decode_ct(&fields),
            "fib" => load::decode_fib(&fields),
            "bitwise" => compare::decode_bitwise(&fields),
            "cmp" => compare::decode_cmp(&fields),
            "lookup" => compare::decode_lookup(&fields),
            "objref" => action::decode_objref(&fields),
            "counter" => action::decode_count(&fields),
            "limit" => Limit::decode(&fields),
            "dynset" => Dynset::decode(&fields),
            "log" => Log::decode(&fields),
            "reject" => Reject::decode(&fields),
            "immediate" => Verdict::decode(&fields),
            _ => None,
        });
        Ok(known.unwrap_or_else(|| Expr::Unknown { name, data: data.to_vec() }))
    }
}

/// The attributes of one expression by number. A decoder asks for those that it knows, and returns
/// `None` if it would lose any other.
struct Fields<'a>(Vec<Attr<'a>>);

impl<'a> Fields<'a> {
    /// Reads the attributes; `None` if one of them occurs twice.
    fn read(data: &'a [u8]) -> Result<Option<Fields<'a>>, DecodeError> {
        let attrs = Attrs(data).collect::<Result<Vec<_>, _>>()?;
        let unique = attrs
            .iter()
            .enumerate()
            .all(|(at, attr)| attrs.iter().skip(at + 1).all(|other| other.kind != attr.kind));
        Ok(unique.then_some(Fields(attrs)))
    }

    fn attr(&self, kind: u16) -> Option<&Attr<'a>> {
        self.0.iter().find(|attr| attr.kind == kind)
    }

    fn u32(&self, kind: u16) -> Option<u32> {
        self.attr(kind)?.u32().ok()
    }

    fn reg(&self, kind: u16) -> Option<Reg> {
        Reg::from_number(self.u32(kind)?)
    }

    fn string(&self, kind: u16) -> Option<String> {
        self.attr(kind).map(Attr::string)
    }

    /// Returns the bytes of a nested `NFTA_DATA_VALUE`.
    fn data(&self, kind: u16) -> Option<Vec<u8>> {
        let mut inner = self.attr(kind)?.nested();
        let value = inner.next()?.ok().filter(|attr| attr.kind == NFTA_DATA_VALUE)?;
        inner.next().is_none().then(|| value.value.to_vec())
    }

    /// Succeeds if there are no other attributes.
    fn only(&self, kinds: &[u16]) -> Option<()> {
        self.0.iter().all(|attr| kinds.contains(&attr.kind)).then_some(())
    }

    /// Succeeds as [`Fields::only`] does, or if the attributes of `zero` are all zeros: newer kernels
    /// dump defaults that older ones do not.
    fn only_or_zero(&self, kinds: &[u16], zero: &[u16]) -> Option<()> {
        let is_zero = |attr: &Attr<'_>| attr.value.iter().all(|byte| *byte == 0);
        self.0
            .iter()
            .all(|attr| kinds.contains(&attr.kind) || (zero.contains(&attr.kind) && is_zero(attr)))
            .then_some(())
    }
}

fn write_data(out: &mut Writer, kind: u16, data: &[u8]) {
    out.nest(kind, |out| out.bytes(NFTA_DATA_VALUE, data));
}
