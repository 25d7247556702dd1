//! Tests that need the kernel: built as you, run in namespaces made for them.

use crate::build::{self, TestBinary};
use crate::fail2ban;
use crate::lanes::{self, Job, Lane, Queue};
use crate::report::{Report, Tally};
use crate::runner::{self, is_root};
use std::fs::DirBuilder;
use std::os::unix::fs::{DirBuilderExt as _, MetadataExt as _};
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

/// The packages whose tests need namespaces.
pub(crate) const PACKAGES: [&str; 2] = ["nfguard-lab", E2E];

/// The one that runs the `nfguard` binary.
pub(crate) const E2E: &str = "nfguard-tests";

/// Test targets with this suffix need real root.
const ROOT_SUFFIX: &str = "_root";

/// Those that run a Docker Engine begin so.
const DOCKER_PREFIX: &str = "docker";

/// Test targets that are begun first, the slowest first, so that none runs alone at the end.
const SLOWEST: [&str; 10] = [
    "peers_scan",
    "docker_root",
    "peers_fail2ban",
    "peers_ufw_import",
    "confirm",
    "kernel_explain",
    "kernel_ban_model",
    "peers_ufw",
    "peers_psad",
    "peers_machine_root",
];

/// Test targets that make control groups of the machine's own, mount hierarchies of them, or count
/// what is left of them. All others have namespaces and folders of their own, and stand beside each
/// other.
const WITH_CONTROL_GROUPS: [&str; 2] = ["docker_root", "peers_machine_root"];

/// Test targets for what Debian's kernels have and this one may lack, or that change the whole machine:
/// they run in the virtual machines of `cargo xtask kernels`, and here only if named.
const OTHER_KERNELS: [&str; 2] = ["kernel_full_root", "kernel_links"];

/// Which of them to run.
#[derive(Debug, Default, clap::Args)]
pub(crate) struct Choice {
    /// Only tests whose name contains this
    pub(crate) filter: Option<String>,
    /// Only the tests of this package
    #[arg(long, short, value_parser = PACKAGES)]
    pub(crate) package: Option<String>,
    /// Build and run only this test target, such as kernel_load; repeatable, `*` stands for any
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

/// What the end-to-end tests run.
#[derive(Debug, Default)]
pub(crate) struct Programs {
    pub(crate) nfguard: PathBuf,
    pub(crate) examples: Vec<PathBuf>,
    /// The program of the tests' container image.
    responder: PathBuf,
    /// Whether tests of random cases take a minute and not some seconds.
    pub(crate) thorough: bool,
}

impl Programs {
    /// Builds what goes with `nfguard`, and `nfguard` itself if none is given.
    pub(crate) fn build(nfguard: Option<PathBuf>) -> Result<Programs, String> {
        let nfguard = match nfguard {
            Some(path) => path,
            None => build::binary("nfguard", "nfguard", false)?,
        };
        let (examples, responder) = (build::examples()?, build::responder()?);
        Ok(Programs { nfguard, examples, responder, thorough: false })
    }
}

/// Builds the chosen tests and runs them.
pub(crate) fn steps(report: &Report, choice: &Choice) {
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
    let mut programs = Programs::default();
    if binaries.iter().any(|binary| binary.package == E2E) {
        report.step("build nfguard and what goes with it", || {
            programs = Programs::build(None)?;
            Ok(Tally::DONE)
        });
    }
    if report.clean() {
        run_all(report, &binaries, choice, &programs);
    }
}

/// Runs chosen tests that are already built.
pub(crate) fn run_all(
    report: &Report,
    binaries: &[TestBinary],
    choice: &Choice,
    programs: &Programs,
) {
    let queue = Queue::new(jobs(report, binaries, choice, programs));
    lanes::run((0..width()).map(|_| Box::new(|| queue.work()) as Lane<'_>).collect());
}

/// How many test programs run side by side: more than there are processors, because most of them
/// wait most of the time.
pub(crate) fn width() -> usize {
    2 * std::thread::available_parallelism().map_or(2, |count| count.get().clamp(2, 4))
}

/// One job for each test program that has a chosen test, the slowest first.
pub(crate) fn jobs<'j>(
    report: &'j Report,
    binaries: &'j [TestBinary],
    choice: &'j Choice,
    programs: &'j Programs,
) -> Vec<Job<'j>> {
    let filter = choice.filter.as_deref();
    let mut chosen = Vec::new();
    for binary in binaries {
        let is_elsewhere =
            choice.targets.is_empty() && OTHER_KERNELS.contains(&binary.target.as_str());
        let is_wanted = !is_elsewhere && (!choice.docker || is_docker(binary));
        // What cannot list its tests is run, so that its failure is seen.
        if !is_wanted || tests(binary, filter).is_ok_and(|tests| tests.is_empty()) {
            continue;
        }
        if needs_root(binary) && choice.no_root && !is_root() {
            report.left_out(format!("{} needs root", binary.name()));
            continue;
        }
        chosen.push(binary);
    }
    if chosen.is_empty() && report.clean() {
        report.step("netns-test", || Err("no test was run".to_owned()));
    }
    let place = |binary: &&TestBinary| SLOWEST.iter().position(|target| *target == binary.target);
    chosen.sort_by_key(|binary| place(binary).unwrap_or(SLOWEST.len()));
    let job = |binary: &'j TestBinary| {
        let work = move || {
            report.step(&format!("netns-test {}", binary.name()), || {
                run(binary, choice.filter.as_deref(), programs, None)
            });
        };
        Job { needs: needs_machine(binary), work: Box::new(work) }
    };
    chosen.into_iter().map(job).collect()
}

