//! The small values of a policy file, each with its reading and its schema side by side.

use std::borrow::Cow;

use schemars::{JsonSchema, Schema, SchemaGenerator, json_schema};

use crate::json::document::Problems;
use crate::json::reader::{Field, FromJson, Node, integer, schema, shown, words};
use crate::policy::{Builtin, Direction, Helper, RateUnit, Verdict};

words!(Verdict, "verdict", "`drop` is silent; `reject` answers with a TCP reset or an ICMP error.", {
    "drop" => Verdict::Drop,
    "reject" => Verdict::Reject,
    "accept" => Verdict::Accept,
});

words!(
    Direction, "direction",
    "`in`: to this host and the ports that it publishes for containers; `out`: from this host and \
     from its containers to elsewhere; `forward`: routed through this host.", {
    "in" => Direction::In,
    "out" => Direction::Out,
    "forward" => Direction::Forward,
});

words!(RateUnit, "rate-unit", "A unit of time.", {
    "second" => RateUnit::Second,
    "minute" => RateUnit::Minute,
    "hour" => RateUnit::Hour,
    "day" => RateUnit::Day,
});

/// The action of a rule, without the numbers of a limit.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum ActionWord {
    Allow,
    Deny,
    Reject,
    Limit,
}

words!(
    ActionWord, "action",
    "`deny` is silent; `reject` answers; `limit` allows, but not too often from one source.", {
    "allow" => ActionWord::Allow,
    "deny" => ActionWord::Deny,
    "reject" => ActionWord::Reject,
    "limit" => ActionWord::Limit,
});

/// A helper of the kernel, or the word that none is needed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct HelperWord(pub(crate) Option<Helper>);

words!(
    HelperWord, "helper",
    "The kernel's name of a connection tracking helper. A kernel without its module \
     (`nf_conntrack_` and the name) refuses the policy.", {
    "none" => HelperWord(None),
    "amanda" => HelperWord(Some(Helper::Amanda)),
    "ftp" => HelperWord(Some(Helper::Ftp)),
    "irc" => HelperWord(Some(Helper::Irc)),
    "netbios-ns" => HelperWord(Some(Helper::NetbiosNs)),
    "pptp" => HelperWord(Some(Helper::Pptp)),
    "sane" => HelperWord(Some(Helper::Sane)),
    "sip" => HelperWord(Some(Helper::Sip)),
    "snmp" => HelperWord(Some(Helper::Snmp)),
    "tftp" => HelperWord(Some(Helper::Tftp)),
});

/// What happens to a connection over a limit.
#[derive(Clone, Copy, Debug)]
pub(crate) struct OverLimit(pub(crate) Verdict);

words!(OverLimit, "over-limit", "`drop` is silent; `reject` answers.", {
    "reject" => OverLimit(Verdict::Reject),
    "drop" => OverLimit(Verdict::Drop),
});

/// Whether containers follow the rules for `out`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Egress {
    Policy,
    Open,
}

words!(
    Egress, "container-egress",
    "`policy`: what the rules for `out` allow, as for this host; `open`: everything.", {
    "policy" => Egress::Policy,
    "open" => Egress::Open,
});

integer! {
    /// Number of connections that a limit counts to.
    Connections: "a number", 2..=32
}
integer! {
    /// The time within which a limit or a scan counts, at most a day.
    Seconds: "a number of seconds", 1..=86_400
}
integer! {
    /// Number of closed ports that make a scan.
    ScanPorts: "a number", 2..=32
}
integer! {
    /// Length of a ban by the kernel, at most thirty days.
    BanSeconds: "a number of seconds", 1..=2_592_000
}
integer! {
    /// How long a peer is known after it has sent data, at most a day.
    KnownSeconds: "a number of seconds", 0..=86_400
}
integer! {
    /// A number of log lines, or of bans.
    Positive: "a number", 1..=u32::MAX
}
integer! {
    /// Number of sources that a set holds.
    SourceCount: "a number", 1..=u32::MAX
}
integer! {
    /// An NFLOG group.
    GroupNumber: "a group", 0..=65_535
}

/// Length of the IPv6 prefix that counts as one source.
#[derive(Clone, Copy, Debug)]
pub(crate) struct V6PrefixLength(pub(crate) u8);

impl FromJson for V6PrefixLength {
    fn from_json(node: Node<'_>, problems: &mut Problems) -> Option<Self> {
        match node.value.as_number_lit().map(|literal| literal.value) {
            Some("64") => Some(Self(64)),
            Some("128") => Some(Self(128)),
            _ => {
                node.expected(problems, "64 or 128");
                None
            }
        }
    }
}

schema!(V6PrefixLength as "v6-prefix": |_| {
    json_schema!({ "enum": [64, 128] })
});

