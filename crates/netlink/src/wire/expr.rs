//! The expressions that rules are made of, as the kernel has them.
//!
//! A rule loads something of the packet into a register, compares it, and so on; the last
//! expression usually is a verdict. What this crate does not know is kept as
//! [`Expr::Unknown`] with its bytes, so that a rule made by somebody else never reads back as one
//! of ours.

mod action;
mod compare;
mod load;

pub use action::{Dynset, Limit, Log, LogTo, Reject, Verdict};
pub use compare::CmpOp;
pub use load::{CtKey, Header, MetaKey};

use crate::error::DecodeError;
use crate::wire::attr::{Attr, Attrs, Writer};
use crate::wire::uapi::*;

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

    /// The kernel prints an aligned register by its 128-bit name, so that is what we send.
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
            Expr::FibDaddrType { reg } => load::encode_fib(out, *reg),
            Expr::Bitwise { reg, mask, xor } => compare::encode_bitwise(out, *reg, mask, xor),
            Expr::Cmp { reg, op, data } => compare::encode_cmp(out, *reg, *op, data),
            Expr::Lookup { reg, set, inverted } => {
                compare::encode_lookup(out, *reg, set, *inverted)
            }
            Expr::Counter(name) => action::encode_counter(out, name),
            // Without attributes it starts at zero.
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
            "objref" => action::decode_counter(&fields),
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

/// The attributes of one expression by number. A decoder asks for what it knows and answers `None`
/// for anything it would lose.
struct Fields<'a>(Vec<Attr<'a>>);

impl<'a> Fields<'a> {
    /// `None` if an attribute is there twice.
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

    /// The bytes of a nested `NFTA_DATA_VALUE`.
    fn data(&self, kind: u16) -> Option<Vec<u8>> {
        let mut inner = self.attr(kind)?.nested();
        let value = inner.next()?.ok().filter(|attr| attr.kind == NFTA_DATA_VALUE)?;
        inner.next().is_none().then(|| value.value.to_vec())
    }

    fn only(&self, kinds: &[u16]) -> Option<()> {
        self.0.iter().all(|attr| kinds.contains(&attr.kind)).then_some(())
    }

    /// As [`Fields::only`], but the attributes named second may be there if they are all zeros:
    /// newer kernels dump defaults that older ones do not.
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
