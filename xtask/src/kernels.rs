//! The kernel tests on Debian's own kernels, in a virtual machine.

mod selection;

use crate::build::{self, TestBinary};
use crate::initramfs;
use crate::lanes::{self, Lane};
use crate::netns::{E2E, PACKAGES, Programs};
use crate::output::say;
use crate::report::{Report, Tally};
use crate::runner::{self, harness_result};
use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::Duration;

pub(crate) use selection::Guest;

/// A kernel version and the Debian release that has it, the oldest first.
static KERNELS: [(&str, &str); 2] = [("6.1", "bookworm"), ("6.12", "trixie")];

/// A boot takes seconds. The tests of one take minutes, because the machine is emulated, and twice as
/// many where others use the processors. What has stopped is silent, and ended sooner.
const LIMIT: Duration = Duration::from_secs(60 * 60);

/// Which kernels and tests.
#[derive(Debug, Default, clap::Args)]
pub(crate) struct Choice {
    /// Kernel versions, such as 6.1; all if none is given
    pub(crate) versions: Vec<String>,
    /// Build and run only test targets whose name contains this
    #[arg(long)]
    pub(crate) only: Option<String>,
    /// Also the tests that give the same answer on every kernel
    #[arg(long)]
    pub(crate) all: bool,
}

/// Builds the tests and runs the chosen ones on the chosen kernels.
pub(crate) fn steps(report: &Report, choice: &Choice) {
    let (mut binaries, mut programs) = (Vec::new(), Programs::default());
    report.step("build the tests", || {
        let targets = choice.only.as_deref().map(|part| format!("*{part}*"));
        let selection = match &targets {
            Some(targets) => vec!["--package", E2E, "--test", targets],
            None => PACKAGES.iter().flat_map(|package| ["--package", package]).collect(),
        };
        binaries = build::test_binaries(&selection)?;
        programs = Programs::build(None)?;
        Ok(Tally::DONE)
    });
    let guests = guests(report, &binaries, choice);
    if report.clean() {
        lanes::run(lanes(report, &guests, choice, &programs));
    }
}

/// The chosen tests, of those that are built.
pub(crate) fn guests(report: &Report, binaries: &[TestBinary], choice: &Choice) -> Vec<Guest> {
    let mut guests = Vec::new();
    report.step("kernels: which tests", || {
        guests = selection::choose(binaries, choice.all)?;
        if guests.is_empty() { Err("none".to_owned()) } else { Ok(Tally::DONE) }
    });
    guests
}

/// A lane for each chosen kernel.
pub(crate) fn lanes<'l>(
    report: &'l Report,
    guests: &'l [Guest],
    choice: &'l Choice,
    programs: &'l Programs,
) -> Vec<Lane<'l>> {
    for version in choice.versions.iter().filter(|v| KERNELS.iter().all(|(known, _)| known != v)) {
        report.step(&format!("kernel {version}"), || {
            Err(format!("not among {}", KERNELS.map(|(known, _)| known).join(", ")))
        });
    }
    let is_chosen = |version: &str| {
        choice.versions.is_empty() || choice.versions.iter().any(|wanted| wanted == version)
    };
    let chosen = KERNELS.iter().filter(|(version, _)| is_chosen(version));
    let all = choice.all || choice.only.is_some();
    let lane = move |&(version, release): &'static (&str, &str)| {
        let steps = move || {
            let takes_all = all || version == KERNELS[0].0;
            let taken = guests.iter().filter(|guest| takes_all || selection::is_for_newer(guest));
            let taken: Vec<Guest> = taken.cloned().collect();
            report.step(&format!("kernel {version}"), || run(version, release, &taken, programs));
        };
        Box::new(steps) as Lane<'l>
    };
    chosen.map(lane).collect()
}

