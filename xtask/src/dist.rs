//! What is handed out: a program that needs no library, and a Debian package with it and all that
//! goes with it.

mod package;
mod root;

use crate::build::{self, cargo};
use crate::output::say;
use crate::report::{Report, Tally};
use crate::{runner, setup};
use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;

/// Without libraries, wherever its target can be had.
const MUSL: &str = "x86_64-unknown-linux-musl";
/// With a C library inside that was not meant for it, else.
const GNU: &str = "x86_64-unknown-linux-gnu";

/// Installs what both are made with, or with `check` only says what is missing.
pub(crate) fn setup(report: &Report, check: bool) {
    let add = || runner::output(Command::new("rustup").args(["target", "add", MUSL]));
    // Where there is no rustup, or no net, the other one serves.
    if !is_here(MUSL) && (check || add().is_err() || !is_here(MUSL)) {
        report.left_out(format!("{MUSL}, which is not installed; {GNU} takes its place"));
    }
}

/// Whether the standard library for this target is.
fn is_here(target: &str) -> bool {
    let mut rustc = Command::new("rustc");
    rustc.args(["--print", "target-libdir", "--target", target]);
    runner::output(&mut rustc).is_ok_and(|folder| Path::new(folder.trim()).is_dir())
}

/// What was made.
pub(crate) struct Products {
    program: PathBuf,
    package: PathBuf,
}

/// Where to build what, of which commit.
pub(crate) struct Plan {
    /// The repository, or a copy.
    source: PathBuf,
    target_dir: PathBuf,
    target: &'static str,
    commit: String,
    /// Of the commit, in seconds since 1970.
    time: String,
}

/// Builds the program and the package, and looks at them. With `twice`, builds both once more.
pub(crate) fn steps(report: &Report, twice: bool) {
    if let Some((plan, products)) = build(report) {
        check(report, &plan, &products);
        if twice {
            again(report, &plan, &products);
        }
    }
}

/// Builds the program and the package.
pub(crate) fn build(report: &Report) -> Option<(Plan, Products)> {
    let mut made = None;
    report.step("dist: build", || {
        let plan = Plan::here()?;
        let products = plan.build()?;
        say(products.program.display());
        say(products.package.display());
        made = Some((plan, products));
        Ok(Tally::DONE)
    });
    made
}

/// Looks at what was built, installs the package into a folder and removes it again.
pub(crate) fn check(report: &Report, plan: &Plan, products: &Products) {
    report.step("dist: the program needs no library, and says what it is", || {
        needs_no_library(&products.program)?;
        says_what_it_is(&products.program, plan)
    });
    if runner::is_root() {
        report.step("dist: installed, upgraded, removed, purged", || {
            root::install_and_remove(&products.package)
        });
    } else {
        report.left_out("installing the package needs root".to_owned());
    }
}

/// Builds both once more from a copy in another folder, and compares the bytes.
pub(crate) fn again(report: &Report, plan: &Plan, products: &Products) {
    report.step("dist: the same bytes from another folder", || same_bytes(plan, products));
}

impl Plan {
    fn here() -> Result<Plan, String> {
        let git = |arguments: &[&str]| {
            let mut git = Command::new("git");
            runner::output(git.args(arguments).current_dir(build::root()))
        };
        let mut commit = git(&["rev-parse", "--short=12", "HEAD"])?.trim().to_owned();
        if !git(&["status", "--porcelain"])?.is_empty() {
            commit.push_str(" and changes");
        }
        let time = git(&["log", "-1", "--format=%ct"])?.trim().to_owned();
        let (source, target_dir) = (build::root().to_owned(), build::target_dir().join("dist"));
        let target = [MUSL, GNU].into_iter().find(|target| is_here(target));
        let target = target.ok_or_else(|| format!("no Rust for {MUSL} or {GNU}"))?;
        Ok(Plan { source, target_dir, target, commit, time })
    }

    fn build(&self) -> Result<Products, String> {
        let mut command = cargo();
        command.args(["build", "--release", "--locked", "--package", "nfguard"]);
        runner::run(self.surround(&mut command))?;
        let built = self.built();
        let folder = built.parent().unwrap_or(&self.target_dir).to_owned();
        write_manual(&built, &folder.join("package"))?;

        let out = self.target_dir.join("out");
        fs::create_dir_all(&out).map_err(|error| error.to_string())?;
        let version = env!("CARGO_PKG_VERSION");
        let program = out.join(format!("nfguard-{version}-{}", self.target));
        let package = out.join(format!("nfguard_{version}_amd64.deb"));
        fs::copy(&built, &program).map_err(|error| error.to_string())?;
        package::build(&package::Place {
            source: &self.source,
            built: &folder,
            stage: &self.target_dir.join("stage"),
            package: &package,
            time: &self.time,
        })?;
        Ok(Products { program, package })
    }

