//! Random tables: every shape that the model of nfguard has and that nft can list.

mod sets;

use std::collections::BTreeSet;
use std::fmt;
use std::time::Duration;

use nfguard_netlink::{
    Base, Chain, ChainPolicy, CmpOp, Counter, CtHelper, CtKey, Dynset, Expr, Header, Hook,
    IpVersion, KeyType, Limit, Log, LogTo, MetaKey, Reg, Reject, Rule, Set, Table, Verdict,
    protocol,
};
use proptest::collection::{btree_set, vec};
use proptest::option;
use proptest::prelude::*;
use proptest::sample::{select, subsequence};

use sets::{key_bytes, sets, width};

use KeyType::{IcmpType, Icmpv6Type, InetProto, InetService, Ipv4Addr, Ipv6Addr};

const REG: Reg = Reg::FIRST;

/// A table. A failed test prints it as nft would.
#[derive(Clone)]
pub struct AnyTable(pub Table);

impl fmt::Debug for AnyTable {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "\n{}", nfguard_netlink::text::table(&self.0))
    }
}

/// Returns a strategy for tables with this name and comment.
pub fn table(name: &'static str, comment: &'static str) -> impl Strategy<Value = AnyTable> {
    (vec(text(), 0..4), subsequence(HELPERS.to_vec(), 0..=HELPERS.len()), sets())
        .prop_flat_map(|(comments, helpers, sets)| {
            let counters = named("n", comments).map(|(name, comment)| Counter { name, comment });
            let counters: Vec<_> = counters.collect();
            let helpers: Vec<_> = named("h", helpers).map(helper).collect();
            (chains(&counters, &helpers, &sets), Just(counters), Just(helpers), Just(sets))
        })
        .prop_map(move |(chains, counters, helpers, sets)| Table {
            name: name.to_owned(),
            comment: Some(comment.to_owned()),
            dormant: false,
            counters,
            helpers,
            sets,
            chains,
        })
        .prop_map(AnyTable)
}

/// Helpers that every kernel has that the tests run on: kind, protocol, IP version.
const HELPERS: [(&str, u8, Option<IpVersion>); 5] = [
    ("ftp", protocol::TCP, None),
    ("tftp", protocol::UDP, None),
    ("sip", protocol::UDP, None),
    ("sip", protocol::TCP, Some(IpVersion::V6)),
    ("ftp", protocol::TCP, Some(IpVersion::V4)),
];

fn helper((name, (kind, protocol, version)): (String, (&str, u8, Option<IpVersion>))) -> CtHelper {
    CtHelper { name, kind: kind.to_owned(), protocol, version }
}

fn named<T>(letter: &str, items: Vec<T>) -> impl Iterator<Item = (String, T)> {
    items.into_iter().enumerate().map(move |(at, item)| (format!("{letter}{at}"), item))
}

/// A comment: 1 to 127 bytes without quotes, for which nft has no escape.
fn text() -> impl Strategy<Value = Option<String>> {
    option::of(prop_oneof!["[ !#-~]{1,127}", "[a-zäß€ ]{1,40}", Just("x".repeat(127))])
}

/// Chains that jump only to plain chains before them.
fn chains(
    counters: &[Counter],
    helpers: &[CtHelper],
    sets: &[Set],
) -> impl Strategy<Value = Vec<Chain>> + use<> {
    let counters = counters.iter().map(|counter| Expr::Counter(counter.name.clone()));
    let helpers = helpers.iter().map(|helper| Expr::Helper(helper.name.clone()));
    let objects: Vec<Expr> = counters.chain(helpers).collect();
    let sets = sets.to_vec();
    let heads = vec((option::of(base()), text()), 0..6);
    heads.prop_flat_map(move |heads| {
        let mut plain = Vec::new();
        let chains: Vec<_> = named("c", heads)
            .map(|(name, (base, comment))| {
                let last = base.is_some_and(|base| base.hook == Hook::Postrouting);
                let rule = if last {
                    // The kernel refuses a reject that postrouting can reach.
                    match_rule(&objects, &sets).boxed()
                } else {
                    rule(&objects, &sets, &plain).boxed()
                };
                if base.is_none() {
                    plain.push(name.clone());
                }
                vec(rule, 0..8).prop_map(move |rules| Chain {
                    name: name.clone(),
                    base,
                    comment: comment.clone(),
                    rules,
                })
            })
            .collect();
        chains
    })
}