fn run(
    version: &str,
    release: &str,
    guests: &[Guest],
    programs: &Programs,
) -> Result<Tally, String> {
    let folder = build::target_dir().join("kernels").join(version);
    let kernel = fetch(&folder, release)?;
    let image = initramfs::build(&folder, guests, programs)?;
    // Now and then the emulator crashes or stops a kernel in the middle, at another place each time.
    // What has no verdict twice is no accident.
    boot(&kernel, &image).or_else(|error| {
        say(format_args!("-- {error}: once more"));
        boot(&kernel, &image)
    })
}

/// The kernel's package unpacked below `folder`, downloaded if it is not there.
/// Nothing is installed, and apt's own lists are left alone.
fn fetch(folder: &Path, release: &str) -> Result<PathBuf, String> {
    if let Some(kernel) = unpacked(folder) {
        return Ok(kernel);
    }
    let apt = folder.join("apt");
    let apt_tool = apt_tools(&apt, "deb", release)?;
    runner::run(apt_tool("apt-get").arg("update"))?;
    let meta = runner::output(apt_tool("apt-cache").args(["show", "linux-image-cloud-amd64"]))?;
    let package = image_package(&meta).ok_or("no kernel image in the package's dependencies")?;
    unpack(&apt_tool, &apt, package, folder)?;
    unpacked(folder).ok_or_else(|| "the package has no kernel".to_owned())
}

/// Makes a folder for apt with lists of its own, of binary or of source packages of a release.
pub(crate) fn apt_tools<'f>(
    apt: &'f Path,
    kind: &str,
    release: &str,
) -> Result<impl Fn(&str) -> Command + 'f, String> {
    for part in ["lists/partial", "cache/archives/partial"] {
        fs::create_dir_all(apt.join(part)).map_err(|error| error.to_string())?;
    }
    let source = format!(
        "{kind} [signed-by=/usr/share/keyrings/debian-archive-keyring.gpg] {} {release} main\n",
        mirror()
    );
    fs::write(apt.join("sources.list"), source).map_err(|error| error.to_string())?;
    Ok(move |tool: &str| {
        let mut command = Command::new(tool);
        command.current_dir(apt).arg("-q");
        for (key, value) in [
            ("Dir::Etc::sourcelist", apt.join("sources.list")),
            ("Dir::Etc::sourceparts", PathBuf::from("/dev/null")),
            ("Dir::State::lists", apt.join("lists")),
            ("Dir::Cache", apt.join("cache")),
        ] {
            command.arg("-o").arg(format!("{key}={}", value.display()));
        }
        command
    })
}

/// Downloads a package with apt's tools in `apt`, and unpacks it below `folder`. Removes `apt`.
pub(crate) fn unpack(
    apt_tool: &impl Fn(&str) -> Command,
    apt: &Path,
    package: &str,
    folder: &Path,
) -> Result<(), String> {
    runner::run(apt_tool("apt-get").args(["download", package]))?;
    let deb = entries(apt)
        .find(|path| path.extension().is_some_and(|extension| extension == "deb"))
        .ok_or("apt-get left no package")?;
    runner::run(Command::new("dpkg-deb").arg("-x").arg(deb).arg(folder))?;
    fs::remove_dir_all(apt).map_err(|error| error.to_string())
}

fn unpacked(folder: &Path) -> Option<PathBuf> {
    entries(&folder.join("boot")).find(|path| {
        path.file_name().is_some_and(|name| name.to_string_lossy().starts_with("vmlinuz-"))
    })
}

fn entries(folder: &Path) -> impl Iterator<Item = PathBuf> {
    fs::read_dir(folder).into_iter().flatten().flatten().map(|entry| entry.path())
}

/// The Debian mirror that this machine uses.
fn mirror() -> String {
    let mut command = Command::new("apt-get");
    command.args(["indextargets", "--format", "$(ORIGIN) $(LABEL) $(REPO_URI)"]);
    let targets = runner::output(command.arg("Created-By: Packages")).unwrap_or_default();
    let mirror = targets.lines().find_map(|line| line.strip_prefix("Debian Debian "));
    mirror.unwrap_or("http://deb.debian.org/debian").to_owned()
}

