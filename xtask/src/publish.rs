//! What the libraries need to be published.

mod api;

use crate::build::{cargo, root};
use crate::report::Report;
use crate::runner;
use crate::source::File;
use std::fs;

/// Crates that are of use only in this repository.
const INTERNAL: [&str; 4] = ["xtask", "nfguard-tests", "nfguard-benches", "nfguard-responder"];

/// A library whose interface may change with each version.
const NO_PROMISE: [&str; 1] = ["crates/control"];

/// Makes an archive of each crate that can be published, as a registry takes it. With `build`,
/// also builds each from its archive alone.
pub(crate) fn archives(report: &Report, build: bool) {
    report.step("cargo package", || {
        let mut package = cargo();
        package.args(["package", "--workspace", "--allow-dirty", "--quiet"]);
        package.args(INTERNAL.iter().flat_map(|name| ["--exclude", name]));
        if !build {
            package.arg("--no-verify");
        }
        runner::run(&mut package)
    });
}

/// Compares each library's public API with the list beside its sources, `api.txt`: what changes it
/// changes the list too, in the same commit. With `UPDATE_GOLDEN=1` writes the lists.
pub(crate) fn api(files: &[File]) -> Result<Vec<String>, String> {
    let is_promised = |folder: &&str| !NO_PROMISE.contains(folder);
    let libraries = files.iter().filter_map(|file| {
        let folder = file.path.strip_suffix("/src/lib.rs")?;
        folder.starts_with("crates/").then_some(folder)
    });
    let mut problems = Vec::new();
    for folder in libraries.filter(is_promised) {
        let path = format!("{folder}/api.txt");
        let list = api::list(files, folder)?;
        if std::env::var_os("UPDATE_GOLDEN").is_some_and(|wanted| wanted == "1") {
            fs::write(root().join(&path), &list).map_err(|error| format!("{path}: {error}"))?;
            continue;
        }
        let known = files.iter().find(|file| file.path == path);
        let known = known.map(|file| file.text.as_str()).unwrap_or_default();
        problems.extend(differences(known, &list).map(|line| format!("{path}: {line}")));
    }
    if !problems.is_empty() {
        problems.push("if that is meant: UPDATE_GOLDEN=1 cargo xtask tidy".to_owned());
    }
    Ok(problems)
}

/// Lines that only one of the lists has.
fn differences<'l>(known: &'l str, now: &'l str) -> impl Iterator<Item = String> + use<'l> {
    let gone = known.lines().filter(|line| !now.lines().any(|it| it == *line));
    let new = now.lines().filter(|line| !known.lines().any(|it| it == *line));
    gone.map(|line| format!("- {line}")).chain(new.map(|line| format!("+ {line}")))
}

#[cfg(test)]
mod tests {
    use super::differences;

    #[test]
    fn what_goes_and_what_comes_is_told() {
        let told: Vec<_> = differences("a\nb\n", "b\nc\n").collect();
        assert_eq!(told, ["- a", "+ c"]);
    }
}