fn base() -> impl Strategy<Value = Base> {
    let hooks =
        [Hook::Prerouting, Hook::Input, Hook::Forward, Hook::Output, Hook::Postrouting].to_vec();
    let priority = prop_oneof![-320..320i32, Just(i32::MIN + 1), Just(i32::MAX)];
    (select(hooks), priority, select(vec![ChainPolicy::Accept, ChainPolicy::Drop]))
        .prop_map(|(hook, priority, policy)| Base { hook, priority, policy })
}

/// A part of a rule, and the packet that it needs.
#[derive(Clone, Debug)]
struct Part {
    family: Option<u8>,
    protocol: Option<u8>,
    exprs: Vec<Expr>,
}

const V4: Option<u8> = Some(2);
const V6: Option<u8> = Some(10);

fn rule(objects: &[Expr], sets: &[Set], chains: &[String]) -> impl Strategy<Value = Rule> + use<> {
    (parts(objects, sets), last(chains), text()).prop_map(|(mut parts, last, comment)| {
        parts.extend(last);
        join(parts, comment)
    })
}

fn match_rule(objects: &[Expr], sets: &[Set]) -> impl Strategy<Value = Rule> + use<> {
    (parts(objects, sets), text()).prop_map(|(parts, comment)| join(parts, comment))
}

/// Puts a match of the family or the protocol before what needs it; leaves out what contradicts
/// what stands before it.
fn join(parts: Vec<Part>, comment: Option<String>) -> Rule {
    let (mut family, mut protocol) = (None, None);
    let mut exprs = Vec::new();
    let mut fields = [None; 2];
    let mut layer = None;
    let first_family = parts.iter().find_map(|part| part.family);
    for part in parts {
        let fits =
            |need: Option<u8>, have: Option<u8>| need.is_none() || have.is_none() || need == have;
        if !fits(part.family, family) || !fits(part.protocol, protocol) {
            continue;
        }
        // Of other protocols nft 1.0.6 lists ports by names that it does not read again.
        let any_ports = part.protocol.is_none() && part.exprs.iter().any(is_port);
        if any_ports && !matches!(protocol, None | Some(protocol::TCP | protocol::UDP)) {
            continue;
        }
        // nft joins the fields of one header, wherever they stand, and lists them in its order.
        if let Some(Expr::Payload { header, offset, .. }) = part.exprs.first() {
            let at = &mut fields[usize::from(*header == Header::Transport)];
            if at.is_some_and(|at| at > *offset || layer != Some(*header)) {
                continue;
            }
            *at = Some(*offset);
            layer = Some(*header);
        }
        // The family first: nft knows the protocol's match as implied only behind it.
        let early = part.protocol.and(first_family);
        if let (Some(need), None) = (part.family.or(early), family) {
            exprs.extend(meta(MetaKey::Nfproto, CmpOp::Eq, vec![need]));
            family = Some(need);
        }
        if let (Some(need), None) = (part.protocol, protocol) {
            exprs.extend(meta(MetaKey::L4proto, CmpOp::Eq, vec![need]));
            protocol = part.protocol;
        }
        exprs.extend(part.exprs);
    }
    if exprs.is_empty() {
        exprs.push(Expr::Verdict(Verdict::Accept));
    }
    Rule { exprs, comment }
}

fn is_port(expr: &Expr) -> bool {
    matches!(expr, Expr::Payload { header: Header::Transport, len: 2, .. })
}

fn meta(key: MetaKey, op: CmpOp, data: Vec<u8>) -> Vec<Expr> {
    vec![Expr::Meta { key, reg: REG }, Expr::Cmp { reg: REG, op, data }]
}

