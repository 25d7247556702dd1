//! Protocols and ICMP types, each with its reading and its schema side by side.

use schemars::json_schema;

use crate::json::document::Problems;
use crate::json::reader::{FromJson, Node, schema, shown};
use crate::json::suggest::quoted;

/// An IP protocol.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Protocol {
    Any,
    /// An IP protocol number, TCP, UDP, ICMP and ICMPv6 included.
    Number(u8),
}

/// The words for protocols in a policy.
const PROTOCOLS: [(&str, Protocol); 10] = [
    ("tcp", Protocol::TCP),
    ("udp", Protocol::UDP),
    ("icmp", Protocol::ICMP),
    ("icmpv6", Protocol::ICMPV6),
    ("esp", Protocol::Number(50)),
    ("ah", Protocol::Number(51)),
    ("gre", Protocol::Number(47)),
    ("ipv6", Protocol::Number(41)),
    ("igmp", Protocol::Number(2)),
    ("sctp", Protocol::Number(132)),
];

/// Returns the number of a protocol that is written as in a policy: a word, or a number.
#[must_use]
pub fn protocol_number(word: &str) -> Option<u8> {
    let named = PROTOCOLS.iter().find(|(name, _)| *name == word).map(|(_, protocol)| *protocol);
    match named {
        Some(Protocol::Number(number)) => Some(number),
        Some(Protocol::Any) | None => word.parse().ok(),
    }
}

/// Returns the word for a protocol in a policy, or its number as text if there is no word.
#[must_use]
pub fn protocol_word(number: u8) -> String {
    Protocol::Number(number).shown()
}

impl Protocol {
    pub(crate) const TCP: Self = Self::Number(6);
    pub(crate) const UDP: Self = Self::Number(17);
    pub(crate) const ICMP: Self = Self::Number(1);
    pub(crate) const ICMPV6: Self = Self::Number(58);

    /// Returns the protocol as a policy writes it.
    pub(crate) fn shown(self) -> String {
        match (PROTOCOLS.iter().find(|(_, protocol)| *protocol == self), self) {
            (Some((name, _)), _) => (*name).to_owned(),
            (None, Self::Number(number)) => number.to_string(),
            (None, Self::Any) => "any".to_owned(),
        }
    }

    fn words() -> Vec<(&'static str, Self)> {
        PROTOCOLS.into_iter().chain([("any", Self::Any)]).collect()
    }
}

impl FromJson for Protocol {
    fn from_json(node: Node<'_>, problems: &mut Problems) -> Option<Self> {
        if node.value.as_number_lit().is_some() {
            let number = node.integer(problems, 1..=255, "a protocol number")?;
            return u8::try_from(number).ok().map(Self::Number);
        }
        node.word(problems, &Self::words())
    }
}

schema!(Protocol as "protocol": |_| {
    let names: Vec<_> = Self::words().into_iter().map(|(name, _)| name).collect();
    json_schema!({
        "description": "A protocol by name or number.",
        "anyOf": [{ "enum": names }, { "type": "integer", "minimum": 1, "maximum": 255 }],
    })
});

/// An ICMP type: a number, or a name with its numbers in ICMP and ICMPv6.
#[derive(Clone, Copy, Debug)]
pub(crate) enum IcmpType {
    Number(u8),
    Named { name: &'static str, v4: Option<u8>, v6: Option<u8> },
}

/// The names that nft prints, with their numbers in ICMP and ICMPv6.
const ICMP_TYPES: [(&str, Option<u8>, Option<u8>); 27] = [
    ("destination-unreachable", Some(3), Some(1)),
    ("packet-too-big", None, Some(2)),
    ("time-exceeded", Some(11), Some(3)),
    ("parameter-problem", Some(12), Some(4)),
    ("echo-request", Some(8), Some(128)),
    ("echo-reply", Some(0), Some(129)),
    ("source-quench", Some(4), None),
    ("redirect", Some(5), None),
    ("router-advertisement", Some(9), None),
    ("router-solicitation", Some(10), None),
    ("timestamp-request", Some(13), None),
    ("timestamp-reply", Some(14), None),
    ("info-request", Some(15), None),
    ("info-reply", Some(16), None),
    ("address-mask-request", Some(17), None),
    ("address-mask-reply", Some(18), None),
    ("mld-listener-query", None, Some(130)),
    ("mld-listener-report", None, Some(131)),
    ("mld-listener-done", None, Some(132)),
    ("nd-router-solicit", None, Some(133)),
    ("nd-router-advert", None, Some(134)),
    ("nd-neighbor-solicit", None, Some(135)),
    ("nd-neighbor-advert", None, Some(136)),
    ("nd-redirect", None, Some(137)),
    ("router-renumbering", None, Some(138)),
    ("ind-neighbor-solicit", None, Some(141)),
    ("mld2-listener-report", None, Some(143)),
];

impl FromJson for IcmpType {
    fn from_json(node: Node<'_>, problems: &mut Problems) -> Option<Self> {
        if node.value.as_number_lit().is_some() {
            let number = node.integer(problems, 0..=255, "an ICMP type")?;
            return u8::try_from(number).ok().map(Self::Number);
        }
        let text = node.text(problems, "an ICMP type by name or number")?;
        if let Some((name, v4, v6)) = ICMP_TYPES.into_iter().find(|(name, ..)| *name == text) {
            return Some(Self::Named { name, v4, v6 });
        }
        let suggestion = crate::json::suggest::nearest(text, ICMP_TYPES.map(|(name, ..)| name));
        let message = format!(
            "unknown ICMP type {}; expected a number or a name like \"echo-request\"",
            shown(text)
        );
        node.error_suggesting(problems, message, suggestion.map(quoted));
        None
    }
}

schema!(IcmpType as "icmp-type": |_| {
    json_schema!({
        "description": "An ICMP or ICMPv6 type by name or number.",
        "anyOf": [
            { "enum": ICMP_TYPES.map(|(name, ..)| name) },
            { "type": "integer", "minimum": 0, "maximum": 255 },
        ],
    })
});
