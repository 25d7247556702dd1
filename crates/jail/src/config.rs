//! `jails.json`: its keys, what they mean, and every mistake in it.

mod fail2ban;
mod file;
mod log;
mod values;

use std::collections::HashMap;
use std::sync::Arc;

use nfguard_json::Problem;
use nfguard_json::document::Problems;
use nfguard_json::reader::{Field, OneOrMany, shown};
use nfguard_json::suggest::nearest_text;
use schemars::generate::SchemaSettings;

use crate::builtin;
use crate::config::file::{AgainFile, Base, EvidenceFile, EvidenceList, File, JailFile};
use crate::config::values::{AnyText, Expression};
use crate::evidence::{Field as Part, Globs, HttpRule, Looks, Patterns, UserRule};
use crate::jail::{Jail, Log, Mode, Place};
use crate::read::{Format, LineFormat, Vouched};
use crate::status::StatusSet;
use crate::time::Span;
use crate::window::{Again, Limits};

/// Bans a minute of a jail that says none.
const BANS_A_MINUTE: u32 = 100;

/// Jails as a `jails.json` says them.
#[derive(Clone, Debug)]
pub struct Config {
    pub(crate) jails: Vec<Jail>,
}

impl Config {
    /// Reads a `jails.json`: JSON as [`schema`] describes it, with comments and trailing commas. Returns
    /// the jails with the warnings.
    ///
    /// # Errors
    /// Returns every problem of the file, errors and warnings, in the order of the text.
    pub fn parse(text: &str) -> Result<(Self, Vec<Problem>), Vec<Problem>> {
        Self::parse_with(text, &mut |_| None)
    }

    /// Reads a `jails.json` as [`parse`](Self::parse) does. `read_file` returns the text of a filter of
    /// Fail2Ban and of what that includes, or `None` if there is no such file.
    ///
    /// # Errors
    /// As [`parse`](Self::parse).
    pub fn parse_with(
        text: &str,
        read_file: &mut dyn FnMut(&str) -> Option<String>,
    ) -> Result<(Self, Vec<Problem>), Vec<Problem>> {
        nfguard_json::read(text, |file: File, problems| {
            let mode = file.mode.or_none();
            let files = file.jails.or_none().map_or(Vec::new(), |jails| jails.0);
            let mut names: HashMap<String, usize> = HashMap::new();
            let mut jails = Vec::new();
            for (at, file) in files.into_iter().enumerate() {
                let Some(file) = file else { continue };
                let pointer = format!("/jails/{at}");
                let Some(jail) = jail(file, mode, &pointer, read_file, problems) else { continue };
                if let Some(first) = names.insert(jail.name().to_owned(), at) {
                    let message = format!(
                        "the name {} is that of /jails/{first} already; give one of them a \"name\"",
                        shown(jail.name())
                    );
                    problems.error(&pointer, message, None);
                }
                jails.push(jail);
            }
            Config { jails }
        })
    }

    /// Returns the built-in jails of these names.
    ///
    /// # Errors
    /// Returns a name that no built-in jail has, with the one that was probably meant.
    pub fn builtin(names: &[impl AsRef<str>]) -> Result<Self, UnknownJail> {
        let mut once: Vec<&str> = names.iter().map(AsRef::as_ref).collect();
        once.sort_unstable();
        once.dedup();
        let text = once.iter().map(|name| format!("{{\"use\":{name:?}}}"));
        let text = text.collect::<Vec<_>>().join(",");
        let unknown = names.iter().map(AsRef::as_ref).find(|name| !builtin::NAMES.contains(name));
        match (unknown, Self::parse(&format!("{{\"version\":1,\"jails\":[{text}]}}"))) {
            (None, Ok((config, _))) => Ok(config),
            (unknown, _) => Err(UnknownJail::among(unknown.unwrap_or_default(), builtin::names())),
        }
    }

    /// Keeps the jails of these names.
    ///
    /// # Errors
    /// Returns a name that no jail has, with the one that was probably meant.
    pub fn only(mut self, names: &[impl AsRef<str>]) -> Result<Self, UnknownJail> {
        for name in names.iter().map(AsRef::as_ref) {
            if !self.jails.iter().any(|jail| jail.name() == name) {
                return Err(UnknownJail::among(name, self.jails.iter().map(Jail::name)));
            }
        }
        self.jails.retain(|jail| names.iter().any(|name| name.as_ref() == jail.name()));
        Ok(self)
    }

    /// Returns the jails with one place for all logs, so that one input stands for them.
    #[must_use]
    pub fn with_one_place(mut self) -> Self {
        for log in self.jails.iter_mut().filter_map(|jail| jail.log.as_mut()) {
            log.place = Place::Unsaid;
        }
        self
    }

    /// Returns the jails.
    pub fn jails(&self) -> &[Jail] {
        &self.jails
    }
}

/// A name that no jail has.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct UnknownJail {
    name: String,
    suggestion: Option<String>,
}

impl UnknownJail {
    fn among<'n>(name: &str, names: impl Iterator<Item = &'n str>) -> Self {
        let names: Vec<&str> = names.collect();
        let suggestion = nearest_text(name, names.iter().copied());
        Self { name: name.to_owned(), suggestion }
    }
}