fn parts(objects: &[Expr], sets: &[Set]) -> impl Strategy<Value = Vec<Part>> + use<> {
    let kinds = vec![
        field(V4, None, Header::Network, 12, Ipv4Addr, sets),
        field(V4, None, Header::Network, 16, Ipv4Addr, sets),
        field(V6, None, Header::Network, 8, Ipv6Addr, sets),
        field(V6, None, Header::Network, 24, Ipv6Addr, sets),
        field(None, Some(protocol::TCP), Header::Transport, 0, InetService, sets),
        field(None, Some(protocol::TCP), Header::Transport, 2, InetService, sets),
        field(None, Some(protocol::UDP), Header::Transport, 2, InetService, sets),
        field(V4, Some(protocol::ICMP), Header::Transport, 0, IcmpType, sets),
        field(V6, Some(protocol::ICMPV6), Header::Transport, 0, Icmpv6Type, sets),
        loaded(None, None, vec![Expr::Meta { key: MetaKey::L4proto, reg: REG }], InetProto, sets),
        loaded(None, Some(protocol::TCP), original_port(), InetService, sets),
        concatenated(V4, 12, Ipv4Addr, sets),
        concatenated(V6, 8, Ipv6Addr, sets),
        with_protocol(V4, 12, Ipv4Addr, sets),
        with_protocol(V6, 8, Ipv6Addr, sets),
        interface().boxed(),
        conntrack().boxed(),
        fixed().boxed(),
    ];
    let matches = vec(proptest::strategy::Union::new(kinds), 0..5);
    let mut kinds = vec![statement().boxed()];
    if !objects.is_empty() {
        kinds.push(select(objects.to_vec()).prop_map(|object| plain(vec![object])).boxed());
    }
    let statements = vec(proptest::strategy::Union::new(kinds), 0..3);
    (matches, statements).prop_map(|(matches, statements)| [matches, statements].concat())
}

fn plain(exprs: Vec<Expr>) -> Part {
    Part { family: None, protocol: None, exprs }
}

fn original_port() -> Vec<Expr> {
    vec![Expr::Ct { key: CtKey::OriginalProtoDst, reg: REG }]
}

fn field(
    family: Option<u8>,
    protocol: Option<u8>,
    header: Header,
    offset: u32,
    key: KeyType,
    sets: &[Set],
) -> BoxedStrategy<Part> {
    let len = u32::try_from(width(key)).expect("keys are short");
    let load = Expr::Payload { header, offset, len, reg: REG };
    loaded(family, protocol, vec![load], key, sets)
}

/// Returns the expressions that can use a value of this type, after `load` has put it into the
/// register.
fn loaded(
    family: Option<u8>,
    protocol: Option<u8>,
    load: Vec<Expr>,
    key: KeyType,
    sets: &[Set],
) -> BoxedStrategy<Part> {
    let cmp = |op, data| Expr::Cmp { reg: REG, op, data };
    let word = matches!(key, InetProto | IcmpType | Icmpv6Type);
    let ops = match key {
        InetService => {
            vec![CmpOp::Eq, CmpOp::Neq, CmpOp::Lt, CmpOp::Lte, CmpOp::Gt, CmpOp::Gte]
        }
        // A rule says only once what its protocol is, see `join`.
        InetProto => vec![CmpOp::Neq],
        _ => vec![CmpOp::Eq, CmpOp::Neq],
    };
    let compare =
        (select(ops), key_bytes(&[key])).prop_map(move |(op, data)| vec![cmp(op, data)]).boxed();
    let range = btree_set(key_bytes(&[key]), 2).prop_map(move |bounds| {
        bounds.into_iter().zip([CmpOp::Gte, CmpOp::Lte]).map(|(data, op)| cmp(op, data)).collect()
    });
    let mut tests = vec![compare];
    if !word {
        tests.push(range.boxed());
    }
    if matches!(key, Ipv4Addr | Ipv6Addr) {
        tests.push(prefix(width(key)).boxed());
    }
    let fitting: Vec<Set> = sets.iter().filter(|set| set.key == [key]).cloned().collect();
    if !fitting.is_empty() {
        tests.push(with_set(fitting, key).boxed());
    }
    proptest::strategy::Union::new(tests)
        .prop_map(move |exprs| Part { family, protocol, exprs: [load.clone(), exprs].concat() })
        .boxed()
}

fn prefix(width: usize) -> impl Strategy<Value = Vec<Expr>> {
    (vec(any::<u8>(), width), 1..width * 8, any::<bool>()).prop_map(move |(bytes, len, equal)| {
        let mask = mask(width, len);
        let data = bytes.iter().zip(&mask).map(|(byte, mask)| byte & mask).collect();
        let op = if equal { CmpOp::Eq } else { CmpOp::Neq };
        vec![
            Expr::Bitwise { reg: REG, mask, xor: vec![0; width] },
            Expr::Cmp { reg: REG, op, data },
        ]
    })
}

/// The mask of a prefix of this many bits.
fn mask(width: usize, len: usize) -> Vec<u8> {
    (0..width)
        .map(|at| match len.saturating_sub(at * 8) {
            0 => 0,
            bits @ 1..8 => 0xff << (8 - bits),
            _ => 0xff,
        })
        .collect()
}

