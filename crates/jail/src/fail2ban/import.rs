//! Makes a `jails.json` of Fail2Ban's jails.

mod jail;
mod values;

use self::jail::JailImport;
use super::Mistake;
use super::config::{self, Config};
use super::ini::Place;
use serde_json::Value;
use std::collections::{BTreeMap, BTreeSet};

/// What was made of Fail2Ban's jails.
#[derive(Clone, Debug)]
pub struct Import {
    /// The text of a `jails.json`.
    pub jails: String,
    /// How many jails it has.
    pub count: usize,
    /// What is not carried over, and where it stands.
    pub not_carried_over: Vec<Mistake>,
}

/// Answers what an import asks of the machine whose jails it reads.
pub struct Machine<'m> {
    /// Returns the text of a file, or `None` if there is none.
    pub read_file: &'m mut dyn FnMut(&str) -> Option<String>,
    /// Returns the files that match a pattern such as `/var/log/*/error.log`.
    pub find_files: &'m mut dyn FnMut(&str) -> Vec<String>,
    /// The name of the machine's time zone. Fail2Ban takes a time without a zone to be in it.
    pub timezone: Option<String>,
}

/// Reads Fail2Ban's jails and makes a `jails.json` of those that are enabled.
///
/// `folder` is Fail2Ban's, such as `/etc/fail2ban`; `files` are the files of jails in their order:
/// `jail.conf`, those of `jail.d` that end in `.conf`, `jail.local`, those of `jail.d` that end in
/// `.local`. A jail that cannot be carried over is left out, and that is told.
///
/// # Errors
/// Returns the mistakes with which Fail2Ban would not start either, each with its place.
pub fn import(
    folder: &str,
    files: &[String],
    machine: &mut Machine<'_>,
) -> Result<Import, Vec<Mistake>> {
    let (mut mistakes, mut told) = (Vec::new(), Vec::new());
    let sections = config::read_all(files, machine.read_file, &mut mistakes, &mut told);
    let place = Place { file: files.first().map_or(folder, String::as_str).into(), line: 1 };
    if sections.is_empty() {
        mistakes.push(place.mistake("there are no jails"));
    }
    if !mistakes.is_empty() {
        return Err(mistakes);
    }
    let (mut jails, mut names) = (Vec::new(), BTreeSet::new());
    for name in sections.keys().filter(|name| *name != "DEFAULT") {
        let given = BTreeMap::from([("__name__".to_owned(), name.clone())]);
        let config = Config::of_jail(sections.clone(), &given, place.clone());
        let jail = JailImport::new(name, folder, sections.get(name), config, &mut told);
        for mut made in jail.read(machine) {
            let wanted = made["name"].as_str().unwrap_or_default().to_owned();
            let others = (2..).map(|number| format!("{wanted}-{number}"));
            let free = std::iter::once(wanted.clone()).chain(others);
            let free = free.into_iter().find(|name| names.insert(name.clone()));
            made["name"] = free.into();
            jails.push(made);
        }
    }
    if jails.is_empty() {
        told.push(place.mistake("no jail is enabled and can be carried over"));
    }
    if let Err(problems) = crate::Config::parse_with(&text(&jails), machine.read_file) {
        // A name or a value that a file of jails cannot have.
        let of = |problem: &crate::Problem| place.mistake(format!("what was made: {problem}"));
        return Err(problems.iter().map(of).collect());
    }
    let key = |it: &Mistake| (it.file.clone(), it.line, it.message.clone());
    told.sort_by_key(key);
    told.dedup();
    Ok(Import { count: jails.len(), jails: text(&jails), not_carried_over: told })
}

/// Returns the text of the file, with one jail a line.
fn text(jails: &[Value]) -> String {
    let keys = ["name", "use", "log", "after", "within", "ban", "again", "mode"];
    let line = |jail: &Value| {
        let pairs = keys.iter().filter_map(|key| Some(format!("\"{key}\": {}", jail.get(*key)?)));
        format!("\n    {{ {} }}", pairs.collect::<Vec<_>>().join(", "))
    };
    let lines: Vec<String> = jails.iter().map(line).collect();
    let end = if lines.is_empty() { "" } else { "\n  " };
    format!("{{\n  \"version\": 1,\n  \"jails\": [{}{end}]\n}}\n", lines.join(","))
}
