//! The repository's invariants, checked by program.

mod imports;
mod rooms;
mod words;

use crate::build::{cargo, root};
use crate::output::say;
use crate::report::{Report, Tally};
use crate::source::{File, files};
use crate::{publish, runner};
use serde_json::Value;
use std::path::Path;

/// The only files that may hold `unsafe`: what talks to the kernel where no safe crate does.
const UNSAFE: [&str; 3] = [
    "crates/netlink/src/socket.rs",
    "crates/control/src/guard/denied_call.rs",
    "benches/src/bin/path/bpf.rs",
];

/// Longest Rust file by hand, in lines.
const LONGEST: usize = 500;

/// Generated, so as long as it has to be.
const GENERATED: [&str; 1] = ["crates/netlink/src/wire/uapi.rs"];

/// All that may lie in the top folder.
const TOP: [&str; 26] = [
    ".cargo",
    ".ci",
    ".git",
    ".github",
    ".gitignore",
    "ARCHITECTURE.md",
    "CHANGELOG.md",
    "CONTRIBUTING.md",
    "Cargo.lock",
    "Cargo.toml",
    "LICENSE-APACHE",
    "LICENSE-MIT",
    "README.md",
    "SECURITY.md",
    "benches",
    "clippy.toml",
    "crates",
    "deny.toml",
    "docs",
    "packaging",
    "policies",
    "rustfmt.toml",
    "rust-toolchain.toml",
    "target",
    "tests",
    "xtask",
];

/// Libraries that do without sockets, files, programs and the clock, if no feature is on.
pub(crate) const PURE: [&str; 3] = ["nfguard-jail", "nfguard-netlink", "nfguard-policy"];

/// Runs each check as a step of its own.
pub(crate) fn steps(report: &Report) {
    let files = match files(root()) {
        Ok(files) => files,
        Err(error) => return report.step("tidy", || Err(error.to_string())),
    };
    let rust: Vec<&File> = files.iter().filter(|file| file.path.ends_with(".rs")).collect();
    let check = |name: &str, problems: Result<Vec<String>, String>| {
        report.step(&format!("tidy: {name}"), || verdict(problems?));
    };
    check("unsafe only where the kernel is talked to", Ok(unsafe_code(&rust)));
    check("nothing left undone", Ok(undone(&rust)));
    check("files a person can hold in mind", Ok(too_long(&rust)));
    check("pure crates are pure", Ok(rooms::impure(&rust)));
    check("libraries do not print", Ok(rooms::prints(&rust)));
    check("pure crates do not reach libc", reaches_libc());
    check("crates depend only downwards", packages().map(|list| rooms::arrows(&list)));
    check(
        "each crate has a licence, the lints and what a registry shows",
        packages().map(|list| manifests(&list)),
    );
    check("no circle of imports", Ok(imports::circles(&rust)));
    check("no room above a quarter", Ok(rooms::too_large(&rust)));
    check("what the libraries promise", publish::api(&files));
    check("words that make a reader stop", Ok(words::lines(&files)));
    check("each policy has a golden file", Ok(golden(&files)));
    check("the top folder", top_folder());
    check("no path of a developer's machine", Ok(developer_paths(&files)));
}

/// Prints the words that should not occur, and how many there are in each room.
pub(crate) fn words(report: &Report) {
    report.step("words", || {
        let lines = words::lines(&files(root()).map_err(|error| error.to_string())?);
        lines.iter().for_each(say);
        words::by_room(&lines).iter().for_each(say);
        verdict(lines.first().map(|_| format!("{} lines", lines.len())).into_iter().collect())
    });
}

fn verdict(problems: Vec<String>) -> Result<Tally, String> {
    if problems.is_empty() {
        Ok(Tally::DONE)
    } else {
        Err(format!("\n  {}", problems.join("\n  ")))
    }
}

fn unsafe_code(rust: &[&File]) -> Vec<String> {
    let elsewhere = rust.iter().filter(|file| !UNSAFE.contains(&file.path.as_str()));
    elsewhere.flat_map(|file| file.code_with(&["unsafe"])).collect()
}

fn undone(rust: &[&File]) -> Vec<String> {
    let words = ["todo!", "unimplemented!", "#[ignore"];
    rust.iter().flat_map(|file| file.code_with(&words)).collect()
}

fn too_long(rust: &[&File]) -> Vec<String> {
    let by_hand = rust.iter().filter(|file| !GENERATED.contains(&file.path.as_str()));
    let lengths = by_hand.map(|file| (&file.path, file.text.lines().count()));
    lengths
        .filter(|(_, lines)| *lines > LONGEST)
        .map(|(path, lines)| format!("{path}: {lines} lines"))
        .collect()
}

