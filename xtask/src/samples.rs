//! The samples of Fail2Ban's filters, which are not in this repository: their licence is another.

use crate::build::{self, cargo};
use crate::kernels::apt_tools;
use crate::report::Report;
use crate::runner;
use std::fs;
use std::path::PathBuf;
use std::process::Command;

/// The release of Debian that has the source package.
const RELEASE: &str = "trixie";
const PACKAGE: &str = "fail2ban=1.1.0-8";
const ARCHIVE: &str = "fail2ban_1.1.0.orig.tar.gz";
const SHA256: &str = "474fcc25afdaf929c74329d1e4d24420caabeea1ef2e041a267ce19269570bae";

/// Tests the reader of filters with upstream's samples.
pub(crate) fn steps(report: &Report) {
    report.step("samples of Fail2Ban's filters", || {
        let source = fetch()?;
        let mut command = cargo();
        command.args(["test", "--package", "nfguard-jail", "--test", "fail2ban_samples"]);
        runner::run_tests(command.env("NFGUARD_TEST_FAIL2BAN_SOURCE", source))
    });
}

/// The unpacked source package, downloaded if it is not there.
fn fetch() -> Result<PathBuf, String> {
    let base = build::target_dir().join("fail2ban");
    let folder = base.join(SHA256);
    if folder.is_dir() {
        return Ok(folder);
    }
    let apt = base.join("apt");
    let apt_tool = apt_tools(&apt, "deb-src", RELEASE)?;
    runner::run(apt_tool("apt-get").arg("update"))?;
    runner::run(apt_tool("apt-get").args(["source", "--download-only", PACKAGE]))?;
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
