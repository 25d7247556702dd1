//! Makes jails of one of Fail2Ban's.

use super::Machine;
use super::values::{self, Action, Effect};
use crate::fail2ban::config::Config;
use crate::fail2ban::filter::{UNIT_FIELD, journal_units};
use crate::fail2ban::ini::{Line, Section};
use crate::fail2ban::{Filter, Mistake};
use crate::time::{Span, Zone};
use serde_json::{Value, json};
use std::collections::BTreeMap;

/// Options of a jail that its filter gets.
const OF_FILTER: [&str; 5] = ["prefregex", "failregex", "ignoreregex", "datepattern", "maxlines"];

/// Options of a jail, by jail.conf(5), that this file reads.
const READ: [&str; 27] = [
    "action",
    "backend",
    "banaction",
    "banaction_allports",
    "bantime",
    "bantime.factor",
    "bantime.formula",
    "bantime.increment",
    "bantime.maxtime",
    "bantime.multipliers",
    "bantime.overalljails",
    "bantime.rndtime",
    "enabled",
    "filter",
    "findtime",
    "ignorecache",
    "ignorecommand",
    "ignoreip",
    "ignoreself",
    "journalmatch",
    "logencoding",
    "logpath",
    "logtimezone",
    "maxretry",
    "port",
    "protocol",
    "usedns",
];

/// Options that change nothing of what is banned: how many lines a ban shows; the mode, which a filter
/// gets only if `filter` names it.
const WITHOUT_EFFECT: [&str; 3] = ["__name__", "maxmatches", "mode"];

/// The jail is left out, and that is told.
struct LeftOut;

/// A jail of Fail2Ban that is read.
pub(super) struct JailImport<'j> {
    name: &'j str,
    folder: &'j str,
    section: Option<&'j Section>,
    config: Config<'j>,
    told: &'j mut Vec<Mistake>,
}

impl<'j> JailImport<'j> {
    pub(super) fn new(
        name: &'j str,
        folder: &'j str,
        section: Option<&'j Section>,
        config: Config<'j>,
        told: &'j mut Vec<Mistake>,
    ) -> Self {
        Self { name, folder, section, config, told }
    }

    /// Returns the jails that are made of this one: one a log.
    pub(super) fn read(mut self, machine: &mut Machine<'_>) -> Vec<Value> {
        let Ok(enabled) = self.option("enabled") else { return Vec::new() };
        let Some(enabled) = enabled.filter(|line| is_true(&line.text)) else { return Vec::new() };
        self.jails(machine).unwrap_or_else(|LeftOut| {
            let message = format!("[{}] the jail is left out", self.name);
            self.told.push(enabled.place.mistake(message));
            Vec::new()
        })
    }

    fn jails(&mut self, machine: &mut Machine<'_>) -> Result<Vec<Value>, LeftOut> {
        let Some(filter) = self.option("filter")? else {
            return Err(self.wrong("enabled", "the jail names no filter"));
        };
        let (filter_name, options) = values::with_options(&filter.text);
        let is_recidive = filter_name == "recidive";
        let (usage, logs) = if is_recidive {
            let message = "the bans of all jails count here, so no log of bans is read";
            self.tell_own("filter", message);
            (json!("recidive"), vec![Value::Null])
        } else {
            self.usage_and_logs(filter_name, options, machine)?
        };
        if logs.len() > 1 {
            let count = logs.len();
            let message = format!("{count} logs make {count} jails, which count each for itself");
            self.tell_own("logpath", &message);
        }
        let limits = self.limits()?;
        let mode = self.mode()?;
        self.tell_addresses()?;
        self.tell_reading()?;
        self.tell_unknown();
        let name = carried_name(self.name);
        if name != self.name {
            self.tell_own("enabled", &format!("the jail is named {name}"));
        }
        let jails = logs.into_iter().map(|log| {
            let mut jail = json!({ "name": name, "use": usage });
            if !log.is_null() {
                jail["log"] = log;
            }
            for (key, value) in &limits {
                jail[*key] = value.clone();
            }
            if let Some(mode) = mode {
                jail["mode"] = json!(mode);
            }
            jail
        });
        Ok(jails.collect())
    }

