//! Building through cargo, and finding what it built.

use crate::output::{self, say};
use serde_json::Value;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

/// A test program that cargo built.
#[derive(Debug, Clone)]
pub(crate) struct TestBinary {
    pub(crate) package: String,
    pub(crate) target: String,
    pub(crate) path: PathBuf,
    /// The package's folder, where cargo would run it.
    pub(crate) dir: PathBuf,
}

impl TestBinary {
    /// For people: `nfguard-lab::probes`.
    pub(crate) fn name(&self) -> String {
        format!("{}::{}", self.package, self.target)
    }
}

/// The repository's top folder.
pub(crate) fn root() -> &'static Path {
    Path::new(env!("CARGO_MANIFEST_DIR")).parent().unwrap_or(Path::new("."))
}

/// Where cargo builds.
pub(crate) fn target_dir() -> PathBuf {
    std::env::var_os("CARGO_TARGET_DIR").map_or_else(|| root().join("target"), PathBuf::from)
}

/// The cargo that runs this task, at the top folder.
pub(crate) fn cargo() -> Command {
    let mut cargo = Command::new(std::env::var_os("CARGO").unwrap_or("cargo".into()));
    cargo.current_dir(root());
    cargo
}

/// Builds the test programs that `selection` (cargo's package and target options) names: all
/// targets of the packages, if it names no target.
pub(crate) fn test_binaries(selection: &[&str]) -> Result<Vec<TestBinary>, String> {
    let mut command = cargo();
    command.args(["test", "--no-run"]).args(selection);
    if !selection.contains(&"--test") {
        command.args(["--lib", "--bins", "--tests"]);
    }
    Ok(artifacts(command)?
        .iter()
        .filter(|message| message["profile"]["test"] == true)
        .filter_map(test_binary)
        .collect())
}

/// Builds one binary and returns its path.
pub(crate) fn binary(package: &str, name: &str, release: bool) -> Result<PathBuf, String> {
    let mut command = cargo();
    command.args(["build", "--package", package, "--bin", name]);
    if release {
        command.arg("--release");
    }
    executable(command, name)
}

/// Builds the program of the libraries that benchmarks compare with, a workspace of its own, and
/// returns its path.
pub(crate) fn peers() -> Result<PathBuf, String> {
    let mut command = cargo();
    command.args(["build", "--release", "--locked", "--manifest-path", "benches/peers/Cargo.toml"]);
    command.arg("--target-dir").arg(target_dir().join("peers"));
    executable(command, "nfguard-peers")
}

fn executable(command: Command, name: &str) -> Result<PathBuf, String> {
    artifacts(command)?
        .iter()
        .filter(|message| message["target"]["name"] == name)
        .find_map(|message| message["executable"].as_str().map(PathBuf::from))
        .ok_or_else(|| format!("cargo built no binary {name}"))
}

/// Builds the ban library's examples, which are what other programs do with it, and returns their
/// paths.
pub(crate) fn examples() -> Result<Vec<PathBuf>, String> {
    let mut command = cargo();
    command.args(["build", "--package", "nfguard-ban", "--examples"]);
    let built = artifacts(command)?;
    let paths = built.iter().filter_map(|message| message["executable"].as_str());
    Ok(paths.map(PathBuf::from).collect())
}

/// Builds the program of the tests' container image, which has no libraries beside it, and returns
/// its path.
pub(crate) fn responder() -> Result<PathBuf, String> {
    const NAME: &str = "nfguard-responder";
    let mut command = cargo();
    // A folder of its own, or each build with other flags would undo the one before.
    command.args(["build", "--package", NAME, "--target-dir"]).arg(target_dir().join("static"));
    command.env("RUSTFLAGS", "-C target-feature=+crt-static");
    artifacts(command)?
        .iter()
        .find_map(|message| message["executable"].as_str().map(PathBuf::from))
        .ok_or_else(|| format!("cargo built no {NAME}"))
}

fn artifacts(mut command: Command) -> Result<Vec<Value>, String> {
    command.arg("--message-format=json-render-diagnostics");
    let errors = if output::is_kept() { Stdio::piped() } else { Stdio::inherit() };
    let output = command
        .stderr(errors)
        .output()
        .map_err(|error| format!("cargo does not start: {error}"))?;
    if output::is_kept() {
        say(String::from_utf8_lossy(&output.stderr).trim_end());
    }
    if !output.status.success() {
        return Err("does not build".to_owned());
    }
    Ok(String::from_utf8_lossy(&output.stdout)
        .lines()
        .filter_map(|line| serde_json::from_str(line).ok())
        .filter(|message: &Value| message["reason"] == "compiler-artifact")
        .collect())
}

fn test_binary(message: &Value) -> Option<TestBinary> {
    let dir = Path::new(message["manifest_path"].as_str()?).parent()?.to_owned();
    Some(TestBinary {
        package: package_name(message["package_id"].as_str()?)?,
        target: message["target"]["name"].as_str()?.to_owned(),
        path: message["executable"].as_str()?.into(),
        dir,
    })
}

/// A package ID ends in `#name@version`, or in `/name#version` where the folder
/// carries the package's name.
fn package_name(id: &str) -> Option<String> {
    let (place, fragment) = id.split_once('#')?;
    let name = match fragment.split_once('@') {
        Some((name, _)) => name,
        None => place.rsplit('/').next()?,
    };
    Some(name.to_owned())
}

#[cfg(test)]
mod tests {
    use super::package_name;

    #[test]
    fn package_ids_of_both_shapes_give_the_name() {
        let named = package_name("path+file:///x/crates/lab#nfguard-lab@0.1.0");
        let by_folder = package_name("path+file:///x/xtask#0.1.0");
        assert_eq!(named.as_deref(), Some("nfguard-lab"));
        assert_eq!(by_folder.as_deref(), Some("xtask"));
    }
}
