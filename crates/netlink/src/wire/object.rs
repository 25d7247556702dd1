//! Tables, chains, rules, sets, counters and helpers as netlink attributes, both ways.

use std::time::Duration;

use crate::error::DecodeError;
use crate::ip_version::IpVersion;
use crate::model::Expr;
use crate::model::{
    Base, Chain, ChainPolicy, Counter, Counts, CtHelper, Hook, KeyType, Rule, Set, Table,
};
use crate::wire::attr::{Attr, Attrs, Writer, userdata};
use crate::wire::uapi::*;

/// `NFT_TABLE_F_PERSIST`, which the headers of Linux 6.1 do not have yet.
pub(crate) const NFT_TABLE_F_PERSIST: u32 = 4;
/// The flags of a table that has an owner and outlives it.
pub(crate) const OWNER_FLAGS: u32 = NFT_TABLE_F_OWNER | NFT_TABLE_F_PERSIST;

/// The type of every base chain that nfguard makes.
const FILTER: &str = "filter";

pub(crate) fn encode_table(
    out: &mut Writer,
    table: &str,
    comment: Option<&str>,
    flags: Option<u32>,
) {
    out.string(NFTA_TABLE_NAME, table);
    if let Some(flags) = flags {
        out.u32(NFTA_TABLE_FLAGS, flags);
    }
    if let Some(comment) = comment {
        out.comment(NFTA_TABLE_USERDATA, comment);
    }
}

/// Decodes name, comment and flags.
pub(crate) fn decode_table(attrs: Attrs<'_>) -> Result<Table, DecodeError> {
    let mut table = Table::default();
    for attr in attrs {
        let attr = attr?;
        match attr.kind {
            NFTA_TABLE_NAME => table.name = attr.string(),
            NFTA_TABLE_FLAGS => table.dormant = attr.u32()? & NFT_TABLE_F_DORMANT != 0,
            NFTA_TABLE_USERDATA => {
                table.comment = userdata::find_string(attr.value, userdata::COMMENT);
            }
            _ => {}
        }
    }
    check_name("table", &table.name)?;
    Ok(table)
}

/// Encodes everything but the rules.
pub(crate) fn encode_chain(out: &mut Writer, table: &str, chain: &Chain) {
    out.string(NFTA_CHAIN_TABLE, table);
    out.string(NFTA_CHAIN_NAME, &chain.name);
    if let Some(base) = chain.base {
        out.nest(NFTA_CHAIN_HOOK, |out| {
            out.u32(NFTA_HOOK_HOOKNUM, base.hook.number());
            out.bytes(NFTA_HOOK_PRIORITY, &base.priority.to_be_bytes());
        });
        out.u32(NFTA_CHAIN_POLICY, base.policy.number());
        out.string(NFTA_CHAIN_TYPE, FILTER);
    }
    if let Some(comment) = &chain.comment {
        out.comment(NFTA_CHAIN_USERDATA, comment);
    }
}

pub(crate) fn decode_chain(attrs: Attrs<'_>) -> Result<Chain, DecodeError> {
    decode_chain_of(attrs, FILTER)
}

/// Decodes a chain as [`decode_chain`] does, with base chains of another type.
pub(crate) fn decode_chain_of(attrs: Attrs<'_>, wanted: &str) -> Result<Chain, DecodeError> {
    let mut chain = Chain::default();
    let (mut hook, mut policy, mut kind) = (None, None, String::new());
    for attr in attrs {
        let attr = attr?;
        match attr.kind {
            NFTA_CHAIN_NAME => chain.name = attr.string(),
            NFTA_CHAIN_HOOK => hook = Some(attr),
            NFTA_CHAIN_POLICY => policy = Some(attr.u32()?),
            NFTA_CHAIN_TYPE => kind = attr.string(),
            NFTA_CHAIN_USERDATA => {
                chain.comment = userdata::find_string(attr.value, userdata::COMMENT);
            }
            _ => {}
        }
    }
    check_name("chain", &chain.name)?;
    if let Some(hook) = hook {
        if kind != wanted {
            return Err(unknown("chain", "type", &kind));
        }
        chain.base = Some(decode_base(&hook, policy)?);
    }
    Ok(chain)
}

