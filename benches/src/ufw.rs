//! The real UFW, freshly installed. Only this process and its children see its files.

use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;

use nfguard_lab::Netns;
use nix::mount::{MsFlags, mount};

use crate::{Result, Sample, run};

/// The UFW commands for `policies/traefik.json`.
const COMMANDS: [&str; 9] = [
    "default deny incoming",
    "default deny outgoing",
    "limit ssh",
    "allow 80/tcp",
    "allow 443/tcp",
    "allow out 53",
    "allow out 123/udp",
    "allow out 80/tcp",
    "allow out 443/tcp",
];

/// The programs and files of UFW.
#[derive(Debug)]
pub struct Ufw {
    settings: PathBuf,
}

impl Ufw {
    /// Gives UFW its nine rules without enabling it. The mount namespace must be our own.
    ///
    /// # Errors
    /// UFW is not installed, or fails.
    pub fn configured(dir: &Path) -> Result<Ufw> {
        let (files, defaults) = (dir.join("ufw"), dir.join("ufw-defaults"));
        copy("/usr/share/ufw/iptables", &files)?;
        for file in ["ufw.conf", "before.init", "after.init"] {
            fs::copy(Path::new("/usr/share/ufw").join(file), files.join(file))?;
        }
        copy("/etc/ufw/applications.d", &files.join("applications.d"))?;
        // UFW loads no modules and changes no settings here, because nfguard does neither.
        let text = fs::read_to_string("/etc/default/ufw")?;
        let is_kept =
            |line: &&str| !line.starts_with("IPT_SYSCTL=") && !line.starts_with("IPT_MODULES=");
        let kept: Vec<&str> = text.lines().filter(is_kept).collect();
        fs::write(&defaults, kept.join("\n") + "\nIPT_SYSCTL=\nIPT_MODULES=\n")?;
        for (copy, over) in [(&files, "/etc/ufw"), (&defaults, "/etc/default/ufw")] {
            mount(Some(copy), over, None::<&str>, MsFlags::MS_BIND, None::<&str>)?;
        }
        // UFW needs this folder for its lock.
        mount(Some("tmpfs"), "/run", Some("tmpfs"), MsFlags::empty(), None::<&str>)?;
        let ufw = Ufw { settings: files.join("ufw.conf") };
        ufw.mark_disabled()?;
        let netns = Netns::new()?;
        for command in COMMANDS {
            run(&netns, Command::new("ufw").args(command.split(' ')))?;
        }
        Ok(ufw)
    }

    /// Enables UFW in a namespace without rules, as at boot.
    ///
    /// # Errors
    /// The output of UFW.
    pub fn enable(&self, netns: &Netns) -> Result<Sample> {
        self.mark_disabled()?;
        run(netns, Command::new("ufw").args(["--force", "enable"]))
    }

    /// Marks UFW as disabled in its configuration.
    fn mark_disabled(&self) -> Result<()> {
        let text = fs::read_to_string(&self.settings)?;
        fs::write(&self.settings, text.replace("ENABLED=yes", "ENABLED=no"))?;
        Ok(())
    }
}

fn copy(from: &str, to: &Path) -> Result<()> {
    let done = Command::new("cp").arg("-r").arg(from).arg(to).status()?;
    if done.success() {
        Ok(())
    } else {
        Err(format!("no copy of {from}: is ufw installed?").into())
    }
}