    /// Returns the filter with its options, and the logs.
    fn usage_and_logs(
        &mut self,
        filter_name: &str,
        mut options: BTreeMap<String, String>,
        machine: &mut Machine<'_>,
    ) -> Result<(Value, Vec<Value>), LeftOut> {
        for key in OF_FILTER {
            if let Some(line) = self.option(key)? {
                options.insert(key.to_owned(), line.text);
            }
        }
        let path = format!("{}/filter.d/{filter_name}.conf", self.folder);
        let backend = self.option("backend")?.map(|line| line.text).unwrap_or_default();
        let is_journal = backend.starts_with("systemd");
        if is_journal && backend.contains('[') {
            self.tell("backend", "flags of the journal have no counterpart: all of it is read")?;
        }
        let mut all = options.clone();
        if is_journal {
            all.entry("logtype".to_owned()).or_insert_with(|| "journal".to_owned());
        }
        let filter = Filter::read(&path, &all, machine.read_file).map_err(|mistakes| {
            self.told.extend(mistakes);
            LeftOut
        })?;
        self.told.extend_from_slice(filter.notes());
        let mut usage = json!({ "fail2ban": path });
        if let Some(mode) = options.remove("mode").filter(|mode| mode != "normal") {
            usage["mode"] = json!(mode);
        }
        if !options.is_empty() {
            usage["set"] = json!(options);
        }
        let logs = if is_journal { self.journal(&filter)? } else { self.files(machine)? };
        Ok((usage, logs))
    }

    /// Returns the files of `logpath`.
    fn files(&mut self, machine: &mut Machine<'_>) -> Result<Vec<Value>, LeftOut> {
        let Some(paths) = self.option("logpath")? else {
            return Err(self.wrong("enabled", "the jail has no `logpath`"));
        };
        let zone = self.timezone(machine)?;
        let mut files = Vec::new();
        for path in paths.text.lines().map(str::trim).filter(|path| !path.is_empty()) {
            // As Fail2Ban does: what follows the last blank is where reading begins.
            let (path, begin) = path.rsplit_once(' ').unwrap_or((path, "head"));
            let path = path.trim_end();
            match begin {
                "head" => {}
                "tail" => self.tell("logpath", &format!("{path}: `tail` has no counterpart"))?,
                other => {
                    let message =
                        format!("{path}: one path a line; Fail2Ban does not read {other} either");
                    self.tell("logpath", &message)?;
                }
            }
            if !path.contains(['*', '?', '[']) {
                files.push(path.to_owned());
                continue;
            }
            let found = (machine.find_files)(path);
            let message = match found.is_empty() {
                true => format!("{path} is a pattern, and no file is there that matches it"),
                false => {
                    let found = found.join(", ");
                    format!("{path} is a pattern; what matches it today is carried over: {found}")
                }
            };
            self.tell("logpath", &message)?;
            files.extend(found);
        }
        if files.is_empty() {
            return Err(self.wrong("logpath", "no log is left"));
        }
        files.dedup();
        let log = |file: &String| match &zone {
            Some(zone) => json!({ "file": file, "format": "text", "timezone": zone }),
            None => json!({ "file": file, "format": "text" }),
        };
        Ok(files.iter().map(log).collect())
    }

    /// Returns the zone of times without one: `logtimezone`, else that of the machine. `None` is UTC.
    fn timezone(&mut self, machine: &Machine<'_>) -> Result<Option<String>, LeftOut> {
        let zone = match self.option("logtimezone")? {
            Some(line) => match values::zone(&line.text) {
                Some(zone) => Some(zone),
                None => {
                    return Err(self.wrong("logtimezone", "expected `UTC`, `UTC+0200` or the like"));
                }
            },
            None => machine.timezone.clone().filter(|zone| zone != "Etc/UTC"),
        };
        let Some(zone) = zone else { return Ok(None) };
        match Zone::parse(&zone) {
            Some(parsed) => Ok(Some(zone).filter(|_| parsed != Zone::UTC)),
            None => {
                let message = format!("{zone} is no known time zone; times without one are in UTC");
                self.tell_own("logpath", &message);
                Ok(None)
            }
        }
    }

    /// Returns the journal with the units that `journalmatch` names.
    fn journal(&mut self, filter: &Filter) -> Result<Vec<Value>, LeftOut> {
        let own = self.option("journalmatch")?.map(|line| line.text);
        let key = if own.is_some() { "journalmatch" } else { "backend" };
        let matches = own.unwrap_or_else(|| filter.journal_match().join(" "));
        let units = journal_units(&matches);
        let others =
            matches.split_whitespace().filter(|it| *it != "+" && !it.starts_with(UNIT_FIELD));
        let others: Vec<&str> = others.collect();
        if !others.is_empty() && !units.is_empty() {
            let others = others.join(" ");
            self.tell_own(key, &format!("entries count by their unit alone, and not by {others}"));
        }
        let unit = match units.as_slice() {
            [] => {
                let message = "no unit is named in the matches of the journal, so any process could \
                               write what the jail reads";
                return Err(self.wrong(key, message));
            }
            [unit] => json!(unit),
            units => json!(units),
        };
        Ok(vec![json!({ "journal": { "unit": unit } })])
    }