/// A lookup, or an addition where the set takes some, with or without a mask.
fn with_set(sets: Vec<Set>, key: KeyType) -> impl Strategy<Value = Vec<Expr>> {
    let width = width(key);
    let address = matches!(key, Ipv4Addr | Ipv6Addr);
    (select(sets), any::<(bool, bool)>(), option::of(1..width * 8)).prop_map(
        move |(set, (first, second), len)| {
            let bitwise = len.filter(|_| address && !set.interval).map(|len| Expr::Bitwise {
                reg: REG,
                mask: mask(width, len),
                xor: vec![0; width],
            });
            bitwise.into_iter().chain([use_set(set, first, second)]).collect()
        },
    )
}

fn use_set(set: Set, first: bool, second: bool) -> Expr {
    if set.dynamic && first {
        let timeout = set.timeout.filter(|_| second).map(|_| Duration::from_millis(90_500));
        Expr::Dynset(Dynset { reg: REG, set: set.name, update: second, timeout })
    } else {
        Expr::Lookup { reg: REG, set: set.name, inverted: second }
    }
}

/// An address and a port, looked up together.
fn concatenated(
    family: Option<u8>,
    offset: u32,
    address: KeyType,
    sets: &[Set],
) -> BoxedStrategy<Part> {
    let fitting: Vec<Set> =
        sets.iter().filter(|set| set.key == [address, InetService]).cloned().collect();
    let len = u32::try_from(width(address)).expect("keys are short");
    let port = Reg::new(u8::try_from(len / 4).expect("registers are few")).expect("below 16");
    let load = vec![
        Expr::Payload { header: Header::Network, offset, len, reg: REG },
        Expr::Payload { header: Header::Transport, offset: 2, len: 2, reg: port },
    ];
    if fitting.is_empty() {
        return Just(plain(Vec::new())).boxed();
    }
    (select(fitting), any::<(bool, bool)>())
        .prop_map(move |(set, (first, second))| Part {
            family,
            protocol: Some(protocol::TCP),
            exprs: [load.clone(), vec![use_set(set, first, second)]].concat(),
        })
        .boxed()
}

/// An address or its network, the protocol and the port, looked up together, whatever the protocol.
fn with_protocol(
    family: Option<u8>,
    offset: u32,
    address: KeyType,
    sets: &[Set],
) -> BoxedStrategy<Part> {
    let key = [address, InetProto, InetService];
    let fitting: Vec<Set> = sets.iter().filter(|set| set.key == key).cloned().collect();
    if fitting.is_empty() {
        return Just(plain(Vec::new())).boxed();
    }
    let bytes = width(address);
    let register = |at: usize| {
        let index = u8::try_from(bytes / 4 + at).expect("registers are few");
        Reg::new(index).expect("below 16")
    };
    let len = u32::try_from(bytes).expect("keys are short");
    let source = Expr::Payload { header: Header::Network, offset, len, reg: REG };
    let protocol_and_port = [
        Expr::Meta { key: MetaKey::L4proto, reg: register(0) },
        Expr::Payload { header: Header::Transport, offset: 2, len: 2, reg: register(1) },
    ];
    (select(fitting), any::<(bool, bool)>(), option::of(1..bytes * 8))
        .prop_map(move |(set, (first, second), len)| {
            let mask = len.map(|len| mask(bytes, len));
            let bitwise = mask.map(|mask| Expr::Bitwise { reg: REG, mask, xor: vec![0; bytes] });
            let mut exprs = vec![source.clone()];
            exprs.extend(bitwise);
            exprs.extend(protocol_and_port.clone());
            exprs.push(use_set(set, first, second));
            Part { family, protocol: None, exprs }
        })
        .boxed()
}

fn interface() -> impl Strategy<Value = Part> {
    let key = select(vec![MetaKey::Iifname, MetaKey::Oifname]);
    let op = select(vec![CmpOp::Eq, CmpOp::Neq]);
    (key, op, "[a-z][a-z0-9.-]{0,12}[a-z0-9]", any::<bool>()).prop_map(|(key, op, name, whole)| {
        let mut data = name.into_bytes();
        if whole {
            data.resize(16, 0);
        }
        plain(meta(key, op, data))
    })
}

fn conntrack() -> impl Strategy<Value = Part> {
    let state = (Just(CtKey::State), subsequence(vec![1, 2, 4, 8, 64], 1..=5));
    let status = (Just(CtKey::Status), subsequence(vec![1, 2, 4, 8, 16, 32], 1..=6));
    prop_oneof![state, status].prop_map(|(key, bits): (CtKey, Vec<u32>)| {
        let mask: u32 = bits.into_iter().sum();
        plain(vec![
            Expr::Ct { key, reg: REG },
            Expr::Bitwise { reg: REG, mask: mask.to_ne_bytes().to_vec(), xor: vec![0; 4] },
            Expr::Cmp { reg: REG, op: CmpOp::Neq, data: vec![0; 4] },
        ])
    })
}

