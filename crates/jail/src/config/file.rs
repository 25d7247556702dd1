//! The keys of a `jails.json`. Their doc comments are the reference and the schema.

use nfguard_json::document::Problems;
use nfguard_json::reader::{FromJson, List, Node, OneOrMany, object, schema};
use schemars::json_schema;

use crate::config::values::{
    Amount, AnyText, BansAMinute, BuiltinName, Expression, Factor, FilterOptions, FormatWord, Name,
    Nonempty, Prefix, SpanText, Statuses, Uid, Version, ZoneText,
};
use crate::evidence::Field as Part;
use crate::jail::Mode;
use crate::record::Origin;

object! {
    /// Jails: which log, what is evidence, how much of it within what time, and what follows.
    File {
        /// The schema of this file, for editors.
        "$schema" => schema: AnyText,
        /// The version of the format.
        "version" => version: Version [required],
        /// A remark.
        "comment" => comment: AnyText,
        /// The mode of all jails that say none.
        "mode" => mode: Mode = "enforce",
        /// The jails.
        "jails" => jails: List<JailFile> [required],
    }
}

object! {
    /// A jail. With `use` it is a built-in jail, and each key that it has replaces that jail's.
    JailFile {
        /// The built-in jail to begin with, or a filter of Fail2Ban.
        "use" => base: Base,
        /// The name, which no other jail has. The default is that of the built-in jail.
        "name" => name: Name,
        /// A remark.
        "comment" => comment: AnyText,
        /// The log: a path, or an object.
        "log" => log: LogOrPath,
        /// Requests that are evidence, in HTTP logs: a request is evidence if one of the objects
        /// matches, and an object matches if all its keys do. `"bans"` are the bans of all other
        /// jails that are enforced, and of scans.
        "evidence" => evidence: EvidenceList,
        /// Texts that are evidence, in other logs. In the journal and in syslog, a group
        /// `(?P<session>…)` tells sessions of one process apart, and of the texts of one session those of
        /// one expression count.
        "match" => matches: OneOrMany<Expression>,
        /// How much evidence of one source makes a ban.
        "after" => after: Amount = 5,
        /// The time within which it counts.
        "within" => within: SpanText = "10m",
        /// The length of a ban.
        "ban" => ban: SpanText = "1h",
        /// How bans grow of a source that was banned before, by whatever jail.
        "again" => again: AgainFile,
        /// Most bans a minute. What is beyond it is told and not banned: a login service that is
        /// broken would ban every user.
        "bans_a_minute" => bans_a_minute: BansAMinute = 100,
        /// Whether the jail bans.
        "mode" => mode: Mode = "enforce",
    }
}

object! {
    /// A filter of Fail2Ban.
    Fail2banFile {
        /// The path of the filter. What it includes lies beside it.
        "fail2ban" => path: Nonempty [required],
        /// The mode of the filter, such as `aggressive`.
        "mode" => mode: AnyText,
        /// Options that take the place of the filter's own.
        "set" => set: FilterOptions,
    }
}

object! {
    /// How bans grow: with each ban that went before, a ban is longer by the factor.
    AgainFile {
        /// The factor.
        "times" => times: Factor = 2,
        /// The longest ban.
        "up_to" => up_to: SpanText = "7d",
        /// After this time, a ban counts no longer.
        "forget" => forget: SpanText = "30d",
    }
}

object! {
    /// A log.
    LogFile {
        /// The path of the log.
        "file" => file: Nonempty,
        /// The name of the container whose log it is.
        "container" => container: Nonempty,
        /// The journal.
        "journal" => journal: JournalFile,
        /// The format. A built-in jail knows the usual one.
        "format" => format: FormatWord,
        /// The format of the lines within `docker-json`.
        "inside" => inside: FormatWord,
        /// The time zone of times without one.
        "timezone" => timezone: ZoneText = "UTC",
        /// Proxies before the one that writes the log. Only their word for the client counts: in `clf` it
        /// is the third field in quotes, after Referer and User-Agent. A ban cannot hold on this host
        /// then, because packets come from the proxy.
        "trusted_proxies" => trusted_proxies: List<Prefix>,
    }
}

