//! The small values of a `jails.json`, each with its reading and its schema side by side.

use std::collections::BTreeMap;

use ipnetwork::IpNetwork;
use nfguard_json::document::{Pointer, Problems};
use nfguard_json::reader::{FromJson, Node, integer, schema, shown, words};
use nfguard_json::suggest::{nearest_text, quoted};
use schemars::json_schema;

use crate::builtin;
use crate::evidence::{Field, Patterns};
use crate::jail::Mode;
use crate::record::Origin;
use crate::time::{Span, Zone};

words!(Mode, "mode", "`enforce` bans; `observe` does all but ban.", {
    "enforce" => Mode::Enforce,
    "observe" => Mode::Observe,
});

words!(
    Origin, "origin",
    "`proxy`: the proxy answered by itself; `application`: the application behind it did. Only \
     Traefik's logs tell.", {
    "proxy" => Origin::Proxy,
    "application" => Origin::Application,
});

words!(
    Field, "distinct",
    "A part of the request. Of several pieces of evidence with the same value, only the last \
     counts.", {
    "path" => Field::Path,
    "user" => Field::User,
    "host" => Field::Host,
});

/// The name of a format.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum FormatWord {
    Traefik,
    TraefikJson,
    TraefikClf,
    Clf,
    Caddy,
    Http,
    DockerJson,
    Journal,
    Sshd,
    Text,
}

words!(
    FormatWord, "format",
    "`traefik`: Traefik's access log, JSON or common by its first record; `traefik-json` and \
     `traefik-clf`: one of them; `clf`: the common or combined format of nginx and Apache; \
     `caddy`: Caddy's access log in JSON; `http`: `clf` or `caddy`, by the first record; `docker-json`: the files of Docker's `json-file` driver; `journal`: what `journalctl` prints \
     with `-o json` or `-o export`; `sshd`: the journal, or syslog's `auth.log`; `text`: lines that \
     begin with their time.", {
    "traefik" => FormatWord::Traefik,
    "traefik-json" => FormatWord::TraefikJson,
    "traefik-clf" => FormatWord::TraefikClf,
    "clf" => FormatWord::Clf,
    "caddy" => FormatWord::Caddy,
    "http" => FormatWord::Http,
    "docker-json" => FormatWord::DockerJson,
    "journal" => FormatWord::Journal,
    "sshd" => FormatWord::Sshd,
    "text" => FormatWord::Text,
});

/// The version of the file. Only version 1 exists.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Version;

impl FromJson for Version {
    fn from_json(node: Node<'_>, problems: &mut Problems) -> Option<Self> {
        if node.value.as_number_lit().is_some_and(|literal| literal.value == "1") {
            return Some(Self);
        }
        node.expected(problems, "1, the version that this nfguard reads");
        None
    }
}
schema!(Version as "version": |_| json_schema!({ "const": 1 }));