/// `Depends: linux-image-6.1.0-50-cloud-amd64 (= 6.1.176-1)` of the package
/// that always depends on the newest.
fn image_package(meta: &str) -> Option<&str> {
    let depends = meta.lines().find_map(|line| line.strip_prefix("Depends: "))?;
    depends.split([' ', ',']).find(|name| name.starts_with("linux-image-"))
}

/// Boots and reads the verdict from the console.
fn boot(kernel: &Path, image: &Path) -> Result<Tally, String> {
    let mut command = Command::new("qemu-system-x86_64");
    // Emulated: nested virtualisation, where it exists at all, may hang the
    // guest, and the boot is quick enough without. Without cmpxchg16b, because
    // qemu 7.2 emulates it wrongly and 6.12 uses it in its allocator: half of
    // the boots ended in random oopses.
    command
        .args(["-M", "q35", "-accel", "tcg", "-cpu", "max,-cx16", "-smp", "2"])
        .args(["-m", "2G", "-nic", "none", "-no-reboot"])
        .args(["-display", "none", "-monitor", "none", "-serial", "stdio"])
        .arg("-kernel")
        .arg(kernel)
        .arg("-initrd")
        .arg(image)
        .args(["-append", "console=ttyS0 quiet panic=-1"]);
    let mut console = Console::default();
    let ended = runner::run_lines(&mut command, LIMIT, |line| console.line(line));
    let verdict = ended.and_then(|_| console.verdict());
    if verdict.is_err() && !console.greeted {
        let start = console.lines.len().saturating_sub(40);
        say(console.lines[start..].join("\n"));
    }
    verdict
}

/// What the virtual machine says: see the init script in `initramfs`.
#[derive(Debug, Default)]
struct Console {
    lines: Vec<String>,
    greeted: bool,
    tally: Tally,
    /// The tests of the program that is running.
    program: Tally,
    done: bool,
}

impl Console {
    fn line(&mut self, line: &str) {
        // The firmware's escape sequences stay out of the terminal.
        self.greeted |= line.contains(initramfs::GREETING);
        if self.greeted {
            say(line);
        }
        self.lines.push(line.to_owned());
        if let Some(tally) = harness_result(line) {
            self.program.add(tally);
        } else if let Some(status) = line.strip_prefix(initramfs::EXIT) {
            let mut program = std::mem::take(&mut self.program);
            if program.failed == 0 && (status != "0" || program.passed == 0) {
                program.failed = 1;
            }
            self.tally.add(program);
        }
        self.done |= line == initramfs::DONE;
    }

    fn verdict(&self) -> Result<Tally, String> {
        match self.tally {
            _ if !self.done => Err("the machine ended without a verdict".to_owned()),
            Tally { passed: 0, failed: 0 } => Err("no test was run".to_owned()),
            tally => Ok(tally),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::{Console, Tally, image_package};

    fn verdict(lines: &[&str]) -> Result<Tally, String> {
        let mut console = Console::default();
        lines.iter().for_each(|line| console.line(line));
        console.verdict()
    }

    #[test]
    fn the_image_is_what_the_meta_package_depends_on() {
        let meta = "Version: 6.1.176-1\nDepends: linux-image-6.1.0-50-cloud-amd64 (= 6.1.176-1)\n";
        assert_eq!(image_package(meta), Some("linux-image-6.1.0-50-cloud-amd64"));
    }

    #[test]
    fn a_boot_without_its_last_line_is_no_verdict() {
        let lines = ["test result: ok. 3 passed; 0 failed; 0 ignored", "nfguard-exit 0"];
        assert!(verdict(&lines).is_err());
    }

    #[test]
    fn a_program_that_crashes_fails_the_boot() {
        let good = "test result: ok. 3 passed; 0 failed; 0 ignored";
        let lines = [good, "nfguard-exit 0", "nfguard-exit 139", "nfguard-done"];
        assert_eq!(verdict(&lines), Ok(Tally { passed: 3, failed: 1 }));
    }
}
