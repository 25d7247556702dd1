//! What the documents name exists: links, tests, checks, and examples in Rust.
//!
//! `docs_root` runs their commands.

use std::collections::BTreeSet;
use std::fs;
use std::path::{Path, PathBuf};

use nfguard_tests::document::{blocks, repository};

/// Returns the files with this ending in a folder of the repository and below it.
fn files(folder: &str, ending: &str) -> Vec<PathBuf> {
    let entries = fs::read_dir(repository().join(folder)).expect("a folder");
    let names = entries.map(|entry| entry.expect("an entry").file_name());
    let paths = names.map(|name| Path::new(folder).join(name));
    let mut found = Vec::new();
    for path in paths {
        if repository().join(&path).is_dir() {
            found.extend(files(path.to_str().expect("text"), ending));
        } else if path.extension().is_some_and(|it| it == ending) {
            found.push(path);
        }
    }
    found
}

/// Returns the paths of the documents in the repository.
fn documents() -> Vec<PathBuf> {
    let entries = fs::read_dir(repository()).expect("the repository");
    let names = entries.map(|entry| PathBuf::from(entry.expect("an entry").file_name()));
    let top = names.filter(|name| name.extension().is_some_and(|it| it == "md"));
    let all: Vec<_> = top.chain(files("docs", "md")).collect();
    assert!(all.len() > 15, "{all:?}");
    all
}

fn read(path: &Path) -> String {
    let text = fs::read_to_string(repository().join(path));
    text.unwrap_or_else(|error| panic!("{}: {error}", path.display()))
}

/// Returns the text without its code blocks.
fn prose(text: &str) -> String {
    let mut is_code = false;
    let lines = text.lines().filter(|line| {
        let is_fence = line.starts_with("```");
        is_code ^= is_fence;
        !is_code && !is_fence
    });
    lines.collect::<Vec<_>>().join("\n")
}

/// Splits a line into its code between backticks and its other text.
fn split_code(prose: &str) -> (Vec<String>, String) {
    let (mut code, mut rest) = (Vec::new(), String::new());
    for line in prose.lines() {
        for (at, part) in line.split('`').enumerate() {
            if at % 2 == 1 { code.push(part.to_owned()) } else { rest.push_str(part) }
        }
        rest.push('\n');
    }
    (code, rest)
}

/// Returns the anchors of the headings of a document, as GitHub makes them.
fn anchors(text: &str) -> BTreeSet<String> {
    let prose = prose(text);
    let headings = prose.lines().filter(|line| line.starts_with('#'));
    let headings = headings.map(|line| line.trim_start_matches('#').trim().to_lowercase());
    let is_kept = |c: &char| c.is_alphanumeric() || " -_".contains(*c);
    headings
        .map(|text| text.chars().filter(is_kept).collect::<String>().replace(' ', "-"))
        .collect()
}

#[test]
fn every_link_in_the_documents_leads_somewhere() {
    let mut count = 0;
    let mut broken = Vec::new();
    for document in documents() {
        let (_, text) = split_code(&prose(&read(&document)));
        for target in text.split("](").skip(1).filter_map(|rest| rest.split(')').next()) {
            let target = target.replace('\n', "");
            if target.contains("://") {
                continue;
            }
            count += 1;
            let (path, anchor) = target.split_once('#').unwrap_or((&target, ""));
            let folder = document.parent().expect("a folder");
            let path = if path.is_empty() { document.clone() } else { folder.join(path) };
            let leads = repository().join(&path).exists()
                && (anchor.is_empty() || anchors(&read(&path)).contains(anchor));
            if !leads {
                broken.push(format!("{}: {target}", document.display()));
            }
        }
    }
    assert!(count > 80, "only {count} links");
    assert!(broken.is_empty(), "{broken:#?}");
}

#[test]
fn every_test_and_check_that_the_documents_name_exists() {
    let folders = ["crates", "tests", "xtask", "benches"];
    let sources = folders.iter().flat_map(|folder| files(folder, "rs"));
    let sources: String = sources.map(|path| read(&path)).collect();
    let tests: BTreeSet<&str> = sources
        .split("#[test]\n")
        .skip(1)
        .filter_map(|rest| rest.trim_start().strip_prefix("fn ")?.split('(').next())
        .collect();
    let xtask: String = files("xtask", "rs").iter().map(|path| read(path)).collect();
    let (mut count, mut missing) = (0, Vec::new());
    for document in documents() {
        for code in split_code(&prose(&read(&document))).0 {
            // The name of a test has many words.
            let is_test = code.matches('_').count() > 3 && !code.contains(['/', ' ', '.', '(']);
            let check = code.strip_prefix("tidy: ");
            let exists = match check {
                Some(check) => xtask.contains(&format!("\"{check}\"")),
                None => !is_test || tests.contains(code.as_str()),
            };
            count += usize::from(is_test || check.is_some());
            if !exists {
                missing.push(format!("{}: {code}", document.display()));
            }
        }
    }
    assert!(count > 80, "only {count} names");
    assert!(missing.is_empty(), "{missing:#?}");
}

#[test]
fn every_path_that_the_documents_name_exists() {
    let folders = ["crates/", "tests/", "xtask/", "benches/", "docs/", "packaging/", "policies/"];
    let (mut count, mut missing) = (0, Vec::new());
    for document in documents() {
        for code in split_code(&prose(&read(&document))).0 {
            let is_path = folders.iter().any(|folder| code.starts_with(folder));
            // A placeholder for any name has no path.
            if !is_path || code.contains(['*', ' ']) || code.contains("VERB") {
                continue;
            }
            count += 1;
            if !repository().join(&code).exists() {
                missing.push(format!("{}: {code}", document.display()));
            }
        }
    }
    assert!(count > 20, "only {count} paths");
    assert!(missing.is_empty(), "{missing:#?}");
}

#[test]
fn commands_stand_only_in_documents_that_are_run() {
    for document in documents() {
        let is_run =
            document.parent().is_some_and(|it| it == "docs") || document == Path::new("README.md");
        for block in blocks(document.to_str().expect("text")) {
            let place = format!("{}:{}", document.display(), block.line);
            assert!(is_run || block.is("drawing"), "{place}: which test runs it?");
        }
    }
}

#[test]
fn every_rust_example_in_the_documents_is_one_that_rustdoc_runs() {
    let visible = |path: PathBuf| -> String {
        let text = read(&path);
        let lines = text.lines().filter_map(|line| line.strip_prefix("//! "));
        lines
            .filter(|line| !line.starts_with("# "))
            .fold(String::new(), |all, line| all + line + "\n")
    };
    let rustdoc: Vec<String> = files("crates", "rs").into_iter().map(visible).collect();
    let mut count = 0;
    for document in documents() {
        for block in blocks(document.to_str().expect("text")) {
            if block.language != "rust" {
                continue;
            }
            count += 1;
            let wanted: String = block
                .text
                .lines()
                .filter(|line| !line.is_empty())
                .fold(String::new(), |all, line| all + line + "\n");
            let is_run = rustdoc.iter().any(|text| text.contains(&wanted));
            assert!(is_run, "{}:{}: no crate has this example", document.display(), block.line);
        }
    }
    assert!(count > 0, "no example");
}