/// The job of the tests with Fail2Ban again, with that of Debian's next release.
pub(crate) fn other_fail2ban<'j>(
    report: &'j Report,
    binaries: &'j [TestBinary],
    programs: &'j Programs,
) -> Option<Job<'j>> {
    let binary = binaries.iter().find(|binary| binary.target == "peers_fail2ban")?;
    let work = move || {
        report.step(&format!("netns-test {} with Debian's next", binary.name()), || {
            let package = fail2ban::package()?;
            // The others look at the kernel more than at Fail2Ban.
            run(binary, Some("an_a"), programs, Some(("NFGUARD_TEST_FAIL2BAN", package)))
        });
    };
    Some(Job { needs: None, work: Box::new(work) })
}

/// Runs one test program in new namespaces, with one more variable if it is given.
fn run(
    binary: &TestBinary,
    filter: Option<&str>,
    programs: &Programs,
    variable: Option<(&str, PathBuf)>,
) -> Result<Tally, String> {
    let isolation = if needs_root(binary) { Isolation::real_root() } else { Isolation::any() }?;
    let mut command = isolation.command(&binary.path, &programs.nfguard)?;
    command.current_dir(&binary.dir).env("CARGO_MANIFEST_DIR", &binary.dir).args(filter);
    if let Some(folder) = programs.examples.first().and_then(|example| example.parent()) {
        command.env("NFGUARD_EXAMPLES", folder);
    }
    command.env("NFGUARD_RESPONDER", &programs.responder).envs(variable);
    if programs.thorough {
        command.env("NFGUARD_THOROUGH", "1");
    }
    match runner::run_tests(&mut command)? {
        Tally { passed: 0, failed: 0 } => Err("no test was run".to_owned()),
        tally => Ok(tally),
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
            .env("NFGUARD_BIN", nfguard)
            .env("NFGUARD_RUN_DIR", rendezvous()?);
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

/// What the program must not share with another that runs at the same time.
fn needs_machine(binary: &TestBinary) -> Option<&'static str> {
    WITH_CONTROL_GROUPS.contains(&binary.target.as_str()).then_some("control groups")
}

fn is_docker(binary: &TestBinary) -> bool {
    binary.target.starts_with(DOCKER_PREFIX)
}

/// The names of a program's tests that match.
pub(crate) fn tests(binary: &TestBinary, filter: Option<&str>) -> Result<Vec<String>, String> {
    let mut command = Command::new(&binary.path);
    command.args(["--list", "--format", "terse"]).args(filter).current_dir(&binary.dir);
    let list = runner::output(&mut command)?;
    let names = list.lines().filter_map(|line| line.strip_suffix(": test"));
    Ok(names.map(str::to_owned).collect())
}

/// A folder of this user's, in which guards and watchdogs are found, apart from those of the machine.
fn rendezvous() -> Result<PathBuf, String> {
    let user = std::fs::metadata("/proc/self").map_err(|error| error.to_string())?.uid();
    let folder = std::env::temp_dir().join(format!("nfguard-run-{user}"));
    let made = DirBuilder::new().recursive(true).mode(0o700).create(&folder);
    made.map_err(|error| format!("{}: {error}", folder.display()))?;
    Ok(folder)
}

/// The inode of the network namespace that this process is in.
fn namespace() -> Result<String, String> {
    let link = std::fs::read_link("/proc/self/ns/net").map_err(|error| error.to_string())?;
    let link = link.to_string_lossy();
    let inode = link.strip_prefix("net:[").and_then(|rest| rest.strip_suffix(']'));
    inode.map(str::to_owned).ok_or_else(|| format!("unexpected namespace link {link}"))
}
