//! What the tests compare with and run in: found, or installed.

use crate::report::{Report, Tally};
use crate::runner::{self, is_root};
use crate::{build, dist};
use std::fs;
use std::os::unix::fs::PermissionsExt;
use std::path::Path;
use std::process::Command;

/// What is looked for, and the Debian package that has it.
const TOOLS: [(&str, &str); 28] = [
    ("nft", "nftables"),
    ("iptables-nft", "iptables"),
    ("ufw", "ufw"),
    ("dockerd", "docker.io"),
    ("fail2ban-server", "fail2ban"),
    ("psad", "psad"),
    // psad wants to be able to send mail: this one has no service.
    ("sendmail", "msmtp-mta"),
    ("ulogd", "ulogd2"),
    ("nmap", "nmap"),
    ("hping3", "hping3"),
    ("sshd", "openssh-server"),
    ("ssh", "openssh-client"),
    ("ip", "iproute2"),
    ("unshare", "util-linux"),
    ("qemu-system-x86_64", "qemu-system-x86"),
    ("busybox", "busybox-static"),
    ("depmod", "kmod"),
    ("cpio", "cpio"),
    ("xz", "xz-utils"),
    ("strip", "binutils"),
    ("systemd-analyze", "systemd"),
    ("strace", "strace"),
    ("socat", "socat"),
    ("groff", "groff-base"),
    ("zsh", "zsh"),
    ("fish", "fish"),
    ("/usr/include/linux/netfilter/nf_tables.h", "linux-libc-dev"),
    ("/usr/share/keyrings/debian-archive-keyring.gpg", "debian-archive-keyring"),
];

/// What the benchmarks compare with besides.
pub(crate) const BENCHMARK_TOOLS: [(&str, &str); 1] = [("ipset", "ipset")];

/// What the other libraries of the benchmarks are built with.
pub(crate) const PEER_TOOLS: [(&str, &str); 4] = [
    ("pkg-config", "pkg-config"),
    ("/usr/include/libmnl/libmnl.h", "libmnl-dev"),
    ("/usr/include/libnftnl/set.h", "libnftnl-dev"),
    // The library itself lies in a folder of its version.
    ("/var/lib/dpkg/info/libclang-dev.list", "libclang-dev"),
];

/// Cargo's own, with the versions that are known to work here.
const CARGO_TOOLS: [(&str, &str); 2] = [("cargo-deny", "0.20.2"), ("cargo-fuzz", "0.13.2")];

/// What may be removed for others: of a newer release, it keeps Debian's own emulator out.
const IN_THE_WAY: [&str; 1] = ["qemu-utils"];

const POLICY_RC: &str = "/usr/sbin/policy-rc.d";

/// Installs what is missing, or with `check` only says so.
pub(crate) fn steps(report: &mut Report, check: bool) {
    packages(report, &TOOLS, check);
    cargo_tools(report, &CARGO_TOOLS, check);
    dist::setup(report, check);
}

/// Installs those tools that are missing, or with `check` only says so.
pub(crate) fn cargo_tools(report: &mut Report, tools: &[(&str, &str)], check: bool) {
    for (tool, version) in tools {
        if present(tool) {
            continue;
        }
        report.step(&format!("setup: {tool}"), || {
            if check {
                return Err(format!("missing: cargo install --locked {tool}@{version}"));
            }
            let crate_name = format!("{tool}@{version}");
            runner::run(build::cargo().args(["install", "--locked", &crate_name]))
        });
    }
}

/// Installs the packages of those tools that are missing, or with `check` only says so.
pub(crate) fn packages(report: &mut Report, tools: &[(&str, &'static str)], check: bool) {
    report.step("setup: packages", || {
        let missing = missing_packages(tools);
        if missing.is_empty() {
            return Ok(Tally::DONE);
        }
        let list = missing.join(" ");
        if check || !is_root() || !present("apt-get") {
            return Err(format!(
                "missing: {list}\n  on Debian: sudo apt-get install --no-install-recommends {list}"
            ));
        }
        install(&missing)?;
        match missing_packages(tools) {
            left if left.is_empty() => Ok(Tally::DONE),
            left => Err(format!("still missing: {}", left.join(" "))),
        }
    });
}

fn missing_packages(tools: &[(&str, &'static str)]) -> Vec<&'static str> {
    tools.iter().filter(|(tool, _)| !present(tool)).map(|(_, package)| *package).collect()
}

fn present(tool: &str) -> bool {
    if tool.starts_with('/') {
        return Path::new(tool).exists();
    }
    std::env::split_paths(&runner::path()).any(|folder| folder.join(tool).is_file())
}

fn install(packages: &[&str]) -> Result<(), String> {
    let _no_services = NoServices::ensure()?;
    let apt = || {
        let mut command = Command::new("apt-get");
        command.env("DEBIAN_FRONTEND", "noninteractive").arg("-q");
        command
    };
    runner::run(apt().arg("update"))?;
    let careful = ["--yes", "--no-install-recommends", "--no-upgrade"];
    let plan = runner::output(apt().args(["--simulate", "install"]).args(careful).args(packages))?;
    let dear = removals(&plan).filter(|name| !IN_THE_WAY.contains(name)).collect::<Vec<_>>();
    if !dear.is_empty() {
        let (dear, list) = (dear.join(" "), packages.join(" "));
        return Err(format!(
            "apt-get would remove {dear} for it. If that may go:\n  sudo apt-get install \
             --no-install-recommends {list}"
        ));
    }
    runner::run(apt().arg("install").args(careful).args(packages))?;
    Ok(())
}

/// What `apt-get --simulate` says it would remove: `Remv qemu-utils [1:10.0.2]`.
fn removals(plan: &str) -> impl Iterator<Item = &str> {
    plan.lines().filter_map(|line| line.strip_prefix("Remv ")?.split(' ').next())
}

/// Keeps the packages' services from starting (a firewall among them) while it
/// lives. A file that was there before is left alone.
struct NoServices {
    ours: bool,
}

impl NoServices {
    fn ensure() -> Result<Self, String> {
        if Path::new(POLICY_RC).exists() {
            return Ok(Self { ours: false });
        }
        fs::write(POLICY_RC, "#!/bin/sh\nexit 101\n")
            .and_then(|()| fs::set_permissions(POLICY_RC, fs::Permissions::from_mode(0o755)))
            .map_err(|error| format!("{POLICY_RC}: {error}"))?;
        Ok(Self { ours: true })
    }
}

impl Drop for NoServices {
    fn drop(&mut self) {
        if self.ours
            && let Err(error) = fs::remove_file(POLICY_RC)
        {
            eprintln!("{POLICY_RC} could not be removed again: {error}");
        }
    }
}

#[cfg(test)]
mod tests {
    use super::removals;

    #[test]
    fn what_would_be_removed_is_read_from_the_plan() {
        let plan = "Reading package lists...\nRemv qemu-utils [1:10.0.2+ds-2]\nInst nmap (7.93)\n\
                    Remv mail-server:amd64 [1]\nConf nmap (7.93)\n";
        assert_eq!(removals(plan).collect::<Vec<_>>(), ["qemu-utils", "mail-server:amd64"]);
    }
}