/// Defines a text that means something: how it is read, and its schema.
macro_rules! text {
    (
        $(#[doc = $about:literal])*
        $name:ident($type:ty) as $title:literal: $expected:literal, $schema:tt, $read:expr
    ) => {
        $(#[doc = $about])*
        #[derive(Clone, Debug)]
        pub(crate) struct $name(pub(crate) $type);

        impl FromJson for $name {
            fn from_json(node: Node<'_>, problems: &mut Problems) -> Option<Self> {
                let text = node.text(problems, $expected)?;
                let read: fn(&str) -> Result<$type, Wrong> = $read;
                match read(text) {
                    Ok(value) => Some(Self(value)),
                    Err(Wrong { why, suggestion }) => {
                        let why = why.map(|why| format!(": {why}")).unwrap_or_default();
                        let message = format!("found {}; expected {}{why}", shown(text), $expected);
                        node.error_suggesting(problems, message, suggestion);
                        None
                    }
                }
            }
        }

        schema!($name as $title: |_| json_schema!($schema));
    };
}

/// What is wrong with a text.
#[derive(Default)]
struct Wrong {
    why: Option<String>,
    suggestion: Option<String>,
}

text! {
    /// Free text.
    AnyText(String) as "any-text": "a string", { "type": "string" }, |text| Ok(text.to_owned())
}

text! {
    /// The path of a file, or the name of a container.
    Nonempty(String) as "nonempty": "a text that is not empty", {
        "type": "string", "minLength": 1
    }, |text| if text.is_empty() { Err(Wrong::default()) } else { Ok(text.to_owned()) }
}

text! {
    /// The name of a jail.
    Name(String) as "name": "a name of at most 48 of a-z, 0-9, \".\", \"_\" and \"-\"", {
        "type": "string", "pattern": "^[a-z0-9][a-z0-9._-]{0,47}$"
    }, |text| {
        let is_first = |c: char| c.is_ascii_lowercase() || c.is_ascii_digit();
        let is_rest = |c: char| is_first(c) || "._-".contains(c);
        let is_name = text.starts_with(is_first) && text.len() <= 48 && text.chars().all(is_rest);
        if is_name { Ok(text.to_owned()) } else { Err(Wrong::default()) }
    }
}

text! {
    /// A length of time.
    SpanText(Span) as "time": "a time such as \"90s\", \"10m\", \"1h\", \"7d\" or \"2w\"", {
        "description": "A length of time: numbers with the units `s`, `m`, `h`, `d` and `w`, from \
            one second to a hundred years.",
        "type": "string", "pattern": "^([0-9]+[smhdw])+$"
    }, |text| {
        let suggestion = match text.trim() {
            digits if !digits.is_empty() && digits.bytes().all(|byte| byte.is_ascii_digit()) => {
                Some(quoted(&format!("{digits}s")))
            }
            other => {
                let squeezed = other.to_lowercase().replace(' ', "");
                (squeezed != text && Span::parse(&squeezed).is_some()).then(|| quoted(&squeezed))
            }
        };
        let span = Span::parse(text).filter(|span| span.seconds() > 0);
        span.ok_or(Wrong { why: None, suggestion })
    }
}

text! {
    /// A time zone.
    ZoneText(Zone) as "timezone":
        "a time zone such as \"UTC\", \"+02:00\" or \"Europe/Berlin\"", {
        "description": "A time zone: `UTC`, an offset such as `+02:00`, or a name such as \
            `Europe/Berlin`.",
        "type": "string"
    }, |text| {
        Zone::parse(text).ok_or_else(|| {
            let names: Vec<String> = Zone::names().collect();
            let suggestion = nearest_text(text, names.iter().map(String::as_str));
            Wrong { why: None, suggestion }
        })
    }
}

text! {
    /// Addresses.
    Prefix(IpNetwork) as "prefix": "an address or a prefix such as \"10.0.0.0/8\"", {
        "description": "An address, or a prefix such as `10.0.0.0/8` or `2001:db8::/32`.",
        "type": "string"
    }, |text| {
        let network: IpNetwork = text.parse().map_err(|_| Wrong::default())?;
        if network.ip() == network.network() {
            return Ok(network);
        }
        let suggestion = Some(quoted(&format!("{}/{}", network.network(), network.prefix())));
        Err(Wrong { why: Some("it has bits after its prefix".to_owned()), suggestion })
    }
}

text! {
    /// A regular expression.
    Expression(String) as "expression": "a regular expression with <client>", {
        "description": "A regular expression with `<client>`, which stands for the client's \
            address. It is anchored at both ends, unless it begins or ends with `.*`. A client can \
            write most of a line, so let it end with what the program writes.",
        "type": "string", "pattern": "<client>"
    }, |text| match Patterns::check(text) {
        None => Ok(text.to_owned()),
        Some(why) => Err(Wrong { why: Some(why), suggestion: None }),
    }
}

text! {
    /// The name of a built-in jail.
    BuiltinName(&'static str) as "builtin":
        "the name of a built-in jail (`nfguard jail show` lists them)", {
        "description": "The name of a built-in jail.",
        "enum": [
            "http-auth", "http-probe", "recidive", "sshd", "traefik-auth", "traefik-probe",
            "traefik-ratelimit", "traefik-trap"
        ]
    }, |text| {
        let mut names = builtin::names();
        names.find(|name| *name == text).ok_or_else(|| Wrong {
            why: None,
            suggestion: nearest_text(text, builtin::NAMES),
        })
    }
}

/// Options of a filter of Fail2Ban.
#[derive(Clone, Debug)]
pub(crate) struct FilterOptions(pub(crate) BTreeMap<String, String>);

impl FromJson for FilterOptions {
    fn from_json(node: Node<'_>, problems: &mut Problems) -> Option<Self> {
        let properties = node.properties(problems, "an object of texts")?;
        let options = properties.iter().map(|property| {
            let key = property.name.as_str();
            let value = Node { value: &property.value, pointer: Pointer::Key(&node.pointer, key) };
            Some((key.to_lowercase(), value.text(problems, "a string")?.to_owned()))
        });
        // Each mistake is told, not only the first.
        let options: Vec<_> = options.collect();
        options.into_iter().collect::<Option<_>>().map(Self)
    }
}
schema!(FilterOptions as "options": |_| json_schema!({
    "description": "Options of a filter by their names, each a text.",
    "type": "object",
    "additionalProperties": { "type": "string" }
}));

/// A status, or a class of statuses.
#[derive(Clone, Debug)]
pub(crate) struct Statuses(pub(crate) std::ops::RangeInclusive<u16>);

impl FromJson for Statuses {
    fn from_json(node: Node<'_>, problems: &mut Problems) -> Option<Self> {
        if let Some(number) = node.value.as_number_lit() {
            let status = number.value.parse().ok().filter(|status| (100..=599).contains(status));
            if let Some(status) = status {
                return Some(Self(status..=status));
            }
        } else if let Some(text) = node.value.as_string_lit()
            && let [digit @ b'1'..=b'5', b'x', b'x'] = text.value.as_bytes()
        {
            let first = u16::from(digit - b'0') * 100;
            return Some(Self(first..=first + 99));
        }
        node.expected(problems, "a status from 100 to 599, or a class such as \"4xx\"");
        None
    }
}
schema!(Statuses as "status": |_| json_schema!({
    "description": "An HTTP status, or a class such as `4xx`.",
    "anyOf": [
        { "type": "integer", "minimum": 100, "maximum": 599 },
        { "type": "string", "pattern": "^[1-5]xx$" }
    ]
}));

/// A factor by which bans grow.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Factor(pub(crate) f64);

impl FromJson for Factor {
    fn from_json(node: Node<'_>, problems: &mut Problems) -> Option<Self> {
        let number = node.value.as_number_lit().and_then(|it| it.value.parse::<f64>().ok());
        let factor = number.filter(|factor| (1.0..=1000.0).contains(factor));
        if factor.is_none() {
            node.expected(problems, "a number from 1 to 1000");
        }
        factor.map(Self)
    }
}
schema!(Factor as "factor": |_| json_schema!({ "type": "number", "minimum": 1, "maximum": 1000 }));

integer! {
    /// How much evidence makes a ban, or how much a piece of evidence counts.
    Amount: "a number", 1..=10_000
}
integer! {
    /// Bans a minute.
    BansAMinute: "a number", 1..=1_000_000
}
integer! {
    /// The number of a user.
    Uid: "a number", 0..=4_294_967_294_u32
}