fn decode_base(hook: &Attr<'_>, policy: Option<u32>) -> Result<Base, DecodeError> {
    let (mut number, mut priority) = (None, None);
    for attr in hook.nested() {
        let attr = attr?;
        match attr.kind {
            NFTA_HOOK_HOOKNUM => number = Some(attr.u32()?),
            NFTA_HOOK_PRIORITY => priority = Some(attr.u32()?.cast_signed()),
            _ => {}
        }
    }
    let number = number.ok_or(DecodeError::Missing { object: "chain", attribute: "hook" })?;
    Ok(Base {
        hook: Hook::from_number(number).ok_or_else(|| unknown("chain", "hook", &number))?,
        priority: priority
            .ok_or(DecodeError::Missing { object: "chain", attribute: "priority" })?,
        policy: match policy {
            Some(0) => ChainPolicy::Drop,
            Some(1) | None => ChainPolicy::Accept,
            Some(other) => return Err(unknown("chain", "policy", &other)),
        },
    })
}

pub(crate) fn encode_rule(out: &mut Writer, table: &str, chain: &str, rule: &Rule) {
    out.string(NFTA_RULE_TABLE, table);
    out.string(NFTA_RULE_CHAIN, chain);
    out.nest(NFTA_RULE_EXPRESSIONS, |out| {
        for expr in &rule.exprs {
            out.nest(NFTA_LIST_ELEM, |out| expr.encode(out));
        }
    });
    if let Some(comment) = &rule.comment {
        out.comment(NFTA_RULE_USERDATA, comment);
    }
}

/// Decodes a rule of any chain.
pub(crate) fn decode_rule(attrs: Attrs<'_>) -> Result<Rule, DecodeError> {
    let mut rule = Rule::default();
    for attr in attrs {
        let attr = attr?;
        match attr.kind {
            NFTA_RULE_EXPRESSIONS => {
                for expr in attr.nested() {
                    rule.exprs.push(Expr::decode(expr?.nested())?);
                }
            }
            NFTA_RULE_USERDATA => {
                rule.comment = userdata::find_string(attr.value, userdata::COMMENT);
            }
            _ => {}
        }
    }
    Ok(rule)
}

/// Encodes everything but the elements. `id` tells the sets of one transaction apart.
pub(crate) fn encode_set(out: &mut Writer, table: &str, set: &Set, id: u32) {
    let flag = |on: bool, flag: u32| if on { flag } else { 0 };
    let key_len: usize = match set.key.as_slice() {
        [one] => one.bytes(),
        parts => parts.iter().map(|part| part.bytes().next_multiple_of(4)).sum(),
    };
    out.string(NFTA_SET_TABLE, table);
    out.string(NFTA_SET_NAME, &set.name);
    out.u32(
        NFTA_SET_FLAGS,
        flag(set.interval, NFT_SET_INTERVAL)
            | flag(set.timeout.is_some(), NFT_SET_TIMEOUT)
            | flag(set.dynamic, NFT_SET_EVAL),
    );
    out.u32(NFTA_SET_KEY_TYPE, set.key.iter().fold(0, |all, part| all << 6 | part.number()));
    out.u32(NFTA_SET_KEY_LEN, u32::try_from(key_len).unwrap_or(u32::MAX));
    out.u32(NFTA_SET_ID, id);
    if let Some(size) = set.size {
        out.nest(NFTA_SET_DESC, |out| out.u32(NFTA_SET_DESC_SIZE, size));
    }
    if let Some(timeout) = set.timeout.filter(|timeout| !timeout.is_zero()) {
        out.millis(NFTA_SET_TIMEOUT, timeout);
    }
    let mut data = vec![userdata::SET_KEY_BYTEORDER, 4];
    data.extend(BIG_ENDIAN.to_ne_bytes());
    if let Some(comment) = &set.comment {
        userdata::push_string(&mut data, userdata::SET_COMMENT, comment);
    }
    out.bytes(NFTA_SET_USERDATA, &data);
}