    fn limits(&mut self) -> Result<Vec<(&'static str, Value)>, LeftOut> {
        let mut limits = Vec::new();
        match self.option("maxretry")? {
            Some(line) => match line.text.parse::<u32>() {
                Ok(count @ 1..=10_000) => limits.push(("after", json!(count))),
                _ => return Err(self.wrong("maxretry", "expected a number from 1 to 10000")),
            },
            None => self.tell_own("enabled", "there is no `maxretry`, so it is nfguard's: 5"),
        }
        for (key, name, usual) in [("findtime", "within", "10m"), ("bantime", "ban", "1h")] {
            match self.span(key)? {
                Some(span) => limits.push((name, json!(span.to_string()))),
                None => {
                    let message = format!("there is no `{key}`, so it is nfguard's: {usual}");
                    self.tell_own("enabled", &message);
                }
            }
        }
        limits.extend(self.again()?.map(|again| ("again", again)));
        Ok(limits)
    }

    /// Returns how bans grow.
    fn again(&mut self) -> Result<Option<Value>, LeftOut> {
        self.tell("bantime.rndtime", "a ban has no random part")?;
        if !self.option("bantime.increment")?.is_some_and(|line| is_true(&line.text)) {
            return Ok(None);
        }
        let longest = self.span("bantime.maxtime")?.unwrap_or(Span::LONGEST);
        if self.option("bantime.factor")?.is_some_and(|line| line.text.parse() != Ok(1.0)) {
            self.tell("bantime.factor", "bans double each time, and there is no other factor")?;
        }
        self.tell("bantime.formula", "bans double each time, and there is no other formula")?;
        let multipliers = self.option("bantime.multipliers")?.map(|line| line.text);
        if multipliers.is_some_and(|text| !values::doubles(&text)) {
            self.tell("bantime.multipliers", "bans double each time; there are no other steps")?;
        }
        let of_all = self.option("bantime.overalljails")?.is_some_and(|line| is_true(&line.text));
        self.tell(
            "bantime.increment",
            match of_all {
                true => "bans count for 30 days, whatever `dbpurgeage` says",
                false => "bans by all jails count, and for 30 days, whatever `dbpurgeage` says",
            },
        )?;
        Ok(Some(json!({ "times": 2, "up_to": longest.to_string() })))
    }

    fn span(&mut self, key: &str) -> Result<Option<Span>, LeftOut> {
        let Some(line) = self.option(key)? else { return Ok(None) };
        if line.text.starts_with('-') {
            self.tell(key, "each ban has an end; it is the longest, a hundred years")?;
            return Ok(Some(Span::LONGEST));
        }
        match values::seconds(&line.text).filter(|span| *span > 0) {
            Some(seconds) => Ok(Some(Span::from_seconds(seconds).unwrap_or(Span::LONGEST))),
            None => Err(self.wrong(key, "expected a time such as 600 or 10m")),
        }
    }