object! {
    /// Messages of the journal, by what the journal itself vouches for.
    JournalFile {
        /// The units. `ssh.service` stands for its instances too.
        "unit" => unit: OneOrMany<AnyText>,
        /// The user that the unit runs as, by number.
        "uid" => uid: Uid,
    }
}

object! {
    /// Requests that are evidence.
    EvidenceFile {
        /// The status of the response.
        "status" => status: OneOrMany<Statuses>,
        /// The method. `*` stands for any text, `?` for any byte.
        "method" => method: OneOrMany<AnyText>,
        /// The host, without its port. `*` stands for any text, `?` for any byte.
        "host" => host: OneOrMany<AnyText>,
        /// The path, percent-decoded and without the query, of at most 8 KiB. `*` stands for any text,
        /// `?` for any byte.
        "path" => path: OneOrMany<AnyText>,
        /// `present`: the log has a user; `absent`: it has none; another text: that user.
        "user" => user: AnyText,
        /// Who answered.
        "origin" => origin: Origin,
        /// How much it counts.
        "counts" => counts: Amount = 1,
        /// Of several with the same value of this, only the last counts.
        "distinct" => distinct: Part,
    }
}

/// A log, or only its path.
#[derive(Debug)]
pub(crate) enum LogOrPath {
    Path(String),
    Log(Box<LogFile>),
}

impl FromJson for LogOrPath {
    fn from_json(node: Node<'_>, problems: &mut Problems) -> Option<Self> {
        match node.value.as_object() {
            Some(_) => LogFile::from_json(node, problems).map(|log| Self::Log(Box::new(log))),
            None if node.value.as_string_lit().is_some() => {
                Nonempty::from_json(node, problems).map(|path| Self::Path(path.0))
            }
            None => {
                node.expected(problems, "a path, or an object");
                None
            }
        }
    }
}
schema!(LogOrPath as "log": |generator| {
    let log = generator.subschema_for::<LogFile>();
    let path = generator.subschema_for::<Nonempty>();
    json_schema!({ "anyOf": [path, log] })
});

/// What a jail begins with.
#[derive(Debug)]
pub(crate) enum Base {
    Builtin(&'static str),
    Fail2ban(Box<Fail2banFile>),
}

impl FromJson for Base {
    fn from_json(node: Node<'_>, problems: &mut Problems) -> Option<Self> {
        match node.value.as_object() {
            Some(_) => {
                Fail2banFile::from_json(node, problems).map(|it| Self::Fail2ban(Box::new(it)))
            }
            None => BuiltinName::from_json(node, problems).map(|name| Self::Builtin(name.0)),
        }
    }
}
schema!(Base as "base": |generator| {
    let name = generator.subschema_for::<BuiltinName>();
    let filter = generator.subschema_for::<Fail2banFile>();
    json_schema!({ "anyOf": [name, filter] })
});

/// What is evidence: requests, or bans.
#[derive(Debug)]
pub(crate) enum EvidenceList {
    Bans,
    Http(Vec<Option<EvidenceFile>>),
}

impl FromJson for EvidenceList {
    fn from_json(node: Node<'_>, problems: &mut Problems) -> Option<Self> {
        if node.value.as_string_lit().is_some() {
            return node.word(problems, &[("bans", ())]).map(|()| Self::Bans);
        }
        let Some(elements) = node.elements() else {
            node.expected(problems, "an array of objects, or \"bans\"");
            return None;
        };
        let rules: Vec<_> =
            elements.map(|element| EvidenceFile::from_json(element, problems)).collect();
        if rules.is_empty() {
            node.error(problems, "found an empty array; expected at least one element");
            return None;
        }
        Some(Self::Http(rules))
    }
}
schema!(EvidenceList as "evidence": |generator| {
    let rule = generator.subschema_for::<EvidenceFile>();
    json_schema!({ "anyOf": [{ "type": "array", "items": rule, "minItems": 1 }, { "const": "bans" }] })
});