/// The version of the policy language. Only version 1 exists.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Version;

impl FromJson for Version {
    fn from_json(node: Node<'_>, problems: &mut Problems) -> Option<Self> {
        let literal = node.value.as_number_lit();
        if literal.is_some_and(|literal| literal.value == "1") {
            return Some(Self);
        }
        node.expected(problems, "1, the version that this nfguard reads");
        None
    }
}

schema!(Version as "version": |_| {
    json_schema!({ "const": 1 })
});

/// Defines a text within bounds. A function returns what is wrong with the text, if anything is.
macro_rules! text {
    (
        $(#[doc = $about:literal])*
        $name:ident: $expected:literal, $schema:tt, $check:expr
    ) => {
        $(#[doc = $about])*
        #[derive(Clone, Debug)]
        pub(crate) struct $name(pub(crate) String);

        impl FromJson for $name {
            fn from_json(node: Node<'_>, problems: &mut Problems) -> Option<Self> {
                let text = node.text(problems, $expected)?;
                let check: fn(&str) -> Option<String> = $check;
                match check(text) {
                    None => Some(Self(text.to_owned())),
                    Some(why) => {
                        let message = format!("found {}; expected {}: {why}", shown(text), $expected);
                        node.error(problems, message);
                        None
                    }
                }
            }
        }

        impl JsonSchema for $name {
            fn schema_name() -> Cow<'static, str> {
                stringify!($name).into()
            }

            fn inline_schema() -> bool {
                true
            }

            fn json_schema(_: &mut SchemaGenerator) -> Schema {
                json_schema!($schema)
            }
        }
    };
}

text! {
    /// Free text that only people read.
    AnyText: "a string", { "type": "string" }, |_| None
}

text! {
    /// The comment of a rule, which the kernel keeps and nft prints.
    Comment: "a line of at most 120 bytes", {
        "type": "string", "maxLength": 120, "pattern": "^[^\"\\u0000-\\u001f\\u007f]*$"
    }, |text| too_long(text, 120).or_else(|| unprintable(text, &['"']))
}

text! {
    /// The text before a log line.
    LogPrefix: "a log prefix of at most 127 bytes", {
        "type": "string", "maxLength": 127, "pattern": "^[^\"$\\\\\\u0000-\\u001f\\u007f]*$"
    }, |text| too_long(text, 127).or_else(|| unprintable(text, &['"', '$', '\\']))
}

text! {
    /// The name of a rule.
    Name: "a name of at most 48 of a-z, 0-9, \".\", \"_\" and \"-\"", {
        "type": "string", "pattern": "^[a-z0-9][a-z0-9._-]{0,47}$"
    }, |text| {
        if !text.starts_with(|first: char| first.is_ascii_lowercase() || first.is_ascii_digit()) {
            return Some("it does not begin with a letter or a digit".to_owned());
        }
        too_long(text, 48).or_else(|| text.chars().find(|found| !is_name_char(*found)).map(not_allowed))
    }
}

fn is_name_char(found: char) -> bool {
    found.is_ascii_lowercase() || found.is_ascii_digit() || "._-".contains(found)
}

fn too_long(text: &str, max_bytes: usize) -> Option<String> {
    (text.len() > max_bytes).then(|| format!("it has {} bytes", text.len()))
}

fn unprintable(text: &str, refused: &[char]) -> Option<String> {
    text.chars().find(|found| found.is_control() || refused.contains(found)).map(not_allowed)
}

fn not_allowed(found: char) -> String {
    format!("the character {found:?} is not allowed")
}

/// The built-in allowances that a file switches on or off.
#[derive(Debug)]
pub(crate) struct Builtins(pub(crate) Vec<(Builtin, bool)>);

impl FromJson for Builtins {
    fn from_json(node: Node<'_>, problems: &mut Problems) -> Option<Self> {
        let keys = Builtin::ALL.map(Builtin::name);
        let object = node.object(problems, &keys)?;
        let switch = |builtin: Builtin| match object.field(builtin.name(), problems) {
            Field::Given(on) => Some((builtin, on)),
            Field::Absent | Field::Bad => None,
        };
        Some(Self(Builtin::ALL.into_iter().filter_map(switch).collect()))
    }
}

schema!(Builtins as "builtin": |_| {
    let properties: serde_json::Map<_, _> = Builtin::ALL
        .into_iter()
        .map(|builtin| {
            let schema = serde_json::json!({
                "type": "boolean",
                "description": builtin.description(),
                "default": builtin.is_on_by_default(),
            });
            (builtin.name().to_owned(), schema)
        })
        .collect();
    json_schema!({
        "description": "Whether each allowance is on.",
        "type": "object", "properties": properties, "additionalProperties": false,
    })
});