fn reaches_libc() -> Result<Vec<String>, String> {
    let mut problems = Vec::new();
    for package in PURE {
        let mut tree = cargo();
        tree.args(["tree", "--package", package, "--no-default-features"]);
        let tree = runner::output(tree.args(["--edges", "normal", "--prefix", "none"]))?;
        let system = ["libc ", "nix ", "rustix ", "socket2 "];
        problems.extend(
            tree.lines()
                .filter(|line| system.iter().any(|name| line.starts_with(name)))
                .map(|line| format!("{package} depends on {line}")),
        );
    }
    Ok(problems)
}

fn packages() -> Result<Vec<Value>, String> {
    let mut metadata = cargo();
    let text = runner::output(metadata.args(["metadata", "--no-deps", "--format-version", "1"]))?;
    let value: Value = serde_json::from_str(&text).map_err(|error| error.to_string())?;
    Ok(value["packages"].as_array().cloned().unwrap_or_default())
}

fn manifests(packages: &[Value]) -> Vec<String> {
    let mut problems = Vec::new();
    for package in packages {
        let path = package["manifest_path"].as_str().unwrap_or_default();
        if package["license"].as_str().is_none() {
            problems.push(format!("{path}: no license"));
        }
        // A registry shows these; what is not published says so by an empty list.
        let is_published = package["publish"].is_null();
        for key in ["description", "repository", "readme", "keywords", "categories"] {
            let is_said = match &package[key] {
                Value::Array(list) => !list.is_empty(),
                value => value.is_string(),
            };
            if is_published && !is_said {
                problems.push(format!("{path}: no {key}"));
            }
        }
        let text = std::fs::read_to_string(path).unwrap_or_default();
        if !text.contains("[lints]\nworkspace = true") {
            problems.push(format!("{path}: does not take the workspace's lints"));
        }
    }
    problems
}

/// `policies/traefik.json` has its nft text in a `traefik.nft`.
fn golden(files: &[File]) -> Vec<String> {
    let policies = files.iter().filter_map(|file| {
        let name = file.path.strip_prefix("policies/")?.strip_suffix(".json")?;
        let is_policy = !name.ends_with(".schema") && !name.ends_with("jails");
        (!name.contains('/') && is_policy).then_some(name)
    });
    policies
        .filter(|name| !files.iter().any(|file| file.path.ends_with(&format!("/{name}.nft"))))
        .map(|name| format!("policies/{name}.json: no {name}.nft"))
        .collect()
}

fn top_folder() -> Result<Vec<String>, String> {
    let entries = std::fs::read_dir(root()).map_err(|error| error.to_string())?;
    let names = entries.flatten().map(|entry| entry.file_name().to_string_lossy().into_owned());
    Ok(names.filter(|name| !TOP.contains(&name.as_str())).collect())
}

/// Lines with a path of this machine: the place of this copy, or the folder around it, unless every
/// machine has a folder of that name.
fn developer_paths(files: &[File]) -> Vec<String> {
    let here = root();
    let mut needles = vec![format!("/{}/", "home"), format!("/{}/", "Users")];
    needles.extend(here.to_str().map(str::to_owned));
    let around = here.parent().filter(|folder| {
        let usual = ["/", "/tmp", "/src", "/root", "/opt", "/usr", "/var", "/mnt", "/srv"];
        usual.iter().all(|known| *folder != Path::new(known))
    });
    needles.extend(around.and_then(Path::to_str).map(|folder| format!("{folder}/")));
    let named = |line: &str| needles.iter().any(|needle| has_path(line, needle));
    let mut problems = Vec::new();
    for file in files {
        let lines = file.text.lines().enumerate().filter(|(_, line)| named(line));
        problems.extend(lines.map(|(at, line)| format!("{}:{}: {line}", file.path, at + 1)));
    }
    problems
}

/// Whether the absolute path stands in the line, not as the end of another.
fn has_path(line: &str, path: &str) -> bool {
    let joined = |c: char| c.is_alphanumeric() || "._-/}".contains(c);
    line.match_indices(path).any(|(at, _)| !line[..at].ends_with(joined))
}

#[cfg(test)]
mod tests {
    use super::has_path;

    #[test]
    fn a_path_is_found_only_where_it_begins() {
        assert!(has_path("see `/place/of/mine`", "/place/"));
        assert!(!has_path("see target/place/of", "/place/"));
    }
}
