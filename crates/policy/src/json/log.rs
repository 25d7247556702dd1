//! The keys about logs, each with its reading and its schema side by side.

use jsonc_parser::ast::Value;
use schemars::json_schema;

use crate::json::document::Problems;
use crate::json::reader::{FromJson, List, Node, object, schema};
use crate::json::values::{GroupNumber, LogPrefix, Positive};
use crate::policy::{Direction, LogRate, LogTo, RateUnit};

object! {
    /// Where log lines go, how many, and for which unmatched packets.
    LogFile {
        /// The kernel log, or an NFLOG group that a program listens to, such as `nfguard log`.
        "to" => to: LogTo = "kernel",
        /// The text before each line: at most 127 bytes, without `"`, `$` and `\`. In an NFLOG group
        /// the verdict and the rule follow it.
        "prefix" => prefix: LogPrefix = "[NFGUARD] ",
        /// The highest rate of log lines.
        "rate" => rate: LogRateSetting = { "packets": 3, "per": "minute", "burst": 10 },
        /// Directions in which nfguard logs packets that no rule matches.
        "unmatched" => unmatched: List<Direction> = [],
    }
}

object! {
    /// Log settings of one rule. A key that is left out has its value from `log` of the policy.
    RuleLogFile {
        /// The kernel log, or an NFLOG group that a program listens to, such as `nfguard log`.
        "to" => to: LogTo,
        /// The text before each line: at most 127 bytes, without `"`, `$` and `\`.
        "prefix" => prefix: LogPrefix,
        /// The highest rate of log lines.
        "rate" => rate: LogRateSetting,
    }
}

object! {
    /// An NFLOG group that a program listens to.
    LogGroupFile {
        /// Number of the group.
        "group" => group: GroupNumber [required],
    }
}

object! {
    /// At most `packets` lines in each unit of time, after a first burst.
    RateFile {
        /// Number of lines in each unit of time.
        "packets" => packets: Positive = 3,
        /// The time in which these lines may come.
        "per" => per: RateUnit = "minute",
        /// Number of lines that may come at once.
        "burst" => burst: Positive = 10,
    }
}

/// The key `log` of a rule.
#[derive(Debug)]
pub(crate) enum RuleLog {
    Switch(bool),
    Settings(RuleLogFile),
}

impl FromJson for LogTo {
    fn from_json(node: Node<'_>, problems: &mut Problems) -> Option<Self> {
        if let Value::Object(_) = node.value {
            let group = LogGroupFile::from_json(node, problems)?.group.or_none()?;
            return u16::try_from(group.0).ok().map(LogTo::Group);
        }
        if node.value.as_string_lit().is_some_and(|literal| literal.value == "kernel") {
            return Some(LogTo::Kernel);
        }
        node.expected(problems, "\"kernel\" or an object like {\"group\": 5}");
        None
    }
}

schema!(LogTo as "log-to": |generator| {
    json_schema!({ "anyOf": [{ "const": "kernel" }, generator.subschema_for::<LogGroupFile>()] })
});

/// `rate` of a log; `None` logs every packet.
#[derive(Clone, Copy, Debug)]
pub(crate) struct LogRateSetting(pub(crate) Option<LogRate>);

impl FromJson for LogRateSetting {
    fn from_json(node: Node<'_>, problems: &mut Problems) -> Option<Self> {
        if let Value::Object(_) = node.value {
            let rate = RateFile::from_json(node, problems)?;
            let is_bad = rate.packets.is_bad() || rate.per.is_bad() || rate.burst.is_bad();
            let rate = LogRate {
                packets: rate.packets.unwrap_or(Positive(3)).0,
                per: rate.per.unwrap_or(RateUnit::Minute),
                burst: rate.burst.unwrap_or(Positive(10)).0,
            };
            return (!is_bad).then_some(Self(Some(rate)));
        }
        if node.value.as_string_lit().is_some_and(|literal| literal.value == "unlimited") {
            return Some(Self(None));
        }
        node.expected(
            problems,
            "\"unlimited\" or an object like {\"packets\": 3, \"per\": \"minute\"}",
        );
        None
    }
}

schema!(LogRateSetting as "log-rate": |generator| {
    json_schema!({ "anyOf": [{ "const": "unlimited" }, generator.subschema_for::<RateFile>()] })
});

impl FromJson for RuleLog {
    fn from_json(node: Node<'_>, problems: &mut Problems) -> Option<Self> {
        match node.value {
            Value::BooleanLit(literal) => Some(Self::Switch(literal.value)),
            Value::Object(_) => RuleLogFile::from_json(node, problems).map(Self::Settings),
            _ => {
                node.expected(problems, "true, false or an object like {\"prefix\": \"[SSH] \"}");
                None
            }
        }
    }
}

schema!(RuleLog as "rule-log": |generator| {
    let settings = generator.subschema_for::<RuleLogFile>();
    json_schema!({ "anyOf": [{ "type": "boolean" }, settings] })
});
