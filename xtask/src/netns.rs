//! Tests that need the kernel: built as you, run in namespaces made for them.

use crate::build::{self, TestBinary};
use crate::report::{Report, Tally};
use crate::runner::{self, is_root};
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

/// The packages whose tests need namespaces.
pub(crate) const PACKAGES: [&str; 2] = ["nfguard-lab", E2E];

/// The one that runs the `nfguard` binary.
const E2E: &str = "nfguard-tests";

/// Test targets with this suffix need real root.
const ROOT_SUFFIX: &str = "_root";

/// Those that run a Docker Engine begin so.
const DOCKER_PREFIX: &str = "docker";

/// Which of them to run.
#[derive(Debug, Default, clap::Args)]
pub(crate) struct Choice {
    /// Only tests whose name contains this
    pub(crate) filter: Option<String>,
    /// Only the tests of this package
    #[arg(long, short, value_parser = PACKAGES)]
    pub(crate) package: Option<String>,
    /// Builds and runs only this test target, such as kernel_load; repeatable, `*` stands for any
    /// text. Without --package, a target of nfguard-tests
    #[arg(long = "only", value_name = "TARGET")]
    pub(crate) targets: Vec<String>,
    /// Leave out the tests that need real root
    #[arg(long)]
    pub(crate) no_root: bool,
    /// Only the tests with a real Docker Engine
    #[arg(long, conflicts_with = "no_root")]
    pub(crate) docker: bool,
}

/// Builds and runs them.
pub(crate) fn steps(report: &mut Report, choice: &Choice) {
    let mut binaries = Vec::new();
    report.step("build the tests", || {
        let packages = match choice.package.as_deref() {
            Some(package) => vec![package],
            None if choice.targets.is_empty() => PACKAGES.to_vec(),
            None => vec![E2E],
        };
        let packages = packages.into_iter().flat_map(|package| ["--package", package]);
        let targets = choice.targets.iter().flat_map(|target| ["--test", target]);
        binaries = build::test_binaries(&packages.chain(targets).collect::<Vec<_>>())?;
        Ok(Tally::DONE)
    });
    if report.clean() {
        run(report, &binaries, choice);
    }
}

/// Runs test programs that are already built, each in new namespaces.
pub(crate) fn run(report: &mut Report, binaries: &[TestBinary], choice: &Choice) {
    let filter = choice.filter.as_deref();
    let (mut nfguard, mut examples, mut responder) =
        (PathBuf::new(), PathBuf::new(), PathBuf::new());
    let wanted = |binary: &TestBinary| !choice.docker || is_docker(binary);
    if binaries.iter().any(|binary| binary.package == E2E) {
        report.step("build nfguard and what goes with it", || {
            nfguard = build::binary("nfguard", "nfguard", false)?;
            let built = build::examples()?;
            let folder = built.first().and_then(|example| example.parent());
            examples = folder.ok_or("cargo built no example")?.to_owned();
            responder = build::responder()?;
            Ok(Tally::DONE)
        });
    }
    let mut ran = Tally::default();
    for binary in binaries {
        if !wanted(binary) || !has_tests(binary, filter) {
            continue;
        }
        let needs_root = needs_root(binary);
        if needs_root && choice.no_root && !is_root() {
            report.left_out(format!("{} needs root", binary.name()));
            continue;
        }
        report.step(&format!("netns-test {}", binary.name()), || {
            let isolation = if needs_root { Isolation::real_root() } else { Isolation::any() }?;
            let mut command = isolation.command(&binary.path, &nfguard)?;
            command.current_dir(&binary.dir).env("CARGO_MANIFEST_DIR", &binary.dir).args(filter);
            command.env("NFGUARD_EXAMPLES", &examples).env("NFGUARD_RESPONDER", &responder);
            let tally = runner::run_tests(&mut command)?;
            ran.add(tally);
            Ok(tally)
        });
    }
    if ran == Tally::default() && report.clean() {
        report.step("netns-test", || Err("no test was run".to_owned()));
    }
}

/// The namespaces that a program is put into.
#[derive(Debug, Clone, Copy)]
pub(crate) enum Isolation {
    /// User, network and mount: as a plain user can.
    User,
    /// Network and mount, as real root.
    Root,
}

impl Isolation {
    /// The least privilege that this machine allows.
    pub(crate) fn any() -> Result<Self, String> {
        if Self::User.works() {
            return Ok(Self::User);
        }
        Self::real_root().map_err(|_| {
            "this machine lets a plain user make no user namespace; run as root".to_owned()
        })
    }

    /// Real root, or the way to get it.
    pub(crate) fn real_root() -> Result<Self, String> {
        match is_root() {
            true if Self::Root.works() => Ok(Self::Root),
            true => Err("root may not make a network namespace here".to_owned()),
            false => Err("needs root: `sudo -E env PATH=\"$PATH\" cargo xtask netns-test`, \
                          or leave it out with --no-root"
                .to_owned()),
        }
    }

    /// `program` in new namespaces, told where it must not be and where
    /// `nfguard` is.
    pub(crate) fn command(self, program: &Path, nfguard: &Path) -> Result<Command, String> {
        let mut command = self.unshare();
        command
            .arg(program)
            .env("PATH", runner::path())
            .env("NFGUARD_NETNS_TEST", namespace()?)
            .env("NFGUARD_BIN", nfguard);
        Ok(command)
    }

    fn works(self) -> bool {
        let mut command = self.unshare();
        command.arg("true").stderr(Stdio::null()).status().is_ok_and(|status| status.success())
    }

    fn unshare(self) -> Command {
        let mut command = Command::new("unshare");
        if matches!(self, Self::User) {
            command.args(["--user", "--map-root-user"]);
        }
        command.args(["--net", "--mount", "--"]);
        command
    }
}

/// Whether the program says by its name that a user namespace is not enough.
pub(crate) fn needs_root(binary: &TestBinary) -> bool {
    binary.target.ends_with(ROOT_SUFFIX)
}

fn is_docker(binary: &TestBinary) -> bool {
    binary.target.starts_with(DOCKER_PREFIX)
}

/// Programs without a matching test are not worth a line of the report.
pub(crate) fn has_tests(binary: &TestBinary, filter: Option<&str>) -> bool {
    let mut command = Command::new(&binary.path);
    command.args(["--list", "--format", "terse"]).args(filter).current_dir(&binary.dir);
    // What cannot list its tests is run, so that its failure is seen.
    runner::output(&mut command).map_or(true, |list| !list.trim().is_empty())
}

/// The inode of the network namespace that this process is in.
fn namespace() -> Result<String, String> {
    let link = std::fs::read_link("/proc/self/ns/net").map_err(|error| error.to_string())?;
    let link = link.to_string_lossy();
    let inode = link.strip_prefix("net:[").and_then(|rest| rest.strip_suffix(']'));
    inode.map(str::to_owned).ok_or_else(|| format!("unexpected namespace link {link}"))
}