impl std::fmt::Display for UnknownJail {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "there is no jail {}", shown(&self.name))?;
        match &self.suggestion {
            Some(suggestion) => write!(f, "; did you mean {suggestion}?"),
            None => Ok(()),
        }
    }
}

impl std::error::Error for UnknownJail {}

/// Returns the JSON schema of a `jails.json`, as text that ends in a newline.
pub fn schema() -> String {
    let mut schema = SchemaSettings::draft07().into_generator().into_root_schema_for::<File>();
    schema.insert("title".to_owned(), "nfguard jails".into());
    for key in ["allowComments", "allowTrailingCommas"] {
        schema.insert(key.to_owned(), true.into());
    }
    format!("{:#}\n", schema.as_value())
}

/// Returns a built-in jail as a file says it.
fn base(name: &str) -> Option<JailFile> {
    nfguard_json::read(builtin::text(name)?, |jail: JailFile, _| jail).ok().map(|(jail, _)| jail)
}

fn jail(
    file: JailFile,
    all: Option<Mode>,
    pointer: &str,
    read_file: &mut dyn FnMut(&str) -> Option<String>,
    problems: &mut Problems,
) -> Option<Jail> {
    let base = match file.base.given() {
        Some(Base::Fail2ban(filter)) => {
            return fail2ban::jail(&file, filter, all, pointer, read_file, problems);
        }
        Some(Base::Builtin(name)) => base(name),
        None => None,
    };
    let has_base = file.base.given().is_some();
    let is_unsure = file.base.is_bad();
    let (mut name, mut limits, mut base_log, mut base_looks) = (None, None, None, None);
    if let Some(base) = base {
        limits = Some(read_limits(&base, None));
        name = base.name.or_none();
        base_log = base.log.or_none();
        base_looks = Some((base.evidence.or_none(), base.matches.or_none()));
    }
    let limits = read_limits(&file, limits);
    let name = match (file.name, name) {
        (Field::Given(name), _) | (Field::Absent, Some(name)) => Some(name.0),
        (Field::Absent, None) if !is_unsure => {
            let message = "the key \"name\" is missing, or \"use\" with a built-in jail";
            problems.error(pointer, message, None);
            None
        }
        _ => None,
    };
    let is_given = |given: (bool, bool)| given.0 || given.1;
    let own = (!matches!(file.evidence, Field::Absent), !matches!(file.matches, Field::Absent));
    if own == (true, true) {
        let message = "found both \"evidence\" and \"match\"; expected one of them";
        problems.error(format!("{pointer}/match"), message, None);
    }
    let is_bad = file.evidence.is_bad() || file.matches.is_bad();
    let (evidence, matches) = match base_looks {
        Some(looks) if !is_given(own) => looks,
        _ => (file.evidence.or_none(), file.matches.or_none()),
    };
    if evidence.is_none() && matches.is_none() && !is_bad && !is_unsure {
        problems.error(pointer, "the key \"evidence\" or \"match\" is missing", None);
    }
    let is_log_bad = file.log.is_bad();
    let counts_bans = matches!(evidence, Some(EvidenceList::Bans));
    let log = match (file.log.given(), base_log.as_ref()) {
        (Some(_), _) if counts_bans => {
            let message = "bans are in no log; leave this key out";
            problems.error(format!("{pointer}/log"), message, None);
            None
        }
        _ if is_unsure => None,
        (None, None) if counts_bans || is_log_bad => None,
        (None, None) => {
            problems.error(pointer, "the key \"log\" is missing", None);
            None
        }
        (given, base) => {
            log::log(given, base, matches.is_some(), &format!("{pointer}/log"), problems)
        }
    };
    if let Some(log) = &log
        && log.format == Format::Journal
        && log.vouched == Vouched::default()
    {
        let message = "any process of any user can write what counts; give the `unit` or the `uid` of the \
                       journal";
        problems.warn(format!("{pointer}/log"), message);
    }
    let looks =
        looks(evidence, matches, log.as_ref(), has_base && !is_given(own), pointer, problems)?;
    let mode = file.mode.or_none().or(all).unwrap_or(Mode::Enforce);
    Some(Jail { name: Arc::from(name?), log, looks, limits, mode })
}

/// Returns the limits of a jail that says none.
fn usual_limits() -> Limits {
    let span = |seconds| Span::from_seconds(seconds).unwrap_or(Span::MINUTE);
    Limits {
        after: 5,
        within: span(600),
        ban: span(3600),
        again: Again { times: 1.0, up_to: Span::LONGEST, forget: span(30 * 86_400) },
        bans_a_minute: BANS_A_MINUTE,
    }
}