    /// Returns the mode of a jail of which no action bans, and tells what its actions do besides.
    fn mode(&mut self) -> Result<Option<&'static str>, LeftOut> {
        let port = self.option("port")?;
        let is_all = |text: &str| ["0:65535", "1:65535", "all", "any", "anyport"].contains(&text);
        let has_ports = port.is_some_and(|line| !is_all(&line.text));
        if has_ports {
            self.tell("port", "a ban is for all ports")?;
        }
        if self.option("protocol")?.is_some_and(|line| line.text != "all") {
            self.tell("protocol", "a ban is for all protocols")?;
        }
        let is_given = self.config.jail_option(self.name, "action").is_some();
        let Some(line) = self.option("action")? else {
            return Ok(is_given.then_some("observe"));
        };
        let actions = values::actions(&line.text);
        for Action { name, effect, port } in &actions {
            let message = match effect {
                Effect::Ban if has_ports || port.as_deref().is_none_or(is_all) => continue,
                Effect::Ban => "a ban is for all ports".to_owned(),
                Effect::Report => format!("{name} is not carried over: nfguard sends no reports"),
                Effect::Unknown => {
                    format!("{name} is not carried over: the ban is nfguard's, on this host")
                }
            };
            self.tell("action", &message)?;
        }
        if actions.iter().all(|action| action.effect == Effect::Report) {
            self.tell_own("action", "no action bans, so the jail observes");
            return Ok(Some("observe"));
        }
        Ok(None)
    }

    /// Tells which addresses would be banned here and not by Fail2Ban.
    fn tell_addresses(&mut self) -> Result<(), LeftOut> {
        if let Some(line) = self.option("ignoreip")? {
            let words = line.text.split([' ', '\n', '\t', ',']);
            let own =
                ["", "127.0.0.1/8", "127.0.0.0/8", "127.0.0.1", "::1", "::1/128", "localhost"];
            let others: Vec<&str> = words.filter(|word| !own.contains(word)).collect();
            if !others.is_empty() {
                let others = others.join(" ");
                let message = format!(
                    "write these into the policy's `never_ban`, which is for all jails: {others}"
                );
                self.tell("ignoreip", &message)?;
            }
        }
        if self.option("ignoreself")?.is_some_and(|line| !is_true(&line.text)) {
            self.tell("ignoreself", "the addresses of this host are never banned")?;
        }
        for key in ["ignorecommand", "ignorecache"] {
            self.tell(key, "no command is asked whether a source is to be spared")?;
        }
        Ok(())
    }

    /// Tells what differs in how a log is read.
    fn tell_reading(&mut self) -> Result<(), LeftOut> {
        if self.option("usedns")?.is_some_and(|line| line.text != "no") {
            self.tell("usedns", "no name is looked up: a failure of a name bans no address")?;
        }
        let is_utf8 = |text: &str| ["auto", "utf-8", "utf8", "ascii", "us-ascii"].contains(&text);
        if self.option("logencoding")?.is_some_and(|line| !is_utf8(&line.text.to_lowercase())) {
            self.tell("logencoding", "logs are read as UTF-8")?;
        }
        Ok(())
    }

    /// Tells which options of the jail's own section nothing is made of. What another option names is
    /// a part of that.
    fn tell_unknown(&mut self) {
        for (key, lines) in self.section.into_iter().flatten() {
            let key_text = key.as_str();
            let is_known = READ.contains(&key_text)
                || OF_FILTER.contains(&key_text)
                || WITHOUT_EFFECT.contains(&key_text)
                || key.starts_with("known/");
            let line = lines.iter().find(|line| !line.text.is_empty());
            if let Some(line) = line.filter(|_| !is_known && !self.config.names(key)) {
                let message = format!("[{}] {key}: nothing is made of this", self.name);
                self.told.push(line.place.mistake(message));
            }
        }
    }

    /// Returns the value of an option, unless it is empty.
    fn option(&mut self, key: &str) -> Result<Option<Line>, LeftOut> {
        match self.config.jail_option(self.name, key) {
            None => Ok(None),
            Some(Ok(line)) => Ok(Some(line).filter(|line| !line.text.is_empty())),
            Some(Err(mistake)) => {
                self.told.push(mistake);
                Err(LeftOut)
            }
        }
    }

    /// Tells what is not carried over of an option, if the jail has it.
    fn tell(&mut self, key: &str, message: &str) -> Result<(), LeftOut> {
        let Some(line) = self.option(key)? else { return Ok(()) };
        let is_own = self.section.is_some_and(|section| section.contains_key(key));
        let section = if is_own { self.name } else { "DEFAULT" };
        self.told.push(line.place.mistake(format!("[{section}] {key}: {message}")));
        Ok(())
    }

    /// Tells something of this jail, at one of its options.
    fn tell_own(&mut self, key: &str, message: &str) {
        if let Ok(Some(line)) = self.option(key) {
            self.told.push(line.place.mistake(format!("[{}] {key}: {message}", self.name)));
        }
    }

    /// Tells why the jail is left out.
    fn wrong(&mut self, key: &str, message: &str) -> LeftOut {
        self.tell_own(key, message);
        LeftOut
    }
}

/// Returns a name that a jail may have.
fn carried_name(name: &str) -> String {
    let part = |part: char| match part.to_ascii_lowercase() {
        part @ ('a'..='z' | '0'..='9' | '.' | '_' | '-') => part,
        _ => '-',
    };
    let name: String = name.chars().map(part).take(40).collect();
    if name.starts_with(['.', '_', '-']) || name.is_empty() { format!("jail{name}") } else { name }
}

fn is_true(text: &str) -> bool {
    ["true", "yes", "on", "1"].contains(&text.to_ascii_lowercase().as_str())
}
