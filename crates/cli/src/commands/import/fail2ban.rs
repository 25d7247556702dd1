//! `import fail2ban`: reads Fail2Ban's jails, writes a file of jails.

use std::path::{Component, Path, PathBuf};
use std::{env, fs, io};

use nfguard_control::input::STANDARD;
use nfguard_control::saved_bans::replace;
use nfguard_jail::fail2ban::{self, Machine};
use serde_json::{Value, json};

use crate::args::Fail2banRequest;
use crate::output::failure::Failure;
use crate::output::{self, Answer, Done};

pub(crate) fn import(request: &Fail2banRequest, as_json: bool) -> Done {
    let folder = &request.folder;
    let files = jail_files(folder).map_err(Failure::file(folder))?;
    let name = folder.display().to_string();
    let mut read_file =
        |path: &str| fs::read(path).ok().map(|bytes| String::from_utf8_lossy(&bytes).into_owned());
    let mut machine = Machine {
        read_file: &mut read_file,
        find_files: &mut |pattern| find_files(Path::new(pattern)),
        timezone: timezone(),
    };
    let import = fail2ban::import(&name, &files, &mut machine).map_err(|mistakes| {
        let mistakes: Vec<String> = mistakes.iter().map(ToString::to_string).collect();
        Failure::Usage(mistakes.join("\n"))
    })?;
    let output = request.output.as_deref().filter(|path| *path != Path::new(STANDARD));
    if let Some(path) = output {
        replace(path, import.jails.as_bytes()).map_err(Failure::file(path))?;
    }
    let missing: Vec<String> = import.not_carried_over.iter().map(ToString::to_string).collect();
    if as_json {
        let jails: Value = serde_json::from_str(&import.jails).unwrap_or_default();
        let mut answer = json!({ "jails": jails["jails"], "not_carried_over": missing });
        if let Some(path) = output {
            answer["file"] = json!(path.display().to_string());
        }
        output::json(&answer);
    } else {
        for missing in &missing {
            output::warning(&format!("not carried over: {missing}"));
        }
        match output {
            Some(path) => output::line(&format!("{}: {} jails", path.display(), import.count)),
            None => output::lines(import.jails.trim_end()),
        }
    }
    Ok(Answer::from(missing.is_empty()))
}

/// The files of jails, in the order in which Fail2Ban reads them.
fn jail_files(folder: &Path) -> io::Result<Vec<String>> {
    let mut parts = Vec::new();
    match fs::read_dir(folder.join("jail.d")) {
        Ok(entries) => {
            for entry in entries {
                parts.push(entry?.path());
            }
        }
        Err(error) if error.kind() == io::ErrorKind::NotFound => {}
        Err(error) => return Err(error),
    }
    parts.sort();
    let mut files = Vec::new();
    for ending in ["conf", "local"] {
        files.push(folder.join(format!("jail.{ending}")));
        files.extend(
            parts.iter().filter(|path| path.extension().is_some_and(|it| it == ending)).cloned(),
        );
    }
    Ok(files.iter().map(|path| path.display().to_string()).collect())
}

/// Returns the files that match a pattern of a shell, in their order.
fn find_files(pattern: &Path) -> Vec<String> {
    let mut found = vec![PathBuf::new()];
    for part in pattern.components() {
        let is_pattern = matches!(part, Component::Normal(_))
            && part.as_os_str().to_string_lossy().contains(['*', '?', '[']);
        found = found.into_iter().flat_map(|path| step(&path, part, is_pattern)).collect();
    }
    let files = found.iter().filter(|path| path.is_file());
    files.map(|path| path.display().to_string()).collect()
}

/// Returns what of a folder matches one part of a pattern.
fn step(folder: &Path, part: Component<'_>, is_pattern: bool) -> Vec<PathBuf> {
    if !is_pattern {
        return vec![folder.join(part)];
    }
    let pattern: Vec<char> = part.as_os_str().to_string_lossy().chars().collect();
    let matches = |name: &str| {
        let name: Vec<char> = name.chars().collect();
        (name.first() != Some(&'.') || pattern.first() == Some(&'.')) && glob(&pattern, &name)
    };
    let entries = fs::read_dir(folder).into_iter().flatten().flatten();
    let paths = entries.filter(|entry| matches(&entry.file_name().to_string_lossy()));
    let mut paths: Vec<PathBuf> = paths.map(|entry| entry.path()).collect();
    paths.sort();
    paths
}

/// Tells whether a name matches a pattern with `*`, `?` and `[a-z]`, as glob(7) says.
fn glob(pattern: &[char], name: &[char]) -> bool {
    match (pattern, name) {
        ([], []) => true,
        (['*', rest @ ..], _) => (0..=name.len()).any(|at| glob(rest, &name[at..])),
        (['?', rest @ ..], [_, after @ ..]) => glob(rest, after),
        (['[', rest @ ..], [first, after @ ..]) => {
            let is_negated = matches!(rest, ['!' | '^', ..]);
            let set = &rest[usize::from(is_negated)..];
            // A `]` that comes first is one of the set.
            let end = set.iter().skip(1).position(|part| *part == ']').map(|at| at + 1);
            let Some((set, rest)) = end.map(|end| (&set[..end], &set[end + 1..])) else {
                return *first == '[' && glob(rest, after);
            };
            let mut at = 0;
            let mut is_in = false;
            while at < set.len() {
                let is_range = set.get(at + 1) == Some(&'-') && at + 2 < set.len();
                let last = set[if is_range { at + 2 } else { at }];
                is_in |= (set[at]..=last).contains(first);
                at += if is_range { 3 } else { 1 };
            }
            is_in != is_negated && glob(rest, after)
        }
        ([one, rest @ ..], [first, after @ ..]) => one == first && glob(rest, after),
        _ => false,
    }
}

/// Returns the name of this machine's time zone: that of `TZ`, else that to which /etc/localtime leads.
fn timezone() -> Option<String> {
    let given = env::var("TZ").ok().map(|name| name.trim_start_matches(':').to_owned());
    given.filter(|name| !name.is_empty()).or_else(|| {
        let target = fs::read_link("/etc/localtime").ok()?;
        let (_, name) = target.to_str()?.rsplit_once("zoneinfo/")?;
        Some(name.to_owned())
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_pattern_matches_as_a_shell_has_it() {
        let matches = |pattern: &str, name: &str| {
            let [pattern, name] = [pattern, name].map(|text| text.chars().collect::<Vec<_>>());
            glob(&pattern, &name)
        };
        for (pattern, yes, no) in [
            ("*error.log", "shop-error.log", "error.log.1"),
            ("a?c*", "abcd", "ac"),
            ("log.[0-9]", "log.7", "log.x"),
            ("[!a-c]x", "dx", "bx"),
            ("[]x]", "]", "y"),
            ("[x", "[x", "x"),
        ] {
            assert!(matches(pattern, yes), "{pattern} on {yes}");
            assert!(!matches(pattern, no), "{pattern} on {no}");
        }
    }
}