/// nft's `BYTEORDER_BIG_ENDIAN`, which nft prints keys by.
const BIG_ENDIAN: u32 = 2;

/// Decodes a set; `None` for an anonymous set, which is a part of the rule that uses it.
pub(crate) fn decode_set(attrs: Attrs<'_>) -> Result<Option<Set>, DecodeError> {
    let mut set = Set::default();
    let (mut flags, mut key, mut default_timeout) = (0, 0, None);
    for attr in attrs {
        let attr = attr?;
        match attr.kind {
            NFTA_SET_NAME => set.name = attr.string(),
            NFTA_SET_FLAGS => flags = attr.u32()?,
            NFTA_SET_KEY_TYPE => key = attr.u32()?,
            NFTA_SET_DESC => {
                for attr in attr.nested() {
                    let attr = attr?;
                    if attr.kind == NFTA_SET_DESC_SIZE {
                        set.size = Some(attr.u32()?);
                    }
                }
            }
            NFTA_SET_TIMEOUT => default_timeout = Some(Duration::from_millis(attr.u64()?)),
            NFTA_SET_USERDATA => {
                set.comment = userdata::find_string(attr.value, userdata::SET_COMMENT);
            }
            _ => {}
        }
    }
    check_name("set", &set.name)?;
    if flags & NFT_SET_ANONYMOUS != 0 {
        return Ok(None);
    }
    let known = NFT_SET_INTERVAL | NFT_SET_TIMEOUT | NFT_SET_EVAL;
    if flags & !known != 0 {
        return Err(unknown("set", "flags", &flags));
    }
    set.key = decode_key_type(key)?;
    set.interval = flags & NFT_SET_INTERVAL != 0;
    set.dynamic = flags & NFT_SET_EVAL != 0;
    set.timeout = (flags & NFT_SET_TIMEOUT != 0).then(|| default_timeout.unwrap_or_default());
    Ok(Some(set))
}

pub(crate) fn decode_key_type(number: u32) -> Result<Vec<KeyType>, DecodeError> {
    let mut parts = Vec::new();
    let mut rest = number;
    while rest != 0 {
        let part = KeyType::ALL.into_iter().find(|part| part.number() == rest & 0x3f);
        parts.insert(0, part.ok_or_else(|| unknown("set", "key type", &number))?);
        rest >>= 6;
    }
    Ok(parts)
}

pub(crate) fn encode_object_head(out: &mut Writer, table: &str, name: &str, kind: u32) {
    out.string(NFTA_OBJ_TABLE, table);
    out.string(NFTA_OBJ_NAME, name);
    out.u32(NFTA_OBJ_TYPE, kind);
}

pub(crate) fn encode_counter(out: &mut Writer, table: &str, counter: &Counter) {
    encode_object_head(out, table, &counter.name, NFT_OBJECT_COUNTER);
    out.nest(NFTA_OBJ_DATA, |out| {
        out.u64(NFTA_COUNTER_BYTES, 0);
        out.u64(NFTA_COUNTER_PACKETS, 0);
    });
    if let Some(comment) = &counter.comment {
        out.comment(NFTA_OBJ_USERDATA, comment);
    }
}

pub(crate) fn encode_helper(out: &mut Writer, table: &str, helper: &CtHelper) {
    encode_object_head(out, table, &helper.name, NFT_OBJECT_CT_HELPER);
    out.nest(NFTA_OBJ_DATA, |out| {
        out.string(NFTA_CT_HELPER_NAME, &helper.kind);
        out.u8(NFTA_CT_HELPER_L4PROTO, helper.protocol);
        out.u16(NFTA_CT_HELPER_L3PROTO, helper.version.map_or(NFPROTO_INET, family_number));
    });
}

/// `NFPROTO_INET` of `linux/netfilter.h`.
const NFPROTO_INET: u16 = 1;

/// Returns `NFPROTO_IPV4` or `NFPROTO_IPV6` of `linux/netfilter.h`.
fn family_number(version: IpVersion) -> u16 {
    match version {
        IpVersion::V4 => 2,
        IpVersion::V6 => 10,
    }
}

