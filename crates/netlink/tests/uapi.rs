//! The kernel's numbers, as this crate has them and as the headers of this machine have them.

use std::collections::HashMap;
use std::fs;

const HEADERS: [&str; 19] = [
    "linux/netlink.h",
    "linux/netfilter.h",
    "linux/netfilter/nfnetlink.h",
    "linux/netfilter/nf_tables.h",
    "linux/netfilter/nf_tables_compat.h",
    "linux/netfilter/nf_log.h",
    "linux/netfilter/nf_conntrack_common.h",
    "linux/netfilter/nf_conntrack_tcp.h",
    "linux/netfilter/nfnetlink_conntrack.h",
    "linux/netfilter/nfnetlink_log.h",
    "linux/rtnetlink.h",
    "linux/if_link.h",
    "linux/if_addr.h",
    "linux/neighbour.h",
    "linux/nexthop.h",
    "linux/sock_diag.h",
    "linux/inet_diag.h",
    "asm-generic/errno-base.h",
    "asm-generic/errno.h",
];

/// Constants that have names of their own here, by file.
const OTHERS: [(&str, &[(&str, &str)]); 5] = [
    (
        include_str!("../src/wire/batch.rs"),
        &[
            ("BATCH_BEGIN", "NFNL_MSG_BATCH_BEGIN"),
            ("BATCH_END", "NFNL_MSG_BATCH_END"),
            ("BATCH_GENID", "NFNL_BATCH_GENID"),
        ],
    ),
    (
        include_str!("../src/wire/message.rs"),
        &[
            ("INET", "NFPROTO_INET"),
            ("SUBSYSTEM", "NFNL_SUBSYS_NFTABLES"),
            ("REQUEST", "NLM_F_REQUEST"),
            ("ACK", "NLM_F_ACK"),
            ("DUMP", "NLM_F_DUMP"),
            ("EXCL", "NLM_F_EXCL"),
            ("CREATE", "NLM_F_CREATE"),
            ("APPEND", "NLM_F_APPEND"),
            ("EPERM", "EPERM"),
            ("ENOENT", "ENOENT"),
            ("EINTR", "EINTR"),
            ("EBUSY", "EBUSY"),
            ("EEXIST", "EEXIST"),
            ("EINVAL", "EINVAL"),
            ("ERESTART", "ERESTART"),
            ("EOPNOTSUPP", "EOPNOTSUPP"),
        ],
    ),
    (
        include_str!("../src/wire/reply.rs"),
        &[
            ("DUMP_INTERRUPTED", "NLM_F_DUMP_INTR"),
            ("ACK_TLVS", "NLM_F_ACK_TLVS"),
            ("ERROR", "NLMSG_ERROR"),
            ("DONE", "NLMSG_DONE"),
            ("ERROR_MESSAGE", "NLMSGERR_ATTR_MSG"),
            ("ERROR_OFFSET", "NLMSGERR_ATTR_OFFS"),
        ],
    ),
    (
        include_str!("../src/wire/expr/action.rs"),
        &[
            ("DROP", "NF_DROP"),
            ("ACCEPT", "NF_ACCEPT"),
            ("WARNING", "NFT_LOGLEVEL_WARNING"),
            ("PORT_UNREACHABLE", "NFT_REJECT_ICMPX_PORT_UNREACH"),
            ("VERDICT_REGISTER", "NFT_REG_VERDICT"),
        ],
    ),
    (
        include_str!("../src/symbols.rs"),
        &[
            ("DNAT", "IPS_DST_NAT"),
            ("UNICAST", "RTN_UNICAST"),
            ("LOCAL", "RTN_LOCAL"),
            ("BROADCAST", "RTN_BROADCAST"),
            ("ANYCAST", "RTN_ANYCAST"),
            ("MULTICAST", "RTN_MULTICAST"),
            ("NFPROTO_IPV4", "NFPROTO_IPV4"),
            ("NFPROTO_IPV6", "NFPROTO_IPV6"),
        ],
    ),
];

