//! Tells the program what it is made from.

#![allow(clippy::print_stdout, reason = "cargo reads it")]

use std::env;
use std::process::Command;

fn main() {
    println!("cargo:rerun-if-changed=build.rs");
    println!("cargo:rerun-if-env-changed=NFGUARD_COMMIT");
    // A build without git can get the commit from its environment.
    let told = env::var("NFGUARD_COMMIT").ok().filter(|commit| !commit.is_empty());
    let commit = told.or_else(commit).unwrap_or_else(|| "unknown".to_owned());
    println!("cargo:rustc-env=NFGUARD_COMMIT={commit}");
    println!("cargo:rustc-env=NFGUARD_FEATURES={}", features());
    println!("cargo:rustc-env=NFGUARD_TARGET={}", env::var("TARGET").unwrap_or_default());
}

/// Returns the commit that is checked out, unless the repository around is another project's.
fn commit() -> Option<String> {
    let said = git(&["rev-parse", "--show-prefix", "--short=12", "HEAD"])?;
    let (prefix, commit) = said.split_once('\n')?;
    if prefix != "crates/cli/" {
        return None;
    }
    // The file changes with each commit and checkout. A missing file would make cargo build each
    // time.
    for name in ["logs/HEAD", "HEAD"] {
        let path = git(&["rev-parse", "--path-format=absolute", "--git-path", name])?;
        if std::fs::exists(&path).is_ok_and(|there| there) {
            println!("cargo:rerun-if-changed={path}");
            break;
        }
    }
    Some(commit.to_owned())
}

fn git(arguments: &[&str]) -> Option<String> {
    let output = Command::new("git").args(arguments).output().ok()?;
    let text = String::from_utf8(output.stdout).ok()?;
    output.status.success().then(|| text.trim_end().to_owned())
}

/// Returns the active features of cargo, in order.
fn features() -> String {
    let named = env::vars().filter_map(|(name, _)| {
        let feature = name.strip_prefix("CARGO_FEATURE_")?.to_lowercase().replace('_', "-");
        (feature != "default").then_some(feature)
    });
    let mut features: Vec<String> = named.collect();
    features.sort();
    if features.is_empty() { "none".to_owned() } else { features.join(" ") }
}