/// A named object of a table, besides its sets.
pub(crate) enum NamedObject {
    Counter(Counter, Counts),
    Helper(CtHelper),
}

/// Decodes a counter with its numbers, or a helper.
pub(crate) fn decode_object(attrs: Attrs<'_>) -> Result<NamedObject, DecodeError> {
    let (mut name, mut kind, mut comment, mut data) = (String::new(), 0, None, None);
    for attr in attrs {
        let attr = attr?;
        match attr.kind {
            NFTA_OBJ_NAME => name = attr.string(),
            NFTA_OBJ_TYPE => kind = attr.u32()?,
            NFTA_OBJ_USERDATA => comment = userdata::find_string(attr.value, userdata::COMMENT),
            NFTA_OBJ_DATA => data = Some(attr),
            _ => {}
        }
    }
    check_name("stateful object", &name)?;
    match kind {
        NFT_OBJECT_COUNTER => {
            let counts = data.map_or(Ok(Counts::default()), |data| decode_counts(&data))?;
            Ok(NamedObject::Counter(Counter { name, comment }, counts))
        }
        NFT_OBJECT_CT_HELPER => {
            let data =
                data.ok_or(DecodeError::Missing { object: "ct helper", attribute: "data" })?;
            Ok(NamedObject::Helper(decode_helper(name, &data)?))
        }
        other => Err(unknown("stateful object", "type", &other)),
    }
}

fn decode_counts(data: &Attr<'_>) -> Result<Counts, DecodeError> {
    let mut counts = Counts::default();
    for attr in data.nested() {
        let attr = attr?;
        match attr.kind {
            NFTA_COUNTER_BYTES => counts.bytes = attr.u64()?,
            NFTA_COUNTER_PACKETS => counts.packets = attr.u64()?,
            _ => {}
        }
    }
    Ok(counts)
}

fn decode_helper(name: String, data: &Attr<'_>) -> Result<CtHelper, DecodeError> {
    let mut helper = CtHelper { name, kind: String::new(), protocol: 0, version: None };
    for attr in data.nested() {
        let attr = attr?;
        match attr.kind {
            NFTA_CT_HELPER_NAME => helper.kind = attr.string(),
            NFTA_CT_HELPER_L4PROTO => helper.protocol = attr.u8()?,
            NFTA_CT_HELPER_L3PROTO => {
                let number = attr.u16()?;
                helper.version = IpVersion::ALL.into_iter().find(|it| family_number(*it) == number);
                if helper.version.is_none() && number != NFPROTO_INET {
                    return Err(unknown("ct helper", "l3proto", &number));
                }
            }
            _ => {}
        }
    }
    check_name("ct helper", &helper.kind)?;
    Ok(helper)
}

impl Hook {
    const ALL: [Hook; 5] =
        [Hook::Prerouting, Hook::Input, Hook::Forward, Hook::Output, Hook::Postrouting];

    pub(crate) fn from_number(number: u32) -> Option<Hook> {
        Hook::ALL.into_iter().find(|hook| hook.number() == number)
    }

    /// `NF_INET_*` of `linux/netfilter.h`.
    pub(crate) fn number(self) -> u32 {
        match self {
            Hook::Prerouting => 0,
            Hook::Input => 1,
            Hook::Forward => 2,
            Hook::Output => 3,
            Hook::Postrouting => 4,
        }
    }
}

impl ChainPolicy {
    fn number(self) -> u32 {
        match self {
            ChainPolicy::Drop => 0,
            ChainPolicy::Accept => 1,
        }
    }
}

fn check_name(object: &'static str, name: &str) -> Result<(), DecodeError> {
    if name.is_empty() {
        return Err(DecodeError::Missing { object, attribute: "name" });
    }
    Ok(())
}

fn unknown(
    object: &'static str,
    attribute: &'static str,
    value: &dyn std::fmt::Display,
) -> DecodeError {
    DecodeError::Unknown { object, attribute, value: value.to_string() }
}