#[test]
fn every_number_of_uapi_is_the_hosts() {
    let host = host();
    let ours = constants(include_str!("../src/wire/uapi.rs"));
    assert!(ours.len() > 100, "only {} constants found", ours.len());
    for (name, value) in ours {
        assert_eq!(host.get(name.as_str()), Some(&value), "{name}");
    }
}

#[test]
fn numbers_under_other_names_are_the_hosts() {
    let host = host();
    for (source, names) in OTHERS {
        let ours: HashMap<_, _> = constants(source).into_iter().collect();
        for (name, theirs) in names {
            let value = ours.get(*name);
            assert!(value.is_some() && value == host.get(*theirs), "{name} = {value:?}, {theirs}");
        }
    }
}

/// `const NAME: TYPE = NUMBER;`, wherever it stands in a line.
fn constants(source: &str) -> Vec<(String, i64)> {
    let constant = |line: &str| {
        let (_, rest) = line.split_once("const ")?;
        let (name, rest) = rest.split_once(':')?;
        let (_, value) = rest.split_once(" = ")?;
        Some((name.to_owned(), evaluate(value.strip_suffix(';')?, &HashMap::new())?))
    };
    source.lines().filter_map(constant).collect()
}

/// Every enumerator and number in the headers.
fn host() -> HashMap<String, i64> {
    let mut numbers = HashMap::new();
    for header in HEADERS {
        let path = format!("/usr/include/{header}");
        let text = fs::read_to_string(&path)
            .unwrap_or_else(|error| panic!("{path}: {error}; install linux-libc-dev"));
        let text = without_comments(&text);
        let defines = text.lines().filter_map(|line| line.strip_prefix("#define"));
        for (name, value) in
            defines.filter_map(|line| line.trim_start().split_once(char::is_whitespace))
        {
            if let Some(value) = evaluate(value, &numbers) {
                numbers.insert(name.to_owned(), value);
            }
        }
        for (_, rest) in text.match_indices("enum").map(|(at, word)| text.split_at(at + word.len()))
        {
            let head = rest.split([';', '{']).next().unwrap_or_default();
            if let Some(body) = rest.strip_prefix(head).and_then(|rest| rest.strip_prefix('{')) {
                enumerators(body.split('}').next().unwrap_or_default(), &mut numbers);
            }
        }
    }
    numbers
}

fn enumerators(body: &str, numbers: &mut HashMap<String, i64>) {
    let lines: Vec<_> = body.lines().filter(|line| !line.starts_with('#')).collect();
    let mut next = Some(0);
    for item in lines.join(" ").split(',').map(str::trim).filter(|item| !item.is_empty()) {
        let (name, value) = match item.split_once('=') {
            Some((name, value)) => (name.trim(), evaluate(value, numbers)),
            None => (item, next),
        };
        if let Some(value) = value {
            numbers.insert(name.to_owned(), value);
        }
        next = value.map(|value| value + 1);
    }
}

fn without_comments(text: &str) -> String {
    let mut parts = text.split("/*");
    let mut out = parts.next().unwrap_or_default().to_owned();
    for part in parts {
        out += part.split_once("*/").map_or("", |(_, code)| code);
    }
    out
}

/// The few forms of constant expressions that these files use.
fn evaluate(text: &str, known: &HashMap<String, i64>) -> Option<i64> {
    let text = text.trim();
    if let Some(inner) = text.strip_prefix('(').and_then(|text| text.strip_suffix(')')) {
        return evaluate(inner, known);
    }
    if let Some((left, right)) = text.split_once('|') {
        return Some(evaluate(left, known)? | evaluate(right, known)?);
    }
    if let Some((left, right)) = text.split_once('+') {
        return evaluate(left, known)?.checked_add(evaluate(right, known)?);
    }
    if let Some((left, right)) = text.split_once("<<") {
        return evaluate(left, known)?.checked_shl(evaluate(right, known)?.try_into().ok()?);
    }
    match text.strip_prefix("0x") {
        Some(digits) => i64::from_str_radix(digits, 16).ok(),
        None => text.parse().ok().or_else(|| known.get(text).copied()),
    }
}