    /// Where cargo puts the program, under its own name.
    pub(crate) fn built(&self) -> PathBuf {
        self.target_dir.join(self.target).join("release").join("nfguard")
    }

    /// Has cargo build in the plan's folder for its target, and leave no trace of where and when.
    pub(crate) fn surround<'c>(&self, cargo: &'c mut Command) -> &'c mut Command {
        let mut flags = vec!["-Ctarget-feature=+crt-static".to_owned()];
        let mut known_as = |folder: &Path, name: &str| {
            flags.push(format!("--remap-path-prefix={}={name}", folder.display()));
        };
        known_as(&self.source, "/nfguard");
        known_as(&self.target_dir, "/target");
        if let Some(home) = setup::cargo_home() {
            known_as(&home, "/cargo");
        }
        cargo.current_dir(&self.source).env("CARGO_TARGET_DIR", &self.target_dir);
        cargo.env("CARGO_BUILD_TARGET", self.target);
        cargo.env_remove("RUSTFLAGS").env("CARGO_ENCODED_RUSTFLAGS", flags.join("\u{1f}"));
        cargo.env("NFGUARD_COMMIT", &self.commit).env("SOURCE_DATE_EPOCH", &self.time)
    }
}

/// Manual pages and completions, by the program itself.
fn write_manual(program: &Path, folder: &Path) -> Result<(), String> {
    let man = folder.join("man");
    let failed = |error: std::io::Error| format!("{}: {error}", folder.display());
    if folder.exists() {
        fs::remove_dir_all(folder).map_err(failed)?;
    }
    fs::create_dir_all(&man).map_err(failed)?;
    runner::run(Command::new(program).arg("man").arg(&man))?;
    let pages = fs::read_dir(&man).map_err(failed)?.flatten().map(|page| page.path());
    // Without name and time.
    runner::run(Command::new("gzip").args(["--best", "--no-name"]).args(pages))?;
    for shell in ["bash", "zsh", "fish"] {
        let script = runner::output(Command::new(program).args(["completions", shell]))?;
        fs::write(folder.join(format!("nfguard.{shell}")), script).map_err(failed)?;
    }
    Ok(())
}

fn needs_no_library(program: &Path) -> Result<(), String> {
    let headers = runner::output(Command::new("readelf").args(["-ldW"]).arg(program))?;
    match headers.lines().find(|line| line.contains("(NEEDED)") || line.contains("INTERP")) {
        None => Ok(()),
        Some(line) => Err(format!("it does: {}", line.trim())),
    }
}

fn says_what_it_is(program: &Path, plan: &Plan) -> Result<Tally, String> {
    let said = runner::output(Command::new(program).arg("--version"))?;
    let (version, commit, target) = (env!("CARGO_PKG_VERSION"), &plan.commit, plan.target);
    let expected = format!("nfguard {version} (commit {commit}, features: none, {target})\n");
    say(said.trim_end());
    if said == expected { Ok(Tally::DONE) } else { Err(format!("expected {expected}")) }
}

/// Builds a copy elsewhere, from nothing.
fn same_bytes(plan: &Plan, first: &Products) -> Result<Tally, String> {
    let folder = plan.target_dir.join("again");
    let remove = || match fs::remove_dir_all(&folder) {
        Err(error) if folder.exists() => Err(format!("{}: {error}", folder.display())),
        _ => Ok(Tally::DONE),
    };
    remove()?;
    copy_sources(&plan.source, &folder)?;
    let again = Plan {
        source: folder.clone(),
        target_dir: folder.join("target"),
        commit: plan.commit.clone(),
        time: plan.time.clone(),
        target: plan.target,
    };
    let second = again.build()?;
    for (first, second) in [(&first.program, &second.program), (&first.package, &second.package)] {
        runner::run(Command::new("cmp").arg(first).arg(second))?;
    }
    remove()
}

/// What git knows of, as it is now.
fn copy_sources(from: &Path, to: &Path) -> Result<(), String> {
    let mut git = Command::new("git");
    git.args(["ls-files", "-z", "--cached", "--others", "--exclude-standard"]);
    let names = runner::output(git.current_dir(from))?;
    for name in names.split('\0').filter(|name| !name.is_empty() && from.join(name).is_file()) {
        let place = to.join(name);
        let parent = place.parent().unwrap_or(to);
        let copied = fs::create_dir_all(parent).and_then(|()| fs::copy(from.join(name), &place));
        copied.map_err(|error| format!("{name}: {error}"))?;
    }
    Ok(())
}