fn read_limits(file: &JailFile, base: Option<Limits>) -> Limits {
    let base = base.unwrap_or_else(usual_limits);
    let ban = file.ban.given().map_or(base.ban, |it| it.0);
    let mut again = file.again.given().map_or(base.again, read_again);
    // What the file does not say is no bound for what it says.
    if !matches!(&file.again, Field::Given(again) if again.up_to.given().is_some())
        && file.ban.given().is_some()
    {
        again.up_to = again.up_to.max(ban);
    }
    Limits {
        after: file.after.given().map_or(base.after, |it| it.0),
        within: file.within.given().map_or(base.within, |it| it.0),
        ban,
        again,
        bans_a_minute: file.bans_a_minute.given().map_or(base.bans_a_minute, |it| it.0),
    }
}

fn read_again(file: &AgainFile) -> Again {
    let span = |seconds| Span::from_seconds(seconds).unwrap_or(Span::MINUTE);
    Again {
        times: file.times.given().map_or(2.0, |it| it.0),
        up_to: file.up_to.given().map_or(span(7 * 86_400), |it| it.0),
        forget: file.forget.given().map_or(span(30 * 86_400), |it| it.0),
    }
}

fn texts(list: &OneOrMany<AnyText>) -> Vec<String> {
    list.iter().map(|(_, text)| text.0.clone()).collect()
}

fn looks(
    evidence: Option<EvidenceList>,
    matches: Option<OneOrMany<Expression>>,
    log: Option<&Log>,
    is_base: bool,
    pointer: &str,
    problems: &mut Problems,
) -> Option<Looks> {
    let is_text = log.map(|log| {
        matches!(
            log.format,
            Format::Journal
                | Format::Sshd
                | Format::DockerJson(LineFormat::Text)
                | Format::Lines(LineFormat::Text)
        )
    });
    let place = |key: &str| match is_base {
        true => format!("{pointer}/log"),
        false => format!("{pointer}/{key}"),
    };
    match (evidence, matches) {
        (Some(EvidenceList::Bans), _) => Some(Looks::Bans),
        (Some(EvidenceList::Http(rules)), _) => {
            if is_text == Some(true) {
                let message = "the log is text, which \"evidence\" does not read; expected \"match\", \
                               or a log of HTTP requests";
                problems.error(place("evidence"), message, None);
            }
            let mut all = Vec::new();
            for (at, rule) in rules.iter().enumerate() {
                let pointer = match is_base {
                    true => pointer.to_owned(),
                    false => format!("{pointer}/evidence/{at}"),
                };
                all.extend(http_rule(rule.as_ref()?, log, &pointer, problems));
            }
            Some(Looks::Http(all))
        }
        (None, Some(expressions)) => {
            if is_text == Some(false) {
                let message = "the log is of HTTP requests, which \"match\" does not read; expected \
                               \"evidence\", or a log of text";
                problems.error(place("match"), message, None);
            }
            let texts: Vec<String> =
                expressions.iter().map(|(_, expression)| expression.0.clone()).collect();
            match Patterns::new(&texts) {
                Ok(patterns) => Some(Looks::Text(patterns)),
                Err(why) => {
                    problems.error(format!("{pointer}/match"), why, None);
                    None
                }
            }
        }
        (None, None) => None,
    }
}

fn http_rule(
    file: &EvidenceFile,
    log: Option<&Log>,
    pointer: &str,
    problems: &mut Problems,
) -> Option<HttpRule> {
    let line = log.and_then(|log| match log.format {
        Format::Lines(line) | Format::DockerJson(line) => Some(line),
        Format::Journal | Format::Sshd => None,
    });
    let has_no_origin =
        matches!(line, Some(LineFormat::Clf | LineFormat::Caddy | LineFormat::Http));
    if has_no_origin && file.origin.given().is_some() {
        let message = "only Traefik's log tells who answered, so this matches nothing";
        problems.error(format!("{pointer}/origin"), message, None);
    }
    let has_host = file.host.given().is_some() || file.distinct.given() == Some(&Part::Host);
    let has_no_json = log.is_some()
        && matches!(line, None | Some(LineFormat::TraefikClf | LineFormat::Clf | LineFormat::Text));
    if has_host && has_no_json {
        let message = "only logs in JSON have the host, so this matches nothing";
        problems.error(format!("{pointer}/host"), message, None);
    }
    let statuses = match file.status.given() {
        None => StatusSet::ALL,
        Some(list) => {
            let mut set = StatusSet::NONE;
            let ranges = list.iter().map(|(_, statuses)| statuses.0.clone());
            ranges.flatten().for_each(|status| set.insert(status));
            set
        }
    };
    let mut globs = |field: &Field<OneOrMany<AnyText>>, key: &str, any_case: bool| {
        let list = texts(field.given()?);
        let globs = Globs::new(list.iter().map(String::as_str), any_case);
        globs.map_err(|why| problems.error(format!("{pointer}/{key}"), why, None)).ok()
    };
    Some(HttpRule {
        methods: globs(&file.method, "method", true),
        hosts: globs(&file.host, "host", true),
        paths: globs(&file.path, "path", false),
        statuses,
        user: file.user.given().map(|text| match text.0.as_str() {
            "present" => UserRule::Present,
            "absent" => UserRule::Absent,
            name => UserRule::Named(name.to_owned()),
        }),
        origin: file.origin.given().copied(),
        counts: file.counts.given().map_or(1, |it| it.0),
        distinct: file.distinct.given().copied(),
    })
}
