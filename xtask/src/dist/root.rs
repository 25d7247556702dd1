//! The package in a root file system of its own, with busybox for the scripts and nothing else.

use crate::report::Tally;
use crate::runner;
use std::collections::BTreeSet;
use std::fs;
use std::os::unix::fs::{PermissionsExt as _, symlink};
use std::path::{Path, PathBuf};
use std::process::Command;

const UNITS: [&str; 6] = [
    "nfguard.service",
    "nfguard-bans.service",
    "nfguard-guard.service",
    "nfguard-log.service",
    "nfguard-save.service",
    "nfguard-save.timer",
];

/// Writes down what it is asked for.
const SYSTEMCTL: &str = "#!/bin/sh\necho \"$*\" >> /systemctl.log\n";

/// Goes when its value goes.
struct Root(PathBuf);

impl Drop for Root {
    fn drop(&mut self) {
        let _ = fs::remove_dir_all(&self.0);
    }
}

/// What a package has to do on a machine, and what it must not.
pub(super) fn install_and_remove(package: &Path) -> Result<Tally, String> {
    let root = Root::new().map_err(|error| error.to_string())?;
    let before = root.files();
    root.dpkg(&["--install"], package.as_os_str().to_str().unwrap_or_default())?;
    root.asked_for(&["daemon-reload"], "installing")?;
    let check =
        ["/usr/bin/nfguard", "check", "/usr/share/doc/nfguard/examples/policies/traefik.json"];
    runner::run(&mut root.inside(&check))?;
    let mut wanted: Vec<String> = ["", "-boot", "-load", "-ban", "-guard", "-feed-add"]
        .map(|verb| format!("usr/share/man/man1/nfguard{verb}.1.gz"))
        .to_vec();
    wanted.extend(UNITS.map(|unit| format!("usr/lib/systemd/system/{unit}")));
    wanted.extend(
        [
            "usr/share/bash-completion/completions/nfguard",
            "usr/share/zsh/vendor-completions/_nfguard",
            "usr/share/fish/vendor_completions.d/nfguard.fish",
            "etc/fail2ban/action.d/nfguard.conf",
            "usr/share/doc/nfguard/copyright",
            "usr/share/doc/nfguard/examples/fail2ban/jail.d/traefik.conf",
            "usr/share/doc/nfguard/examples/psad/nflog-lines",
        ]
        .map(str::to_owned),
    );
    if let Some(missing) = wanted.iter().find(|name| !root.0.join(name).is_file()) {
        return Err(format!("{missing} is missing"));
    }

    // What an administrator changes stays, over an upgrade and a removal.
    let action = root.0.join("etc/fail2ban/action.d/nfguard.conf");
    let policy = root.0.join("etc/nfguard/policy.json");
    let state = root.0.join("var/lib/nfguard");
    let written = fs::write(&action, "# mine\n")
        .and_then(|()| fs::write(&policy, "{}"))
        .and_then(|()| fs::create_dir_all(&state));
    written.map_err(|error| error.to_string())?;
    root.dpkg(&["--force-confold", "--install"], package.to_str().unwrap_or_default())?;
    root.asked_for(
        &["daemon-reload", "try-restart nfguard-guard.service nfguard-log.service"],
        "upgrading",
    )?;
    root.dpkg(&["--remove"], "nfguard")?;
    let units = "nfguard-save.timer nfguard-bans.service nfguard-log.service nfguard-guard.service \
                 nfguard.service";
    let asked =
        [format!("stop {units}"), format!("disable --quiet {units}"), "daemon-reload".into()];
    root.asked_for(&asked.each_ref().map(String::as_str), "removing")?;
    if fs::read_to_string(&action).ok().as_deref() != Some("# mine\n") || !state.is_dir() {
        return Err("removing took what the administrator had changed".to_owned());
    }
    root.dpkg(&["--purge"], "nfguard")?;
    if !policy.is_file() {
        return Err("purging took the administrator's policy".to_owned());
    }
    let left: Vec<_> = root.files().difference(&before).cloned().collect();
    // The policy, and dpkg's own.
    let known = |name: &&String| {
        !name.starts_with("var/lib/dpkg/")
            && !name.starts_with("etc/nfguard")
            && *name != "var/log/dpkg.log"
    };
    match left.iter().find(known) {
        Some(left) => Err(format!("purging leaves {left}")),
        None => Ok(Tally::DONE),
    }
}

impl Root {
    fn new() -> std::io::Result<Root> {
        let path = std::env::temp_dir().join(format!("nfguard-root-{}", std::process::id()));
        let root = Root(path);
        for folder in
            ["bin", "dev", "tmp", "run/systemd/system", "var/lib/dpkg/info", "var/lib/dpkg/updates"]
        {
            fs::create_dir_all(root.0.join(folder))?;
        }
        // Others' folders, which dpkg must not take with it.
        for folder in ["usr/bin", "usr/lib/systemd/system", "usr/share/doc", "etc", "var/log"] {
            fs::create_dir_all(root.0.join(folder))?;
        }
        for file in ["dev/null", "var/lib/dpkg/status", "var/lib/dpkg/available"] {
            fs::write(root.0.join(file), "")?;
        }
        let busybox = std::env::split_paths(&runner::path())
            .map(|folder| folder.join("busybox"))
            .find(|program| program.is_file());
        fs::copy(busybox.unwrap_or_default(), root.0.join("bin/busybox"))?;
        for tool in ["sh", "mkdir", "rm", "rmdir"] {
            symlink("busybox", root.0.join("bin").join(tool))?;
        }
        let systemctl = root.0.join("bin/systemctl");
        fs::write(&systemctl, SYSTEMCTL)?;
        fs::set_permissions(&systemctl, fs::Permissions::from_mode(0o755))?;
        Ok(root)
    }

    fn dpkg(&self, arguments: &[&str], what: &str) -> Result<(), String> {
        let mut dpkg = Command::new("dpkg");
        dpkg.arg(format!("--root={}", self.0.display()));
        // Not into this machine's log.
        dpkg.arg(format!("--log={}", self.0.join("var/log/dpkg.log").display()));
        dpkg.env("PATH", runner::path()).args(arguments).arg(what);
        runner::run(&mut dpkg).map(drop)
    }

    fn inside(&self, command: &[&str]) -> Command {
        let mut chroot = Command::new("chroot");
        chroot.env("PATH", runner::path()).arg(&self.0).args(command);
        chroot
    }

    /// Whether systemd was asked for exactly this since the last time.
    fn asked_for(&self, expected: &[&str], when: &str) -> Result<(), String> {
        let log = self.0.join("systemctl.log");
        let said = fs::read_to_string(&log).unwrap_or_default();
        let _ = fs::remove_file(&log);
        if said.lines().eq(expected.iter().copied()) {
            return Ok(());
        }
        Err(format!("{when} asked systemd for:\n{said}"))
    }

    /// The paths of all files and folders in it.
    fn files(&self) -> BTreeSet<String> {
        let mut found = BTreeSet::new();
        walk(&self.0, &self.0, &mut found);
        found
    }
}

fn walk(root: &Path, folder: &Path, found: &mut BTreeSet<String>) {
    for entry in fs::read_dir(folder).into_iter().flatten().flatten() {
        let path = entry.path();
        let name = path.strip_prefix(root).unwrap_or(&path);
        found.insert(name.to_string_lossy().into_owned());
        if entry.file_type().is_ok_and(|kind| kind.is_dir()) {
            walk(root, &path, found);
        }
    }
}
