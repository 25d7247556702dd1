//! What is taken of Debian's next release of Fail2Ban: the package, and the samples of its filters, which
//! are not in this repository because their licence is another.

use crate::build::{self, cargo};
use crate::kernels::{apt_tools, unpack};
use crate::report::Report;
use crate::runner;
use std::fs;
use std::path::PathBuf;
use std::process::Command;

/// The release of Debian that has the packages.
const RELEASE: &str = "trixie";
const SOURCE: &str = "fail2ban=1.1.0-8";
const ARCHIVE: &str = "fail2ban_1.1.0.orig.tar.gz";
const SHA256: &str = "474fcc25afdaf929c74329d1e4d24420caabeea1ef2e041a267ce19269570bae";

/// Tests the reader of filters with upstream's samples.
pub(crate) fn samples(report: &Report) {
    report.step("samples of Fail2Ban's filters", || {
        let source = source()?;
        let mut command = cargo();
        command.args(["test", "--package", "nfguard-jail", "--test", "fail2ban_samples"]);
        runner::run_tests(command.env("NFGUARD_TEST_FAIL2BAN_SOURCE", source))
    });
}

/// The unpacked package, downloaded if it is not there.
pub(crate) fn package() -> Result<PathBuf, String> {
    let folder = build::target_dir().join("fail2ban").join(RELEASE);
    if !folder.is_dir() {
        let apt = build::target_dir().join("fail2ban/apt-of-package");
        let apt_tool = apt_tools(&apt, "deb", RELEASE)?;
        runner::run(apt_tool("apt-get").arg("update"))?;
        unpack(&apt_tool, &apt, "fail2ban", &folder)?;
    }
    Ok(folder)
}

/// The unpacked source package, downloaded if it is not there.
fn source() -> Result<PathBuf, String> {
    let base = build::target_dir().join("fail2ban");
    let folder = base.join(SHA256);
    if folder.is_dir() {
        return Ok(folder);
    }
    let apt = base.join("apt");
    let apt_tool = apt_tools(&apt, "deb-src", RELEASE)?;
    runner::run(apt_tool("apt-get").arg("update"))?;
    runner::run(apt_tool("apt-get").args(["source", "--download-only", SOURCE]))?;
    let archive = apt.join(ARCHIVE);
    let sum = runner::output(Command::new("sha256sum").arg(&archive))?;
    if sum.split_whitespace().next() != Some(SHA256) {
        return Err(format!("{ARCHIVE} has another checksum: {sum}"));
    }
    // The folder is there as a whole or not at all.
    let fresh = base.join("fresh");
    fs::create_dir_all(&fresh).map_err(|error| error.to_string())?;
    let mut tar = Command::new("tar");
    tar.arg("-xf").arg(&archive).arg("--strip-components=1").arg("-C").arg(&fresh);
    runner::run(&mut tar)?;
    fs::rename(&fresh, &folder).map_err(|error| error.to_string())?;
    fs::remove_dir_all(&apt).map_err(|error| error.to_string())?;
    Ok(folder)
}