fn fixed() -> impl Strategy<Value = Part> {
    let ends = select(vec![Expr::FibDaddrType { reg: REG }, Expr::FibSaddrType { reg: REG }]);
    let fib = (ends, 1..=5u32, any::<bool>()).prop_map(|(load, kind, equal)| {
        let op = if equal { CmpOp::Eq } else { CmpOp::Neq };
        plain(vec![load, Expr::Cmp { reg: REG, op, data: kind.to_ne_bytes().to_vec() }])
    });
    let mark = (any::<u32>(), any::<bool>()).prop_map(|(mark, equal)| {
        let op = if equal { CmpOp::Eq } else { CmpOp::Neq };
        plain(meta(MetaKey::Mark, op, mark.to_ne_bytes().to_vec()))
    });
    let kinds = (select(vec![MetaKey::Iifkind, MetaKey::Oifkind]), "[a-z][a-z0-9]{1,8}");
    let kind = kinds.prop_map(|(key, kind)| {
        let mut data = kind.into_bytes();
        data.resize(16, 0);
        plain(meta(key, CmpOp::Eq, data))
    });
    let family =
        select(vec![2u8, 10]).prop_map(|family| Part { family: Some(family), ..plain(Vec::new()) });
    let number = select(vec![1u8, 2, 6, 17, 33, 50, 58, 132, 200]);
    let protocol = number.prop_map(|number| Part { protocol: Some(number), ..plain(Vec::new()) });
    let routing_header = any::<u8>().prop_map(|kind| Part {
        family: V6,
        protocol: None,
        exprs: vec![
            Expr::Exthdr { kind: 43, offset: 2, len: 1, reg: REG },
            Expr::Cmp { reg: REG, op: CmpOp::Eq, data: vec![kind] },
        ],
    });
    let hop_limit = any::<u8>().prop_map(|hops| Part {
        family: V6,
        protocol: None,
        exprs: vec![
            Expr::Payload { header: Header::Network, offset: 7, len: 1, reg: REG },
            Expr::Cmp { reg: REG, op: CmpOp::Eq, data: vec![hops] },
        ],
    });
    prop_oneof![fib, mark, kind, family, protocol, routing_header, hop_limit]
}

fn statement() -> impl Strategy<Value = Part> {
    let unit = select(vec![1u64, 60, 3600, 86_400, 604_800]);
    let limit = (1..5000u64, unit, 1..5000u32)
        .prop_map(|(packets, seconds, burst)| Expr::Limit(Limit { packets, seconds, burst }));
    let to = prop_oneof![Just(LogTo::Kernel), any::<u16>().prop_map(LogTo::Group)];
    // In a prefix, nft takes a dollar sign for the start of a variable.
    let log = ("[ !#%-~]{1,127}", to).prop_map(|(prefix, to)| Expr::Log(Log { prefix, to }));
    prop_oneof![limit, log].prop_map(|expr| plain(vec![expr]))
}

/// Returns the last expression of a rule, or none.
fn last(chains: &[String]) -> impl Strategy<Value = Option<Part>> + use<> {
    let part = |expr: Expr| plain(vec![expr]);
    let mut ends = vec![
        part(Expr::Verdict(Verdict::Accept)),
        part(Expr::Verdict(Verdict::Drop)),
        part(Expr::Verdict(Verdict::Return)),
        part(Expr::Reject(Reject::PortUnreachable)),
        Part { protocol: Some(protocol::TCP), ..part(Expr::Reject(Reject::TcpReset)) },
    ];
    ends.extend(chains.iter().map(|chain| part(Expr::Verdict(Verdict::Jump(chain.clone())))));
    ends.extend(chains.iter().map(|chain| part(Expr::Verdict(Verdict::Goto(chain.clone())))));
    option::weighted(0.8, select(ends))
}

/// Returns the names of all objects of a table.
pub fn names(table: &Table) -> BTreeSet<String> {
    let counters = table.counters.iter().map(|counter| &counter.name);
    let sets = table.sets.iter().map(|set| &set.name);
    let chains = table.chains.iter().map(|chain| &chain.name);
    counters.chain(sets).chain(chains).cloned().collect()
}
